"""
What a client has said and no server has heard yet.

Theory. Bytes are held because there is no server (`wait`, until the pool calls `resume`), because our own SET goes in
front and must be answered first, or because a statement must be described first. They lie in `held`, in order, with
what they will earn; whatever the client says meanwhile is put behind (`hold_bytes`). When the reason is gone `play`
sends them all, translated if they must be (`held_care`).

That verdict is of its time. When a reload changes what must be known of a request (`Habits.view`), what is held is
weighed once more (`weigh_anew`), as if it came now: nothing of it has been sent.

A lone BEGIN is answered by us and kept in `begun` (the state BEGUN): it goes in front of what comes next, so no server
is held by somebody who only means to do something. Where it can, it goes as Parse, Bind and Execute (`RUN`), so
that PostgreSQL sends its answer with the next one, instead of waking us for each, and runs nothing behind a BEGIN that
fails. Nothing was done in such a transaction, so its COMMIT and its ROLLBACK are answered here too.
"""

from typing import Any

from protocol import codes, sqlstate
from protocol.acts import What
from protocol.backend import READY_IDLE_MESSAGE, build_command_complete, build_error, build_ready
from protocol.framing import HEADER_SIZE
from protocol.frontend import build_query, build_run
from protocol.ledger import ENDS_UNIT, ONE_QUERY, PARSE, RUN, Debt, Round
from proxy import dispatch, prepare
from proxy.chores import Beginning, Chore, Preface
from proxy.requests import BEGINS, CARE, PASS, UNNAMED, length_at, read
from proxy.states import BEGUN, GONE, LINED, RESTING, WAITING, Closing

MAX_HELD = 65536  # bytes a waiting client may send before we stop reading

READY_IN_TRANSACTION = build_ready(codes.IN_TRANSACTION)
READY_FAILED = build_ready(codes.FAILED)
FAILED_BEGIN = build_query(b"BEGIN") + build_query(b"ROLLBACK TO SAVEPOINT pgshuttle_canceled")
"""A transaction that failed before it had a server: whatever comes next is refused by PostgreSQL itself."""


