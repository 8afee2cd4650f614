"""Over how many servers lines are spread: what is tried, what is kept, what is taken back."""

from itertools import pairwise

import pytest

from proxy.spread import FIRST, IDLE_RATE, LONGEST_REST, PERIOD, REST, WIDEST, Spread


class World:
    """`rate` queries per second, by width."""

    def __init__(self, rate, *, fixed=0):
        self.now, self.count, self._rate = 0.0, 0.0, rate
        self.spread = Spread(self.now)
        self.spread.set_limit(fixed)
        self.widths = []

    def run(self, periods, span=PERIOD):
        for _ in range(periods):
            self.now += span
            self.count += self._rate(self.spread.width) * span
            self.spread.note(self.now, int(self.count))
            self.widths.append(self.spread.width)
        return self

    @property
    def usual(self):
        """The width of most of the last periods."""
        return max(set(self.widths[-60:]), key=self.widths[-60:].count)


def test_it_begins_with_few():
    assert Spread(0.0).width == FIRST


@pytest.mark.parametrize("servers", [1, 2, 7])
def test_what_an_administrator_says_is_not_tried(servers):
    assert set(World(lambda width: 10_000 * width, fixed=servers).run(50).widths) == {servers}


def test_and_when_he_takes_it_back_it_goes_on_from_there():
    world = World(lambda width: 10_000.0, fixed=5)
    world.run(3).spread.set_limit(0)
    assert world.spread.width == 5
    assert world.run(100).usual < 5


def test_what_he_says_ends_a_trial():
    world = World(lambda width: 10_000.0).run(2)
    assert world.spread.width == 2, "a step is under trial"
    world.spread.set_limit(1)
    world.run(3).spread.set_limit(0)
    assert set(world.run(3, span=10 * PERIOD).widths[2:]) == {1}


@pytest.mark.parametrize("best", [1, 2, 4, 6])
def test_it_finds_the_width_beyond_which_nothing_is_gained(best):
    world = World(lambda width: 10_000.0 * min(width, best)).run(400)
    assert world.usual == best
    assert set(world.widths[-60:]) <= {best - 1, best, best + 1}


def test_where_going_back_costs_what_a_step_has_gained_the_next_is_tried_at_once():
    assert World(lambda width: 10_000.0 * min(width, 3)).run(11).widths == [1, 2, 1, 2, 3, 2, 3, 4, 3, 3, 3]


def test_load_that_begins_to_come_is_no_gain():
    load = iter([*(5_000.0 * 1.2**n for n in range(8)), *[25_000.0] * 60])
    world = World(lambda width: next(load)).run(60)
    assert set(world.widths) == {1, 2}
    assert world.usual == 1


def test_a_step_back_that_low_load_interrupts_stays():
    load = [10_000.0]
    world = World(lambda width: load[0] * width).run(3)
    assert world.widths == [1, 2, 1]
    load[0] = IDLE_RATE / 4
    assert world.run(1).spread.width == 1


def test_a_trial_that_is_interrupted_by_low_load_is_not_judged_by_what_comes_hours_later():
    """At night there is nothing to do. In the morning there is twice as much, and the step has gained nothing."""
    load = [10_000.0]
    world = World(lambda width: load[0]).run(2)
    assert world.spread.width == 2, "a step is under trial"
    load[0] = IDLE_RATE / 2
    assert world.run(100).spread.width == 1
    load[0] = 20_000.0
    assert world.run(60).usual == 1
    assert set(world.widths[2:]) == {1, 2}


def test_nor_is_one_in_which_nobody_has_looked():
    world = World(lambda width: 10_000.0).run(2)
    assert world.spread.width == 2
    world.run(1, span=10 * PERIOD)
    assert world.spread.width == 1


def test_the_first_period_after_a_silence_is_compared_with_nothing():
    """Load came in the middle of it, so whatever is tried next would seem to gain."""
    load = [IDLE_RATE / 2]
    world = World(lambda width: load[0]).run(5)
    load[0] = 5_000.0
    world.run(1)
    load[0] = 10_000.0
    assert world.run(2).widths[-3:] == [1, 2, 1]


def test_where_all_are_alike_the_smallest_is_kept():
    assert World(lambda width: 20_000.0).run(300).usual == 1


def test_where_more_is_worse_it_comes_back():
    assert World(lambda width: 20_000.0 / width).run(300).usual == 1


def test_it_is_never_less_than_one_or_more_than_the_widest():
    widths = World(lambda width: 2_000.0 * 1.2**width).run(2_000).widths
    assert max(widths) == WIDEST
    assert min(World(lambda width: 20_000.0 / width).run(500).widths) == 1


def test_between_trials_it_rests():
    widths = World(lambda width: 20_000.0).run(200).widths
    changes = [at for at in range(1, len(widths)) if widths[at] != widths[at - 1]]
    starts = [one for one, other in pairwise(changes) if other - one > 1]
    assert all(other - one >= REST for one, other in pairwise(starts))


def test_what_fails_again_and_again_is_tried_more_seldom():
    widths = World(lambda width: 20_000.0 / width).run(400).widths
    trials = [at for at in range(1, len(widths)) if widths[at] > widths[at - 1]]
    rests = [other - one for one, other in pairwise(trials)]
    assert rests == sorted(rests)
    assert rests[0] < 3 * REST
    assert rests[-1] == LONGEST_REST + 2
    assert len(trials) < 12


def test_until_load_has_been_low():
    load = [20_000.0]
    world = World(lambda width: load[0] / width).run(400)
    load[0] = 0.0
    world.run(1)
    load[0] = 20_000.0
    assert world.run(REST + 2).widths[-REST - 2 :].count(2) == 1


def test_with_little_to_do_nothing_is_learnt():
    assert set(World(lambda width: IDLE_RATE / 2).run(50).widths) == {FIRST}


def test_nor_after_a_long_silence():
    assert set(World(lambda width: 50_000.0).run(20, span=3 * PERIOD).widths) == {FIRST}


def test_nor_before_a_period_is_over():
    assert set(World(lambda width: 50_000.0).run(9, span=PERIOD / 10).widths) == {FIRST}
