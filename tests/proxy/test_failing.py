"""What a failed login of ours means: told in the server's words, and believed for as long as it deserves."""

import pytest

from proxy.failing import FIRST_RETRY, PASSING_RETRY, LoginFailed, describe_failing

LASTING = LoginFailed("28P01", "password authentication failed")
PASSING = LoginFailed("57P03", "the database system is starting up")


@pytest.mark.parametrize(
    ("state", "passes"),
    [("57P01", True), ("57P02", True), ("57P03", True), ("28P01", False), ("3D000", False), ("08006", False)],
)
def test_what_passes_by_itself_is_worth_waiting_for(state, passes):
    assert LoginFailed(state, "no").is_passing == passes


@pytest.mark.parametrize(
    ("state", "lasts"),
    [("28P01", True), ("28000", True), ("3D000", True), ("42501", True), ("53300", False), ("08006", False)],
)
def test_what_does_not_pass_by_waiting(state, lasts):
    assert LoginFailed(state, "no").is_lasting == lasts


def test_tries_come_at_intervals_that_double_up_to_the_limit():
    delays = [LASTING.find_delay(failures, 15.0) for failures in range(1, 9)]
    assert delays == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]


def test_what_passes_is_tried_again_soon_however_often_it_failed():
    assert PASSING.find_delay(1, 15.0) == FIRST_RETRY
    assert PASSING.find_delay(10_000, 15.0) == PASSING_RETRY
    assert PASSING.find_delay(10_000, 0.5) == 0.5


def test_who_comes_later_is_told_that_it_is_old_news():
    later = LASTING.as_cached(Pool(112.0))
    assert later.sqlstate == "28P01"
    assert str(later) == (
        "server login has been failing, cached error: password authentication failed (server_login_retry)"
    )


class Pool:
    failing_since, retry_at = 100.0, 115.0

    def __init__(self, now):
        self.now = lambda: now


def test_a_remembered_failure_keeps_the_servers_sqlstate_and_words_and_says_since_when():
    failure = LoginFailed("28P01", "no such password").as_cached(Pool(112.0))
    assert failure.sqlstate == "28P01"
    assert failure.sentence == "server login has been failing, cached error: no such password (server_login_retry)"
    assert failure.detail == "Server logins have been failing for 12 s; the next try is in 3.0 s."


def test_as_the_last_words_for_somebody():
    fields = LoginFailed("3D000", "no such database", "Since when.", hint="What to do.").as_fields()
    assert (fields.severity, fields.sqlstate, fields.message) == ("FATAL", "3D000", "no such database")
    assert (fields.detail, fields.hint) == ("Since when.", "What to do.")


def test_when_the_time_has_come_the_next_try_is_under_way():
    assert describe_failing(Pool(116.0), "down") == (
        "Server logins have been failing for 16 s: down; another try is under way."
    )
