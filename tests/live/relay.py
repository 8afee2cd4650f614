"""
A relay in front of PostgreSQL: it carries everything, remembers what was said first, and may play an older server.

Theory. What protocol a proxy speaks to its servers cannot be seen from its clients. `Relay` notes the version of every
startup packet it gets, the cancel key PostgreSQL answers with and the cancel requests that come. `minors` are those it
lets through: whoever asks for another is turned away as PgBouncer does it, or, where `is_rude`, without a word.

Several relays, each listening at an address of its own, are several hosts of one database.
"""

import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from struct import unpack

from tests.live.wire import SSL_REQUEST, message

REFUSAL = message("E", b"SFATAL\0C08P01\0Munsupported frontend protocol\0\0")


class Relay:
    """Listens on 127.0.0.1:`port`, or where `listening` does, while the context lasts, and connects to `target`."""

    def __init__(
        self,
        target: tuple[str, int],
        minors: Sequence[int] = (0, 2),
        *,
        is_rude: bool = False,
        listening: socket.socket | None = None,
    ) -> None:
        self.asked: list[int] = []  # minors, in the order they came
        self.cancels = 0
        self.keys: list[bytes] = []
        self._target, self._minors, self._is_rude = target, minors, is_rude
        self._listening = listening or socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1] if listening is None else 0
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []

    def __enter__(self) -> "Relay":
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listening, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in (self._listening, *self._open):
            each.close()

    def _start(self, work: Callable[..., None], *more: object) -> None:
        thread = threading.Thread(target=work, args=more, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                self._open.append(near)
                self._start(self._serve, near)

    def _serve(self, near: socket.socket) -> None:
        with suppress(OSError):
            head = near.recv(8, socket.MSG_WAITALL)
            if head == SSL_REQUEST:
                near.sendall(b"N")
                head = near.recv(8, socket.MSG_WAITALL)
            length, version = unpack("!II", head)
            packet = head + near.recv(length - 8, socket.MSG_WAITALL)
            if version >> 16 == 3:
                self.asked.append(version & 0xFFFF)
                if version & 0xFFFF not in self._minors:
                    near.sendall(b"" if self._is_rude else REFUSAL)
                    near.shutdown(socket.SHUT_RDWR)
                    return
            else:
                self.cancels += 1
            far = socket.create_connection(self._target)
            self._open.append(far)
            far.sendall(packet)
            self._start(self._carry, near, far, False)
            self._carry(far, near, True)

    def _carry(self, source: socket.socket, sink: socket.socket, may_have_key: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if may_have_key and (at := data.find(b"K\0\0\0")) >= 0 and b"Z\0\0\0\x05I" in data[at:]:
                    (length,) = unpack("!I", data[at + 1 : at + 5])
                    self.keys.append(data[at + 5 : at + 1 + length])
                    may_have_key = False
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
