"""Whether a kind of statement is trusted in a line: earned by fast and small answers, lost by what is typical."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.sharing import FIT, Verdict
from proxy.books import Book
from proxy.shapes import (
    ALONE_AT_FIRST,
    ALONE_AT_MOST,
    BUCKETS,
    LONG,
    NEEDED,
    NEEDED_AT_MOST,
    Doubt,
    Figures,
    Shape,
    find_bucket,
)

FAST, SLOW = 0.001, 0.1
SMALL, LARGE = 100, 100_000


def a_shape(verdict=FIT):
    return Shape("select 0", verdict, Book(frozenset(), 0.005, 16_384))


def trusted():
    shape = a_shape()
    while not shape.is_trusted:
        shape.note(FAST, SMALL)
    return shape


def count_until(shape, wanted, seconds=FAST, size=SMALL, most=10_000):
    for count in range(most):
        if shape.is_trusted is wanted:
            return count
        shape.note(seconds, size)
    raise AssertionError("never")


def test_trust_is_earned_by_a_few_fast_and_small_answers():
    shape = a_shape()
    assert not shape.is_trusted
    assert count_until(shape, True) == NEEDED


@pytest.mark.parametrize("verdict", [each for each in Verdict if each is not FIT])
def test_what_may_not_share_never_earns_it(verdict):
    shape = a_shape(verdict)
    for _ in range(100):
        shape.note(FAST, SMALL)
    assert not shape.is_trusted


@pytest.mark.parametrize(("seconds", "size", "why"), [(SLOW, SMALL, Doubt.SLOW), (FAST, LARGE, Doubt.LARGE)])
def test_slow_and_large_ones_earn_nothing_and_say_why(seconds, size, why):
    shape = a_shape()
    for _ in range(100):
        shape.note(seconds, size)
    assert not shape.is_trusted
    assert shape.doubted is why
    assert count_until(shape, True) == NEEDED


def test_one_slow_answer_says_nothing():
    shape = trusted()
    for _ in range(20):
        shape.note(SLOW, SMALL)
        for _ in range(5):
            shape.note(FAST, SMALL)
    assert shape.is_trusted


def test_what_is_typically_slow_is_trusted_no_more_soon():
    assert count_until(trusted(), False, SLOW) < 60


@pytest.mark.parametrize("fastest", [0.0, 1e-9, 1e-6, 1e-4])
def test_however_fast_it_was(fastest):
    """Times may come out as nothing, when what this process needs itself is taken off."""
    shape = a_shape()
    for _ in range(1_000):
        shape.note(fastest, SMALL)
    assert count_until(shape, False, SLOW) < 100
    assert shape.doubted is Doubt.SLOW


def test_a_single_large_one_is_enough():
    shape = trusted()
    shape.note(FAST, LARGE)
    assert not shape.is_trusted
    assert shape.doubted is Doubt.LARGE


def test_several_at_once_are_judged_by_their_average_size():
    shape = trusted()
    shape.note_all(10, FAST, 10 * SMALL)
    shape.note_all(100, FAST, LARGE)
    assert shape.is_trusted
    shape.note_all(2, FAST, LARGE)
    assert not shape.is_trusted


def test_each_loss_makes_it_dearer_up_to_a_bound():
    shape, needed = a_shape(), []
    for _ in range(12):
        needed.append(count_until(shape, True))
        shape.distrust()
    assert needed[0] == NEEDED
    assert needed == sorted(needed)
    assert needed[1] == 2 * NEEDED
    assert max(needed) == NEEDED_AT_MOST


def test_who_kept_it_for_long_begins_anew():
    shape = trusted()
    shape.distrust()
    count_until(shape, True)
    for _ in range(LONG):
        shape.note(FAST, SMALL)
    shape.distrust()
    assert count_until(shape, True) == NEEDED


def test_to_lose_what_one_never_had_costs_nothing():
    shape = a_shape()
    shape.distrust()
    assert count_until(shape, True) == NEEDED


def test_when_judgement_changes_trust_goes_with_it():
    shape = trusted()
    shape.judge(FIT, is_sharing=True)
    assert shape.is_trusted
    shape.judge(Verdict.CALLS, is_sharing=True)
    assert not shape.is_trusted
    shape.judge(FIT, is_sharing=True)
    assert not shape.is_trusted
    shape = trusted()
    shape.judge(FIT, is_sharing=False)
    assert not shape.is_trusted
    assert not shape.is_fit


def test_clearing_the_figures_costs_no_trust():
    shape = trusted()
    shape.clear()
    assert shape.is_trusted
    assert (shape.calls, shape.spent, shape.bytes) == (0, 0.0, 0)
    shape.distrust()


# Figures.


@given(st.floats(0, 10_000), st.floats(0, 10_000))
def test_buckets_are_in_order_and_none_is_missing(one, other):
    low, high = sorted((one, other))
    assert 0 <= find_bucket(low) <= find_bucket(high) < BUCKETS


@given(st.lists(st.floats(1e-6, 1_000), min_size=1, max_size=50))
def test_a_percentile_is_right_within_a_fifth(times):
    figures = Figures()
    for seconds in times:
        figures.times[find_bucket(seconds)] += 1
    exact = sorted(times)[-(-len(times) // 2) - 1]
    assert exact * 0.99 <= figures.find_percentile(0.5) <= exact * 1.2


def test_of_nothing_there_is_no_percentile():
    assert Figures().find_percentile(0.99) == 0.0


def test_figures_are_added():
    one, other = trusted(), trusted()
    other.errors = 2
    calls = one.calls + other.calls
    one.add(other)
    assert (one.calls, one.errors, sum(one.times)) == (calls, 2, calls)
    assert one.spent == pytest.approx(calls * FAST)
    assert one.bytes == calls * SMALL


def test_who_makes_groups_fail_again_and_again_goes_alone_for_longer_and_longer():
    shape, times = a_shape(), []
    for _ in range(12):
        shape.shun()
        times.append(shape.alone)
        shape.calls = shape.shy_until
    assert times[:3] == [ALONE_AT_FIRST, 2 * ALONE_AT_FIRST, 4 * ALONE_AT_FIRST]
    assert times[-1] == ALONE_AT_MOST


def test_who_has_behaved_for_as_long_as_it_went_alone_begins_anew():
    shape = a_shape()
    for _ in range(3):
        shape.shun()
        shape.calls = shape.shy_until + shape.alone
    shape.shun()
    assert shape.alone == ALONE_AT_FIRST
    assert not shape.is_sociable
