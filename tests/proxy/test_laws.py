"""The laws notice when they are broken; that they are kept, all other tests of this ring ask after each step."""

import pytest

from proxy.laws import check_pool
from proxy.states import IDLE, LINKED, PoolState
from tests.play import Play


def test_a_pool_at_rest_keeps_the_laws():
    check_pool(Play().world.pool)


def test_a_server_in_the_wrong_place_is_noticed():
    play = Play()
    play.server.state = LINKED
    with pytest.raises(AssertionError, match="is LINKED, found in IDLE"):
        check_pool(play.world.pool)


def test_a_pool_above_its_size_is_noticed():
    play = Play(pool_size=1)
    pool = play.world.pool
    pool.places[IDLE][object()] = None
    with pytest.raises((AssertionError, AttributeError)):
        check_pool(pool)


def test_somebody_who_waits_while_a_server_is_idle_is_noticed():
    pool = Play().world.pool
    pool.waiting[object()] = None
    with pytest.raises(AssertionError, match="waits while a server is idle"):
        check_pool(pool)
    pool.state = PoolState.PAUSED
    check_pool(pool)
