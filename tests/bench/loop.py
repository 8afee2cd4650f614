"""The event loop of the load makers: uvloop where it is installed, plain asyncio elsewhere."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import TypeVar

Result = TypeVar("Result")


def run(work: Coroutine[object, object, Result]) -> Result:
    """Run a coroutine to its end on the quickest loop there is."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        from uvloop import new_event_loop as factory  # noqa: PLC0415 (optional)
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)
