"""
What a client sends: parse and build, side by side.

Theory. Towards clients we parse these, towards PostgreSQL we build them: our own questions, a named
statement under another name, the answers of a login. `build_x` returns the whole message (type, length,
body); `parse_x` takes the body alone and raises ProtocolError for anything malformed.

Names, statements and values stay bytes: they are in the client's encoding, which we need not know, and
most only pass through. Of the messages behind the letter `p` (PasswordMessage, SASLInitialResponse,
SASLResponse) only the moment tells which one it is, so the caller chooses the parser.

Source: PostgreSQL docs, "Message Formats".
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from protocol import codes
from protocol.body import (
    Body,
    build_bytes,
    build_count,
    build_int32,
    build_message,
    build_string,
    build_uint32,
    build_value,
)
from protocol.errors import ProtocolError

# The messages that are always the same bytes.
COPY_DONE_MESSAGE: Final = build_message(codes.COPY_DONE)
FLUSH_MESSAGE: Final = build_message(codes.FLUSH)
SYNC_MESSAGE: Final = build_message(codes.SYNC)
TERMINATE_MESSAGE: Final = build_message(codes.TERMINATE)

STATEMENT: Final = ord("S")  # what a Close or Describe names
PORTAL: Final = ord("P")


# The simple protocol.


def parse_query(body: bytes) -> bytes:
    """The text, which may hold several statements."""
    return _parse_one_string(body, "Query")


def build_query(text: str | bytes) -> bytes:
    return build_message(codes.QUERY, build_string(text))


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A call by OID. `argument_formats` has none, one for all, or one for each argument; 0 is text, 1 binary."""

    function_oid: int
    argument_formats: tuple[int, ...]
    arguments: tuple[bytes | None, ...]
    result_format: int


def parse_function_call(body: bytes) -> FunctionCall:
    cursor = Body(body, "FunctionCall")
    call = FunctionCall(cursor.take_uint32(), cursor.take_counts(), _take_values(cursor), cursor.take_count())
    cursor.check_end()
    return call


def build_function_call(call: FunctionCall) -> bytes:
    arguments = _build_counts(call.argument_formats) + _build_values(call.arguments)
    return build_message(
        codes.FUNCTION_CALL, build_uint32(call.function_oid) + arguments + build_count(call.result_format)
    )


# The extended protocol.


@dataclass(frozen=True, slots=True)
class Parse:
    """Prepare `query` under `name` (b"" is the unnamed statement). A type OID of 0 leaves the type to PostgreSQL."""

    name: bytes
    query: bytes
    type_oids: tuple[int, ...] = ()


def parse_parse(body: bytes) -> Parse:
    cursor = Body(body, "Parse")
    parse = Parse(cursor.take_string(), cursor.take_string(), cursor.take_oids())
    cursor.check_end()
    return parse


def build_parse(name: bytes, query: bytes, type_oids: Sequence[int] = ()) -> bytes:
    oids = build_count(len(type_oids)) + b"".join(map(build_uint32, type_oids))
    return build_message(codes.PARSE, build_string(name) + build_string(query) + oids)


@dataclass(frozen=True, slots=True)
class Bind:
    """Make a portal of a statement and values. Formats: none (all text), one for all, or one each."""

    portal: bytes
    statement: bytes
    value_formats: tuple[int, ...] = ()
    values: tuple[bytes | None, ...] = ()
    result_formats: tuple[int, ...] = ()


def parse_bind(body: bytes) -> Bind:
    cursor = Body(body, "Bind")
    bind = Bind(
        portal=cursor.take_string(),
        statement=cursor.take_string(),
        value_formats=cursor.take_counts(),
        values=_take_values(cursor),
        result_formats=cursor.take_counts(),
    )
    cursor.check_end()
    return bind


def build_bind(bind: Bind) -> bytes:
    names = build_string(bind.portal) + build_string(bind.statement)
    values = _build_counts(bind.value_formats) + _build_values(bind.values)
    return build_message(codes.BIND, names + values + _build_counts(bind.result_formats))


@dataclass(frozen=True, slots=True)
class Target:
    """What a Close or Describe is about: `kind` is STATEMENT or PORTAL."""

    kind: int
    name: bytes


