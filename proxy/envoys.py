"""
Owners of debts that stand in for a client: where its answer needs a word changed, or a consequence drawn.

Theory. Most debts are owned by the client itself, and their answers reach it unread. A few requests mean more: a Parse
gives a name, and takes it back if an error voids it; a statement put in front because the server lacks it must be
answered to nobody, unless it fails; the tag of a LISTEN was sent as UNLISTEN. Each of these has an envoy in the ledger.
It is made for one request, knows what to do, and behaves towards the server as the client would.

When its client has left an envoy does nothing but take what comes, like a chore.
"""

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any, ClassVar, Final, NamedTuple

from protocol import codes, sqlstate
from protocol.backend import CLOSE_COMPLETE_MESSAGE, PARSE_COMPLETE_MESSAGE, ErrorFields
from protocol.errors import ProtocolError
from protocol.framing import HEADER_SIZE
from protocol.prepared import NAME_LENGTH, Names, Statement, digest_description, replace_position
from proxy.requests import CARE
from proxy.states import GONE

NO_ALIASES: Final[Mapping[bytes, bytes]] = {}
MAX_KEPT = 1_048_576  # bytes of one message that must be read whole; the longest description has 140 kB

_header = Struct("!BI").unpack_from
_SENT_TAG = b"C\0\0\0\x0dUNLISTEN\0"
_TRUE_TAG = b"C\0\0\0\x0bLISTEN\0"
_DONE: Final = (PARSE_COMPLETE_MESSAGE, CLOSE_COMPLETE_MESSAGE)


class Envoy:
    """Hands everything on to its client."""

    __slots__ = ("client",)

    def __init__(self, client: Any) -> None:
        self.client = client

    def deliver(self, data: bytes) -> None:
        self.client.deliver(data)

    def failed(self, error: ErrorFields) -> bytes | None:
        answer: bytes | None = self.client.failed(error)
        return answer

    def answered(self, server: Any) -> None:
        if self.client.state is not GONE:
            self.client.answered(server)

    def finish(self, server: Any, data: bytes) -> None:
        self.deliver(data)
        self.answered(server)

    def voided(self) -> None:
        """The request was skipped by the server, because of an error before it or its own."""

    def relieve(self) -> None:
        """All that this error has voided has been told so: go on."""


class Naming(Envoy):
    """A request that makes `name` stand for `statement`, or for nothing; in doubt until it is answered.

    When it is voided the name stands for what it stood for before. (Nobody of a later unit has named it meanwhile: that
    waits until there is no doubt, see `Batch.is_certain`.)
    """

    __slots__ = ("_before", "_name", "_names")

    def __init__(self, client: Any, names: Names, name: bytes, statement: Statement | None) -> None:
        super().__init__(client)
        self._names = names
        self._name = name[:NAME_LENGTH]
        self._before = names.put(name, statement)
        names.pending[self._name] = self

    def deliver(self, data: bytes) -> None:
        if data.endswith(_DONE):
            self._names.settle(self._name, self)
        super().deliver(data)

    def voided(self) -> None:
        self._names.settle(self._name, self)
        self._names.put(self._name, self._before)


class Alias(Envoy):
    """A request that speaks of a statement for which its client has several names; its error shall speak of this."""

    __slots__ = ("_aliases",)

    def __init__(self, client: Any, aliases: Mapping[bytes, bytes]) -> None:
        super().__init__(client)
        self._aliases = aliases  # by names of ours

    def failed(self, error: ErrorFields) -> bytes | None:
        answer: bytes | None = self.client.failed(error, self._aliases)
        return answer


class Reading(Envoy):
    """An envoy that reads some of the messages it is given, each whole; the others go by as they come."""

    __slots__ = ("_carry", "_remain")

    wanted: ClassVar[frozenset[int]]

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._carry = b""
        self._remain = 0  # bytes of a message that goes by

    def deliver(self, data: bytes) -> None:
        data = self._carry + data
        size = len(data)
        pos = min(self._remain, size)
        self._remain -= pos
        kept = [data[:pos]]
        while pos + HEADER_SIZE <= size:
            kind, length = _header(data, pos)
            end = pos + 1 + length
            if kind in self.wanted and (length <= MAX_KEPT or kind != codes.ERROR_RESPONSE):
                if length > MAX_KEPT:
                    raise ProtocolError("a message that is too long to be read")
                if end > size:
                    break
                kept.append(self.take(kind, data[pos:end]))
            else:
                kept.append(data[pos:end])
                self._remain = max(end - size, 0)
            pos = min(end, size)
        self._carry = data[pos:]
        told = b"".join(kept)
        if told:
            self.client.deliver(told)

    def take(self, kind: int, message: bytes) -> bytes:
        """What the client shall see of it."""
        raise NotImplementedError


