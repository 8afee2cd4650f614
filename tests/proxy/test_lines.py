"""Who may stand in line, who goes where, and that nobody else waits longer for it."""

from dataclasses import replace

import pytest

from protocol.sharing import FIT
from proxy.config.kinds import PoolMode, SessionState
from proxy.farewell import ERRORS
from proxy.janitor import Janitor
from proxy.lines import find_lines
from proxy.states import ACTIVE, CLOSED, CLOSING, GONE, IDLE, LINED, LINKED, RESTING, WAITING, Closing
from tests.fakes import FakeWorld
from tests.lined import (
    ANSWER,
    PLAIN,
    Lined,
    another_server,
    answers,
    asks,
    free,
    hangs_up,
    passes,
    says,
    sent,
    sent_for,
    server_hangs_up,
    silence,
    to,
    told,
    trust,
)
from tests.play import said


def in_line(names="a b c", **limits):
    return Lined(names.replace(" ", ""), **limits) >> asks(names) >> free() << sent_for(names)


def reload(**limits):
    return lambda play: play.pool.set_limits(replace(play.pool.limits, **limits))


# Who may.


@pytest.mark.parametrize(
    ("limits", "has_lines"),
    [
        ({}, False),
        ({"pipeline_depth": 1}, False),
        ({"pipeline_depth": 2}, True),
        ({"pipeline_depth": 16, "pool_mode": "session"}, False),
        ({"pipeline_depth": 16, "pool_mode": "statement"}, True),
        ({"pipeline_depth": 16, "session_state": "audit"}, False),
        ({"pipeline_depth": 16, "session_state": "track"}, True),
    ],
)
def test_which_pools_have_lines(limits, has_lines):
    assert (FakeWorld(**limits).pool.lines is not None) is has_lines


def test_who_comes_alone_has_a_server_of_his_own():
    play = Lined("a", busy=0) >> asks("a") << sent_for("a")
    assert play.clients["a"].server is play.server
    play >> answers("a") << to("a")


@pytest.mark.parametrize("words", ["Q:select_pg_sleep('1')", "Q:insert_into_t_values_('a')", "Q:select_'a'_for_update"])
def test_what_may_not_share_waits_for_a_server_of_its_own(words):
    play = Lined("ab") >> asks("a", words)
    assert play.clients["a"].state is WAITING
    assert play.clients["a"].probe is None


def test_what_nobody_has_seen_yet_is_measured_first_and_trusted_when_it_was_good():
    play = Lined("ab") >> asks("a", "Q:select_a_from_t")
    assert play.clients["a"].state is WAITING
    play >> free() << sent("Q:select_a_from_t")
    for _ in range(3):
        play >> passes(0.001) >> answers("a") << to("a") >> asks("a", "Q:select_a_from_t") << sent("Q:select_a_from_t")
    play >> asks("b", "Q:select_a_from_t")
    assert play.clients["b"].state is LINED


def test_disable_pqexec_is_for_those_who_would_share_too():
    play = Lined("ab", disable_pqexec=True, busy=0)
    play >> asks("b", "PARSE:=select_1 B E S") >> asks("a")
    assert b"PQexec disallowed" in play.hear("a", play.socket("a"))
    assert play.clients["a"].state is GONE


def test_functions_an_administrator_vouches_for():
    play = Lined("ab", pipeline_functions=("My_Rates",))
    assert play.lines.book.find(b"select my_rates(1)").verdict is FIT
    assert play.lines.book.find(b"select other(1)").verdict is not FIT


def test_who_vouches_for_one_does_not_vouch_for_those_that_differ_in_a_digit():
    play = Lined("ab", pipeline_functions=("rates0", "rates7"))
    for number in range(10):
        assert play.lines.book.find(b"select rates%d(1)" % number).verdict is not FIT


# Who goes where.


def test_first_come_first_served():
    play = Lined("abcdef", pipeline_depth=4) >> asks("c a e") >> asks("b d f") >> free() << sent_for("c a e b")
    play >> answers("c") << sent() >> answers("a") << sent_for("d f")
    play >> answers("e b d f")
    for name in "caebdf":
        play << to(name)


