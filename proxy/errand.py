"""
One question of ours to a server of a pool, for somebody who is no client (yet).

Theory. Whoever has an errand stands in the pool's queue like a client, and takes what it gets to the place where we run
queries of our own (TESTING). The server goes back to the pool as soon as it has answered. What is asked, and that
nothing of it is left behind in the server's session, is the business of those who have errands (fitting.py,
auth/enquiry.py).

Whoever gives up, by a timeout or because it has left, is taken out of the queue; a server that is being asked then
finishes that for nobody. One that does not answer within PATIENCE is closed by the janitor.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from protocol import sqlstate
from protocol.backend import ErrorFields
from protocol.errors import Refused
from protocol.parameters import ParameterSet
from proxy.chores import Chore
from proxy.failing import LoginFailed
from proxy.farewell import ERRORS
from proxy.log import Address, Tag
from proxy.states import CLOSING, IDLE, TESTING, Closing, PoolState, move

PATIENCE: Final = 10.0  # seconds, for the answer
TICK: Final = 0.2  # seconds between looks at whether anybody is still there
MAX_ANSWER: Final = 262_144  # bytes


class Answer(Chore):
    """Keeps what the server says. It is read a turn later: its last bytes come just after its ReadyForQuery."""

    __slots__ = ("data", "is_cut")

    def __init__(self, end: "asyncio.Future[None]") -> None:
        super().__init__(lambda _: end.get_loop().call_soon(_end, end))
        self.data = b""
        self.is_cut = False  # it was too long

    def deliver(self, data: bytes) -> None:
        if len(self.data) + len(data) <= MAX_ANSWER and not self.is_cut:
            self.data += data
        else:
            self.is_cut = True

    def finish(self, server: Any, data: bytes) -> None:
        self.deliver(data)
        self.answered(server)


def _end(end: "asyncio.Future[None]") -> None:
    if not end.done():
        end.set_result(None)


class Errand:
    """In the queue of a pool and then on a server. `ask(server, answer)` writes the question and enters its debts."""

    is_line = False
    is_notified = True  # its notice would come in the middle of a login

    def __init__(
        self, pool: Any, ask: Callable[[Any, Answer], None], followed: ParameterSet | None = None, user: str = ""
    ) -> None:
        self.pool = pool
        self.user = user
        self.followed: ParameterSet = {} if followed is None else followed
        self.waiting_since: float = pool.now()
        self._ask = ask
        self._server: Any = None
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answer = Answer(self._end)

    @property
    def tag(self) -> Tag:
        """Who we are, for the log."""
        return Tag("C", id(self), self.pool.database, self.user, Address("", 0))

    # What the pool and the janitor call.

    def resume(self, server: Any) -> None:
        """`server` is ours for one question."""
        if server.state is not IDLE:
            move(server, IDLE)
        move(server, TESTING)
        server.deadline = self.pool.now() + PATIENCE
        server.unnamed = None
        self._server = server
        self._ask(server, self.answer)

    def close(self, why: Closing) -> None:
        self.refuse(ERRORS[why], why)

    def refuse(self, error: ErrorFields, why: Closing, note: str = "") -> None:
        """As a client's; the login that waits for us logs it."""
        self.pool.waiting.pop(self, None)
        if not self._end.done():
            self._end.set_exception(refusal_of(error, note))

    # What the login calls.

    async def wait(self) -> Answer | None:
        """What the server says; None when it was lost on the way. LoginFailed when there is none; Refused."""
        server = self.pool.acquire(self)
        if server is not None:
            self.resume(server)
        try:
            while not self._end.done():
                if self._server is not None and self._server.state >= CLOSING:
                    return None
                self._check_hope()
                await asyncio.wait([self._end], timeout=TICK)
            self._end.result()
        finally:
            self.pool.waiting.pop(self, None)
            self._end.cancel()
        return self.answer

    def _check_hope(self) -> None:
        """LoginFailed when no server will come."""
        pool = self.pool
        if pool.state is PoolState.DYING:
            raise LoginFailed(sqlstate.ADMIN_SHUTDOWN, Closing.DATABASE_GONE.value)
        if self._server is None:
            pool.check_hope()


def refusal_of(error: ErrorFields, note: str = "") -> Refused:
    """A server's error, for the visitor on whose account it was asked."""
    return Refused(error.sqlstate, error.message, detail=error.detail, hint=error.hint, note=note)
