"""
What listens for a test: each connection is served by a thread of its own, and all of it ends with the context.

Theory. What stands in a proxy's way in these tests (a relay, a balancer, somebody in between) differs in what it does
with a connection, not in how it gets one. `serve` is that difference. Sockets it opens itself go into `opened`, so that
nobody is left waiting for one when the context ends.
"""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

PATIENCE = 10.0  # seconds a thread has to notice that its sockets are shut


class Service:
    """Listens on 127.0.0.1:`port`, or where `listening` does, while the context lasts."""

    def __init__(self, listening: socket.socket | None = None) -> None:
        self._listening = listening or socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1] if listening is None else 0
        self._threads: list[threading.Thread] = []
        self.opened: list[socket.socket] = []

    def __enter__(self) -> Self:
        self.start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listening, *self.opened):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        for each in (self._listening, *self.opened):
            each.close()

    def start(self, work: Callable[..., None], *more: Any) -> None:
        thread = threading.Thread(target=work, args=more, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                self.opened.append(near)
                self.start(self.serve, near)

    def serve(self, near: socket.socket) -> None:
        raise NotImplementedError
