"""What is looked at in what the clients of a pool send follows from its settings, and from nothing else."""

import pytest

from protocol import codes
from proxy.config.kinds import ListenMode
from proxy.habits import Habits, is_anything
from proxy.requests import (
    BEGINS,
    ENDS,
    LOOKS_OF_AUDITED,
    LOOKS_OF_PRIVATE,
    LOOKS_OF_SHARED,
    LOOKS_OF_TAGGED,
    refuse_query,
)
from tests.fakes import make_limits


def habits(**said):
    return Habits(make_limits(**said))


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("state", ["track", "reset", "leak"])
def test_where_servers_are_shared_everything_is_looked_at(mode, state):
    one = habits(pool_mode=mode, session_state=state)
    assert one.looks is LOOKS_OF_SHARED
    assert not one.is_private
    assert one.is_tracking == (state != "leak")
    assert one.is_plain(b"select 1")
    assert not one.is_plain(b"set work_mem = 1")


def test_where_they_are_not_nothing_is():
    one = habits(pool_mode="session", session_state="track")
    assert one.looks is LOOKS_OF_PRIVATE
    assert one.is_private
    assert not one.is_tracking
    assert one.is_plain is is_anything
    assert is_anything(b"set work_mem = 1")


def test_an_audit_looks_and_keeps_the_server():
    one = habits(session_state="audit")
    assert one.looks is LOOKS_OF_AUDITED
    assert one.is_private
    assert one.is_audited
    assert not one.is_plain(b"set work_mem = 1")


@pytest.mark.parametrize(
    ("mode", "state", "wanted", "is_deferring"),
    [
        ("transaction", "track", True, True),
        ("transaction", "leak", True, True),
        ("transaction", "track", False, False),
        ("transaction", "audit", True, False),
        ("session", "track", True, False),
        ("statement", "track", True, False),
    ],
)
def test_a_begin_is_deferred_where_it_would_hold_a_server(mode, state, wanted, is_deferring):
    assert habits(pool_mode=mode, session_state=state, deferred_begin=wanted).is_deferring == is_deferring


@pytest.mark.parametrize(
    ("mode", "state", "is_shared"),
    [(ListenMode.SHARED, "track", True), (ListenMode.PIN, "track", False), (ListenMode.SHARED, "leak", False)],
)
def test_somebody_else_listens_where_that_is_wanted_and_sessions_are_tracked(mode, state, is_shared):
    assert habits(listen_mode=mode, session_state=state).is_listening_shared == is_shared


def test_functions_that_pin_are_read_for():
    one = habits(pin_functions=("grab",))
    assert not one.is_plain(b"select grab(1)")
    assert one.is_plain(b"select grip(1)")


@pytest.mark.parametrize("said", [{}, {"pool_mode": "session"}, {"session_state": "audit"}])
def test_where_simple_queries_are_refused_no_text_is_plain_and_no_table_lets_them_pass(said):
    one = habits(disable_pqexec=True, **said)
    assert not one.is_plain(b"select 1")
    assert one.looks[codes.QUERY] is one.looks_of_tagged[codes.QUERY] is refuse_query
    assert habits(**said).looks[codes.QUERY] is not refuse_query


def test_elsewhere_the_tables_are_the_very_same():
    assert habits().looks_of_tagged is LOOKS_OF_TAGGED


def test_what_was_learnt_by_reading_outlives_a_reload_that_does_not_concern_it():
    one = habits(query_timeout=1.0)
    assert Habits(make_limits(query_timeout=2.0), one).reader is one.reader
    other = Habits(make_limits(pin_functions=("grab",)), one)
    assert other.reader is not one.reader
    assert not other.is_plain(b"select grab(1)")


def test_what_begins_and_ends_a_transaction_is_known_at_a_glance_where_nobody_wants_to_see_more():
    one = habits(session_state="track", deferred_begin=True)
    assert (one.begins, one.ends, one.is_noting) == (BEGINS, ENDS, False)
    assert not habits(session_state="track", deferred_begin=False).begins
    assert not habits(pool_mode="session", deferred_begin=True).ends
    for more in ({"disable_pqexec": True}, {"track_statements": True}):
        one = habits(session_state="track", deferred_begin=True, idle_transaction_timeout=5.0, **more)
        assert not one.begins
        assert not one.ends
        assert not one.is_plain_noted(b"select 1")


def test_where_idle_transactions_are_ended_they_are_known_and_noted():
    one = habits(session_state="track", deferred_begin=True, idle_transaction_timeout=5.0)
    assert (one.begins, one.ends, one.is_noting) == (BEGINS, ENDS, True)
    assert one.is_plain_noted(b"select 1")
    assert not one.is_plain_inside(b"select 1")