@pytest.mark.parametrize(("depth", "first"), [(2, 2), (3, 3), (16, 6)])
def test_no_more_than_its_depth_stand_in_a_line(depth, first):
    names = "a b c d e f"
    play = Lined("abcdef", pipeline_depth=depth) >> asks(names) >> free() << sent_for(names[: 2 * first - 1])
    left = names.split()
    while left:
        load = min(len(left), play.line.load)
        assert 0 < play.line.load <= depth
        play >> answers(left[0])
        del left[0]
        assert load


def test_lines_are_spread_over_as_many_servers_as_are_wanted():
    play = Lined("abcdef", servers=4, busy=1, pipeline_servers=2) >> asks("a b c") << sent_for("a b c", server=2)
    play >> asks("d e") << sent_for("d e", server=1) >> asks("f")
    assert play.servers[0].state is IDLE
    play >> answers("a b c", server=2) >> answers("d e", server=1)


def test_the_third_server_is_left_to_others():
    play = Lined("abc", servers=3, busy=1, pipeline_servers=1) >> asks("a b c") << sent_for("a b c", server=1)
    assert play.servers[0].state is IDLE


def test_who_would_wait_too_long_gets_a_server_that_has_nothing_to_do():
    play = Lined("abcdef", servers=3, busy=1, pipeline_servers=1, pipeline_max_ms=5) >> asks("a b")
    play << sent_for("a b", server=1) >> passes(0.004) >> answers("a", server=1) >> asks("a")
    play.line.pace = 0.02  # lately
    play >> asks("c d") >> passes(0.0)
    assert play.hear(0, play.server_socket(0))


# Fairness.


def test_whoever_needs_a_server_of_his_own_gets_the_next_that_runs_empty():
    play = in_line("a b c") >> asks("z", "Q:insert") >> answers("a") << to("a") >> asks("a") << sent()
    play >> answers("b c") << to("b") << to("c") << sent("Q:insert")
    assert play.clients["z"].server is play.server
    play >> says("C:INSERT Z:I") << to("z", "C:INSERT Z:I") << sent_for("a") >> answers("a") << to("a")


def test_writers_and_readers_take_turns_for_ever():
    """However many readers come, a writer waits for no more than one line, and the line for no more than one writer."""
    play = Lined("abcdefgh", pipeline_depth=4) >> asks("a b c d e f g h") >> asks("z", "Q:commit") >> free()
    play.join("y")
    turns = []
    for _ in range(30):
        if play.clients["y"].state is RESTING:
            play >> asks("y", "Q:insert")
        if not play.is_lined():
            assert play.clients["y"].server is play.server or play.clients["z"].server is play.server
            turns.append("writer")
            play >> says("C:INSERT Z:I")
            continue
        turns += ["line"] if turns[-1:] != ["line"] else []
        name = play.name_of(play.line.units[0].client)
        play >> answers(name) << to(name) >> asks(name)
    assert turns[:6] == ["writer", "line"] * 3 or turns[:6] == ["line", "writer"] * 3


def test_a_line_waits_for_a_server_in_its_turn():
    play = Lined("abc") >> asks("c", "Q:insert") >> asks("a b") >> free() << sent("Q:insert")
    play >> asks("z", "Q:insert_too") >> says("C Z:I") << to("c", "C Z:I") << sent_for("a b")
    play >> answers("a b") << sent("Q:insert_too")


# Time.


def test_who_waits_for_a_place_in_line_for_too_long_hears_so():
    play = Lined("ab", query_wait_timeout=5.0) >> asks("a") >> passes(3.0) >> asks("b") >> passes(3.0)
    error = ERRORS[Closing.QUERY_WAIT_TIMEOUT]
    (line,) = [client for client in play.pool.waiting if client.is_line]
    play >> (lambda play: line.refuse(error, Closing.QUERY_WAIT_TIMEOUT)) << told("a", "query_wait_timeout")
    assert play.clients["b"].state is LINED
    assert line.waiting_since == play.unit("b").since
    play >> free() << sent_for("b") >> answers("b") << to("b")


def test_when_all_have_waited_too_long_nobody_is_in_the_queue():
    play = Lined("ab", query_wait_timeout=5.0) >> asks("a b") >> passes(6.0)
    (line,) = [client for client in play.pool.waiting if client.is_line]
    play >> (lambda play: line.refuse(ERRORS[Closing.QUERY_WAIT_TIMEOUT], Closing.QUERY_WAIT_TIMEOUT))
    assert not play.pool.waiting
    assert play.clients["a"].state is play.clients["b"].state is GONE


