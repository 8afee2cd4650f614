"""
Transcripts of several clients in lines: who says what, on which server, and the LAWs after every line.

    Lined() >> asks("a b") >> free() << sent_for("a b") >> answers("a") << to("a") << silence("b")

Theory. Lines need company, so there are always several clients, with names of one letter, and `busy` others (z, y, ...)
have the servers in transactions while these gather: what is asked meanwhile stands in line. In what a client asks ME is
its name, so that each question is its own; the words are those of play.py. Questions that are trusted from the start
are in TRUSTED, so that a transcript need not begin with their apprenticeship.
"""

from collections.abc import Callable
from typing import Any, cast

from proxy.cancel import Cancels
from proxy.client import Client
from proxy.line import Line
from proxy.server import Server
from proxy.units import Unit
from tests.fakes import FakeTransport, FakeWorld, check_world, socket_of
from tests.play import asked, said

TRUSTED = ("select 'a'", "select 1", "select $1", "values ('a')")
PLAIN = "Q:select_'ME'"
ANSWER = "T D:ME C:SELECT_1 Z:I"
LINK = "PARSE:=select_'ME' B D E"  # the same in a group
LINK_ANSWER = "1 2 T D:ME C:SELECT_1"


def trust(pool: Any, *texts: str) -> None:
    for text in texts:
        shape = pool.lines.book.find(text.encode())
        assert shape.is_fit, text
        shape.is_trusted = True


class _Tasks:
    """Cancel requests as tasks that have not begun: FakeWorld.cancels has their servers."""

    def __init__(self, world: FakeWorld) -> None:
        self._world = world

    def start(self, coroutine: Any, *, name: str) -> None:
        server = coroutine.cr_frame.f_locals["server"]
        coroutine.close()
        self._world.cancels.append(server)


class Lined:
    """Clients, servers, and what has been said."""

    def __init__(self, names: str = "abcdef", servers: int = 1, *, busy: int = 1, **limits: Any) -> None:
        common = {"pipeline_depth": 16, "pipeline_servers": 1, "pipeline_group": 1, "pipeline_group_min": 2}
        common |= {"query_wait_notify": None}
        self.world = FakeWorld(**{"pool_size": servers, **common, **limits})
        self.cancels = Cancels(_Tasks(self.world))  # type: ignore[arg-type]
        self.clients: dict[str, Client] = {}
        self.servers: list[Server] = []
        self._heard: dict[object, int] = {}
        with self.world.loop.running():
            for _ in range(servers):
                self.servers.append(self.world.new_server())
            for name in names:
                self.join(name)
        self.world.clock.advance(1.0)  # a server that dies as soon as it is born is another matter
        if self.pool.lines is not None:
            trust(self.pool, *TRUSTED)
        for number, name in zip(range(busy), "zyx", strict=False):  # the newest server is taken first
            self.join(name)
            self >> asks(name, "Q:begin") << sent("Q:begin", server=servers - 1 - number)

    @property
    def pool(self) -> Any:
        return self.world.pool

    @property
    def lines(self) -> Any:
        return self.pool.lines

    @property
    def line(self) -> Line:
        (line,) = [line for line in self.lines.members if line.server is not None]
        return cast(Line, line)

    @property
    def server(self) -> Server:
        return self.servers[0]

    def join(self, name: str, *, is_slow: bool = False, **parameters: str) -> Client:
        client = self.clients[name] = self.world.new_client(is_slow=is_slow, **parameters)  # type: ignore[arg-type]
        self.cancels.register(client)
        return client

    def __rshift__(self, act: "Act") -> "Lined":
        with self.world.loop.running():
            act(self)
            self.check()
            self.world.loop.turn()
        self.check()
        return self

    __lshift__ = __rshift__

    def check(self) -> None:
        check_world(self.world)

    def hear(self, key: object, transport: Any) -> bytes:
        """What has come there since this was asked last."""
        arrived = bytes(transport.arrived)
        news = arrived[self._heard.get(key, 0) :]
        self._heard[key] = len(arrived)
        return news

    def socket(self, name: str) -> FakeTransport:
        return socket_of(self.clients[name])

    def server_socket(self, number: int) -> FakeTransport:
        return socket_of(self.servers[number])

    def name_of(self, client: Any) -> str:
        return next(name for name, each in self.clients.items() if each is client)

    def is_lined(self, number: int = 0) -> bool:
        """Is a line on this server?"""
        client = self.servers[number].client
        return client is not None and bool(client.is_line)

    def unit(self, name: str) -> Unit:
        unit = self.clients[name].unit
        assert unit is not None, f"{name} stands in no line"
        return cast(Unit, unit)


