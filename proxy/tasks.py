"""
Work in the background that cannot get lost.

Theory. The event loop holds a task only weakly, and keeps the exception of one that nobody awaits until the garbage
collector comes by, if ever: a janitor could die on a Monday and be missed on Friday. So every task is started
here, by name. It is held until it is done, and if it fails the log says so at once, with the traceback, even if
somebody awaits it as well. What a coroutine expects to go wrong it handles itself; what comes out here is a bug.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from proxy.log import Log

T = TypeVar("T")

TRACEBACK_LINES = 40  # of each failure, the last ones: they are nearest to it


def drive(coroutine: Coroutine[Any, Any, object]) -> None:
    """Run `coroutine` without a task, which costs 5 us: for those that only wait for futures and are never cancelled.

    What it raises comes out here, or at the loop's exception handler once it has waited.
    """
    try:
        future = coroutine.send(None)
    except StopIteration:
        return
    future._asyncio_future_blocking = False  # as a task says that it has seen it
    future.add_done_callback(lambda _: drive(coroutine))


class Tasks:
    """All tasks of one proxy."""

    __slots__ = ("_log", "_running")

    def __init__(self, log: Log) -> None:
        self._log = log
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, coroutine: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Run `coroutine` in the background. Returns at once; should it fail, the log says so under `name`."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._running.add(task)
        task.add_done_callback(self._finish)
        return task

    async def repeat(self, seconds: float, work: Callable[[], Awaitable[None] | None], who: str) -> None:
        """Do `work` every so many `seconds`, for ever. If it fails the log says that `who` stumbled, and it goes on."""
        while True:
            await asyncio.sleep(seconds)
            try:
                pending = work()
                if pending is not None:
                    await pending
            except Exception as error:
                self.report(f"{who} stumbled and goes on", error)

    async def cancel_all(self) -> None:
        """Cancel every task but the one that asks, and those they start while ending; return when all are done."""
        myself = asyncio.current_task()
        while others := self._running - {myself}:
            for task in others:
                task.cancel()
            await asyncio.wait(others)
            self._running -= others

    def on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """For `loop.set_exception_handler`: a callback that raised is logged like a task that failed."""
        what = str(context.get("message", "unhandled error in the event loop"))
        error = context.get("exception")
        if isinstance(error, BaseException):
            self.report(what, error)
        else:
            self._log.error(what)

    def report(self, what: str, error: BaseException) -> None:
        """Log `what`, then the error with its traceback, line by line. For the log only: never to a client."""
        self._log.error(f"{what}: {type(error).__name__}: {error}")
        text = "".join(traceback.format_exception(error))
        for line in text.splitlines()[-TRACEBACK_LINES:]:
            self._log.error(f"    {line}")

    def _finish(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.report(f"task {task.get_name()} failed", error)
