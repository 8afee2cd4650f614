"""Opening a server: the conversation, hostile servers, a place that is never lost, and several hosts."""

import asyncio
from dataclasses import replace

import pytest

from protocol import backend
from protocol.passwords import Secret
from protocol.startup import parse_startup
from proxy.approach import MAX_GREETINGS
from proxy.config.entries import Database
from proxy.config.ini import Config
from proxy.config.kinds import LoadBalance
from proxy.config.settings import assign, defaults
from proxy.connect import Opener
from proxy.places import Endpoint
from proxy.resolver import LookupFailed
from proxy.states import CLOSED, CLOSING, IDLE, OPENING, Closing
from proxy.tasks import Tasks
from proxy.tls import build_contexts
from tests.fakes import FakeWorld
from tests.proxy.auth.wire import Wire, a_keeper, alone, play, wired

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"
OK = backend.build_authentication_ok()
KEY = backend.build_backend_key(b"\0\0\0\x07abcd")
TZ = backend.build_parameter_status("TimeZone", "UTC")
READY = backend.READY_IDLE_MESSAGE
HELLO = OK + TZ + KEY + READY
SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"
SILENCE = b""  # and the end of it
REFUSED = ConnectionRefusedError(111, "Connection refused")
STARTING = backend.build_error("FATAL", "57P03", "the database system is starting up")
WRONG = backend.build_error("FATAL", "28P01", "password authentication failed")


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


class AskedLine(Line):
    """A wire whose far end speaks when it is spoken to: `answer` to the question for TLS, `said` to anything else."""

    def __init__(self, answer, said):
        super().__init__()
        self.answer, self.said = answer, said

    def write(self, data):
        super().write(data)
        said = self.answer if data == SSL_REQUEST else self.said
        asyncio.get_running_loop().call_soon(self.mine.data_received, said)


class Resolver:
    """Knows one name."""

    def begin(self, name):
        pass

    def doubt(self, name):
        pass

    async def find(self, name):
        if name != "db":
            raise LookupFailed(f"{name}: Name or service not known")
        return A, B


class World(FakeWorld):
    """
    Opens real servers, over lines that say `said`: all the same, or one after another and the last for the rest. By
    address where it is a table: bytes, an error, or None for a place that never answers.
    """

    def __init__(self, said, monkeypatch, error=None, hosts=("10.0.0.1",), balance=LoadBalance.ROUND_ROBIN, **limits):
        super().__init__(**limits)
        self.database = Database(name="shop", hosts=hosts, load_balance_hosts=balance)
        self.opener = Opener(Tasks(self.log), a_keeper(), self)
        self.config = Config("/etc/pgbouncer/pgbouncer.ini", "pgbouncer", self.settings)
        self.passwords = (Secret("secret"),)
        self.taken = []
        self.resolver = Resolver()
        self.inbox = None
        self.lines = []
        self.tried = []  # addresses
        self.said = said
        self.answer = None  # to an SSLRequest; None: nobody asks
        scripts = [said] if isinstance(said, bytes) else list(said)

        async def connect(endpoint, loop):
            if error is not None:
                raise error
            self.tried.append(endpoint.where)
            if isinstance(self.said, dict):
                said = self.said[endpoint.where]
            else:
                said = scripts.pop(0) if len(scripts) > 1 else scripts[0]
            if said is None:
                await asyncio.Event().wait()
            if isinstance(said, Exception):
                raise said
            self.inbox = alone()
            line = Line() if self.answer is None else AskedLine(self.answer, said)
            line.mine = self.inbox
            self.lines.append(line)
            self.inbox.transport = line
            if self.answer is None:
                self.inbox.data_received(said)
            if said == SILENCE:
                self.inbox.eof_received()
            return self.inbox

        monkeypatch.setattr(Endpoint, "connect", connect)

    def open_server(self, pool):
        return self.opener.open_server(pool)

    @property
    def proofs(self):
        return self

    def find_login(self, pool):
        return self.database, self.passwords

    def worked(self, pool, password):
        self.taken.append(password)

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


def opened(said, monkeypatch, entry=None, **more):
    async def main():
        world = World(said, monkeypatch, **more)
        world.database = entry or world.database
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


