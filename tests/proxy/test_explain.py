"""Why somebody waits, in words: for each obstacle what the client, a stranger and the operator are told."""

import asyncio
from dataclasses import replace

import pytest

from protocol.backend import build_parameter_status
from proxy.explain import Explanation, describe_holder, place_in_queue
from proxy.holders import find_holders
from proxy.pool import LoginFailed
from proxy.states import CLEANING, CLOSING, LINKED, OPENING, TESTING, Leaving, Waiting, move
from tests.fakes import FakeWorld
from tests.play import Play, another_client, asked, client, said, server
from tests.whole import INI, a_pool, a_proxy


def pause(seconds):
    return lambda play: play.world.advance(seconds)


def busy(application="billing", **limits):
    """One server, in a transaction for 93 s that has been idle for 80, and somebody who waits."""
    play = Play(followed={"application_name": application}, **limits)
    # Our SET is answered first.
    play >> client("Q:begin") >> server(build_parameter_status("application_name", application) + said("C Z:I"))
    play >> pause(13.0) >> server("C Z:T") >> pause(80.0) >> another_client >> client("Q:waits")
    return play


def test_a_client_of_the_same_user_hears_who_is_in_the_way():
    reason = Explanation(busy().world.pool).tell("web")
    assert reason.sqlstate == "53300"
    assert reason.detail == (
        "The one server of pool shop/web is busy: 1 idle in a transaction; the longest belongs to"
        ' application "billing" (user web at 127.0.0.1:1), for 93 s, idle in transaction for 80 s.'
    )
    assert "idle_transaction_timeout" in reason.hint


def test_a_client_of_another_user_hears_numbers_only():
    reason = Explanation(busy().world.pool).tell("somebody")
    assert reason.detail == (
        "The one server of pool shop/web is busy: 1 idle in a transaction; the longest has been held by"
        " another user for 93 s."
    )


def test_the_operator_hears_all():
    about = Explanation(busy().world.pool)
    assert 'application "billing" (user web at 127.0.0.1:1)' in about.tell(None).detail
    assert about.brief() == "all servers of the pool are busy: 1 idle in a transaction"


def test_those_in_transactions_are_counted_and_the_idle_ones_among_them():
    play = Play(pool_size=3)
    with play.world.loop.running():
        for _ in range(2):
            play.world.new_server()
        for status in ("T", "E", "T"):
            one = play.world.new_client()
            one.transport.peer_sends(asked("Q:begin"))
            one.server.transport.peer_sends(said(f"C Z:{status}"))
    one.transport.peer_sends(asked("Q:works"))
    assert Explanation(play.world.pool).summarize() == "3 in transactions (2 of them idle)"


def test_a_text_of_a_query_is_told_to_nobody():
    play = Play() >> client("Q:select_secret") >> another_client >> client("Q:waits")
    about = Explanation(play.world.pool)
    for told in (about.tell("web"), about.tell(None)):
        assert "secret" not in f"{told}"


def test_a_name_that_tries_to_look_like_another_line_does_not():
    detail = Explanation(busy("a\nFATAL: b").world.pool).tell("web").detail
    assert "\n" not in detail


def test_every_server_is_counted_where_it_is():
    play = Play(pool_size=7) >> client("Q:runs") >> pause(5.0)
    pool, world = play.world.pool, play.world
    with world.loop.running():
        checked, reset, leaving = (world.new_server() for _ in range(3))
        pool.open_one()
        move(checked, TESTING)
        move(leaving, CLOSING)
        move(reset, LINKED)
        move(reset, CLEANING)
    assert Explanation(pool).summarize() == (
        "1 running a query, 1 being opened, 1 being checked, 1 being reset, 1 being closed"
    )


def test_a_reserve_that_is_yet_to_come_is_announced():
    play = busy(reserve_pool_size=2, reserve_pool_timeout=5.0)
    assert Explanation(play.world.pool).tell("web").detail.endswith(" The reserve (2 servers) is opened in 5.0 s.")
    play >> pause(5.0)
    assert "reserve" not in Explanation(play.world.pool).tell("web").detail


def test_a_hint_fits_what_the_longest_holder_does():
    running = Play() >> client("Q:a")
    assert Explanation(running.world.pool).tell("web").hint == "Shorten transactions, or raise pool_size (1)."
    session = Play(pool_mode="session") >> client("Q:a") >> server("C Z:I")
    assert "session mode" in Explanation(session.world.pool).tell("web").hint


def test_a_holder_is_described_by_what_it_does():
    running = Play(followed={"application_name": "etl"}) >> client("Q:a") >> pause(0.5)
    (holder,) = find_holders(running.world.pool)
    assert (
        describe_holder(holder) == 'application "etl" (user web at 127.0.0.1:1), for 0.5 s, running a query for 0.5 s'
    )
    session = Play(pool_mode="session") >> client("Q:a") >> server("C Z:I") >> pause(61.0)
    (holder,) = find_holders(session.world.pool)
    assert describe_holder(holder).endswith("whose session has done nothing for 61 s")


def opening(seconds=0.0, count=1):
    """A pool that has no server yet."""
    world = FakeWorld(pool_size=5)
    with world.loop.running():
        for _ in range(count):
            world.new_client().transport.peer_sends(b"Q\0\0\0\6a\0")
    world.advance(seconds)
    return world