def test_query_timeout_strikes_who_waits_for_a_place_as_well():
    play = Lined("ab", query_timeout=5.0) >> asks("a") >> passes(3.0) >> asks("b") >> passes(3.0) >> sweeps
    play << told("a", "query_timeout")
    assert play.clients["b"].state is LINED


def test_query_timeout_strikes_the_head_alone():
    play = in_line("a b", query_timeout=5.0) >> passes(6.0)
    play >> (lambda play: play.line.refuse(ERRORS[Closing.QUERY_TIMEOUT], Closing.QUERY_TIMEOUT, "6 s"))
    play << told("a", "query timeout")
    assert play.world.cancels == [play.server]
    play >> says("ERROR:canceled Z:I") << silence("a b")


class _Pools(list):
    """What a janitor asks of all pools."""

    dying: tuple[()] = ()

    def forget_unused(self):
        pass

    def relieve(self, pool):
        pass

    def hubs(self):
        return ()


def sweeps(play):
    play.world.pools = _Pools(play.world.pools)
    play.world.log_stats = lambda: None
    Janitor(play.world).sweep()


def test_the_janitor_ends_a_query_that_takes_too_long_and_nobody_behind_it():
    play = in_line("a b", query_timeout=5.0, pipeline_stall_ms=60_000) >> passes(4.0) >> sweeps << silence("a b")
    play >> passes(2.0) >> sweeps << told("a", "query timeout")
    play >> says("ERROR:canceled Z:I") << silence("b") >> passes(4.0) >> sweeps << silence("b")
    play >> says(ANSWER, "b") << to("b")


def test_the_janitor_ends_a_wait_that_takes_too_long():
    play = Lined("ab", query_wait_timeout=5.0) >> asks("a") >> passes(3.0) >> asks("b") >> passes(3.0) >> sweeps
    play << told("a", "query_wait_timeout") << silence("b") >> passes(3.0) >> sweeps << told("b", "query_wait_timeout")
    assert not play.pool.waiting


def test_the_janitor_lets_nobody_rest_too_long_who_stands_in_line():
    play = in_line("a", client_idle_timeout=5.0, pipeline_stall_ms=60_000) >> passes(9.0) >> sweeps << silence("a")
    play >> answers("a") << to("a") >> passes(4.0) >> sweeps << silence("a") >> passes(2.0) >> sweeps
    play << told("a", "client_idle_timeout")


def test_time_in_which_nobody_was_read_counts_for_nobody():
    play = in_line("a b", query_timeout=5.0, pipeline_depth=2, pipeline_stall_ms=100) >> asks("z") >> passes(0.05)
    play.world.clock.advance(60.0)
    play.lines.forgive(60.0)
    play >> sweeps << silence("a b")
    assert play.pool.stats.line_rescue_count == 0
    play >> answers("a b") << to("a") << to("b") << sent_for("z") >> answers("z")
    assert play.pool.stats.wait_time < 60


# What administrators do.


def test_paused_nothing_is_sent_and_resumed_everything_is():
    play = in_line() >> (lambda play: play.pool.pause()) >> asks("z") << sent()
    play >> answers("a b c") << to("a") << to("b") << to("c")
    assert play.server.state in (CLOSING, CLOSED)
    play >> server_hangs_up() >> passes(1.0)
    assert play.clients["z"].state is LINED
    assert not play.world.openings
    play >> (lambda play: play.pool.unpause()) >> another_server() << sent_for("z", server=1)
    play >> answers("z", server=1) << to("z")


def test_killed_everybody_is_gone_and_nobody_is_waited_for():
    play = in_line() >> asks("z")
    play >> (lambda play: play.pool.pause()) >> (lambda play: play.pool.close_all(Closing.ADMIN))
    assert all(client.state is GONE for client in play.clients.values())
    assert not play.pool.waiting
    assert not play.world.openings
    assert not play.lines.pending