ASKED_IN_VAIN = backend.build_authentication_cleartext() + backend.build_error("FATAL", "28P01", "wrong password")
ASKED = backend.build_authentication_cleartext() + HELLO


def opened_with(passwords, said, monkeypatch):
    async def main():
        world = World(said, monkeypatch)
        world.passwords = passwords
        world.room_made = lambda pool: None
        return world, await world.open()

    return play(main())


@pytest.mark.parametrize("is_logged", [True, False])
def test_new_connections_are_logged_as_logins_are(is_logged, monkeypatch):
    async def main():
        world = World(HELLO, monkeypatch)
        world.settings = replace(world.settings, log_connections=is_logged)
        world.room_made = lambda pool: None
        return world, await world.open()

    world, server = play(main())
    assert server.state is IDLE
    assert ("new connection to server (from " in world.log.text) is is_logged


def test_a_connect_query_that_fails_is_a_line_in_the_log_and_no_reason_to_serve_nobody(monkeypatch):
    failed = backend.build_error("ERROR", "42P01", 'relation "x" does not exist') + READY
    query = Database(name="shop", hosts=(A,), connect_query="select x")
    nobody = backend.build_data_row(["web", "none", "web", "none"])
    world, server = opened(
        HELLO + failed + nobody + backend.build_command_complete("SELECT 0") + READY, monkeypatch, entry=query
    )
    assert server.state is IDLE
    assert f'WARNING {server.tag} connect_query failed: ERROR relation "x" does not exist' in world.log.lines
    world, server = opened(HELLO + failed[: -len(READY)] + backend.build_ready(ord("E")), monkeypatch, entry=query)
    assert server.state is CLOSED
    assert "server login failed: ERROR relation" in world.log.text


def test_of_several_passwords_the_one_that_is_right_is_found_and_remembered(monkeypatch):
    three = tuple(map(Secret, ("one", "two", "three")))
    world, server = opened_with(three, [ASKED_IN_VAIN, ASKED_IN_VAIN, ASKED], monkeypatch)
    assert server.state is IDLE
    assert world.taken == [three[2]]
    assert [b"one" in wired(world.inbox).written, b"three" in wired(world.inbox).written] == [False, True]


def test_where_a_password_is_missing_the_file_that_was_read_is_named(monkeypatch):
    """By its name: where it is, is none of a client's business."""
    world, server = opened_with((None,), ASKED, monkeypatch)
    assert server.state is CLOSED
    hint = "Give it as password= of the database in pgbouncer.ini, or in the user's line of auth_file."
    assert world.pool.failure.hint == hint


def test_when_none_is_right_the_last_refusal_is_told(monkeypatch):
    world, server = opened_with(tuple(map(Secret, ("one", "two"))), [ASKED_IN_VAIN], monkeypatch)
    assert server.state is CLOSED
    assert len(world.lines) == 2
    assert world.pool.failure.sentence == "wrong password"
    assert world.taken == []


def test_any_other_refusal_ends_it_at_once(monkeypatch):
    gone = backend.build_error("FATAL", "3D000", "no such database")
    world, _ = opened_with(tuple(map(Secret, ("one", "two"))), [gone], monkeypatch)
    assert len(world.lines) == 1


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


# Several hosts.


def several(said, monkeypatch, times=1, hosts=(A, B, C), **more):
    """A world in which so many servers have been opened, one after another; and the last of them."""

    async def main():
        world = World(said, monkeypatch, hosts=hosts, **more)
        world.room_made = lambda pool: None
        for _ in range(times):
            server = await world.open()
        return world, server

    return play(main())


def test_each_new_server_is_at_the_next_host(monkeypatch):
    world, _ = several(HELLO, monkeypatch, 4)
    assert world.tried == [A, B, C, A]


def test_hosts_that_are_not_balanced_are_left_only_when_they_fail(monkeypatch):
    async def main():
        world = World({A: HELLO, B: HELLO, C: HELLO}, monkeypatch, hosts=(A, B, C), balance=LoadBalance.DISABLE)
        world.room_made = lambda pool: None
        await world.open()
        await world.open()
        world.said[A] = REFUSED
        await world.open()
        world.said[A] = HELLO
        world.clock.advance(60)
        await world.open()
        assert world.tried == [A, A, A, B, B]
        assert "10.0.0.1,10.0.0.2,10.0.0.3: new servers are at 10.0.0.2:5432, no longer at 10.0.0.1:5432" in (
            world.log.text
        )

    play(main())


