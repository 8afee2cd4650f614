"""
What a server sends: parse and build, side by side.

Theory. Towards clients we are a server and build these; towards PostgreSQL we are a client and parse
them. Each kind has its pair here: `build_x` returns the whole message (type, length, body), `parse_x` takes
the body alone, and raises ProtocolError for anything malformed, since a server may be hostile too.

One is different. `parse_error` never raises: it is called when things already go wrong, perhaps with only
the first bytes of a long message, and half a reason is better than none. Every field may be missing
(CVE-2026-6666 was an ErrorResponse without a SQLSTATE).

Streams do not pass here: rows and their kin are stepped over by `framing` and forwarded as they are.

Source: PostgreSQL docs, "Message Formats" and "Error and Notice Message Fields".
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from protocol import codes
from protocol.body import (
    Body,
    build_count,
    build_int16,
    build_int32,
    build_message,
    build_string,
    build_uint32,
    build_value,
)
from protocol.errors import ProtocolError
from protocol.startup import MAX_KEY, MIN_KEY

# The messages that are always the same bytes.
BIND_COMPLETE_MESSAGE: Final = build_message(codes.BIND_COMPLETE)
CLOSE_COMPLETE_MESSAGE: Final = build_message(codes.CLOSE_COMPLETE)
EMPTY_QUERY_MESSAGE: Final = build_message(codes.EMPTY_QUERY_RESPONSE)
NO_DATA_MESSAGE: Final = build_message(codes.NO_DATA)
PARSE_COMPLETE_MESSAGE: Final = build_message(codes.PARSE_COMPLETE)
PORTAL_SUSPENDED_MESSAGE: Final = build_message(codes.PORTAL_SUSPENDED)
READY_IDLE_MESSAGE: Final = build_message(codes.READY_FOR_QUERY, bytes([codes.IDLE]))

TEXT_OID: Final = 25
_STATUSES = (codes.IDLE, codes.IN_TRANSACTION, codes.FAILED)


# Errors and notices.


@dataclass(frozen=True, slots=True)
class ErrorFields:
    """
    An ErrorResponse or NoticeResponse. Any field may be empty; `raw` has all of them by their letter.

    Texts are read as UTF-8; what is not becomes U+FFFD, as these are for people and logs.
    """

    severity: str = ""  # not translated where the server says so (V), else its own language (S)
    sqlstate: str = ""
    message: str = ""
    detail: str = ""
    hint: str = ""
    raw: dict[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False, compare=False)  # as it came

    @property
    def is_fatal(self) -> bool:
        """The server closes the connection after this."""
        return self.severity in ("FATAL", "PANIC")


def parse_error(body: bytes) -> ErrorFields:
    """Never raises. A body that is cut short or malformed gives what could be read of it."""
    raw: dict[str, str] = {}
    for piece in body.split(b"\0"):
        if not piece:  # the zero byte that ends the message
            break
        raw[chr(piece[0])] = piece[1:].decode("utf-8", "replace")
    return ErrorFields(
        severity=raw.get("V") or raw.get("S", ""),
        sqlstate=raw.get("C", "") if len(raw.get("C", "")) == 5 else "",  # a cut one would be another one
        message=raw.get("M", ""),
        detail=raw.get("D", ""),
        hint=raw.get("H", ""),
        raw=raw,
        body=body,
    )


def build_error(severity: str, sqlstate: str, message: str, *, detail: str = "", hint: str = "") -> bytes:
    """`severity` is ERROR when the connection lives on, FATAL when it ends. Zero bytes in texts are left out."""
    return build_message(codes.ERROR_RESPONSE, _build_fields(severity, sqlstate, message, detail, hint))


def build_notice(severity: str, sqlstate: str, message: str, *, detail: str = "", hint: str = "") -> bytes:
    """`severity` is WARNING, NOTICE, DEBUG, INFO or LOG."""
    return build_message(codes.NOTICE_RESPONSE, _build_fields(severity, sqlstate, message, detail, hint))


def _build_fields(severity: str, sqlstate: str, message: str, detail: str, hint: str) -> bytes:
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": message, "D": detail, "H": hint}
    always = "SVCM"
    return b"".join(_build_field(key, text) for key, text in fields.items() if text or key in always) + b"\0"


def _build_field(key: str, text: str) -> bytes:
    # "replace": a driver that decodes strictly must be able to read why it was refused.
    return (key + text.replace("\0", "")).encode("utf-8", "replace") + b"\0"


# Authentication.


def parse_authentication(body: bytes) -> tuple[int, bytes]:
    """What is asked (codes.AUTH_*) and the rest: a salt, mechanisms, SASL data."""
    cursor = Body(body, "Authentication")
    return cursor.take_int32(), cursor.take_rest()


def parse_md5_salt(rest: bytes) -> bytes:
    """The 4 bytes after AUTH_MD5."""
    if len(rest) != 4:
        raise ProtocolError(f"Authentication: an md5 salt of {len(rest)} bytes")
    return rest


def parse_sasl_mechanisms(rest: bytes) -> tuple[str, ...]:
    """What follows AUTH_SASL: mechanism names, the server's favourite first."""
    cursor, mechanisms = Body(rest, "AuthenticationSASL"), []
    while name := cursor.take_string():
        mechanisms.append(name.decode("ascii", "replace"))
    cursor.check_end()
    return tuple(mechanisms)


