"""psycopg2: simple queries only, its pool, named cursors, statements prepared in SQL, large objects, polling."""

import io
import select
import threading
import time
from contextlib import closing, contextmanager

import psycopg2
import psycopg2.errors
import psycopg2.extensions
import psycopg2.extras
import psycopg2.pool
import pytest

from tests.live.clients.fleet import CLIENTS, cancelling, together

pytestmark = pytest.mark.live


@contextmanager
def connected(fleet, *, autocommit=True, **more):
    with closing(psycopg2.connect(**fleet.libpq(**more))) as connection:
        connection.autocommit = autocommit
        yield connection


def run(connection, text, *values):
    """The rows, if there are any."""
    with connection.cursor() as cursor:
        cursor.execute(text, values or None)
        return cursor.fetchall() if cursor.description else []


def value(connection, text, *values):
    return run(connection, text, *values)[0][0]


def test_a_pool_of_twenty_in_twenty_threads(fleet):
    pool = psycopg2.pool.ThreadedConnectionPool(CLIENTS, CLIENTS, **fleet.libpq())

    def one(number):
        for turn in range(10):
            connection = pool.getconn()
            with connection:
                assert run(connection, "select %s, %s", number, f"{turn}") == [(number, f"{turn}")]
                run(connection, "set local myapp.tenant = %s", f"{number}")
                assert value(connection, "show myapp.tenant") == f"{number}"
            pool.putconn(connection)

    together(one)
    pool.closeall()


def test_statements_prepared_in_sql_under_the_same_name(fleet, owner):
    owner.execute("create table ticket (client int, n int)")

    def one(number):
        with connected(fleet) as connection:
            run(connection, "prepare plan (int) as select %s + $1", number)
            run(connection, "prepare put (int) as insert into ticket values (%s, $1) returning n", number)
            for turn in range(10):
                assert value(connection, "execute plan(%s)", turn) == number + turn
                assert value(connection, "execute put(%s)", turn) == turn
            run(connection, "deallocate plan")
            run(connection, "prepare plan as select 'another'::text")
            assert value(connection, "execute plan") == "another"
            with pytest.raises(psycopg2.errors.DuplicatePreparedStatement):
                run(connection, "prepare plan as select 1")
            run(connection, "deallocate all")
            with pytest.raises(psycopg2.errors.InvalidSqlStatementName):
                run(connection, "execute plan")

    together(one)
    assert owner.execute("select count(*), count(distinct client) from ticket").fetchone() == (200, 20)


def test_a_prepare_that_is_rolled_back_stays_as_in_postgresql(fleet):
    def one(number):
        with connected(fleet, autocommit=False) as connection:
            run(connection, "prepare plan as select %s", number)
            connection.rollback()
            assert value(connection, "execute plan") == number
            connection.rollback()
            assert value(connection, "execute plan") == number
            connection.commit()

    together(one)


def test_settings_of_a_session(fleet):
    levels = ["read committed", "repeatable read", "serializable"]

    def one(number):
        with connected(fleet, autocommit=False, options=f"-c lock_timeout={number + 1}s") as connection:
            connection.set_session(isolation_level=levels[number % 3], readonly=bool(number % 2))
            run(connection, "set myapp.tenant = %s; set timezone = 'Asia/Tokyo'", f"tenant {number}")
            connection.commit()
            for _ in range(5):
                names = ("myapp.tenant", "lock_timeout", "transaction_isolation", "transaction_read_only", "timezone")
                found = [value(connection, f"show {name}") for name in names]
                only = ("off", "on")[number % 2]
                assert found == [f"tenant {number}", f"{number + 1}s", levels[number % 3], only, "Asia/Tokyo"]
                connection.commit()
            run(connection, "set myapp.tenant = 'undone'")
            connection.rollback()
            assert value(connection, "show myapp.tenant") == f"tenant {number}"
            assert connection.get_parameter_status("TimeZone") == "Asia/Tokyo"
            connection.reset()
            assert value(connection, "show lock_timeout") == f"{number + 1}s"
            assert value(connection, "select current_setting('myapp.tenant', true)") in (None, "")

    together(one)


def test_encodings(fleet):
    def one(number):
        with connected(fleet) as connection:
            name, text = [("LATIN1", "é"), ("UTF8", "☃"), ("EUC_JP", "日本")][number % 3]
            connection.set_client_encoding(name)
            for _ in range(5):
                assert connection.encoding == name.replace("_", "")
                assert value(connection, "select %s", text) == text
                assert value(connection, "show client_encoding") == name
            with pytest.raises(psycopg2.errors.InvalidParameterValue):
                connection.set_client_encoding("KLINGON")
            assert value(connection, "show client_encoding") == name

    together(one)


