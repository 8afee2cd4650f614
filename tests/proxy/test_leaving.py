"""The ways out are tried in test_client.py, where there are clients; here is what holds for all of them."""

from proxy.farewell import ERRORS, QUIET
from proxy.leaving import FLUSH_TIME, LAST_WORDS, Leaving
from proxy.states import Closing


def test_whoever_is_closed_by_us_can_be_told_why():
    assert set(ERRORS) | QUIET == set(Closing)


def test_patience_is_bounded():
    assert 0 < LAST_WORDS < FLUSH_TIME <= 10


def test_the_half_brings_no_state_of_its_own():
    assert Leaving.__slots__ == ()
