"""The end of the process: every way to leave comes to its end."""

import asyncio
import signal

import pytest

from proxy.states import Leaving, PoolState
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
    monkeypatch.setattr("proxy.draining.LAST_BREATH", 0)


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
