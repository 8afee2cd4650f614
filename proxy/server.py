"""
One connection to PostgreSQL as a stream: what it says, and to whom that goes.

Theory. Answers are routed by the ledger: the bytes of a message go to the owner of the debt at the head, and only
after the ledger has agreed that this message may come now. Whoever holds the server plays no part in it, except for
messages nobody asked for (notices, notifications, a FATAL on its way out). Within one `data_received` the bytes for
one owner are gathered and delivered with one write; when all of them are one owner's, without a copy.

Rows are stepped over (`framing.scan`), never read. A long message is passed on as it comes, its header judged first:
`remain` counts the bytes of it still to come and `recipient` says whose they are. Only small messages that we must
read to the end wait in `carry`.

The server is treated as hostile. An unasked message, an absurd length, a malformed ReadyForQuery: it is closed
before a byte of that reaches anybody, and its client is told. Nor is it believed everything: behind a Query in the
middle of a pipeline PostgreSQL leaves the pipeline's transaction open, answers the Sync as if that had ended it, and
fails whatever comes next (XX000). Such a server serves nobody else.

`rest` is the other half: when the server has come to rest (everything answered), what happens depends on where it
lives, and is decided once per call, at the end.
"""

import asyncio
import random
import sys
from dataclasses import replace
from struct import Struct
from typing import Any

from protocol import codes
from protocol.backend import ErrorFields, parse_error, parse_parameter_status
from protocol.errors import ProtocolError
from protocol.framing import HEADER_SIZE, scan
from protocol.ledger import ASIDE, COPY_IN, DULL, ERROR, NOTHING, PAYS, READY, UNASKED, Answer, Ledger, Owner
from protocol.parameters import ParameterSet, note_reported, with_value
from proxy import dispatch, reset
from proxy.chores import Chore, hearer
from proxy.ending import GOODBYE, Ending
from proxy.log import Tag, tag_server
from proxy.outbox import lay_wire
from proxy.states import CLEANING, CLOSING, LINKED, OPENING, TESTING, Closing, ServerState

MAX_MESSAGE = 0x3FFFFFFF + 4  # PostgreSQL's own limit is just under 1 GB
MAX_WHOLE = 65536  # of messages we read to the end
MAX_AT_ONCE = 250  # messages judged at once, beside those that are stepped over: about 1 ms
ENOUGH_OF_AN_ERROR = 2048  # severity, SQLSTATE and message come first; a long text is passed on unread

_length_at = Struct("!I").unpack_from
_WHOLE = frozenset({codes.READY_FOR_QUERY, codes.PARAMETER_STATUS, codes.NOTIFICATION_RESPONSE})
_ERRORS = frozenset({codes.ERROR_RESPONSE, codes.NOTICE_RESPONSE})
_STATUSES = frozenset({codes.IDLE, codes.IN_TRANSACTION, codes.FAILED})


