"""All pools: which serves whom, the limits they share, and what a reload does to them."""

import asyncio

import pytest

from protocol.parameters import UNSURE, difference
from proxy.config.entries import Database, User
from proxy.config.ini import Config
from proxy.config.reload import compare
from proxy.config.settings import Settings
from proxy.failing import LoginFailed
from proxy.laws import check_pool
from proxy.outbox import Outbox
from proxy.places import Endpoint
from proxy.pools import STARVING, Pools
from proxy.states import CLOSING, IDLE, LINKED, OPENING, USED, Closing, PoolState, Waiting, move
from tests.fakes import FakeClock, FakeLog
from tests.proxy.test_pool import Client, Server


def config(databases=(), users=(), section="proxy", **settings):
    return Config(
        path="",
        section=section,
        settings=Settings(**settings),
        databases={each.name: each for each in databases},
        users={each.name: each for each in users},
    )


class World:
    def __init__(self, databases, users=(), **settings):
        self.clock, self.log, self.outbox = FakeClock(), FakeLog(), Outbox()
        self.config = config(databases, users, **settings)
        self.pools = Pools(self, self.config)

    def pool(self, database, user="web"):
        return self.pools.find(self.config.find_database(database), user)

    def open_server(self, pool):
        return Server(pool)

    def find_obstacle(self, pool):
        return self.pools.find_obstacle(pool)

    def make_room(self, pool, obstacle):
        self.pools.make_room(pool, obstacle)

    def room_made(self, pool):
        self.pools.room_made(pool)

    def finish(self):
        """Everything that is being opened or closed is open or closed."""
        for _ in range(20):
            for pool in self.pools:
                for server in list(pool.places[OPENING]):
                    pool.server_opened(server, {})
                for server in list(pool.places[CLOSING]):
                    pool.server_closed(server)
                check_pool(pool)

    def ask(self, pool, count=1):
        clients = [Client(pool) for _ in range(count)]
        for client in clients:
            client.ask()
        return clients

    def reload(self, new):
        changes = compare(self.config, new)
        self.config = changes.effective
        self.pools.reconcile(changes, {})


SHOP, BLOG = Database(name="shop"), Database(name="blog")


def test_a_pool_is_made_once_per_database_and_user():
    world = World([SHOP, BLOG])
    assert world.pool("shop") is world.pool("shop")
    assert world.pool("shop") is not world.pool("shop", "other")
    assert world.pool("shop") is not world.pool("blog")


def test_a_database_with_a_user_of_its_own_has_one_pool_for_all():
    world = World([Database(name="shop", user="app")])
    assert world.pool("shop", "anna") is world.pool("shop", "bert")
    assert world.pool("shop").user == "app"


def test_a_limit_of_a_database_holds_over_all_its_users():
    world = World([Database(name="shop", max_db_connections=3)])
    pools = [world.pool("shop", user) for user in ("anna", "bert")]
    for pool in pools:
        world.ask(pool, 5)
    world.finish()
    assert sum(pool.size for pool in pools) == 3
    assert pools[1].find_obstacle() is Waiting.DATABASE_LIMIT


def test_a_limit_of_a_user_holds_over_all_databases():
    world = World([SHOP, BLOG], [User(name="web", max_user_connections=3)])
    pools = [world.pool("shop"), world.pool("blog")]
    for pool in pools:
        world.ask(pool, 5)
    world.finish()
    assert sum(pool.size for pool in pools) == 3
    assert pools[0].find_obstacle() is Waiting.USER_LIMIT


def test_an_idle_neighbour_makes_room_and_the_limit_holds_while_it_leaves():
    world = World([Database(name="shop", max_db_connections=1)])
    anna, bert = world.pool("shop", "anna"), world.pool("shop", "bert")
    world.ask(anna)
    world.finish()
    anna_client = next(iter(anna.places[LINKED]))
    move(anna_client, IDLE)
    waiting = world.ask(bert)[0]
    assert anna.size == 1
    assert bert.size == 0
    assert anna_client.why is Closing.EVICTED
    world.finish()
    assert waiting.server is not None
    assert (anna.size, bert.size) == (0, 1)


