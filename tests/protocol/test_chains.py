"""Units up to one Sync: what is asked for them, and whose the answers are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import debts
from protocol.chains import ONE_SYNC, SHORT, Chain, count_whole, link, split
from protocol.debts import ASKED, BIND, DESCRIBE, EXECUTE, ONE_QUERY, PARSE, SYNC
from protocol.frontend import (
    SYNC_MESSAGE,
    Bind,
    Execute,
    Parse,
    Target,
    build_query,
    parse_bind,
    parse_describe,
    parse_execute,
    parse_parse,
)
from tests.play import asked, said

BOUND, DESCRIBED, PARSED, PARSED_ONLY = debts.BOUND, debts.BOUND_DESCRIBED, debts.PARSED_DESCRIBED, debts.PARSED
ROUNDS = {
    BOUND: "B:x E S", DESCRIBED: "B:x D E S", PARSED: "PARSE:=select_1 B D E S", PARSED_ONLY: "PARSE:=select_1 B E S",
}  # fmt: skip
KINDS = st.sampled_from([ONE_QUERY, BOUND, DESCRIBED, PARSED, PARSED_ONLY])
BEGINS = {ONE_QUERY: "", BOUND: "2", DESCRIBED: "2", PARSED: "1 2", PARSED_ONLY: "1 2"}
TEXTS = st.binary(max_size=3000).filter(lambda text: b"\0" not in text)


def messages(data):
    """(type, body) of each."""
    found, pos = [], 0
    while pos < len(data):
        end = pos + 1 + int.from_bytes(data[pos + 1 : pos + 5], "big")
        assert pos + 5 <= end <= len(data)
        found.append((data[pos : pos + 1], data[pos + 5 : end]))
        pos = end
    return found


def read(kind, body):
    readers = {b"P": parse_parse, b"B": parse_bind, b"D": parse_describe, b"E": parse_execute, b"S": bytes}
    return readers[kind](body)


# What is asked.


@given(TEXTS)
def test_a_query_is_asked_as_a_round_of_nameless_things_without_parameters_in_text(text):
    said = link([build_query(text)], [ONE_QUERY])
    assert [read(*each) for each in messages(said)] == [
        Parse(b"", text), Bind(b"", b""), Target(ord("P"), b""), Execute(b"", 0), b"",
    ]  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, SHORT - 7, SHORT - 6, SHORT - 5, 100_000])
def test_whatever_its_length(size):
    (_, parse), *_ = messages(link([build_query(b"x" * size)], [ONE_QUERY]))
    assert parse_parse(parse) == Parse(b"", b"x" * size)


@pytest.mark.parametrize("kind", ROUNDS)
def test_a_round_is_asked_as_it_was_but_for_its_sync(kind):
    data = asked(ROUNDS[kind])
    assert link([data, data], [kind, kind]) == data[: -len(SYNC_MESSAGE)] * 2 + SYNC_MESSAGE


@given(st.lists(KINDS, min_size=1, max_size=9))
def test_what_is_asked_earns_what_the_chain_says_and_has_one_sync_at_its_end(kinds):
    data = link([asked(ROUNDS.get(kind, "Q:select_1")) for kind in kinds], kinds)
    earned = [debts.REQUESTS[kind[0]] for kind, _ in messages(data)]
    assert (*Chain.of(kinds), *ONE_SYNC) == tuple(earned)
    assert earned.count(SYNC) == 1


@given(st.lists(KINDS, min_size=1, max_size=9))
def test_a_chain_knows_its_rounds(kinds):
    chain = Chain.of(kinds)
    assert all(is_same(one, ASKED if two is ONE_QUERY else two) for one, two in zip(chain.rounds, kinds, strict=True))
    assert len(chain) == sum(len(debts) - 1 for debts in chain.rounds)


def is_same(one, two):
    """Not only equal: a query's round earns the same as another's, but is answered otherwise."""
    return one is two


def test_a_query_earns_what_a_round_does():
    assert Chain.of([ONE_QUERY]) == (PARSE, BIND, DESCRIBE, EXECUTE)
    assert ASKED == PARSED
    assert ASKED is not PARSED


# What is answered.

ENDS = ["C:SELECT_1", "C:SELECT_0", "s", "D C:SELECT_1", "D D:x C:SELECT_2", "N:hm C", "D N:12 D S:a=1 C", "A:I C"]
NOISE = st.sampled_from(["", "", "", "N:1", "S:TimeZone=CET", "A:2"])
ANSWERS = st.tuples(KINDS, NOISE, NOISE, NOISE, st.sampled_from(ENDS))


def build(kind, before, between, behind, end):
    """What PostgreSQL says in a chain, and what the client hears."""
    columns = "" if kind in (BOUND, PARSED_ONLY) else "T"
    heads = ("1 2" if kind is ONE_QUERY else BEGINS[kind]).split()
    words = [before, *between.join(["", *[f" {head} " for head in heads]]).split(), behind, columns, end]
    heard = [word for word in words if not (kind is ONE_QUERY and word in ("1", "2"))]
    return said(" ".join(words)), said(" ".join([*heard, "Z:I"]))


@given(st.lists(ANSWERS, min_size=1, max_size=6))
def test_each_hears_what_it_would_have_heard_alone(answers):
    pairs = [build(*each) for each in answers]
    chain = Chain.of([kind for kind, *_ in answers])
    assert split(chain, b"".join(one for one, _ in pairs) + said("Z:I")) == [two for _, two in pairs]


def test_what_comes_behind_the_last_answer_is_the_last_ones():
    chain = Chain.of([ONE_QUERY, ONE_QUERY])
    data = said("1 2 T C:a 1 2 T C:b S:TimeZone=CET N:late Z:I")
    assert split(chain, data) == [said("T C:a Z:I"), said("T C:b S:TimeZone=CET N:late Z:I")]


def test_a_query_without_rows_is_not_told_that_it_has_none():
    chain = Chain.of([ONE_QUERY, PARSED])
    assert split(chain, said("1 2 n N:a C 1 2 n C Z:I")) == [said("N:a C Z:I"), said("1 2 n C Z:I")]


def test_a_row_that_looks_like_an_end_is_a_row():
    row = said("D:" + "x" * 60).replace(b"x" * 30, said("C:SELECT_1 Z:I 1 2")[:30])
    data = said("1 2 T") + row + said("C 1 2 T C Z:I")
    assert split(Chain.of([ONE_QUERY, ONE_QUERY]), data) == [said("T") + row + said("C Z:I"), said("T C Z:I")]


# How many are whole.


@given(st.lists(ANSWERS, min_size=1, max_size=6), st.integers(0, 2000))
def test_as_many_are_whole_as_have_come_to_their_end(answers, cut):
    pieces = [build(*each)[0] for each in answers]
    data = b"".join(pieces)[:cut]
    ends = [sum(map(len, pieces[: count + 1])) for count in range(len(pieces))]
    assert count_whole(data) == sum(end <= len(data) for end in ends)


@given(st.binary(max_size=200))
def test_however_many_are_whole_in_noise_there_is_an_end_to_counting(noise):
    assert 0 <= count_whole(noise) <= len(noise)
