"""A stranger cannot fill the log, and nothing is left out without being counted."""

from proxy.log.seldom import PERIOD, Seldom
from tests.fakes import FakeClock


def test_the_first_is_said_and_the_others_are_counted() -> None:
    clock = FakeClock()
    seldom = Seldom(clock.now)
    assert [seldom.is_time() for _ in range(5)] == [True, False, False, False, False]
    assert seldom.take_left_out() == 0, "not yet"
    clock.advance(PERIOD)
    assert seldom.take_left_out() == 4
    assert seldom.take_left_out() == 0


def test_the_count_takes_the_place_of_a_line() -> None:
    clock = FakeClock()
    seldom = Seldom(clock.now)
    seldom.is_time()
    seldom.is_time()
    clock.advance(PERIOD)
    assert seldom.take_left_out() == 1
    assert not seldom.is_time()


def test_what_happens_rarely_is_said_each_time() -> None:
    clock = FakeClock()
    seldom = Seldom(clock.now)
    for _ in range(3):
        assert seldom.is_time()
        clock.advance(PERIOD)
    assert seldom.take_left_out() == 0


def test_how_seldom_may_be_said():
    clock = FakeClock()
    seldom = Seldom(clock.now, 60.0)
    heard = []
    for _ in range(13):
        heard.append(seldom.is_time())
        clock.advance(PERIOD)
    assert [at for at, was_said in enumerate(heard) if was_said] == [0, 6, 12]
