"""Drivers as people use them: asyncpg without its statement cache, psycopg's pool, psql and pgbench where they are."""

import asyncio
import os
import subprocess

import asyncpg
import psycopg
import pytest

from tests.live.stand import Stand
from tests.live.upstream import PASSWORD

pytestmark = pytest.mark.live


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    databases = {"postgres": "pool_size=3", "session": "dbname=postgres pool_mode=session pool_size=20"}
    with Stand(upstream, {"auth_type": "scram-sha-256"}, databases=databases) as stand:
        yield stand


def asyncpg_options(stand, **more):
    options = stand.options(**more)
    return {"database": options.pop("dbname"), "statement_cache_size": 0} | options


def test_asyncpg_without_a_statement_cache_in_transaction_mode(stand):
    async def talk():
        connection = await asyncpg.connect(**asyncpg_options(stand))
        try:
            assert await connection.fetchval("select $1::int + 1", 41) == 42
            async with connection.transaction():
                rows = [row["n"] for row in await connection.fetch("select generate_series(1, 500) as n")]
            assert rows == list(range(1, 501))
            with pytest.raises(asyncpg.DivisionByZeroError):
                await connection.fetchval("select 1/$1::int", 0)
            await connection.execute("create table if not exists public.luggage (n int)")
            await connection.execute("truncate public.luggage")
            await connection.copy_records_to_table("luggage", records=[(n,) for n in range(1000)])
            return await connection.fetchval("select sum(n) from public.luggage")
        finally:
            await connection.close()

    assert asyncio.run(talk()) == 499_500


def test_forty_asyncpg_clients_over_three_servers(stand):
    async def one(number):
        connection = await asyncpg.connect(**asyncpg_options(stand))
        try:
            return [await connection.fetchval("select $1::int", number) for _ in range(10)]
        finally:
            await connection.close()

    async def all_of_them():
        return await asyncio.gather(*(one(number) for number in range(40)))

    assert asyncio.run(all_of_them()) == [[number] * 10 for number in range(40)]


def test_asyncpg_with_its_statement_cache_in_session_mode(stand):
    async def talk():
        connection = await asyncpg.connect(**asyncpg_options(stand, dbname="session") | {"statement_cache_size": 100})
        try:
            return [await connection.fetchval("select $1::int * 2", n) for n in range(20)]
        finally:
            await connection.close()

    assert asyncio.run(talk()) == [n * 2 for n in range(20)]


def test_asyncpg_timeouts_cancel_the_query(stand, admin):
    async def talk():
        connection = await asyncpg.connect(**asyncpg_options(stand))
        try:
            with pytest.raises(TimeoutError):
                await connection.fetchval("select pg_sleep(30)", timeout=0.3)
            return await connection.fetchval("select 'alive'")
        finally:
            await connection.close()

    assert asyncio.run(talk()) == "alive"
    running = "select count(*) from pg_stat_activity where query = 'select pg_sleep(30)' and state = 'active'"
    assert admin.execute(running).fetchone() == (0,)


def test_psycopg_async_clients_with_transactions(stand):
    async def one(number):
        opened = await psycopg.AsyncConnection.connect(**stand.options(prepare_threshold=None))
        async with opened as connection, connection.transaction():
            cursor = await connection.execute("select %s::int", [number])
            return (await cursor.fetchone())[0]

    async def all_of_them():
        return await asyncio.gather(*(one(number) for number in range(50)))

    assert asyncio.run(all_of_them()) == list(range(50))


@pytest.mark.parametrize("program", ["psql", "pgbench"])
def test_a_program_of_postgresql(stand, program):
    path = stand.upstream.program(program)
    if path is None:
        pytest.skip(f"no {program} here")
    options = ["-h", "127.0.0.1", "-p", str(stand.port), "-U", "app"]
    commands = {
        "psql": [*options, "-Atc", "select 6 * 7", "postgres"],
        "pgbench": [*options, "-n", "-c", "20", "-t", "20", "-f", "-", "postgres"],
    }
    done = subprocess.run(
        [path, *commands[program]],
        input="begin;\nselect pg_backend_pid() as a \\gset\nselect 1/(:a = pg_backend_pid())::int;\nend;\n",
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PGPASSWORD": PASSWORD},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert ("42" if program == "psql" else "number of failed transactions: 0") in done.stdout
