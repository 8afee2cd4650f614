"""What time does: every timeout, on a clock that moves when told."""

import random
from dataclasses import replace

import pytest

from proxy.ending import GOODBYE
from proxy.failing import LoginFailed
from proxy.janitor import JITTER, TICK, Janitor
from proxy.reset import PATIENCE
from proxy.states import (
    BEGUN,
    CLEANING,
    CLOSED,
    CLOSING,
    GONE,
    IDLE,
    LINKED,
    RESTING,
    TESTING,
    USED,
    WAITING,
    Closing,
    Leaving,
)
from tests.fakes import check_world, make_limits
from tests.play import Play, asked, client, client_hangs_up, error_to_client, server, stays_linked, to_client


class Pools(list):
    dying: tuple[()] = ()

    def forget_unused(self):
        pass

    def hubs(self):
        return self.listening

    relieved = 0
    listening: tuple = ()

    def relieve(self, pool):
        self.relieved += 1


class Night(Play):
    """A play with a janitor; `later(s)` lets time pass in his ticks."""

    def __init__(self, **said):
        super().__init__(**{"query_wait_notify": None, **said})
        self.world.pools = Pools([self.world.pool])
        self.world.lines = 0
        self.world.log_stats = lambda: setattr(self.world, "lines", self.world.lines + 1)
        self.janitor = Janitor(self.world)


def later(seconds):
    def act(play):
        left = seconds
        while left > 0:
            play.world.advance(min(TICK, left))
            left -= TICK
            play.janitor.sweep()
            check_punctual(play)
            play.world.loop.turn()
            check_world(play.world)

    return act


def check_punctual(play):
    """A sweep that looks everywhere, whatever `look_at` and `retire_at` say, finds nothing that is due."""
    for pool in play.world.pools:
        before = [list(place) for place in pool.places]
        play.janitor._sweep_idle(pool)
        assert [list(place) for place in pool.places] == before, f"overlooked: look_at {pool.look_at}"
        doomed = [server.doomed for server in pool.places[LINKED]]
        play.janitor._retire(pool)
        assert [server.doomed for server in pool.places[LINKED]] == doomed, f"overlooked: retire_at {pool.retire_at}"


def other_asks(play):
    play.other = play.world.new_client()
    play.other.transport.peer_sends(asked("Q:other"))


def test_who_waits_too_long_is_told():
    play = Night(query_wait_timeout=2.0) >> other_asks >> client("Q:a") >> later(1.9)
    assert play.client.state is WAITING
    play >> later(0.5) << error_to_client("query_wait_timeout")
    assert play.client.state is GONE
    assert play.other.server is play.server


def test_who_waits_is_notified_once():
    play = Night(query_wait_notify=1.0, query_wait_timeout=None) >> other_asks >> client("Q:a") >> later(5.0)
    assert play.hear("client").count(b"client being queued") == 1


def test_without_a_limit_the_wait_is_endless():
    play = Night(query_wait_timeout=None) >> other_asks >> client("Q:a") >> later(1000.0)
    assert play.client.state is WAITING


@pytest.mark.parametrize("wait", [None, 3.0])
def test_a_query_that_waits_longer_than_it_may_take_is_ended_too(wait):
    """In PgBouncer's words, which differ by a space from those for one that runs."""
    play = Night(query_timeout=2.0, query_wait_timeout=wait) >> other_asks >> client("Q:a") >> later(1.9)
    assert play.client.state is WAITING
    play >> later(0.5) << error_to_client("query_timeout")


def test_the_smaller_of_the_two_limits_is_named():
    play = Night(query_timeout=3.0, query_wait_timeout=2.0) >> other_asks >> client("Q:a") >> later(2.5)
    play << error_to_client("query_wait_timeout")


def test_a_query_that_runs_too_long_is_ended_and_cancelled():
    play = Night(query_timeout=2.0) >> client("Q:long") >> later(1.9) << stays_linked >> later(0.5)
    play << error_to_client("query timeout")
    assert play.world.cancels == [play.server]


