"""A whole answer is paid at a glance only if message by message it would be paid too, and its owner is the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import backend, codes
from protocol.answers import SHORT
from protocol.backend import build_command_complete, build_data_row, build_ready, build_row_description
from protocol.body import build_message
from protocol.debts import (
    BOUND,
    BOUND_DESCRIBED,
    EXECUTE,
    ONE_QUERY,
    PARSED,
    PARSED_DESCRIBED,
    QUERY,
    RUN,
    SYNC,
    UNASKED,
)
from protocol.framing import HEADER_SIZE
from protocol.ledger import Ledger

ANNA, BERT = "Anna", "Bert"
ROUNDS = [BOUND, BOUND_DESCRIBED, PARSED, PARSED_DESCRIBED]
BATCHES = [ONE_QUERY, *ROUNDS, RUN, (QUERY, QUERY), (*BOUND, *BOUND), (EXECUTE, SYNC)]
WORDS = {
    "1": backend.PARSE_COMPLETE_MESSAGE,
    "2": backend.BIND_COMPLETE_MESSAGE,
    "n": backend.NO_DATA_MESSAGE,
    "s": backend.PORTAL_SUSPENDED_MESSAGE,
    "I": backend.EMPTY_QUERY_MESSAGE,
    "T": build_row_description([("a", 25, -1)]),
    "D": build_data_row(["x" * 9]),
    "d": build_data_row(["C\0\0\0\rSELECT 1"]),
    "C": build_command_complete("SELECT 1"),
    "U": build_command_complete("UPDATE 1"),
    "c": build_command_complete("UPDATE 77777777"),
    "B": build_command_complete("BEGIN"),
    "E": backend.build_error("ERROR", "22012", "zero"),
    "N": backend.build_notice("NOTICE", "00000", "careful"),
    "Z": build_ready(codes.IDLE),
    "z": build_ready(codes.IN_TRANSACTION),
    "f": build_ready(codes.FAILED),
}


def said(words):
    return b"".join(WORDS[word] for word in words)


def settle(book, data):
    """Message by message: is each asked for? `book` knows the rest."""
    pos = 0
    while pos < len(data):
        if book.settle(data[pos]) is UNASKED:
            return False
        pos += 1 + int.from_bytes(data[pos + 1 : pos + HEADER_SIZE], "big")
    return True


def a_book(*batches):
    book = Ledger()
    for batch, owner in zip(batches, (ANNA, BERT), strict=False):
        book.expect(batch, owner)
    return book


def state(book):
    return book.is_settled, book.head, book._groups(), book.backlog, len(book), book.doubts, book.skipping


USUAL = ["Cz", "UZ", "cZ", "BZ", "TDCZ", "TDDcz", "TCZ", "IZ"]
ANSWERS = {
    BOUND: ["2DCZ", "2CZ", "2DDcz", "2UZ"],
    BOUND_DESCRIBED: ["2TDCZ", "2nUz", "2TcZ", "2TDDDCZ"],
    PARSED: ["12DCZ", "12UZ"],
    PARSED_DESCRIBED: ["12TDCZ", "12nUZ"],
}


@pytest.mark.parametrize("words", USUAL)
def test_the_usual_answers_to_a_query(words):
    book = a_book(ONE_QUERY)
    assert book.pay_whole(said(words)) is ANNA
    assert state(book) == state(Ledger())


@pytest.mark.parametrize(("batch", "words"), [(batch, each) for batch in ROUNDS for each in ANSWERS[batch]])
def test_the_usual_answers_to_a_round(batch, words):
    book = a_book(batch)
    assert book.pay_whole(said(words)) is ANNA
    assert state(book) == state(Ledger())


@pytest.mark.parametrize(
    "words",
    ["2nDCZ", "2TnCZ", "2TTDCZ", "1TDCZ", "2DCZ", "2TDZ", "2TDCDZ", "2TDECZ", "2TNDCZ", "2TDCf", "2TCCZ", "nTCZ"],
)
def test_what_is_not_quite_that_is_left_to_those_who_look_at_each_message(words):
    book = a_book(BOUND_DESCRIBED)
    before = state(book)
    if book.pay_whole(said(words)) is not None:
        assert words == "2nDCZ"  # rows without a description: the debts do not forbid them
        return
    assert state(book) == before


def test_a_round_that_is_answered_in_part_is_no_whole_one():
    book = a_book(BOUND_DESCRIBED)
    settle(book, said("2"))
    assert book.pay_whole(said("TDCZ")) is ANNA
    book = a_book(BOUND_DESCRIBED)
    settle(book, said("2"))
    assert book.pay_whole(said("2TDCZ")) is None


@pytest.mark.parametrize("batch", [ONE_QUERY, *ROUNDS])
def test_wherever_it_is_cut_it_is_not_whole(batch):
    data = said(ANSWERS.get(batch, ["TDDCZ"])[0])
    for cut in range(len(data)):
        assert a_book(batch).pay_whole(data[:cut]) is None
    for cut in range(1, len(data) if batch is not ONE_QUERY else 0):  # (a query may be answered by less)
        assert a_book(batch).pay_whole(data[cut:]) is None


@pytest.mark.parametrize("batch", [ONE_QUERY, BOUND_DESCRIBED])
@pytest.mark.parametrize("length", [0, 3, 10_000, 2**31, 2**32 - 1])
def test_lengths_that_lie_are_not_believed(batch, length):
    for word in "TDC":
        data = bytearray(said(ANSWERS.get(batch, ["TDCZ"])[0]))
        at = data.index(WORDS[word])
        data[at + 1 : at + HEADER_SIZE] = length.to_bytes(4, "big")
        assert a_book(batch).pay_whole(bytes(data)) is None


def test_a_row_that_holds_the_end_of_an_answer_does_not_end_it():
    row = build_data_row(["C\0\0\0\rSELECT 1\0Z\0\0\0\5I"])
    assert a_book(ONE_QUERY).pay_whole(WORDS["T"] + row) is None
    assert a_book(BOUND_DESCRIBED).pay_whole(said("2T") + row) is None
    assert a_book(ONE_QUERY).pay_whole(WORDS["T"] + row + said("CZ")) is ANNA


def test_a_long_answer_is_not_looked_at_as_a_whole():
    row = build_data_row(["x" * SHORT])
    assert a_book(ONE_QUERY).pay_whole(WORDS["T"] + row + said("CZ")) is None


BEGUN = {ONE_QUERY: said("Bz"), RUN: said("12B")}


@pytest.mark.parametrize("begin", BEGUN)
@pytest.mark.parametrize("behind", [BOUND_DESCRIBED, ONE_QUERY])
def test_a_begin_is_paid_and_what_stands_behind_it_is_due(begin, behind):
    answer = {BOUND_DESCRIBED: "2TDCZ", ONE_QUERY: "TDCZ"}[behind]
    book, other = a_book(begin, behind), a_book(begin, behind)
    assert book.pay_begin(BEGUN[begin] + said(answer)) == len(BEGUN[begin])
    settle(other, BEGUN[begin])
    assert state(book) == state(other)
    assert book.head[1] is BERT
    assert book.pay_whole(said(answer)) is BERT
    assert book.is_settled


@pytest.mark.parametrize("batches", [(BOUND, ONE_QUERY), ((QUERY, QUERY), ONE_QUERY), (RUN + RUN, ONE_QUERY)])
@pytest.mark.parametrize("begun", BEGUN.values())
def test_what_is_not_a_begin_alone_is_not_paid_as_one(batches, begun):
    book = a_book(*batches)
    before = state(book)
    assert not book.pay_begin(begun)
    assert state(book) == before


@pytest.mark.parametrize("begin", BEGUN)
def test_nor_is_one_that_is_answered_otherwise_or_in_part(begin):
    book = a_book(begin, ONE_QUERY)
    before = state(book)
    for data in (said("CZ"), said("N") + BEGUN[begin], *(BEGUN[begin][:cut] for cut in range(len(BEGUN[begin])))):
        assert not book.pay_begin(data)
    for other in BEGUN.keys() - {begin}:
        assert not book.pay_begin(BEGUN[other])
    assert state(book) == before


def test_nor_one_whose_answer_has_begun():
    book = a_book(RUN, ONE_QUERY)
    settle(book, said("1"))
    before = state(book)
    assert not book.pay_begin(BEGUN[RUN])
    assert state(book) == before


@pytest.mark.parametrize("begin", BEGUN)
def test_nor_where_one_ready_for_query_more_may_come(begin):
    book = a_book(begin, ONE_QUERY)
    book.doubts = 1
    assert not book.pay_begin(BEGUN[begin])


def test_what_is_expected_alone_is_as_if_it_were_expected():
    for batch in ROUNDS:
        book = Ledger()
        book.expect_alone(batch, ANNA)
        assert state(book) == state(a_book(batch))
    book = Ledger()
    book.expect_behind_run(ANNA, BERT)
    assert state(book) == state(a_book(RUN, ONE_QUERY))


@given(st.sampled_from(BATCHES), st.sampled_from([None, ONE_QUERY, BOUND]), st.text("12nsITDdCUcBENZzf", max_size=8))
def test_at_a_glance_or_message_by_message_it_is_the_same(batch, behind, words):
    batches = [batch] if behind is None else [batch, behind]
    glance, walk = a_book(*batches), a_book(*batches)
    before = state(glance)
    owner = glance.pay_whole(said(words))
    if owner is None:
        assert state(glance) == before
        return
    assert settle(walk, said(words))
    assert state(glance) == state(walk)
    assert owner is ANNA


@given(st.sampled_from([ONE_QUERY, *ROUNDS]), st.data())
def test_a_byte_that_does_not_belong_there_is_never_taken_for_something_else(batch, data):
    whole = bytearray(said(data.draw(st.sampled_from(ANSWERS.get(batch, USUAL)))))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    book = a_book(batch)
    if book.pay_whole(bytes(whole)) is not None:
        assert settle(a_book(batch), bytes(whole))


def test_no_other_type_is_taken_for_the_end_of_a_round():
    for kind in range(256):
        data = said("2T") + build_message(kind, b"x\0") + said("Z")
        is_paid = a_book(BOUND_DESCRIBED).pay_whole(data) is not None
        assert is_paid == (chr(kind) in "CIs")