def test_a_server_that_is_being_opened():
    world = opening(0.3)
    reason = Explanation(world.pool).tell("web")
    assert (reason.sqlstate, reason.detail) == ("08006", "A server connection is being opened, since 0.3 s.")
    assert Explanation(world.pool).is_server_down
    assert Explanation(opening(7.0, 3).pool).tell("web").detail == "3 server connections are being opened, since 7.0 s."


def test_while_others_are_busy_that_is_no_failure_of_the_server():
    play = Play(pool_size=3) >> client("Q:a") >> another_client >> client("Q:b")
    reason = Explanation(play.world.pool).tell("web")
    assert reason.sqlstate == "53300"
    assert reason.detail.startswith("A server connection is being opened, since 0.0 s. All 2 servers of pool shop/web")


SORRY = 'password authentication failed for user "web"'


def fail(world):
    with world.loop.running():
        for each in list(world.pool.places[OPENING]):
            world.openings.remove(each)
            world.pool.opening_failed(LoginFailed("28P01", SORRY))
            world.pool.server_closed(each)


def test_logins_that_fail_have_the_servers_own_words_and_sqlstate():
    world = opening()
    fail(world)
    world.advance(0.125)
    about = Explanation(world.pool)
    assert about.tell("web").sqlstate == "28P01"
    assert about.tell("web").detail == (
        f"Server logins have been failing for 0.1 s: {SORRY}; the next try is in 0.1 s."
    )
    assert about.brief() == 'server logins have been failing: password authentication failed for user "web"'
    assert about.is_server_down


def test_the_time_of_failing_is_that_of_the_first_failure_and_ends_with_a_success():
    world = opening()
    for _ in range(3):
        fail(world)
        world.advance(20.0)
        with world.loop.running():
            world.pool.grow()
    assert Explanation(world.pool).tell("web").detail == (
        f"Server logins have been failing for 60 s: {SORRY}; another try is under way."
    )
    with world.loop.running():
        world.finish_opening()
    assert world.pool.failure is None


def test_a_pause():
    play = Play() >> (lambda play: play.world.pool.pause()) >> client("Q:a")
    reason = Explanation(play.world.pool).tell("web")
    assert (reason.sqlstate, reason.detail) == ("57P03", "The database is paused by an administrator.")
    assert Explanation(play.world.pool).brief() == "the database is paused"
    assert not Explanation(play.world.pool).is_server_down


def test_a_pause_that_is_the_beginning_of_the_end():
    play = Play() >> (lambda play: play.world.pool.pause()) >> client("Q:a")
    play.world.leaving = Leaving.WAIT_FOR_SERVERS
    reason = Explanation(play.world.pool).tell("web")
    assert (reason.sqlstate, reason.detail) == (
        "57P01",
        "The pooler is shutting down and hands out no server any more.",
    )


LIMITED = INI.replace("port=1\n", "port=1 max_db_connections=2\n") + "[users]\nanna = max_user_connections=3\n"


@pytest.fixture(name="proxy")
def _proxy(tmp_path):
    file = tmp_path / "proxy.ini"
    file.write_text(LIMITED)
    return a_proxy(file)


class Place:
    """A connection that counts and does nothing else."""

    opened_at = 0.0

    def __init__(self, pool, state=CLOSING):
        self.pool, self.state = pool, state
        pool.places[state][self] = None


class Carried:
    """A tunnel, as far as it is counted."""

    def __init__(self, pool):
        self.pool = pool


def test_a_limit_of_the_database_says_who_has_the_places(proxy):
    async def main():
        shop = proxy.config.find_database("shop")
        mine, *others = (proxy.pools.find(shop, user) for user in ("anna", "bert", "carl"))
        for pool in others:
            Place(pool)
        about = Explanation(mine)
        assert about.obstacle is Waiting.DATABASE_LIMIT
        assert about.tell("anna").sqlstate == "53300"
        words = 'max_db_connections (2) is reached for database "shop": 0 in this pool, '
        assert about.tell("anna").detail == words + "2 in 2 other pools."
        assert about.tell(None).detail == words + "1 in shop/bert, 1 in shop/carl."
        assert about.brief() == "max_db_connections is reached"
        proxy.pools.tunnels[Carried(others[0])] = None
        assert Explanation(mine).tell("anna").detail == words + "2 in 2 other pools, 1 replication connection."

    asyncio.run(main())


def test_a_limit_of_the_user_too(proxy):
    async def main():
        pool = a_pool(proxy)
        for _ in range(3):
            Place(pool)
        pool.set_limits(replace(pool.limits, max_db_connections=None))
        about = Explanation(pool)
        assert about.obstacle is Waiting.USER_LIMIT
        assert about.tell("anna").detail == (
            'max_user_connections (3) is reached for user "anna": 3 in this pool. All 3 servers of pool shop/anna are'
            " busy: 3 being closed."
        )

    asyncio.run(main())


def test_every_obstacle_has_its_words():
    world = Play().world
    for obstacle in Waiting:
        about = Explanation(world.pool)
        about.obstacle = obstacle
        if obstacle in (Waiting.RETRY, Waiting.DATABASE_LIMIT, Waiting.USER_LIMIT, Waiting.NO_PLACE_TO_LISTEN):
            continue  # they need a failure or neighbours: above
        assert about.tell("web").detail


def test_the_place_in_the_queue():
    assert place_in_queue(4, 12) == "You are number 4 of 12 in the queue."
    assert place_in_queue(1, 1, is_over=True) == "You were number 1 of 1 in the queue."
