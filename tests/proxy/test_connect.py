"""Opening a server: the conversation, hostile servers, and a place that is never lost."""

import asyncio

import pytest

from protocol import backend
from protocol.passwords import Secret
from protocol.startup import parse_startup
from proxy.approach import MAX_GREETINGS
from proxy.config.entries import Database
from proxy.connect import Endpoint, Opener
from proxy.states import CLOSED, CLOSING, IDLE, Closing
from proxy.tasks import Tasks
from tests.fakes import FakeWorld
from tests.proxy.auth.wire import Wire, a_keeper, alone, play, wired

OK = backend.build_authentication_ok()
KEY = backend.build_backend_key(b"\0\0\0\x07abcd")
TZ = backend.build_parameter_status("TimeZone", "UTC")
READY = backend.READY_IDLE_MESSAGE
HELLO = OK + TZ + KEY + READY


class Line(Wire):
    """A wire whose far end hangs up when we do."""

    @property
    def startup(self):
        """What we said first."""
        return parse_startup(self.written[4 : int.from_bytes(self.written[:4], "big")])

    def close(self):
        asyncio.get_running_loop().call_soon(self.mine.connection_lost, None)

    def abort(self):
        self.close()

    def is_closing(self):
        return False

    def get_extra_info(self, name, default=None):
        return default

    def set_protocol(self, protocol):
        self.mine = protocol


class World(FakeWorld):
    """Opens real servers, over lines that say `said`: all the same, or one after another and the last for the rest."""

    def __init__(self, said, monkeypatch, error=None, **limits):
        super().__init__(**limits)
        self.database = Database(name="shop", hosts=("here",))
        self.opener = Opener(Tasks(self.log), a_keeper(), self)
        self.inbox = None
        self.lines = []
        scripts = [said] if isinstance(said, bytes) else list(said)

        async def connect(endpoint, loop):
            if error is not None:
                raise error
            said = scripts.pop(0) if len(scripts) > 1 else scripts[0]
            self.inbox = alone()
            line = Line()
            line.mine = self.inbox
            self.lines.append(line)
            self.inbox.transport = line
            self.inbox.data_received(said)
            return self.inbox

        monkeypatch.setattr(Endpoint, "connect", connect)

    def open_server(self, pool):
        return self.opener.open_server(pool)

    def find_login(self, pool):
        return self.database, Secret("secret")

    def find_hosts(self, database):
        return database.hosts

    def tune_socket(self, connected):
        pass

    async def open(self):
        self.pool.open_one()
        server = next(reversed(next(place for place in self.pool.places if place)))
        await asyncio.gather(server.opening, return_exceptions=True)
        for _ in range(3):
            await asyncio.sleep(0)
        return server


def opened(said, monkeypatch, **more):
    async def main():
        world = World(said, monkeypatch, **more)
        world.room_made = lambda pool: None
        return world, await world.open()

    return play(main())


def test_a_server_that_lets_us_in_is_ready_and_has_told_about_itself(monkeypatch):
    world, server = opened(HELLO, monkeypatch)
    assert server.state is IDLE
    assert (server.key, server.pid) == (b"\0\0\0\x07abcd", 7)
    assert world.pool.welcome == {"TimeZone": "UTC"}
    assert server.followed == {"TimeZone": "UTC"}
    assert b"user\0web\0" in wired(world.inbox).written


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"garbage that is no message",
        backend.build_error("FATAL", "28P01", "password authentication failed"),
        b"E\0\0\0\x04",
        OK + b"Z\0\0\0\x05T",
        OK + b"Z\0\0\0\x05?",
        OK + b"Z\0\0\0\x04",
        OK + b"D\xff\xff\xff\xff",
        OK + b"G\0\0\0\x07\0\0\0",
        OK + b"K\0\0\0\x05x",
        OK + backend.build_notice("NOTICE", "00000", "hello") * (MAX_GREETINGS + 1),
        backend.build_authentication(99),
    ],
)
def test_a_server_that_does_not_is_given_up_and_its_place_is_free(said, monkeypatch):
    async def main():
        world = World(said, monkeypatch)
        world.room_made = lambda pool: None
        world.pool.open_one()
        (server,) = world.pool.places[0]
        while not server.opening.done():
            await asyncio.sleep(0)
            if world.inbox is not None:
                world.inbox.connection_lost(None)
        assert server.state is CLOSED
        assert world.pool.size == 0
        assert world.pool.failure is not None

    play(main())