def parse_close(body: bytes) -> Target:
    return _parse_target(body, "Close")


def build_close(kind: int, name: bytes) -> bytes:
    return build_message(codes.CLOSE, bytes([kind]) + build_string(name))


def parse_describe(body: bytes) -> Target:
    return _parse_target(body, "Describe")


def build_describe(kind: int, name: bytes) -> bytes:
    return build_message(codes.DESCRIBE, bytes([kind]) + build_string(name))


def _parse_target(body: bytes, what: str) -> Target:
    cursor = Body(body, what)
    target = Target(cursor.take_byte(), cursor.take_string())
    cursor.check_end()
    if target.kind not in (STATEMENT, PORTAL):
        raise ProtocolError(f"{what}: neither a statement nor a portal: {chr(target.kind)!r}")
    return target


@dataclass(frozen=True, slots=True)
class Execute:
    """Run a portal for at most `max_rows` rows; 0 is all of them."""

    portal: bytes
    max_rows: int = 0


def parse_execute(body: bytes) -> Execute:
    """A negative number of rows is not an error: PostgreSQL takes it as all of them, and so must we."""
    cursor = Body(body, "Execute")
    execute = Execute(cursor.take_string(), cursor.take_int32())
    cursor.check_end()
    return execute


def build_execute(portal: bytes, max_rows: int = 0) -> bytes:
    return build_message(codes.EXECUTE, build_string(portal) + build_int32(max_rows))


def build_run(text: bytes) -> bytes:
    """Run one statement that has no values, and go on: unlike a Query it does not end its unit."""
    return build_parse(b"", text) + _RUN


# COPY, both ways where the name says nothing else.


def parse_copy_data(body: bytes) -> bytes:
    """The data: any bytes at all, cut anywhere."""
    return body


def build_copy_data(data: bytes) -> bytes:
    return build_message(codes.COPY_DATA, data)


def parse_copy_fail(body: bytes) -> bytes:
    """Why the client gives up."""
    return _parse_one_string(body, "CopyFail")


def build_copy_fail(reason: str | bytes) -> bytes:
    return build_message(codes.COPY_FAIL, build_string(reason))


# Logging in.


def parse_password(body: bytes) -> bytes:
    """PasswordMessage: the password, or "md5" and 32 hexadecimal digits. Do not log it."""
    return _parse_one_string(body, "PasswordMessage")


def build_password(password: str | bytes) -> bytes:
    return build_message(codes.PASSWORD, build_string(password))


@dataclass(frozen=True, slots=True)
class SaslInitial:
    """The chosen mechanism and the client-first message; None when the mechanism has none."""

    mechanism: str
    data: bytes | None = field(repr=False)  # a token, with some mechanisms


def parse_sasl_initial(body: bytes) -> SaslInitial:
    cursor = Body(body, "SASLInitialResponse")
    initial = SaslInitial(cursor.take_string().decode("ascii", "replace"), cursor.take_value())
    cursor.check_end()
    return initial


def build_sasl_initial(mechanism: str, data: bytes | None) -> bytes:
    return build_message(codes.PASSWORD, build_string(mechanism) + build_value(data))


def parse_sasl_response(body: bytes) -> bytes:
    """SASLResponse: the mechanism's own data, the whole body."""
    return body


def build_sasl_response(data: str | bytes) -> bytes:
    return build_message(codes.PASSWORD, build_bytes(data))


# Shared bricks.


def _parse_one_string(body: bytes, what: str) -> bytes:
    cursor = Body(body, what)
    text = cursor.take_string()
    cursor.check_end()
    return text


def _take_values(cursor: Body) -> tuple[bytes | None, ...]:
    return tuple([cursor.take_value() for _ in range(cursor.take_count())])


def _build_values(values: Sequence[bytes | None]) -> bytes:
    return build_count(len(values)) + b"".join(map(build_value, values))


def _build_counts(counts: Sequence[int]) -> bytes:
    return build_count(len(counts)) + b"".join(map(build_count, counts))


_RUN: Final = build_bind(Bind(b"", b"")) + build_execute(b"")