def test_a_neighbour_that_is_never_idle_has_to_give_way_to_who_has_waited_long():
    world = World([Database(name="shop", max_db_connections=1)])
    anna, bert = world.pool("shop", "anna"), world.pool("shop", "bert")
    busy = world.ask(anna)[0]
    world.finish()
    waiting = world.ask(bert)[0]
    world.pools.relieve(bert)
    assert busy.server.doomed is None
    world.clock.advance(STARVING + 0.1)
    world.pools.relieve(bert)
    assert busy.server.doomed is Closing.EVICTED
    busy.give_back()
    world.finish()
    assert waiting.server is not None


def test_a_free_place_goes_to_whoever_has_waited_longest_in_whichever_pool():
    world = World([Database(name="shop", max_db_connections=1)])
    anna, bert, carl = (world.pool("shop", user) for user in ("anna", "bert", "carl"))
    world.ask(anna)
    world.finish()
    late_pool_first = world.ask(carl)[0]
    world.clock.advance(0.5)
    world.ask(bert)
    server = next(iter(anna.places[LINKED]))
    server.close(Closing.ADMIN)
    anna.server_closed(server)
    world.finish()
    assert late_pool_first.server is not None


def test_a_paused_database_stays_paused_for_pools_that_are_made_later():
    world = World([SHOP, BLOG])
    world.pools.pause("shop")
    assert world.pool("shop").state is PoolState.PAUSED
    assert world.pool("blog").state is PoolState.OPEN
    world.pools.resume("shop")
    assert world.pool("shop").state is PoolState.OPEN
    world.pools.pause(None)
    assert world.pool("blog", "later").state is PoolState.PAUSED


def test_new_limits_hold_at_once_and_those_who_wait_profit():
    world = World([Database(name="shop", pool_size=1)])
    clients = world.ask(world.pool("shop"), 3)
    world.finish()
    assert [client.server is not None for client in clients] == [True, False, False]
    world.reload(config([Database(name="shop", pool_size=3)]))
    world.finish()
    assert all(client.server for client in clients)


def test_servers_of_a_changed_address_are_replaced_when_they_are_free():
    world = World([SHOP])
    pool = world.pool("shop")
    busy, resting = world.ask(pool, 2)
    world.finish()
    resting.give_back()
    world.reload(config([Database(name="shop", port=9999)]))
    assert pool.places[CLOSING]
    assert busy.server.doomed is Closing.STALE
    assert pool.welcome is None


def test_a_changed_fallback_replaces_the_servers_of_every_database_it_serves():
    world = World([Database(name="*", port=1), Database(name="blog", port=1)])
    for name in ("anything", "blog"):
        world.ask(world.pool(name))
    world.finish()
    world.reload(config([Database(name="*", port=2), Database(name="blog", port=1)]))
    doomed = {pool.database: next(iter(pool.places[LINKED])).doomed for pool in world.pools}
    assert doomed == {"anything": Closing.STALE, "blog": None}


def test_a_database_that_is_gone_takes_its_clients_along():
    world = World([SHOP, BLOG])
    pool = world.pool("shop")
    client = world.ask(pool)[0]
    pool.clients.add(client)
    world.reload(config([BLOG]))
    assert client.closed is Closing.DATABASE_GONE
    assert pool.state is PoolState.DYING
    assert pool not in list(world.pools)


