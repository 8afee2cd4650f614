"""Cleaning: whatever a client leaves behind, the next one finds nothing of it, or another server."""

from dataclasses import replace

import pytest

from protocol.parameters import UNKNOWN, difference
from protocol.prepared import Statement
from proxy.states import CLEANING, CLOSED, CLOSING, IDLE, TESTING, USED, move
from tests.fakes import make_limits
from tests.play import Play, another_server, cancel_arrives, client, client_hangs_up, server, to_client, to_server

ROLLBACK, DISCARD = "Q:ROLLBACK", "Q:DISCARD_ALL"


def is_(*states):
    def check(play):
        assert play.server.state in states, play.server.state.name

    return check


def test_an_open_transaction_is_rolled_back():
    play = Play() >> client("Q:begin") >> server("C Z:T") >> client("X") << to_server("Q:begin " + ROLLBACK)
    play << is_(CLEANING) >> server("C Z:I") << is_(IDLE)


def test_a_failed_transaction_too():
    play = Play() >> client("Q:begin") >> server("ERROR:x Z:E") >> client("X")
    play << to_server("Q:begin " + ROLLBACK) >> server("C Z:I") << is_(IDLE)


@pytest.mark.parametrize("answer", ["ERROR:no Z:T", "C Z:T", "ERROR:no Z:I"])
def test_a_rollback_that_does_not_work_closes_the_server(answer):
    Play() >> client("Q:begin") >> server("C Z:T") >> client("X") >> server(answer) << is_(CLOSING, CLOSED)


def test_a_copy_under_way_is_failed():
    play = Play() >> client("Q:copy") >> server("G") >> client("d:row X")
    play << to_server("Q:copy d:row f:the_client_has_left") >> server("ERROR:left Z:I") << is_(IDLE)


def test_a_copy_under_way_in_a_batch_is_failed_and_the_batch_ended():
    play = Play() >> client("P B E H") >> server("1 2 G") >> client("d:row X")
    play << to_server("P B E H d:row f:the_client_has_left R") >> server("ERROR:left Z:I") << is_(IDLE)


def test_a_copy_that_begins_after_its_client_has_left_is_failed_as_well():
    play = Play() >> client("Q:copy X") << to_server("Q:copy") >> server("G") << to_server("f:the_client_has_left")
    play >> server("ERROR:left Z:I") << is_(IDLE)


def test_a_copy_that_begins_late_in_a_batch_gets_the_sync_it_swallowed():
    play = Play() >> client("P B E S X") >> server("1 2 G") << to_server("P B E S f:the_client_has_left R")
    play >> server("ERROR:left Z:I") << is_(CLOSING, CLOSED)  # in doubt: another ReadyForQuery might come


def test_a_batch_without_sync_is_ended():
    Play() >> client("P B E X") << to_server("P B E R") >> server("1 2 C 1 2 C Z:I") << is_(IDLE)


def test_a_batch_without_sync_that_has_failed_is_ended():
    play = Play() >> client("P B E H") >> server("1 ERROR:no") >> client("X") << to_server("P B E H R")
    play >> server("Z:I") << is_(IDLE)


def test_a_query_behind_a_batch_without_sync_is_waited_for_or_skipped():
    play = Play() >> client("P B E Q:a X") << to_server("P B E Q:a") >> server("1 2 ERROR:no") << to_server("R")
    play >> server("Z:I") << is_(IDLE)


def test_in_session_mode_the_session_is_discarded():
    play = Play(pool_mode="session") >> client("Q:a") >> server("C Z:I") >> client("X") << to_server("Q:a " + DISCARD)
    play << is_(CLEANING) >> server("C Z:I") << is_(IDLE)


def test_in_session_mode_an_open_transaction_is_rolled_back_first():
    play = Play(pool_mode="session") >> client("Q:begin") >> server("C Z:T") >> client("X")
    play << to_server("Q:begin " + ROLLBACK) >> server("C Z:I") << to_server(DISCARD) >> server("C Z:I") << is_(IDLE)


def test_without_a_reset_query_nothing_is_discarded():
    Play(pool_mode="session", server_reset_query="") >> client("Q:a X") >> server("C Z:I") << is_(IDLE)


def test_with_reset_always_each_release_is_cleaned():
    play = Play(server_reset_query_always=True) >> client("Q:a") >> server("C Z:I") << to_client("C Z:I")
    play << to_server("Q:a " + DISCARD) << is_(CLEANING) >> server("C S:TimeZone=CET Z:I") << is_(IDLE)
    assert play.server.followed["TimeZone"] == "CET"


