"""Calls of functions: found wherever they stand, in every quoting, and nowhere else."""

import pytest

from protocol.acts import Phrase, Source
from protocol.call_acts import TELLS, Calls
from protocol.tokens import STANDARD, blank_comments
from tests.protocol.act_table import CALLS, PINS, describe

FOUND = Calls(PINS)


def read(text, calls=FOUND):
    return describe(calls.read(Phrase(Source(blank_comments(text, STANDARD), STANDARD), 0, len(text))))


@pytest.mark.parametrize(("text", "acts"), CALLS)
def test_calls(text, acts):
    assert read(text) == acts.removeprefix("HOLD c, ")
    if acts:
        assert FOUND.may_be_in(text.lower())


@pytest.mark.parametrize("literal", [b"true", b"'true'", b"'t'", b"'on'", b"'YES'", b"'1'", b"' true '", b"true::bool"])
def test_each_way_to_say_local(literal):
    assert read(b"select set_config('a', 'b', " + literal + b")") == ""


@pytest.mark.parametrize("said", [b"false", b"'off'", b"$1", b"'tr' || 'ue'", b"not false", b"1", b"null", b"a.b", b""])
def test_all_else_may_last(said):
    assert read(b"select set_config('a', 'b', " + said + b")") == "SETTING a"


@pytest.mark.parametrize("arguments", [b"", b"'a'", b"'a', 'b'", b"'a', 'b', true, true", b"'a', 'b', true"])
def test_only_three_arguments_can_be_local(arguments):
    acts = read(b"select set_config(" + arguments + b")")
    assert (acts == "") == (arguments == b"'a', 'b', true")


@pytest.mark.parametrize(
    ("pin", "call"),
    [
        (b"f", b"f()"),
        (b"F", b"s.f ()"),
        (b"s.f", b"F()"),
        (b'"S".f', b'"f"()'),
        (b'"F"', b's."F"()'),
        (b'"a.b"', b'"a.b"()'),
        (b"f$", b"f$()"),
        (b'"a""b"', b'"a""b"()'),
    ],
)
def test_a_pin_is_found_by_its_last_name(pin, call):
    calls = Calls([pin])
    assert read(b"select " + call, calls).startswith("FUNCTION ")
    assert calls.may_be_in(b"select " + call.lower())


@pytest.mark.parametrize("call", [b"ff()", b"f1()", b"f", b"'f()'", b'"F"()', b"g()"])
def test_other_names_are_no_pins(call):
    assert read(b"select " + call, Calls([b"f"])) == ""


def test_tells_that_say_no_more_than_others_are_left_out():
    assert Calls([b"dblink_connect_u", b"dblink_connect", b"f"]).pin_tells == (b"dblink_connect", b"f")
    assert Calls([b"f", b"f"]).pin_tells == (b"f",)


def test_every_built_in_function_has_its_tell():
    calls = Calls()
    for name in calls._whats:
        assert any(tell in name for tell in TELLS)
