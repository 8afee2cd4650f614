"""psycopg 3, blocking: statements prepared from the first use, server-side cursors, COPY, binary, notifications."""

import threading
import time
from contextlib import suppress

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from tests.live.clients.fleet import CLIENTS, cancelling, together, value

pytestmark = pytest.mark.live


# Statements.


def test_twenty_connections_prepare_the_same_text_with_their_own_values(fleet):
    def one(number):
        with fleet.psycopg() as connection:
            for turn in range(20):
                found = connection.execute("select %s::int, %s::text", [number, f"{number}:{turn}"]).fetchone()
                assert found == (number, f"{number}:{turn}")
                with connection.transaction():
                    assert value(connection, "select %s::int * 2", number) == number * 2

    together(one)


def test_the_same_name_is_another_text_for_each_client(fleet):
    def one(number):
        with fleet.psycopg() as connection:
            for _ in range(5):
                assert value(connection, f"select {number} + %s::int", 1) == number + 1
            names = [row[0] for row in connection.execute("select %s::text", ["_pg3_0"], prepare=False)]
            assert names == ["_pg3_0"]

    together(one)


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_more_texts_than_the_driver_keeps(fleet, binary):
    def one(number):
        with fleet.psycopg() as connection:
            connection.prepared_max = 3
            for turn in range(60):
                found = connection.execute(f"select %s::int + {turn % 7}", [number], binary=binary).fetchone()
                assert found == (number + turn % 7,)

    together(one)


def test_the_default_threshold_moves_from_unnamed_to_named(fleet):
    def one(number):
        with fleet.psycopg(prepare_threshold=5) as connection:
            assert [value(connection, "select %s::int", number) for _ in range(12)] == [number] * 12

    together(one)


def test_prepared_statements_are_used_in_later_transactions(fleet, owner):
    owner.execute("create table stock (client int, n int)")

    def one(number):
        with fleet.psycopg(autocommit=False) as connection:
            for turn in range(10):
                connection.execute("insert into stock values (%s, %s)", [number, turn])
                connection.commit()
                connection.execute("insert into stock values (%s, %s)", [number, 1000])
                connection.rollback()
            assert value(connection, "select sum(n) from stock where client = %s", number) == 45

    together(one)


def test_an_error_does_not_disturb_what_is_prepared(fleet):
    def one(number):
        with fleet.psycopg() as connection:
            for turn in range(5):
                with pytest.raises(psycopg.errors.DivisionByZero):
                    connection.execute("select %s::int / %s::int", [number, 0])
                assert value(connection, "select %s::int / %s::int", number, 1) == number
                with pytest.raises(psycopg.errors.UndefinedTable):
                    connection.execute("select * from nowhere where n = %s", [turn])

    together(one)


def test_executemany_returns_each_clients_rows(fleet, owner):
    owner.execute("create table parcel (client int, n int check (n <> 13))")

    def one(number):
        with fleet.psycopg() as connection:
            with connection.cursor() as cursor:
                cursor.executemany(
                    "insert into parcel values (%s, %s) returning client, n",
                    [(number, n) for n in range(12)],
                    returning=True,
                )
                found = [result.fetchone() for result in cursor.results()]
                assert found == [(number, n) for n in range(12)]
                with pytest.raises(psycopg.errors.CheckViolation), connection.transaction():
                    cursor.executemany("insert into parcel values (%s, %s)", [(number, n) for n in range(10, 20)])
            assert value(connection, "select count(*) from parcel where client = %s", number) == 12

    together(one)


def test_new_connections_get_the_columns_of_today_and_old_ones_nothing_stale(fleet, owner):
    owner.execute("create table shelf as select 1 as a")

    def fresh():
        with fleet.psycopg(row_factory=dict_row) as connection:
            return connection.execute("select * from shelf").fetchone()

    with fleet.psycopg(row_factory=dict_row) as early:
        assert [early.execute("select * from shelf").fetchone() for _ in range(4)] == [{"a": 1}] * 4
        assert together(lambda _: fresh()) == [{"a": 1}] * CLIENTS
        owner.execute("alter table shelf add column b int default 2")
        assert together(lambda _: fresh()) == [{"a": 1, "b": 2}] * CLIENTS
        for _ in range(2):
            with suppress(psycopg.errors.FeatureNotSupported):  # "cached plan must not change", as PostgreSQL says
                assert early.execute("select * from shelf").fetchone() == {"a": 1, "b": 2}
    with owner.transaction():
        owner.execute("alter table shelf drop column a")
        owner.execute("alter table shelf rename column b to c")
    assert fresh() == {"c": 2}


