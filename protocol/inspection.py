"""
The one question we ask a server about its session, and how its answer is read.

Theory. A text tells what may have changed, the server knows what has. When a client's transaction is over, its server
is asked for exactly what is in doubt, with one simple Query: values of parameters, and whether something exists that
ties the session to its server (`Fact`). So savepoints, rollbacks, SET LOCAL, ON COMMIT DROP and locks that were tried
in vain need no understanding.

The client may have changed what names mean, so everything is named with its schema, operators too, and no literal is
written as the client said it (`build_text`). The question must work read-only, on a standby, without any rights and
under any search_path. One row answers it, a column for each thing asked. Where nobody knows which parameters were set,
another statement lists all that the session has set: but for what is a transaction's, which PostgreSQL goes on listing
as the session's once a SET TRANSACTION has named it. (What has no entry in pg_settings, such as a parameter of the
user's own, cannot be listed: whoever needs to be sure puts everything back afterwards, with RESET_ALL.)

Some of what a session may be in gets in the way of its own inspection: a timeout strikes it, a role may not read a
parameter, a serializable transaction waits for a snapshot that is safe. So such parameters (`FIRST`) are read before
anything else and in the same SELECT put back, for this one transaction, to what they were at login, which is told too;
and `is_calm` questions are asked in a transaction that is read committed. A parameter that its user
may not read fails the question that names it, and is not in the list: so where a question has failed it is the list.

What comes back is a server's, so it is read as carefully as everything of a server's, and is short.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from struct import Struct

from protocol import codes, encodings
from protocol.body import Body
from protocol.errors import ProtocolError
from protocol.framing import HEADER_SIZE
from protocol.frontend import build_query
from protocol.parameters import CALM, IDENTITY, PASSING, TIMEOUTS, build_text

MAX_ANSWER = 524_288  # bytes; four hundred parameters of the greatest length fit


FIRST = (*TIMEOUTS, *IDENTITY)
"""What is read, and put back to what it was at login, before anything else is asked."""


class Fact(Enum):
    """Something that lives in one session only; the values are SQL."""

    TEMP = (
        "EXISTS(SELECT FROM pg_catalog.pg_depend WHERE refclassid OPERATOR(pg_catalog.=) 2615::pg_catalog.oid"
        " AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())"
    )  # in our temporary schema, of any kind; by an index, where pg_class would be read whole (2615: pg_namespace)
    LOCKS = (
        "EXISTS(SELECT FROM pg_catalog.pg_locks WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()"
        " AND locktype OPERATOR(pg_catalog.=) 'advisory')"
    )
    CURSORS = "EXISTS(SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)"
    CHANNELS = "EXISTS(SELECT FROM pg_catalog.pg_listening_channels())"
    STATEMENTS = (
        "EXISTS(SELECT FROM pg_catalog.pg_prepared_statements"
        " WHERE pg_catalog.left(name,10) OPERATOR(pg_catalog.<>) 'PGSHUTTLE_')"
    )  # but those that are shared


@dataclass(frozen=True, slots=True)
class Question:
    """What is in doubt. `lists`: all parameters that the session has set. `is_calm`: whatever its transactions are."""

    names: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()
    lists: bool = False
    is_calm: bool = False

    def __bool__(self) -> bool:
        return bool(self.names or self.facts or self.lists)

    @property
    def first(self) -> tuple[str, ...]:
        return tuple(name for name in FIRST if name in self.names)

    @property
    def rest(self) -> tuple[str, ...]:
        return tuple(name for name in self.names if name not in FIRST)


@dataclass(frozen=True, slots=True)
class Answer:
    """A value is None where there is no such parameter. `listed` has names in lower case; `at_login` what some were."""

    values: dict[str, str | None] = field(default_factory=dict)
    facts: dict[Fact, bool] = field(default_factory=dict)
    listed: dict[str, str] = field(default_factory=dict)
    at_login: dict[str, str | None] = field(default_factory=dict)


_LIST = (
    "SELECT name,pg_catalog.current_setting(name) FROM pg_catalog.pg_settings"
    " WHERE source OPERATOR(pg_catalog.=) 'session'"
)
RESET_ALL = build_query("RESET ALL")

_header = Struct("!BI").unpack_from
_YES_OR_NO = {b"t": True, b"f": False}


def build_inspection(question: Question) -> bytes:
    """The whole Query message."""
    first = [_build_value(name) for name in question.first]
    first += [_build_login(name) for name in question.first]
    columns = [_build_value(name) for name in question.rest]
    columns += [fact.value for fact in question.facts]
    texts = [CALM] if question.is_calm else []
    texts += ["SELECT " + ",".join(each) for each in (first, columns) if each]
    texts += [_LIST] if question.lists else []
    return build_query(";".join(texts))


def _build_value(name: str) -> str:
    return f"pg_catalog.current_setting({build_text(name)},true)"


def _build_login(name: str) -> str:
    """What it was at login, and is until the transaction is over. (An older server does not know each of them.)"""
    back = f"pg_catalog.set_config({build_text(name)},NULL,true)"
    return f"CASE WHEN {_build_value(name)} IS NOT NULL THEN {back} END"


def parse_inspection(question: Question, data: bytes, encoding: str) -> Answer:
    """All that the server has said. ProtocolError: it is no answer to the question."""
    rows = list(parse_rows(data))
    answer, first, rest = Answer(), question.first, question.rest
    if first:
        values = [decode(value, encoding) for value in _take_row(rows, 2 * len(first))]
        answer.values.update(zip(first, values, strict=False))
        answer.at_login.update(zip(first, values[len(first) :], strict=True))
    if rest or question.facts:
        row = _take_row(rows, len(rest) + len(question.facts))
        answer.values.update(zip(rest, (decode(value, encoding) for value in row), strict=False))
        answer.facts.update(zip(question.facts, map(_parse_truth, row[len(rest) :]), strict=True))
    if rows and not question.lists:
        raise ProtocolError("an inspection's answer has a row too many")
    listed = [_parse_listed(row, encoding) for row in rows]
    answer.listed.update((name, value) for name, value in listed if name not in PASSING)
    return answer


def _take_row(rows: list[list[bytes | None]], columns: int) -> list[bytes | None]:
    row = rows.pop(0) if rows else []
    if len(row) != columns:
        raise ProtocolError("an inspection's answer has other columns")
    return row


def parse_rows(data: bytes) -> Iterator[list[bytes | None]]:
    """The DataRows among whole messages of any type."""
    pos = 0
    while pos < len(data):
        if len(data) - pos < HEADER_SIZE:
            raise ProtocolError("an inspection's answer is cut")
        kind, length = _header(data, pos)
        if length < HEADER_SIZE - 1 or pos + length >= len(data):
            raise ProtocolError("an inspection's answer is cut")
        if kind == codes.DATA_ROW:
            yield _parse_row(data[pos + HEADER_SIZE : pos + length + 1])
        pos += length + 1


def _parse_row(body: bytes) -> list[bytes | None]:
    cursor = Body(body, "DataRow")
    values = [cursor.take_value() for _ in range(cursor.take_count())]
    cursor.check_end()
    return values


def _parse_truth(value: bytes | None) -> bool:
    if value not in _YES_OR_NO:
        raise ProtocolError("an inspection's answer is neither yes nor no")
    return _YES_OR_NO[value]


def _parse_listed(row: list[bytes | None], encoding: str) -> tuple[str, str]:
    if len(row) != 2:
        raise ProtocolError("an inspection's answer has other columns")
    name, value = (decode(each, encoding) or "" for each in row)
    return name.lower(), value


def decode(value: bytes | None, encoding: str) -> str | None:
    """A value of an answer. Bytes of unknown meaning become lone surrogates, which can be compared and not sent."""
    if value is None:
        return None
    try:
        return encodings.to_utf8(value, encoding).decode()
    except ValueError:
        return value.decode("ascii", "surrogateescape")
