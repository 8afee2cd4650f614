"""Parameter sets: what differs, and a SET nobody can break out of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import parameters
from protocol.parameters import build_set, clean, difference, is_sendable, with_value

OURS = {"client_encoding": "UTF8", "DateStyle": "ISO, MDY", "application_name": "app"}


def test_equal_sets_need_nothing():
    assert difference(OURS, OURS) == {}
    assert difference(OURS, dict(OURS)) == {}


def test_only_what_differs_is_set():
    assert difference(OURS, {**OURS, "application_name": "other", "TimeZone": "UTC"}) == {"application_name": "app"}


def test_a_value_the_server_has_not_told_is_set():
    assert difference(OURS, {}) == OURS


def test_an_unchanged_value_gives_the_very_same_set():
    assert with_value(OURS, "DateStyle", "ISO, MDY") is OURS
    assert with_value(OURS, "DateStyle", "German")["DateStyle"] == "German"
    assert OURS["DateStyle"] == "ISO, MDY"


def test_quotes_and_backslashes_stay_inside_the_value():
    assert build_set({"application_name": "it's \\ here", "TimeZone": "UTC"}) == (
        b"SET application_name=E'it''s \\\\ here';SET TimeZone=E'UTC'"
    )


@pytest.mark.parametrize("name", [*sorted(parameters.LISTS), "Search_Path"])
def test_a_list_is_set_as_a_list_and_not_as_one_name(name):
    assert build_set({name: '"$user", "it\'s\\"'}) == (
        f"SELECT pg_catalog.set_config('{name}',E'\"$user\", \"it''s\\\\\"',false)".encode()
    )


def test_lists_and_other_parameters_are_set_side_by_side():
    assert build_set({"TimeZone": "UTC", "search_path": "a, b", "DateStyle": "ISO"}) == (
        b"SET TimeZone=E'UTC';SELECT pg_catalog.set_config('search_path',E'a, b',false);SET DateStyle=E'ISO'"
    )


def test_only_short_printable_ascii_is_sendable():
    assert is_sendable("Europe/Berlin")
    assert not is_sendable("Z\u00fcrich")
    assert not is_sendable("a\nb")
    assert not is_sendable("x" * 2000)


@given(st.text())
def test_a_cleaned_name_is_always_sendable_and_short(name):
    assert is_sendable(clean(name))
    assert len(clean(name)) <= 63


def test_cleaning_keeps_what_can_be_kept():
    assert clean("caf\u00e9") == "caf\\xc3\\xa9"
    assert clean("psql") == "psql"


def test_names_are_found_in_any_case():
    assert parameters.spelling()["datestyle"] == "DateStyle"
