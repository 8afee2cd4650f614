"""
One client's unit in a line: it owns the debts, and hands the answer to its client.

Theory. A unit is made when its client asks, and lives until it is answered. What it said is kept as long, since a unit
may have to run again. That is safe for those that share lines, which read; and it happens only where nothing was heard
of the first try but an error that was not its own:

- PostgreSQL's cancel hits whatever runs when it arrives, and behind the one that is meant may stand a stranger: so once
  a cancel has been on its way, the beginning of his answer is kept back until he is certain to have all of it;
- the server did not have the statement it runs, or its plan was stale: then a server of its client's own knows better;
- it stood behind somebody who waits for a lock, and has not begun (stuck.py).

Who is hit in this way never learns of it: the error is swallowed, the unit stands in line again as a new one, and the
old one, whose client is None from then on, takes what still comes. So does that of a client that has left.
"""

import asyncio
from typing import Any, NoReturn

from protocol import codes, sqlstate
from protocol.backend import READY_IDLE_MESSAGE, ErrorFields, build_error
from protocol.errors import ProtocolError
from protocol.ledger import ONE_QUERY, Debt
from proxy.requests import PASS
from proxy.reword import is_missing, is_replanned
from proxy.states import GONE, LINED, RESTING, Closing

MAX_KEPT = 65_536  # bytes of an answer that are kept back
MAX_RUNS = 3  # the last one is on a server of its own


