"""asyncpg as people use it: its pool, its statement cache, types, cursors, COPY, listeners, transactions and reset."""

import asyncio
import datetime
import decimal
import io
import ipaddress
import uuid
from contextlib import suppress

import asyncpg
import pytest

from tests.live.clients.fleet import CLIENTS, gather

pytestmark = pytest.mark.live

ROUNDS = 20


# Statements.


def test_twenty_connections_of_a_pool_run_the_same_text_with_their_own_values(fleet):
    async def talk():
        async with fleet.asyncpg_pool() as pool:

            async def one(number):
                async with pool.acquire() as connection:
                    for turn in range(ROUNDS):
                        row = await connection.fetchrow(
                            "select $1::int as n, $2::text as t", number, f"{number}:{turn}"
                        )
                        assert dict(row) == {"n": number, "t": f"{number}:{turn}"}

            await asyncio.gather(*(one(number) for number in range(CLIENTS)))

    asyncio.run(talk())


def test_a_name_means_another_text_for_each_client(fleet):
    async def one(number):
        async with fleet.asyncpg() as connection:
            mine = await connection.prepare(f"select {number} * 100 + $1::int", name="mine")
            for turn in range(ROUNDS):
                assert await mine.fetchval(turn) == number * 100 + turn
            assert [each.type.name for each in mine.get_attributes()] == ["int4"]
            with pytest.raises(asyncpg.DuplicatePreparedStatementError):
                await connection.prepare("select 'another'", name="mine")
            assert await mine.fetchval(7) == number * 100 + 7

    gather(one)


def test_more_texts_than_the_drivers_cache_holds(fleet):
    async def one(number):
        async with fleet.asyncpg(statement_cache_size=5) as connection:
            for turn in range(60):
                answer = await connection.fetchval(f"select $1::int + {turn % 12}", number)
                assert answer == number + turn % 12

    gather(one)


def test_a_prepared_statement_outlives_its_transaction(fleet):
    async def one(number):
        async with fleet.asyncpg() as connection:
            async with connection.transaction():
                statement = await connection.prepare("select $1::text || txid_current_if_assigned()::text is null, $1")
            for _ in range(5):
                assert (await statement.fetchrow(f"mine {number}"))[1] == f"mine {number}"
                async with connection.transaction():
                    assert (await statement.fetchrow(f"inside {number}"))[1] == f"inside {number}"

    gather(one)


def test_a_statement_that_fails_to_parse_leaves_its_name_free(fleet):
    async def one(number):
        async with fleet.asyncpg() as connection:
            with pytest.raises(asyncpg.UndefinedTableError, match="nowhere"):
                await connection.prepare("select * from nowhere", name="again")
            statement = await connection.prepare("select $1::int", name="again")
            assert await statement.fetchval(number) == number

    gather(one)


def test_executemany_is_one_transaction_and_an_error_in_it_undoes_all(fleet, owner):
    owner.execute("create table batch (client int, n int check (n < 100))")

    async def one(number):
        async with fleet.asyncpg() as connection:
            insert = "insert into batch values ($1, $2)"
            await connection.executemany(insert, [(number, n) for n in range(50)])
            with pytest.raises(asyncpg.CheckViolationError):
                await connection.executemany(insert, [(number, n) for n in range(90, 110)])
            query = "select count(*), sum(n) from batch where client = $1"
            assert tuple(await connection.fetchrow(query, number)) == (50, 1225)
            rows = await connection.fetchmany(
                "insert into batch values ($1, $2) returning client + n", [(number, n) for n in range(3)]
            )
            assert [row[0] for row in rows] == [number, number + 1, number + 2]

    gather(one)


def test_a_new_connection_gets_the_columns_of_today_and_an_old_one_recovers(fleet, owner):
    owner.execute("create table garment (a int)")
    owner.execute("insert into garment values (1)")

    async def talk():
        async with fleet.asyncpg() as early, fleet.asyncpg() as other:
            for connection in (early, other, early, other):
                assert dict(await connection.fetchrow("select * from garment")) == {"a": 1}
            await other.execute("alter table garment add column b text default 'new'")
            async with fleet.asyncpg() as late:
                assert dict(await late.fetchrow("select * from garment")) == {"a": 1, "b": "new"}
            assert dict(await early.fetchrow("select * from garment")) == {"a": 1, "b": "new"}
            await early.execute("alter table garment alter column a type text using 'a' || a")
            async with fleet.asyncpg() as late:
                assert dict(await late.fetchrow("select * from garment")) == {"a": "a1", "b": "new"}
            assert dict(await other.fetchrow("select * from garment")) == {"a": "a1", "b": "new"}

    asyncio.run(talk())


