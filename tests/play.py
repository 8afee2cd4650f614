"""
Transcripts: what one says with `>>`, what another must then hear with `<<`, and the LAWs after every line.

    Play() >> client("Q:rows") << to_server("Q:rows") >> server("D C Z:I") << to_client("D C Z:I") << released

Messages are written as words, `KIND` or `KIND:body`. A client's: Q P B D E C S H F d c f X (and `P:name`; R is the
batch that rolls back); a server's: 1 2 3 n s I T t D C Z:I Z:T Z:E G H d c V N A, ERROR:token, FATAL:token,
S:name=value. Bytes are taken as they are.

Of statements: PARSE:name=text, BIND:portal=name, ASK:name is a Describe and CLOSE:name a Close of one, OURS:1=text what
we put in front for it; KNOWN and EMPTY are the Parses that we send where nothing must be parsed, NEVER the Close of
what never is. A server's T:column, MISSING:name, TAKEN:name and STALE are what it says of them.
"""

from collections.abc import Callable
from typing import Any

from protocol import backend, codes
from protocol.backend import CopyResponse, Notification
from protocol.body import build_message
from protocol.frontend import (
    COPY_DONE_MESSAGE,
    FLUSH_MESSAGE,
    PORTAL,
    STATEMENT,
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
    build_run,
)
from protocol.prepared import CLOSE_NEVER, PARSE_ANYTHING, PARSE_EMPTY
from proxy.client import Client
from proxy.server import Server
from proxy.states import IDLE, LINKED
from tests.fakes import FakeTransport, FakeWorld, check_world, socket_of

OURS = "PGSHUTTLE_"

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
    "RUN": lambda text: build_run(text.encode()),
    "PARSE": lambda pair: build_parse(*map(str.encode, pair.split("=", 1))),
    "BIND": lambda pair: build_bind(Bind(*map(str.encode, pair.split("=", 1)))),
    "ASK": lambda name: build_describe(STATEMENT, name.encode()),
    "CLOSE": lambda name: build_close(STATEMENT, name.encode()),
    "KNOWN": lambda _: PARSE_ANYTHING,
    "EMPTY": lambda _: PARSE_EMPTY,
    "NEVER": lambda _: CLOSE_NEVER,
    "OURS": lambda pair: _build_ours(*pair.split("=", 1)),
}


def _build_ours(number: str, text: str) -> bytes:
    """What is put in front for the statement with that number."""
    name = b"PGSHUTTLE_" + number.encode()
    return build_parse(name, text.encode()) + build_describe(STATEMENT, name)


def _build_error(sqlstate: str, words: str, routine: str) -> bytes:
    fields = {"S": "ERROR", "V": "ERROR", "C": sqlstate, "M": words, "F": "x.c", "L": "7", "R": routine}
    body = b"".join(f"{key}{text}\0".encode() for key, text in fields.items())
    return build_message(codes.ERROR_RESPONSE, body + b"\0")


_COPY = CopyResponse(0, (0,))

_SAID: dict[str, Callable[[str], bytes]] = {
    "1": lambda _: backend.PARSE_COMPLETE_MESSAGE,
    "2": lambda _: backend.BIND_COMPLETE_MESSAGE,
    "3": lambda _: backend.CLOSE_COMPLETE_MESSAGE,
    "RAN": lambda tag: said(f"1 2 C:{tag.replace(chr(32), chr(95))}"),
    "n": lambda _: backend.NO_DATA_MESSAGE,
    "s": lambda _: backend.PORTAL_SUSPENDED_MESSAGE,
    "I": lambda _: backend.EMPTY_QUERY_MESSAGE,
    "T": lambda name: backend.build_row_description([(name or "token", 25, -1)]),
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
    "MISSING": lambda name: _build_error("26000", f'prepared statement "{name}" does not exist', "FetchStatement"),
    "TAKEN": lambda name: _build_error("42P05", f'prepared statement "{name}" already exists', "StoreStatement"),
    "STALE": lambda _: _build_error("0A000", "cached plan must not change result type", "RevalidateCachedQuery"),
}


def _build(words: str | bytes, table: dict[str, Callable[[str], bytes]]) -> bytes:
    if isinstance(words, bytes):
        return words
    parts = (word.partition(":") for word in words.split())
    return b"".join(table[kind](_spaced(body)) for kind, _, body in parts)


def _spaced(body: str) -> str:
    return body.replace("_", " ").replace(OURS.replace("_", " "), OURS)


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
        return socket_of(self.client)

    @property
    def server_socket(self) -> FakeTransport:
        return socket_of(self.server)

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
        heard, ought = play.hear("client"), said(words)
        assert heard == ought, f"the client heard {heard!r} and ought to {ought!r}"

    return check


def to_server(words: str | bytes) -> Line:
    def check(play: Play) -> None:
        heard, ought = play.hear("server"), asked(words)
        assert heard == ought, f"the server heard {heard!r} and ought to {ought!r}"

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


# More than one of each: what is said and heard from then on is theirs.


def another_client(play: Play) -> None:
    play.client = play.world.new_client()
    play._heard["client"] = 0


def another_server(play: Play) -> None:
    """The next client without a server gets this one: the others are put away, as if they were somebody else's."""
    for server in list(play.world.pool.places[IDLE]):
        stranger = play.world.new_client()
        stranger.transport.peer_sends(asked("Q:select_busy"))  # type: ignore[attr-defined]
        assert stranger.server is server
    play.server = play.world.new_server()
    play._heard["server"] = 0
