"""The ledger as transcripts: what was asked, what came, and who is owed what is left."""

import time

import pytest

from protocol import codes, ledger
from protocol.backend import READY_IDLE_MESSAGE, build_command_complete
from protocol.errors import ProtocolError
from protocol.ledger import (
    ASIDE,
    BIND,
    CLOSE,
    COPY_END,
    COPY_IN,
    DESCRIBE,
    ERROR,
    EXECUTE,
    FUNCTION,
    NOTHING,
    PARSE,
    PART,
    PAYS,
    QUERY,
    READY,
    SYNC,
    UNASKED,
    Answer,
    Debt,
    Ledger,
    is_unit_closed,
)

ANNA, BERT = "anna", "bert"
BATCH = [PARSE, BIND, DESCRIBE, EXECUTE, SYNC]


def asked(*debts: Debt, owner: str = ANNA) -> Ledger:
    book = Ledger()
    book.expect(tuple(debts), owner)
    return book


def answers(book: Ledger, kinds: str) -> list[Answer]:
    return [book.settle(ord(kind)) for kind in kinds.replace(" ", "")]


def test_a_query_is_paid_by_its_ready_and_by_nothing_before():
    book = asked(QUERY)
    assert answers(book, "TDDC EN TDC") == [PART, PART, PART, PART, ERROR, ASIDE, PART, PART, PART]
    assert book.head == (QUERY, ANNA)
    assert answers(book, "Z") == [READY]
    assert book.head == (NOTHING, None)
    assert book.is_settled


def test_a_batch_is_paid_message_by_message():
    book = asked(*BATCH)
    assert answers(book, "1 2 T D D C Z") == [PAYS, PAYS, PAYS, PART, PART, PAYS, READY]
    assert book.is_settled


def test_describe_of_a_statement_is_paid_by_its_second_message():
    book = asked(PARSE, DESCRIBE, SYNC)
    assert answers(book, "1 t n Z") == [PAYS, PART, PAYS, READY]


def test_each_answer_goes_to_the_owner_of_its_debt():
    book = asked(QUERY, QUERY, owner=ANNA)
    book.expect((QUERY,), BERT)
    assert book.owners() == [ANNA, ANNA, BERT]
    answers(book, "CZ CZ")
    assert book.head == (QUERY, BERT)


def test_an_error_in_a_batch_is_paid_up_to_its_own_sync_and_no_further():
    book = asked(*BATCH, *BATCH)
    assert answers(book, "1 E Z") == [PAYS, ERROR, READY]
    assert book.owners() == [ANNA] * 5
    assert answers(book, "1 2 n C Z")[-1] is READY
    assert book.is_settled


def test_a_query_behind_a_failed_request_is_skipped_like_the_rest():
    book = asked(PARSE, QUERY, SYNC)
    assert answers(book, "E Z") == [ERROR, READY]
    assert book.is_settled


def test_a_query_that_fails_itself_still_gets_its_ready():
    book = asked(PARSE, QUERY, SYNC)
    assert answers(book, "1 E Z Z") == [PAYS, ERROR, READY, READY]


def test_after_an_error_nothing_is_owed_until_the_sync_that_is_yet_to_come():
    book = asked(PARSE, BIND)
    answers(book, "E")
    assert book.skipping
    assert not book.is_settled
    book.expect(
        (
            BIND,
            EXECUTE,
            QUERY,
        ),
        ANNA,
    )
    assert len(book) == 0
    book.expect((SYNC,), ANNA)
    assert answers(book, "Z") == [READY]
    assert book.is_settled


def test_an_error_at_the_sync_itself_is_followed_by_its_ready():
    book = asked(SYNC)
    assert answers(book, "E Z") == [ERROR, READY]


def test_copy_in_by_query_ends_with_the_query():
    book = asked(QUERY)
    assert answers(book, "G") == [COPY_IN]
    assert book.copying
    assert not book.is_settled
    book.expect((COPY_END,), ANNA)
    assert not book.copying
    answers(book, "C Z")
    assert book.is_settled