class Server(Ending, asyncio.Protocol):
    """One connection to PostgreSQL."""

    __slots__ = (
        "__weakref__", "address", "arriving", "cancels", "carry", "client", "deadline", "doomed", "endpoint",
        "followed", "is_choked", "is_held", "is_rolled_back", "is_slicing", "is_streaming", "is_touched", "key",
        "last_error", "leaving", "ledger", "number", "opened_at", "opening", "parameters", "pid", "pool",
        "ready_at", "recipient", "remain", "repeatable", "resets", "spread", "state", "statements", "status",
        "tls", "transport", "unnamed", "was_client_told",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.state: ServerState = OPENING
        self.opening: asyncio.Task[None] | None = None  # the conversation that opens us, while it lasts
        self.ledger = Ledger()
        self.client: Any = None
        self.status: int = codes.IDLE
        self.followed: ParameterSet = {}
        self.parameters: dict[str, str] = {}  # everything reported
        self.key = b""  # for CancelRequest
        self.pid = 0
        self.number = 0  # its id on the console
        self.endpoint: Any = None  # where a cancel request must go
        self.tls: Any = None  # how it is reached there, and so must the request; None: in plain
        self.address: tuple[str, int] = ("", 0)
        self.opened_at: float = pool.now()
        self.ready_at: float = self.opened_at  # the last ReadyForQuery
        self.spread = random.random()  # noqa: S311 - of lifetimes, lest servers opened together leave together
        self.deadline: float | None = None  # of a test, a cleaning or a goodbye; kept by the janitor
        self.doomed: Closing | None = None  # close it at its next release
        self.cancels = 0  # cancel requests on their way to it
        self.last_error: ErrorFields | None = None  # the FATAL it said, if any
        self.was_client_told = False  # of that
        self.carry = b""
        self.remain = 0
        self.recipient: Owner = None
        self.is_choked = False  # its socket takes no more for now
        self.is_held = False  # somebody does not want it to be read
        self.is_slicing = False  # nor do we: what lies in `carry` are whole messages, for the next turn
        self.is_streaming = False  # inside data_received: `rest` waits for its end
        self.is_rolled_back = True
        self.resets: tuple[str, ...] = ()  # the queries that a cleaning has still to send
        self.is_touched = False  # somebody may have left something in its session that nobody has looked at yet
        self.statements: dict[Any, int] = {}  # named ones it has, oldest first, and since which schema; see batch.py
        self.arriving: dict[Any, Any] = {}  # of those, whose Parse is not answered yet, and who asked for it
        self.leaving: dict[Any, int] = {}  # named ones whose Close is not answered yet, and how many of these
        self.repeatable: tuple[Any, bytes] | None = None  # whose batch it runs last that might be run again, and what
        self.unnamed: bytes | None = None  # the Parse that made its unnamed statement, if that is still there

    @property
    def tag(self) -> Tag:
        """Who we are, for the log."""
        return tag_server(self, self.pool.database, self.pool.user, self.address)

    def __repr__(self) -> str:
        return str(self.tag)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = lay_wire(transport, self.pool.crew)

    def data_received(self, data: bytes) -> None:
        ledger = self.ledger
        if ledger.backlog and not (self.carry or self.remain):
            data = dispatch.hear_several(self, data)
        owner = None if self.carry or self.remain else ledger.pay_whole(data)
        if owner is not None:
            self.status = data[-1]
            self.repeatable = None
            try:
                owner.finish(self, data)
            except ProtocolError as error:  # an envoy has read it
                self.break_off(error)
                return
            if ledger.is_settled and self.state is LINKED and self.last_error is None:
                dispatch.rest_linked(self)  # `rest`, for the usual case
            else:
                self.rest()
        elif self.state < CLOSING:  # else: its last words, after ours
            if data:
                self._receive(data)
            self.rest()

    def _receive(self, data: bytes, most: int = MAX_AT_ONCE) -> None:
        """The general case of `data_received`."""
        self.is_streaming = True
        was_told = self.was_client_told
        try:
            self._take(self.carry + data, most)
        except ProtocolError as error:
            self.was_client_told = was_told  # what stood in front of the nonsense is delivered behind it: not at all
            self.break_off(error)
        finally:
            self.is_streaming = False

    def break_off(self, error: ProtocolError) -> None:
        self._log().error(f"{error} (from the server)")
        self.close(Closing.HOSTILE)

    def pause_writing(self) -> None:
        self.is_choked = True
        if self.client is not None:
            self.client.hold()

    def resume_writing(self) -> None:
        self.is_choked = False
        if self.client is not None:
            self.client.let_go()

    # The stream.

    def _take(self, data: bytes, most: int) -> None:
        """Judge the messages of `data` and deliver them to their owners. No more than `most` while more are owed."""
        self.carry = b""
        ledger, size = self.ledger, len(data)
        pos, start, recipient = self.remain, 0, self.recipient
        while pos < size and (most > 0 or ledger.is_settled):
            most -= 1
            debt, owner = ledger.head
            if debt is NOTHING:
                owner = self.client
            if owner is not recipient:
                if recipient is not None and pos > start:
                    recipient.deliver(data[start:pos])
                start, recipient = pos, owner
            kind, pos, end = scan(data, pos, DULL[NOTHING if ledger.doubts else debt], MAX_MESSAGE)
            if not kind or (end > size and not self._may_pass(kind, size - pos, end - pos)):
                break
            answer = ledger.settle(kind)
            if answer is READY:
                self._ready(data, pos, end, recipient)
                if self.state >= CLOSING:
                    return
            elif answer > PAYS:
                start = _deliver_before(answer, recipient, data, start, pos)
                said = self._heed(answer, data[pos:end], recipient, is_owed=debt is not NOTHING)
                if self.state >= CLOSING:
                    return
                start = _deliver_instead(said, recipient, data, start, pos, end)
            pos = end
        self._deliver_rest(data, start, pos, recipient)
        if most <= 0 and self.carry and not self.is_slicing:
            self.is_slicing = True
            if not self.transport.is_closing():
                self.transport.pause_reading()
            self.pool.world.slices.add(self)

    def _deliver_rest(self, data: bytes, start: int, pos: int, recipient: Owner) -> None:
        """What was judged ends at `pos`: beyond the data, or before its end."""
        size = len(data)
        if pos < size:
            self.carry = data[pos:]
            data = data[:pos]
        if pos > size:
            self.remain = pos - size
            self.recipient = recipient
        else:
            self.remain, self.recipient = 0, None
        if recipient is not None and start < len(data):
            recipient.deliver(data[start:] if start else data)

    def take_slice(self) -> None:
        """A flood of tiny answers is taken in slices (slices.py), so that the others get theirs."""
        self.is_slicing = False
        if self.state < CLOSING:
            self._receive(b"")
            if not (self.is_slicing or self.is_held):
                self.let_go()
            self.rest()

    def take_rest(self) -> None:
        """It says no more, and what it has said is to be heard."""
        if self.is_slicing and self.state < CLOSING:
            self._receive(b"", sys.maxsize)

    def _may_pass(self, kind: int, have: int, length: int) -> bool:
        """May a message be judged although it is cut? (Those whose header says enough: yes.)"""
        if kind in _WHOLE:
            if length > MAX_WHOLE:
                raise ProtocolError(f"a message of type {chr(kind)!r} with {length} bytes")
            return False
        return kind not in _ERRORS or have >= ENOUGH_OF_AN_ERROR

    def _heed(self, answer: Answer, message: bytes, recipient: Owner, *, is_owed: bool) -> bytes | None:
        """A message that means something to us; `message` has its header, and may be cut when it is an error.

        What is to be delivered in its place, if anything.
        """
        said: bytes | None = None
        if answer is ERROR:
            error = parse_error(message[HEADER_SIZE:])
            if len(message) <= _length_at(message, 1)[0]:
                error = replace(error, body=b"")  # it goes on as it comes, and nobody can change it
            said = self._failed(error, recipient, is_owed=is_owed)
        if answer in (ERROR, COPY_IN):
            if self.state is CLEANING:
                reset.end_unit(self)  # it expects something of a client that has left
        elif answer is ASIDE:
            if message[0] == codes.PARAMETER_STATUS:
                self._follow(*parse_parameter_status(message[HEADER_SIZE:]))
            elif message[0] == codes.NOTIFICATION_RESPONSE and isinstance(recipient, Chore) and self.client is not None:
                self.client.deliver(message)  # it comes with an answer of ours, and is not ours
        elif answer is UNASKED:
            raise ProtocolError(f"a message of type {chr(message[0])!r} that nobody asked for")
        return said

    def _ready(self, data: bytes, pos: int, end: int, recipient: Owner) -> None:
        if end - pos != 6 or data[pos + 5] not in _STATUSES:
            self.ledger.owe_again(recipient)
            raise ProtocolError("malformed ReadyForQuery")
        if data[pos + 5] == codes.IDLE != self.status and self.ledger.was_bare:
            self.doomed = Closing.UNCLEAN  # see the theory
        self.status = data[pos + 5]
        self.repeatable = None
        if recipient is not None:
            recipient.answered(self)

    def _failed(self, error: ErrorFields, recipient: Owner, *, is_owed: bool) -> bytes | None:
        if not is_owed and not error.is_fatal:  # the only error nobody has to ask for is the one before hanging up
            raise ProtocolError("an error that nobody asked for")
        if error.is_fatal:
            self.last_error = error
            self.was_client_told = recipient is not None and hearer(recipient) is self.client
            self.deadline = self.pool.now() + GOODBYE  # it must hang up now
            self._log().warning(f"server said: {error.severity} {error.message} ({error.sqlstate})")
        said: bytes | None = None
        if recipient is not None:
            said = recipient.failed(error)
        voided, self.ledger.voided = self.ledger.voided, []
        for owner in reversed(voided):
            owner.voided()
        for owner in voided:
            owner.relieve()
        return said

    def _follow(self, name: str, value: str) -> None:
        """A parameter changed: the server's set, and that of the client who made it so."""
        note_reported(self.parameters, name, value)
        if name not in self.pool.world.followed:
            return
        client = self.client
        agree = client is not None and client.followed is self.followed
        self.followed = with_value(self.followed, name, value)
        if client is not None:
            client.followed = self.followed if agree else with_value(client.followed, name, value)
            self.pool.prove(((name, value),))

    def rest(self) -> None:
        """If both sides have said their last word: what next? Safe to call at any time."""
        if not self.ledger.is_settled or self.is_streaming:
            return
        if self.last_error is not None:  # it is about to hang up: nobody gets it any more
            if self.state is not LINKED:
                self.close(Closing.SAID_GOODBYE)
        elif self.state is LINKED:
            dispatch.rest_linked(self)
        elif self.state is CLEANING:
            reset.next_step(self)
        elif self.state is TESTING:
            self.deadline = None
            if self.status == codes.IDLE:
                self.pool.release(self)
            else:
                self.close(Closing.TEST_FAILED)  # the query has left a transaction open

    # Flow control, for the client that reads slowly.

    def hold(self) -> None:
        self.is_held = True
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def let_go(self) -> None:
        self.is_held = False
        is_wanted = self.state >= CLOSING or not (self.pool.world.is_suspended or self.is_slicing)
        if is_wanted and not self.transport.is_closing():
            self.transport.resume_reading()

    # Testing.

    def test(self) -> None:
        reset.test(self)


def _deliver_before(answer: Answer, recipient: Owner, data: bytes, start: int, pos: int) -> int:
    """Whoever owns an error hears what stands before it before it hears of the error. Where to go on."""
    if answer is not ERROR or recipient is None or pos <= start:
        return start
    recipient.deliver(data[start:pos])
    return pos


def _deliver_instead(said: bytes | None, recipient: Owner, data: bytes, start: int, pos: int, end: int) -> int:
    """`said` goes to `recipient` instead of the message at `pos`, behind what stands before it. Where to go on."""
    if said is None or end > len(data):
        return start
    if pos > start or said:
        recipient.deliver(data[start:pos] + said)
    return end
