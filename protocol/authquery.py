"""
auth_query: a user's secret, asked of PostgreSQL, and how the answer is read.

Theory. The operator writes a query with a `$1`; whoever wants to log in says the name that goes there. That is a
stranger's text, so it travels as a bound parameter of the extended protocol and is never part of a query's text. The
parameter has no type and the answer is text, as PgBouncer has it: the query decides what it compares the name with.

Where it is asked somebody else may own the database, and with ALTER DATABASE its owner says where names are looked for
first: a pg_authid of his own would be read, and what it calls be run, with the rights of auth_user. So in the
transaction of the question, and for no longer, PostgreSQL's own names go before all others (`_OWN_NAMES_FIRST`).

At most one row is wanted, with the name and the secret, or the secret alone. Where the name is told it must be the one
that was asked for: PostgreSQL cuts a name after 63 bytes, and would answer for somebody else. So who has a longer one
is not believed a secret that comes without a name. `max_rows` of two is
enough to see that there are too many.

What is wrong with the query itself is a `BadQuery`; what is wrong with one user's row is a `BadRow`, and that user is
not known to us. Neither sentence holds a secret.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final

from . import codes
from .backend import Column, parse_data_row, parse_row_description
from .errors import ProtocolError
from .framing import HEADER_SIZE
from .frontend import PORTAL, SYNC_MESSAGE, Bind, build_bind, build_describe, build_execute, build_parse
from .ledger import BIND, DESCRIBE, EXECUTE, PARSE, SYNC
from .passwords import BadSecret, Plain, Secret, Stored, encode_text, parse_stored

MAX_ANSWER: Final = 262_144  # bytes; the longest secret is a quarter of that
DEBTS: Final = (PARSE, BIND, EXECUTE, PARSE, BIND, DESCRIBE, EXECUTE, SYNC)

_OWN_NAMES_FIRST: Final = (
    "SELECT WHERE pg_catalog.set_config('search_path', pg_catalog.rtrim(pg_catalog.concat('pg_catalog, ',"
    " pg_catalog.current_setting('search_path')), ', '), true) IS NULL"
)  # it answers with no row
_TEXTS: Final = frozenset({18, 19, 25, 705, 1042, 1043})  # char, name, text, unknown, bpchar, varchar
_FIRST_OF_ITS_OWN: Final = 16_384  # a type that somebody has made, such as citext
_NO_PASSWORD: Final = Plain(Secret(""))
_SECRETS: Final = re.compile(r"SCRAM-SHA-256\$\S*|md5[0-9a-f]{32}")
_header = Struct("!BI").unpack_from


class BadQuery(Exception):
    """What the query answers is not what an auth_query answers, whoever is asked for."""


class BadRow(Exception):
    """What is said of this one user cannot be used."""


@dataclass(frozen=True, slots=True)
class _Answer:
    columns: tuple[Column, ...] | None
    rows: tuple[tuple[bytes | None, ...], ...]


def build_auth_query(query: str, user: str) -> bytes:
    """The request, which earns DEBTS."""
    return (
        build_parse(b"", encode_text(_OWN_NAMES_FIRST))
        + build_bind(Bind(b"", b""))
        + build_execute(b"")
        + build_parse(b"", encode_text(query))
        + build_bind(Bind(b"", b"", values=(encode_text(user),)))
        + build_describe(PORTAL, b"")
        + build_execute(b"", max_rows=2)
        + SYNC_MESSAGE
    )


def parse_secret(data: bytes, user: str) -> tuple[Stored, ...]:
    """
    The secret of `user` in whole messages; none: there is no such user. One that is empty: it has no password, or one
    whose time is over. BadQuery, BadRow: see the theory.
    """
    answer = _parse_answer(data)
    _check_columns(answer.columns)
    if not answer.rows:
        return ()
    if len(answer.rows) > 1:
        raise BadRow("auth_query answers with more than one row")
    *name, secret = answer.rows[0]
    if name and name[0] is None:
        return ()  # a function with OUT parameters says so that there is nobody
    if name and name[0] != encode_text(user):
        raise BadRow("auth_query answers for somebody else than it was asked for")
    if not name and len(encode_text(user)) > codes.MAX_NAME_LENGTH:
        raise BadRow("auth_query answers without a name, for one that PostgreSQL may have cut")
    return (_parse_stored(secret),)


def hide_secrets(text: str) -> str:
    """`text` for the log: PostgreSQL may quote in an error what the query has read."""
    return _SECRETS.sub("***", text)


def _parse_answer(data: bytes) -> _Answer:
    columns, rows = None, []
    try:
        for kind, body in _messages(data):
            if kind == codes.ROW_DESCRIPTION:
                columns = parse_row_description(body)
            elif kind == codes.DATA_ROW:
                rows.append(parse_data_row(body))
    except ProtocolError as error:
        raise BadQuery(f"the answer to auth_query cannot be read: {error}") from None
    if columns is not None and any(len(row) != len(columns) for row in rows):
        raise BadQuery("the answer to auth_query has rows of another width than it says")
    return _Answer(columns, tuple(rows))


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    pos = 0
    while pos < len(data):
        if len(data) - pos < HEADER_SIZE:
            raise ProtocolError("it is cut")
        kind, length = _header(data, pos)
        end = pos + 1 + length
        if length < HEADER_SIZE - 1 or end > len(data):
            raise ProtocolError("it is cut")
        yield kind, data[pos + HEADER_SIZE : end]
        pos = end


def _check_columns(columns: tuple[Column, ...] | None) -> None:
    if columns is None:
        raise BadQuery("auth_query answers with no rows at all: it must be a query, as SELECT is")
    if len(columns) not in (1, 2):
        raise BadQuery(f"expected 1 or 2 columns from auth_query, not {len(columns)}: the name and the secret")
    for number, column in enumerate(columns, 1):
        if column.format != 0 or (column.type_oid not in _TEXTS and column.type_oid < _FIRST_OF_ITS_OWN):
            raise BadQuery(f"column {number} of auth_query is no text (it has the type with OID {column.type_oid})")


def _parse_stored(secret: bytes | None) -> Stored:
    if secret is None:
        return _NO_PASSWORD
    try:
        return parse_stored(secret.decode("utf-8", "surrogateescape"))
    except BadSecret as error:
        raise BadRow(str(error)) from None
