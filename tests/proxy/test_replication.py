"""A replication client's login: its place, its own server, its welcome; and nothing left behind however it ends."""

import asyncio

import pytest

from protocol import backend
from protocol.backend import READY_IDLE_MESSAGE, build_backend_key, build_parameter_status
from protocol.frontend import build_query
from protocol.startup import CancelRequest, build_startup
from proxy import replication
from proxy.places import Endpoint
from proxy.pools import STARVING
from proxy.replication import PATIENCE
from proxy.states import IDLE, LINKED, Closing, Leaving, Waiting
from proxy.tunnel import Stage
from proxy.visit import Visit
from tests.proxy.auth.wire import alone, play, wired
from tests.proxy.test_connect import Line
from tests.proxy.test_login import a_proxy, refusal
from tests.proxy.test_pool import Server

SERVER_KEY = b"\0\0\0\x07" + b"k" * 32
HELLO = b"".join(
    [
        backend.build_authentication_ok(),
        build_parameter_status("application_name", "standby"),
        build_parameter_status("TimeZone", "CET"),
        build_backend_key(SERVER_KEY),
        READY_IDLE_MESSAGE,
    ]
)
ERROR = backend.build_error("FATAL", "42501", "permission denied to start WAL sender")


class Place:
    """A proxy, and a PostgreSQL that says `said` to whoever connects to it."""

    def __init__(self, path, monkeypatch, said=HELLO, text="", **settings):
        self.proxy = a_proxy(path, text, **{"server_tls_sslmode": "disable", **settings})
        self.proxy.tune_socket = lambda connected: None
        self.said = said
        self.servers = []  # inboxes of the connections to PostgreSQL
        monkeypatch.setattr(Endpoint, "connect", self._connect)
        monkeypatch.setattr(replication, "LOOK_AGAIN", 0)

    async def _connect(self, loop):
        inbox = alone()
        line = inbox.transport = Line()
        line.mine = inbox
        inbox.data_received(self.said)
        self.servers.append(inbox)
        return inbox

    async def arrive(self, **said):
        """A client that asks for replication: its visit, which goes on as a task."""
        client = alone(build_startup({"user": "anna", "database": "shop", "replication": "true", **said}))
        line = Line()
        line.mine = client
        client.transport = line
        visit = Visitor(self.proxy, client)
        await visit.settle()
        return visit

    @property
    def tunnels(self):
        return list(self.proxy.pools.tunnels)

    @property
    def startup(self):
        """What the first connection to PostgreSQL began with."""
        return wired(self.servers[0]).startup

    @property
    def pool(self):
        return self.proxy.pools.find(self.proxy.config.find_database("shop"), "anna")

    def check_empty(self):
        assert not self.tunnels
        assert self.proxy.client_count == self.proxy.visitors == 0


class Visitor:
    def __init__(self, proxy, inbox):
        self.inbox = inbox
        self.visit = Visit(proxy, inbox, ("10.0.0.7", 51234))
        self.task = asyncio.ensure_future(self._serve())

    async def _serve(self):
        try:
            await self.visit.serve()
        finally:
            self.visit.finish()

    async def settle(self, turns=30):
        for _ in range(turns):
            await asyncio.sleep(0)

    @property
    def heard(self):
        return wired(self.inbox).written

    async def wait_refusal(self):
        """SQLSTATE and sentence."""
        await self.settle()
        self.inbox.connection_lost(None)
        await self.task
        return refusal(self.heard)


@pytest.fixture(name="place")
def _place(tmp_path, monkeypatch):
    return Place(tmp_path, monkeypatch)


def test_the_client_gets_its_servers_own_welcome_but_a_key_of_ours(place):
    async def main():
        client = await place.arrive()
        (tunnel,) = place.tunnels
        assert build_parameter_status("TimeZone", "CET") in client.heard
        assert client.heard.endswith(build_backend_key(tunnel.key) + READY_IDLE_MESSAGE)
        assert (len(tunnel.key), tunnel.far.key, tunnel.far.pid) == (8, SERVER_KEY, 7)
        assert (tunnel.stage, tunnel.application_name) == (Stage.OPEN, "standby")
        assert place.proxy.client_count == 1
        assert place.pool.stats.client_login_count == 1
        assert "db=shop user=anna tls=no replication=yes" in place.proxy.log.text

    play(main())