def test_a_sync_sent_before_the_copy_was_known_is_swallowed():
    book = asked(BIND, EXECUTE, SYNC)
    answers(book, "2 G")
    assert book.owners() == [ANNA]
    assert book.is_unit_open
    book.expect(
        (
            COPY_END,
            SYNC,
        ),
        ANNA,
    )
    assert answers(book, "C Z") == [PAYS, READY]
    assert book.is_settled


def test_a_whole_copy_sent_blindly_is_understood_when_the_server_answers():
    book = asked(EXECUTE, SYNC, COPY_END, SYNC)
    assert answers(book, "G C Z") == [COPY_IN, PAYS, READY]
    assert book.is_settled


def test_a_whole_copy_sent_blindly_to_a_statement_that_fails_owes_both_syncs():
    book = asked(EXECUTE, SYNC, COPY_END, SYNC)
    assert answers(book, "E Z Z") == [ERROR, READY, READY]
    assert book.is_settled


def test_a_copy_that_fails_is_over_for_both_sides():
    book = asked(QUERY)
    answers(book, "G E")
    assert not book.copying
    book.expect((COPY_END,), ANNA)  # the client had not heard yet
    answers(book, "Z")
    assert book.is_settled
    book.expect((COPY_END,), ANNA)  # even later
    assert book.is_settled


def test_a_sync_thought_swallowed_may_be_answered_if_the_copy_failed_before_it_was_read():
    book = asked(EXECUTE, SYNC)
    answers(book, "G E")
    assert answers(book, "Z") == [READY]
    assert book.is_settled
    assert answers(book, "Z") == [UNASKED]


def test_a_sync_in_the_middle_of_copy_data_is_swallowed_like_one_before_it():
    book = asked(EXECUTE)
    answers(book, "G")
    book.expect((SYNC, COPY_END, SYNC), ANNA)
    assert book.owners() == [ANNA, ANNA]
    assert answers(book, "C Z") == [PAYS, READY]
    assert (book.is_settled, book.doubts) == (True, 0)


def test_and_is_in_doubt_like_one_before_it_when_the_copy_fails():
    book = asked(EXECUTE)
    answers(book, "G")
    book.expect((SYNC,), ANNA)
    answers(book, "E")
    assert book.doubts == 1


def test_the_end_of_a_copy_sent_blindly_by_itself_is_kept_for_the_copy_that_begins():
    book = asked(QUERY)
    book.expect((COPY_END,), ANNA)
    assert answers(book, "G") == [COPY_IN]
    assert not book.copying
    book.expect((QUERY,), ANNA)
    assert answers(book, "C Z C Z") == [PART, READY, PART, READY]
    assert book.is_settled


def test_a_query_in_the_middle_of_copy_data_is_an_error():
    book = asked(QUERY)
    answers(book, "G")
    with pytest.raises(ProtocolError, match="query message in the middle of COPY"):
        book.expect((QUERY,), ANNA)


def test_a_function_call_is_paid_by_its_ready():
    assert answers(asked(FUNCTION), "V Z") == [PART, READY]


@pytest.mark.parametrize("kind", "RKvZTDC123")
def test_nothing_but_asynchronous_messages_is_accepted_when_nothing_is_owed(kind):
    assert Ledger().settle(ord(kind)) is UNASKED


@pytest.mark.parametrize("debt", [debt for debt in Debt if debt is not COPY_END])
def test_notices_notifications_and_parameters_may_come_at_any_time(debt):
    book = asked(debt) if debt else Ledger()
    assert answers(book, "NSA") == [ASIDE, ASIDE, ASIDE]


def test_what_a_client_leaves_behind_is_owed_to_its_heir():
    book = asked(PARSE, SYNC)
    book.expect((QUERY,), BERT)
    book.disown(ANNA, "nobody")
    assert book.owners() == ["nobody", "nobody", BERT]
    assert book.head == (PARSE, "nobody")