@pytest.mark.parametrize("answer", ["ERROR:no Z:I", "ERROR:no Z:E"])
def test_a_reset_that_fails_closes_the_server(answer):
    Play(server_reset_query_always=True) >> client("Q:a") >> server("C Z:I") >> server(answer) << is_(CLOSING, CLOSED)


def test_a_reset_that_fails_is_said_once_a_minute():
    """Each server is closed after its first client: nothing else would tell why nothing is pooled."""
    play, lines = Play(server_reset_query_always=True, pool_size=5), []
    for seconds in (0.0, 59.0, 2.0):
        play.world.clock.advance(seconds)
        play >> another_server >> client("Q:a") >> server("C Z:I") >> server("ERROR:no Z:I") << is_(CLOSING, CLOSED)
        lines.append([line for line in play.world.log.lines if line.startswith("WARNING")])
    assert [len(each) for each in lines] == [1, 1, 2]
    assert lines[0][0].endswith(" server_reset_query failed: ERROR no"), lines[0]


def test_a_cancel_on_its_way_keeps_the_server_from_everybody():
    play = Play() >> client("Q:a") >> (lambda play: play.world.issue_cancel(play.server)) >> server("C Z:I")
    play << to_client("C Z:I") << is_(CLEANING) >> client("Q:b") << to_server("Q:a")
    play >> cancel_arrives << to_server("Q:b")


def test_a_query_left_behind_is_cancelled_and_its_answer_awaited():
    play = Play() >> client("Q:long") >> client_hangs_up
    assert play.world.cancels == [play.server]
    play >> cancel_arrives << is_(CLEANING) >> server("ERROR:canceled Z:I") << is_(IDLE)


def test_a_test_that_fails_closes_the_server():
    play = Play() >> (lambda play: move(play.server, USED)) >> client("Q:a") << is_(TESTING) >> server("ERROR:no Z:I")
    play << is_(CLOSING, CLOSED)


def test_a_test_that_succeeds_hands_the_server_to_whoever_waits():
    play = Play(server_check_query="select 1") >> (lambda play: move(play.server, USED)) >> client("Q:a")
    play << to_server("Q:select_1") >> server("T D:1 C Z:I") << to_client("") << to_server("Q:a")


def test_a_test_that_leaves_a_transaction_open_does_not_make_an_idle_server():
    play = Play(server_check_query="begin") >> (lambda play: move(play.server, USED)) >> client("Q:a X") << is_(TESTING)
    play >> server("C Z:T") << is_(CLOSING, CLOSED)
    assert play.server.state is not IDLE


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"pool_mode": "session"}, {}),
        ({"session_state": "audit"}, {"session_state": "track"}),
        ({"pool_mode": "session"}, {"pool_mode": "session", "server_reset_query": ""}),
        ({"server_reset_query_always": True}, {}),
    ],
)
def test_a_reset_that_is_owed_when_the_cleaning_begins_is_run_whatever_a_reload_says_meanwhile(before, after):
    play = Play(**before) >> client("Q:long X") << to_server("Q:long") << is_(CLEANING)
    play >> (lambda play: play.world.pool.set_limits(make_limits(pool_size=1, **after)))
    play >> server("C Z:I") << to_server(DISCARD) << is_(CLEANING) >> server("C Z:I") << is_(IDLE)


def test_a_cleaning_that_has_begun_runs_the_query_there_was():
    play = Play(pool_mode="session", server_reset_query="reset all") >> client("Q:long X") << to_server("Q:long")
    play >> (lambda play: play.world.pool.set_limits(replace(play.world.pool.limits, server_reset_query="discard all")))
    play >> server("C Z:I") << to_server("Q:reset_all") << is_(CLEANING)


def test_what_another_query_than_discard_all_leaves_is_not_believed_to_be_as_before():
    play = Play(pool_mode="session", server_reset_query="reset all") >> client("Q:a X")
    play.server.followed = {"TimeZone": "CET", "work_mem": "7MB"}
    statement = Statement(b"PGSHUTTLE_1", b"select 1\0\0\0")
    play.server.statements[statement] = 1
    play >> server("C Z:I") << to_server("Q:a Q:reset_all") >> server("S:TimeZone=UTC C Z:I") << is_(IDLE)
    assert play.server.followed == {"TimeZone": "UTC", "work_mem": UNKNOWN}
    assert play.server.statements == {statement: 0}
    assert difference({"TimeZone": "UTC"}, play.server.followed).resets == ("work_mem",)
