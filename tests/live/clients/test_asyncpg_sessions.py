"""Sessions of asyncpg: settings, search paths, temporary tables and locks of twenty clients on two servers."""

import asyncio

import asyncpg
import pytest

from tests.live.clients.fleet import CLIENTS, gather

pytestmark = pytest.mark.live


def test_settings_of_the_startup_packet_are_each_clients_own(fleet):
    async def one(number):
        mine = {
            "application_name": f"client {number}",
            "statement_timeout": f"{number + 10}s",
            "search_path": f"of{number}, public",
            "TimeZone": ("Asia/Tokyo", "Europe/Oslo", "UTC")[number % 3],
            "myapp.tenant": f"tenant {number}",
        }
        async with fleet.asyncpg(server_settings=mine) as connection:
            for _ in range(5):
                for name, value in mine.items():
                    assert await connection.fetchval("select current_setting($1)", name) == value
            await connection.execute("set myapp.tenant = 'another'; set statement_timeout = 0")
            await connection.execute("reset all")
            assert await connection.fetchval("show myapp.tenant") == mine["myapp.tenant"]
            assert await connection.fetchval("show statement_timeout") == mine["statement_timeout"]

    gather(one)


def test_settings_made_later_follow_the_client(fleet):
    async def one(number):
        async with fleet.asyncpg() as connection:
            await connection.execute(f"set work_mem = '{number + 1}MB'")
            await connection.fetchval("select set_config('myapp.tenant', $1, false)", f"tenant {number}")
            for _ in range(10):
                row = await connection.fetchrow("select current_setting('work_mem'), current_setting('myapp.tenant')")
                assert tuple(row) == (f"{number + 1}MB", f"tenant {number}")
            await connection.execute(f"set timezone = 'Etc/GMT+{number % 12}'")
            assert connection.get_settings().TimeZone == f"Etc/GMT+{number % 12}"

    gather(one)


def test_what_is_local_or_rolled_back_is_forgotten(fleet):
    async def one(number):
        async with fleet.asyncpg() as connection:
            await connection.execute(f"set myapp.tenant = 'mine {number}'")
            async with connection.transaction():
                await connection.execute("set local myapp.tenant = 'local'")
                assert await connection.fetchval("show myapp.tenant") == "local"
            assert await connection.fetchval("show myapp.tenant") == f"mine {number}"
            outer = connection.transaction()
            await outer.start()
            inner = connection.transaction()
            await inner.start()
            await connection.execute("set myapp.tenant = 'undone'")
            await inner.rollback()
            assert await connection.fetchval("show myapp.tenant") == f"mine {number}"
            await connection.execute("set myapp.tenant = 'undone too'")
            await outer.rollback()
            assert await connection.fetchval("show myapp.tenant") == f"mine {number}"

    gather(one)


def test_the_same_text_in_each_clients_own_schema(fleet, owner):
    for number in range(CLIENTS):
        owner.execute(f"create schema house{number}")
        owner.execute(f"create table house{number}.door as select {number} as n")

    async def one(number):
        async with fleet.asyncpg() as connection:
            await connection.execute(f"set search_path = house{number}")
            for _ in range(5):
                assert await connection.fetchval("select n from door") == number
            other = (number + 1) % CLIENTS
            await connection.execute(f"set search_path = house{other}")
            assert await connection.fetchval("select n from door") == other

    gather(one)


def test_the_pools_reset_leaves_nothing_to_the_next(fleet):
    async def talk():
        async with fleet.asyncpg_pool(min_size=2, max_size=2) as pool:
            for turn in range(10):
                async with pool.acquire() as connection:
                    assert await connection.fetchval("select current_setting('myapp.tenant', true)") in (None, "")
                    assert await connection.fetchval("show work_mem") == "4MB"
                    await connection.execute(f"set myapp.tenant = 'turn {turn}'; set work_mem = '9MB'")
                    await connection.execute("select pg_advisory_lock(77)")

    asyncio.run(talk())


def test_temporary_tables_are_each_clients_own(fleet):
    async def one(number):
        async with fleet.asyncpg() as connection:
            await connection.execute("create temp table mine (n int)")
            await connection.copy_records_to_table("mine", records=[(number,)] * (number + 1))
            assert await connection.fetchval("select sum(n) from mine") == number * (number + 1)
            await connection.execute("drop table mine")
            async with connection.transaction():
                await connection.execute("create temp table brief (n int) on commit drop")
                await connection.execute("insert into brief values ($1)", number)
                assert await connection.fetchval("select n from brief") == number
            with pytest.raises(asyncpg.UndefinedTableError):
                await connection.fetchval("select n from brief")

    gather(one)


def test_an_advisory_lock_shuts_everybody_else_out(fleet):
    inside = []

    async def one(number):
        async with fleet.asyncpg() as connection:
            await connection.execute("select pg_advisory_lock($1)", 4711)
            inside.append(number)
            assert await connection.fetchval("select $1::int", number) == number
            assert len(inside) == 1
            inside.remove(number)
            assert await connection.fetchval("select pg_advisory_unlock($1)", 4711)

    gather(one)
