"""
As many PostgreSQL backends as one likes, for what depends on numbers alone.

Theory. A real PostgreSQL has a few hundred backends; a proxy in front of many databases has thousands of servers. What
is measured here is the proxy, so a backend need only log everybody in and answer each query with one row. They live in
a child process: the test's own work must not be in their way, nor theirs in the proxy's.
"""

import asyncio
import multiprocessing
import socket
from struct import unpack_from
from typing import Any, ClassVar

from protocol.backend import build_data_row, build_row_description
from protocol.body import build_message
from tests.fakes import WELCOME

SSL_REQUEST = 80877103
_READY = build_message(ord("Z"), b"I")
_ROW = build_row_description([("?column?", 23, 4)]) + build_data_row(["1"]) + build_message(ord("C"), b"SELECT 1\0")


class Crowd:
    """Stands where a test expects an `Upstream`. As context manager it runs inside."""

    host = "127.0.0.1"
    secrets: ClassVar = {"app": "x", "postgres": "x"}

    def __enter__(self) -> "Crowd":
        door = socket.create_server((self.host, 0), backlog=4096)
        self.port = door.getsockname()[1]
        self._process: Any = multiprocessing.get_context("fork").Process(target=_serve, args=(door,), daemon=True)
        self._process.start()
        door.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()


def _serve(door: socket.socket) -> None:
    asyncio.run(_run(door))


async def _run(door: socket.socket) -> None:
    server = await asyncio.get_running_loop().create_server(_Backend, sock=door)
    await server.serve_forever()


class _Backend(asyncio.Protocol):
    def __init__(self) -> None:
        self._unread = b""
        self._is_in = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._unread += data
        head = 1 if self._is_in else 0
        while len(self._unread) >= head + 4:
            (length,) = unpack_from("!I", self._unread, head)
            if len(self._unread) < head + length:
                return
            message, self._unread = self._unread[: head + length], self._unread[head + length :]
            self._heed(message)
            head = 1 if self._is_in else 0

    def _heed(self, message: bytes) -> None:
        if not self._is_in and unpack_from("!I", message, 4)[0] == SSL_REQUEST:
            self._transport.write(b"N")
        elif not self._is_in:
            self._is_in = True
            told = b"".join(build_message(ord("S"), f"{name}\0{value}\0".encode()) for name, value in WELCOME.items())
            key = build_message(ord("K"), b"\0\0\0\1\0\0\0\2")
            self._transport.write(build_message(ord("R"), b"\0\0\0\0") + told + key + _READY)
        elif message[:1] == b"Q":
            self._transport.write((_ROW if message[5:].lower().startswith(b"select") else b"") + _READY)
        elif message[:1] == b"X":
            self._transport.close()