def test_its_parameters_are_the_servers_business_and_the_entrys_are_only_defaults(tmp_path, monkeypatch):
    async def main():
        text = "other = host=127.0.0.1 dbname=real user=boss application_name=mine timezone=UTC client_encoding=UTF8"
        place = Place(tmp_path, monkeypatch, text=text, ignore_startup_parameters="extra_float_digits")
        more = {"application_name": "s1", "options": "-c work_mem=1MB", "extra_float_digits": "3", "no_such": "x"}
        await place.arrive(database="other", replication="database", **more)
        startup = place.startup
        assert startup.minor == 2
        assert startup.parameters == {
            "user": "boss",
            "database": "real",
            "client_encoding": "UTF8",
            "timezone": "UTC",
            "application_name": "s1",
            "options": "-c work_mem=1MB",
            "no_such": "x",
            "replication": "database",
        }

    play(main())


def test_application_name_is_passed_on_as_it_is(tmp_path, monkeypatch):
    """It is how a standby is known to synchronous_standby_names."""

    async def main():
        place = Place(tmp_path, monkeypatch, application_name_add_host=1)
        await place.arrive(application_name="s1")
        assert place.startup.parameters["application_name"] == "s1"

    play(main())


def test_bytes_go_both_ways_from_then_on(place):
    async def main():
        client = await place.arrive()
        (tunnel,) = place.tunnels
        tunnel.near.data_received(b"IDENTIFY_SYSTEM")
        assert wired(place.servers[0]).written.endswith(b"IDENTIFY_SYSTEM")
        tunnel.far.data_received(b"answer")
        assert client.heard.endswith(READY_IDLE_MESSAGE + b"answer")

    play(main())


@pytest.mark.parametrize(("kind", "count"), [("database", 1), ("true", 0)])
def test_a_physical_walsender_is_not_asked_to_run_connect_query(kind, count, tmp_path, monkeypatch):
    async def main():
        done = backend.build_command_complete("SELECT 1") + READY_IDLE_MESSAGE
        text = "other = host=127.0.0.1 connect_query='select 1'"
        place = Place(tmp_path, monkeypatch, HELLO + done * count, text)
        await place.arrive(database="other", replication=kind)
        assert wired(place.servers[0]).written.count(build_query("select 1")) == count
        assert place.tunnels[0].stage is Stage.OPEN

    play(main())


def test_pg_basebackup_names_a_database_that_need_not_exist(tmp_path, monkeypatch):
    async def main():
        place = Place(tmp_path, monkeypatch)
        stranger = await place.arrive(database="replication")
        assert (await stranger.wait_refusal()) == ("3D000", "no such database: replication")
        assert b'add "replication" or "*"' in stranger.heard
        place.check_empty()

    play(main())


def test_the_entry_for_all_others_serves_it(tmp_path, monkeypatch):
    async def main():
        place = Place(tmp_path, monkeypatch, text="* = host=127.0.0.1")
        await place.arrive(database="replication")
        assert place.startup.parameters["database"] == "replication"
        place.proxy.clock.advance(100_000)
        place.proxy.pools.forget_unused()
        assert "replication" in place.proxy.pools.databases(), "a pool with a tunnel is used"

    play(main())


def test_what_the_server_has_against_it_the_client_hears_word_for_word(tmp_path, monkeypatch):
    async def main():
        place = Place(tmp_path, monkeypatch, ERROR)
        client = await place.arrive()
        assert (await client.wait_refusal()) == ("42501", "permission denied to start WAL sender")
        place.check_empty()

    play(main())


