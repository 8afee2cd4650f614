"""
Just enough of the protocol for a client that costs next to nothing.

Theory. These few bytes are written here by hand and not taken from `protocol/`: a benchmark that spoke through
the code it measures could not notice when both are wrong. Logging in is trust only.

An answer is over when the bytes end in a ReadyForQuery. Only the tail of what came is looked at, which is cheap
and right as long as no row of the asked text ends in those six bytes: the texts here are ours, and none does.
"""

import socket
from dataclasses import dataclass, replace
from struct import Struct

PROTOCOL_3_0 = 3 << 16
READY = b"Z\0\0\0\5"  # a ReadyForQuery but for its last byte, the transaction status
READY_LENGTH = 6
TERMINATE = b"X\0\0\0\4"
COPY_DONE = b"c\0\0\0\4"
ERROR = ord("E")
COPY_IN = ord("G")
SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"

_LENGTH = Struct("!I")


class Complaint(Exception):
    """The server answered with an ErrorResponse, or hung up. Says its words."""


@dataclass(frozen=True)
class Address:
    """Where to log in, and as whom."""

    host: str
    port: int
    user: str = "postgres"
    database: str = "bench"


def with_options(address: Address, **options: str) -> Address:
    """The same for libpq, which takes a whole connection string where a database's name is due."""
    words = " ".join(f"{name}='{value}'" for name, value in options.items())
    return replace(address, database=f"dbname={address.database} {words}")


def build_startup(address: Address) -> bytes:
    """StartupMessage, protocol 3.0 (docs: Message Formats)."""
    pairs = f"user\0{address.user}\0database\0{address.database}\0\0".encode()
    return _LENGTH.pack(8 + len(pairs)) + _LENGTH.pack(PROTOCOL_3_0) + pairs


def build_query(text: str) -> bytes:
    """Query: one simple query."""
    return build_message(b"Q", text.encode() + b"\0")


def build_message(kind: bytes, body: bytes) -> bytes:
    """Type byte, length that counts itself, body."""
    return kind + _LENGTH.pack(4 + len(body)) + body


def is_ready(tail: bytes) -> bool:
    """Whether the last six bytes received end an answer."""
    return len(tail) == READY_LENGTH and tail.startswith(READY)


def read_complaint(data: bytes) -> str:
    """The human words of an ErrorResponse at the start of `data`."""
    fields = data[5:].split(b"\0")
    return next((field[1:].decode(errors="replace") for field in fields if field[:1] == b"M"), repr(data[:80]))


def is_answering(address: Address, seconds: float) -> bool:
    """Does somebody there say whether he speaks TLS? OSError when nobody listens or `seconds` pass."""
    with socket.create_connection((address.host, address.port), seconds) as line:
        line.sendall(SSL_REQUEST)
        return line.recv(1) in (b"S", b"N")


class Line:
    """A blocking connection, logged in. Complaint when refused; OSError when nobody listens or `seconds` pass."""

    def __init__(self, address: Address, seconds: float = 60.0) -> None:
        self._socket = socket.create_connection((address.host, address.port), seconds)
        self._buffer = bytearray(1 << 18)
        try:
            self.prepare()
            self._socket.sendall(build_startup(address))
            self.drain()
        except BaseException:
            self._socket.close()
            raise

    def prepare(self) -> None:
        """Before the login."""

    def ask(self, text: str) -> int:
        """Run a text, throw its rows away; how many bytes came."""
        self._socket.sendall(build_query(text))
        return self.drain()

    def copy_in(self, text: str, payload: bytes) -> None:
        """Run a COPY FROM STDIN and send it `payload`, whole CopyData messages."""
        self._socket.sendall(build_query(text))
        first = self._socket.recv(1 << 16)
        if first[:1] != bytes([COPY_IN]):
            raise Complaint(read_complaint(first))
        self._socket.sendall(payload)
        self._socket.sendall(COPY_DONE)
        self.drain()

    def drain(self) -> int:
        """Read up to ReadyForQuery; how many bytes came. Complaint when the answer is an error."""
        total, tail, view = 0, b"", memoryview(self._buffer)
        while not is_ready(tail):
            got = self._socket.recv_into(self._buffer)
            if got == 0:
                raise Complaint("the connection was closed")
            if total == 0 and self._buffer[0] == ERROR:
                raise Complaint(read_complaint(bytes(view[:got])))
            total += got
            tail = (tail + bytes(view[max(0, got - READY_LENGTH) : got]))[-READY_LENGTH:]
        return total

    def close(self) -> None:
        """Say Terminate and hang up."""
        with self._socket:
            self._socket.sendall(TERMINATE)

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