def test_a_changed_table_inside_a_transaction_is_an_honest_error(fleet, owner):
    owner.execute("create table coat (a int)")

    async def talk():
        async with fleet.asyncpg() as one, fleet.asyncpg() as other:
            await one.fetch("select * from coat")
            await other.execute("alter table coat add column b int")
            with pytest.raises(asyncpg.InvalidCachedStatementError):
                async with one.transaction():
                    await one.fetch("select * from coat")
            await one.execute("insert into coat values (1, 2)")
            assert dict(await one.fetchrow("select * from coat")) == {"a": 1, "b": 2}

    asyncio.run(talk())


def test_a_type_that_was_dropped_and_made_anew(fleet, owner):
    owner.execute("create type mood as enum ('sad', 'glad')")
    owner.execute("create table person (m mood)")
    owner.execute("insert into person values ('glad')")

    async def ask():
        async with fleet.asyncpg() as connection:
            return [await connection.fetchval("select m from person where m = $1::mood", "glad") for _ in range(4)]

    assert asyncio.run(ask()) == ["glad"] * 4
    owner.execute("drop table person")
    owner.execute("drop type mood")
    owner.execute("create type mood as enum ('glad', 'other')")
    owner.execute("create table person (m mood)")
    owner.execute("insert into person values ('glad')")
    assert asyncio.run(ask()) == ["glad"] * 4


@pytest.mark.parametrize("words", ["deallocate all", "discard all"])
def test_what_deallocates_is_heard(fleet, words):
    async def one(number):
        async with fleet.asyncpg() as connection:
            statement = await connection.prepare("select $1::int")
            assert await statement.fetchval(number) == number
            await connection.execute(words)
            with pytest.raises(asyncpg.InvalidSQLStatementNameError):
                await statement.fetchval(number)
            await connection.reload_schema_state()
            assert await connection.fetchval("select $1::int + 1", number) == number + 1

    gather(one)


def test_statements_prepared_in_sql(fleet):
    async def one(number):
        async with fleet.asyncpg(statement_cache_size=0) as connection:
            await connection.execute(f"prepare mine (int) as select {number} + $1")
            for turn in range(5):
                assert await connection.fetchval(f"execute mine({turn})") == number + turn
            await connection.execute("deallocate mine")
            with pytest.raises(asyncpg.InvalidSQLStatementNameError):
                await connection.execute("execute mine(1)")

    gather(one)


# Cursors, COPY, listeners, types.


def test_cursors_inside_transactions(fleet):
    async def one(number):
        async with fleet.asyncpg() as connection, connection.transaction():
            text = "select $1 * 1000 + n from generate_series(1, 50) n"
            found = [row[0] async for row in connection.cursor(text, number, prefetch=7)]
            assert found == [number * 1000 + n for n in range(1, 51)]
            cursor = await connection.cursor(text, number)
            assert await cursor.forward(10) == 10
            assert (await cursor.fetchrow())[0] == number * 1000 + 11

    gather(one)


def test_copy_in_and_out(fleet, owner):
    owner.execute("create table cargo (client int, t text)")

    async def one(number):
        async with fleet.asyncpg() as connection:
            await connection.copy_records_to_table("cargo", records=[(number, f"ü{n}\t\\") for n in range(200)])
            await connection.copy_to_table("cargo", source=io.BytesIO(f"{number}\tplain\n".encode() * 10))
            with pytest.raises(asyncpg.BadCopyFileFormatError):
                await connection.copy_to_table("cargo", source=io.BytesIO(b"1\t2\t3\n"))
            out = io.BytesIO()
            done = await connection.copy_from_query("select t from cargo where client = $1", number, output=out)
            assert done == "COPY 210"
            assert out.getvalue().count(b"plain\n") == 10

    gather(one)


