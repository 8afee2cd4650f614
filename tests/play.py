"""
Transcripts: what one says with `>>`, what another must then hear with `<<`, and the LAWs after every line.

    Play() >> client("Q:rows") << to_server("Q:rows") >> server("D C Z:I") << to_client("D C Z:I") << released

Messages are written as words, `KIND` or `KIND:body`. A client's: Q P B D E C S H F d c f X (and `P:name`; R is the
batch that rolls back); a server's: 1 2 3 n s I T t D C Z:I Z:T Z:E G H d c V N A, ERROR:token, FATAL:token,
S:name=value. Bytes are taken as they are.
"""

from collections.abc import Callable
from typing import Any, cast

from protocol import backend, codes
from protocol.backend import CopyResponse, Notification
from protocol.body import build_message
from protocol.frontend import (
    COPY_DONE_MESSAGE,
    FLUSH_MESSAGE,
    PORTAL,
    SYNC_MESSAGE,
    TERMINATE_MESSAGE,
    Bind,
    build_bind,
    build_close,
    build_copy_data,
    build_copy_fail,
    build_describe,
    build_execute,
    build_parse,
    build_query,
)
from proxy.client import Client
from proxy.server import Server
from proxy.states import IDLE, LINKED
from tests.fakes import FakeTransport, FakeWorld, check_world

_ASKED: dict[str, Callable[[str], bytes]] = {
    "Q": build_query,
    "P": lambda name: build_parse(name.encode(), b"rows"),
    "B": lambda name: build_bind(Bind(b"", name.encode())),
    "D": lambda name: build_describe(PORTAL, name.encode()),
    "E": lambda name: build_execute(name.encode()),
    "C": lambda name: build_close(PORTAL, name.encode()),
    "S": lambda _: SYNC_MESSAGE,
    "H": lambda _: FLUSH_MESSAGE,
    "F": lambda _: build_message(codes.FUNCTION_CALL, b"\0\0\0\1\0\0\0\0\0\0"),
    "d": lambda data: build_copy_data(data.encode()),
    "c": lambda _: COPY_DONE_MESSAGE,
    "f": build_copy_fail,
    "X": lambda _: TERMINATE_MESSAGE,
    "R": lambda _: build_parse(b"", b"ROLLBACK") + build_bind(Bind(b"", b"")) + build_execute(b"") + SYNC_MESSAGE,
}

_COPY = CopyResponse(0, (0,))

_SAID: dict[str, Callable[[str], bytes]] = {
    "1": lambda _: backend.PARSE_COMPLETE_MESSAGE,
    "2": lambda _: backend.BIND_COMPLETE_MESSAGE,
    "3": lambda _: backend.CLOSE_COMPLETE_MESSAGE,
    "n": lambda _: backend.NO_DATA_MESSAGE,
    "s": lambda _: backend.PORTAL_SUSPENDED_MESSAGE,
    "I": lambda _: backend.EMPTY_QUERY_MESSAGE,
    "T": lambda _: backend.build_row_description([("token", 25, -1)]),
    "t": lambda _: backend.build_parameter_description([]),
    "D": lambda token: backend.build_data_row([token]),
    "C": lambda token: backend.build_command_complete(token or "OK"),
    "Z": lambda status: backend.build_ready(ord(status)),
    "G": lambda _: backend.build_copy_response(codes.COPY_IN_RESPONSE, _COPY),
    "H": lambda _: backend.build_copy_response(codes.COPY_OUT_RESPONSE, _COPY),
    "d": lambda data: build_copy_data(data.encode()),
    "c": lambda _: COPY_DONE_MESSAGE,
    "V": lambda _: backend.build_function_result(b"1"),
    "N": lambda token: backend.build_notice("NOTICE", "00000", token),
    "A": lambda token: backend.build_notification(Notification(7, b"news", token.encode())),
    "ERROR": lambda token: backend.build_error("ERROR", "22012", token),
    "FATAL": lambda token: backend.build_error("FATAL", "57P01", token),
    "S": lambda pair: backend.build_parameter_status(*pair.split("=", 1)),
}


def _build(words: str | bytes, table: dict[str, Callable[[str], bytes]]) -> bytes:
    if isinstance(words, bytes):
        return words
    parts = (word.partition(":") for word in words.split())
    return b"".join(table[kind](body.replace("_", " ")) for kind, _, body in parts)


def asked(words: str | bytes) -> bytes:
    """What a client says."""
    return _build(words, _ASKED)


def said(words: str | bytes) -> bytes:
    """What a server says."""
    return _build(words, _SAID)


class Play:
    """One client, one idle server, and what has been said."""

    def __init__(self, *, is_slow: bool = False, followed: dict[str, str] | None = None, **limits: Any) -> None:
        self.world = FakeWorld(**{"pool_size": 1, **limits})
        with self.world.loop.running():
            self.server: Server = self.world.new_server()
            self.client: Client = self.world.new_client(is_slow=is_slow, **(followed or {}))  # type: ignore[arg-type]
        self._heard = {"client": 0, "server": 0}

    def __rshift__(self, act: Callable[["Play"], object]) -> "Play":
        with self.world.loop.running():
            act(self)
            check_world(self.world)
            self.world.loop.turn()
        check_world(self.world)
        return self

    __lshift__ = __rshift__

    @property
    def client_socket(self) -> FakeTransport:
        return cast(FakeTransport, self.client.transport)

    @property
    def server_socket(self) -> FakeTransport:
        return cast(FakeTransport, self.server.transport)

    def hear(self, who: str) -> bytes:
        """What has come there since this was asked last."""
        arrived = bytes((self.client_socket if who == "client" else self.server_socket).arrived)
        news = arrived[self._heard[who] :]
        self._heard[who] = len(arrived)
        return news


Line = Callable[[Play], object]


def client(words: str | bytes) -> Line:
    return lambda play: play.client_socket.peer_sends(asked(words))


def server(words: str | bytes) -> Line:
    return lambda play: play.server_socket.peer_sends(said(words))


def to_client(words: str | bytes) -> Line:
    def check(play: Play) -> None:
        assert play.hear("client") == said(words)

    return check


def to_server(words: str | bytes) -> Line:
    def check(play: Play) -> None:
        assert play.hear("server") == asked(words)

    return check


def error_to_client(text: str) -> Line:
    """One FATAL with this in it, and nothing more."""

    def check(play: Play) -> None:
        heard = play.hear("client")
        assert heard[:1] == b"E", heard
        assert 1 + int.from_bytes(heard[1:5], "big") == len(heard), heard
        assert text.encode() in heard, heard

    return check


def released(play: Play) -> None:
    assert play.server.state is IDLE, play.server.state.name
    assert play.client.server is None


def stays_linked(play: Play) -> None:
    assert play.server.state is LINKED, play.server.state.name
    assert play.client.server is play.server


def client_hangs_up(play: Play) -> None:
    play.client_socket.peer_hangs_up()


def client_breaks(play: Play) -> None:
    play.client_socket.peer_breaks()


def server_hangs_up(play: Play) -> None:
    play.server_socket.peer_hangs_up()


def cancel_arrives(play: Play) -> None:
    play.world.cancel_arrives(play.server)
