"""One pool: who gets which server and when, how it grows, and that no limit is ever passed."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.failing import FIRST_RETRY, LoginFailed
from proxy.laws import check_pool
from proxy.outbox import Outbox
from proxy.pool import MAX_DERIVED, MAX_INTERNED, OPENING_AT_ONCE, Pool
from proxy.states import (
    CLEANING,
    CLOSED,
    CLOSING,
    IDLE,
    LINKED,
    OPENING,
    TESTING,
    USED,
    Closing,
    PoolState,
    Waiting,
    forget,
    move,
)
from tests.fakes import FakeClock, FakeLog, make_limits

SORRY = LoginFailed("28P01", "password authentication failed")
PASSING = LoginFailed("57P01", "terminating connection due to administrator command")


class Server:
    """As little as a pool asks."""

    followed = {}  # noqa: RUF012
    endpoint = None

    def __init__(self, pool):
        self.pool, self.state, self.doomed, self.why, self.opening = pool, OPENING, None, None, None

    def close(self, why):
        if self.state < CLOSING:
            self.why = why
            move(self, CLOSING)

    def test(self):
        pass

    def hang_up(self):
        self.pool.server_closed(self)


class Client:
    followed = Server.followed
    tag = "C-0x1: shop/web@10.0.0.7:51234"

    def __init__(self, pool, on_resume=None):
        self.pool, self.server, self.waiting_since, self.on_resume, self.closed = pool, None, 0.0, on_resume, None

    def ask(self):
        server = self.pool.acquire(self)
        if server is not None:
            self.resume(server)
        return self

    def resume(self, server):
        move(server, LINKED)
        self.server = server
        if self.on_resume:
            self.on_resume(self)

    def give_back(self):
        server, self.server = self.server, None
        self.pool.release(server)

    def close(self, why):
        self.closed = why
        self.pool.waiting.pop(self, None)


class World:
    def __init__(self, **limits):
        self.clock, self.log, self.outbox = FakeClock(), FakeLog(), Outbox()
        self.obstacle, self.wanted, self.opened = None, [], []
        self.pool = Pool("shop", "web", make_limits(**{"pool_size": 2, **limits}), self)

    def open_server(self, pool):
        server = Server(pool)
        self.opened.append(server)
        return server

    def find_obstacle(self, pool):
        return self.obstacle

    def make_room(self, pool, obstacle):
        self.wanted.append(obstacle)

    def room_made(self, pool):
        pool.grow()

    def finish(self, count=None):
        """The servers that are being opened are open."""
        for server in list(self.pool.places[OPENING])[:count]:
            self.pool.server_opened(server, {"TimeZone": "UTC"})
        check_pool(self.pool)
        return self

    def clients(self, count):
        return [Client(self.pool).ask() for _ in range(count)]

    def warm(self, count):
        """So many idle servers."""
        for _ in range(count):
            self.pool.open_one()
        return self.finish()


def test_an_idle_server_is_handed_out_at_once():
    world = World().warm(1)
    assert world.clients(1)[0].server is world.opened[0]


def test_the_server_used_last_is_used_first():
    world = World(pool_size=3).warm(3)
    first, second, third = world.clients(3)
    for client in (second, third, first):
        client.give_back()
    assert world.clients(1)[0].server is world.opened[2 - 0]


def test_a_server_in_the_clients_own_state_goes_before_a_newer_one():
    world = World(pool_size=3).warm(3)
    for client in world.clients(3):
        client.give_back()
    older, newest = world.opened[1], next(reversed(world.pool.places[IDLE]))
    assert older is not newest
    older.followed = {"search_path": "a"}
    wanting = Client(world.pool)
    wanting.followed = older.followed
    assert wanting.ask().server is older
    assert Client(world.pool).ask().server is newest


def test_round_robin_uses_the_one_that_has_rested_longest():
    world = World(pool_size=3, server_round_robin=True).warm(3)
    assert [client.server for client in world.clients(3)] == world.opened


def test_those_who_wait_are_served_in_the_order_they_came():
    world = World(pool_size=1).warm(1)
    holder, *waiting = world.clients(5)
    served = []
    for client in waiting:
        client.on_resume = served.append
    holder.give_back()
    for client in waiting:
        client.give_back()
    assert served == waiting


def test_nobody_overtakes_the_queue():
    world = World(pool_size=1)
    first = world.clients(1)[0]
    world.finish()
    second = Client(world.pool).ask()
    assert second.server is None
    first.give_back()
    assert second.server is not None


def test_no_more_servers_are_opened_than_clients_wait_nor_than_may_be_at_once():
    assert len((world := World(pool_size=20), world.clients(2))[0].opened) == 2
    assert len((world := World(pool_size=20), world.clients(15))[0].opened) == OPENING_AT_ONCE


def test_a_closing_server_counts_until_it_has_hung_up():
    world = World(pool_size=1).warm(1)
    world.opened[0].close(Closing.ADMIN)
    client = world.clients(1)[0]
    assert len(world.opened) == 1
    world.opened[0].hang_up()
    assert len(world.opened) == 2
    world.finish()
    assert client.server is world.opened[1]


def test_a_doomed_server_is_closed_when_it_is_released_and_replaced_for_whoever_waits():
    world = World(pool_size=1).warm(1)
    holder, waiter = world.clients(2)
    world.pool.retire_servers(Closing.RECONNECT)
    holder.give_back()
    assert world.opened[0].why is Closing.RECONNECT
    assert waiter.server is None
    world.opened[0].hang_up()
    world.finish()
    assert waiter.server is world.opened[1]


def test_a_resumed_client_may_give_its_server_back_before_release_returns():
    world = World(pool_size=1).warm(1)
    holder = world.clients(1)[0]
    hasty = [Client(world.pool, Client.give_back).ask() for _ in range(50)]
    holder.give_back()
    assert all(client.server is None for client in hasty)
    assert world.opened[0].state is IDLE
    check_pool(world.pool)


def test_a_resumed_client_may_close_its_server_before_release_returns():
    world = World(pool_size=1).warm(1)
    holder = world.clients(1)[0]
    Client(world.pool, lambda client: client.server.close(Closing.UNCLEAN)).ask()
    next_one = Client(world.pool).ask()
    holder.give_back()
    assert world.opened[0].state is CLOSING
    world.opened[0].hang_up()
    world.finish()
    assert next_one.server is world.opened[1]


def test_the_reserve_is_opened_for_those_who_have_waited_long_and_only_for_them():
    world = World(pool_size=1, reserve_pool_size=1, reserve_pool_timeout=5.0).warm(1)
    world.clients(3)
    assert world.pool.find_obstacle() is Waiting.BUSY
    world.clock.advance(4.9)
    world.pool.grow()
    assert len(world.opened) == 1
    world.clock.advance(0.2)
    world.pool.grow()
    assert len(world.opened) == 2
    world.finish()
    world.pool.grow()
    assert world.pool.size == 2
    assert world.log.lines == ["WARNING C-0x1: shop/web@10.0.0.7:51234 taking connection from reserve_pool"]


@pytest.mark.parametrize("timeout", [None, 0.0])
def test_no_reserve_timeout_means_no_reserve(timeout):
    world = World(pool_size=1, reserve_pool_size=1, reserve_pool_timeout=timeout).warm(1)
    world.clients(2)
    world.clock.advance(1000)
    world.pool.grow()
    assert world.pool.size == 1


def test_after_a_failure_one_is_tried_at_a_time_at_intervals_that_double_up_to_the_limit():
    world = World(pool_size=9, server_login_retry=15.0)
    world.clients(9)
    delays = []
    for server in list(world.opened):
        world.pool.opening_failed(SORRY)
        server.hang_up()
    while len(delays) < 6:
        server = world.opened[-1]
        waited = 0.0
        while world.opened[-1] is server:
            world.clock.advance(FIRST_RETRY / 2)
            waited += FIRST_RETRY / 2
            world.pool.grow()
        assert len(world.pool.places[OPENING]) == 1
        delays.append(waited)
        world.pool.opening_failed(SORRY)
        world.opened[-1].hang_up()
    assert delays == sorted(delays)
    assert delays[-1] == 15.0


def test_a_success_ends_the_back_off():
    world = World()
    world.clients(2)
    world.pool.opening_failed(SORRY)
    world.opened[0].hang_up()
    world.finish()
    assert world.pool.failure is None
    assert world.pool.failures == 0


def test_an_obstacle_of_the_world_is_told_to_it():
    world = World()
    world.obstacle = Waiting.DATABASE_LIMIT
    world.clients(1)
    assert world.wanted == [Waiting.DATABASE_LIMIT]
    assert not world.opened


def test_a_paused_pool_hands_out_nothing_and_lets_its_servers_go():
    world = World().warm(2)
    holder = world.clients(1)[0]
    world.pool.pause()
    assert world.opened[0].state is CLOSING
    waiter = world.clients(1)[0]
    holder.give_back()
    assert waiter.server is None
    for server in list(world.opened):
        server.hang_up()
    assert world.pool.is_quiet
    assert len(world.opened) == 2
    world.pool.unpause()
    world.finish()
    assert waiter.server is not None


def test_a_server_idle_for_long_is_tested_before_it_is_taken():
    world = World().warm(1)
    move(world.opened[0], USED)
    client = world.clients(1)[0]
    assert world.opened[0].state is TESTING
    assert client.server is None
    world.pool.release(world.opened[0])
    assert client.server is world.opened[0]


def test_servers_that_served_a_session_are_doomed_when_servers_become_shared():
    world = World(pool_mode="session").warm(2)
    (client,) = world.clients(1)
    world.pool.set_limits(make_limits(pool_size=2, pool_mode="transaction"))
    used = client.server
    assert [server.doomed for server in world.opened if server is not used] == [None]
    assert used.doomed is Closing.STALE
    client.give_back()
    assert used.state is CLOSING


@pytest.mark.parametrize(
    ("before", "after"), [("transaction", "session"), ("transaction", "statement"), ("session",) * 2]
)
def test_no_other_change_of_mode_dooms_a_server(before, after):
    world = World(pool_mode=before).warm(1)
    (client,) = world.clients(1)
    world.pool.set_limits(make_limits(pool_size=2, pool_mode=after))
    assert client.server.doomed is None


LEAKING, TRACKED = {"session_state": "leak"}, {"session_state": "track"}
WIPED = {"session_state": "leak", "server_reset_query_always": True}
PRIVATE, UNRESET = {"pool_mode": "session"}, {"pool_mode": "session", "server_reset_query": ""}


@pytest.mark.parametrize(
    ("before", "after", "idle", "linked"),
    [
        (LEAKING, TRACKED, True, True),
        (LEAKING, {"session_state": "reset"}, True, True),
        (LEAKING, WIPED, True, False),  # who has it now is reset at its release
        (LEAKING, PRIVATE, True, False),
        (LEAKING, UNRESET, False, False),
        (WIPED, TRACKED, False, True),
        (WIPED, LEAKING, False, False),
        (TRACKED, {"session_state": "reset"}, False, False),
        (TRACKED, LEAKING, False, False),
        (TRACKED, PRIVATE, False, False),
        ({"session_state": "audit"}, TRACKED, False, True),
        (UNRESET, TRACKED, True, True),
        (UNRESET, PRIVATE, True, False),
        (UNRESET, LEAKING, False, True),
        ({"pool_mode": "session", "server_reset_query": "reset all"}, TRACKED, True, True),
    ],
)
def test_a_server_on_which_nobody_has_looked_at_what_was_left_serves_nobody_who_expects_none(
    before, after, idle, linked
):
    world = World(pool_size=5, **before).warm(4)
    (client,) = world.clients(1)
    cleaning, tested = [server for server in world.opened if server is not client.server][:2]
    move(cleaning, LINKED)
    move(cleaning, CLEANING)
    move(tested, USED)
    move(tested, TESTING)
    world.pool.open_one()
    world.pool.set_limits(make_limits(pool_size=5, **after))
    assert (client.server.doomed is Closing.STALE) == linked
    assert (cleaning.doomed is Closing.STALE) == idle
    assert (tested.doomed is Closing.STALE) == idle
    assert [server.state for server in world.opened if server.state in (IDLE, CLOSING)] == [CLOSING if idle else IDLE]
    assert world.opened[-1].doomed is None, "it is only being opened"


@pytest.mark.parametrize("is_awaited", [False, True])
def test_without_a_lifetime_a_server_serves_once(is_awaited):
    world = World(server_lifetime=0.0, pool_size=1)
    client = world.clients(1)[0] if is_awaited else None
    world.finish() if is_awaited else world.warm(1)
    client = client or world.clients(1)[0]
    server = client.server
    assert server.state is LINKED
    client.give_back()
    assert server.why is Closing.LIFETIME


def test_the_memory_for_what_texts_set_is_bounded():
    pool = World().pool
    numbers = [pool.derive_schema(1, b"set local search_path = s%d" % number) for number in range(3 * MAX_DERIVED)]
    assert len(set(numbers)) == len(numbers), "no two mean the same"
    assert len(pool._derived) <= MAX_DERIVED
    assert pool.derive_schema(1, b"set local search_path = s%d" % (len(numbers) - 1)) == numbers[-1]


def test_the_memory_for_proven_values_is_bounded():
    pool = World().pool
    for number in range(5000):
        pool.prove([("application_name", str(number)), ("TimeZone", "UTC")])
        assert ("application_name", str(number)) in pool.proven
        assert len(pool.proven) <= MAX_INTERNED + 1


# Welcomes.


def test_who_logs_in_first_waits_for_a_server_and_hears_its_parameters():
    async def main():
        world = World()
        welcomes = [asyncio.ensure_future(world.pool.wait_welcome()) for _ in range(3)]
        await asyncio.sleep(0)
        assert len(world.opened) == 1, "one is enough to hear its parameters"
        world.finish()
        assert await asyncio.gather(*welcomes) == [{"TimeZone": "UTC"}] * 3
        assert await world.pool.wait_welcome() == {"TimeZone": "UTC"}
        assert world.opened[0].state is IDLE

    asyncio.run(main())


def test_who_logs_in_waits_through_what_passes_by_itself():
    async def main():
        world = World()
        welcome = asyncio.ensure_future(world.pool.wait_welcome())
        await asyncio.sleep(0)
        world.pool.opening_failed(PASSING)
        world.opened[0].hang_up()
        late = asyncio.ensure_future(world.pool.wait_welcome())
        await asyncio.sleep(0)
        assert not welcome.done()
        assert not late.done()
        world.clock.advance(FIRST_RETRY)
        world.pool.grow()
        world.finish()
        assert await asyncio.gather(welcome, late) == [{"TimeZone": "UTC"}] * 2

    asyncio.run(main())


def test_who_logs_in_while_no_server_can_be_opened_hears_why_now_and_later():
    async def main():
        world = World()
        welcome = asyncio.ensure_future(world.pool.wait_welcome())
        await asyncio.sleep(0)
        world.pool.opening_failed(SORRY)
        world.opened[0].hang_up()
        with pytest.raises(LoginFailed, match="password authentication failed"):
            await welcome
        with pytest.raises(LoginFailed, match="cached error: password"):
            await world.pool.wait_welcome()
        world.clock.advance(20)
        again = asyncio.ensure_future(world.pool.wait_welcome())
        await asyncio.sleep(0)
        assert len(world.opened) == 2
        world.finish()
        assert await again

    asyncio.run(main())


def test_a_failure_of_another_kind_has_a_time_of_its_own():
    world = World()
    world.pool.opening_failed(SORRY)
    world.clock.advance(30)
    world.pool.opening_failed(SORRY)
    assert world.pool.now() - world.pool.failing_since == 30
    world.pool.opening_failed(LoginFailed("53300", "too many connections"))
    assert world.pool.now() == world.pool.failing_since


def test_a_login_that_is_given_up_leaves_nothing_behind():
    async def main():
        world = World()
        welcome = asyncio.ensure_future(world.pool.wait_welcome())
        await asyncio.sleep(0)
        welcome.cancel()
        await asyncio.gather(welcome, return_exceptions=True)
        world.finish()
        assert world.opened[0].state is IDLE

    asyncio.run(main())


@pytest.mark.parametrize("opened", [False, True])
def test_who_logs_in_to_a_pool_that_is_dismissed_meanwhile_is_refused(opened):
    async def main():
        world = World()
        welcome = asyncio.ensure_future(world.pool.wait_welcome())
        await asyncio.sleep(0)
        if opened:
            world.finish()  # it has not heard of that yet
        world.pool.state = PoolState.DYING
        world.pool.close_all(Closing.DATABASE_GONE)
        with pytest.raises(LoginFailed, match="database removed"):
            await asyncio.wait_for(welcome, 1)

    asyncio.run(main())


def test_a_login_that_waits_is_a_wait_like_any_other():
    async def main():
        world = World()
        world.obstacle = Waiting.DATABASE_LIMIT
        assert not world.pool.is_wanted
        welcome = asyncio.ensure_future(world.pool.wait_welcome())
        await asyncio.sleep(0)
        assert world.pool.is_wanted
        world.clock.advance(3.0)
        late = asyncio.ensure_future(world.pool.wait_welcome())
        await asyncio.sleep(0)
        world.clients(1)
        world.clock.advance(1.0)
        assert world.pool.longest_wait == 4.0
        for each in (welcome, late):
            each.cancel()
        await asyncio.gather(welcome, late, return_exceptions=True)
        assert world.pool.longest_wait == 1.0
        next(iter(world.pool.waiting)).close(Closing.ADMIN)
        assert world.pool.longest_wait == 0.0
        assert not world.pool.is_wanted

    asyncio.run(main())


def test_equal_sets_of_parameters_become_one_object():
    pool = World().pool
    assert pool.intern({"a": "1", "b": "2"}) is pool.intern({"b": "2", "a": "1"})


def test_the_memory_for_parameters_is_bounded():
    pool = World().pool
    for number in range(5000):
        pool.intern({"application_name": str(number)})
    assert len(pool._sets) <= 1001


@given(
    st.lists(st.sampled_from(["ask", "give", "leave", "open", "fail", "close", "gone", "pause", "resume", "time"])),
    st.integers(1, 3),
    st.integers(0, 2),
)
def test_whatever_happens_no_limit_is_passed_and_nobody_waits_beside_an_idle_server(acts, size, reserve):
    world = World(pool_size=size, reserve_pool_size=reserve, reserve_pool_timeout=1.0)
    pool, clients = world.pool, []
    for act in acts:
        linked = [client for client in clients if client.server and client.server.state is LINKED]
        if act == "ask":
            clients.append(Client(pool).ask())
        elif act == "give" and linked:
            linked[0].give_back()
        elif act == "leave" and pool.waiting:
            next(iter(pool.waiting)).close(Closing.ADMIN)
        elif act == "open":
            world.finish(1)
        elif act == "fail" and pool.places[OPENING]:
            pool.opening_failed(SORRY)
            next(iter(pool.places[OPENING])).hang_up()
        elif act == "close" and pool.places[IDLE]:
            next(iter(pool.places[IDLE])).close(Closing.LIFETIME)
        elif act == "gone" and pool.places[CLOSING]:
            next(iter(pool.places[CLOSING])).hang_up()
        elif act == "pause":
            pool.pause()
        elif act == "resume" and pool.state is PoolState.PAUSED:
            pool.unpause()
        elif act == "time":
            world.clock.advance(1.0)
            pool.grow()
        check_pool(pool)
        assert pool.size <= size + reserve


def test_a_server_is_forgotten_once():
    world = World().warm(1)
    world.opened[0].close(Closing.ADMIN)
    world.opened[0].hang_up()
    assert world.opened[0].state is CLOSED
    with pytest.raises(AssertionError):
        forget(world.opened[0])