class Holding:
    """The half of a client that waits. Its attributes are the client's."""

    __slots__ = ()

    def wait(self: Any, data: bytes, debts: tuple[Debt, ...], care: int) -> None:
        """In the pool's queue, where `acquire` has put us."""
        self.held, self.held_debts, self.held_care = data, debts, care
        self.is_notified = False
        self.move(WAITING)
        if len(data) > MAX_HELD:
            self.hold()

    def keep(self: Any, data: bytes, debts: tuple[Debt, ...], care: int) -> None:
        """Until our server has answered what goes in front, see `dispatch.attach`."""
        self.held, self.held_debts, self.held_care = data, debts, care

    def hold_bytes(self: Any, data: bytes, debts: tuple[Debt, ...], care: int) -> None:
        """More of what must wait."""
        self.held_care = max(care, self.held_care) if self.held else care
        self.held = (self.held or b"") + data
        self.held_debts = (*self.held_debts, *debts)
        if len(self.held) > MAX_HELD:
            self.hold()

    def resume(self: Any, server: Any) -> None:
        """The pool has a server for us; what we hold is sent at once."""
        prefix = dispatch.attach(self, server)
        server.unnamed = None  # whatever it was: somebody's simple Query may have ended it
        self.pool.stats.wait_time += self.request_at - self.waiting_since
        if prefix is None:
            return
        if prefix or self.held_debts is not ONE_QUERY or self.held_care or self.probe is not None:
            self.play(server, prefix)
            return
        data, self.held = self.held, None  # from here on `play`, for the usual cases
        if self.begun:
            self.send_behind_begun(server, data)
        else:
            server.ledger.expect_query(self)
            server.transport.write(data)

    def play(self: Any, server: Any, prefix: bytes = b"") -> None:
        """Send what was held to `server`, ours now."""
        data, self.held = self.held or b"", None
        if len(data) > MAX_HELD:
            self.let_go()
        if self.begun:
            prefix += self.take_begun(server, self.held_debts, self.held_care)
        if self.held_care == CARE:
            prepare.send(self, server, data, prefix)
            return
        server.ledger.expect(self.held_debts, self if self.probe is None else self.take_probe(data))
        server.transport.write(prefix + data)
        if self.held_care == UNNAMED:
            self.unnamed = server.unnamed = self.unnamed_said

    def gathers(self: Any, data: bytes) -> bool:
        """Is `data` another piece, and not the last, of a message of which much lies here? To put them together each
        time would cost the length of it for every piece, and pieces may have one byte."""
        size = len(self.carry)
        if size <= MAX_HELD or size + len(data) > length_at(self.carry, 1)[0]:
            return False
        gathered: Any = self.carry if isinstance(self.carry, bytearray) else bytearray(self.carry)
        gathered += data
        self.carry = gathered
        return True

    def weigh_anew(self: Any) -> None:
        """Our pool has other habits than those by which we have looked at what is held. (What lies in `carry` nobody
        has looked at.) Our place in the queue stays ours, unless nothing is left that may go on."""
        data, carry, was_stalled = self.held, self.carry, self.is_stalled
        if not data or (self.pool.is_private and self.stall is not None):
            return  # one whose channels are heard for it already hears them twice else
        if len(data) > MAX_HELD:
            self.let_go()
        self.held, self.held_debts, self.held_care = b"", (), PASS
        self.carry, self.remain, self.is_stalled, self.probe = b"", 0, False, None
        self._receive(data)
        if self.state is GONE:
            return
        self.carry = self.carry + carry if self.carry else carry
        self.is_stalled = self.is_stalled or was_stalled
        if self.state is WAITING and not self.held:
            del self.pool.waiting[self]
            self.held = None
            self.move(BEGUN if self.begun else RESTING)

    def wait_for_description(self: Any, data: bytes) -> None:
        """`data` waits until our server has said what a statement is (prepare.py)."""
        self.held, self.held_debts, self.held_care = data, (), CARE

    def description_came(self: Any, server: Any) -> None:
        if self.server is server and self.held is not None:
            self.play(server)

    def drop_unsent(self: Any) -> None:
        """What we have of its bytes and no server has seen is of no use any more."""
        self.held, self.held_debts, self.carry, self.begun = None, (), b"", b""

    def cancel_waiting(self: Any) -> bool:
        """Take the client out of the queue and answer what it holds with 57014. False: there is nothing to cancel."""
        debts = self.held_debts
        if self.state is LINED:
            return bool(self.unit.cancel_unsent())
        if self.state is not WAITING or self.is_choked or self.remain or not debts or debts[-1] not in ENDS_UNIT:
            return False
        del self.pool.waiting[self]
        ready = READY_IDLE_MESSAGE
        if self.begun:  # it believes in a transaction, and that has failed now
            self.begun, ready = FAILED_BEGIN, READY_FAILED
        self.move(BEGUN if self.begun else RESTING)
        self.held, self.held_debts = None, ()
        self.let_go()
        error = build_error("ERROR", sqlstate.QUERY_CANCELED, "canceling statement due to user request")
        self.deliver((error + ready) * sum(debt in ENDS_UNIT for debt in debts))
        return True

    # A transaction that no server knows yet.

    def begin(self: Any, data: bytes) -> None:
        """Answer the BEGIN in `data` and keep it."""
        self.carry = b""
        self.begun = data
        self.move(BEGUN)
        self.request_at = self.xact_at = self.pool.now()
        is_begin = data[HEADER_SIZE:].lstrip()[:1] in (b"b", b"B")
        self.deliver(build_command_complete("BEGIN" if is_begin else "START TRANSACTION") + READY_IN_TRANSACTION)

    def begin_answered(self: Any, chore: Chore) -> None:
        """What the client has said behind a BEGIN must not run without it. (What it has pipelined behind the end of its
        first unit is sent already; but hardly anything makes such a BEGIN fail.)"""
        if chore.error is not None:
            self.refuse(chore.error, Closing.BEGIN_FAILED)

    def end(self: Any, data: bytes) -> None:
        """Answer the COMMIT or ROLLBACK in `data`: nothing has happened."""
        is_commit = read(self, data[HEADER_SIZE:-1]).has(What.COMMIT) and self.begun is not FAILED_BEGIN
        self.carry = self.begun = b""
        self.move(RESTING)
        self.deliver(build_command_complete("COMMIT" if is_commit else "ROLLBACK") + READY_IDLE_MESSAGE)

    def take_begun(self: Any, server: Any, debts: tuple[Debt, ...], care: int) -> bytes:
        """The BEGIN that goes in front of what earns `debts` and has that verdict, entered in the ledger. (Where names
        are put in front too, it is a unit of its own, as batch.py expects.)"""
        begun, self.begun = self.begun, b""
        self.pool.stats.query_count += 1
        server.unnamed = None
        assert isinstance(begun, bytes)
        if begun is FAILED_BEGIN:
            server.ledger.expect(ONE_QUERY * 2, Chore())
        elif care < CARE and _is_covering(debts):
            server.ledger.expect(RUN, Preface(self.begin_answered))
            return _run(begun)
        else:
            server.ledger.expect(ONE_QUERY, Beginning(self.begin_answered))
        return begun

    def send_behind_begun(self: Any, server: Any, data: bytes, prefix: bytes = b"") -> None:
        """One simple query, behind the BEGIN that no server knows yet."""
        if prefix or self.begun is FAILED_BEGIN:
            prefix += self.take_begun(server, ONE_QUERY, PASS)
            server.ledger.expect(ONE_QUERY, self)
            server.transport.write(prefix + data)
            return
        begun, self.begun = self.begun, b""  # from here on `take_begun`, for the usual case
        self.pool.stats.query_count += 1
        server.unnamed = None
        server.ledger.expect_behind_run(Preface(self.begin_answered), self)
        server.transport.write(_run(begun) + data)

    # Lines: see lines.py.

    def take_probe(self: Any, data: bytes) -> Any:
        """Who owns what `data` earns: the probe, if it is about that, else we ourselves."""
        probe, self.probe = self.probe, None
        return probe if probe.is_about(data) else self

    def ask_alone(self: Any, data: bytes, debts: tuple[Debt, ...], care: int) -> None:
        """`data` stood in a line, and needs a server of our own."""
        if self.state is not GONE:
            self._send(data, debts, care, 0)

    def go_ahead(self: Any) -> None:
        """We stand in no line any more: what we have said meanwhile."""
        if self.state is not GONE and self.state is not LINED:
            if len(self.carry) > MAX_HELD:
                self.let_go()
            self._receive(b"")

    # What must be done before a message may go on: see stalls.py.

    def go_on(self: Any) -> None:
        """What we were stalled by is done."""
        if self.state is not GONE and self.is_stalled:
            self.is_stalled = False
            self.let_go()
            self._receive(b"")


_RUNS = {begin: build_run(begin[HEADER_SIZE:-1]) for begin in BEGINS}


def _run(begun: bytes) -> bytes:
    """That BEGIN without a ReadyForQuery, for which PostgreSQL would send its answer alone, and wake us for it."""
    return _RUNS.get(begun) or build_run(begun[HEADER_SIZE:-1])


def _is_covering(debts: tuple[Debt, ...]) -> bool:
    """Does what earns these begin by replacing the statement and the portal without names, so that nobody can come upon
    those of our BEGIN? A Query does, and so does the round of an unnamed statement (rounds.py)."""
    return debts[:1] == ONE_QUERY or (type(debts) is Round and debts[0] is PARSE)
