"""psycopg 3 with asyncio, and its pipeline mode: many statements in one go, and an error in the middle of them."""

import asyncio

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from tests.live.clients.fleet import CLIENTS, gather, together

pytestmark = pytest.mark.live


async def connect(fleet, **more):
    options = {"autocommit": True, "prepare_threshold": 0} | more
    return await psycopg.AsyncConnection.connect(**fleet.libpq(**options))


async def value(connection, text, *values, **more):
    return (await (await connection.execute(text, values or None, **more)).fetchone())[0]


def test_twenty_connections_with_their_own_values(fleet):
    async def one(number):
        async with await connect(fleet) as connection:
            for turn in range(20):
                assert await value(connection, "select %s::int * 1000 + %s::int", number, turn) == number * 1000 + turn
                async with connection.transaction():
                    await connection.execute("set local myapp.tenant = 'local'")
                    assert await value(connection, "select %s::text", f"mine {number}") == f"mine {number}"

    gather(one)


def test_the_pool_of_psycopg(fleet):
    async def talk():
        options = fleet.libpq(autocommit=True, prepare_threshold=0)
        pool = AsyncConnectionPool(
            kwargs=options, min_size=CLIENTS, max_size=CLIENTS, open=False, check=AsyncConnectionPool.check_connection
        )
        async with pool:

            async def one(number):
                for _ in range(5):
                    async with pool.connection() as connection:
                        assert await value(connection, "select %s::int", number) == number

            await asyncio.gather(*(one(number) for number in range(CLIENTS * 2)))

    asyncio.run(talk())


def test_many_statements_in_one_pipeline(fleet, owner):
    owner.execute("create table piped (client int, n int)")

    async def one(number):
        async with await connect(fleet) as connection:
            async with connection.pipeline():
                cursors = [await connection.execute("select %s::int + %s::int", [number, n]) for n in range(30)]
                for n in range(30):
                    await connection.execute("insert into piped values (%s, %s)", [number, n])
                assert [(await cursor.fetchone())[0] for cursor in cursors] == [number + n for n in range(30)]
            assert await value(connection, "select sum(n) from piped where client = %s", number) == 435

    gather(one)


def test_an_error_in_the_middle_of_a_pipeline_ends_at_its_sync(fleet, owner):
    owner.execute("create table broken (client int)")

    texts = ["select %s::int", "insert into broken values (%s)", "select %s::int from nowhere", "select 2 + %s::int"]

    async def one(number):
        async with await connect(fleet) as connection:
            for _ in range(3):
                cursors = [connection.cursor() for _ in texts]
                with pytest.raises(psycopg.errors.UndefinedTable, match="nowhere"):
                    async with connection.pipeline():
                        for cursor, text in zip(cursors, texts, strict=True):
                            await cursor.execute(text, [number])
                assert await cursors[0].fetchone() == (number,)
                for cursor in cursors[2:]:
                    with pytest.raises(psycopg.ProgrammingError):
                        await cursor.fetchone()
                async with connection.pipeline():
                    again = await connection.execute("select %s::int", [number])
                    assert await again.fetchone() == (number,)
            assert await value(connection, "select count(*) from broken where client = %s", number) == 0

    gather(one)


def test_transactions_and_settings_inside_a_pipeline(fleet):
    async def one(number):
        async with await connect(fleet) as connection:
            async with connection.pipeline():
                async with connection.transaction():
                    await connection.execute(f"set myapp.tenant = 'tenant {number}'")
                    first = await connection.execute("select %s::text", [f"a {number}"])
                async with connection.transaction(force_rollback=True):
                    await connection.execute("set myapp.tenant = 'undone'")
                second = await connection.execute("select current_setting('myapp.tenant')")
            assert await first.fetchone() == (f"a {number}",)
            assert await second.fetchone() == (f"tenant {number}",)
            assert await value(connection, "show myapp.tenant") == f"tenant {number}"

    gather(one)


def test_a_blocking_pipeline_of_many_transactions(fleet):
    def one(number):
        with fleet.psycopg() as connection, connection.pipeline() as pipeline:
            cursors = []
            for turn in range(20):
                cursors.append(connection.execute("select %s::int, %s::int", [number, turn]))
                pipeline.sync()
            assert [cursor.fetchone() for cursor in cursors] == [(number, turn) for turn in range(20)]

    together(one)


