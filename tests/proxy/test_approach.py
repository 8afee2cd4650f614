"""Our way into PostgreSQL: what is noted on whom it was made for, and how much a server may say before it is left."""

import asyncio
from types import SimpleNamespace

import pytest

from protocol import backend
from protocol.errors import ProtocolError
from protocol.frontend import build_query
from protocol.passwords import Secret
from protocol.startup import Startup, parse_startup
from proxy import approach as door
from proxy.approach import MAX_GREETINGS, Approach
from proxy.auth.prove import ServerRefused
from proxy.inbox import PeerGone
from tests.proxy.auth.wire import a_keeper, alone, play, wired

OK = backend.build_authentication_ok()
KEY = backend.build_backend_key(b"\0\0\0\x07" + b"k" * 32)
TZ = backend.build_parameter_status("TimeZone", "UTC")
READY = backend.READY_IDLE_MESSAGE
SAID = {"user": "web", "database": "shop", "search_path": "a, b"}
HERE = SimpleNamespace(where="10.0.0.1", port=5432, path=None)


def approaching(said):
    """On its way to a server that says all this."""
    owner = SimpleNamespace(parameters={}, key=b"", pid=0, pool=SimpleNamespace(now=lambda: 7.0))
    way = Approach(owner, a_keeper())
    way.head_for(HERE)
    way.connected(alone(said))
    return way


def logged_in(said, query=""):
    async def main():
        way = approaching(said)
        await way.log_in(SAID, Secret("secret"), 2)
        if query:
            await way.ask(query)
        return way

    return play(main())


def test_what_the_server_tells_is_noted_on_the_owner():
    owner = logged_in(OK + TZ + KEY + READY).owner
    assert owner.parameters == {"TimeZone": "UTC"}
    assert (owner.key, owner.pid) == (b"\0\0\0\x07" + b"k" * 32, 7)
    assert (owner.endpoint, owner.address) == (HERE, ("10.0.0.1", 5432))


@pytest.mark.parametrize("is_encrypted", [False, True])
def test_how_it_came_in_is_noted_for_those_who_must_come_the_same_way(is_encrypted):
    class Tls:
        must_bind = True

        async def begin(self, inbox, host):
            assert host == "db"
            return is_encrypted

        def as_is(self):
            return "as it is"

    async def main():
        way = approaching(b"")
        way.owner.endpoint, way.owner.tls = SimpleNamespace(host="db"), None
        assert await way.encrypt(Tls()) is is_encrypted
        assert way.owner.tls == ("as it is" if is_encrypted else None)

    play(main())


@pytest.mark.parametrize("must_bind", [False, True])
def test_scram_that_must_be_bound_is_not_spoken_where_it_cannot_be(must_bind):
    class Tls:
        async def begin(self, inbox, host):
            return True

        def as_is(self):
            return self

    async def main():
        way = approaching(backend.build_sasl(["SCRAM-SHA-256"]))  # nothing can be bound to: there is no certificate
        way.owner.endpoint, Tls.must_bind = SimpleNamespace(host="db"), must_bind
        await way.encrypt(Tls())
        asked = asyncio.ensure_future(way.log_in(SAID, Secret("secret"), 2))
        await asyncio.sleep(0)
        way.inbox.eof_received()
        with pytest.raises(ProtocolError if must_bind else PeerGone):
            await asked
        assert (b"SCRAM-SHA-256" in wired(way.inbox).written) is not must_bind

    play(main())


def test_starting_over_it_forgets_what_was_said():
    async def main():
        way = approaching(OK + TZ + KEY + READY)
        await way.log_in(SAID, Secret("secret"), 2)
        way.owner.tls = "some"
        way.inbox.connection_lost(None)
        await way.start_over()
        owner = way.owner
        assert (way.inbox, owner.parameters, owner.key, owner.pid, owner.tls) == (None, {}, b"", 0, None)

    play(main())


def test_it_says_exactly_the_parameters_it_is_given():
    packet = wired(logged_in(OK + READY).inbox).written
    assert parse_startup(packet[4:]) == Startup(3, 2, SAID)


