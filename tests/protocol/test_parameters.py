"""Parameter sets: what differs, and a message nobody can break out of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import parameters
from protocol.errors import ProtocolError
from protocol.parameters import (
    MAX_REPORTED,
    MAX_REPORTED_LENGTH,
    NO_CHANGE,
    UNKNOWN,
    Change,
    build_change,
    build_text,
    clean,
    difference,
    is_in_the_way,
    is_name,
    is_sendable,
    note_reported,
    with_value,
)

OURS = {"client_encoding": "UTF8", "DateStyle": "ISO, MDY", "application_name": "app"}


def sets(**values):
    return Change(values, ())


def test_equal_sets_need_nothing():
    assert difference(OURS, OURS) is NO_CHANGE
    assert difference(OURS, dict(OURS)) is NO_CHANGE


def test_only_what_differs_is_set():
    assert difference(OURS, {**OURS, "application_name": "other"}) == sets(application_name="app")


def test_a_value_the_server_has_not_told_is_set():
    assert difference(OURS, {}) == Change(OURS, ())


def test_what_somebody_else_has_set_is_reset():
    assert difference(OURS, {**OURS, "work_mem": "1GB", "my.tenant": "7"}) == Change({}, ("work_mem", "my.tenant"))
    assert build_change(Change({}, ("work_mem", "my.tenant"))) == b'RESET "work_mem";RESET "my"."tenant"'


def test_what_nothing_is_said_of_may_be_kept():
    assert difference({}, OURS, OURS.keys()) is NO_CHANGE
    assert difference({}, {**OURS, "my.x": "1"}, OURS.keys()) == Change({}, ("my.x",))


def test_a_role_is_left_before_anything_else_and_taken_behind_it():
    theirs, wanted = {"work_mem": "1GB", "role": "weak"}, {"role": "weak", "work_mem": "2GB"}
    assert build_change(difference(wanted, theirs)) == (
        b"RESET \"role\";SELECT pg_catalog.set_config(E'work_mem',E'2GB',false)"
        b";SELECT pg_catalog.set_config(E'role',E'weak',false)"
    )


def test_who_the_session_is_comes_before_its_role():
    text = build_change(sets(role="bob", session_authorization="alice"))
    assert text.index(b"alice") < text.index(b"bob")


def test_a_timeout_does_not_strike_the_message_that_changes_it():
    text = build_change(difference({"lock_timeout": "1s"}, {"lock_timeout": "2s", "statement_timeout": "1ms"}))
    assert text.startswith(b'RESET "statement_timeout";')
    assert build_change(sets(statement_timeout="1ms", work_mem="1GB")).endswith(b"(E'statement_timeout',E'1ms',false)")


def test_a_change_does_not_wait_for_a_snapshot_that_is_safe():
    actual = {**OURS, "default_transaction_deferrable": "on"}
    text = build_change(difference({**OURS, "work_mem": "8MB"}, actual))
    assert text.startswith(
        b'SET TRANSACTION ISOLATION LEVEL READ COMMITTED;RESET "default_transaction_deferrable";SELECT'
    )
    assert build_change(difference(OURS, actual)) == b'RESET "default_transaction_deferrable"'


def test_a_change_for_one_transaction_leaves_nothing_behind():
    text = build_change(Change({"TimeZone": "CET"}, ("my.x",)), is_local=True)
    assert text == b"SET LOCAL \"my\".\"x\" TO DEFAULT;SELECT pg_catalog.set_config(E'TimeZone',E'CET',true)"


def test_an_unchanged_value_gives_the_very_same_set():
    assert with_value(OURS, "DateStyle", "ISO, MDY") is OURS
    assert with_value(OURS, "DateStyle", "German")["DateStyle"] == "German"
    assert OURS["DateStyle"] == "ISO, MDY"


def test_quotes_and_backslashes_stay_inside_the_value():
    assert build_change(sets(application_name="it's \\ here", TimeZone="UTC")) == (
        b"SET application_name=E'it''s \\\\ here';SET TimeZone=E'UTC'"
    )


@pytest.mark.parametrize("name", sorted(parameters.LISTS))
def test_a_list_is_set_as_a_list_and_not_as_one_name(name):
    assert build_change(Change({name: '"$user", "it\'s\\"'}, ())) == (
        f"SELECT pg_catalog.set_config(E'{name}',E'\"$user\", \"it''s\\\\\"',false)".encode()
    )


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_whatever_a_value_is_its_text_is_ascii_and_one_literal(value):
    text = build_text(value)
    assert text.isascii()
    assert text.isprintable()
    inside = text[2:-1] if text.startswith("E'") else ""
    assert "'" not in inside.replace("''", "")
    assert len(inside.replace("\\\\", "")) - len(inside.replace("\\\\", "").replace("\\", "")) == 0


def test_a_value_is_sendable_if_it_is_text_and_not_too_long():
    assert is_sendable("Europe/Berlin")
    assert is_sendable("Z\u00fcrich\n")
    assert not is_sendable("a\udc80")
    assert not is_sendable("a\0b")
    assert not is_sendable("x" * 2000)
    assert not is_sendable("\u00fc" * 600)


@pytest.mark.parametrize("name", ["work_mem", "myapp.tenant", "request.jwt.claim.sub", "a$1.b"])
def test_what_may_be_a_name(name):
    assert is_name(name)


@pytest.mark.parametrize("name", ["", "1a", "a.", ".a", "a-b", 'a"b', "a b", "a;b", "\u00fc.x", "x" * 64])
def test_what_may_not(name):
    assert not is_name(name)


@given(st.text())
def test_a_cleaned_name_is_always_sendable_and_short(name):
    assert is_sendable(clean(name))
    assert len(clean(name)) <= 63


def test_cleaning_keeps_what_can_be_kept():
    assert clean("caf\u00e9") == "caf\\xc3\\xa9"
    assert clean("psql") == "psql"


def test_names_are_found_in_any_case():
    assert parameters.spelling()["datestyle"] == "DateStyle"


def test_a_server_may_report_so_much_and_no_more():
    reported = {}
    for number in range(MAX_REPORTED):
        note_reported(reported, f"p{number}", "on")
    note_reported(reported, "p0", "off")
    assert reported["p0"] == "off"
    with pytest.raises(ProtocolError, match=f"more than {MAX_REPORTED} parameters"):
        note_reported(reported, "one more", "on")


def test_what_a_server_reports_is_bounded_in_length():
    reported = {}
    note_reported(reported, "search_path", "x" * (MAX_REPORTED_LENGTH - 20))
    note_reported(reported, "search_path", "y" * (MAX_REPORTED_LENGTH - 20))
    with pytest.raises(ProtocolError, match="characters"):
        note_reported(reported, "TimeZone", "Europe/Berlin")


def test_what_nobody_knows_is_set_or_reset_and_a_timeout_of_that_kind_is_in_the_way():
    unknown = {"work_mem": UNKNOWN, "statement_timeout": UNKNOWN}
    assert difference({"work_mem": "4MB"}, unknown) == Change({"work_mem": "4MB"}, ("statement_timeout",))
    assert is_in_the_way("statement_timeout", UNKNOWN)
    assert not is_sendable(UNKNOWN)