@pytest.mark.parametrize("by", ["a message", "a statement"])
def test_a_name_used_for_three_texts_before_any_answer_is_read(fleet, by):
    """With libpq's own calls: prepared, described, used, closed, and again for another text."""

    def close(raw):
        if by == "a message":
            raw.send_close_prepared(b"mine")
        else:
            raw.send_query_params(b"deallocate mine", [])

    def one(number):
        with psycopg.connect(**fleet.libpq(autocommit=True)) as connection:
            raw = connection.pgconn
            raw.enter_pipeline_mode()
            for turn in range(3):
                raw.send_prepare(b"mine", f"select {number * 10 + turn}".encode())
                raw.send_describe_prepared(b"mine")
                raw.send_query_prepared(b"mine", [])
                close(raw)
            raw.pipeline_sync()
            results = read_pipeline(raw)
            assert [result.error_message for result in results] == [b""] * 13
            values = [result.get_value(0, 0) for result in results if result.ntuples]
            assert values == [str(number * 10 + turn).encode() for turn in range(3)]
            raw.exit_pipeline_mode()

    together(one)


def read_pipeline(raw):
    """All results up to the next sync and its own."""
    raw.flush()
    results = []
    while not results or results[-1].status != psycopg.pq.ExecStatus.PIPELINE_SYNC:
        result = raw.get_result()
        assert raw.status == psycopg.pq.ConnStatus.OK, raw.error_message
        if result is not None:
            results.append(result)
    return results


def test_server_side_cursors_and_streams(fleet):
    async def one(number):
        async with await connect(fleet, autocommit=False) as connection:
            async with connection.cursor("mine") as cursor:
                cursor.itersize = 9
                await cursor.execute("select %s + n from generate_series(1, 50) n", [number])
                assert [row[0] async for row in cursor] == [number + n for n in range(1, 51)]
            await connection.commit()
            async with connection.cursor() as cursor:
                rows = cursor.stream("select %s + n from generate_series(1, 50) n", [number], size=10)
                assert [row[0] async for row in rows] == [number + n for n in range(1, 51)]
            await connection.commit()

    gather(one)


def test_copy_of_twenty_at_once(fleet, owner):
    owner.execute("create table crate (client int, t text)")

    async def one(number):
        async with await connect(fleet) as connection, connection.cursor() as cursor:
            async with cursor.copy("copy crate from stdin") as copy:
                for n in range(500):
                    await copy.write_row((number, f"{number}:{n}" * 20))
            out = b""
            async with cursor.copy("copy (select t from crate where client = %s) to stdout", [number]) as copy:
                async for data in copy:
                    out += data
            assert out.count(f"{number}:".encode()) == 500 * 20
            assert out.count(b"\n") == 500

    gather(one)


def test_notifications_while_others_work(fleet):
    async def talk():
        listeners = [await connect(fleet) for _ in range(CLIENTS)]
        for number, listener in enumerate(listeners):
            await listener.execute(f"listen channel_{number % 5}")

        async def hear(number):
            return [each async for each in listeners[number].notifies(timeout=10, stop_after=3)]

        async def speak(speaker):
            for turn in range(3):
                for channel in range(5):
                    await speaker.execute("select pg_notify(%s, %s)", [f"channel_{channel}", f"{channel}:{turn}"])

        async with await connect(fleet) as speaker:
            heard, _ = await asyncio.gather(
                asyncio.gather(*(hear(number) for number in range(CLIENTS))), speak(speaker)
            )
        for number, notifications in enumerate(heard):
            assert [each.payload for each in notifications] == [f"{number % 5}:{turn}" for turn in range(3)]
        for listener in listeners:
            await listener.close()

    asyncio.run(talk())


def test_a_cancelled_task_cancels_its_own_query(fleet):
    async def one(number):
        async with await connect(fleet) as connection:
            if number % 5 == 0:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.3):
                        await connection.execute("select pg_sleep(30)")
            assert await value(connection, "select %s::int", number) == number

    gather(one)


def test_a_temporary_table_in_a_pipeline(fleet):
    async def one(number):
        async with await connect(fleet) as connection:
            async with connection.pipeline():
                await connection.execute("create temp table mine (n int)")
                await connection.execute("insert into mine values (%s)", [number])
            assert await value(connection, "select n from mine") == number
            await connection.execute("drop table mine")

    gather(one)
