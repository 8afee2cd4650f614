"""
One logged-in client as a stream: what it asks, and on which server.

Theory. `data_received` steps through the client's messages, notes what each will earn (`debts`) and sends them on,
all with one write. If the client has no server it takes one; if there is none its bytes are `held` and it stands in
the pool's queue until `resume`. Reading goes on while it waits, up to `MAX_HELD`, because a client that hangs up or
says goodbye in the queue must be noticed.

Hardly anything is read: headers, and what the looks of requests.py want to know, which is little unless a message
names a statement or may change the session. A batch that must be translated (`care`) is walked again when its server
is known (prepare.py). A message longer than `STREAM_FROM` is passed on as it comes (`remain` counts what is missing);
while a message is half sent the server cannot be given back, whatever it says. A shorter one that is cut waits in
`carry` for its end.

What is illegal here (an unknown type, a password after login, an absurd length) never reaches a server: the client
gets a FATAL with the SQLSTATE PostgreSQL has for it, and its server, if any, is cleaned.
"""

import asyncio
from typing import Any

from protocol import codes, sqlstate
from protocol.backend import ErrorFields
from protocol.body import build_message
from protocol.errors import ProtocolError, Refused
from protocol.framing import HEADER_SIZE, scan
from protocol.frontend import TERMINATE_MESSAGE
from protocol.ledger import COPY_END, DULL_REQUESTS, NOTHING, ONE_QUERY, REQUESTS, Debt
from protocol.parameters import ParameterSet
from proxy import dispatch, prepare
from proxy.holding import MAX_HELD, Holding
from proxy.leaving import Leaving
from proxy.log import Tag, tag_client
from proxy.outbox import lay_wire
from proxy.requests import (
    BEGIN,
    CARE,
    MORE,
    PASS,
    SHORT,
    STALL,
    UNNAMED,
    is_terminate,
)
from proxy.served import MAX_BACKLOG, Served
from proxy.shortcuts import TEXT, Shortcuts
from proxy.states import ACTIVE, BEGUN, CLIENT_MOVES, GONE, LINED, RESTING, WAITING, ClientState, Closing

STREAM_FROM = 65536  # bytes; a shorter message that is cut waits until it is whole
MAX_AT_ONCE = 250  # requests of one client taken at once: about 0.6 ms
SLICE = 32768  # bytes of requests behind which no more are taken at once: to read as much text may take 40 ms

_SHORT_QUERIES = {
    build_message(codes.QUERY, bytes(size))[:HEADER_SIZE]: HEADER_SIZE + size for size in range(1, SHORT - HEADER_SIZE)
}
"""How long a message is that begins so."""
_HEADER = slice(HEADER_SIZE)
_DEBTS: tuple[Debt | None, ...] = tuple(REQUESTS.get(kind) for kind in range(256))