def test_a_copy_costs_the_same_however_much_stands_behind_it():
    copies = 20_000
    book = asked(*(EXECUTE, SYNC, COPY_END, SYNC) * copies)
    for _ in range(copies):
        book.expect((PARSE, SYNC), ANNA)
    start = time.process_time()
    for _ in range(copies):
        for kind in b"GCZ":
            book.settle(kind)
    assert time.process_time() - start < 2.0
    assert len(book) == 2 * copies
    assert book.head == (PARSE, ANNA)


def test_many_copies_of_one_query_cost_no_more_for_what_waits_behind_it():
    book = asked(QUERY)
    for _ in range(20_000):
        book.expect((QUERY,), ANNA)
    start = time.process_time()
    for _ in range(20_000):
        book.settle(ord("G"))
    assert time.process_time() - start < 2.0


def test_a_unit_is_open_or_not_by_the_last_request_of_all_groups():
    book = asked(QUERY)
    assert not book.is_unit_open
    book.expect((PARSE, BIND), ANNA)
    assert book.is_unit_open
    book.expect((EXECUTE,), ANNA)
    assert book.is_unit_open
    book.expect((SYNC,), ANNA)
    assert not book.is_unit_open
    book.expect((COPY_END,), ANNA)  # a blind CopyDone says nothing about the unit before it
    assert not book.is_unit_open


def test_the_backlog_is_what_stands_behind_the_group_that_is_being_answered():
    book = asked(QUERY, QUERY)
    assert (book.backlog, len(book)) == (0, 2)
    book.expect((PARSE, BIND, SYNC), ANNA)
    book.expect((QUERY,), BERT)
    assert (book.backlog, len(book)) == (4, 6)
    answers(book, "CZ")
    assert (book.backlog, len(book)) == (4, 5)
    answers(book, "CZ")
    assert (book.backlog, len(book)) == (1, 4)
    answers(book, "E")
    assert (book.backlog, len(book)) == (1, 2)
    answers(book, "Z CZ")
    assert (book.backlog, len(book)) == (0, 0)
    assert book.is_settled


def test_what_is_disowned_in_several_groups_keeps_its_place():
    book = asked(PARSE, BIND, SYNC)
    book.expect((QUERY,), BERT)
    book.expect((QUERY, SYNC), ANNA)
    answers(book, "1")
    book.disown(ANNA, "nobody")
    assert book.head == (BIND, "nobody")
    assert book.owners() == ["nobody", "nobody", BERT, "nobody", "nobody"]
    assert book.backlog == 3
    assert answers(book, "2 Z CZ CZ Z") == [PAYS, READY, PART, READY, PART, READY, READY]
    assert book.is_settled


def test_a_ready_for_query_that_was_none_is_owed_still():
    book = asked(QUERY)
    book.expect((PARSE, BIND, SYNC), BERT)
    answers(book, "CZ")
    book.owe_again(ANNA)
    assert book.owners() == [ANNA, BERT, BERT, BERT]
    assert answers(book, "Z12Z") == [READY, PAYS, PAYS, READY]
    book.owe_again(BERT)
    assert (book.owners(), book.is_settled, book.backlog) == ([BERT], False, 0)
    assert answers(book, "Z") == [READY]
    assert book.is_settled


def test_disowning_when_nothing_is_owed_leaves_nothing_owed():
    book = Ledger()
    book.disown(ANNA, "nobody")
    assert book.head == (NOTHING, None)
    assert not book.is_owing
    assert book.is_settled


