"""
A relay in front of PostgreSQL: it carries everything, remembers what was said first, and may play an older server.

Theory. What protocol a proxy speaks to its servers cannot be seen from its clients. `Relay` notes the version of every
startup packet it gets, the cancel key PostgreSQL answers with and the cancel requests that come. `minors` are those it
lets through: whoever asks for another is turned away as PgBouncer does it, or, where `is_rude`, without a word.

Several relays, each listening at an address of its own, are several hosts of one database.
"""

import socket
from collections.abc import Sequence
from contextlib import suppress
from struct import unpack

from tests.live.service import Service
from tests.live.wire import SSL_REQUEST, message

REFUSAL = message("E", b"SFATAL\0C08P01\0Munsupported frontend protocol\0\0")


class Relay(Service):
    """Listens on 127.0.0.1:`port`, or where `listening` does, while the context lasts, and connects to `target`."""

    def __init__(
        self,
        target: tuple[str, int],
        minors: Sequence[int] = (0, 2),
        *,
        is_rude: bool = False,
        listening: socket.socket | None = None,
    ) -> None:
        super().__init__(listening)
        self.asked: list[int] = []  # minors, in the order they came
        self.cancels = 0
        self.keys: list[bytes] = []
        self._target, self._minors, self._is_rude = target, minors, is_rude

    def serve(self, near: socket.socket) -> None:
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
            self.opened.append(far)
            far.sendall(packet)
            self.start(self._carry, near, far, False)
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