class Injection(Reading):
    """What is put in front of a request because `server` lacks `statement`: Close of what must go (`gone`), Parse and
    Describe.

    The client sees nothing of it but errors; and not even those if it `is_alone`, a unit of its own: then the request
    behind it is not skipped but fails, and is told the reason (`error`). `then` is called once: when the description
    has come or cannot come; without a statement, when a Close of nothing has been answered.
    """

    __slots__ = ("_gone", "_parameters", "_server", "_statement", "_then", "error", "is_alone")

    wanted = frozenset({
        codes.PARSE_COMPLETE, codes.CLOSE_COMPLETE, codes.COMMAND_COMPLETE, codes.READY_FOR_QUERY, codes.ERROR_RESPONSE,
        codes.PARAMETER_DESCRIPTION, codes.ROW_DESCRIPTION, codes.NO_DATA,
    })  # fmt: skip

    def __init__(
        self,
        client: Any,
        server: Any,
        statement: Statement,
        gone: list[Statement],
        *,
        then: Callable[[], object] | None = None,
        is_alone: bool = False,
    ) -> None:
        super().__init__(client)
        self._server = server
        self._statement = statement
        self._gone = gone
        self._then = then
        self.is_alone = is_alone
        self._parameters = b""
        self.error = b""

    def take(self, kind: int, message: bytes) -> bytes:
        if kind == codes.PARAMETER_DESCRIPTION:
            self._parameters = message
        elif kind in (codes.ROW_DESCRIPTION, codes.NO_DATA):
            self._arrive()
            self._learn(digest_description(self._parameters, message))
        elif kind == codes.COMMAND_COMPLETE:  # a PREPARE
            self._arrive()
        elif kind == codes.CLOSE_COMPLETE and self._has_left() is None:
            self.relieve()
        elif kind == codes.ERROR_RESPONSE:
            if not self.is_alone:
                return message
            self.error = message
        return b""

    def failed(self, error: ErrorFields) -> bytes | None:
        if error.is_fatal:
            self.is_alone = False
        self._doubt()
        return super().failed(error)

    def answered(self, server: Any) -> None:
        """Of a Sync that was ours too."""

    def voided(self) -> None:
        self._doubt()
        while self._gone:
            statement = self._has_left()
            if statement is not None:
                self._server.statements.setdefault(statement, 0)

    def _arrive(self) -> None:
        if self._server.arriving.get(self._statement) is self:
            del self._server.arriving[self._statement]

    def _doubt(self) -> None:
        if self._server.arriving.get(self._statement) is self:
            self._arrive()
            self._server.statements[self._statement] = 0

    def _has_left(self) -> Statement | None:
        """One of those that had to go; None if it is our own unnamed statement."""
        if not self._gone:
            return None
        statement, leaving = self._gone.pop(0), self._server.leaving
        leaving[statement] -= 1
        if not leaving[statement]:
            del leaving[statement]
        return statement

    def _learn(self, description: bytes) -> None:
        statement = self._statement
        if statement.description is None:
            statement.description = description
        elif statement.description != description:
            statement.is_outdated = True
            self._server.pool.world.schema_changed(self._server.pool)
        self.relieve()

    def relieve(self) -> None:
        then, self._then = self._then, None
        if then is not None:
            then()


class Deed(NamedTuple):
    """Something a request is believed to do to names, and that is certain when its tag has come."""

    tag: bytes  # as in CommandComplete
    done: Callable[[], object]
    undo: Callable[[], object]


class Tagged(Reading):
    """A request whose command tags mean something: UNLISTEN for what was a LISTEN, or that names have come or gone."""

    __slots__ = ("_aliases", "_deeds", "_injections", "_is_listen", "_is_one", "_place")

    wanted = frozenset({codes.COMMAND_COMPLETE})

    def __init__(
        self,
        client: Any,
        is_listen: list[bool],
        deeds: list[Deed],
        injections: tuple[Injection, ...] = (),
        *,
        aliases: Mapping[bytes, bytes] = NO_ALIASES,
        place: Callable[[int], int] | None = None,
        is_one: bool = False,
    ) -> None:
        super().__init__(client)
        self._aliases = aliases  # by names of ours: those it speaks of
        self._place = place  # where a position in the text that was sent is in the client's own
        self._is_listen = is_listen  # of the UNLISTENs to come, in order: was it a LISTEN?
        self._deeds = deeds  # still to come, in order
        self._injections = injections  # what was put in front, each a unit of its own
        self._is_one = is_one  # an Execute: it has one tag

    def take(self, kind: int, message: bytes) -> bytes:
        if self._deeds and message[HEADER_SIZE:] == self._deeds[0].tag:
            self._deeds.pop(0).done()
        if self._is_one:
            self.voided()  # what has not come will not come
        if message == _SENT_TAG and self._is_listen and self._is_listen.pop(0):
            return _TRUE_TAG
        return message

    def failed(self, error: ErrorFields) -> bytes | None:
        self.voided()
        if error.sqlstate == sqlstate.INVALID_STATEMENT_NAME:
            for each in self._injections:
                if each.error:
                    return each.error
        return self._put(self.client.failed(error, self._aliases), error)

    def _put(self, answer: bytes | None, error: ErrorFields) -> bytes | None:
        """The `answer` to an `error`, pointing where it should."""
        position = error.raw.get("P", "")
        if self._place is None or answer == b"" or not (error.body and position.isdecimal()):
            return answer
        body = error.body if answer is None else answer[HEADER_SIZE:]
        return replace_position(body, self._place(int(position[:9])))

    def voided(self) -> None:
        while self._deeds:
            self._deeds.pop().undo()


class Repeat(Envoy):
    """The end of a batch whose plan was stale: nobody has heard of it, and now it is run again."""

    __slots__ = ("_data",)

    def __init__(self, client: Any, data: bytes) -> None:
        super().__init__(client)
        self._data = data

    def deliver(self, data: bytes) -> None:
        """The ReadyForQuery of the first try."""

    def answered(self, server: Any) -> None:
        client = self.client
        if client.server is server and client.held is not None:
            client.held, client.held_care = self._data + client.held, CARE
            client.play(server)
            server.repeatable = None  # once is enough
