"""
What stands between two sides: a line that only listens, and somebody who ends TLS on both sides of it.

Theory. `Line` carries bytes and remembers those of the side that connects, by connection: what travelled encrypted can
be told from what did not. `Between` has a certificate of his own, shows it to one side, speaks TLS with the other
without looking at its certificate, and may change what comes back: the attack that channel binding is there to notice.
"""

import select
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

from tests.certificates import Pair
from tests.live.service import Service
from tests.live.wire import SSL_REQUEST

TICK = 0.2  # seconds; what OpenSSL has read already no select sees
PLUS = b"SCRAM-SHA-256-PLUS\0"


class Line(Service):
    """Listens on 127.0.0.1:`port` while the context lasts, and connects to 127.0.0.1:`target`."""

    def __init__(self, target: int) -> None:
        super().__init__()
        self.sent: list[bytes] = []  # by those who connect
        self._target = target

    def serve(self, near: socket.socket) -> None:
        self._join(near, socket.create_connection(("127.0.0.1", self._target)))

    def _join(self, near: socket.socket, far: socket.socket) -> None:
        """One thread for both ways: OpenSSL's side of a connection is not for two at a time."""
        self.opened += [near, far]
        number = len(self.sent)
        self.sent.append(b"")

        def note(data: bytes) -> bytes:
            self.sent[number] += data
            return data

        for each in (near, far):
            each.setblocking(False)
        with suppress(OSError):
            while _carry(near, far, note) and _carry(far, near, self.change):
                select.select([near, far], [], [], TICK)
        for each in (near, far):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def change(self, data: bytes) -> bytes:
        """What the one who connects hears instead of `data`."""
        return data


def _carry(source: socket.socket, sink: socket.socket, look: Callable[[bytes], bytes]) -> bool:
    """What lies there. False: `source` has ended."""
    while True:
        try:
            data = source.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        if not data:
            return False
        sink.sendall(look(data))


class Between(Line):
    """Shows `theirs` to those who connect."""

    def __init__(self, target: int, theirs: Pair, change: Callable[[bytes], bytes] | None = None) -> None:
        super().__init__(target)
        self._change = change
        self._shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._shown.load_cert_chain(theirs.cert, theirs.key)
        self._careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._careless.check_hostname, self._careless.verify_mode = False, ssl.CERT_NONE

    @property
    def heard(self) -> bytes:
        """All that was said to the target, in plain."""
        return b"".join(self.sent)

    def change(self, data: bytes) -> bytes:
        return self._change(data) if self._change is not None else data

    def serve(self, near: socket.socket) -> None:
        with suppress(OSError):
            assert near.recv(8, socket.MSG_WAITALL) == SSL_REQUEST
            near.sendall(b"S")
            wrapped = self._shown.wrap_socket(near, server_side=True)
            far = socket.create_connection(("127.0.0.1", self._target))
            far.sendall(SSL_REQUEST)
            assert far.recv(1) == b"S"
            self._join(wrapped, self._careless.wrap_socket(far))


def hide_plus(data: bytes) -> bytes:
    """The bound mechanism is struck from an offer."""
    at = data.find(PLUS)
    if at < 0:
        return data
    length = int.from_bytes(data[at - 8 : at - 4], "big") - len(PLUS)
    return data[: at - 8] + length.to_bytes(4, "big") + data[at - 4 : at] + data[at + len(PLUS) :]
