"""
A PostgreSQL that means harm: each database name is a script of what it says.

Theory. The proxy must distrust its servers as much as its clients. `HostileServer` listens, reads the startup packet,
looks up the script of the database asked for, and lets it talk to the socket. Scripts end when the proxy hangs up.
"""

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from struct import pack, unpack

from tests.live.wire import message

OK = message("R", pack("!I", 0))
READY = message("Z", b"I")
KEY = message("K", b"12345678")
GREETING = OK + message("S", b"server_version\x0018.0\0") + message("S", b"client_encoding\0UTF8\0") + KEY + READY
SASL = message("R", pack("!I", 10) + b"SCRAM-SHA-256\0\0")
ROW = message("T", pack("!H", 1) + b"a\0" + pack("!IHIhiH", 0, 0, 25, -1, -1, 0)) + message("D", b"\0\1\0\0\0\x011")
SSL_CODE = pack("!I", 80877103)
ANSWER = ROW + message("C", b"SELECT 1\0") + READY

Script = Callable[["Wire"], None]


class Wire:
    """The server's end of one connection."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.socket.settimeout(10)

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Ask no more: TLS, with us as its server."""
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def close(self) -> None:
        self.socket.close()

    def say(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError
            data += more
        return data

    def read_startup(self) -> dict[str, str]:
        (length,) = unpack("!I", self.take(4))
        packet = self.take(length - 4)
        if packet == SSL_CODE:
            self.say(b"N")
            return self.read_startup()
        parts = packet[4:].decode().split("\0")
        return dict(zip(parts[::2], parts[1::2], strict=False))

    def read_message(self) -> tuple[str, bytes]:
        kind, length = unpack("!cI", self.take(5))
        return kind.decode(), self.take(length - 4)

    def wait_query(self) -> str:
        """The text of the next simple query."""
        while True:
            kind, body = self.read_message()
            if kind == "Q":
                return body[:-1].decode()

    def wait_end(self) -> None:
        with suppress(OSError):
            while self.socket.recv(65536):
                pass


class HostileServer:
    """Listens on 127.0.0.1:`port` while the context lasts."""

    def __init__(self, scripts: dict[str, Script], *, opening: Script | None = None) -> None:
        self.scripts = scripts
        self._opening = opening  # what comes before the startup packet
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._open: list[Wire] = []

    def __enter__(self) -> "HostileServer":
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for each in self._open:
            with suppress(OSError):
                each.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connected, _ = self._listening.accept()
                wire = Wire(connected)
                self._open.append(wire)
                self._start(lambda wire=wire: self._serve(wire))  # type: ignore[misc]

    def _serve(self, wire: Wire) -> None:
        with closing(wire), suppress(OSError):
            if self._opening is not None:
                self._opening(wire)
            script = self.scripts.get(wire.read_startup().get("database", ""))
            if script is not None:  # a cancel request names no database
                script(wire)
                wire.wait_end()
