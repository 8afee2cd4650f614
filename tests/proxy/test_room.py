"""Room is made by one server at a time, idle before busy, and never by one that listens."""

from proxy.pool import Pool
from proxy.room import doom, evict, is_last_place
from proxy.states import IDLE, LINKED, Closing
from tests.fakes import FakeWorld, make_limits


def a_world(**sizes):
    """Pools by name with so many idle servers."""
    world = FakeWorld(pool_size=None)
    pools = {}
    with world.loop.running():
        for name, size in sizes.items():
            pools[name] = Pool("shop", name, make_limits(pool_size=None), world)
            pools[name].welcome = {}
            for _ in range(size):
                world.new_server(pools[name])
    return world, pools


def test_an_idle_server_of_the_largest_goes_and_then_nobody_until_it_has_gone():
    world, pools = a_world(small=1, large=3)
    with world.loop.running():
        evict([*pools.values()])
        evict([*pools.values()])
    assert [len(pool.places[IDLE]) for pool in pools.values()] == [1, 2]


def test_of_busy_servers_one_is_told_to_go_at_its_next_release():
    world, pools = a_world(large=2)
    with world.loop.running():
        for server in list(pools["large"].places[IDLE]):
            pools["large"].places[IDLE].pop(server)
            server.state = LINKED
            pools["large"].places[LINKED][server] = None
        doom([pools["large"]])
        doom([pools["large"]])
    assert [server.doomed for server in pools["large"].places[LINKED]] == [Closing.EVICTED, None]


def test_where_there_is_no_limit_there_is_no_last_place():
    _, pools = a_world(large=2)
    assert not is_last_place(None, pools.values())
    assert is_last_place(1, pools.values())
    assert not is_last_place(3, pools.values())
