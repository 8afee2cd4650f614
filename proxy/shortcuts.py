"""
What clients say all day, and the short ways it takes.

Theory. Most of what a client sends is one message, or one round of a driver's (rounds.py), whole, alone and short, at a
moment when nothing else of it is pending. Then there is little to decide, and each of these cases has a way of its own
here that does no more than that; a third of the work of taking it message by message. They are: a plain simple query;
BEGIN, the query behind it, and what ends a transaction, in the spellings that drivers use; a round of a named or the
unnamed statement.

Each way asks first whether it is the usual case, and says no before it has changed anything: then the general one
(`Client._receive`) does what it would have done. So nothing is decided here that is not decided there.
"""

from typing import Any

from protocol import codes
from protocol.framing import HEADER_SIZE
from protocol.ledger import ONE_QUERY, Debt
from proxy import dispatch, prepare, rounds
from proxy.requests import CARE, PASS, SHORT, UNNAMED, note_query
from proxy.states import ACTIVE, BEGUN, RESTING

TEXT = slice(HEADER_SIZE, -1)
"""Of a Query: where it stands."""
_IDLE = codes.IDLE


class Shortcuts:
    """The half of a client that takes the short ways. Its attributes are the client's."""

    __slots__ = ()

    def ask_on(self: Any, data: bytes) -> None:
        """One short simple query, whole, alone and of no consequence, of a client that has its server already."""
        server = self.server
        if self.held is not None or not server.ledger.is_settled:
            self._receive(data)
            return
        self.request_at = self.pool.now()
        if server.status == _IDLE:
            self.xact_at = self.request_at
        server.ledger.expect_query(self)
        server.transport.write(data)

    def ask_otherwise(self: Any, data: bytes) -> None:
        """One that is not plain, or comes behind a BEGIN that no server knows, or must be noted."""
        habits, state = self.pool.habits, self.state
        if state is ACTIVE and (
            (data in habits.ends and self.stall is None) or (habits.is_noting and habits.is_plain_noted(data[TEXT]))
        ):
            self.ask_on(data)
        elif state is BEGUN and habits.is_plain_noted(data[TEXT]):
            self._ask_behind_begun(data)
        elif state is RESTING and data in habits.begins:
            self._begin_at_once(data, habits.begins[data])
        else:
            self._receive(data)
            return
        if habits.is_noting:
            note_query(habits.notes, self, data, 0, len(data))

    def _begin_at_once(self: Any, data: bytes, answer: bytes) -> None:
        """`begin`, for the usual case."""
        self.begun = data
        self.state = BEGUN
        self.request_at = self.xact_at = self.pool.now()
        self.deliver(answer)

    def _ask_behind_begun(self: Any, data: bytes) -> None:
        prefix = self._take_server(data, ONE_QUERY, PASS)
        if prefix is not None:
            self.send_behind_begun(self.server, data, prefix)

    def _take_server(self: Any, data: bytes, debts: tuple[Debt, ...], care: int) -> bytes | None:
        """A server, and what must be written before `data`; None: that waits, or nothing may be sent yet."""
        server = self.pool.acquire(self)
        if server is None:
            self.wait(data, debts, care)
            return None
        prefix: bytes | None = dispatch.attach(self, server)
        if prefix is None:
            self.keep(data, debts, care)
        server.unnamed = None  # whatever it was: somebody's simple Query may have ended it
        return prefix

    def ask_round(self: Any, data: bytes) -> None:
        """Something else, perhaps a short round."""
        server, is_pending = self.server, self.carry or self.remain or self.pool.is_walking
        if server is None:
            is_pending = is_pending or self.state is not RESTING
        else:
            is_pending = is_pending or self.held is not None or not server.ledger.is_settled
        if is_pending or not (self._ask_named(data, server) or self._ask_unnamed(data, server)):
            self._receive(data)

    def _ask_named(self: Any, data: bytes, server: Any) -> bool:
        found = rounds.find_named(self, data)
        if found is None:
            return False
        if server is not None:
            self.ask_again(server)
            prefix: bytes | None = b""
        else:
            prefix = self._take_server(data, found[1], CARE)
            server = self.server
        if prefix is None:
            return True
        if not rounds.send_found(self, server, data, found, prefix):
            prepare.send(self, server, data, prefix)
        return True

    def _ask_unnamed(self: Any, data: bytes, server: Any) -> bool:
        debts = rounds.recognise_unnamed(self, data) if len(data) <= SHORT else None
        if debts is None:
            return False
        if server is not None:
            self.ask_again(server)
            prefix: bytes | None = b""
        elif self._is_shared(data, debts):
            return True
        else:
            prefix = self._take_server(data, debts, UNNAMED)
            server = self.server
        if prefix is None:
            return True
        server.ledger.expect(debts, self if self.probe is None else self.take_probe(data))
        server.transport.write(prefix + data)
        self.unnamed = server.unnamed = self.unnamed_said
        return True

    def ask_again(self: Any, server: Any) -> None:
        """The server is ours already: since when does it work for us?"""
        self.request_at = self.pool.now()
        if server.status == _IDLE:
            self.xact_at = self.request_at

    def is_round(self: Any, data: bytes) -> bool:
        """Is it one that is long, or comes while others are pending? Then it is on its way."""
        if len(data) > self.pool.world.settings.max_packet_size:
            return False
        debts = rounds.recognise_named(data)
        if debts is not None:
            self._send(data, debts, CARE, 0)
            return True
        debts = rounds.recognise_unnamed(self, data)
        if debts is not None and not self._is_shared(data, debts):
            self._send(data, debts, UNNAMED, 0)
        return debts is not None

    def _is_shared(self: Any, data: bytes, debts: tuple[Debt, ...]) -> bool:
        """Does the round of the unnamed statement stand in a line now?"""
        lines = self.pool.lines
        return lines is not None and self.state is RESTING and bool(lines.take_unnamed(self, data, debts))
