"""
The first packets: they have a length but no type, and any stranger may send them.

Theory. A connection opens with one of five packets, told apart by the second int32: a protocol version
(a login), or a number no version will ever have (TLS please, GSS please, cancel, and one that only a process of ours
knows: may I take your place?). Nothing is known about
the sender, so every name is bounded before it is kept, and no sentence of ours repeats more than 64
characters of what was sent (CVE-2012-4575 was a long database name).

Versions. We speak 3.0 and 3.2, which differ only in the length of the cancel key. A client that asks for
a minor we do not speak, or for a `_pq_.` option, is told once, by a NegotiateProtocolVersion, what it will
get; it then goes on or goes away. 3.1 was never a version of PostgreSQL (it was skipped because older
PgBouncers claimed it by mistake), so whoever asks for it gets 3.0. 3.9999 is a client that tests whether
servers negotiate at all ("greasing").

Source: PostgreSQL docs, "Message Formats" (StartupMessage, CancelRequest, SSLRequest) and "Protocol
Versions"; what an `options` parameter may hold is the manual page of `postgres`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from struct import Struct

from protocol import sqlstate
from protocol.body import Body, build_string
from protocol.codes import (
    CANCEL_REQUEST,
    GSSENC_REQUEST,
    MAX_NAME_LENGTH,
    MAX_USER_LENGTH,
    PROTOCOL_3_0,
    SSL_REQUEST,
    SUCCESSION_REQUEST,
)
from protocol.errors import ProtocolError, Refused

LATEST_MINOR = 2
MAX_PARAMETERS = 200  # PostgreSQL's bound is the packet's 10,000 bytes; nobody's client sends 20
MAX_ECHO = 64  # characters of a stranger's text that we repeat
MIN_KEY, MAX_KEY = 8, 260  # a process id of 4 bytes and a secret of 4 to 256

_CODE = Struct("!I")
_PACKET = Struct("!II")
_LONGEST = {"user": MAX_USER_LENGTH, "database": MAX_NAME_LENGTH}  # bytes
_SHORT_NAME = MAX_NAME_LENGTH // 4  # characters: it fits whatever they are
_OPTION = b"_pq_."
_WORD = re.compile(r"(?:\\.|[^\\ \t\n\r\v\f])+\\?|\\", re.DOTALL)
_ESCAPED = re.compile(r"\\(.?)", re.DOTALL)


@dataclass(frozen=True, slots=True, repr=False)
class Startup:
    """A login. `parameters` holds user and database too; `options` are the `_pq_.` names, as sent."""

    major: int
    minor: int
    parameters: dict[str, str]
    options: tuple[str, ...] = ()

    @property
    def user(self) -> str:
        return self.parameters["user"]

    @property
    def database(self) -> str:
        return self.parameters["database"]

    def __repr__(self) -> str:  # of the other parameters only the names: some put their password there
        names = ", ".join(map(_echo, self.parameters))
        return f"Startup({_echo(self.user)}@{_echo(self.database)}, {self.major}.{self.minor}, {names})"


@dataclass(frozen=True, slots=True)
class SslRequest:
    """The client asks for TLS. The answer is one byte, S or N."""


@dataclass(frozen=True, slots=True)
class GssRequest:
    """The client asks for GSSAPI encryption. The answer is one byte; ours is N."""


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Stop what the session with this key runs. `key` is process id and secret, as they were in BackendKeyData."""

    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SuccessionRequest:
    """A new process of ours wants to take over; it speaks this version of that conversation."""

    version: int


Request = Startup | SslRequest | GssRequest | CancelRequest | SuccessionRequest


def parse_startup(body: bytes) -> Request:
    """The packet without its int32 length. ProtocolError when it is malformed, Refused when we do not serve it."""
    if len(body) < 4:
        raise ProtocolError("startup packet: too short for a version")
    (code,) = _CODE.unpack_from(body)
    rest = body[4:]
    if code >> 16 == 3:
        return _parse_login(3, code & 0xFFFF, rest)
    if code == CANCEL_REQUEST:
        return _parse_cancel(rest)
    if code in (SSL_REQUEST, GSSENC_REQUEST):
        Body(rest, "encryption request").check_end()
        return SslRequest() if code == SSL_REQUEST else GssRequest()
    if code == SUCCESSION_REQUEST:
        return _parse_succession(rest)
    return _parse_login(code >> 16, code & 0xFFFF, rest)


def _parse_cancel(key: bytes) -> CancelRequest:
    if not MIN_KEY <= len(key) <= MAX_KEY:
        raise ProtocolError(f"cancel request: a key of {len(key)} bytes")
    return CancelRequest(key)


def _parse_succession(rest: bytes) -> SuccessionRequest:
    if len(rest) != _CODE.size:
        raise ProtocolError(f"succession request: a version of {len(rest)} bytes")
    return SuccessionRequest(*_CODE.unpack(rest))


