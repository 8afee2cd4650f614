"""
One client's unit in a line: it owns the debt, and hands the answer to its client.

Theory. A unit is made when its client asks, and lives until it is answered. What it said is kept as long, since a unit
may have to run again: PostgreSQL's cancel hits whatever runs when it arrives, and behind the one that is meant may
stand a stranger. Who is hit in this way, and has heard nothing else yet, never learns of it: the error is swallowed and
the unit stands in line again. That is safe for those that share lines, which read, and of which nothing but that error
is left.

A client that has left leaves its unit behind: what still comes for it reaches nobody.
"""

import asyncio
from typing import Any

from protocol import codes, sqlstate
from protocol.backend import READY_IDLE_MESSAGE, ErrorFields, build_error
from protocol.errors import ProtocolError
from proxy.states import GONE, LINED, RESTING

MAX_BUFFERED = 1_048_576  # bytes a client may leave unread of its answer before those behind it must wait
MAX_RUNS = 3


class Unit:
    """`data` of `client`, in line."""

    __slots__ = ("asked_at", "client", "data", "has_said", "is_canceled", "line", "runs", "sent_at", "shape",
                 "size", "was_told")  # fmt: skip

    def __init__(self, client: Any, data: bytes, shape: Any, now: float) -> None:
        self.client = client  # None: it has left
        self.data = data
        self.shape = shape
        self.asked_at = self.sent_at = now
        self.line: Any = None  # where it was sent
        self.size = 0  # of the answer so far
        self.runs = 0
        self.has_said = False  # the client has heard something
        self.is_canceled = False  # the client wants it to end
        self.was_told = False  # ... the FATAL its server ended with

    @property
    def server(self) -> Any:
        """Where it has been sent; None: nowhere yet."""
        return self.line.server if self.line is not None else None

    # What its client calls.

    def cancel_unsent(self) -> bool:
        """Answer it with 57014. False: it has been sent already."""
        client = self.client
        if self.line is not None or client.is_choked:
            return False
        self.client = None
        error = build_error("ERROR", sqlstate.QUERY_CANCELED, "canceling statement due to user request")
        client.deliver(error + READY_IDLE_MESSAGE)
        let_off(client, client.pool.now())
        return True

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
        client = self.client
        self.size += len(data)
        if client is None or client.state is GONE:
            return
        self.has_said = True
        client.deliver(data)
        if client.is_choked and self.line is not None and client.transport.get_write_buffer_size() > MAX_BUFFERED:
            self.line.hold()

    def failed(self, error: ErrorFields) -> bytes | None:
        self.was_told = error.is_fatal
        is_hit = error.sqlstate == sqlstate.QUERY_CANCELED and self.line.was_canceled and not self.is_canceled
        if is_hit and not self.has_said and self.runs < MAX_RUNS and self.client is not None:
            self.line.run_again(self)
            return b""
        client = self.client
        return client.failed(error) if client is not None else None

    def answered(self, server: Any) -> None:
        """Its ReadyForQuery has come; the last bytes of the answer come a moment later."""
        if server.status != codes.IDLE:
            raise ProtocolError("a transaction that nobody has begun")
        now = self.line.advance(self, server)
        client = self.client
        if client is not None and client.state is not GONE:
            client.answered(server)
            let_off(client, now)

    def finish(self, server: Any, data: bytes) -> None:
        """The whole answer: `answered` and `deliver` in one."""
        client = self.client
        if client is None or server.status != codes.IDLE or client.is_paced:
            self.answered(server)
            self.deliver(data)
            return
        line, size = self.line, len(data)
        now, sent = line.pool.now(), line.sent
        head = sent.popleft()  # from here on `line.advance`, for the usual case
        assert head is self, f"{line!r}: not at the head"
        book = line.lines.book
        if size > book.max_size or now - line.head_since > book.max_time or not self.shape.is_trusted:
            line.judge(self, now, size)
        line.head_since = now
        if len(sent) in line.marks:
            line.drained(server, now)
        stats = line.pool.stats
        stats.lone_count += 1
        stats.lone_time += now - self.sent_at
        stats.sent += size
        client.ready_at = now
        client.unit = None
        client.state = RESTING
        client.transport.write(data)
        if client.carry:
            let_off(client, now)

    def voided(self) -> None:
        """A simple query pays its own debt."""

    def relieve(self) -> None:
        """Nobody waits for that."""


def let_off(client: Any, now: float) -> None:
    """`client` is no longer in line. What it has said meanwhile is read in the next turn, behind its answer."""
    client.unit = None
    client.ready_at = now
    if client.state is LINED:
        client.state = RESTING
    if client.carry:
        asyncio.get_running_loop().call_soon(client.go_ahead)