def test_who_logs_in_to_a_database_that_goes_is_told_and_does_not_wait_for_ever():
    async def main():
        world = World([SHOP, BLOG])
        welcome = asyncio.ensure_future(world.pool("shop").wait_welcome())
        await asyncio.sleep(0)
        world.reload(config([BLOG]))
        with pytest.raises(LoginFailed, match="database removed"):
            await asyncio.wait_for(welcome, 1)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("database", "users", "expected"),
    [
        (Database(name="shop", user="app", min_pool_size=2), ["anna"], ["shop/app"]),
        (Database(name="shop", min_pool_size=2), ["anna", "bert"], ["shop/anna", "shop/bert"]),
        (Database(name="shop"), ["anna"], []),
        (Database(name="*", min_pool_size=2), ["anna"], []),
    ],
)
def test_pools_that_want_servers_are_made_before_the_first_client(database, users, expected):
    world = World([database])
    warm = world.pools.prewarm(users)
    assert [repr(pool) for pool in warm] == expected
    assert all(pool.is_kept_warm for pool in warm)


def test_the_general_minimum_does_not_open_servers_for_a_crowd_of_users():
    assert World([SHOP], min_pool_size=2).pools.prewarm(["anna", "bert"]) == []
    assert len(World([SHOP], min_pool_size=2).pools.prewarm(["anna"])) == 1


def test_in_a_file_of_pgbouncers_an_entry_without_user_is_filled_from_its_first_client_on():
    """There it holds where a user is named; a user list of 200 would become 200 times as many servers at the start."""
    plain, forced = Database(name="shop", min_pool_size=2), Database(name="blog", user="app", min_pool_size=2)
    warm = World([plain, forced], section="pgbouncer").pools.prewarm(["anna", "bert"])
    assert [repr(pool) for pool in warm] == ["blog/app"]


def test_killing_closes_everything_and_leaves_the_database_paused():
    world = World([SHOP])
    pool = world.pool("shop")
    client = world.ask(pool)[0]
    pool.clients.add(client)
    world.finish()
    world.pools.kill("shop")
    assert client.closed is Closing.KILLED
    assert pool.state is PoolState.PAUSED


ANYTHING = Database(name="*")


def rest(world, pool):
    """Somebody has used `pool`, and everything there has left."""
    (client,) = world.ask(pool)
    world.finish()
    world.pools.forget_unused()
    client.give_back()
    pool.close_idle(Closing.IDLE_TIMEOUT)
    world.finish()
    assert pool.size == 0


def test_a_pool_of_a_database_that_does_not_exist_is_forgotten_at_the_next_sweep():
    world = World([ANYTHING])
    pools = [world.pool(name) for name in ("none", "nothing", "nowhere")]
    world.pools.forget_unused()
    assert list(world.pools) == []
    assert list(world.pools.dying) == []
    assert world.pool("none") not in pools


def test_a_pool_whose_login_has_failed_is_remembered_until_it_may_be_tried_again():
    world = World([ANYTHING])
    pool = world.pool("none")
    pool.opening_failed(LoginFailed("3D000", "no such database"))
    world.pools.forget_unused()
    assert list(world.pools) == [pool]
    world.clock.advance(1.0)
    world.pools.forget_unused()
    assert list(world.pools) == []


def test_a_pool_of_a_found_database_is_forgotten_when_nobody_has_used_it_for_long():
    world = World([ANYTHING], autodb_idle_timeout=100.0)
    pool = world.pool("found")
    rest(world, pool)
    world.clock.advance(100.0)
    world.pools.forget_unused()
    assert list(world.pools) == [pool]
    world.clock.advance(0.1)
    world.pools.forget_unused()
    assert list(world.pools) == []


def test_a_pool_in_use_is_never_forgotten_and_its_time_begins_when_it_no_longer_is():
    world = World([ANYTHING], autodb_idle_timeout=100.0)
    pool = world.pool("found")
    rest(world, pool)
    pool.clients.add(client := Client(pool))
    for _ in range(3):
        world.clock.advance(200.0)
        world.pools.forget_unused()
    pool.clients.discard(client)
    world.clock.advance(99.0)
    world.pools.forget_unused()
    assert list(world.pools) == [pool]


def test_without_a_limit_a_pool_of_a_found_database_stays():
    world = World([ANYTHING], autodb_idle_timeout=None)
    rest(world, world.pool("found"))
    world.clock.advance(1e9)
    world.pools.forget_unused()
    assert len(list(world.pools)) == 1


