"""The whole: every way to leave comes to its end."""

import asyncio

import pytest

from proxy.resolver import Resolver
from proxy.states import LINKED, Closing, Leaving, PoolState, Waiting
from tests.proxy.test_pools import at
from tests.whole import INI, a_client, a_pool, a_proxy


@pytest.fixture(name="path")
def _path(tmp_path):
    file = tmp_path / "proxy.ini"
    file.write_text(INI)
    return file


async def is_gone(proxy):
    await asyncio.wait_for(proxy.wait_gone(), 5)
    return True


@pytest.fixture(autouse=True)
def no_patience(monkeypatch):
    monkeypatch.setattr("proxy.main.LAST_BREATH", 0)


@pytest.mark.parametrize("how", Leaving)
def test_with_nobody_here_every_way_to_leave_is_immediate(how, path):
    async def main():
        proxy = a_proxy(path)
        proxy.leave(how)
        assert await is_gone(proxy)

    asyncio.run(main())


def test_a_gentle_end_waits_for_the_last_client(path):
    async def main():
        proxy = a_proxy(path)
        client = a_client(proxy)
        proxy.leave(Leaving.WAIT_FOR_CLIENTS)
        leaving = asyncio.ensure_future(proxy.wait_gone())
        await asyncio.sleep(0)
        assert not leaving.done()
        client.connection_lost(None)
        await asyncio.wait_for(leaving, 5)

    asyncio.run(main())


def test_a_second_wish_to_leave_is_immediate_and_everyone_is_told(path):
    async def main():
        proxy = a_proxy(path)
        client = a_client(proxy)
        proxy.leave(Leaving.WAIT_FOR_CLIENTS)
        proxy.leave(Leaving.WAIT_FOR_CLIENTS)
        assert proxy.leaving is Leaving.IMMEDIATE
        assert await is_gone(proxy)
        assert b"pooler is shutting down" in bytes(client.transport.arrived)

    asyncio.run(main())


def test_pausing_and_resuming_by_signal(path):
    async def main():
        proxy = a_proxy(path)
        pool = a_pool(proxy)
        proxy.on_pause()
        assert pool.state is PoolState.PAUSED
        assert pool.find_obstacle() is Waiting.PAUSED
        proxy.on_resume()
        assert pool.state is PoolState.OPEN

    asyncio.run(main())


def test_resuming_while_leaving_is_ignored(path):
    async def main():
        proxy = a_proxy(path)
        a_client(proxy)
        pool = a_pool(proxy)
        proxy.leave(Leaving.WAIT_FOR_SERVERS)
        proxy.on_resume()
        assert pool.state is PoolState.PAUSED

    asyncio.run(main())


def test_a_host_that_moves_takes_its_servers_along(path):
    async def main():
        proxy, says = a_proxy(path), ["1.1.1.1"]
        server = at(a_pool(proxy), "db", "1.1.1.1", LINKED)

        async def look_up(name):
            return says

        proxy.resolver = Resolver(proxy.tasks, proxy, look_up)
        assert await proxy.resolver.find("db") == ("1.1.1.1",)
        says[:] = ["1.1.1.2"]
        proxy.clock.advance(16)
        proxy.resolver.sweep()
        assert await proxy.resolver.find("db") == ("1.1.1.2",)
        assert server.doomed is Closing.OBSOLETE

    asyncio.run(main())
