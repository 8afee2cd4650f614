"""The whole: a reload that is refused leaves everything, and every way to leave comes to its end."""

import asyncio

import pytest

from proxy.auth.users import NOBODY
from proxy.client import Client
from proxy.config.ini import read
from proxy.main import Proxy
from proxy.states import Closing, Leaving, PoolState, Waiting
from tests.fakes import FakeClock, FakeLog, FakeLoop, FakeTransport

INI = "[databases]\nshop = host=127.0.0.1 port=1\n[proxy]\nlisten_addr =\nunix_socket_dir =\nauth_type = trust\n"


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "proxy.ini"
    file.write_text(INI)
    return file


def a_proxy(path):
    return Proxy(read(str(path)), NOBODY, FakeLog(), FakeClock())


def a_pool(proxy):
    return proxy.pools.find(proxy.config.find_database("shop"), "anna")


def a_client(proxy):
    loop = FakeLoop(proxy.clock)
    client = Client(a_pool(proxy), "anna", proxy.cancels.mint_key(), {}, ("127.0.0.1", 1))
    proxy.client_arrived(client)
    FakeTransport(loop).start(client)
    return client


def test_a_reload_that_is_refused_changes_nothing_and_says_why(path):
    async def main():
        proxy = a_proxy(path)
        config, users, pool = proxy.config, proxy.users, a_pool(proxy)
        path.write_text(INI + "default_pool_size = many\nno_such_thing = 1\n")
        mistakes = await proxy.reload()
        assert len(mistakes) == 2
        assert all(f"{path}:" in mistake for mistake in mistakes)
        assert (proxy.config, proxy.users) == (config, users)
        assert pool.limits.pool_size == 20
        assert "nothing has changed" in proxy.log.text

    asyncio.run(main())


def test_a_missing_file_of_users_refuses_a_reload_as_well(path):
    async def main():
        proxy = a_proxy(path)
        path.write_text(INI + "auth_file = /nowhere/users.txt\ndefault_pool_size = 5\n")
        assert await proxy.reload()
        assert proxy.settings.default_pool_size == 20

    asyncio.run(main())


def test_a_reload_takes_effect_as_a_whole(path):
    async def main():
        proxy = a_proxy(path)
        pool, client = a_pool(proxy), a_client(proxy)
        path.write_text(INI + "default_pool_size = 5\nlisten_port = 7000\n")
        assert await proxy.reload() == []
        assert pool.limits.pool_size == 5
        assert proxy.settings.listen_port == 6432
        assert "needs a restart" in proxy.log.text
        assert client in pool.clients

    asyncio.run(main())


def test_a_reload_without_the_database_lets_its_clients_go(path):
    async def main():
        proxy = a_proxy(path)
        client = a_client(proxy)
        path.write_text(INI.replace("shop", "other"))
        assert await proxy.reload() == []
        assert proxy.client_count == 0
        assert Closing.DATABASE_GONE.value in proxy.log.text
        assert client.transport.is_closing()

    asyncio.run(main())


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