@pytest.mark.parametrize("value", ["perhaps", "", "o"])
def test_a_value_that_is_none_is_refused_before_anything_else(value, place):
    async def main():
        client = await place.arrive(replication=value)
        state, words = await client.wait_refusal()
        assert (state, words) == ("22023", f'invalid value for parameter "replication": "{value}"')
        assert not place.servers

    play(main())


def test_a_false_one_is_an_ordinary_login(place):
    async def main():
        place.pool.welcome = {"TimeZone": "UTC"}
        await place.arrive(replication="off")
        assert not place.tunnels
        assert len(place.pool.clients) == 1
        assert "replication=no" in place.proxy.log.text

    play(main())


def test_a_client_that_leaves_while_its_server_is_opened_leaves_nothing(tmp_path, monkeypatch):
    async def main():
        place = Place(tmp_path, monkeypatch, b"")
        client = await place.arrive()
        assert place.tunnels[0].stage is Stage.OPENING
        assert place.proxy.client_count == 1
        client.inbox.eof_received()
        await client.task
        place.check_empty()
        assert not place.servers[0].is_alive

    play(main())


@pytest.mark.parametrize("why", [Closing.ADMIN, Closing.DATABASE_GONE])
def test_so_does_one_that_an_operator_calls_off(why, tmp_path, monkeypatch):
    async def main():
        place = Place(tmp_path, monkeypatch, b"")
        client = await place.arrive()
        place.tunnels[0].close(why)
        assert (await client.wait_refusal()) == ("57P01", why.value)
        place.check_empty()

    play(main())


def test_one_that_is_called_off_in_the_moment_of_success_does_not_slip_through(tmp_path, monkeypatch):
    async def main():
        place = Place(tmp_path, monkeypatch, b"")
        client = await place.arrive()
        place.servers[0].data_received(HELLO)
        place.tunnels[0].close(Closing.ADMIN)
        assert (await client.wait_refusal())[0] == "57P01"
        place.check_empty()

    play(main())


@pytest.mark.parametrize("name", ["client_login_timeout", "server_connect_timeout"])
def test_the_opening_stands_under_both_timeouts(name, tmp_path, monkeypatch):
    async def main():
        place = Place(tmp_path, monkeypatch, b"", **{name: 0.05})
        client = await place.arrive()
        await asyncio.sleep(0.1)
        _, words = await client.wait_refusal()
        assert name in words
        place.check_empty()

    play(main())


def an_idle_server(pool, state=IDLE):
    server = Server(pool)
    server.state = state
    pool.places[state][server] = None
    return server


@pytest.mark.parametrize("limit", ["max_db_connections", "max_user_connections"])
def test_it_counts_as_a_server_and_an_idle_one_makes_room(limit, tmp_path, monkeypatch):
    async def main():
        place = Place(tmp_path, monkeypatch, **{limit: 1})
        idle = an_idle_server(place.pool)
        client = await place.arrive()
        assert idle.why is Closing.EVICTED
        assert not place.servers, "the one that leaves still counts"
        assert place.pool.find_obstacle() in (Waiting.DATABASE_LIMIT, Waiting.USER_LIMIT), "nobody else grows there"
        place.pool.server_closed(idle)
        await client.settle()
        assert place.tunnels[0].stage is Stage.OPEN
        assert place.proxy.pools.count_servers([place.pool]) == 1
        assert place.pool.find_obstacle() in (Waiting.DATABASE_LIMIT, Waiting.USER_LIMIT)

    play(main())


def test_without_room_it_is_refused_after_a_while_and_a_busy_server_is_asked_to_leave_before(tmp_path, monkeypatch):
    async def main():
        place = Place(tmp_path, monkeypatch, max_db_connections=1)
        busy = an_idle_server(place.pool, LINKED)
        client = await place.arrive()
        assert busy.doomed is None
        place.proxy.clock.advance(STARVING)
        await client.settle()
        assert busy.doomed is Closing.EVICTED
        place.proxy.clock.advance(PATIENCE)
        state, words = await client.wait_refusal()
        assert state == "53300"
        assert "max_db_connections is reached" in words
        place.check_empty()

    play(main())