Act = Callable[[Lined], object]


def _mine(words: str | bytes, name: str) -> str | bytes:
    return words.replace("ME", name) if isinstance(words, str) else words


def asks(names: str, words: str | bytes = PLAIN) -> Act:
    """Each of `names` says `words`, one after another, in one turn of the loop."""

    def act(play: Lined) -> None:
        for name in names.split():
            play.socket(name).peer_sends(asked(_mine(words, name)))

    return act


def says(words: str | bytes = ANSWER, name: str = "", server: int = 0) -> Act:
    """A server says `words`, to `name` if that is named in them."""
    return lambda play: play.server_socket(server).peer_sends(said(_mine(words, name)))


def answers(names: str, words: str = ANSWER, server: int = 0) -> Act:
    """A server answers each of `names`, all in one piece."""

    def act(play: Lined) -> None:
        play.server_socket(server).peer_sends(b"".join(said(_mine(words, name)) for name in names.split()))

    return act


def sent(*words: str | bytes, server: int = 0) -> Act:
    """That is what has been sent to it, all of it."""

    def check(play: Lined) -> None:
        heard, ought = play.hear(server, play.server_socket(server)), b"".join(map(asked, words))
        assert heard == ought, f"server {server} got {heard!r} and ought to {ought!r}"

    return check


def sent_for(names: str, words: str = PLAIN, server: int = 0) -> Act:
    """It got the questions of these, in this order, and no more."""
    return sent(*[_mine(words, name) for name in names.split()], server=server)


def sent_group(names: str, words: str = LINK, server: int = 0) -> Act:
    """It got one group of these, in this order, and no more."""
    return sent(*[_mine(words, name) for name in names.split()], "S", server=server)


def answers_group(names: str, words: str = LINK_ANSWER, end: str = "Z:I", server: int = 0) -> Act:
    """A server answers a group of these, all in one piece."""
    return lambda play: play.server_socket(server).peer_sends(group_answer(names, words, end))


def group_answer(names: str, words: str = LINK_ANSWER, end: str = "Z:I") -> bytes:
    return b"".join(said(_mine(words, name)) for name in names.split()) + said(end)


def to(names: str, words: str | bytes = ANSWER) -> Act:
    """Each of `names` has heard this, and no more."""

    def check(play: Lined) -> None:
        for name in names.split():
            heard, ought = play.hear(name, play.socket(name)), said(_mine(words, name))
            assert heard == ought, f"{name} heard {heard!r} and ought to {ought!r}"

    return check


def silence(names: str) -> Act:
    return to(names, b"")


def told(name: str, text: str) -> Act:
    """`name` has heard one ErrorResponse with this in it, and no more."""

    def check(play: Lined) -> None:
        heard = play.hear(name, play.socket(name))
        assert heard[:1] == b"E", heard
        assert 1 + int.from_bytes(heard[1:5], "big") == len(heard), heard
        assert text.encode() in heard, heard

    return check


def hangs_up(name: str) -> Act:
    return lambda play: play.socket(name).peer_hangs_up()


def server_hangs_up(number: int = 0) -> Act:
    return lambda play: play.server_socket(number).peer_hangs_up()


def cancels(name: str) -> Act:
    """A cancel request with its key comes."""
    return lambda play: play.cancels.request(play.clients[name].key)


def cancel_arrives(number: int = 0) -> Act:
    """PostgreSQL has the signal: from now on it cannot hit anybody who comes."""
    return lambda play: play.world.cancel_arrives(play.servers[number])


def free(server: int = 0) -> Act:
    """Whoever is busy there is done."""

    def act(play: Lined) -> None:
        busy = play.servers[server].client
        play.server_socket(server).peer_sends(said("C:BEGIN Z:I"))
        (name,) = [name for name, client in play.clients.items() if client is busy]
        play.hear(name, busy.transport)

    return act


def passes(seconds: float) -> Act:
    return lambda play: play.world.advance(seconds)


def another_server() -> Act:
    """What was being opened has opened."""
    return lambda play: play.servers.append(play.world.finish_opening())