def test_named_cursors(fleet):
    def one(number):
        with connected(fleet, autocommit=False) as connection:
            with connection.cursor("mine", scrollable=True) as cursor:
                cursor.itersize = 7
                cursor.execute("select %s + n from generate_series(1, 30) n", [number])
                assert [row[0] for row in cursor] == [number + n for n in range(1, 31)]
                cursor.scroll(-31)
                assert cursor.fetchone() == (number + 1,)
            connection.commit()
            with connection.cursor("mine", withhold=True) as cursor:
                cursor.execute("select %s + n from generate_series(1, 30) n", [number])
                connection.commit()
                assert [cursor.fetchone()[0] for _ in range(30)] == [number + n for n in range(1, 31)]
            connection.commit()

    together(one)


def test_copy_and_many_values_at_once(fleet, owner):
    owner.execute("create table trunk (client int, t text)")

    def one(number):
        with connected(fleet) as connection, connection.cursor() as cursor:
            cursor.copy_expert("copy trunk from stdin", io.StringIO(f"{number}\tü\n" * 300))
            rows = [(number, f"{n}") for n in range(100)]
            found = psycopg2.extras.execute_values(
                cursor, "insert into trunk values %s returning client", rows, page_size=30, fetch=True
            )
            assert found == [(number,)] * 100
            psycopg2.extras.execute_batch(cursor, "insert into trunk values (%s, %s)", rows, page_size=20)
            out = io.StringIO()
            cursor.copy_expert(f"copy (select client from trunk where client = {number}) to stdout", out)
            assert out.getvalue() == f"{number}\n" * 500
            with pytest.raises(psycopg2.errors.BadCopyFileFormat):
                cursor.copy_expert("copy trunk from stdin", io.StringIO("1\t2\t3\n"))
            assert value(connection, "select %s", number) == number

    together(one)


def test_notifications_arrive_on_an_idle_socket(fleet):
    ready = threading.Barrier(CLIENTS + 1)

    def one(number):
        with connected(fleet) as connection:
            run(connection, f"listen own{number}; listen news")
            ready.wait(20)
            heard = wait_notifies(connection, 2)
            assert [(each.channel, each.payload) for each in heard] == [(f"own{number}", f"{number}"), ("news", "")]
            assert value(connection, "select %s", number) == number

    def speak():
        ready.wait(20)
        with connected(fleet) as connection:
            for number in range(CLIENTS):
                run(connection, "select pg_notify(%s, %s)", f"own{number}", f"{number}")
            run(connection, "notify news")

    speaker = threading.Thread(target=speak)
    speaker.start()
    together(one)
    speaker.join()


def wait_notifies(connection, count, seconds=10):
    end = time.monotonic() + seconds
    while len(connection.notifies) < count and time.monotonic() < end:
        select.select([connection], [], [], 0.5)
        connection.poll()
    return connection.notifies


def test_large_objects_inside_a_transaction(fleet):
    def one(number):
        with connected(fleet, autocommit=False) as connection:
            mine = connection.lobject(0, "wb")
            mine.write(f"{number} ".encode() * 1000)
            mine.close()
            connection.commit()
            again = connection.lobject(mine.oid, "rb")
            assert again.read() == f"{number} ".encode() * 1000
            again.unlink()
            connection.commit()

    together(one)


def test_errors_leave_the_transaction_as_it_must_be(fleet):
    def one(number):
        with connected(fleet, autocommit=False) as connection:
            with pytest.raises(psycopg2.errors.UndefinedTable):
                run(connection, "select * from nowhere")
            with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
                run(connection, "select 1")
            assert connection.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_INERROR
            connection.rollback()
            run(connection, "savepoint a; select 1")
            with pytest.raises(psycopg2.errors.DivisionByZero):
                run(connection, "select 1/0")
            run(connection, "rollback to a")
            assert value(connection, "select %s", number) == number
            connection.commit()
            assert connection.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_IDLE

    together(one)


def test_many_statements_in_one_text(fleet):
    def one(number):
        with connected(fleet) as connection:
            text = f"begin; create temp table mine (n int) on commit drop; insert into mine values ({number});"
            assert value(connection, text + "select n from mine") == number
            run(connection, "commit; set myapp.tenant = 'x'; begin")
            assert connection.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_INTRANS
            run(connection, f"commit; set myapp.tenant = '{number}'")
            assert value(connection, "show myapp.tenant") == f"{number}"

    together(one)


def test_cancelling_and_notices(fleet):
    def one(number):
        with connected(fleet) as connection:
            if number % 5 == 0:
                with cancelling(connection.cancel), pytest.raises(psycopg2.errors.QueryCanceled):
                    run(connection, "select pg_sleep(30)")
            run(connection, "do $$ begin raise notice 'for %', " + str(number) + "; end $$")
            assert connection.notices == [f"NOTICE:  for {number}\n"]

    together(one)
