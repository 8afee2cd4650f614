"""What the process before us still has counts within our limits, and no longer than it is there."""

import pytest

from proxy.elders import Elders
from proxy.states import Waiting
from tests.whole import INI, a_proxy

ROWS = [("shop", "anna", 3, 0), ("shop", "bert", 1, 1), ("depot", "anna", 2, 0)]


def test_they_are_counted_by_database_and_user_and_no_longer_than_they_are_there():
    elders = Elders()
    elders.learn(7, ROWS)
    assert elders.clients == 7
    assert (elders.of_database("shop"), elders.of_user("anna")) == (5, 5)
    elders.learn(1, [("shop", "anna", 1, 0)])
    assert (elders.of_database("shop"), elders.of_user("bert")) == (1, 0)


def test_clients_count_there_until_they_come_and_never_below_nobody():
    elders = Elders()
    elders.learn(5, ROWS, [("shop", "anna", 2), ("depot", "anna", 1), ("shop", "bert", 2)])
    assert (elders.clients_of_database("shop"), elders.clients_of_user("anna")) == (4, 3)
    for _ in range(3):
        elders.came("shop", "anna")
    assert (elders.clients_of_database("shop"), elders.clients_of_user("anna"), elders.clients) == (2, 1, 2)
    elders.learn(0, [])
    elders.came("shop", "bert")
    assert (elders.clients_of_user("bert"), elders.clients) == (0, 0)


def test_who_listens_does_not_count_in_a_pool_that_serves(tmp_path):
    file = tmp_path / "proxy.ini"
    file.write_text(f"{INI}default_pool_size = 2\n")
    proxy = a_proxy(file)
    proxy.pools.elders.learn(1, [("shop", "bert", 1, 1)])
    assert proxy.pools.find(proxy.config.find_database("shop"), "bert").find_obstacle() is None
    hub = proxy.find_hub(proxy.pools.find(proxy.config.find_database("shop"), "bert"))
    assert hub.ear.pool.find_obstacle() is None, "nor the other way round"


@pytest.mark.parametrize(
    ("settings", "obstacle"),
    [
        ("default_pool_size = 3", Waiting.ELDERS),
        ("default_pool_size = 4", None),
        ("max_db_connections = 5", Waiting.DATABASE_LIMIT),
        ("max_db_connections = 6", None),
        ("max_user_connections = 5", Waiting.USER_LIMIT),
        ("max_user_connections = 6", None),
    ],
)
def test_nobody_opens_a_server_that_would_be_one_too_many_together_with_theirs(settings, obstacle, tmp_path):
    file = tmp_path / "proxy.ini"
    file.write_text(f"{INI}{settings}\n")
    proxy = a_proxy(file)
    pool = proxy.pools.find(proxy.config.find_database("shop"), "anna")
    proxy.pools.elders.learn(7, ROWS)
    assert pool.find_obstacle() is obstacle
    proxy.pools.elders.learn(0, [])
    assert pool.find_obstacle() is None