@pytest.mark.parametrize("words", ["deallocate all", "discard all"])
def test_what_deallocates_is_followed(fleet, words):
    def one(number):
        with fleet.psycopg() as connection:
            for turn in range(3):
                assert value(connection, "select %s::int", number) == number
                connection.execute(f"prepare mine as select {number * turn}", prepare=False)
                assert value(connection, "execute mine", prepare=False) == number * turn
                connection.execute(words, prepare=False)
                with pytest.raises(psycopg.errors.InvalidSqlStatementName):
                    connection.execute("execute mine", prepare=False)

    together(one)


def test_pg_prepared_statements_shows_what_the_client_has_prepared_in_sql(fleet):
    def one(number):
        with fleet.psycopg(prepare_threshold=None) as connection:
            connection.execute(f'prepare "my {number}" (int) as select $1')
            assert value(connection, f'execute "my {number}"(%s)' % number) == number
            with pytest.raises(psycopg.errors.DuplicatePreparedStatement):
                connection.execute(f'prepare "my {number}" as select 1')
            connection.execute(f'deallocate "my {number}"')
            connection.execute(f'prepare "my {number}" as select 1')

    together(one)


# Cursors, COPY, notifications.


def test_server_side_cursors(fleet):
    def one(number):
        with fleet.psycopg(autocommit=False) as connection:
            with connection.cursor("mine", scrollable=True) as cursor:
                cursor.itersize = 7
                cursor.execute("select %s * 1000 + n from generate_series(1, 40) n", [number])
                assert [row[0] for row in cursor] == [number * 1000 + n for n in range(1, 41)]
                cursor.scroll(0, "absolute")
                assert cursor.fetchone() == (number * 1000 + 1,)
            connection.commit()
            with connection.cursor("mine", binary=True) as cursor:
                cursor.execute("select %s::int", [number])
                assert cursor.fetchall() == [(number,)]

    together(one)


def test_a_cursor_with_hold_lives_on_after_its_transaction(fleet):
    def one(number):
        with fleet.psycopg(autocommit=False) as connection:
            with connection.cursor("held", withhold=True) as cursor:
                cursor.execute("select %s + n from generate_series(1, 30) n", [number])
                assert cursor.fetchone() == (number + 1,)
                connection.commit()
                for n in range(2, 31):
                    assert cursor.fetchone() == (number + n,)
                    connection.commit()
            connection.commit()
            assert value(connection, "select %s::int", number) == number

    together(one)


def test_copy_in_and_out_and_stopped_half_way(fleet, owner):
    owner.execute("create table freight (client int, t text)")

    def one(number):
        with fleet.psycopg() as connection, connection.cursor() as cursor:
            with cursor.copy("copy freight from stdin (format binary)") as copy:
                copy.set_types(["int4", "text"])
                for n in range(100):
                    copy.write_row((number, f"row {n}"))
            with pytest.raises(ZeroDivisionError), cursor.copy("copy freight from stdin") as copy:
                copy.write_row((number, "lost"))
                raise ZeroDivisionError
            with cursor.copy("copy (select t from freight where client = %s) to stdout", [number]) as copy:
                assert sorted(row[0] for row in copy.rows()) == sorted(f"row {n}" for n in range(100))
            with pytest.raises(psycopg.errors.UndefinedTable), cursor.copy("copy nowhere from stdin") as copy:
                copy.write_row((1,))
            assert value(connection, "select count(*) from freight where client = %s", number) == 100

    together(one)


