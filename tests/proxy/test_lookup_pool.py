"""The pool that runs auth_query: small, for nobody else, and counted with all others."""

from proxy.lookup_pool import MOST, find_limits
from proxy.states import IDLE, OPENING, PoolState, Waiting
from tests.fakes import make_limits
from tests.whole import INI, a_pool, a_proxy


def a_whole(tmp_path, more=""):
    file = tmp_path / "proxy.ini"
    file.write_text(f"{INI}{more}\n")
    return a_proxy(file)


def test_it_is_as_large_as_others_but_not_larger_than_it_needs():
    for size, found in ((None, MOST), (20, MOST), (2, 2)):
        limits = find_limits(make_limits(pool_size=size, min_pool_size=2, reserve_pool_size=3, pool_mode="session"))
        assert (limits.pool_size, limits.min_pool_size, limits.reserve_pool_size) == (found, 0, 0)
        assert limits.pool_mode.value == "transaction"


def test_there_is_one_per_database_and_user_beside_that_of_clients(tmp_path):
    proxy = a_whole(tmp_path)
    lookup = proxy.pools.find_lookup("shop", "anna")
    assert lookup is proxy.pools.find_lookup("shop", "anna")
    assert lookup is not a_pool(proxy)
    assert lookup not in proxy.pools.serving()
    assert lookup in list(proxy.pools)
    assert lookup in proxy.pools.of_database("shop")


def test_limits_that_span_pools_count_it(tmp_path):
    proxy = a_whole(tmp_path, "max_db_connections = 1")
    lookup = proxy.pools.find_lookup("shop", "guard")
    lookup.places[OPENING][object()] = None
    assert a_pool(proxy).find_obstacle() is Waiting.DATABASE_LIMIT
    assert lookup.find_obstacle() is Waiting.DATABASE_LIMIT


def test_a_paused_database_is_paused_for_it_too(tmp_path):
    proxy = a_whole(tmp_path)
    early = proxy.pools.find_lookup("shop", "guard")
    proxy.pools.pause("shop")
    assert early.state is proxy.pools.find_lookup("shop", "warden").state is PoolState.PAUSED
    proxy.pools.resume("shop")
    assert early.state is PoolState.OPEN


def test_what_a_process_before_us_has_is_no_reason_to_ask_nothing(tmp_path):
    proxy = a_whole(tmp_path)
    proxy.pools.elders.learn(1, [("shop", "guard", 20, 0)])
    assert proxy.pools.find_lookup("shop", "guard").find_obstacle() is None


def test_it_goes_when_it_is_not_used_and_with_its_database(tmp_path):
    proxy = a_whole(tmp_path)
    proxy.pools.find_lookup("shop", "guard")
    proxy.pools.forget_unused()
    assert not proxy.pools.lookups()
    lookup = proxy.pools.find_lookup("shop", "guard")
    lookup.places[IDLE][object()] = None
    proxy.pools.forget_unused()
    assert proxy.pools.lookups() == {("shop", "guard"): lookup}


def test_a_pool_of_a_user_that_no_file_names_is_forgotten_like_that_of_a_database(tmp_path):
    proxy = a_whole(tmp_path, "autodb_idle_timeout = 60")
    pool = a_pool(proxy)
    pool.welcome = {}
    proxy.clock.advance(61)
    proxy.pools.forget_unused()
    assert proxy.pools.serving() == [pool], "the file may name its user"
    proxy.pools.passing.add(pool)
    proxy.pools.forget_unused()
    assert proxy.pools.serving() == []