class Unit:
    """A simple query of `client`, in line."""

    __slots__ = ("__dict__", "client", "data", "line", "shape", "since")  # (in the dict: what seldom is so)

    debts: tuple[Debt, ...] = ONE_QUERY
    care: int = PASS
    statement: Any = None
    said: bytes = b""  # what the client said, where `data` is something else
    size: int = 0  # of the answer so far, where that comes in pieces
    kept: bytes = b""  # of that, what its client has not heard yet, since it may run again
    was_heard: bool = False  # has its client heard anything?
    runs: int = 1  # which try this is
    is_loner: bool = False  # it goes by itself: see groups.py
    is_canceled: bool = False  # its client wants it to end
    is_notified: bool = False  # its client has been told that it waits
    was_told: bool = False  # its client has heard the FATAL its server ended with

    def __init__(self, client: Any, data: bytes, shape: Any, now: float) -> None:
        self.client = client  # None: it has left, or stands elsewhere
        self.data = data  # as it is sent
        self.shape = shape
        self.since = now  # when it was asked; once it is sent, when that was
        self.line: Any = None  # where it was sent

    @property
    def server(self) -> Any:
        """Where it has been sent; None: nowhere yet."""
        return self.line.server if self.line is not None else None

    @property
    def units(self) -> list["Unit"]:
        """As a group's (groups.py)."""
        return [self]

    @property
    def is_sent(self) -> bool:
        return self.line is not None

    @property
    def may_run_again(self) -> bool:
        """Has nobody heard anything of it?"""
        return not self.was_heard

    def make_again(self) -> "Unit":
        """The next try, for the same client; this one is nobody's now."""
        client, self.client = self.client, None
        client.pool.stats.line_rerun_count += 1
        again = self._copy(client)
        again.runs = self.runs + 1
        again.is_loner = self.is_loner
        again.is_notified = self.is_notified
        client.unit = again
        return again

    def _copy(self, client: Any) -> "Unit":
        return Unit(client, self.data, self.shape, self.since)

    def go_alone(self) -> None:
        """It shall have a server of its client's own."""
        if self.is_canceled:
            self.end_canceled()
            return
        client, self.client = self.client, None
        let_off(client, client.pool.now())
        client.ask_alone(self.said or self.data, self.debts, self.care)
        client.is_notified = self.is_notified

    # What its client calls.

    def cancel_unsent(self) -> bool:
        """Answer it with 57014. False: it has been sent already."""
        if self.line is not None or self.client.is_choked:
            return False
        self.end_canceled()
        return True

    def end_canceled(self) -> None:
        """Nothing was heard of it, and its client wants nothing of it any more but 57014."""
        client, self.client = self.client, None
        error = build_error("ERROR", sqlstate.QUERY_CANCELED, "canceling statement due to user request")
        let_off(client, client.pool.now())
        client.deliver(error + READY_IDLE_MESSAGE)

    def prepare_cancel(self) -> Any:
        """A cancel request is about to be sent to our server, which is returned."""
        self.is_canceled = True
        if self.line is not None:
            self.line.was_canceled = True
        return self.server

    def abandon(self, *, cancel: bool) -> None:
        """Our client leaves. Who runs is cancelled; who stands behind others is short, and reaches nobody."""
        client, self.client = self.client, None
        client.unit = None
        server = self.server
        if server is not None:
            self.line.let_go()
            if cancel and server.ledger.head[1] is self:
                self.is_canceled = self.line.was_canceled = True
                server.pool.world.issue_cancel(server)

    def let_go(self) -> None:
        """Our client reads again."""
        if self.line is not None:
            self.line.let_go()

    # What a server calls.

    def deliver(self, data: bytes) -> None:
        self.size += len(data)
        if self.client is None or self.client.state is GONE:
            return
        if self.line.was_canceled and not (self.was_heard or self.is_canceled or self.size > MAX_KEPT):
            self.kept += data
        else:
            self.pass_on(data)

    def pass_on(self, data: bytes) -> None:
        """Our client hears what was kept back, and `data`."""
        client = self.client
        data = self.take_kept(data)
        self.was_heard = True
        client.deliver(data)
        # (These may be its last bytes, and the line be others' already.)
        if client.is_choked and client.unit is self and self.line.lines.unread.is_too_much(client):
            self.line.hold()

    def take_kept(self, data: bytes) -> bytes:
        """What was kept back, and `data`."""
        data, self.kept = self.kept + data, b""
        return data

    def failed(self, error: ErrorFields) -> bytes | None:
        if error.is_fatal:
            self.was_told = True
        client = self.client
        if client is None:
            return b""
        if self.may_run_again and not error.is_fatal:
            if self._is_hit(error):
                self.line.lines.run_again([self])
                return b""
            if self.statement is not None and (is_replanned(error) or is_missing(error, self.statement.name)):
                self.line.distrust(error)
                self.line.lines.run_again([self], alone=[self])
                return b""
        answer: bytes | None = client.failed(error)
        return answer

    def _is_hit(self, error: ErrorFields) -> bool:
        """Was this cancelled in the place of another?"""
        return error.sqlstate == sqlstate.QUERY_CANCELED and self.line.was_canceled and not self.is_canceled

    def answered(self, server: Any) -> None:
        """Its ReadyForQuery has come; the last bytes of the answer come a moment later."""
        if server.status != codes.IDLE:
            self._break_off(server)
        now = self.line.advance(self)
        self.was_heard = True
        client = self.client
        if client is not None and client.state is not GONE:
            client.request_at = client.xact_at = self.since
            client.pool.stats.line_query_count += 1
            client.answered(server)
            let_off(client, now)

    def finish(self, server: Any, data: bytes) -> None:
        """The whole answer: `answered` and `deliver` in one."""
        if server.status != codes.IDLE:
            self._break_off(server)
        self.line.hand_over([(self, self.take_kept(data) if self.kept else data)])

    def _break_off(self, server: Any) -> NoReturn:
        """Its server will be closed. It is owed nothing any more, so nobody else would tell its client."""
        client, self.client = self.client, None
        if client is not None:
            let_off(client, client.pool.now())
            cut = client if server.recipient is self else None
            client.lose_server(Closing.HOSTILE, None, was_told=self.was_told, cut=cut)
        raise ProtocolError("a transaction that nobody has begun")

    def voided(self) -> None:
        """An error has paid something of it; `failed` knows."""

    def relieve(self) -> None:
        """There is nothing that waits."""


class Round(Unit):
    """A round of the extended protocol: see rounds.py. `said` is what the client said, `data` the same in our words."""

    __slots__ = ("care", "debts", "said", "statement")  # fmt: skip

    def __init__(
        self, client: Any, data: bytes, shape: Any, now: float,
        said: bytes, debts: tuple[Debt, ...], care: int, statement: Any,
    ) -> None:  # fmt: skip
        self.client = client  # (not by `super`: this is asked often)
        self.data = data
        self.shape = shape
        self.since = now
        self.line = None
        self.said = said
        self.debts = debts
        self.care = care
        self.statement = statement  # the named one that it runs, if it does

    def _copy(self, client: Any) -> Unit:
        return Round(client, self.data, self.shape, self.since, self.said, self.debts, self.care, self.statement)


def let_off(client: Any, now: float) -> None:
    """`client` is no longer in line. What it has said meanwhile is read in the next turn, behind its answer."""
    client.unit = None
    client.ready_at = now
    if client.state is LINED:
        client.state = RESTING
    if client.carry:
        asyncio.get_running_loop().call_soon(client.go_ahead)
