"""The clock, and the one that tests use in its place."""

from datetime import timedelta

import pytest

from proxy.clock import Clock
from tests.fakes import FakeClock


def test_now_never_runs_backwards():
    clock = Clock()
    moments = [clock.now() for _ in range(100)]
    assert moments == sorted(moments)


def test_wall_time_knows_its_time_zone():
    assert Clock().wall().utcoffset() is not None


def test_a_fake_clock_stands_still_until_told():
    clock = FakeClock()
    now, wall = clock.now(), clock.wall()
    assert (clock.now(), clock.wall()) == (now, wall)
    clock.advance(2.5)
    assert clock.now() == now + 2.5
    assert clock.wall() == wall + timedelta(seconds=2.5)


def test_a_fake_clock_does_not_run_backwards_either():
    with pytest.raises(AssertionError):
        FakeClock().advance(-1)