@pytest.mark.parametrize(
    ("dead", "words"),
    [
        (REFUSED, "connect failed: Connection refused"),
        (SILENCE, "login failed: the peer closed the connection"),
        (OK, "connect timeout: server_connect_timeout"),
        (None, "connect timeout: server_connect_timeout"),
        (TimeoutError(110, "Connection timed out"), "connect failed: Connection timed out"),
        (STARTING, "the database system is starting up"),
        (b"HTTP/1.1 400 Bad Request", "login failed: invalid message length"),
    ],
)
def test_a_host_that_is_dead_costs_a_moment_and_no_opening(dead, words, monkeypatch):
    world, server = several({A: dead, B: HELLO}, monkeypatch, hosts=(A, B), server_connect_timeout=0.6)
    assert (server.state, server.address, server.endpoint) == (IDLE, (B, 5432), Endpoint(B, 5432))
    assert world.pool.failure is None
    assert f"WARNING host {A}:5432 is down: {words}" in world.log.text
    said, reason = f"server login failed: FATAL {words}", "login failed"
    if dead is not STARTING:
        said, reason = words, words.split(":")[0]
    assert f"shop/web@{A}:5432 {said}" in world.log.text
    assert f"shop/web@{A}:5432 closing because: {reason} (age=0s)" in world.log.text
    assert f"shop/web@{B}:5432 new connection to server" in world.log.text


def test_nothing_of_what_the_dead_host_said_is_left(monkeypatch):
    said = OK + backend.build_parameter_status("server_version", "1") + KEY + STARTING
    world, server = several({A: said, B: OK + TZ + READY}, monkeypatch, hosts=(A, B))
    assert (server.parameters, server.key, server.pid) == ({"TimeZone": "UTC"}, b"", 0)
    assert world.pool.welcome == {"TimeZone": "UTC"}


def test_a_wrong_password_is_wrong_everywhere(monkeypatch):
    world, server = several({A: WRONG, B: HELLO}, monkeypatch, hosts=(A, B))
    assert (server.state, world.tried) == (CLOSED, [A])
    assert (world.pool.failure.sqlstate, world.pool.failure.sentence) == ("28P01", "password authentication failed")
    assert "is down" not in world.log.text


def test_only_when_all_hosts_fail_the_opening_fails_and_says_why_of_each(monkeypatch):
    world, server = several({A: REFUSED, B: SILENCE}, monkeypatch, hosts=(A, B, "nowhere"))
    assert server.state is CLOSED
    assert world.pool.size == 0
    assert world.pool.failure.sqlstate == "08006"
    assert world.pool.failure.sentence == (
        "connect failed on every host: 10.0.0.1:5432: connect failed: Connection refused;"
        " 10.0.0.2:5432: login failed: the peer closed the connection;"
        " nowhere:5432: server DNS lookup failed: nowhere: Name or service not known"
    )


def test_a_host_that_starts_up_gives_hope_when_the_others_are_dead(monkeypatch):
    world, _ = several({A: STARTING, B: REFUSED}, monkeypatch, hosts=(A, B))
    assert world.pool.failure.sqlstate == "57P03"


def test_a_host_that_failed_is_tried_last_until_its_time_is_over_and_is_missed_only_once(monkeypatch):
    async def main():
        world = World({A: REFUSED, B: HELLO}, monkeypatch, hosts=(A, B))
        world.room_made = lambda pool: None
        for _ in range(4):
            await world.open()
        assert world.tried == [A, B, B, B, B]
        world.clock.advance(60)
        world.said[A] = HELLO
        await world.open()
        await world.open()
        await world.open()
        assert world.tried[5:] == [A, B, A]
        assert world.log.text.count("is down") == world.log.text.count("is back") == 1
        assert "LOG host 10.0.0.1:5432 is back, after 60s" in world.log.text

    play(main())


def test_a_name_with_several_addresses_is_several_places(monkeypatch):
    world, server = several({A: REFUSED, B: HELLO}, monkeypatch, 2, hosts=("db",))
    assert world.tried == [A, B, B]
    assert server.endpoint == Endpoint("db", 5432, B)
    assert server.address == (B, 5432)
    assert "host db:5432 (10.0.0.1) is down" in world.log.text