def test_a_pool_of_a_configured_database_is_never_forgotten():
    world = World([SHOP, ANYTHING], autodb_idle_timeout=100.0)
    never_used, used = world.pool("shop", "anna"), world.pool("shop", "bert")
    rest(world, used)
    world.clock.advance(1e9)
    world.pools.forget_unused()
    assert set(world.pools) == {never_used, used}


def test_who_is_logging_in_keeps_the_pool_alive():
    async def main():
        world = World([ANYTHING])
        pool = world.pool("slow")
        welcome = asyncio.ensure_future(pool.wait_welcome())
        await asyncio.sleep(0)
        world.pools.forget_unused()
        assert list(world.pools) == [pool]
        world.finish()
        assert await asyncio.wait_for(welcome, 1) == {}

    asyncio.run(main())


class Tunnel:
    """As little as the pools ask."""

    def __init__(self, pools, pool):
        self.pool, self.why = pool, None
        pools.tunnels[self] = None

    def close(self, why):
        self.why = why


def test_tunnels_count_where_limits_span_pools_and_nowhere_else():
    world = World([SHOP, BLOG], max_db_connections=2)
    shop, blog = world.pool("shop"), world.pool("blog")
    first, second = Tunnel(world.pools, shop), Tunnel(world.pools, shop)
    assert world.pools.find_obstacle(shop) is Waiting.DATABASE_LIMIT
    assert world.pools.find_obstacle(blog) is None
    assert world.pools.find_obstacle(shop, first) is world.pools.find_obstacle(shop, second) is None
    third = Tunnel(world.pools, shop)
    assert world.pools.find_obstacle(shop, third) is Waiting.DATABASE_LIMIT
    assert (shop.size, world.pools.count_servers([shop]), world.pools.count_servers([blog])) == (0, 3, 0)


def test_a_dying_pool_is_counted_until_its_last_tunnel_is_gone():
    world = World([SHOP])
    pool = world.pool("shop")
    tunnel = Tunnel(world.pools, pool)
    old, world.config = world.config, config([BLOG])
    world.pools.reconcile(compare(old, world.config), {})
    assert tunnel.why is Closing.DATABASE_GONE
    assert world.pools.dying == [pool]
    del world.pools.tunnels[tunnel]
    world.pools.room_made(pool)
    assert not world.pools.dying
    assert world.pools.of_database("shop") == []


def test_kill_closes_the_tunnels_of_that_database_only():
    world = World([SHOP, BLOG])
    mine, other = Tunnel(world.pools, world.pool("shop")), Tunnel(world.pools, world.pool("blog"))
    world.pools.kill("shop")
    assert (mine.why, other.why) == (Closing.KILLED, None)
    world.pools.close_all(None, Closing.SHUTDOWN)
    assert other.why is Closing.SHUTDOWN


# Hosts that move.


def at(pool, host, address, state):
    """A server of `pool`, opened at that address, and where it is now."""
    server = Server(pool)
    server.endpoint = Endpoint(host, 5432, address)
    pool.places[OPENING][server] = None
    for step in {OPENING: (), LINKED: (LINKED,), IDLE: (IDLE,), USED: (IDLE, USED)}[state]:
        move(server, step)
    return server


def test_servers_at_an_address_that_is_lost_leave_at_their_next_release_and_the_idle_ones_now():
    world = World([SHOP])
    pool = world.pool("shop")
    opening, linked, idle, used = (at(pool, "db", "1.1.1.1", state) for state in (OPENING, LINKED, IDLE, USED))
    others = [at(pool, "db", "1.1.1.2", IDLE), at(pool, "other", "1.1.1.1", IDLE)]
    world.pools.retire_addresses("db", {"1.1.1.1", "1.1.1.9"})
    assert idle.why is used.why is linked.doomed is opening.doomed is Closing.OBSOLETE
    assert [(each.state, each.doomed) for each in others] == [(IDLE, None)] * 2
    pool.release(linked)
    assert linked.why is Closing.OBSOLETE
    pool.server_opened(opening, {})
    assert opening.why is Closing.OBSOLETE