def test_syncs_that_a_copy_swallows_may_have_been_sent_in_many_pieces():
    book = asked(BIND, EXECUTE)
    for group in ((SYNC,), (SYNC, SYNC), (SYNC, COPY_END), (SYNC,), (QUERY,)):
        book.expect(group, ANNA)
    assert answers(book, "2 G") == [PAYS, COPY_IN]
    assert not book.copying
    assert book.owners() == [ANNA] * 3
    assert answers(book, "C Z CZ") == [PAYS, READY, PART, READY]
    assert book.is_settled


def test_syncs_of_many_pieces_are_swallowed_until_the_end_of_the_copy_comes():
    book = asked(EXECUTE)
    for group in ((SYNC,), (SYNC, SYNC)):
        book.expect(group, ANNA)
    answers(book, "G")
    assert book.copying
    assert (len(book), book.backlog) == (1, 0)
    book.expect((COPY_END, SYNC), ANNA)
    assert answers(book, "C Z") == [PAYS, READY]
    assert book.is_settled


def test_of_syncs_swallowed_over_many_pieces_each_is_in_doubt_when_the_copy_fails():
    book = asked(EXECUTE)
    for group in ((SYNC,), (SYNC,)):
        book.expect(group, ANNA)
    answers(book, "G E")
    assert book.doubts == 2
    assert answers(book, "Z Z") == [READY, READY]
    assert book.is_settled
    assert answers(book, "Z") == [UNASKED]


def in_doubt(syncs: int = 1) -> Ledger:
    """A COPY has failed, and nobody knows whether the Syncs in front of it will be answered."""
    book = asked(EXECUTE, *[SYNC] * syncs)
    answers(book, "G E")
    assert (book.doubts, book.skipping) == (syncs, True)
    return book


def test_what_comes_of_itself_ends_no_doubt():
    book = in_doubt()
    assert answers(book, "N S A") == [ASIDE] * 3
    assert answers(book, "Z") == [READY]
    assert book.is_settled


def test_a_late_ready_for_query_says_that_the_server_reads_again():
    book = in_doubt()
    answers(book, "Z")
    assert (book.doubts, book.skipping) == (0, False)
    book.expect((PARSE, SYNC), ANNA)
    assert answers(book, "1 Z") == [PAYS, READY]


def test_an_answer_where_one_could_come_late_ends_all_doubts():
    book = in_doubt(2)
    book.expect((SYNC, QUERY), ANNA)
    assert answers(book, "Z C Z") == [READY, PART, READY]
    assert (book.doubts, book.is_settled) == (0, True)
    assert answers(book, "Z") == [UNASKED]


def test_the_syncs_of_a_copy_that_went_well_are_in_no_doubt_when_something_fails_behind_it():
    book = asked(EXECUTE, SYNC, COPY_END, BIND, SYNC)
    assert answers(book, "G C E Z") == [COPY_IN, PAYS, ERROR, READY]
    assert (book.doubts, book.is_settled) == (0, True)
    book = asked(QUERY, SYNC, COPY_END, QUERY)
    assert answers(book, "G C Z E Z") == [COPY_IN, PART, READY, ERROR, READY]
    assert (book.doubts, book.is_settled) == (0, True)


def test_a_copy_that_fails_leaves_its_doubts_once():
    book = in_doubt()
    book.expect((SYNC, BIND, SYNC), ANNA)
    assert answers(book, "Z E") == [READY, ERROR]
    assert book.doubts == 0


def test_an_error_that_nobody_asked_for_has_no_sync_to_skip_to():
    book = Ledger()
    assert answers(book, "E") == [ERROR]
    book.expect((PARSE, SYNC), ANNA)
    assert book.owners() == [ANNA, ANNA]


def test_a_copy_swallows_no_sync_of_whoever_comes_next():
    book = asked(EXECUTE, SYNC)
    book.expect((SYNC,), BERT)
    answers(book, "G")
    assert book.owners() == [ANNA, BERT]