def test_a_name_that_leads_nowhere_is_no_server(monkeypatch):
    world, server = several({}, monkeypatch, hosts=("nowhere",))
    words = "server DNS lookup failed: nowhere: Name or service not known"
    assert (server.state, world.tried) == (CLOSED, [])
    assert (world.pool.failure.sqlstate, world.pool.failure.sentence) == ("08006", words)
    assert world.log.text.count("closing because: server DNS lookup failed (age=0s)") == 1


def test_an_opening_that_is_closed_on_its_way_to_the_second_host_frees_its_place(monkeypatch):
    async def main():
        world = World({A: REFUSED, B: OK}, monkeypatch, hosts=(A, B))
        world.room_made = lambda pool: None
        world.pool.open_one()
        (server,) = world.pool.places[OPENING]
        while world.tried != [A, B]:
            await asyncio.sleep(0)
        server.close(Closing.ADMIN)
        await asyncio.gather(server.opening, return_exceptions=True)
        assert (server.state, world.pool.size) == (CLOSED, 0)
        assert "10.0.0.2:5432 is down" not in world.log.text

    play(main())


def test_a_host_of_an_older_protocol_is_asked_again_before_another_is_tried(monkeypatch):
    world, server = several([OLD, HELLO], monkeypatch, hosts=(A, B))
    assert (world.tried, server.state) == ([A, A], IDLE)


# TLS. (The handshake itself: test_server_tls.py.)


def asked(answer, monkeypatch, mode="prefer", **more):
    """A server that is asked for TLS and says `answer`, and lets us in when we say who we are."""

    async def main():
        world = World(HELLO, monkeypatch, **more)
        world.room_made = lambda pool: None
        world.answer = answer
        world.settings = assign(defaults(), "server_tls_sslmode", mode)
        world.tls = build_contexts(world.settings)
        return world, await world.open()

    return play(main())


@pytest.mark.parametrize("mode", ["allow", "prefer"])
def test_a_server_that_has_no_tls_is_logged_in_to_without(mode, monkeypatch):
    world, server = asked(b"N", monkeypatch, mode)
    assert (server.state, server.tls) == (IDLE, None)
    assert world.lines[0].written.startswith(SSL_REQUEST)
    assert b"user\0web\0" in world.lines[0].written
    assert "SSL established" not in world.log.text


@pytest.mark.parametrize(
    ("mode", "answer", "words"),
    [
        ("require", b"N", "server refused SSL"),
        ("verify-full", b"N", "server refused SSL"),
        ("prefer", b"E", "the server answered with an error when it was asked for SSL"),
        ("prefer", b"R", "bad sslreq answer"),
        ("prefer", b"SS", "received unencrypted data after SSL response"),
    ],
)
def test_without_the_tls_that_is_needed_nothing_of_us_is_said(mode, answer, words, monkeypatch):
    world, server = asked(answer, monkeypatch, mode)
    assert server.state is CLOSED
    assert (world.pool.failure.sqlstate, world.pool.failure.sentence) == ("08006", f"TLS handshake failed: {words}")
    assert [line.written for line in world.lines] == [SSL_REQUEST]
    assert "closing because: TLS handshake failed (age=0s)" in world.log.text


def test_a_unix_socket_is_not_asked_whatever_the_mode(monkeypatch):
    world, server = asked(b"N", monkeypatch, "verify-full", hosts=("/run/pg",))
    assert server.state is IDLE
    assert SSL_REQUEST not in world.lines[0].written


def test_nobody_is_asked_where_tls_is_disabled(monkeypatch):
    world, server = asked(b"N", monkeypatch, "disable")
    assert server.state is IDLE
    assert SSL_REQUEST not in world.lines[0].written


def test_a_host_without_tls_is_passed_over_where_another_may_have_it(monkeypatch):
    world, server = asked(b"N", monkeypatch, "require", hosts=(A, B))
    assert (server.state, world.tried) == (CLOSED, [A, B])
    assert "host 10.0.0.1:5432 is down: TLS handshake failed: server refused SSL" in world.log.text
