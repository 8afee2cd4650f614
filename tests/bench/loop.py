"""The event loop of the load makers: uvloop where it is installed, plain asyncio elsewhere."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

Result = TypeVar("Result")


def run(work: Coroutine[object, object, Result]) -> Result:
    """Run a coroutine to its end on the quickest loop there is."""
    try:
        from uvloop import new_event_loop  # noqa: PLC0415 (optional)
    except ImportError:
        new_event_loop = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)
