"""pg8000, a driver in pure Python: prepared statements of its own numbering, COPY through streams, notifications."""

import datetime
import io
import time
from contextlib import closing, contextmanager

import pg8000.dbapi
import pg8000.native
import pytest

from tests.live.clients.fleet import CLIENTS, together

pytestmark = pytest.mark.live


@contextmanager
def native(fleet, **more):
    with closing(pg8000.native.Connection(**fleet.keywords(**more))) as connection:
        yield connection


@contextmanager
def connected(fleet, **more):
    with closing(pg8000.dbapi.connect(**fleet.keywords(**more))) as connection:
        yield connection


def state(error):
    return error.value.args[0]["C"]


def test_twenty_connections_with_their_own_values(fleet):
    def one(number):
        with native(fleet) as connection:
            for turn in range(10):
                text = "select cast(:n as int), cast(:t as text)"
                assert connection.run(text, n=number, t=f"{turn}") == [[number, f"{turn}"]]

    together(one)


def test_the_same_statement_names_for_different_texts(fleet):
    """pg8000 numbers its statements from zero in every connection."""

    def one(number):
        with native(fleet) as connection:
            add = connection.prepare(f"select {number} + cast(:n as int)")
            tell = connection.prepare(f"select 'client {number} ' || :t")
            for turn in range(10):
                assert add.run(n=turn) == [[number + turn]]
                assert tell.run(t=f"{turn}") == [[f"client {number} {turn}"]]
            add.close()
            assert tell.run(t="still") == [[f"client {number} still"]]
            again = connection.prepare("select cast(:n as int) * 2")
            assert again.run(n=number) == [[number * 2]]

    together(one)


def test_a_statement_prepared_before_a_change_of_its_table(fleet, owner):
    owner.execute("create table hat as select 1 as a")
    with native(fleet) as early:
        old = early.prepare("select * from hat")
        assert old.run() == [[1]]
        owner.execute("alter table hat add column b int default 2")
        with native(fleet) as late:
            fresh = late.prepare("select * from hat")
            assert fresh.run() == [[1, 2]]
            assert [column["name"] for column in fresh.columns] == ["a", "b"]
        with pytest.raises(pg8000.native.DatabaseError) as error:
            old.run()
        assert state(error) == "0A000"
        assert early.run("select * from hat") == [[1, 2]]


def test_transactions_of_the_dbapi(fleet, owner):
    owner.execute("create table cap (client int, n int)")

    def one(number):
        with connected(fleet) as connection:
            cursor = connection.cursor()
            for turn in range(5):
                cursor.execute("insert into cap values (%s, %s)", (number, turn))
                connection.commit()
                cursor.execute("insert into cap values (%s, %s)", (number, 1000))
                connection.rollback()
            cursor.executemany("insert into cap values (%s, %s)", [(number, n) for n in range(10)])
            connection.commit()
            cursor.execute("select sum(n) from cap where client = %s", (number,))
            assert cursor.fetchone() == [55]
            cursor.execute("savepoint a")
            with pytest.raises(pg8000.dbapi.DatabaseError) as error:
                cursor.execute("select 1/0")
            assert state(error) == "22012"
            cursor.execute("rollback to savepoint a")
            cursor.execute("select cast(%s as int)", (number,))
            assert cursor.fetchone() == [number]
            connection.rollback()

    together(one)


def test_settings_follow_their_client(fleet):
    def one(number):
        with native(fleet, startup_params={"statement_timeout": f"{number + 1}min"}) as connection:
            connection.run(f"set timezone = 'Etc/GMT+{number % 12}'")
            connection.run("select set_config('myapp.tenant', :t, false)", t=f"{number}")
            for _ in range(5):
                assert connection.parameter_statuses["TimeZone"] == f"Etc/GMT+{number % 12}"
                assert connection.run("show timezone") == [[f"Etc/GMT+{number % 12}"]]
                assert connection.run("show myapp.tenant") == [[f"{number}"]]
                assert connection.run("show statement_timeout")[0][0] in (f"{number + 1}min", "1h")
            connection.run("discard all")
            assert connection.run("select current_setting('myapp.tenant', true)")[0][0] in (None, "")
            assert connection.run("show statement_timeout")[0][0] == f"{number + 1}min"

    together(one)


def test_copy_through_streams(fleet, owner):
    owner.execute("create table glove (client int, t text)")

    def one(number):
        with connected(fleet) as connection:
            cursor = connection.cursor()
            cursor.execute("copy glove from stdin", stream=io.BytesIO(f"{number}\tü\n".encode() * 200))
            connection.commit()
            out = io.BytesIO()
            cursor.execute(f"copy (select client from glove where client = {number}) to stdout", stream=out)
            connection.commit()
            assert out.getvalue() == f"{number}\n".encode() * 200

    together(one)


def test_notifications_and_notices(fleet):
    connections = [pg8000.native.Connection(**fleet.keywords()) for _ in range(CLIENTS)]
    for number, connection in enumerate(connections):
        connection.run(f"listen own{number}")
        connection.run("listen news")
    with native(fleet) as speaker:
        for number in range(CLIENTS):
            speaker.run("select pg_notify(:c, :p)", c=f"own{number}", p=f"{number}")
        speaker.run("notify news")
    for number, connection in enumerate(connections):
        heard = wait_notifications(connection)
        assert [(channel, payload) for _, channel, payload in heard] == [(f"own{number}", f"{number}"), ("news", "")]
        connection.run(f"do $$ begin raise notice 'for {number}'; end $$")
        assert [notice[b"M"] for notice in connection.notices] == [f"for {number}".encode()]
        connection.close()


def wait_notifications(connection, count=2):
    """pg8000 reads its socket only when it asks something."""
    end = time.monotonic() + 10
    while len(connection.notifications) < count and time.monotonic() < end:
        connection.run("select 1")
        time.sleep(0.02)
    return list(connection.notifications)


def test_types(fleet):
    values = [2**40, 1.5, True, "ü", b"\0\xff", [1, 2], datetime.date(2024, 2, 29), None]
    kinds = ["int8", "float8", "bool", "text", "bytea", "int[]", "date", "int"]
    text = "select " + ", ".join(f"cast(:v{n} as {kind})" for n, kind in enumerate(kinds))

    def one(number):
        with native(fleet) as connection:
            given = {f"v{n}": value for n, value in enumerate(values)}
            statement = connection.prepare(text + ", cast(:mine as int)")
            for _ in range(3):
                assert statement.run(**given, mine=number) == [[*values, number]]

    together(one)


def test_a_temporary_table_and_a_lock(fleet):
    def one(number):
        with native(fleet) as connection:
            connection.run("create temp table mine (n int)")
            connection.run("insert into mine values (:n)", n=number)
            connection.run("select pg_advisory_lock(:n)", n=number)
            assert connection.run("select n from mine") == [[number]]
            assert connection.run("select pg_advisory_unlock(:n)", n=number) == [[True]]
            connection.run("drop table mine")
            assert connection.run("select cast(:n as int)", n=number) == [[number]]

    together(one)
