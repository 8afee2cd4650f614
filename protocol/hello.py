"""
The first message of TLS, as far as it says what the client means to speak behind it (ALPN).

Theory. Python's ssl goes on without a protocol when a client offers others than ours, where PostgreSQL gives up with an
alert: else somebody in the middle could take a browser's connection, put an SSLRequest in front of it, and have it
talk to a database. Whoever offers nothing is served, as every libpq before 17 does. So the hello is read here too, by
somebody who only looks: what makes no sense is left to OpenSSL, which says so better.

Source: RFC 8446, sections 4.1.2 (ClientHello) and 5.1 (records); RFC 7301, section 3.1 (ALPN).
"""

from typing import Final

from protocol.errors import ProtocolError

NO_APPLICATION_PROTOCOL: Final = b"\x15\x03\x03\x00\x02\x02\x78"  # an alert, fatal: RFC 7301, section 3.2

MAX_HELLO: Final = 1 << 14  # bytes of its records; usual ones have 500 to 2,000
_HANDSHAKE, _CLIENT_HELLO, _ALPN = 22, 1, 16


class _Cut(Exception):
    """The rest has not come yet, or what is said about lengths is not true."""


class _Cursor:
    """Steps through bytes; _Cut where they end too early."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.pos = 0

    @property
    def is_over(self) -> bool:
        return self.pos >= len(self.data)

    def take(self, count: int) -> bytes:
        end = self.pos + count
        if end > len(self.data):
            raise _Cut
        taken, self.pos = self.data[self.pos : end], end
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int) -> bytes:
        """Bytes with their count in front, in a number of `size` bytes."""
        return self.take(self.number(size))


def parse_offered(stream: bytes) -> tuple[bytes, ...] | None:
    """The protocols that the hello at the start of `stream` offers, none being (); None: it is not whole yet.

    ProtocolError: it is too long to be looked at. Then it is not to be believed either, or who wants to get past us
    would only have to cut it into many records.
    """
    try:
        hello = _join_records(_Cursor(stream[:MAX_HELLO]))
    except _Cut:
        if len(stream) < MAX_HELLO:
            return None
        raise ProtocolError("the first message of TLS is too long") from None
    try:
        return _parse_hello(_Cursor(hello))
    except _Cut:
        return ()


def _join_records(records: _Cursor) -> bytes:
    """The body of the first handshake message, which may lie in several records; empty when it is no hello."""
    joined = b""
    while True:
        if records.number(1) != _HANDSHAKE:
            return b""
        records.take(2)
        joined += records.vector(2)
        if joined and joined[0] != _CLIENT_HELLO:
            return b""
        if len(joined) >= 4 and len(joined) - 4 >= int.from_bytes(joined[1:4]):
            return joined[4 : 4 + int.from_bytes(joined[1:4])]


def _parse_hello(hello: _Cursor) -> tuple[bytes, ...]:
    hello.take(2 + 32)  # version and random
    for size in (1, 2, 1):  # session, ciphers, compressions
        hello.vector(size)
    extensions = _Cursor(b"" if hello.is_over else hello.vector(2))
    while not extensions.is_over:
        kind, body = extensions.number(2), extensions.vector(2)
        if kind == _ALPN:
            return tuple(_parse_names(_Cursor(_Cursor(body).vector(2))))
    return ()


def _parse_names(names: _Cursor) -> list[bytes]:
    found = []
    while not names.is_over:
        found.append(names.vector(1))
    return found