def build_authentication(code: int, rest: bytes = b"") -> bytes:
    """Any Authentication message: codes.AUTH_* and what follows it."""
    return build_message(codes.AUTHENTICATION, build_int32(code) + rest)


def build_authentication_ok() -> bytes:
    return build_authentication(codes.AUTH_OK)


def build_authentication_cleartext() -> bytes:
    return build_authentication(codes.AUTH_CLEARTEXT)


def build_authentication_md5(salt: bytes) -> bytes:
    """`salt` is 4 random bytes."""
    return build_authentication(codes.AUTH_MD5, parse_md5_salt(salt))


def build_sasl(mechanisms: Iterable[str]) -> bytes:
    return build_authentication(codes.AUTH_SASL, b"".join(map(build_string, mechanisms)) + b"\0")


def build_sasl_continue(data: bytes) -> bytes:
    return build_authentication(codes.AUTH_SASL_CONTINUE, data)


def build_sasl_final(data: bytes) -> bytes:
    return build_authentication(codes.AUTH_SASL_FINAL, data)


# The welcome.


def parse_negotiate(body: bytes) -> tuple[int, tuple[str, ...]]:
    """
    NegotiateProtocolVersion: (the newest minor the server speaks, the options it does not know).

    The docs call the first int32 a minor, but every PostgreSQL sends the whole version, major in the upper half;
    both are read here.
    """
    cursor = Body(body, "NegotiateProtocolVersion")
    version, count = cursor.take_uint32(), cursor.take_uint32()
    options = tuple(cursor.take_string().decode("utf-8", "surrogateescape") for _ in range(count))
    cursor.check_end()
    return version & 0xFFFF, options


def build_negotiate(minor: int, options: Sequence[str]) -> bytes:
    """Sends the whole version, 3.minor, which is what libpq reads (see parse_negotiate)."""
    head = build_uint32(3 << 16 | minor) + build_uint32(len(options))
    return build_message(codes.NEGOTIATE_PROTOCOL_VERSION, head + b"".join(map(build_string, options)))


def parse_parameter_status(body: bytes) -> tuple[str, str]:
    """(name, value), bytes that are not UTF-8 as lone surrogates."""
    cursor = Body(body, "ParameterStatus")
    name, value = cursor.take_string(), cursor.take_string()
    cursor.check_end()
    return name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")


def build_parameter_status(name: str, value: str) -> bytes:
    return build_message(codes.PARAMETER_STATUS, build_string(name) + build_string(value))


def parse_backend_key(body: bytes) -> bytes:
    """Process id and secret as one, 8 to 260 bytes: what a CancelRequest repeats."""
    if not MIN_KEY <= len(body) <= MAX_KEY:
        raise ProtocolError(f"BackendKeyData: {len(body)} bytes")
    return body


def build_backend_key(key: bytes) -> bytes:
    """`key` is process id and secret, 8 bytes for protocol 3.0, up to 260 for 3.2."""
    if not MIN_KEY <= len(key) <= MAX_KEY:
        raise ValueError(f"a cancel key of {len(key)} bytes")
    return build_message(codes.BACKEND_KEY_DATA, key)


def parse_ready(body: bytes) -> int:
    """The transaction status: codes.IDLE, IN_TRANSACTION or FAILED."""
    if len(body) != 1 or body[0] not in _STATUSES:
        raise ProtocolError(f"ReadyForQuery: no such status: {body[:8]!r}")
    return body[0]


def build_ready(status: int) -> bytes:
    return build_message(codes.READY_FOR_QUERY, bytes([status]))


# Results.


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a RowDescription. `name` is in the client's encoding; sizes below 0 are variable."""

    name: bytes
    table_oid: int
    attribute: int
    type_oid: int
    type_size: int
    type_modifier: int
    format: int


