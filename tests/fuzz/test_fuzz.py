"""Every parser, over what was found before and over what hypothesis thinks of: it raises our error, or it parses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.registry import CORPUS
from tests.fuzz.steps import count_steps
from tests.fuzz.targets import TARGETS

MAX_CORPUS = 200_000  # bytes
EACH = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@EACH
def test_what_was_found_before_raises_our_error_or_parses_and_costs_what_its_length_allows(target):
    inputs = [*target.seeds, *(path.read_bytes() for path in target.corpus)]
    target.feed(b"")  # what is made once is not counted
    for data in inputs:
        steps = count_steps(lambda data=data: target.run(data), *target.errors)
        assert steps <= target.base + target.each * len(data), data


@EACH
def test_anything_near_what_is_right_raises_our_error_or_parses(target):
    beginnings = st.sampled_from([*target.seeds, b""])
    cuts = st.tuples(beginnings, st.integers(0, 200), st.integers(0, 40), st.binary(max_size=40))

    @given(cuts.map(lambda it: it[0][: it[1]] + it[3] + it[0][it[1] + it[2] :]) | st.binary(max_size=200))
    def hunt(data):
        target.feed(data)

    hunt()


def test_the_corpus_is_small_and_nobodys_that_is_not_there():
    assert {path.name for path in CORPUS.iterdir()} <= set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < MAX_CORPUS