def test_those_who_came_first_are_served_first(tmp_path, monkeypatch):
    async def main():
        place = Place(tmp_path, monkeypatch, max_db_connections=1)
        await place.arrive()
        second, third = await place.arrive(), await place.arrive()
        first = place.tunnels[0]
        first.close(Closing.ADMIN)
        first.far.connection_lost(None)
        await second.settle()
        assert [tunnel.stage for tunnel in place.tunnels] == [Stage.OPEN, Stage.OPENING]
        third.inbox.eof_received()
        await third.task
        assert len(place.tunnels) == 1

    play(main())


def test_pool_size_does_not_count_it(tmp_path, monkeypatch):
    async def main():
        place = Place(tmp_path, monkeypatch, default_pool_size=1)
        await place.arrive()
        await place.arrive()
        assert [tunnel.stage for tunnel in place.tunnels] == [Stage.OPEN] * 2
        assert place.pool.find_obstacle() is None

    play(main())


@pytest.mark.parametrize("limit", ["max_client_conn", "max_db_client_connections", "max_user_client_connections"])
def test_it_counts_as_a_client(limit, tmp_path, monkeypatch):
    async def main():
        place = Place(tmp_path, monkeypatch, **{limit: 1})
        await place.arrive()
        for kind in ("true", "false"):
            place.pool.welcome = {"TimeZone": "UTC"}
            state, words = await (await place.arrive(replication=kind)).wait_refusal()
            assert state == "53300"
            assert limit in words
        assert len(place.tunnels) == 1

    play(main())


def test_paused_it_waits_and_those_that_are_open_go_on(place):
    async def main():
        await place.arrive()
        place.proxy.pools.pause(None)
        assert place.pool.is_quiet, "PAUSE does not wait for a tunnel"
        client = await place.arrive()
        place.proxy.clock.advance(PATIENCE * 2)
        await client.settle()
        assert [tunnel.stage for tunnel in place.tunnels] == [Stage.OPEN, Stage.OPENING]
        place.proxy.pools.resume(None)
        await client.settle()
        assert [tunnel.stage for tunnel in place.tunnels] == [Stage.OPEN, Stage.OPEN]

    play(main())


def test_kill_and_the_end_of_the_proxy_close_it(place):
    async def main():
        await place.arrive()
        (tunnel,) = place.tunnels
        place.proxy.pools.kill("shop")
        assert tunnel.stage is Stage.CLOSING
        assert place.proxy.client_count == 0
        tunnel.far.connection_lost(None)
        place.check_empty()

    play(main())


def test_a_gentle_end_waits_for_it_as_for_any_client_and_the_end_of_transactions_does_not(place):
    async def main():
        await place.arrive()
        (tunnel,) = place.tunnels
        assert not place.proxy._is_drained(Leaving.WAIT_FOR_CLIENTS)
        assert place.proxy._is_drained(Leaving.WAIT_FOR_SERVERS)
        tunnel.close(Closing.ADMIN)
        assert place.proxy._is_drained(Leaving.WAIT_FOR_CLIENTS)

    play(main())


def test_a_cancel_request_with_its_key_takes_the_servers_own_there(place):
    async def main():
        client = await place.arrive()
        (tunnel,) = place.tunnels
        place.said = b""
        place.proxy.cancels.request(tunnel.key)
        await client.settle()
        assert wired(place.servers[1]).startup == CancelRequest(SERVER_KEY)
        place.servers[1].connection_lost(None)
        await client.settle()
        assert tunnel.far.cancels == 0
        tunnel.close(Closing.ADMIN)
        place.proxy.cancels.request(tunnel.key)
        assert place.proxy.cancels.forwarding == 0

    play(main())


def test_an_unusual_end_of_the_conversation_with_the_client_is_an_end(place):
    async def main():
        client = await place.arrive()
        (tunnel,) = place.tunnels
        tunnel.near.eof_received()
        assert tunnel.stage is Stage.CLOSING
        tunnel.far.connection_lost(None)
        await client.task
        place.check_empty()

    play(main())
