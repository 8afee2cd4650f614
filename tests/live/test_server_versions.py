"""The protocol our own connections speak: 3.2 with PostgreSQL 18, and whatever an older server knows."""

import time

import pytest

from tests.live.relay import Relay
from tests.live.stand import Stand, wait_until
from tests.live.wire import PROTOCOL, cancel_request, query, sqlstate, startup

pytestmark = pytest.mark.live

NAP = "select pg_sleep(20), 'a nap of versions'"


def stand_behind(relay, upstream):
    return Stand(upstream, databases={"*": f"host=127.0.0.1 port={relay.port} pool_size=2"})


def cancels_a_query(stand, line, admin):
    line.send(query(NAP))
    running = "select count(*) from pg_stat_activity where query = %s and state = 'active'"
    wait_until(lambda: admin.execute(running, [NAP]).fetchone()[0], "the query runs")
    start = time.monotonic()
    with stand.call() as other:
        other.send(cancel_request(line.key))
        assert other.read_to_end() == []
    assert sqlstate(line.read_until()) == "57014"
    assert time.monotonic() - start < 5


def a_client(stand, minor):
    """Logged in with protocol 3.`minor`; `key` is the one it was given."""
    line = stand.call()
    line.send(startup("app", "postgres", protocol=PROTOCOL | minor))
    line.key = next(each.body for each in line.read_until() if each.kind == "K")
    return line


@pytest.mark.parametrize(("minor", "length"), [(0, 8), (2, 36)])
def test_postgresql_18_gives_us_long_keys_and_our_clients_get_what_they_ask_for(minor, length, upstream, admin):
    with Relay((upstream.host, upstream.port)) as relay, stand_behind(relay, upstream) as stand:
        line = a_client(stand, minor)
        is_new = upstream_version(admin) >= 18
        assert set(relay.asked) == {2}
        assert {len(key) for key in relay.keys} == {36 if is_new else 8}
        assert len(line.key) == length
        assert line.key not in relay.keys
        cancels_a_query(stand, line, admin)
        line.close()


def upstream_version(admin):
    return admin.info.server_version // 10_000


@pytest.mark.parametrize("is_rude", [False, True], ids=["with an error", "without a word"])
def test_one_that_turns_us_away_is_asked_again_in_the_old_way_and_only_once(is_rude, upstream, admin):
    relay = Relay((upstream.host, upstream.port), (0,), is_rude=is_rude)
    with relay, stand_behind(relay, upstream) as stand:
        with a_client(stand, 2) as first, a_client(stand, 2) as second:
            for line in (first, second):
                line.ask("begin; select 1")
                line.ask("select 1")
            assert relay.asked == [2, 0, 0]
            assert {len(key) for key in relay.keys} == {8}
            first.ask("commit")
            cancels_a_query(stand, first, admin)
        assert "does not speak protocol 3.2" in stand.log


def test_one_that_speaks_neither_is_an_error_in_its_own_words(upstream):
    relay = Relay((upstream.host, upstream.port), ())
    with relay, stand_behind(relay, upstream) as stand, stand.call() as line:
        answer = line.login("app", "postgres")
        assert sqlstate(answer) == "08P01"
        assert b"unsupported frontend protocol" in answer[-1].body
        assert relay.asked[:2] == [2, 0]
