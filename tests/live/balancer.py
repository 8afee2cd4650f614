"""
A load balancer of fifty lines: it says for whom it connects, and carries everything after that.

Theory. `Balancer` listens on 127.0.0.1 and connects to the proxy, over TCP or its Unix socket; `build` makes the header
for the address of whoever has connected, written by hand as in wire.py.
"""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from struct import pack

Build = Callable[[tuple[str, int]], bytes]


def build_v2(source: tuple[str, int]) -> bytes:
    hosts = socket.inet_aton(source[0]) + socket.inet_aton("203.0.113.1")
    return b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + pack("!H", 12) + hosts + pack("!HH", source[1], 5432)


def build_v1(source: tuple[str, int]) -> bytes:
    return b"PROXY TCP4 %b 203.0.113.1 %d 5432\r\n" % (source[0].encode(), source[1])


class Balancer:
    """Listens on `port` while the context lasts. `target` is a port of this machine, or the path of a socket."""

    def __init__(self, target: int | str, build: Build = build_v2) -> None:
        self._target, self._build = target, build
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = [self._listening]

    def __enter__(self) -> "Balancer":
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for each in self._open:
            each.close()

    def _start(self, work: Callable[..., None], *more: object) -> None:
        thread = threading.Thread(target=work, args=more, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, source = self._listening.accept()
                far = self._connect()
                self._open += [near, far]
                far.sendall(self._build(source))
                self._start(self._carry, near, far)
                self._start(self._carry, far, near)

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
