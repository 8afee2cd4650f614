"""
A few threads for libraries that wait: LDAP's and PAM's, which know no event loop.

Theory. Such a call may take as long as it pleases, and nobody can stop it: a thread is free again when its work is
done, not when nobody wants to know any more. So there are few, a stuck one is one less, and whoever finds none free
waits as a coroutine, which ends with its connection. Nobody waits longer than PATIENCE, for a thread and its work
together: a directory that hangs costs logins, each of which hears so, and never a query.

The threads are daemons: one that hangs in a library does not keep the process from ending.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

THREADS: Final = 8  # a login at a directory takes milliseconds, so these are hundreds of logins a second
PATIENCE: Final = 20.0  # seconds


class NoAnswer(Exception):
    """The work is not done, and nobody waits for it any more."""


class Crew:
    """One per library."""

    def __init__(self, name: str, threads: int = THREADS, patience: float = PATIENCE) -> None:
        self._name = name
        self._free = asyncio.Semaphore(threads)
        self._patience = patience

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns or raises, when a thread has done it. NoAnswer: it takes too long."""
        try:
            async with asyncio.timeout(self._patience) as scope:
                await self._free.acquire()
                return await self._start(lambda: work(*args, **kwargs))
        except TimeoutError:
            if not scope.expired():
                raise
            raise NoAnswer(f"no answer within {self._patience:g} s") from None

    def _start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def do() -> None:
            try:
                result, error = work(), None
            except Exception as raised:  # whatever it is, whoever waits shall have it
                result, error = None, raised
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(self._finish, answer, result, error)

        threading.Thread(target=do, name=self._name, daemon=True).start()
        return answer

    def _finish(self, answer: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
        self._free.release()
        if answer.done():  # nobody waits any more
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)
