"""
Named statements: a client's name, ours, and the messages that carry one or the other.

Theory. A statement is what follows the name in its Parse: the text and the types of its parameters. Clients that send
the same have one `Statement`, kept once, under one name of ours (`PGSHUTTLE_7`) on every server that knows it. What
the same text means may change, though: with the schema (hence the generation in `Context`), and with the session's
parameters (MEANINGS): PostgreSQL reads literals once, when it parses, so that '2020-01-01 05:00' is a moment of the
time zone that was then. So a statement is one text in one context, and what it was described as never changes behind a
client's back. A literal that says 'today' means the day on which it was parsed: such a text is shared with nobody.

Nothing here parses more of a message than its names: the values of a Bind may be long, and may not have arrived yet.
Names of ours begin with a prefix that no client's name may pretend to (`is_ours`).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from struct import Struct
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from . import codes
from .errors import ProtocolError
from .framing import HEADER_SIZE
from .parameters import MEANINGS, READ_ONCE

PREFIX = b"PGSHUTTLE_"
MARK = b"?"
NEVER = PREFIX + b"0"  # a name no server ever has: to close it is answered, to bind it is an error
MAX_NAME = 65536  # bytes
NAME_LENGTH = 63  # bytes of a name that count, here as in PostgreSQL
MAX_TARGET = 10_000  # bytes of a Describe or Close; PostgreSQL takes no more
MAX_NAMES = 5_000  # of one client; then its oldest goes
MAX_BYTES = 16_777_216  # of texts one client's names stand for; then its oldest goes
MAX_LOST = 100  # names remembered that stand for something else by now

_head = Struct("!cI").pack
_TYPES = bytes([codes.PARAMETER_DESCRIPTION])

PARSE_EMPTY = b"P\0\0\0\x08\0\0\0\0"  # the unnamed statement, without text: the cheapest way to a ParseComplete
_ANYTHING = b"SET pgshuttle.known TO on"
PARSE_ANYTHING = _head(b"P", 8 + len(_ANYTHING)) + b"\0" + _ANYTHING + b"\0\0\0"  # as cheap; refused where others are
CLOSE_UNNAMED = b"C\0\0\0\x06S\0"
CLOSE_NEVER = _head(b"C", 6 + len(NEVER)) + b"S" + NEVER + b"\0"


_is_of_its_time = re.compile(rb"['$][^'$]{0,60}?\b(?:now|today|tomorrow|yesterday)\b(?!\s*+\()", re.IGNORECASE).search


class Context(NamedTuple):
    """What one text may mean different things under."""

    generation: int  # of the schema: grows with every DDL seen; below 0: one client's own
    meanings: tuple[tuple[str, str], ...] = ()


def find_meanings(parameters: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Those of a session's parameters that a text's meaning hangs on, by names in lower case, sorted."""
    said = ((name.lower(), value) for name, value in parameters.items())
    return tuple(sorted(each for each in said if each[0] in MEANINGS))


def is_of_its_time(text: bytes) -> bool:
    """May a literal in it stand for the moment at which it is parsed?"""
    return _is_of_its_time(text) is not None


class Statement:
    """One text with its types, as all clients share it."""

    __slots__ = (
        "__weakref__", "body", "context", "description", "is_outdated", "is_sql", "name", "needs", "reading", "said",
        "shape",
    )  # fmt: skip

    def __init__(self, name: bytes, body: bytes, *, is_sql: bool = False) -> None:
        self.name = name  # on servers
        self.body = body  # query, zero byte, number of types, types
        self.context: Context | None = None  # of those that are shared
        self.is_sql = is_sql  # made by PREPARE: then `body` is what follows the name there
        self.needs: tuple[Statement, ...] = ()  # those it runs or drops by name (EXECUTE, DEALLOCATE)
        self.said = b""  # its client's own words, where they speak of names and `body` therefore is another
        self.reading: Any = None  # what its text does to a session, once somebody has read it
        self.shape: Any = None  # what is known of texts like this one, once somebody has asked
        self.description: bytes | None = None  # what a server said of its parameters and columns, once known
        self.is_outdated = False  # a server has described it otherwise since: what clients believe of it is wrong

    def __repr__(self) -> str:
        return f"{self.name.decode()}: {self.text[:60]!r}"

    @property
    def text(self) -> bytes:
        return self.body.split(b"\0", 1)[0]

    @property
    def quoted(self) -> bytes:
        """Its name in SQL."""
        return b'"%s"' % self.name

    def build_prepare(self) -> bytes:
        """The Query that makes it, if it `is_sql`."""
        text = b"PREPARE %s %s\0" % (self.quoted, self.body)
        return _head(b"Q", 4 + len(text)) + text

    def build_parse(self) -> bytes:
        body = self.typed
        return _head(b"P", 5 + len(self.name) + len(body)) + self.name + b"\0" + body

    @property
    def typed(self) -> bytes:
        """Its body, with the types its parameters had when it was first described, whatever columns they are compared
        with by now: clients send values in those, in binary perhaps, and PostgreSQL too keeps to them."""
        description = self.description or b""
        types = description[HEADER_SIZE : 1 + int.from_bytes(description[1:HEADER_SIZE], "big")]
        is_whole = description[:1] == _TYPES and len(types) == 2 + 4 * int.from_bytes(types[:2], "big")
        return self.text + b"\0" + types if is_whole else self.body

    def build_describe(self) -> bytes:
        return _head(b"D", 6 + len(self.name)) + b"S" + self.name + b"\0"

    def build_close(self) -> bytes:
        return _head(b"C", 6 + len(self.name)) + b"S" + self.name + b"\0"