def parse_row_description(body: bytes) -> tuple[Column, ...]:
    cursor = Body(body, "RowDescription")
    columns = tuple(_parse_column(cursor) for _ in range(cursor.take_count()))
    cursor.check_end()
    return columns


def _parse_column(cursor: Body) -> Column:
    return Column(
        name=cursor.take_string(),
        table_oid=cursor.take_uint32(),
        attribute=cursor.take_int16(),
        type_oid=cursor.take_uint32(),
        type_size=cursor.take_int16(),
        type_modifier=cursor.take_int32(),
        format=cursor.take_int16(),
    )


def build_row_description(columns: Sequence[tuple[str, int, int]], formats: Sequence[int] = ()) -> bytes:
    """`columns` are (name, type OID, type size), and no table is named; `formats` one for each, none is all text."""
    pairs = zip(columns, formats or [0] * len(columns), strict=True)
    body = b"".join(_build_column(*column, form) for column, form in pairs)
    return build_message(codes.ROW_DESCRIPTION, build_count(len(columns)) + body)


def _build_column(name: str, type_oid: int, type_size: int, form: int) -> bytes:
    no_table, no_modifier = b"\0" * 6, build_int32(-1)
    kind = build_uint32(type_oid) + build_int16(type_size)
    return build_string(name) + no_table + kind + no_modifier + build_int16(form)


def parse_data_row(body: bytes) -> tuple[bytes | None, ...]:
    cursor = Body(body, "DataRow")
    values = tuple(cursor.take_value() for _ in range(cursor.take_count()))
    cursor.check_end()
    return values


def build_data_row(values: Sequence[str | bytes | None]) -> bytes:
    """None is NULL."""
    return build_message(codes.DATA_ROW, build_count(len(values)) + b"".join(map(build_value, values)))


def parse_command_complete(body: bytes) -> bytes:
    """The tag: b"INSERT 0 1", b"SELECT 5", b"BEGIN"."""
    cursor = Body(body, "CommandComplete")
    tag = cursor.take_string()
    cursor.check_end()
    return tag


def build_command_complete(tag: str | bytes) -> bytes:
    return build_message(codes.COMMAND_COMPLETE, build_string(tag))


def parse_parameter_description(body: bytes) -> tuple[int, ...]:
    """The type OIDs of a statement's parameters."""
    cursor = Body(body, "ParameterDescription")
    oids = cursor.take_oids()
    cursor.check_end()
    return oids


def build_parameter_description(type_oids: Sequence[int]) -> bytes:
    body = build_count(len(type_oids)) + b"".join(map(build_uint32, type_oids))
    return build_message(codes.PARAMETER_DESCRIPTION, body)


def parse_function_result(body: bytes) -> bytes | None:
    """FunctionCallResponse: the value, None for NULL."""
    cursor = Body(body, "FunctionCallResponse")
    value = cursor.take_value()
    cursor.check_end()
    return value


def build_function_result(value: bytes | None) -> bytes:
    return build_message(codes.FUNCTION_CALL_RESPONSE, build_value(value))


# COPY (its data and its end are in frontend.py: they are the same both ways) and notifications.


@dataclass(frozen=True, slots=True)
class CopyResponse:
    """CopyInResponse, CopyOutResponse or CopyBothResponse. Formats: 0 is text, 1 binary."""

    format: int
    column_formats: tuple[int, ...]


def parse_copy_response(body: bytes) -> CopyResponse:
    cursor = Body(body, "CopyResponse")
    response = CopyResponse(cursor.take_byte(), cursor.take_counts())
    cursor.check_end()
    return response


def build_copy_response(kind: int, response: CopyResponse) -> bytes:
    """`kind` is codes.COPY_IN_RESPONSE, COPY_OUT_RESPONSE or COPY_BOTH_RESPONSE."""
    counts = b"".join(map(build_count, response.column_formats))
    return build_message(kind, bytes([response.format]) + build_count(len(response.column_formats)) + counts)


@dataclass(frozen=True, slots=True)
class Notification:
    """What somebody said on a channel we listen on. Channel and payload are in the client's encoding."""

    process_id: int
    channel: bytes
    payload: bytes


def parse_notification(body: bytes) -> Notification:
    cursor = Body(body, "NotificationResponse")
    notification = Notification(cursor.take_int32(), cursor.take_string(), cursor.take_string())
    cursor.check_end()
    return notification


def build_notification(notification: Notification) -> bytes:
    texts = build_string(notification.channel) + build_string(notification.payload)
    return build_message(codes.NOTIFICATION_RESPONSE, build_int32(notification.process_id) + texts)
