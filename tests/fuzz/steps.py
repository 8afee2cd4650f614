"""
What something costs in operations: bytecode instructions of the interpreter, which no other load on a machine changes.

Theory. "In linear time" is a claim about growth. A clock cannot show it on a machine that does something else as well;
a count of instructions can, and is the same on every run. It does not see what happens inside one call into C: regular
expressions are counted by `backtracking.py`, and slices and joins are as long as what they copy.
"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def count_steps(work: Callable[[], object], *errors: type[Exception]) -> int:
    """Instructions that `work` takes; `errors` end it as well as any."""
    steps = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal steps
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        steps += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except errors:
        pass
    finally:
        sys.settrace(before)
    return steps


def growth(work: Callable[[int], object], size: int, *errors: type[Exception]) -> float:
    """How many times more a four times larger input costs: 4 is linear, 16 is quadratic."""
    count_steps(lambda: work(1), *errors)  # what is made once is not counted
    return count_steps(lambda: work(4 * size), *errors) / count_steps(lambda: work(size), *errors)