def is_at_home(statement: Statement, parameters: Mapping[str, str]) -> bool:
    """Would its literals be read as whoever parsed it first meant them?"""
    if statement.context is None:
        return True  # it is one client's own
    return _find_read_once(statement.context.meanings) == _find_read_once(find_meanings(parameters))


def _find_read_once(meanings: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    return [each for each in meanings if each[0] in READ_ONCE]


class Statements:
    """The statements of one pool, for as long as some client has a name for them or some server knows them."""

    __slots__ = ("_count", "_known")

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[bytes, Context], Statement] = WeakValueDictionary()
        self._count = 0

    def __len__(self) -> int:
        return len(self._known)

    def find(self, body: bytes, context: Context) -> Statement:
        statement = self._known.get((body, context))
        if statement is None:
            statement = self._known[body, context] = self.make(body)
            statement.context = context
        return statement

    def get(self, body: bytes, context: Context) -> Statement | None:
        """The one that `find` would give, if there is one."""
        return self._known.get((body, context))

    def make(self, body: bytes, *, is_sql: bool = False) -> Statement:
        """One that is shared with nobody."""
        self._count += 1
        return Statement(PREFIX + str(self._count).encode(), body, is_sql=is_sql)


class Names:
    """What one client's names stand for, the oldest first."""

    __slots__ = ("_lost", "_size", "_statements", "pending")

    def __init__(self) -> None:
        self._statements: dict[bytes, Statement] = {}
        self._size = 0
        self._lost: dict[bytes, bytes] = {}  # by names of ours: theirs, of late; errors may still speak of them
        self.pending: dict[bytes | None, Any] = {}  # who has given or taken that name last, all if None, unanswered yet

    def __len__(self) -> int:
        return len(self._statements)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._statements)

    def get(self, name: bytes) -> Statement | None:
        return self._statements.get(name[:NAME_LENGTH])

    def put(self, name: bytes, statement: Statement | None) -> Statement | None:
        """`name` stands for `statement` from now on, for nothing if that is None; what it stood for before."""
        name = name[:NAME_LENGTH]
        before = self._statements.pop(name, None)
        if before is not None:
            self._size -= len(before.body)
            self._lose(name, before)
        if statement is not None:
            self._statements[name] = statement
            self._size += len(statement.body)
            while len(self._statements) > MAX_NAMES or self._size > MAX_BYTES:
                if not self._drop_oldest(name):
                    break
        return before

    def _lose(self, name: bytes, statement: Statement) -> None:
        if len(self._lost) >= MAX_LOST:
            del self._lost[next(iter(self._lost))]
        self._lost[statement.name] = name

    def _drop_oldest(self, but: bytes) -> bool:
        oldest = next(iter(self._statements))
        if oldest == but:
            return False
        self.put(oldest, None)
        return True

    def take_all(self) -> dict[bytes, Statement]:
        """None stands for anything any more; what they stood for."""
        before, self._statements, self._size = self._statements, {}, 0
        for name, statement in before.items():
            self._lose(name, statement)
        return before

    def put_back(self, before: dict[bytes, Statement]) -> None:
        """Those of `before` that stand for nothing now."""
        for name, statement in before.items():
            if name not in self._statements:
                self.put(name, statement)

    def settle(self, name: bytes | None, by: Any) -> None:
        """What `by` has made of `name`, of all if that is None, is certain, or undone."""
        if self.pending.get(name) is by:
            del self.pending[name]

    def name_of(self, ours: bytes) -> bytes | None:
        """The client's name for the statement that is `ours` on servers."""
        found = (name for name, statement in self._statements.items() if statement.name == ours)
        return next(found, None) or self._lost.get(ours)