def test_each_query_has_its_own_time():
    play = Night(query_timeout=2.0, pool_mode="session")
    for _ in range(4):
        play >> client("Q:a") >> later(1.5) >> server("C Z:I") << to_client("C Z:I") >> later(5.0)
    assert play.client.state is not GONE


def test_a_transaction_that_is_open_too_long_is_ended():
    play = Night(transaction_timeout=2.0) >> client("Q:begin") >> server("C Z:T") << to_client("C Z:T") >> later(2.5)
    play << error_to_client("transaction timeout")


def test_an_idle_transaction_is_ended_and_one_at_work_is_not():
    play = Night(idle_transaction_timeout=2.0) >> client("Q:begin") >> server("C Z:T") << to_client("C Z:T")
    play >> later(1.5) >> client("Q:work") >> later(3.0) << stays_linked >> server("C Z:T") << to_client("C Z:T")
    play >> later(2.5) << error_to_client("idle transaction timeout")


def test_a_client_that_has_rested_long_is_not_taken_for_an_idle_transaction_when_it_begins_a_batch():
    play = Night(idle_transaction_timeout=2.0, server_check_query=None) >> later(100.0)
    play >> client("P H") >> server("1") >> later(1.0)
    play << stays_linked << to_client("1") >> later(2.0) << error_to_client("idle transaction timeout")


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_client_that_rests_too_long_is_ended(mode):
    play = Night(client_idle_timeout=2.0, pool_mode=mode) >> client("Q:a") >> server("C Z:I") << to_client("C Z:I")
    play >> later(1.5)
    assert play.client.state is not GONE
    play >> later(1.0) << error_to_client("client_idle_timeout")


def test_a_client_at_work_is_not_idle():
    Night(client_idle_timeout=2.0) >> client("Q:a") >> later(10.0) << stays_linked


def test_a_transaction_that_no_server_knows_has_the_timeout_of_idle_transactions():
    play = Night(client_idle_timeout=2.0, idle_transaction_timeout=4.0, deferred_begin=True) >> client("Q:begin")
    play << to_client("C:BEGIN Z:T") >> later(3.0)
    assert play.client.state is BEGUN
    play >> later(2.0) << error_to_client("idle transaction timeout")
    assert play.client.state is GONE


def test_an_idle_server_is_closed_down_to_the_minimum_and_no_further():
    play = Night(pool_size=4, min_pool_size=2, server_idle_timeout=5.0, server_check_query=None)
    with play.world.loop.running():
        for _ in range(3):
            play.world.new_server()
    play >> later(20.0)
    assert [len(play.world.pool.places[state]) for state in (IDLE, CLOSING)] == [2, 0] or (
        len(play.world.pool.places[IDLE]) == 2
    )


def test_a_server_that_is_leaving_is_not_counted_twice():
    play = Night(pool_size=4, min_pool_size=2, server_idle_timeout=5.0, server_check_query=None)
    with play.world.loop.running():
        for _ in range(3):
            play.world.new_server()
        play.world.advance(6.0)
        for _ in range(5):
            play.janitor.sweep()
    assert len(play.world.pool.places[CLOSING]) == 2


def test_an_old_server_is_closed_when_idle_and_doomed_when_linked():
    play = Night(server_lifetime=100.0) >> later(100.0 * (1 - JITTER) - 2)
    assert play.server.state is IDLE or play.server.state is USED
    play = Night(server_lifetime=100.0) >> client("Q:a") >> later(101.0) << stays_linked
    assert play.server.doomed is Closing.LIFETIME
    play >> server("C Z:I") << to_client("C Z:I")
    assert play.server.state in (CLOSING, CLOSED)


def test_servers_opened_together_do_not_all_leave_together():
    play = Night(pool_size=30, server_lifetime=100.0, server_idle_timeout=None, server_check_query=None)
    with play.world.loop.running():
        for _ in range(29):
            play.world.new_server()
    counts = set()
    for _ in range(20):
        play >> later(0.6) if play.world.clock.now() > 1089 else play >> later(89.5)
        counts.add(len(play.world.pool.places[IDLE]))
    assert len(counts) > 4


