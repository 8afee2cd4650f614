"""BEGIN that waits for what comes after it: when it does, when it does not, and what it meets on its way."""

from dataclasses import replace

import pytest

from protocol.backend import build_command_complete, build_data_row
from protocol.frontend import build_query
from protocol.inspection import Fact, Question, build_inspection
from proxy.config.kinds import PoolMode
from proxy.holding import READY_IN_TRANSACTION
from proxy.overtime import find_timeout
from proxy.states import ACTIVE
from tests.play import (
    Play,
    another_client,
    asked,
    client,
    released,
    said,
    server,
    stays_linked,
    to_client,
    to_server,
)
from tests.proxy.test_stalls import FakeHub, cannot_hear, hears

STARTED = build_command_complete("BEGIN") + READY_IN_TRANSACTION
SET_CET = "Q:SET_TimeZone=E'CET'"
q = build_query


def a_play(**more):
    play = Play(**{"session_state": "track", "deferred_begin": True, **more})
    hub = play.hub = FakeHub()
    play.world.find_hub = lambda pool: hub
    return play


def begun(**more):
    return a_play(**more) >> client("Q:begin") << to_client(STARTED) << to_server("")


def waiting_in_transaction(words):
    play = a_play() >> client("Q:select_0") << to_server("Q:select_0") >> another_client
    return play >> client("Q:begin") << to_client(STARTED) >> client(words) << to_server("")


@pytest.mark.parametrize(
    "limits",
    [{"pool_mode": "session"}, {"pool_mode": "statement"}, {"session_state": "audit"}, {"deferred_begin": False}],
)
def test_where_a_begin_need_not_wait_it_does_not(limits):
    a_play(**limits) >> client("Q:begin") << to_server("Q:begin") << to_client("")


@pytest.mark.parametrize(
    "text", ["begin; select 1", "begin isolation level low", "begin /* now */", "start", "savepoint a", "commit"]
)
def test_what_is_not_surely_one_begin_is_said_at_once(text):
    play = a_play() >> client(q(text)) << to_server(q(text)) << to_client("")
    assert play.client.state is ACTIVE


def test_wherever_a_begin_is_cut_it_waits():
    data = asked("Q:begin")
    for cut in range(1, len(data)):
        play = a_play() >> client(data[:cut]) << to_client("") >> client(data[cut:]) << to_client(STARTED)
        play << to_server("") >> client("Q:select_1") << to_server("RUN:begin Q:select_1")


@pytest.mark.parametrize("text", ["commit and chain", "rollback to a", "commit; select 1", "commit prepared 'a'"])
def test_what_does_not_just_end_it_goes_with_it(text):
    begun() >> client(q(text)) << to_server(asked("RUN:begin") + q(text)) << to_client("")


def test_a_commit_of_a_batch_goes_with_it():
    play = begun() >> client("PARSE:=commit B E S") << to_server("RUN:begin PARSE:=commit B E S")
    play >> server("RAN:BEGIN 1 2 C:COMMIT Z:I") << to_client("1 2 C:COMMIT Z:I") << released


def test_the_unnamed_statement_is_brought_behind_it():
    """The BEGIN ends it."""
    play = a_play() >> client("PARSE:=select_1 S") >> server("1 Z:I") << released
    play >> client("Q:begin") >> client("B E S") << to_server("PARSE:=select_1 S Q:begin PARSE:=select_1 B E S")
    play >> server("C Z:T 1 2 C Z:T") << to_client(said("1 Z:I") + STARTED + said("2 C Z:T"))


@pytest.mark.parametrize(
    "words", ["D S", "E S", "PARSE:=select_1 D S", "PARSE:=select_1 B E", "S", "C S", "D PARSE:=a B E S"]
)
def test_what_might_come_upon_its_portal_has_it_as_a_query(words):
    begun() >> client(words) << to_server("Q:begin " + words)


def in_session(play):
    return replace(play.world.pool.limits, pool_mode=PoolMode.SESSION)


def test_a_bind_in_a_pool_that_has_become_its_own_does_not_find_it():
    play = a_play() >> client("PARSE:=select_1 S") >> server("1 Z:I") << released << to_server("PARSE:=select_1 S")
    play >> client("Q:begin") >> (lambda play: play.world.pool.set_limits(in_session(play)))
    play >> client("B E S") << to_server("Q:begin B E S")


