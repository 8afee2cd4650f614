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


def held_up(path, how, seconds, *, timeout="0"):
    """The warnings of a proxy that is told to leave and cannot for so long: a client is there, a server is opened."""

    async def main():
        proxy = a_proxy(path)
        await proxy.reloader.apply_setting("shutdown_timeout", timeout)
        client = a_client(proxy)
        a_pool(proxy).open_one()
        proxy.leave(how)
        began = last = proxy.clock.now()
        for _ in range(seconds):
            proxy.clock.advance(1.0)
            if proxy.leaving is how:
                last = proxy.insist(began, last)
        warnings = [line for line in proxy.log.lines if line.startswith("WARNING")]
        if proxy.leaving is Leaving.IMMEDIATE:
            assert await is_gone(proxy)
            assert b"pooler is shutting down" in bytes(client.transport.arrived)
        else:
            assert not proxy._gone.is_set()
        return warnings

    return asyncio.run(main())


def test_the_log_says_who_is_waited_for_after_a_while_and_then_every_minute(path):
    assert held_up(path, Leaving.WAIT_FOR_CLIENTS, 130) == [
        "WARNING shutting down for 5.0 s, still waiting: clients are connected: 1",
        "WARNING shutting down for 65 s, still waiting: clients are connected: 1",
        "WARNING shutting down for 125 s, still waiting: clients are connected: 1",
    ]


def test_or_what_the_servers_do(path):
    assert held_up(path, Leaving.WAIT_FOR_SERVERS, 6) == [
        "WARNING shutting down for 5.0 s, still waiting: The one server of pool shop/anna is busy: 1 being opened."
    ]


@pytest.mark.parametrize("how", [Leaving.WAIT_FOR_CLIENTS, Leaving.WAIT_FOR_SERVERS])
def test_a_gentle_end_that_takes_too_long_is_made_at_once(path, how):
    assert held_up(path, how, 2, timeout="3") == []
    (line,) = held_up(path, how, 4, timeout="3")
    assert line.startswith("WARNING shutdown_timeout (3 s) is over, fast exit: ")


def test_it_is_watched_from_the_moment_it_begins(path, monkeypatch):
    monkeypatch.setattr("proxy.draining.TICK", 0.001)

    async def main():
        proxy = a_proxy(path)
        await proxy.reloader.apply_setting("shutdown_timeout", "1")
        a_client(proxy)
        proxy.leave(Leaving.WAIT_FOR_CLIENTS)
        proxy.clock.advance(2.0)
        assert await is_gone(proxy)

    asyncio.run(main())


def test_whose_login_ends_while_the_last_words_leave_is_told_too(path, monkeypatch):
    monkeypatch.setattr("proxy.draining.LAST_BREATH", 0.05)

    async def main():
        proxy = a_proxy(path)
        proxy.leave(Leaving.WAIT_FOR_SERVERS)
        leaving = asyncio.ensure_future(proxy.wait_gone())
        await asyncio.sleep(0.01)
        client = a_client(proxy)
        await asyncio.wait_for(leaving, 5)
        assert b"pooler is shutting down" in bytes(client.transport.arrived)

    asyncio.run(main())