def test_a_pool_that_became_smaller_closes_what_is_too_much():
    play = Night(pool_size=4)
    with play.world.loop.running():
        for _ in range(3):
            play.world.new_server()
    play >> later(1.0)
    play.world.pool.set_limits(make_limits(pool_size=2))
    with play.world.loop.running():
        play.janitor.sweep()
        play.janitor.sweep()
    assert len(play.world.pool.places[CLOSING]) == 2


def test_what_is_idle_is_looked_at_when_something_may_be_due_and_not_before():
    play = Night(pool_size=2, server_idle_timeout=100.0, server_check_delay=30.0, server_lifetime=1000.0)
    looks = []
    sweep_idle = play.janitor._sweep_idle
    play.janitor._sweep_idle = lambda pool: (looks.append(play.world.clock.now()), sweep_idle(pool))
    for _ in range(80):
        play.world.advance(TICK)
        play.janitor.sweep()
    assert len(looks) == 1
    for _ in range(20):
        play.world.advance(TICK)
        play.janitor.sweep()
    assert play.server.state is USED
    assert len(looks) <= 3


@pytest.mark.parametrize("seed", range(20))
def test_nothing_that_is_due_is_overlooked_whatever_happens_in_between(seed):
    dice = random.Random(seed)
    play = Night(
        pool_size=3,
        server_idle_timeout=dice.choice([None, 4.0, 20.0]),
        server_check_delay=dice.choice([0.0, 3.0, 9.0]),
        server_check_query=dice.choice([None, ""]),
        server_lifetime=dice.choice([10.0, 50.0]),
        min_pool_size=dice.choice([0, 1]),
    )
    for _ in range(40):
        play >> later(dice.choice([0.1, TICK, 1.0, 3.0, 7.0]))
        if not play.world.pool.places[IDLE]:
            with play.world.loop.running():
                play.server = play.world.new_server() if play.world.pool.size < 3 else play.server
        elif play.server.state is IDLE and play.client.state is RESTING:
            play >> client("Q:a") >> later(dice.choice([0.1, 2.0, 5.0])) >> server("C Z:I")


def test_a_server_idle_for_long_must_be_tested_before_it_is_used():
    play = Night(server_check_delay=5.0) >> later(6.0)
    assert play.server.state is USED
    play >> client("Q:a")
    assert play.server.state is TESTING
    play >> server("I Z:I")
    assert play.server.state is LINKED


def test_without_a_check_query_nothing_is_tested():
    play = Night(server_check_delay=5.0, server_check_query=None) >> later(60.0)
    assert play.server.state is IDLE


def test_a_test_that_takes_too_long_closes_the_server():
    play = Night(server_check_delay=5.0, server_connect_timeout=3.0) >> later(6.0) >> client("Q:a") >> later(4.0)
    assert play.server.state in (CLOSING, CLOSED)


def test_a_cleaning_that_takes_too_long_closes_the_server():
    play = Night() >> client("Q:a") >> client_hangs_up >> later(9.0)
    assert play.server.state is CLEANING
    play >> later(2.0)
    assert play.server.state in (CLOSING, CLOSED)


@pytest.mark.parametrize("can_half_close", [False, True])
def test_a_server_that_says_its_last_words_to_a_client_and_does_not_hang_up_is_closed(can_half_close):
    play = Night() >> client("Q:a") >> server("FATAL:shutdown") << to_client("FATAL:shutdown")
    play.server_socket.can_half_close = can_half_close
    play >> later(GOODBYE - 1) << stays_linked >> later(2.0)
    assert play.client.state is GONE
    assert play.server.state in (CLOSING, CLOSED)
    play << to_client("") >> later(GOODBYE + 1)
    assert play.server.state is CLOSED


def test_a_long_statement_whose_client_said_goodbye_gives_its_place_back_in_the_end():
    play = Night() >> client("Q:long X")
    play.server_socket.can_half_close = True
    play >> later(PATIENCE - 1)
    assert play.server.state is CLEANING
    assert play.world.cancels == []
    play >> later(2.0)
    assert play.server.state is CLOSING
    assert play.world.cancels == [play.server]
    assert play.server_socket.has_written_eof
    play >> later(GOODBYE + 1)
    assert play.world.pool.size == 0