def test_a_timeout_of_the_transaction_counts_from_its_first_statement():
    """However its answers come."""
    for begin, tag in (("Q:begin", "BEGIN"), ("Q:start_transaction", "START_TRANSACTION")):
        play = a_play(transaction_timeout=5.0) >> client(begin) >> client("PARSE:=select_1 B E H")
        play >> server(f"C:{tag} Z:T 1 2 D C:SELECT_1")
        for _ in range(3):
            play.world.advance(2.0)
            play >> client("PARSE:=select_1 B E H") >> server("1 2 D C:SELECT_1")
        assert find_timeout(play.client, play.server, play.world.clock.now())


def test_a_listen_behind_a_begin_that_is_not_answered_yet_is_of_the_transaction():
    play = (
        a_play() >> client("Q:start_transaction") >> client("Q:select_1") >> client("PARSE:=listen_news B E S") >> hears
    )
    play >> server("RAN:START_TRANSACTION D C:SELECT_1 Z:T 1 2 C:UNLISTEN Z:T")
    play >> client("Q:rollback") >> server("C:ROLLBACK Z:I")
    assert play.hub.said[-1] == ("unlisten", b"news")


def test_proven_parameters_travel_with_it():
    play = begun(followed={"TimeZone": "CET"})
    play.world.pool.proven.add(("TimeZone", "CET"))
    play >> client("Q:select_1") << to_server(f"{SET_CET} RUN:begin Q:select_1")
    play >> server("C S:TimeZone=CET Z:I RAN:BEGIN C Z:T") << to_client("C Z:T") << stays_linked


def test_its_end_waits_behind_what_waits():
    play = waiting_in_transaction("Q:select_1") >> client("Q:commit") << to_client("") >> server("C Z:I")
    play << to_server("RUN:begin Q:select_1 Q:commit") >> server("RAN:BEGIN C Z:T C:COMMIT Z:I")
    play << to_client("C Z:T C:COMMIT Z:I") << released


def test_a_cancel_of_half_a_batch_waits_for_the_rest():
    play = waiting_in_transaction("PARSE:=select_1 B")
    assert not play.client.cancel_waiting()
    play >> client("E S") >> server("C Z:I") << to_server("Q:begin PARSE:=select_1 B E S")


@pytest.mark.parametrize("limits", [{"session_state": "reset"}, {"session_state": "leak"}])
def test_where_nobody_listens_for_others_nothing_waits(limits):
    play = a_play(**limits) >> client("Q:listen_news") << to_server("Q:listen_news")
    assert not play.hub.said


def test_whom_the_hub_refuses_keeps_its_server_and_is_not_held_up_again():
    play = a_play() >> client("Q:listen_news") >> cannot_hear << to_server("Q:listen_news") >> server("C:LISTEN Z:I")
    play << to_client("C:LISTEN Z:I") << to_server(build_inspection(Question(facts=(Fact.CHANNELS,))))
    play >> server(said("T") + build_data_row(["t"]) + said("C Z:I")) << stays_linked
    play >> client("Q:listen_more") << to_server("Q:listen_more")


def test_an_unlisten_counts_when_its_transaction_is_over_and_not_if_it_is_rolled_back():
    for end, ought in (("commit", [("unlisten", b"news")]), ("rollback", [])):
        play = a_play(deferred_begin=False) >> client("Q:listen_news") >> hears >> server("C:UNLISTEN Z:I")
        play.hub.said.clear()
        play >> client("Q:begin") >> server("C Z:T") >> client("Q:unlisten_news") >> server("C:UNLISTEN Z:T")
        assert not play.hub.said
        play >> client("Q:" + end) >> server("C Z:I") << released
        assert play.hub.said == ought


def test_it_is_counted_as_the_query_it_is_and_the_transaction_once():
    play = begun() >> client("Q:select_1") << to_server("RUN:begin Q:select_1") >> server("RAN:BEGIN C Z:T")
    play >> client("Q:commit") >> server("C:COMMIT Z:I") << released
    stats = play.world.pool.stats.copy()
    assert (stats.query_count, stats.xact_count, stats.server_assignment_count) == (3, 1, 1)