def test_listeners_hear_while_they_are_idle(fleet):
    async def talk():
        heard = [asyncio.Queue() for _ in range(CLIENTS)]

        async def one(number):
            connection = await asyncpg.connect(**fleet.keywords())
            await connection.add_listener("everybody", lambda *words: heard[number].put_nowait(words[2:]))
            await connection.add_listener(f"only {number}", lambda *words: heard[number].put_nowait(words[2:]))
            return connection

        connections = await asyncio.gather(*(one(number) for number in range(CLIENTS)))
        async with fleet.asyncpg() as speaker:
            for number in range(CLIENTS):
                await speaker.execute("select pg_notify($1, $2)", f"only {number}", f"secret {number}")
            await speaker.execute("notify everybody, 'news'")
            for number in range(CLIENTS):
                found = [await asyncio.wait_for(heard[number].get(), 10) for _ in range(2)]
                assert found == [(f"only {number}", f"secret {number}"), ("everybody", "news")]
            for number, connection in enumerate(connections):
                await connection.execute(f'unlisten "only {number}"')
            await speaker.execute("notify everybody, 'last'")
            await asyncio.gather(*(asyncio.wait_for(each.get(), 10) for each in heard))
            await speaker.execute("select pg_notify('only 3', 'nobody hears')")
            assert await connections[3].fetchval("select 3") == 3
            assert heard[3].empty()
        for connection in connections:
            await connection.close()

    asyncio.run(talk())


def test_many_types_in_binary(fleet, owner):
    owner.execute("create type pair as (x int, y text)")
    values = {
        "int8": 2**60,
        "numeric": decimal.Decimal("12345.678900"),
        "float8": 0.1,
        "bool": True,
        "bytea": bytes(range(256)),
        "uuid": uuid.UUID(int=7),
        "timestamptz": datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC),
        "interval": datetime.timedelta(days=3, seconds=5),
        "inet": ipaddress.ip_interface("10.1.2.3/24"),
        "int4[]": [1, None, 3],
        "text[][]": [["a", "b"], ["ü", '"']],
        "int4range": asyncpg.Range(1, 5),
        "jsonb": '{"a": [1, 2]}',
        "pair": (1, "two"),
    }

    async def one(number):
        async with fleet.asyncpg() as connection:
            for kind, value in values.items():
                found = await connection.fetchval(f"select $1::{kind}", value)
                assert (tuple(found) if kind == "pair" else found) == value
            await connection.set_type_codec(
                "jsonb", schema="pg_catalog", encoder=str, decoder=lambda text: text.upper()
            )
            assert await connection.fetchval("select $1::jsonb", f'"client {number}"') == f'"CLIENT {number}"'

    gather(one)


# Trouble.


def test_timeouts_cancel_one_query_and_no_other(fleet):
    async def one(number):
        async with fleet.asyncpg() as connection:
            for _ in range(2):
                if number % 4 == 0:
                    with pytest.raises(TimeoutError):
                        await connection.fetchval("select pg_sleep(30), $1::int", number, timeout=0.2)
                assert await connection.fetchval("select $1::int", number) == number

    gather(one)


def test_errors_and_notices_are_each_clients_own(fleet):
    async def one(number):
        notices = []
        async with fleet.asyncpg() as connection:
            connection.add_log_listener(lambda _, message: notices.append(message.message))
            for turn in range(3):
                with pytest.raises(asyncpg.DivisionByZeroError):
                    await connection.fetchval("select $1::int / 0", number)
                await connection.execute(f"do $$ begin raise notice 'client {number} turn {turn}'; end $$")
            await asyncio.sleep(0)
        assert notices == [f"client {number} turn {turn}" for turn in range(3)]

    gather(one)


def test_transactions_keep_their_isolation(fleet, owner):
    owner.execute("create table account as select n, 0 as balance from generate_series(0, 3) n")

    async def add(connection, number):
        async with connection.transaction(isolation="serializable"):
            assert await connection.fetchval("show transaction_isolation") == "serializable"
            await connection.execute("update account set balance = balance + 1 where n = $1", number % 4)

    async def one(number):
        async with fleet.asyncpg() as connection:
            tries = 0
            while tries < 200:
                with suppress(asyncpg.SerializationError):
                    await add(connection, number)
                    break
                tries += 1
            async with connection.transaction(readonly=True):
                with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                    async with connection.transaction():
                        await connection.execute("update account set balance = 0")
            assert await connection.fetchval("show transaction_isolation") == "read committed"

    gather(one)
    assert owner.execute("select array_agg(distinct balance) from account").fetchone() == ([5],)
