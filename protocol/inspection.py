"""
The one question we ask a server about its session, and how its answer is read.

Theory. A text tells what may have changed, the server knows what has. When a client's transaction is over, its server
is asked for exactly what is in doubt, with one simple Query: values of parameters, and whether something exists that
ties the session to its server (`Fact`). So savepoints, rollbacks, SET LOCAL, ON COMMIT DROP and locks that were tried
in vain need no understanding.

The client may have changed what names mean, so everything is named with its schema, operators too, and no literal is
written as the client said it (`build_text`). The question must work read-only, on a standby, without any rights and
under any search_path. One row answers it, a column for each thing asked. Where nobody knows which parameters were set,
a second statement lists all that the session has set: but for what is a transaction's, which PostgreSQL goes on listing
as the session's once a SET TRANSACTION has named it. (What has no entry in pg_settings, such as a parameter of the
user's own, cannot be listed: whoever needs to be sure puts everything back afterwards, with RESET_ALL.)

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
from protocol.parameters import PASSING, build_text

MAX_ANSWER = 262_144  # bytes; a hundred parameters of the greatest length fit


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
    """What is in doubt. `lists`: all parameters that the session has set."""

    names: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()
    lists: bool = False

    def __bool__(self) -> bool:
        return bool(self.names or self.facts or self.lists)


@dataclass(frozen=True, slots=True)
class Answer:
    """A value is None where there is no such parameter. `listed` has names in lower case."""

    values: dict[str, str | None] = field(default_factory=dict)
    facts: dict[Fact, bool] = field(default_factory=dict)
    listed: dict[str, str] = field(default_factory=dict)


_LIST = (
    "SELECT name,pg_catalog.current_setting(name) FROM pg_catalog.pg_settings"
    " WHERE source OPERATOR(pg_catalog.=) 'session'"
)
RESET_ALL = build_query("RESET ALL")

_header = Struct("!BI").unpack_from
_YES_OR_NO = {b"t": True, b"f": False}


def build_inspection(question: Question) -> bytes:
    """The whole Query message."""
    columns = [f"pg_catalog.current_setting({build_text(name)},true)" for name in question.names]
    columns += [fact.value for fact in question.facts]
    texts = ["SELECT " + ",".join(columns)] if columns else []
    texts += [_LIST] if question.lists else []
    return build_query(";".join(texts))


def parse_inspection(question: Question, data: bytes, encoding: str) -> Answer:
    """All that the server has said. ProtocolError: it is no answer to the question."""
    rows = list(parse_rows(data))
    answer = Answer()
    if question.names or question.facts:
        row = rows.pop(0) if rows else []
        if len(row) != len(question.names) + len(question.facts):
            raise ProtocolError("an inspection's answer has other columns")
        values, facts = row[: len(question.names)], row[len(question.names) :]
        answer.values.update(zip(question.names, (decode(value, encoding) for value in values), strict=True))
        answer.facts.update(zip(question.facts, map(_parse_truth, facts), strict=True))
    if rows and not question.lists:
        raise ProtocolError("an inspection's answer has a row too many")
    listed = [_parse_listed(row, encoding) for row in rows]
    answer.listed.update((name, value) for name, value in listed if name not in PASSING)
    return answer


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
