"""The whole: signals that pause it, sockets that are tuned, hosts that move."""

import asyncio
import socket
from dataclasses import replace

import pytest

from proxy.failing import LoginFailed
from proxy.resolver import Resolver
from proxy.states import LINKED, Closing, Leaving, PoolState, Waiting
from tests.proxy.test_pools import at
from tests.whole import INI, a_pool, a_proxy


@pytest.fixture(name="path")
def _path(tmp_path):
    file = tmp_path / "proxy.ini"
    file.write_text(INI)
    return file


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


def test_the_sockets_of_clients_and_servers_are_tuned(path):
    async def main():
        proxy = a_proxy(path)
        proxy.settings = replace(proxy.settings, tcp_keepidle=77, tcp_socket_buffer=16_384, tcp_defer_accept=False)
        proxy._listen(socket.create_server(("127.0.0.1", 0)), proxy.arrive)
        caller = socket.create_connection(proxy.listeners[0].socket.getsockname())
        while not proxy.doorsteps:
            await asyncio.sleep(0.001)
        (door,) = proxy.doorsteps
        proxy.tune_socket(caller)
        found = [options_of(each) for each in (door.transport.get_extra_info("socket"), caller)]
        door.transport.abort()
        caller.close()
        proxy.leave(Leaving.IMMEDIATE)
        await asyncio.wait_for(proxy.wait_gone(), 5)
        return found

    assert asyncio.run(main()) == [(77, 32_768, 32_768)] * 2


def options_of(each):
    idle = each.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
    return idle, *(each.getsockopt(socket.SOL_SOCKET, option) for option in (socket.SO_SNDBUF, socket.SO_RCVBUF))


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


def test_who_was_told_that_there_is_no_such_database_may_ask_again_when_one_was_made(path):
    async def main():
        proxy = a_proxy(path)
        pool = a_pool(proxy)
        for state, is_over in (("3D000", True), ("28P01", False)):
            pool.failure = None
            for _ in range(9):
                pool.opening_failed(LoginFailed(state, "no"))
            proxy.database_made()
            assert (pool.retry_at <= pool.now()) is is_over

    asyncio.run(main())