class Client(Shortcuts, Holding, Served, Leaving, asyncio.Protocol):
    """One client, from its welcome to its end."""

    __slots__ = (
        "__weakref__", "address", "begun", "carry", "connected_at", "followed", "held", "held_care", "held_debts",
        "is_choked", "is_notified", "is_paced", "is_slicing", "is_stalled", "key", "number", "origin", "pool",
        "probe", "ready_at", "remain", "request_at", "schema", "server", "session", "stall", "state", "statements",
        "tags", "transport", "unit", "unnamed", "unnamed_said", "unnamed_text", "user", "waiting_since", "xact_at",
    )  # fmt: skip

    transport: asyncio.Transport
    is_line = False

    def __init__(self, pool: Any, user: str, key: bytes, followed: ParameterSet, address: tuple[str, int]) -> None:
        self.pool = pool
        self.user = user
        self.key = key
        self.address = address
        self.followed = self.origin = followed  # its parameters now, and those it logged in with
        self.session: Any = None  # what it did to its session, if it ever did anything that lasts
        self.statements: Any = None  # its named statements, if it ever had one
        self.unnamed = b""  # its last Parse without a name that a server has got, whole
        self.unnamed_said = b""  # its last Parse without a name
        self.unnamed_text = b""  # the text of that, if running it may leave something behind
        self.tags: Any = None  # by portal: what the command tag of its Execute means, where it means something
        self.begun = b""  # its BEGIN that no server knows yet
        self.number = 0  # its id on the console
        self.state: ClientState = RESTING
        self.server: Any = None
        self.unit: Any = None  # what we asked, in a line
        self.probe: Any = None  # who measures what we ask next
        self.connected_at: float = pool.now()
        self.request_at = self.ready_at = self.xact_at = self.waiting_since = pool.now()
        self.carry: bytes | bytearray = b""
        self.remain = 0
        self.held: Any = None  # what waits for a server, or for our SET in front of it
        self.held_debts: tuple[Debt, ...] = ()
        self.held_care: int = PASS  # the gravest verdict on it: must it be translated?
        self.stall: Any = None  # what it was last held up by before a server was even asked for
        self.is_stalled = False  # it is held up by that now; what it says waits in `carry`
        self.schema = 0  # below 0: it has changed the schema, in a transaction that is not over
        self.is_paced = False  # we do not read it until its backlog is smaller
        self.is_slicing = False  # what lies in `carry` are whole messages, for the next turn
        self.is_choked = False  # its socket takes no more for now
        self.is_notified = False  # has been told that it waits

    @property
    def tag(self) -> Tag:
        """Who we are, for the log."""
        return tag_client(self.address, self.pool.database, self.user)

    def __repr__(self) -> str:
        return str(self.tag)

    def move(self, to: ClientState) -> None:
        """The only way a client changes state."""
        assert to in CLIENT_MOVES[self.state], f"{self!r}: {self.state.name} -> {to.name}"
        self.state = to

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = lay_wire(transport, self.pool.crowd)

    def data_received(self, data: bytes) -> None:
        pool = self.pool
        size = len(data)
        pool.stats.received += size
        if _SHORT_QUERIES.get(data[_HEADER]) != size or self.carry or self.remain:
            if self.state is not RESTING or (lines := pool.lines) is None or not lines.take_named(self, data):
                self.ask_round(data)
        elif self.state is RESTING:
            if (lines := pool.lines) is not None and lines.take(self, data):
                return
            if pool.is_plain(data[TEXT]):
                self._ask(data)
            else:
                self.ask_otherwise(data)
        elif self.state is ACTIVE and pool.is_plain_inside(data[TEXT]):
            self.ask_on(data)
        else:
            self.ask_otherwise(data)

    def _ask(self, data: bytes) -> None:
        """Nothing is pending, and this is one short simple query, whole, alone and plain: a third of `_receive`."""
        server = self.pool.acquire(self)
        if server is None:  # `_wait`, for the usual case
            self.held, self.held_debts, self.held_care = data, ONE_QUERY, PASS
            self.is_notified = False
            self.state = WAITING
            return
        prefix = dispatch.attach(self, server)
        if prefix is None:
            self.keep(data, ONE_QUERY, PASS)
        elif prefix:
            server.ledger.expect(ONE_QUERY, self if self.probe is None else self.take_probe(data))
            server.transport.write(prefix + data)
        else:
            server.ledger.expect_query(self if self.probe is None else self.take_probe(data))
            server.transport.write(data)

    def _receive(self, data: bytes) -> None:
        """The general case of `data_received`."""
        if self.state is GONE:
            return
        if self.is_stalled or self.state is LINED:
            self.carry += data
            if len(self.carry) > MAX_HELD:
                self.hold()
            return
        if data == TERMINATE_MESSAGE and self.state is RESTING and not (self.carry or self.remain):
            self._depart()  # `_leave`, for those who come for one query
            return
        try:
            if self.carry:
                if not self.gathers(data):
                    self._take(bytes(self.carry) + data)
            elif self.remain or self.pool.is_walking or not self.is_round(data):
                self._take(data)
        except ProtocolError as error:
            self.refuse(ErrorFields("FATAL", sqlstate.PROTOCOL_VIOLATION, str(error)), Closing.CLIENT_PROTOCOL)
        except Refused as no:
            self.refuse(ErrorFields("FATAL", no.sqlstate, no.sentence, no.detail, no.hint), Closing.CLIENT_PROTOCOL)

    def pause_writing(self) -> None:
        self.is_choked = True
        if self.server is not None:
            self.server.hold()
        else:
            self.hold()  # who does not read our answers is not asked for more

    def resume_writing(self) -> None:
        self.is_choked = False
        self.let_go()
        if self.server is not None:
            self.server.let_go()
        if self.unit is not None:
            self.unit.let_go()
        if self.stall is not None:
            self.pool.world.find_hub(self.pool).flush(self)

    def eof_received(self) -> None:
        """It said no goodbye. Whether it still reads is not waited for: see `_close_socket`."""
        self._leave(Closing.CLIENT_EOF, cancel=True)

    def connection_lost(self, error: Exception | None) -> None:
        self._leave(Closing.CLIENT_EOF, cancel=True)

    # The stream.

    def _take(self, data: bytes) -> None:
        """Find the messages in `data`, note what they will earn, send them on."""
        self.carry = b""
        size, pos = len(data), self.remain
        debts: list[Debt] = []
        if pos and self.state <= BEGUN:
            self._skip_rest(data)
            return
        is_farewell, parsed, verdict, care = False, False, PASS, PASS
        has_ours = self.tags or (self.statements and self.pool.is_private)  # see own_names.py
        looks = self.pool.habits.looks_of_tagged if has_ours else self.pool.habits.looks
        limit = self.pool.world.settings.max_packet_size
        stop = min(size, pos + SLICE)
        while pos < stop and len(debts) < MAX_AT_ONCE:
            kind, pos, end = scan(data, pos, DULL_REQUESTS, limit)
            if not kind or (end > size and end - pos <= STREAM_FROM):
                break
            debt = _DEBTS[kind]
            if debt is None:
                is_farewell = is_terminate(kind)
                data, size = data[:pos], pos
                break
            look = looks[kind]
            verdict = PASS if look is None else look(self, data, pos, end, parsed)
            if verdict >= MORE:
                break
            parsed |= verdict == UNNAMED
            care = max(care, verdict)
            debts.append(debt)
            pos = end
        if verdict >= BEGIN:
            (self.begin if verdict == BEGIN else self.end)(data)
            self._pace_slices(is_more=False)
            return
        if pos < size:
            self.carry = data[pos:]
            data = data[:pos]
        was_cut = self.remain
        self.remain = pos - size if pos > size else 0
        if data:
            self._send(data, tuple(debts), care, was_cut)
        if verdict == STALL:
            self.is_stalled = True
            self.hold()
        self._pace_slices(is_more=(len(debts) == MAX_AT_ONCE or pos >= stop) and bool(self.carry))
        if is_farewell:
            self._leave(Closing.CLIENT_REQUEST, cancel=False)
        elif was_cut and not self.remain and self.server is not None:
            self.server.rest()  # it may have waited for the end of this message

    def _skip_rest(self, data: bytes) -> None:
        """`data` begins with the rest of a message that was of no use to anybody."""
        missing = self.remain
        self.remain = max(missing - len(data), 0)
        if data[missing:]:
            self._take(data[missing:])

    def _pace_slices(self, *, is_more: bool) -> None:
        """A flood of tiny messages is taken in slices (slices.py), so that the others get theirs."""
        if is_more:
            if not self.is_slicing:
                self.is_slicing = True
                self.hold()
            self.pool.world.slices.add(self)
        elif self.is_slicing:
            self.is_slicing = False
            self.let_go()

    def take_slice(self) -> None:
        self._receive(b"")

    def _send(self, data: bytes, debts: tuple[Debt, ...], care: int, first: int) -> None:
        """`data`, whose gravest verdict is `care`, goes to our server or waits for one. `first`: see prepare.send."""
        server = self.server
        prefix = b""
        if self.held is not None:
            self.hold_bytes(data, debts, care)
            return
        if server is None:
            if not debts or all(debt is COPY_END for debt in debts):
                return  # Flush, or what belongs to a COPY that has failed: PostgreSQL ignores them as well
            server = self.pool.acquire(self)
            if server is None:
                self.wait(data, debts, care)
                return
            start = dispatch.attach(self, server)
            if start is None:
                self.keep(data, debts, care)
                return
            server.unnamed = None  # whatever it was: somebody's simple Query may have ended it
            prefix = start + self.take_begun(server, debts, care) if self.begun else start
        elif server.ledger.head[0] is NOTHING:
            self.ask_again(server)
        if care == CARE:
            prepare.send(self, server, data, prefix, first)
        else:
            server.ledger.expect(debts, self if self.probe is None else self.take_probe(data))
            server.transport.write(prefix + data if prefix else data)
            if care == UNNAMED:
                self.unnamed = server.unnamed = self.unnamed_said
        if server.ledger.backlog > MAX_BACKLOG and not self.is_paced:
            self.is_paced = True  # it asks faster than it is answered: let it wait
            self.hold()

    # Flow control, for the server that reads slowly, or the queue that is long.

    def hold(self) -> None:
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def let_go(self) -> None:
        """Read on, unless there is another reason not to."""
        is_server_choked = self.server is not None and self.server.is_choked
        if self.is_paced or self.is_slicing or self.is_stalled or is_server_choked or self.pool.world.is_suspended:
            return
        if not self.transport.is_closing():
            self.transport.resume_reading()