def test_a_server_that_does_not_hang_up_is_cut_off():
    play = Night() >> (lambda play: play.server.close(Closing.ADMIN)) >> later(4.0)
    assert play.server.state is CLOSING
    play >> later(2.0)
    assert play.server.state is CLOSED
    assert play.server_socket.was_aborted


def test_a_pool_that_is_kept_warm_is_filled_one_server_at_a_time():
    play = Night(pool_size=5, min_pool_size=3)
    play.world.pool.is_kept_warm = True
    play >> later(TICK)
    assert len(play.world.openings) == 1
    play >> later(3.0)
    assert play.world.pool.size == 3


@pytest.mark.parametrize("pool_mode", ["session", "transaction"])
def test_a_server_that_is_busy_for_long_is_too_old_in_time_and_leaves_when_it_is_released(pool_mode):
    play = Night(pool_mode=pool_mode, server_lifetime=100.0) >> client("Q:a") >> later(100.0 * (1 - JITTER) - 2)
    assert play.server.doomed is None
    play >> later(100.0 * JITTER + 3) << stays_linked
    assert play.server.doomed is Closing.LIFETIME


def test_a_shorter_lifetime_reaches_those_who_are_busy_at_once():
    play = Night(pool_mode="session", server_lifetime=1000.0) >> client("Q:a") >> later(60.0) << stays_linked
    pool = play.world.pool
    pool.set_limits(replace(pool.limits, server_lifetime=50.0))
    play >> later(TICK) << stays_linked
    assert play.server.doomed is Closing.LIFETIME


def test_averages_are_taken_every_period():
    play = Night() >> client("Q:a") >> server("C Z:I") >> later(61.0)
    assert play.world.lines == 1
    assert play.world.pool.averages.rates()["query_count"] == pytest.approx(1 / 60, rel=0.02)


def test_those_who_wait_are_served_as_soon_as_a_failed_login_may_be_tried_again():
    play = Night(pool_size=2, query_wait_timeout=None) >> other_asks >> client("Q:a")
    with play.world.loop.running():
        failed = play.world.openings.pop()
        play.world.pool.opening_failed(LoginFailed("28P01", "no"))
        play.world.pool.server_closed(failed)
    assert not play.world.openings
    play >> later(1.0)
    assert len(play.world.openings) == 1


def outdated(why=Closing.STALE, **said):
    """A session whose server is to leave."""
    play = Night(**{"pool_mode": "session", "server_fast_close": True, **said}) >> client("Q:a") >> server("C Z:I")
    play << to_client("C Z:I")
    play.world.pool.retire_servers(why)
    return play


@pytest.mark.parametrize("why", [Closing.STALE, Closing.RECONNECT])
def test_a_session_that_rests_on_an_outdated_server_is_ended_where_that_is_wanted(why):
    play = outdated(why) >> later(TICK) << error_to_client("database configuration changed")
    assert play.client.state is GONE
    assert play.server.state in (CLEANING, CLOSING)


def test_not_in_a_transaction_nor_in_a_query_nor_in_a_batch():
    play = outdated() >> client("Q:begin") >> later(5.0) << stays_linked >> server("C Z:T") << to_client("C Z:T")
    play >> later(5.0) << stays_linked >> client("P H") >> server("1") << to_client("1") >> later(5.0) << stays_linked
    play >> client("S Q:commit") >> server("Z:T C Z:I") << to_client("Z:T C Z:I")
    play >> later(TICK) << error_to_client("database configuration changed")


@pytest.mark.parametrize(
    "said", [{"server_fast_close": False}, {"pool_mode": "transaction"}, {"pool_mode": "statement"}]
)
def test_nor_where_it_is_not_wanted_or_servers_are_shared(said):
    play = outdated(**said) >> later(5.0)
    assert play.client.state is not GONE


def test_nor_because_a_server_is_old():
    outdated(Closing.LIFETIME) >> later(5.0) << stays_linked


def test_a_process_that_was_succeeded_fills_no_pool_any_more():
    play = Night(pool_size=5, min_pool_size=3)
    play.world.pool.is_kept_warm = True
    play.world.leaving = Leaving.SUCCEEDED
    play.janitor.sweep()
    assert not play.world.openings
