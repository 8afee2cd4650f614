"""
The bricks of a message body: ints, strings, values; read by a cursor, written by functions.

Theory. Every message of the protocol is made of a few bricks (docs: Message Data Types): Int8, Int16 and
Int32 in network order, String ending in a zero byte, and values preceded by their length, where -1 is
NULL. A `Body` reads them one after another and raises ProtocolError as soon as one does not fit; nothing
is allocated for a count before the bytes that fill it are there, so a lying count costs nothing.

Counts of 16 bits are read as unsigned: PostgreSQL takes up to 65,535 parameters.

Names and texts are written from str or bytes. Bytes that were not UTF-8 travel through str as lone
surrogates (`surrogateescape`) and come out as the bytes they were.
"""

from struct import Struct

from protocol.errors import ProtocolError

MAX_COUNT = 0xFFFF

_HEADER = Struct("!BI")
_INT16 = Struct("!h")
_UINT16 = Struct("!H")
_INT32 = Struct("!i")
_UINT32 = Struct("!I")
_NULL = b"\xff\xff\xff\xff"


class Body:
    """A cursor over one message body. `what` names the message in errors: "Bind", "DataRow"."""

    __slots__ = ("_at", "_data", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what
        self._at = 0

    def take_byte(self) -> int:
        return self._take(1)[0]

    def take_count(self) -> int:
        """An Int16 that counts something or names a format: 0 to 65,535."""
        return int(_UINT16.unpack(self._take(2))[0])

    def take_int16(self) -> int:
        return int(_INT16.unpack(self._take(2))[0])

    def take_int32(self) -> int:
        return int(_INT32.unpack(self._take(4))[0])

    def take_uint32(self) -> int:
        """An Int32 that is an OID or a process id."""
        return int(_UINT32.unpack(self._take(4))[0])

    def take_counts(self) -> tuple[int, ...]:
        """A count, then as many Int16: format codes."""
        count = self.take_count()
        return tuple(code for (code,) in _UINT16.iter_unpack(self._take(2 * count)))

    def take_oids(self) -> tuple[int, ...]:
        """A count, then as many OIDs."""
        count = self.take_count()
        return tuple(oid for (oid,) in _UINT32.iter_unpack(self._take(4 * count)))

    def take_string(self) -> bytes:
        """The bytes up to the next zero byte, which is stepped over."""
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise ProtocolError(f"{self._what}: a string has no end")
        taken, self._at = self._data[self._at : end], end + 1
        return taken

    def take_value(self) -> bytes | None:
        """A length and as many bytes; None for the length -1, which is NULL."""
        length = self.take_int32()
        if length == -1:
            return None
        if length < 0:
            raise ProtocolError(f"{self._what}: a value claims a length of {length}")
        return self._take(length)

    def take_rest(self) -> bytes:
        return self._take(len(self._data) - self._at)

    def check_end(self) -> None:
        """ProtocolError when bytes are left over."""
        if self._at != len(self._data):
            raise ProtocolError(f"{self._what}: {len(self._data) - self._at} bytes too many")

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise ProtocolError(f"{self._what}: the body ends too early")
        taken, self._at = self._data[self._at : end], end
        return taken


def check_empty(body: bytes, what: str) -> None:
    """For the messages that are only a type and a length. ProtocolError when there is a body."""
    Body(body, what).check_end()


def build_message(kind: int, body: bytes = b"") -> bytes:
    """One whole message: the type byte, the length that counts itself, the body."""
    return _HEADER.pack(kind, len(body) + 4) + body


def build_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def build_string(text: str | bytes) -> bytes:
    """A String. ValueError when it holds a zero byte: whatever followed would be read as the next field."""
    raw = build_bytes(text)
    if b"\0" in raw:
        raise ValueError("a string of the protocol cannot hold a zero byte")
    return raw + b"\0"


def build_count(count: int) -> bytes:
    """An Int16. ValueError beyond 65,535."""
    if not 0 <= count <= MAX_COUNT:
        raise ValueError(f"{count} does not fit a count of the protocol")
    return _UINT16.pack(count)


def build_int16(number: int) -> bytes:
    return _INT16.pack(number)


def build_int32(number: int) -> bytes:
    return _INT32.pack(number)


def build_uint32(number: int) -> bytes:
    return _UINT32.pack(number)


def build_value(value: str | bytes | None) -> bytes:
    """A length and the bytes, or the length -1 for None."""
    if value is None:
        return _NULL
    raw = build_bytes(value)
    return _INT32.pack(len(raw)) + raw
