"""
A hub on a stage: its clients are real, its world is fake, and its PostgreSQL reads what it is sent when told.

Theory. `Backend` keeps what a backend keeps, the set of channels it listens to, and answers one question per `answer`.
So a test says when things are under way, and the laws of the hub are asked after every step (`check`). Notifications
are sent as PostgreSQL sends them: only on channels the backend listens to, between its answers or before a
ReadyForQuery.
"""

import re
from typing import Any

from protocol import backend, codes
from protocol.backend import ErrorFields, Notification
from proxy.client import Client
from proxy.failing import LoginFailed
from proxy.hub import Hub
from proxy.laws import check_pool
from proxy.pool import Pool
from proxy.server import Server
from proxy.states import GONE, LINKED
from tests.fakes import FakeTransport, FakeWorld, check_world, socket_of

_NAME = re.compile(rb'^(LISTEN|UNLISTEN) (?:"((?:[^"]|"")*)"|(\*))$')


class Stage(FakeWorld):
    """One pool, its hub, and the hub's backend."""

    def __init__(self, **limits: Any) -> None:
        super().__init__(**{"pool_size": 2, **limits})
        self.hub = Hub(self.pool)
        self.ear = self.hub.ear
        self.listening: set[bytes] = set()  # the backend's
        self.asked: list[bytes] = []  # all texts it was sent, in order
        self._server: Server | None = None
        self._read = 0

    def room_made(self, pool: Pool) -> None:
        super().room_made(pool)
        self.ear.pool.grow()

    # PostgreSQL.

    def open(self) -> Server:
        """The ear's connection is there."""
        (opening,) = (server for server in self.openings if server.pool is self.ear.pool)
        server = self.finish_opening(opening)
        self._take_over(server)
        return server

    def _take_over(self, server: Server) -> None:
        self._server, self._read = server, 0
        self.listening = set()

    def fail_opening(self, sentence: str = "no") -> None:
        (server,) = (server for server in self.openings if server.pool is self.ear.pool)
        self.openings.remove(server)
        self.ear.pool.opening_failed(LoginFailed("08006", sentence))
        self.ear.pool.server_closed(server)

    @property
    def socket(self) -> FakeTransport:
        assert self._server is not None
        return socket_of(self._server)

    def pending(self) -> list[bytes]:
        """Texts that have not been answered."""
        data, texts = bytes(self.socket.arrived[self._read :]), []
        while data:
            end = 1 + int.from_bytes(data[1:5], "big")
            if data[0] == codes.QUERY:
                texts.append(data[5 : end - 1])
            data = data[end:]
        return texts

    def answer(self, *before_ready: bytes, error: tuple[str, str] | None = None) -> bytes:
        """The backend answers its next question, which is returned; `before_ready`: notifications."""
        text = self.pending()[0]
        self.clock.advance(0.001)
        self._read += 6 + len(text)
        self.asked.append(text)
        answer = backend.build_error("ERROR", *error) if error else self._obey(text)
        self.socket.peer_sends(answer + b"".join(before_ready) + backend.READY_IDLE_MESSAGE)
        self.check()
        return text

    def _obey(self, text: bytes) -> bytes:
        if not text:
            return backend.EMPTY_QUERY_MESSAGE
        if text.startswith(b"SET"):
            status = backend.build_parameter_status("application_name", "pgshuttle: listens")
            return backend.build_command_complete("SET") * 2 + status + backend.build_command_complete("SELECT 1")
        answer = b""
        for statement in text.split(b";"):
            found = _NAME.match(statement)
            assert found is not None, statement
            word, name, star = found.groups()
            if star:
                self.listening.clear()
            elif word == b"LISTEN":
                self.listening.add(name.replace(b'""', b'"'))
            else:
                self.listening.discard(name.replace(b'""', b'"'))
            answer += backend.build_command_complete(word)
        return answer

    def answer_all(self) -> None:
        while self.ear.server is not None and self.pending():
            self.answer()

    def notify(self, channel: bytes, payload: bytes = b"hello") -> bytes:
        """Somebody says so; what the backend sends is returned."""
        message = notification(channel, payload)
        if channel in self.listening:
            self.socket.peer_sends(message)
        self.check()
        return message

    def die(self, words: str = "") -> None:
        """The backend ends, with or without last words."""
        if words:
            self.socket.peer_sends(backend.build_error("FATAL", "57P01", words))
        self.socket.peer_hangs_up()
        self.loop.turn()
        self.check()

    # Clients.

    def listen(self, client: Client, name: bytes) -> list[ErrorFields | None]:
        """What `done` is called with is appended to the list that is returned."""
        answers: list[ErrorFields | None] = []
        self.hub.listen(client, name, answers.append)
        self.check()
        return answers

    def unlisten(self, client: Client, name: bytes | None = None) -> None:
        self.hub.unlisten(client, name)
        self.check()

    def leave(self, client: Client) -> None:
        """The client hangs up; its own code will tell the hub."""
        socket_of(client).peer_hangs_up()
        self.hub.forget(client)
        self.loop.turn()
        self.check()

    def ready(self, *names: bytes) -> Client:
        """A client that listens to `names`, confirmed."""
        client = self.new_client()
        for name in names:
            self.hub.listen(client, name, lambda error: None)
        if self.openings:
            self.open()
        self.answer_all()
        self.check()
        return client

    def sweep(self, seconds: float = 0.4) -> None:
        self.advance(seconds)
        if self.ear.pool.is_wanted:
            self.ear.pool.grow()  # as the janitor does
        self.hub.sweep()
        self.loop.turn()
        self.check()

    def check(self) -> None:
        self.hub.check()
        check_world(self)
        check_pool(self.ear.pool)
        assert len(self.ear.pool.places[LINKED]) <= 1
        assert not [client for client in self.hub.books.mailboxes if client.state is GONE and client not in self.left]


def heard(client: Client) -> bytes:
    """All that has come to this client."""
    return bytes(socket_of(client).arrived)


def news(client: Client) -> bytes:
    """What has come since this was asked last."""
    arrived = socket_of(client).arrived
    text = bytes(arrived)
    arrived.clear()
    return text


def notification(channel: bytes, payload: bytes = b"hello") -> bytes:
    return backend.build_notification(Notification(4711, channel, payload))


def warnings(data: bytes) -> list[str]:
    """The messages of the warnings in `data`."""
    found = []
    while data:
        end = 1 + int.from_bytes(data[1:5], "big")
        if data[0] == codes.NOTICE_RESPONSE:
            found.append(backend.parse_error(data[5:end]).message)
        data = data[end:]
    return found
