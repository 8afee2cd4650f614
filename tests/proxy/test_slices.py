"""Floods, in slices: all of them together have so much of a turn, and nobody is forgotten."""

import pytest

from proxy import slices
from proxy.slices import Slices
from tests.fakes import FakeClock, FakeLoop


class Stream:
    """Has so many slices to take, each of which takes a second of `clock`."""

    def __init__(self, name, count, queue, clock, taken):
        self.name, self.left, self.queue, self.clock, self.taken = name, count, queue, clock, taken

    def take_slice(self):
        self.taken.append(self.name)
        self.clock.advance(1.0)
        self.left -= 1
        if self.left < 0:
            raise OSError(self.name)
        if self.left:
            self.queue.add(self)


@pytest.fixture(name="flood")
def _flood(monkeypatch):
    """`flood(budget, a=3, b=1)` begins one; `flood.turn()` is one turn of the loop, and returns who has had a slice."""
    return Flood(monkeypatch)


class Flood:
    def __init__(self, monkeypatch):
        self.clock, self.queue, self.taken = FakeClock(), Slices(), []
        self.loop = FakeLoop(self.clock)
        self.patch = monkeypatch
        monkeypatch.setattr("time.perf_counter", self.clock.now)

    def __call__(self, budget, **counts):
        self.patch.setattr(slices, "BUDGET", budget)
        with self.loop.running():
            for name, count in counts.items():
                self.queue.add(Stream(name, count, self.queue, self.clock, self.taken))
        return self

    def turn(self):
        """Of the real loop, which runs what was ready at its beginning."""
        self.taken.clear()
        ready, self.loop._ready = self.loop._ready, []
        assert len(ready) <= 1
        with self.loop.running():
            for handle in ready:
                handle._callback(*handle._args)
        return "".join(self.taken)


def test_everybody_has_a_slice_in_turn_until_he_has_had_all(flood):
    flood(100.0, a=3, b=1, c=2)
    assert [flood.turn() for _ in range(4)] == ["abc", "ac", "a", ""]


def test_all_of_them_together_have_so_much_of_a_turn_and_no_more(flood):
    flood(2.0, a=3, b=1, c=2)
    assert [flood.turn() for _ in range(5)] == ["ab", "ca", "ca", "", ""]


def test_at_least_one_gets_on_in_each_turn(flood):
    flood(0.0, a=2, b=2)
    assert [flood.turn() for _ in range(5)] == ["a", "b", "a", "b", ""]


def test_one_that_fails_holds_up_nobody(flood):
    flood(100.0, a=0, b=1)
    with pytest.raises(OSError, match="a"):
        flood.turn()
    assert flood.turn() == "b"