def test_a_pool_that_dies_says_so_to_those_in_line_and_those_who_wait():
    play = in_line("a b", pipeline_depth=2) >> asks("z") >> (lambda play: play.pool.close_all(Closing.DATABASE_GONE))
    for name in "abz":
        play << told(name, "database removed")


def test_turned_off_those_in_line_are_answered_and_nobody_else_joins():
    play = in_line("a b") >> reload(pipeline_depth=1) >> asks("z")
    assert play.clients["z"].state is WAITING
    play >> answers("a b") << to("a") << to("b") << sent_for("z") >> answers("z") << to("z")
    play >> asks("a b")
    assert [play.clients[name].state for name in "ab"] == [ACTIVE, WAITING]


@pytest.mark.parametrize("limits", [{"pool_mode": PoolMode.SESSION}, {"session_state": SessionState.AUDIT}])
def test_made_private_a_pool_gets_the_server_back_and_nobody_joins_any_more(limits):
    play = in_line("a b") >> reload(**limits) >> asks("z") >> answers("a b") << to("a") << to("b")
    play << sent_for("z") >> answers("z") << to("z") >> passes(1.0) >> asks("a b")
    assert play.clients["z"].server is play.server  # for as long as it stays
    assert [play.clients[name].state for name in "ab"] == [WAITING, WAITING]


def test_turned_on_and_off_and_on():
    play = Lined("ab", pipeline_depth=1) >> reload(pipeline_depth=4)
    trust(play.pool, "select 'a'")
    play >> asks("a b") >> reload(pipeline_depth=1) >> reload(pipeline_depth=4) >> free() << sent_for("a b")
    play >> answers("a b") << to("a") << to("b")


def test_turned_off_and_on_again_what_still_runs_for_nobody_is_known():
    """b has been rescued and a is answered, but what b left behind is not done."""
    play = Lined("ab", servers=2, busy=2, pipeline_stall_ms=250) >> asks("a b") >> free(0) << sent_for("a b") >> free(1)
    play >> passes(0.5) >> answers("a") << to("a") >> answers("b", server=1) << to("b")
    play >> reload(pipeline_depth=1) >> reload(pipeline_depth=2) >> says(ANSWER, "b") << silence("a b")
    assert [server.state for server in play.servers] == [IDLE, IDLE]


def test_a_reload_changes_limits_of_lines_that_are_on_their_way():
    play = in_line("a b") >> reload(pipeline_depth=8, pipeline_servers=2, pipeline_functions=("f",))
    assert play.lines.depth == 8
    assert play.lines.spread.width == 2
    assert play.lines.book.find(b"select f(1)").verdict is FIT
    play >> answers("a b") << to("a") << to("b")


def test_a_server_of_the_old_generation_leaves_its_line_and_the_rest_goes_on():
    play = in_line("a b", pipeline_depth=2) >> asks("z") >> (lambda play: play.pool.retire_servers(Closing.STALE))
    play >> answers("a b") >> server_hangs_up() >> another_server() << sent_for("z", server=1)


def test_find_lines_keeps_what_is_there():
    play = Lined("a")
    assert find_lines(play.pool, play.pool.limits) is play.lines


# Odd moments.


def test_whoever_leaves_in_the_turn_he_came_in_is_not_sent():
    play = Lined("ab", servers=2)

    def comes_and_goes(play):
        asks("a b")(play)
        hangs_up("a")(play)

    play >> comes_and_goes << sent_for("b", server=0) >> answers("b") << to("b")


def test_all_that_comes_in_one_turn_travels_together():
    play = Lined("abc", servers=2) >> asks("a b c")
    assert len(play.server_socket(0).written) == 1
    assert play.clients["a"].state is LINED
    assert play.servers[0].state is LINKED
    assert play.clients["z"].state is ACTIVE
    play >> answers("a b c")


def test_statistics_count_units_as_queries_and_waits():
    play = Lined("ab") >> asks("a b") >> passes(2.0) >> free() >> passes(0.1) >> answers("a b")
    stats = play.pool.stats
    assert stats.lone_count + stats.query_count == 3
    assert stats.wait_time == 4.0
    assert stats.lone_time == pytest.approx(2.0 + 2 * 0.1)
    assert stats.sent == len(said("C:BEGIN Z:I")) + 2 * len(said(ANSWER.replace("ME", "a")))
    assert PLAIN