MISSING = backend.build_error("ERROR", "42P01", "no such table")


def test_rows_of_a_query_of_ours_are_overlooked_and_its_error_is_not():
    answer = backend.build_row_description([("a", 25, -1)]) + backend.build_data_row(["1"])
    way = logged_in(OK + READY + answer + backend.build_command_complete("SELECT 1") + READY, "select 1")
    assert wired(way.inbox).written.endswith(build_query("select 1"))
    assert asked(OK + READY + answer + backend.build_command_complete("SELECT 1") + READY, "ask") is None
    assert asked(OK + READY + MISSING + READY, "ask").message == "no such table"


def asked(said, how):
    async def main():
        way = approaching(said)
        await way.log_in(SAID, Secret("secret"), 2)
        return await getattr(way, how)("select 1")

    return play(main())


def test_after_a_connect_query_that_fails_what_there_is_is_noted_all_the_same():
    nobody = backend.build_data_row(["web", "none", "web", "none"])  # but the login itself, before and after
    nothing = nobody + backend.build_command_complete("SELECT 0") + READY
    assert asked(OK + READY + MISSING + READY + nothing, "prepare").sqlstate == "42P01"


@pytest.mark.parametrize("then", [None, backend.build_ready(ord("E")), backend.build_ready(ord("T")), MISSING])
def test_a_query_of_ours_that_costs_the_connection_is_told_in_the_servers_words(then):
    """It hangs up, or is in a transaction that nobody will end."""

    async def main():
        way = approaching(OK + READY + MISSING + (then or b""))
        await way.log_in(SAID, Secret("secret"), 2)
        if then is None:
            way.inbox.eof_received()
        await way.ask("select 1")

    with pytest.raises(ServerRefused, match="no such table"):
        play(main())


def test_what_a_connect_query_has_set_is_noted():
    def rows(*values):
        return b"".join(backend.build_data_row(row) for row in values) + backend.build_command_complete("SELECT 1")

    async def main():
        way = approaching(
            OK + READY + rows() + READY + rows(["web", "clerk", "web", "none"], ["eu"])
            + rows(["work_mem", "5MB"], ["x", "y" * 2000]) + READY
        )  # fmt: skip
        await way.log_in(SAID, Secret("secret"), 2)
        await way.prepare("set work_mem to 5120; set my.region = 'eu'; set role clerk")
        return way

    way = play(main())
    assert way.base == {"work_mem": "5MB", "my.region": "eu", "role": "clerk"}
    assert b"current_setting(E'my.region',true)" in wired(way.inbox).written


@pytest.mark.parametrize(
    "said",
    [
        OK + backend.build_ready(ord("T")),
        OK + b"Z\0\0\0\x04",
        OK + b"G\0\0\0\x07\0\0\0",
        OK + b"K\0\0\0\x05x",
        OK + b"K\0\0\x01\x0a" + b"k" * 262,
        OK + backend.build_notice("NOTICE", "00000", "hello") * (MAX_GREETINGS + 1) + READY,
        OK + b"".join(backend.build_parameter_status(f"p{each}", "x" * 60_000) for each in range(5)) + READY,
        OK + b"".join(backend.build_parameter_status(f"p{each}", "x") for each in range(501)) + READY,
    ],
)
def test_a_server_that_does_not_keep_to_the_protocol_is_left(said):
    with pytest.raises(ProtocolError):
        logged_in(said)


def test_a_server_that_does_not_hang_up_is_cut_off(monkeypatch):
    async def main():
        way = approaching(b"")
        aborted = []
        wired(way.inbox).close = lambda: None
        wired(way.inbox).abort = lambda: aborted.append(True)
        await way.hang_up()
        assert aborted

    monkeypatch.setattr(door, "LAST_WORDS", 0.01)
    play(main())


def test_hanging_up_before_anything_was_connected_is_nothing():
    play(Approach(SimpleNamespace(), a_keeper()).hang_up())