def is_ours(name: bytes) -> bool:
    return name.startswith(PREFIX)


# Reading names. Each gives None while the name has not arrived yet; a name that never ends is a ProtocolError.


def find_parse_name(data: bytes, pos: int, end: int) -> int | None:
    """Where the name in the Parse at `pos` ends."""
    return _find_zero(data, pos + HEADER_SIZE, end)


def find_bind_names(data: bytes, pos: int, end: int) -> tuple[int, int] | None:
    """For the Bind at `pos`: where the statement's name begins and ends. The portal's stands before it."""
    middle = _find_zero(data, pos + HEADER_SIZE, end)
    stop = None if middle is None else _find_zero(data, middle + 1, end)
    return None if middle is None or stop is None else (middle + 1, stop)


def find_target_name(data: bytes, pos: int, end: int) -> int | None:
    """Where the name in the Close or Describe at `pos` ends; it begins behind the kind, at `pos` + 6."""
    return _find_zero(data, pos + HEADER_SIZE + 1, end)


def _find_zero(data: bytes, start: int, end: int) -> int | None:
    found = data.find(0, start, end)
    if found >= 0:
        return found
    if end <= len(data) or len(data) - start > MAX_NAME:
        raise ProtocolError("a name in a message has no end")
    return None


# Writing them.


def rename_parse(name: bytes, body: bytes) -> bytes:
    return _head(b"P", 5 + len(name) + len(body)) + name + b"\0" + body


def rename_bind(data: bytes, pos: int, end: int, span: tuple[int, int], name: bytes) -> bytes:
    """The beginning of the Bind at `pos` up to where its old name ended (`span[1]`), with another name."""
    begin, stop = span
    return _head(b"B", end - pos - 1 + len(name) - (stop - begin)) + data[pos + HEADER_SIZE : begin] + name


def rename_target(kind: int, name: bytes, *, what: bytes) -> bytes:
    """A Describe or Close (`what`) of `kind` (S or P)."""
    return _head(what, 6 + len(name)) + bytes([kind]) + name + b"\0"


def mark(name: bytes) -> bytes:
    """A client's name as it may stand on a server: it is none of ours, though it may look like one."""
    return name + MARK if is_ours(name) else name


def rename_start(data: bytes, pos: int, end: int, stop: int, name: bytes) -> bytes:
    """The beginning of the Parse at `pos`, which may be cut, up to where its old name ended, with another name."""
    return _head(b"P", end - pos - 1 + len(name) - (stop - pos - HEADER_SIZE)) + name


def replace_name(body: bytes, ours: bytes, theirs: bytes) -> bytes:
    """An ErrorResponse with `body`, but that it speaks of the name a client knows: in its message, nowhere else."""
    return _replace_field(body, b"M", lambda text: text.replace(ours, theirs))


def replace_position(body: bytes, position: int) -> bytes:
    """An ErrorResponse with `body`, but that it points somewhere else in the client's text."""
    return _replace_field(body, b"P", lambda _: str(position).encode())


def _replace_field(body: bytes, letter: bytes, change: Callable[[bytes], bytes]) -> bytes:
    fields = body.split(b"\0")
    body = b"\0".join(letter + change(each[1:]) if each[:1] == letter else each for each in fields)
    return _head(bytes([codes.ERROR_RESPONSE]), len(body) + 4) + body


# Comparing descriptions.

_COLUMN = Struct("!IhIhih")  # table, number there, type, size, modifier, format


def digest_description(parameters: bytes, columns: bytes) -> bytes:
    """What a client relies on: types of parameters; names, types and modifiers of columns. Not where they come from:
    a table that was made again is the same to it. `columns` is a RowDescription or NoData. ProtocolError if malformed.
    """
    if columns[0] == codes.NO_DATA:
        return parameters
    pieces = [parameters, b"T"]
    count, pos = int.from_bytes(columns[HEADER_SIZE : HEADER_SIZE + 2], "big"), HEADER_SIZE + 2
    for _ in range(count):
        stop = columns.find(0, pos)
        if stop < 0 or stop + 1 + _COLUMN.size > len(columns):
            raise ProtocolError("a RowDescription that ends in the middle of a column")
        _, _, kind, _, modifier, _ = _COLUMN.unpack_from(columns, stop + 1)
        pieces.append(b"%s\0%d,%d;" % (columns[pos:stop], kind, modifier))
        pos = stop + 1 + _COLUMN.size
    return b"".join(pieces)