def test_a_connection_that_listens_is_never_released_and_leaves_at_once():
    world = World([SHOP])
    ear = world.pools.find_hub(world.pool("shop")).ear.pool
    linked = at(ear, "db", "1.1.1.1", LINKED)
    world.pools.retire_addresses("db", {"1.1.1.1"})
    assert linked.why is Closing.OBSOLETE


def test_hosts_in_use_are_those_that_servers_are_connected_to():
    world = World([SHOP, BLOG])
    at(world.pool("shop"), "db", "1.1.1.1", IDLE)
    at(world.pool("blog"), "10.0.0.1", "", LINKED)
    world.pool("shop").open_one()
    assert world.pools.hosts_in_use() == {"db", "10.0.0.1"}


def lines(world, text):
    return [line for line in world.log.lines if text in line]


def test_the_first_pool_of_a_database_that_only_the_star_knows_is_worth_a_line():
    world = World([SHOP, ANYTHING])
    world.pool("found", "anna"), world.pool("found", "bert"), world.pool("shop")
    assert lines(world, "auto-database") == ["LOG registered new auto-database: db=found"]


def test_a_pool_without_clients_goes_after_its_time_with_its_idle_servers():
    world = World([SHOP], pool_idle_timeout=30.0)
    pool = world.pool("shop")
    pool.clients.add(client := Client(pool))
    client.ask()
    world.finish()
    client.give_back()
    world.clock.advance(100.0)
    world.pools.forget_unused()
    assert list(world.pools) == [pool], "somebody is there"
    pool.clients.discard(client)
    for _ in range(2):
        world.pools.forget_unused()
        world.clock.advance(30.0)
    assert list(world.pools) == [pool]
    (server,) = pool.places[IDLE]
    world.clock.advance(0.1)
    world.pools.forget_unused()
    assert server.why is Closing.POOL_IDLE
    assert lines(world, "cleaning up idle pool") == ["LOG cleaning up idle pool shop/web"]
    pool.server_closed(server)
    assert list(world.pools) == list(world.pools.dying) == []


@pytest.mark.parametrize("keep", ["warm", "paused", "asked for", "waited for", "no limit"])
def test_a_pool_that_is_needed_stays(keep):
    world = World([SHOP], pool_idle_timeout=None if keep == "no limit" else 30.0)
    pool = world.pool("shop")
    pool.is_kept_warm = keep == "warm"
    if keep == "paused":
        world.pools.pause("shop")
    if keep == "waited for":
        world.ask(pool)
    for _ in range(4):
        world.pools.forget_unused()
        world.clock.advance(20.0)
        if keep == "asked for":
            world.pool("shop")
    assert list(world.pools) == [pool]


def test_the_same_pool_may_come_again():
    world = World([SHOP], pool_idle_timeout=30.0)
    old = world.pool("shop")
    world.pools.forget_unused()
    world.clock.advance(31.0)
    world.pools.forget_unused()
    assert world.pool("shop") is not old


def test_a_role_that_a_server_was_told_is_told_again_when_names_of_roles_may_have_changed():
    world = World([SHOP, BLOG])
    told, plain = world.pool("shop"), world.pool("blog")
    world.ask(told)
    world.ask(plain)
    world.finish()
    (clerk,), (nobody,) = told.places[LINKED], plain.places[LINKED]
    clerk.followed, nobody.followed = {"role": "clerk", "work_mem": "1MB"}, {"work_mem": "1MB"}
    before = nobody.followed
    world.pools.roles_changed()
    assert clerk.followed == {"role": UNSURE, "work_mem": "1MB"}
    assert difference({"role": "clerk", "work_mem": "1MB"}, clerk.followed).sets == {"role": "clerk"}
    assert nobody.followed is before
