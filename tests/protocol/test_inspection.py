"""The one question about a session, and what a server may say to it."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import backend
from protocol.errors import ProtocolError
from protocol.frontend import parse_query
from protocol.inspection import Answer, Fact, Question, build_inspection, parse_inspection

BOTH = Question(("my.x", "my.y"), (Fact.TEMP, Fact.LOCKS))
TAIL = backend.build_command_complete("SELECT 1") + backend.READY_IDLE_MESSAGE


def said(*rows):
    head = backend.build_row_description([("a", 25, -1)])
    return head + b"".join(backend.build_data_row(row) for row in rows) + TAIL


def text_of(question):
    return parse_query(build_inspection(question)[5:]).decode()


def test_only_what_is_in_doubt_is_asked():
    assert text_of(Question(("my.x",))) == "SELECT pg_catalog.current_setting(E'my.x',true)"
    assert (
        text_of(Question((), (Fact.CURSORS,))) == "SELECT EXISTS(SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)"
    )
    assert not Question()
    assert Question(("x",))
    assert Question(lists=True)


def test_every_name_of_ours_has_its_schema():
    """search_path, and what somebody has made there, says nothing about it."""
    for fact in Fact:
        for word in ("pg_depend", "pg_locks", "pg_cursors", "pg_listening_channels", "pg_prepared_statements", "left("):
            assert fact.value.count(word) == fact.value.count(f"pg_catalog.{word}"), fact
        for operator in ("=", "<>"):
            assert fact.value.count(operator) == fact.value.count(f"OPERATOR(pg_catalog.{operator})"), fact


def test_a_name_cannot_break_out():
    assert "E'it''s; drop'" in text_of(Question(("it's; drop",)))


def test_values_and_facts_are_read_in_the_order_they_were_asked():
    answer = parse_inspection(BOTH, said([None, "7", "t", "f"]), "UTF8")
    assert answer == Answer({"my.x": None, "my.y": "7"}, {Fact.TEMP: True, Fact.LOCKS: False}, {})


def test_what_may_be_in_the_way_is_read_first_and_put_back_for_the_rest():
    question = Question(("my.x", "role", "statement_timeout"), (Fact.LOCKS,), lists=True)
    first, rest, listed = text_of(question).split(";")
    value = "pg_catalog.current_setting(E'{}',true)"
    back = "CASE WHEN " + value + " IS NOT NULL THEN pg_catalog.set_config(E'{}',NULL,true) END"
    names = ("statement_timeout", "role")
    assert first == "SELECT " + ",".join(
        [*(value.format(name) for name in names), *(back.format(name, name) for name in names)]
    )
    assert rest.startswith("SELECT " + value.format("my.x") + ",EXISTS")
    assert "pg_settings" in listed
    answer = parse_inspection(
        question, said(["1ms", "none", "0", "clerk"]) + said(["7", "t"]) + said(["a", "1"]), "UTF8"
    )
    assert answer == Answer(
        {"statement_timeout": "1ms", "role": "none", "my.x": "7"},
        {Fact.LOCKS: True},
        {"a": "1"},
        {"statement_timeout": "0", "role": "clerk"},
    )


def test_who_is_calm_waits_for_no_snapshot():
    question = Question(("x",), is_calm=True)
    assert text_of(question).startswith("SET TRANSACTION ISOLATION LEVEL READ COMMITTED;SELECT ")


def test_what_the_session_has_set_is_listed_behind_it():
    question = Question(("my.x",), lists=True)
    assert text_of(question).endswith(" WHERE source OPERATOR(pg_catalog.=) 'session'")
    answer = parse_inspection(
        question, said(["none"]) + said(["DateStyle", "German, DMY"], ["work_mem", "8MB"]), "UTF8"
    )
    assert answer.listed == {"datestyle": "German, DMY", "work_mem": "8MB"}


def test_what_is_a_transactions_is_not_the_sessions_though_postgresql_lists_it():
    """Once a SET TRANSACTION has named it, and for as long as the session lasts."""
    row = said(["none"]) + said(["transaction_isolation", "read committed"], ["work_mem", "8MB"])
    assert parse_inspection(Question(("my.x",), lists=True), row, "UTF8").listed == {"work_mem": "8MB"}


def test_a_value_is_read_in_the_clients_encoding():
    question = Question(("my.x",))
    assert parse_inspection(question, said([b"\xfc"]), "LATIN1").values == {"my.x": "\u00fc"}
    assert parse_inspection(question, said([b"\xfc"]), "EUC_TW").values == {"my.x": "\udcfc"}
    assert parse_inspection(question, said([b"\xc3\xbc"]), "UTF8").values == {"my.x": "\u00fc"}


def test_messages_that_may_come_at_any_time_are_stepped_over():
    notice = backend.build_notice("NOTICE", "00000", "hear, hear")
    assert parse_inspection(Question(("x",)), notice + said(["1"]), "UTF8").values == {"x": "1"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        TAIL,
        said(["none"]),
        said(["none", "7", "t"]),
        said(["none", "7", "t", "maybe"]),
        said(["none", "7", "t", None]),
        said(["none", "7", "t", "f"], ["one", "more"]),
        said(["none", "7", "t", "f"])[:-1],
        said(["none", "7", "t", "f"]) + b"Z\0\0\0\1",
    ],
)
def test_what_is_no_answer_is_refused(data):
    with pytest.raises(ProtocolError):
        parse_inspection(BOTH, data, "UTF8")


@given(st.binary(max_size=200), st.integers(0, 200))
def test_anything_else_is_read_or_refused(noise, at):
    data = said(["none", "7", "t", "f"])
    for odd in (noise, data[:at] + noise + data[at:]):
        with suppress(ProtocolError):
            parse_inspection(BOTH, odd, "UTF8")
