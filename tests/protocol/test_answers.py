"""Whole answers, and several of them at once, are paid as they would be message by message; what is unusual is left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import debts
from protocol.answers import CUT, SHORT, UNUSUAL
from protocol.chains import ONE_SYNC, Chain, split
from protocol.ledger import (
    CLOSE,
    DESCRIBE,
    EXECUTE,
    FUNCTION,
    NOTHING,
    ONE_QUERY,
    PARSE,
    SYNC,
    UNASKED,
    Ledger,
)
from tests.play import said

# (Those of several units up to one Sync, `pay_chain`, are at the end.)

ANNA, BERT, CARL = "anna", "bert", "carl"
ROUND, DESCRIBED, PARSED, PARSED_ONLY = debts.BOUND, debts.BOUND_DESCRIBED, debts.PARSED_DESCRIBED, debts.PARSED

GOOD = {
    ONE_QUERY: ["T D C:SELECT_1 Z:I", "T C Z:I", "T D D:x D C Z:I", "C Z:I", "I Z:I", "H d c C Z:I"],
    ROUND: ["2 D C:SELECT_1 Z:I", "2 C Z:I", "2 D:xxxxxxxx D C Z:I"],
    DESCRIBED: ["2 T D C:SELECT_1 Z:I", "2 T C Z:I"],
    PARSED: ["1 2 T D C:SELECT_1 Z:I", "1 2 T D D C Z:I"],
    PARSED_ONLY: ["1 2 D C Z:I"],
}
ODD = {
    ONE_QUERY: [
        "ERROR:no Z:I", "T D ERROR:no Z:I", "N:a T D C Z:I", "T N:a D C Z:I", "S:TimeZone=CET C Z:I", "A:a C Z:I",
    ],
    ROUND: ["ERROR:no Z:I", "2 ERROR:no Z:I", "2 D ERROR:no Z:I", "2 N:a D C Z:I", "2 s Z:I", "2 I Z:I"],
    DESCRIBED: ["2 n C Z:I", "2 T D s Z:I", "2 T D C N:late Z:I", "ERROR:no Z:I"],
    PARSED: ["ERROR:no Z:I", "1 ERROR:no Z:I", "1 N:a 2 T D C Z:I", "1 2 n I Z:I", "N:a 1 2 T C Z:I"],
    PARSED_ONLY: ["1 2 ERROR:no Z:I"],
    (PARSE, DESCRIBE, SYNC): ["1 t T Z:I", "ERROR:no Z:I"],
    (SYNC,): ["Z:I", "N:a Z:I"],
    (FUNCTION,): ["V Z:I"],
}  # fmt: skip


MESSAGES = ["1", "2", "T", "T:other", "D", "C", "C:SELECT_1", "n", "s", "I", "N:a", "ERROR:no", "t", "S:TimeZone=CET"]


def entered(*units, ledger=None):
    """`units` are (debts, owner)."""
    ledger = Ledger() if ledger is None else ledger
    ledger.expect_units(list(units))
    return ledger


def pay_by_message(ledger, data, heard):
    """As a server does it. How far it got."""
    pos = 0
    while len(data) - pos >= 5:
        end = pos + 1 + int.from_bytes(data[pos + 1 : pos + 5], "big")
        if end > len(data):
            break
        owner = ledger.head[1]
        assert ledger.settle(data[pos]) is not UNASKED
        heard.append((owner, data[pos:end]))
        pos = end
    return pos


def listen(ledger, chunks, *, is_quick):
    """Everything that `chunks` say, and to whom, in order."""
    heard, carry = [], b""
    for chunk in chunks:
        data, pos = carry + chunk, 0
        if is_quick and not carry:
            owner = ledger.pay_whole(data)
            if owner is not None:
                heard.append((owner, data))
                continue
            paid, pos = ledger.pay_answers(data)
            heard += paid
            assert sum(len(answer) for _, answer in paid) == pos
        pos += pay_by_message(ledger, data[pos:], heard)
        carry = data[pos:]
    assert not carry
    return merge(heard)


def merge(heard):
    merged = []
    for owner, data in heard:
        if merged and merged[-1][0] == owner:
            merged[-1] = owner, merged[-1][1] + data
        else:
            merged.append((owner, data))
    return merged


def facts(ledger):
    names = ("head", "backlog", "doubts", "is_settled", "skipping", "copying", "is_unit_open", "is_between_units")
    return {name: getattr(ledger, name) for name in names} | {"owners": ledger.owners(), "length": len(ledger)}


@pytest.mark.parametrize(("debts", "words"), [(debts, words) for debts in GOOD for words in GOOD[debts]])
def test_a_whole_answer_is_paid_at_once(debts, words):
    ledger = entered((debts, ANNA))
    assert ledger.pay_whole(said(words)) is ANNA
    assert facts(ledger) == facts(Ledger())


@pytest.mark.parametrize(("debts", "words"), [(debts, words) for debts in GOOD for words in GOOD[debts]])
def test_whole_answers_are_paid_one_after_another_each_to_its_owner(debts, words):
    answer = said(words)
    ledger = entered((debts, ANNA), (debts, BERT), (debts, CARL))
    assert ledger.pay_answers(answer * 2 + answer[:-1]) == ([(ANNA, answer), (BERT, answer)], 2 * len(answer))
    assert ledger.owners() == [CARL] * len(debts)
    assert ledger.pay_answers(answer) == ([(CARL, answer)], len(answer))
    assert facts(ledger) == facts(Ledger())


@pytest.mark.parametrize(
    ("debts", "words"), [(debts, words) for debts in ODD for words in ODD[debts] if "n" not in words]
)
def test_what_is_unusual_is_left_and_nothing_has_changed(debts, words):
    ledger = entered((ONE_QUERY, ANNA), (debts, BERT), (ONE_QUERY, CARL))
    plain = said("C Z:I")
    assert ledger.pay_answers(plain + said(words) + plain) == ([(ANNA, plain)], len(plain))
    other = entered((debts, BERT), (ONE_QUERY, CARL))
    assert facts(ledger) == facts(other)


@pytest.mark.parametrize(
    "words",
    [
        "T D C Z:T", "T D C Z:E",  # nobody has begun a transaction
        "T D C", "T", "",
        "1 C Z:I", "2 C Z:I", "3 Z:I", "V Z:I", "n Z:I", "t Z:I", "s Z:I", "G Z:I",  # nobody asked for this
    ],
)  # fmt: skip
def test_what_no_query_is_answered_with_is_left(words):
    data = said(words)
    ledger = entered((ONE_QUERY, ANNA), (ONE_QUERY, BERT))
    before = facts(ledger)
    assert ledger.pay_answers(data) == ([], 0)
    assert facts(ledger) == before


@pytest.mark.parametrize("length", [0, 3, 2**31, 2**32 - 1])
@pytest.mark.parametrize("kind", [b"T", b"D", b"C", b"Z"])
def test_a_length_that_lies_is_left(kind, length):
    ledger = entered((ONE_QUERY, ANNA), (ONE_QUERY, BERT))
    assert ledger.pay_answers(kind + length.to_bytes(4, "big") + said("D C Z:I")) == ([], 0)
    assert ledger.owners() == [ANNA, BERT]


@pytest.mark.parametrize("noise", [b"\0", b"\0" * 5, b"T", b"T\0\0\0\3"])
def test_what_stands_in_front_of_a_row_is_a_message_or_the_answer_is_left(noise):
    data = noise + said("D C:SELECT_1 Z:I")
    ledger = entered((ONE_QUERY, ANNA), (ONE_QUERY, BERT))
    paid, pos = ledger.pay_answers(data)
    assert (paid, pos) == ([], 0)


@pytest.mark.parametrize("size", [4, 6, 100])
def test_a_ready_for_query_of_another_length_is_left(size):
    ledger = entered((ONE_QUERY, ANNA), (ONE_QUERY, BERT))
    assert ledger.pay_answers(b"Z" + size.to_bytes(4, "big") + b"I" * 200) == ([], 0)


def test_bytes_of_a_row_that_look_like_an_answer_are_a_row():
    row = said("D:" + "x" * 20).replace(b"x" * 11, said("C Z:I")[-6:] + said("C")[:5])
    answer = said("T") + row + said("C Z:I")
    ledger = entered((ONE_QUERY, ANNA), (ONE_QUERY, BERT))
    for cut in range(1, len(answer)):
        assert ledger.pay_answers(answer[:cut]) == ([], 0)
    assert ledger.pay_answers(answer) == ([(ANNA, answer)], len(answer))


def test_an_answer_that_is_not_short_is_left_for_those_who_pass_it_on_as_it_comes():
    answer = said("T") + said("D:" + "x" * 50) * (SHORT // 50) + said("C:SELECT_2 Z:I")
    assert len(answer) > SHORT
    ledger = entered((ONE_QUERY, ANNA), (ONE_QUERY, BERT))
    assert ledger.pay_whole(answer) is None
    assert ledger.pay_answers(answer) == ([], 0)


def test_a_round_is_not_paid_from_its_middle():
    ledger = entered((ROUND, ANNA), (ROUND, BERT))
    ledger.settle(ord("2"))
    assert ledger.pay_answers(said("D C Z:I 2 D C Z:I")) == ([], 0)
    assert ledger.pay_answers(said("2 D C Z:I")) == ([], 0)
    assert ledger.owners() == [ANNA] * 2 + [BERT] * 3


def test_the_rest_of_a_query_whose_rows_have_come_already_is_paid():
    ledger = entered((ONE_QUERY, ANNA), (ONE_QUERY, BERT))
    ledger.settle(ord("T")), ledger.settle(ord("D"))
    assert ledger.pay_answers(said("C Z:I T")) == ([(ANNA, said("C Z:I"))], len(said("C Z:I")))
    assert ledger.owners() == [BERT]


def test_more_answers_than_are_owed_are_left_to_be_refused():
    ledger = entered((ONE_QUERY, ANNA), (ONE_QUERY, BERT))
    answer = said("C Z:I")
    assert ledger.pay_answers(answer * 3) == ([(ANNA, answer), (BERT, answer)], 2 * len(answer))
    assert ledger.head == (NOTHING, None)
    assert ledger.pay_answers(answer) == ([], 0)
    assert ledger.settle(ord("C")) is UNASKED


def test_while_a_ready_for_query_is_in_doubt_nothing_is_paid():
    ledger = Ledger()
    ledger.expect((EXECUTE, SYNC), ANNA)
    ledger.settle(ord("G")), ledger.settle(ord("E"))
    assert ledger.doubts
    ledger.settle(ord("Z")) if ledger.is_owing else None
    entered((ONE_QUERY, ANNA), (ONE_QUERY, BERT), ledger=ledger)
    assert ledger.pay_answers(said("C Z:I C Z:I")) == ([], 0)
    assert ledger.pay_whole(said("C Z:I")) is None


def test_units_are_entered_behind_what_is_owed_already():
    ledger = Ledger()
    ledger.expect((PARSE, DESCRIBE, SYNC), ANNA)
    entered((ONE_QUERY, BERT), (ROUND, CARL), ledger=ledger)
    assert ledger.owners() == [ANNA] * 3 + [BERT] + [CARL] * 3
    assert ledger.backlog == 4
    assert len(ledger) == 7
    assert not ledger.is_settled


def test_a_close_among_the_debts_is_left():
    ledger = entered(((CLOSE, SYNC), ANNA), (ONE_QUERY, BERT))
    assert ledger.pay_answers(said("3 Z:I C Z:I")) == ([], 0)


KINDS = [(debts, words) for table in (GOOD, ODD) for debts in table for words in table[debts]]
UNITS = st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from([ANNA, BERT, CARL])), min_size=1, max_size=8)


@given(UNITS, st.lists(st.integers(1, 400), max_size=12), st.integers(1, 4))
def test_answers_cut_anywhere_are_paid_as_they_are_message_by_message(units, cuts, groups):
    stream = b"".join(said(words) for (_, words), _ in units)
    chunks, pos = [], 0
    for cut in cuts:
        chunks.append(stream[pos : pos + cut])
        pos += cut
    chunks = [chunk for chunk in [*chunks, stream[pos:]] if chunk]
    heard, ends = [], []
    for is_quick in (True, False):
        ledger = Ledger()
        for start in range(0, len(units), groups):  # as several loads travel
            entered(*[(debts, owner) for (debts, _), owner in units[start : start + groups]], ledger=ledger)
        heard.append(listen(ledger, chunks, is_quick=is_quick))
        ends.append(facts(ledger))
    assert heard[0] == heard[1]
    assert ends[0] == ends[1] == facts(Ledger())


@given(UNITS, st.binary(max_size=40), st.integers(0, 200))
def test_noise_in_the_stream_is_never_paid_more_than_message_by_message(units, noise, at):
    """What is paid at once, taken message by message, pays the same and nothing else."""
    stream = b"".join(said(words) for (_, words), _ in units)
    stream = stream[:at] + noise + stream[at + len(noise) :]
    quick, slow = (entered(*[(debts, owner) for (debts, _), owner in units]) for _ in range(2))
    paid, pos = quick.pay_answers(stream)
    heard = []
    assert pay_by_message(slow, stream[:pos], heard) == pos
    assert merge(paid) == merge(heard)
    assert quick.owners() == slow.owners()
    assert quick.is_settled == slow.is_settled


@pytest.mark.parametrize("debts", GOOD)
@given(words=st.lists(st.sampled_from(MESSAGES), max_size=6), columns=st.sampled_from(["", "T", "T:other"]))
def test_no_order_of_messages_is_paid_at_a_glance_that_is_not_paid_message_by_message(debts, words, columns):
    """Nor, if it comes by itself, as a whole; whatever the columns of the answer before."""
    answer = said(" ".join([*words, "Z:I"]))
    quick, whole, slow = entered((debts, ANNA), (ONE_QUERY, BERT)), entered((debts, ANNA)), entered((debts, ANNA))
    quick.columns = said(columns) or quick.columns
    paid, pos = quick.pay_answers(answer)
    if pos or whole.pay_whole(answer) is not None:
        assert pay_by_message(slow, answer, []) == len(answer)
        assert slow.is_settled
    assert paid == ([(ANNA, answer)] if pos else [])
    assert quick.owners() == [BERT] if pos else [ANNA, BERT]


@pytest.mark.parametrize(
    ("debts", "words"),
    [
        (ROUND, "2 Z:I"),
        (ROUND, "2 D Z:I"),
        (ROUND, "2 C C Z:I"),
        (ROUND, "2 C D C Z:I"),
        (ROUND, "2 T D C:SELECT_1 Z:I"),
        (DESCRIBED, "2 D C:SELECT_1 Z:I"),
        (DESCRIBED, "2 C Z:I"),
        (DESCRIBED, "2 T T C Z:I"),
        (PARSED, "1 2 D Z:I"),
    ],
)
def test_what_ends_too_soon_or_begins_too_late_is_no_answer_to_a_round(debts, words):
    ledger = entered((debts, ANNA), (ONE_QUERY, BERT))
    assert ledger.pay_answers(said(words)) == ([], 0)
    assert ledger.pay_answers(said("T D C:SELECT_1 Z:I")) == ([], 0)
    assert entered((debts, ANNA)).pay_whole(said(words)) is None


def test_what_is_no_round_is_not_paid_as_one():
    """A statement that is brought is parsed and described, not bound."""
    ledger = entered(((PARSE, DESCRIBE, SYNC), ANNA), (ONE_QUERY, BERT))
    assert ledger.pay_answers(said("1 2 C Z:I C Z:I")) == ([], 0)
    assert ledger.owners() == [ANNA] * 3 + [BERT]


# Several units up to one Sync.

LINKS = {
    ONE_QUERY: ["1 2 T D C:SELECT_1", "1 2 T C:SELECT_0", "1 2 T:other D:x D C:SELECT_2", "1 2 T D:longer C:SELECT_1"],
    ROUND: ["2 D C:SELECT_1", "2 C:SELECT_0", "2 D:xxxxxxxx D C:SELECT_2"],
    DESCRIBED: ["2 T D C:SELECT_1", "2 T:other C:SELECT_0"],
    PARSED: ["1 2 T D C:SELECT_1", "1 2 T D D C:SELECT_2"],
    PARSED_ONLY: ["1 2 D C:SELECT_1"],
}
ODD_LINKS = {
    ONE_QUERY: [
        "1 2 n C",
        "1 2 T D s",
        "N:a 1 2 T D C",
        "1 2 T D N:a C",
        "1 2 T S:TimeZone=CET C",
        "1 2 T I",
        "1 A:b 2 T C",
    ],
    ROUND: ["2 s", "2 I", "N:a 2 C"],
    PARSED: ["1 2 n I", "1 2 T D s", "1 N:a 2 T C"],
}
LINK = st.sampled_from([(debts, words) for debts in LINKS for words in LINKS[debts]])
ANY_LINK = st.sampled_from(
    [(debts, words) for table in (LINKS, ODD_LINKS) for debts in table for words in table[debts]]
)
BEHIND = {  # what may stand behind a chain, and what answers it
    "nothing": ([], b""),
    "a chain": ([(Chain.of([ONE_QUERY, ROUND]), "later"), (ONE_SYNC, "later")], said("1 2 T D C 2 C Z:I")),
    "a unit": ([(ONE_QUERY, BERT)], said("T D C Z:I")),
    "a round": ([(PARSED, BERT)], said("1 2 T D C Z:I")),
    "a chore": ([((PARSE, DESCRIBE, SYNC), "ours")], said("1 t T Z:I")),
}


def chained(units, behind=()):
    """A ledger at whose head these stand."""
    return entered((Chain.of([debts for debts, _ in units]), ANNA), (ONE_SYNC, ANNA), *behind)


def answer_to(units, end="Z:I"):
    return b"".join(said(words) for _, words in units) + said(end)


def by_message(units, data, behind=()):
    """What each hears, and the ledger, when all of it has been taken message by message."""
    ledger, heard = chained(units, behind), []
    assert pay_by_message(ledger, data, heard) == len(data)
    return split(Chain.of([debts for debts, _ in units]), b"".join(said for _, said in heard)), ledger


@given(st.lists(LINK, min_size=1, max_size=7), st.sampled_from(sorted(BEHIND)))
def test_a_chain_is_paid_as_it_is_message_by_message_whatever_stands_behind_it(units, key):
    data, (behind, tail) = answer_to(units), BEHIND[key]
    heard, slow = by_message(units, data, behind)
    for extra in (b"", tail, tail[:-1], tail[:3]):
        ledger = chained(units, behind)
        assert ledger.pay_chain(data + extra) == (heard, len(data))
        assert facts(ledger) == facts(slow)


@given(st.lists(LINK, min_size=1, max_size=5))
def test_a_chain_is_cut_until_all_of_it_is_there(units):
    ledger, data = chained(units), answer_to(units)
    before = facts(ledger)
    for cut in range(len(data)):
        assert ledger.pay_chain(data[:cut]) == ([], CUT), data[:cut]
        assert facts(ledger) == before
    assert ledger.pay_chain(data) == (by_message(units, data)[0], len(data))


@given(st.lists(LINK, min_size=1, max_size=5), st.lists(LINK, min_size=1, max_size=5), st.integers(0, 400))
def test_what_was_learnt_of_one_chain_is_no_harm_to_the_next(first, second, cut):
    """How the last answer began is remembered: that of another chain, or of one that was cut."""
    one, two = answer_to(first), answer_to(second)
    ledger = chained(first, [(Chain.of([debts for debts, _ in second]), BERT), (ONE_SYNC, BERT)])
    ledger.pay_chain(one[: min(cut, len(one) - 1)])
    assert ledger.pay_chain(one + two) == (by_message(first, one)[0], len(one))
    ledger.pay_chain(two[: min(cut, len(two) - 1)])
    assert ledger.pay_chain(two) == (by_message(second, two)[0], len(two))
    assert facts(ledger) == facts(Ledger())


@given(st.lists(ANY_LINK, min_size=1, max_size=5), st.sampled_from(["Z:I", "N:a Z:I", "S:a=b Z:I", "Z:T", "Z:E"]))
def test_what_is_unusual_in_a_chain_is_left_as_it_is_and_cut_is_only_what_may_still_be_usual(units, end):
    data, ledger = answer_to(units, end), chained(units)
    before, (paid, pos) = facts(ledger), ledger.pay_chain(data)
    assert (pos > 0) == bool(paid)
    if paid:
        assert (paid, pos) == (by_message(units, data)[0], len(data))
        return
    assert pos == UNUSUAL
    assert facts(ledger) == before
    ends = [chained(units).pay_chain(data[:cut])[1] for cut in range(len(data))]
    assert ends == sorted(ends, reverse=True), "once it is unusual it is so for good"


@pytest.mark.parametrize(
    "words", ["ERROR:no Z:I", "1 ERROR:no", "1 2 T D ERROR:no Z:I", "1 2 T D C 1 ERROR:no Z:I", "FATAL:bye"]
)
def test_an_error_in_a_chain_is_left(words):
    units = [(ONE_QUERY, ""), (PARSED, "")]
    ledger = chained(units)
    assert ledger.pay_chain(said(words)) == ([], UNUSUAL)
    assert facts(ledger) == facts(chained(units))


@pytest.mark.parametrize(
    "words",
    [
        "Z:I", "2 T D C", "T D C Z:I", "1 1 2 T", "1 2 D C", "1 2 C", "1 2 T T D C", "1 2 T D Z:I", "1 2 T D C Z:I",
        "1 2 T D C 1 2 T D C 1", "1 2 T D C 1 2 T D C C Z:I", "1 2 T D C 2", "1 2 T D C T", "V", "G", "1 2 T D t",
        "1 2 T D C 1 2 T D C Z:T", "1 2 T D C 1 2 T D C Z:E", "1 2 T D T C",
    ],
)  # fmt: skip
def test_what_no_chain_is_answered_with_is_left(words):
    """Two queries are owed."""
    units = [(ONE_QUERY, "")] * 2
    ledger = chained(units)
    assert ledger.pay_chain(said(words)) == ([], UNUSUAL)
    assert facts(ledger) == facts(chained(units))


@pytest.mark.parametrize("length", [0, 3, 2**31, 2**32 - 1])
@pytest.mark.parametrize("kind", [b"1", b"2", b"T", b"D", b"C", b"Z", b"E"])
@pytest.mark.parametrize("before", ["", "1", "1 2", "1 2 T", "1 2 T D", "1 2 T D C", "1 2 T D C 1 2 T D C"])
def test_a_length_that_lies_in_a_chain_pays_nothing(before, kind, length):
    units = [(ONE_QUERY, "")] * 2
    ledger = chained(units)
    data = said(before) + kind + length.to_bytes(4, "big")
    for more in (b"", said("D C 1 2 T D C Z:I"), said("C:SELECT_1 Z:I") * 9):
        paid, pos = ledger.pay_chain(data + more)
        assert not paid
        assert pos in (CUT, UNUSUAL)
        assert pos == UNUSUAL or length > 2**30, "what is too short is known at once"
    assert facts(ledger) == facts(chained(units))


@pytest.mark.parametrize("fake", ["C:SELECT_1 Z:I", "C:SELECT_1 1 2 T", "Z:I", "1 2 T D C:SELECT_1 Z:I"])
def test_bytes_of_a_row_in_a_chain_that_look_like_an_end_are_a_row(fake):
    row = said("D:" + "x" * 200).replace(b"x" * 100, said(fake).ljust(100, b"x")[:100])
    units = [(ONE_QUERY, ""), (ONE_QUERY, "")]
    data = said("1 2 T") + row + said("C:SELECT_1 1 2 T") + row + row + said("C:SELECT_2 Z:I")
    ledger = chained(units)
    for cut in range(len(data)):
        assert ledger.pay_chain(data[:cut]) == ([], CUT)
    heard = [said("T") + row + said("C:SELECT_1 Z:I"), said("T") + row + row + said("C:SELECT_2 Z:I")]
    assert ledger.pay_chain(data) == (heard, len(data))


def test_a_chain_is_not_paid_from_its_middle_nor_while_a_ready_for_query_is_in_doubt():
    units = [(ONE_QUERY, "")] * 2
    ledger = chained(units)
    ledger.settle(ord("1"))
    assert ledger.pay_chain(said("2 T D C 1 2 T D C Z:I")) == ([], UNUSUAL)
    ledger = chained(units)
    ledger.doubts = 1
    assert ledger.pay_chain(answer_to([(ONE_QUERY, "1 2 T C")] * 2)) == ([], UNUSUAL)


def test_what_is_no_chain_is_not_paid_as_one():
    for alone in (ONE_QUERY, ROUND, PARSED, (SYNC,), (PARSE, DESCRIBE, SYNC)):
        assert entered((alone, ANNA), (ONE_QUERY, BERT)).pay_chain(said("1 2 T D C Z:I")) == ([], UNUSUAL)
    assert Ledger().pay_chain(said("1 2 T D C Z:I")) == ([], UNUSUAL)
    chain = chained([(ONE_QUERY, "")] * 2)
    assert chain.pay_answers(said("1 2 T D C 1 2 T D C Z:I")) == ([], 0)
    assert chain.pay_whole(said("1 2 T D C 1 2 T D C Z:I")) is None


@given(st.lists(LINK, min_size=1, max_size=5), st.binary(max_size=40), st.integers(0, 200))
def test_noise_in_a_chain_is_never_paid_but_as_message_by_message(units, noise, at):
    data = answer_to(units)
    data = data[:at] + noise + data[at + len(noise) :]
    ledger = chained(units)
    paid, pos = ledger.pay_chain(data)
    if not paid:
        assert pos in (CUT, UNUSUAL)
    else:
        assert by_message(units, data[:pos])[0] == paid
