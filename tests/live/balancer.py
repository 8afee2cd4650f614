"""
A load balancer of fifty lines: it says for whom it connects, and carries everything after that.

Theory. `Balancer` listens on 127.0.0.1 and connects to the proxy, over TCP or its Unix socket; `build` makes the header
for the address of whoever has connected, written by hand as in wire.py.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from struct import pack

from tests.live.service import Service

Build = Callable[[tuple[str, int]], bytes]


def build_v2(source: tuple[str, int]) -> bytes:
    hosts = socket.inet_aton(source[0]) + socket.inet_aton("203.0.113.1")
    return b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + pack("!H", 12) + hosts + pack("!HH", source[1], 5432)


def build_v1(source: tuple[str, int]) -> bytes:
    return b"PROXY TCP4 %b 203.0.113.1 %d 5432\r\n" % (source[0].encode(), source[1])


class Balancer(Service):
    """Listens on `port` while the context lasts. `target` is a port of this machine, or the path of a socket."""

    def __init__(self, target: int | str, build: Build = build_v2) -> None:
        super().__init__()
        self._target, self._build = target, build

    def serve(self, near: socket.socket) -> None:
        with suppress(OSError):
            far = self._connect()
            self.opened.append(far)
            far.sendall(self._build(near.getpeername()))
            self.start(self._carry, near, far)
            self._carry(far, near)

    def _connect(self) -> socket.socket:
        if isinstance(self._target, int):
            return socket.create_connection(("127.0.0.1", self._target))
        far = socket.socket(socket.AF_UNIX)
        far.connect(self._target)
        return far

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