@pytest.mark.parametrize("groups", [[(EXECUTE, SYNC, COPY_END, SYNC)], [(EXECUTE,), (SYNC, COPY_END), (SYNC,)]])
def test_the_end_of_a_copy_that_has_swallowed_a_sync_is_judged_message_by_message(groups):
    book = Ledger()
    for group in groups:
        book.expect(group, ANNA)
    answers(book, "G")
    assert None is book.pay_whole(build_command_complete("COPY 1") + READY_IDLE_MESSAGE)
    assert answers(book, "C Z") == [PAYS, READY]
    assert book.is_settled


def test_every_debt_but_the_marker_has_an_answer_that_ends_it():
    for debt in Debt:
        if debt not in (NOTHING, COPY_END):
            assert {PAYS, READY} & set(ledger.ANSWERS[debt])


def test_every_request_of_a_client_has_a_debt_or_is_known_to_have_none():
    silent = {codes.FLUSH, codes.COPY_DATA, codes.TERMINATE, codes.PASSWORD}
    every = {getattr(codes, name) for name in FRONTEND}
    assert every == set(ledger.REQUESTS) | silent


FRONTEND = (
    "BIND CLOSE COPY_FAIL DESCRIBE EXECUTE FLUSH FUNCTION_CALL PARSE PASSWORD QUERY SYNC TERMINATE COPY_DATA COPY_DONE"
).split()


# Between units.


@pytest.mark.parametrize(
    ("debts", "is_between"),
    [
        ((), True),
        ((QUERY,), True),
        ((BIND, EXECUTE, SYNC), True),
        ((BIND, EXECUTE, SYNC, QUERY), True),
        ((BIND, EXECUTE), False),
        ((BIND, EXECUTE, QUERY), False),  # the server may be skipping to a Sync, the Query too
        ((SYNC, PARSE, QUERY, QUERY), False),
    ],
)
def test_a_sync_of_ours_changes_nothing_only_between_units(debts, is_between):
    ledger = Ledger()
    for debt in debts:
        ledger.expect((debt,), "client")
    assert ledger.is_between_units is is_between
    assert is_unit_closed(reversed(debts)) in ((is_between, None) if is_between else (False,))


def test_nor_while_a_server_skips_or_a_unit_has_been_answered_but_not_ended():
    ledger = Ledger()
    ledger.expect((PARSE,), "client")
    ledger.settle(ord("1"))
    assert not ledger.is_between_units
    ledger.expect((BIND,), "client")
    ledger.settle(ord("E"))
    assert not ledger.is_between_units
    ledger.expect((SYNC,), "client")
    ledger.settle(ord("Z"))
    assert ledger.is_between_units


def test_it_is_known_whose_requests_belong_to_the_open_unit():
    ledger = Ledger()
    ledger.expect((PARSE,), "one")
    assert ledger.is_in_open_unit("one")
    ledger.expect((BIND,), "two")
    ledger.expect((SYNC, BIND), "three")
    ledger.expect((CLOSE,), "four")
    assert [ledger.is_in_open_unit(owner) for owner in ("one", "two", "four", "nobody")] == [False, False, True, False]


def test_nor_do_those_whose_own_sync_stands_behind_them_or_that_have_ended_it():
    ledger = Ledger()
    ledger.expect((PARSE, DESCRIBE, SYNC), "one")
    assert not ledger.is_in_open_unit("one")
    ledger.expect((BIND,), "two")
    assert [ledger.is_in_open_unit(owner) for owner in ("one", "two")] == [False, True]
    answers(ledger, "1 n")
    assert not ledger.is_in_open_unit("one")
    answers(ledger, "Z 2")
    assert not ledger.is_in_open_unit("two")


def test_an_error_voids_a_query_that_the_server_skips():
    ledger = Ledger()
    ledger.expect((BIND,), "one")
    ledger.expect((QUERY,), "two")
    ledger.expect((PARSE, SYNC), "three")
    ledger.settle(ord("E"))
    assert ledger.voided == ["two", "three"]
    assert ledger.head == (SYNC, "three")