@pytest.mark.parametrize("error", [OSError("no route"), ConnectionRefusedError(), UnicodeError("a label is too long")])
def test_nobody_there_frees_the_place(error, monkeypatch):
    world, server = opened(b"", monkeypatch, error=error)
    assert server.state is CLOSED
    assert world.pool.size == 0
    assert world.pool.failure is not None


def test_the_words_of_a_refusal_reach_those_who_log_in(monkeypatch):
    world, _ = opened(backend.build_error("FATAL", "3D000", "no such thing"), monkeypatch)
    assert world.pool.failure.sqlstate == "3D000"
    assert "no such thing" in str(world.pool.failure)


def test_an_opening_that_takes_too_long_is_given_up(monkeypatch):
    world, server = opened(OK, monkeypatch, server_connect_timeout=0.01)
    assert server.state is CLOSED
    assert "server_connect_timeout" in str(world.pool.failure)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_an_opening_that_is_closed_at_any_moment_frees_its_place(turns, monkeypatch):
    async def main():
        world = World(OK, monkeypatch)
        world.room_made = lambda pool: None
        world.pool.open_one()
        (server,) = world.pool.places[0]
        for _ in range(turns):
            await asyncio.sleep(0)
        server.close(Closing.ADMIN)
        await asyncio.gather(server.opening, return_exceptions=True)
        await asyncio.sleep(0)
        assert server.state is CLOSED
        assert world.pool.size == 0

    play(main())


def test_a_server_that_is_ready_while_its_pool_is_paused_says_goodbye(monkeypatch):
    async def main():
        world = World(HELLO, monkeypatch)
        world.room_made = lambda pool: None
        world.pool.open_one()
        (server,) = world.pool.places[0]
        world.pool.pause()
        await server.opening
        assert server.state in (CLOSING, CLOSED)

    play(main())


def test_where_a_unix_socket_is():
    assert Endpoint("/run/pg", 5433).path == "/run/pg/.s.PGSQL.5433"
    assert Endpoint("@pg", 5433).path == "\0pg/.s.PGSQL.5433"
    assert Endpoint("10.0.0.1", 5433).path is None


OLD = backend.build_error("FATAL", "08P01", "unsupported frontend protocol")
LONG_KEY = b"\0\0\0\x07" + bytes(range(32))


def versions(world):
    return [(line.startup.major, line.startup.minor) for line in world.lines]


def test_we_ask_for_the_newest_protocol_and_keep_the_long_key_whole(monkeypatch):
    world, server = opened(OK + backend.build_backend_key(LONG_KEY) + READY, monkeypatch)
    assert versions(world) == [(3, 2)]
    assert (server.key, server.pid) == (LONG_KEY, 7)


def test_an_old_postgresql_negotiates_and_goes_on(monkeypatch):
    world, server = opened(backend.build_negotiate(0, []) + HELLO, monkeypatch)
    assert versions(world) == [(3, 2)]
    assert (server.state, server.key) == (IDLE, b"\0\0\0\x07abcd")


def test_whoever_does_not_know_the_newest_is_asked_for_the_oldest_and_remembered(monkeypatch):
    async def main():
        world = World([OLD, HELLO], monkeypatch)
        world.room_made = lambda pool: None
        assert (await world.open()).state is IDLE
        assert versions(world) == [(3, 2), (3, 0)]
        assert (await world.open()).state is IDLE
        assert versions(world) == [(3, 2), (3, 0), (3, 0)]
        assert "does not speak protocol 3.2" in world.log.text

    play(main())


def test_a_refusal_that_was_not_about_the_version_is_told_as_it_is(monkeypatch):
    world, server = opened([OLD, backend.build_error("FATAL", "08P01", "no such thing")], monkeypatch)
    failure = world.pool.failure
    assert (server.state, failure.sqlstate, failure.sentence) == (CLOSED, "08P01", "no such thing")
    assert "does not speak" not in world.log.text
    assert versions(world) == [(3, 2), (3, 0)]