def test_notifications_reach_the_idle(fleet):
    ready = threading.Barrier(CLIENTS + 1)

    def one(number):
        with fleet.psycopg() as connection:
            connection.execute(f'listen "own {number}"; listen news', prepare=False)
            ready.wait(20)
            heard = [(each.channel, each.payload) for each in connection.notifies(timeout=10, stop_after=2)]
            assert heard == [(f"own {number}", str(number)), ("news", "today")]
            assert value(connection, "select %s::int", number) == number
            connection.execute("unlisten *", prepare=False)
            assert list(connection.notifies(timeout=0.1)) == []

    def speak():
        ready.wait(20)
        with fleet.psycopg() as connection:
            for number in range(CLIENTS):
                connection.execute("select pg_notify(%s, %s)", [f"own {number}", str(number)])
            connection.execute("notify news, 'today'")

    speaker = threading.Thread(target=speak)
    speaker.start()
    together(one)
    speaker.join()


def test_a_notification_is_for_after_the_commit(fleet):
    with fleet.psycopg() as listener, fleet.psycopg() as speaker:
        listener.execute("listen later")
        with speaker.transaction():
            speaker.execute("notify later, 'now'")
            assert list(listener.notifies(timeout=0.2)) == []
        assert [each.payload for each in listener.notifies(timeout=5, stop_after=1)] == ["now"]
        with listener.transaction(force_rollback=True):
            listener.execute("listen never")
        speaker.execute("notify never")
        assert list(listener.notifies(timeout=0.2)) == []
        listener.execute("notify later, 'from me'")
        heard = list(listener.notifies(timeout=5, stop_after=1))
        assert [each.payload for each in heard] == ["from me"]


def test_types_in_text_and_binary(fleet):
    values = [2**40, 0.5, "ü\t", b"\0\xff", True, None, [1, None, 2], Jsonb({"a": [1]})]
    kinds = ["int8", "float8", "text", "bytea", "bool", "int", "int[]", "jsonb"]
    text = "select " + ", ".join(f"%s::{kind}" for kind in kinds)

    def one(number):
        with fleet.psycopg() as connection:
            for binary in (True, False, True):
                found = connection.cursor(binary=binary).execute(f"{text}, %s::int", [*values, number]).fetchone()
                assert found == (*values[:-1], {"a": [1]}, number)

    together(one)


# Trouble.


def test_cancelling_one_of_twenty(fleet):
    def one(number):
        with fleet.psycopg() as connection:
            if number % 5 == 0:
                with cancelling(connection.cancel_safe), pytest.raises(psycopg.errors.QueryCanceled):
                    connection.execute("select pg_sleep(30)")
            for _ in range(5):
                assert value(connection, "select %s::int", number) == number

    together(one)


def test_a_statement_timeout_is_for_its_own_client(fleet):
    def one(number):
        with fleet.psycopg() as connection:
            if number % 4 == 0:
                connection.execute("set statement_timeout = 50")
                with pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"):
                    connection.execute("select pg_sleep(10)")
            else:
                time.sleep(0.01 * number)
                assert value(connection, "select pg_sleep(0.08) is not null")

    together(one)


def test_notices_go_to_whom_they_concern(fleet):
    def one(number):
        heard = []
        with fleet.psycopg() as connection:
            connection.add_notice_handler(lambda notice: heard.append(notice.message_primary))
            for turn in range(5):
                connection.execute(f"do $$ begin raise notice '% %', {number}, {turn}; end $$")
        assert heard == [f"{number} {turn}" for turn in range(5)]

    together(one)


def test_the_state_of_the_transaction_is_told_as_it_is(fleet):
    states = psycopg.pq.TransactionStatus

    def one(number):
        with fleet.psycopg() as connection:
            connection.execute("begin")
            assert connection.info.transaction_status == states.INTRANS
            with pytest.raises(psycopg.errors.SyntaxError):
                connection.execute("selec")
            assert connection.info.transaction_status == states.INERROR
            with pytest.raises(psycopg.errors.InFailedSqlTransaction):
                connection.execute("select 1")
            connection.execute("rollback")
            assert connection.info.transaction_status == states.IDLE
            connection.execute("begin isolation level repeatable read, read only")
            assert value(connection, "show transaction_read_only") == "on"
            assert value(connection, "show transaction_isolation") == "repeatable read"
            connection.execute("commit")
            connection.execute("begin")
            assert connection.execute("commit").statusmessage == "COMMIT"
            connection.execute("set session characteristics as transaction isolation level serializable")
            assert value(connection, "show transaction_isolation") == "serializable"
            assert value(connection, "select %s::int", number) == number

    together(one)
