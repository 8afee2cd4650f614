"""What an administrator does to a pool, and how he learns that it is done."""

import asyncio

import pytest

from proxy.states import CLOSING, Closing
from tests.proxy.test_pool import World


def test_retiring_closes_idle_servers_now_and_the_others_when_they_are_given_back():
    world = World().warm(2)
    holder = world.clients(1)[0]
    held = holder.server
    world.pool.retire_servers(Closing.RECONNECT)
    assert [server.state is CLOSING for server in world.opened] == [server is not held for server in world.opened]
    holder.give_back()
    assert held.why is Closing.RECONNECT


def test_everybody_at_once_is_closed_before_anybody_is_resumed():
    world = World(pool_size=1).warm(1)
    clients = world.clients(3)
    world.pool.clients.update(clients)
    world.pool.close_all(Closing.ADMIN)
    assert [client.closed for client in clients] == [Closing.ADMIN] * 3
    assert world.opened[0].why is Closing.ADMIN


def test_who_waits_for_quiet_is_told_when_nobody_uses_a_server():
    async def main():
        world = World().warm(1)
        holder = world.clients(1)[0]
        quiet = asyncio.ensure_future(world.pool.wait_quiet())
        world.pool.pause()
        await asyncio.sleep(0)
        assert not quiet.done()
        holder.give_back()
        world.opened[0].hang_up()
        await asyncio.wait_for(quiet, 1)

    asyncio.run(main())


def test_who_waits_for_quiet_is_told_too_when_the_pool_is_open_again():
    async def main():
        world = World().warm(1)
        world.clients(1)
        world.pool.pause()
        quiet = asyncio.ensure_future(world.pool.wait_quiet())
        await asyncio.sleep(0)
        world.pool.unpause()
        await asyncio.wait_for(quiet, 1)

    asyncio.run(main())


@pytest.mark.parametrize("is_paused", [False, True])
def test_the_doomed_are_waited_for_and_not_those_opened_since(is_paused):
    async def main():
        world = World().warm(1)
        holder = world.clients(1)[0]
        world.pool.retire_servers(Closing.RECONNECT)
        gone = asyncio.ensure_future(world.pool.wait_doomed())
        if is_paused:
            world.pool.pause()
        else:
            world.warm(1)
        holder.give_back()
        await asyncio.sleep(0)
        assert not gone.done()
        world.opened[0].hang_up()
        await asyncio.wait_for(gone, 1)

    asyncio.run(main())
