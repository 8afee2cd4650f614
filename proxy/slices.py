"""
Floods, in slices: who has said more than one turn of the loop should bear gets on with it while others get theirs.

Theory. One read brings up to 256 kB, and that may be twenty thousand tiny messages: tens of milliseconds of work in
which nobody else is heard, and hundreds may do so at the same time. A stream (a client that asks without waiting, a
server that answers it) takes so many messages at once and no more, is not read meanwhile, and stands in line here for
the rest. In each turn of the loop all of them together get `BUDGET`, first come, first served; so what a flood costs
the others in a turn does not depend on how many take part in it.
"""

import asyncio
import time
from collections import deque
from typing import Any, Final

BUDGET: Final = 0.003  # seconds


class Slices:
    """One per proxy."""

    def __init__(self) -> None:
        self._waiting: deque[Any] = deque()
        self._is_due = False

    def add(self, stream: Any) -> None:
        """`stream.take_slice` will be called soon, once."""
        self._waiting.append(stream)
        self._plan()

    def _plan(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._serve)

    def _serve(self) -> None:
        self._is_due = False
        end = time.perf_counter() + BUDGET
        try:
            for _ in range(len(self._waiting)):
                self._waiting.popleft().take_slice()  # it may come back, behind all others
                if time.perf_counter() >= end:
                    break
        finally:
            if self._waiting:
                self._plan()
