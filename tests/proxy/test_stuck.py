"""Whoever stands behind a head that does not come to an end is rescued, and the head loses nothing by it."""

from protocol import sqlstate
from protocol.backend import build_error
from proxy.chores import hearer
from proxy.states import CLEANING, GONE, IDLE, LINED, LINKED, RESTING
from tests.lined import (
    ANSWER,
    Lined,
    answers,
    asks,
    cancels,
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
)
from tests.play import said

STALL = 0.25
CANCELED = build_error("ERROR", sqlstate.QUERY_CANCELED, "canceling statement due to user request") + said("Z:I")


def stuck(names="a b c", **limits):
    """a is at the head and waits for a lock; a second server is idle."""
    play = Lined(names.replace(" ", ""), servers=2, busy=2, pipeline_stall_ms=1000 * STALL, **limits)
    return play >> asks(names) >> free(0) << sent_for(names) >> free(1)


def test_those_behind_run_elsewhere_and_nothing_is_cancelled():
    play = stuck() >> passes(STALL / 2) << sent(server=1) >> passes(STALL) << sent_for("b c", server=1)
    play >> answers("b c", server=1) << to("b") << to("c") << silence("a")
    assert not play.world.cancels
    assert play.pool.stats.line_rescue_count == 2
    assert play.clients["a"].state is LINED


def test_who_wanted_a_cancel_meanwhile_is_answered_so_and_does_not_run_again():
    play = stuck() >> cancels("b") << silence("b") >> passes(2 * STALL) << to("b", CANCELED) << sent_for("c", server=1)
    assert play.clients["b"].state is RESTING
    assert play.pool.stats.line_rerun_count == 1
    play >> answers("c", server=1) << to("c") >> answers("a b c") << to("a") << silence("b c")


def test_what_he_asks_next_is_not_hit_by_that_cancel():
    play = stuck() >> cancels("b") >> passes(2 * STALL) << to("b", CANCELED) << sent_for("c", server=1)
    assert play.world.cancels == [play.servers[0]]  # it looks for b there, and will not find him
    assert play.clients["b"] not in map(hearer, play.servers[0].ledger.owners())
    play >> asks("b") >> answers("c", server=1) << to("c") << sent_for("b", server=1) >> answers("b", server=1)
    play << to("b") << silence("c")


def test_who_is_rescued_behind_him_is_not_cancelled_with_him():
    play = stuck() >> cancels("c") >> passes(2 * STALL) << to("c", CANCELED) << sent_for("b", server=1)
    assert not play.unit("b").is_canceled
    play >> answers("b", server=1) << to("b") << silence("a c")


def test_the_head_that_wants_a_cancel_is_left_to_postgres():
    play = stuck("a b") >> cancels("a") >> passes(2 * STALL) << silence("a") << sent_for("b", server=1)
    play >> says("ERROR:canceled Z:I") << to("a", "ERROR:canceled Z:I") >> answers("b", server=1) << to("b")


def test_the_head_is_answered_when_its_lock_is_free_and_what_ran_twice_reaches_nobody():
    play = stuck() >> passes(2 * STALL) >> answers("b c", server=1) << to("b") << to("c")
    play >> answers("a b c") << to("a") << silence("b c")
    assert [server.state for server in play.servers] == [IDLE, IDLE]
    assert play.clients["a"].state is RESTING


def test_the_late_answers_may_be_cut_be_errors_or_never_come():
    play = stuck() >> passes(2 * STALL) >> answers("b c", server=1) << to("b") << to("c")
    data = said("C Z:I ERROR:late Z:I") + said(ANSWER)
    for at in range(0, len(data), 7):
        play >> says(data[at : at + 7])
    play << to("a", "C Z:I") << silence("b c")
    assert play.servers[0].state is IDLE


def test_what_they_left_behind_is_cancelled_if_it_takes_long_and_nobody_stands_behind_it():
    play = stuck() >> passes(2 * STALL) << sent_for("b c", server=1) >> answers("b c", server=1) << to("b") << to("c")
    play >> answers("a") << to("a") >> asks("z") << sent() << sent_for("z", server=1) >> answers("z", server=1)
    assert not play.world.cancels
    play << to("z") >> passes(STALL)
    assert play.world.cancels == [play.servers[0]]
    play >> says("ERROR:canceled Z:I") >> says(ANSWER, "c") << silence("b c")
    assert play.servers[0].state is CLEANING
    with play.world.loop.running():
        play.world.cancel_arrives(play.servers[0])
    assert play.servers[0].state is IDLE


def test_its_server_may_die_and_only_the_head_hears_of_it():
    play = stuck() >> passes(2 * STALL) >> server_hangs_up(0) << told("a", "crashed?")
    play >> answers("b c", server=1) << to("b") << to("c")


def test_nobody_joins_a_stuck_line():
    stuck("a b") >> passes(STALL / 2) >> asks("z") << sent() << sent_for("z", server=1)


def test_nobody_is_rescued_twice_more_than_his_units_may_run():
    play = stuck("a b") >> passes(2 * STALL) << sent_for("b", server=1)
    assert play.unit("b").runs == 2
    play >> passes(2 * STALL)
    assert play.unit("b").runs == 2  # it is a head itself now
    assert play.pool.stats.line_rescue_count == 1


def test_a_head_that_is_alone_is_left_alone():
    play = stuck("a") >> passes(10 * STALL)
    assert play.unit("a").runs == 1
    assert play.pool.stats.line_rescue_count == 0
    play >> answers("a") << to("a")


def test_one_that_streams_rows_is_at_the_head_as_well():
    play = stuck("a b") >> says("T D:a") >> passes(2 * STALL) << sent_for("b", server=1)
    play >> says("C Z:I " + ANSWER) << to("a", "T D:a C Z:I") << silence("b") >> answers("b", server=1) << to("b")


def test_while_somebody_waits_for_the_same_lock_he_waits_on_his_own_server():
    """The shape has lost its trust, so the next of its kind goes alone."""
    play = stuck("a b") >> passes(2 * STALL)
    assert not play.unit("a").shape.is_trusted
    play >> answers("b", server=1) << to("b") >> asks("b")
    assert play.clients["b"].server is play.servers[1]


def test_with_no_other_server_they_wait_for_one_and_for_the_head():
    play = Lined("abc", pipeline_stall_ms=1000 * STALL) >> asks("a b c") >> free() << sent_for("a b c")
    play >> passes(2 * STALL) << sent() >> answers("a b c") << to("a") << silence("b c")
    play << sent_for("b c") >> answers("b c") << to("b") << to("c")
    assert play.server.state is IDLE


def test_the_head_may_leave_and_is_cancelled():
    play = stuck("a b") >> passes(2 * STALL) >> hangs_up("a")
    assert play.world.cancels == [play.servers[0]]
    play >> says("ERROR:canceled Z:I") >> says(ANSWER, "b") << silence("a b")
    assert play.servers[0].state in (CLEANING, IDLE, LINKED)
    play >> answers("b", server=1) << to("b")
    assert play.clients["a"].state is GONE
