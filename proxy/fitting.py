"""
A visitor's startup parameters are tried on, on a server of its pool, before it is let in.

Theory. A server must say whether it takes a value, and how it spells it; afterwards the pool knows, and the next
visitor with the same wish costs nothing (`Learnt.spelled`). Until then the visitor needs a server for one round trip:
a `Fitting` stands in the pool's queue like a client, and takes what it gets to the place where we run queries of our
own (TESTING). What it asks leaves nothing behind, so the server goes back at once; see protocol/trial.py.

application_name is never asked: every server takes it, and we have cleaned it. Nor is a value the pool's servers have
by themselves.

Whoever gives up, by a timeout or because it has left, is taken out of the queue; a server that is being asked then
finishes that for nobody.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from protocol import sqlstate
from protocol.backend import ErrorFields
from protocol.errors import ProtocolError, Refused
from protocol.ledger import ONE_QUERY
from protocol.parameters import ParameterSet
from protocol.trial import build_trial, parse_trial
from proxy.chores import Chore
from proxy.failing import LoginFailed
from proxy.farewell import ERRORS
from proxy.states import CLOSING, IDLE, TESTING, Closing, PoolState, move

PATIENCE = 10.0  # seconds, for the answer
TICK = 0.2  # seconds between looks at whether anybody is still there
TRIES = 3  # servers, where the first ones are lost
MAX_ANSWER = 262_144  # bytes
UNASKED = frozenset({"application_name"})


async def wait_spelled(pool: Any, wishes: Mapping[str, str], base: ParameterSet, user: str = "") -> dict[str, str]:
    """The wishes as the pool's servers spell them. Refused in the server's words; LoginFailed when there is none."""
    known = pool.learnt.spelled
    unknown = {
        name: value
        for name, value in wishes.items()
        if name not in UNASKED and base.get(name) != value and (name, value) not in known
    }
    if unknown:
        pool.learnt.spell(unknown, await _wait_answer(pool, unknown, base, user))
    return {name: pool.learnt.spelled.get((name, value), value) for name, value in wishes.items()}


async def _wait_answer(pool: Any, wishes: Mapping[str, str], base: ParameterSet, user: str) -> dict[str, str]:
    for _ in range(TRIES):
        answer = await Fitting(pool, wishes, base, user).wait()
        if answer is not None:
            return answer
    raise LoginFailed(sqlstate.CONNECTION_FAILURE, Closing.CRASHED.value)


class _Trial(Chore):
    """Keeps the answer. It is read a turn later: its last bytes come just after its ReadyForQuery."""

    __slots__ = ("data",)

    def __init__(self, end: "asyncio.Future[None]") -> None:
        super().__init__(lambda _: end.get_loop().call_soon(_end, end))
        self.data = b""

    def deliver(self, data: bytes) -> None:
        if len(self.data) <= MAX_ANSWER:
            self.data += data

    def finish(self, server: Any, data: bytes) -> None:
        self.deliver(data)
        self.answered(server)


def _end(end: "asyncio.Future[None]") -> None:
    if not end.done():
        end.set_result(None)


class Fitting:
    """One visitor's wishes, in the queue of a pool and then on a server."""

    is_notified = True  # its notice would come in the middle of a login

    def __init__(self, pool: Any, wishes: Mapping[str, str], base: ParameterSet, user: str = "") -> None:
        self.pool = pool
        self.user = user
        self.wishes = wishes
        self.base = base
        self.followed = base
        self.waiting_since: float = pool.now()
        self._server: Any = None
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._trial = _Trial(self._end)

    # What the pool and the janitor call.

    def resume(self, server: Any) -> None:
        """`server` is ours for one question."""
        if server.state is not IDLE:
            move(server, IDLE)
        move(server, TESTING)
        server.deadline = self.pool.now() + PATIENCE
        server.unnamed = None
        self._server = server
        server.ledger.expect(ONE_QUERY, self._trial)
        server.transport.write(build_trial(self.wishes, self.base, server.followed))

    def close(self, why: Closing) -> None:
        self.refuse(ERRORS[why], why)

    def refuse(self, error: ErrorFields, why: Closing, note: str = "") -> None:
        """As a client's; the login that waits for us logs it."""
        self.pool.waiting.pop(self, None)
        if not self._end.done():
            self._end.set_exception(_refusal(error, note))

    # What the login calls.

    async def wait(self) -> dict[str, str] | None:
        """The spelled wishes; None when the server was lost on the way."""
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
        return self._read()

    def _check_hope(self) -> None:
        """LoginFailed when no server will come."""
        pool = self.pool
        if pool.state is PoolState.DYING:
            raise LoginFailed(sqlstate.ADMIN_SHUTDOWN, Closing.DATABASE_GONE.value)
        if self._server is None:
            pool.check_hope()

    def _read(self) -> dict[str, str] | None:
        error = self._trial.error
        if error is not None:
            if error.sqlstate == sqlstate.QUERY_CANCELED:
                return None  # a timeout of somebody else's
            raise _refusal(error)
        try:
            return parse_trial(self.wishes, self._trial.data, self.base.get("client_encoding", ""))
        except ProtocolError:
            return None


def _refusal(error: ErrorFields, note: str = "") -> Refused:
    return Refused(error.sqlstate, error.message, detail=error.detail, hint=error.hint, note=note)
