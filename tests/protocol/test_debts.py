"""The tables of what a server may say, against the protocol's description."""

import pytest

from protocol import codes
from protocol.backend import BIND_COMPLETE_MESSAGE, PARSE_COMPLETE_MESSAGE
from protocol.debts import (
    ANSWERS,
    ASIDE,
    BIND,
    BOUND,
    BOUND_DESCRIBED,
    CLOSE,
    COPY_END,
    COPY_IN,
    DESCRIBE,
    DULL,
    DULL_REQUESTS,
    ENDS_UNIT,
    ERROR,
    EXECUTE,
    FUNCTION,
    LEAST_LENGTH,
    NOBODYS,
    NOTHING,
    PARSE,
    PARSED,
    PARSED_DESCRIBED,
    PART,
    PAYS,
    QUERY,
    READY,
    REQUESTS,
    SYNC,
    TELLING,
    UNASKED,
    Answer,
    Debt,
    Round,
)

LAW = {
    NOTHING: {},
    QUERY: {PART: "TDCIHdc", COPY_IN: "GW", READY: "Z"},
    FUNCTION: {PART: "V", READY: "Z"},
    SYNC: {READY: "Z"},
    PARSE: {PAYS: "1"},
    BIND: {PAYS: "2"},
    CLOSE: {PAYS: "3"},
    DESCRIBE: {PART: "t", PAYS: "Tn"},
    EXECUTE: {PART: "DHdc", COPY_IN: "GW", PAYS: "CIs"},
    COPY_END: {},
}


@pytest.mark.parametrize("debt", Debt)
def test_what_a_server_may_say_while_it_owes_something(debt):
    told = {ord(letter): answer for answer, letters in LAW[debt].items() for letter in letters}
    always = {ord("N"): ASIDE, ord("S"): ASIDE, ord("A"): ASIDE, ord("E"): ERROR}
    assert list(ANSWERS[debt]) == [{**always, **told}.get(kind, UNASKED) for kind in range(256)]


@pytest.mark.parametrize("debt", Debt)
def test_stepped_over_is_what_pays_nothing_and_means_nothing(debt):
    assert [kind for kind in range(256) if DULL[debt][kind]] == [
        kind for kind in range(256) if ANSWERS[debt][kind] is PART
    ]


def test_the_numbers_index_the_tables():
    assert list(Debt) == list(range(len(ANSWERS))) == list(range(len(DULL)))
    assert sorted(Answer) == list(range(1, len(Answer) + 1))
    assert max(Answer) == UNASKED
    assert PART < PAYS < min(READY, ERROR, COPY_IN, ASIDE)  # "answer > PAYS": it means something to a server's stream


def test_a_unit_ends_with_what_is_paid_by_ready_for_query():
    assert frozenset(debt for debt in Debt if READY in ANSWERS[debt]) == ENDS_UNIT
    assert not ENDS_UNIT & {debt for debt in Debt if PAYS in ANSWERS[debt]}


def test_whoever_is_told_of_an_error_has_asked_for_something():
    assert set(REQUESTS.values()) >= TELLING
    assert set(REQUESTS.values()) == set(Debt) - {NOTHING}


def test_what_earns_nothing_is_stepped_over():
    dull = {kind for kind in range(256) if DULL_REQUESTS[kind]}
    assert dull == {codes.COPY_DATA, codes.FLUSH}
    assert not dull & set(REQUESTS)


def test_nobody_is_owed_nothing():
    assert NOBODYS == (NOTHING, None)
    assert LEAST_LENGTH == 4


@pytest.mark.parametrize("each", [BOUND, BOUND_DESCRIBED, PARSED, PARSED_DESCRIBED])
def test_a_round_is_a_unit_and_its_answer_begins_with_what_pays_its_first_debts(each):
    assert type(each) is Round
    assert each[-1] is SYNC
    assert ENDS_UNIT.isdisjoint(each[:-1])
    done = (PARSE_COMPLETE_MESSAGE if PARSE in each else b"") + BIND_COMPLETE_MESSAGE
    assert each.size == len(done)
    assert each.is_described == (DESCRIBE in each)
    assert each.begins == ((done + b"T", done + b"n") if each.is_described else (done,))