def _parse_login(major: int, minor: int, body: bytes) -> Startup:
    if major != 3:
        raise Refused(
            sqlstate.FEATURE_NOT_SUPPORTED,
            f"unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{LATEST_MINOR}",
        )
    pairs = _split_pairs(body) or _parse_pairs(body)
    parameters = dict(pairs)
    options: tuple[str, ...] = ()
    if _OPTION in body:
        options = tuple(name for name, _ in pairs if name.startswith("_pq_."))
        parameters = {name: value for name, value in pairs if not name.startswith("_pq_.")}
    if not parameters.get("user"):
        raise Refused(sqlstate.INVALID_AUTHORIZATION, "no PostgreSQL user name specified in startup packet")
    parameters["database"] = parameters.get("database") or parameters["user"]
    for what, limit in _LONGEST.items():
        if len(parameters[what]) > _SHORT_NAME:
            _check_name(what, parameters[what], limit)
    return Startup(major, minor, parameters, options)


def _split_pairs(body: bytes) -> list[tuple[str, str]]:
    """The same as `_parse_pairs`, for a packet that has nothing unusual in it; empty: look closer."""
    texts = _decode(body).split("\0")
    names, values = texts[:-2:2], texts[1:-2:2]
    is_usual = texts[-2:] == ["", ""] and len(names) == len(values) <= MAX_PARAMETERS and all(names)
    return list(zip(names, values, strict=True)) if is_usual else []


def _parse_pairs(body: bytes) -> list[tuple[str, str]]:
    """Names and values up to the empty name. Of a name sent twice the last counts, as in PostgreSQL."""
    cursor = Body(body, "startup packet")
    pairs: list[tuple[str, str]] = []
    while name := cursor.take_string():
        if len(pairs) == MAX_PARAMETERS:
            raise Refused(sqlstate.PROTOCOL_VIOLATION, f"more than {MAX_PARAMETERS} startup parameters")
        pairs.append((_decode(name), _decode(cursor.take_string())))
    cursor.check_end()
    return pairs


def _check_name(what: str, name: str, limit: int) -> None:
    length = len(name.encode("utf-8", "surrogateescape"))
    if length > limit:
        raise Refused(
            sqlstate.PROTOCOL_VIOLATION,
            f'{what} name of {length} bytes is too long, at most {limit} are allowed: "{_echo(name)}"',
        )


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _echo(text: str) -> str:
    """A stranger's text, fit for a log line and a terminal."""
    short = text if len(text) <= MAX_ECHO else text[: MAX_ECHO - 3] + "..."
    return "".join(character if character.isprintable() else "?" for character in short)


def negotiate(startup: Startup) -> tuple[int, tuple[str, ...]] | None:
    """What the one NegotiateProtocolVersion must say: (minor we speak, options we do not know); None when nothing."""
    spoken = LATEST_MINOR if startup.minor >= LATEST_MINOR else 0
    if spoken == startup.minor and not startup.options:
        return None
    return spoken, startup.options


def parse_options(text: str) -> list[tuple[str, str]]:
    """
    The startup parameter `options` as (name, value) in the order given, dashes in names made underscores.

    Words are split at white space, a backslash makes the next character plain, and `-c k=v`, `-ck=v` and `--k=v` are
    understood, as by PostgreSQL. Any other switch raises Refused: it would change the server for everyone.
    """
    words = iter([_ESCAPED.sub(r"\1", word) for word in _WORD.findall(text)])
    return [_parse_assignment(word, words) for word in words]


def _parse_assignment(word: str, words: Iterator[str]) -> tuple[str, str]:
    if word == "-c":
        assignment = next(words, "")
    elif word.startswith(("-c", "--")):
        assignment = word[2:]
    else:
        raise Refused(sqlstate.FEATURE_NOT_SUPPORTED, f"unsupported startup parameter in options: {_echo(word)}")
    name, equals, value = assignment.partition("=")
    if not name or not equals:
        raise Refused(sqlstate.SYNTAX_ERROR, f"startup options: {_echo(word + ' ' + assignment)} requires a value")
    return name.replace("-", "_"), value


def build_startup(parameters: Mapping[str, str], version: int = PROTOCOL_3_0) -> bytes:
    """The whole packet of a login. ValueError when a name is empty or anything holds a zero byte."""
    if "" in parameters:
        raise ValueError("a startup parameter without a name would end the packet")
    pairs = (build_string(name) + build_string(value) for name, value in parameters.items())
    body = b"".join(pairs) + b"\0"
    return _PACKET.pack(len(body) + 8, version) + body


def build_packet(body: bytes) -> bytes:
    """An untyped packet: what `parse_startup` takes, with its length in front."""
    return (len(body) + 4).to_bytes(4, "big") + body


def build_cancel_request(key: bytes) -> bytes:
    """The whole packet. `key` is process id and secret, 8 to 260 bytes, as BackendKeyData gave it."""
    if not MIN_KEY <= len(key) <= MAX_KEY:
        raise ValueError(f"a cancel key of {len(key)} bytes")
    return _PACKET.pack(len(key) + 8, CANCEL_REQUEST) + key


def build_succession_request(version: int) -> bytes:
    return _PACKET.pack(12, SUCCESSION_REQUEST) + _CODE.pack(version)


def build_ssl_request() -> bytes:
    return _PACKET.pack(8, SSL_REQUEST)


def build_gss_request() -> bytes:
    return _PACKET.pack(8, GSSENC_REQUEST)
