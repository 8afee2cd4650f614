"""The whole: every way to leave comes to its end."""

import asyncio
import signal
import socket
from dataclasses import replace

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


def test_signals_are_told_in_pgbouncers_words(path):
    async def main():
        proxy = a_proxy(path)
        a_client(proxy)
        proxy.on_pause()
        proxy.on_pause()
        proxy.on_resume()
        proxy.on_resume()
        proxy.on_leave(signal.SIGINT, Leaving.WAIT_FOR_CLIENTS)
        proxy.on_resume()
        proxy.on_leave(signal.SIGTERM, Leaving.WAIT_FOR_CLIENTS)
        return [line.removeprefix("LOG ") for line in proxy.log.lines if line.startswith("LOG got")]

    assert asyncio.run(main()) == [
        "got SIGUSR1, pausing all activity",
        "got SIGUSR1, but already paused/suspended",
        "got SIGUSR2, continuing from PAUSE",
        "got SIGUSR2, but not paused/suspended",
        "got SIGINT, shutting down, waiting for all clients disconnect",
        "got SIGUSR2 while shutting down, ignoring",
        "got SIGTERM while shutting down, fast exit",
    ]


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
        assert await is_gone(proxy)
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


def test_who_was_succeeded_waits_for_its_last_client_and_for_whoever_it_succeeded(path):
    async def main():
        proxy = a_proxy(path)
        client = a_client(proxy)
        proxy.leaving = Leaving.SUCCEEDED
        proxy.kin.elder = object()
        client.connection_lost(None)
        assert not proxy._gone.is_set()
        proxy.kin.elder = None
        proxy.check_drained()
        assert await is_gone(proxy)

    asyncio.run(main())


def test_who_was_succeeded_may_still_be_told_to_wait_and_then_to_end_at_once(path):
    async def main():
        proxy = a_proxy(path)
        a_client(proxy)
        proxy.leaving = Leaving.SUCCEEDED
        proxy.leave(Leaving.WAIT_FOR_CLIENTS)
        assert proxy.leaving is Leaving.WAIT_FOR_CLIENTS
        proxy.leave(Leaving.WAIT_FOR_CLIENTS)
        assert proxy.leaving is Leaving.IMMEDIATE
        assert await is_gone(proxy)

    asyncio.run(main())
