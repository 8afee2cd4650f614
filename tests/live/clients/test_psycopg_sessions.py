"""Sessions of psycopg: settings, encodings, roles, search paths and temporary tables, each its own client's."""

import psycopg
import pytest
from psycopg import sql

from tests.live.clients.fleet import CLIENTS, together, value

pytestmark = pytest.mark.live


def test_settings_follow_each_client(fleet):
    zones = ["Asia/Tokyo", "Europe/Oslo", "America/Lima", "Africa/Cairo"]

    def one(number):
        with fleet.psycopg(options=f"-c statement_timeout={number + 5001} -c myapp.tenant=t{number}") as connection:
            connection.execute(sql.SQL("set timezone to {}").format(zones[number % 4]))
            connection.execute(f"set search_path = of{number}")
            connection.execute(f"set lock_timeout = {number + 1}")
            for _ in range(5):
                assert connection.info.parameter_status("TimeZone") == zones[number % 4]
                assert connection.info.timezone.key == zones[number % 4]
                found = [
                    value(connection, f"show {name}") for name in ("timezone", "statement_timeout", "lock_timeout")
                ]
                assert found == [zones[number % 4], f"{number + 5001}ms", f"{number + 1}ms"]
                assert value(connection, "select current_setting('myapp.tenant')") == f"t{number}"
                assert value(connection, "show search_path") == f"of{number}"
            connection.execute("reset statement_timeout")
            assert value(connection, "show statement_timeout") == f"{number + 5001}ms"

    together(one)


def test_settings_inside_a_transaction_follow_its_end(fleet):
    def one(number):
        with fleet.psycopg() as connection:
            connection.execute("set timezone = 'Europe/Oslo'")
            with pytest.raises(ZeroDivisionError), connection.transaction():
                connection.execute("set timezone = 'Asia/Tokyo'")
                assert connection.info.parameter_status("TimeZone") == "Asia/Tokyo"
                raise ZeroDivisionError
            assert connection.info.parameter_status("TimeZone") == "Europe/Oslo"
            with connection.transaction():
                connection.execute(f"set myapp.tenant = 'kept {number}'")
                with pytest.raises(psycopg.errors.UndefinedTable), connection.transaction():
                    connection.execute("set myapp.tenant = 'undone'")
                    connection.execute("select * from nowhere")
                connection.execute("set local timezone = 'Asia/Tokyo'")
            assert value(connection, "show myapp.tenant") == f"kept {number}"
            assert value(connection, "show timezone") == "Europe/Oslo"
            assert connection.info.parameter_status("TimeZone") == "Europe/Oslo"

    together(one)


def test_the_encoding_is_each_clients_own(fleet):
    encodings = ["utf-8", "iso8859-1", "euc_jp", "cp1252"]
    texts = ["naïve ☃", "naïve", "日本語", "naïve €"]

    def one(number):
        encoding, text = encodings[number % 4], texts[number % 4]
        with fleet.psycopg(client_encoding=("utf8", "latin1", "euc_jp", "win1252")[number % 4]) as connection:
            assert connection.info.encoding == encoding
            for _ in range(5):
                assert connection.execute("select %s::text, length(%s)", [text, text]).fetchone() == (text, len(text))
            connection.execute("set client_encoding = utf8")
            assert connection.info.encoding == "utf-8"
            assert value(connection, "select %s::text", "☃") == "☃"

    together(one)


def test_a_search_path_decides_what_a_prepared_text_means(fleet, owner):
    for number in range(CLIENTS):
        owner.execute(f"create schema flat{number}; create table flat{number}.bell as select 'of {number}' as name")

    def one(number):
        with fleet.psycopg() as connection:
            for turn in range(4):
                whose = (number + turn) % CLIENTS
                connection.execute(f"set search_path = flat{whose}")
                assert value(connection, "select name from bell") == f"of {whose}"
                assert value(connection, "select name from bell where name = %s", f"of {whose}") == f"of {whose}"

    together(one)


def test_a_role_is_each_clients_own(fleet, admin):
    admin.execute("drop role if exists porter")
    admin.execute("create role porter role app")

    def one(number):
        with fleet.psycopg() as connection:
            if number % 2:
                connection.execute("set role porter")
            for _ in range(5):
                assert value(connection, "select current_user::text") == ("porter" if number % 2 else "app")
                assert value(connection, "select session_user::text") == "app"
            connection.execute("reset role")
            assert value(connection, "select current_user::text") == "app"

    together(one)
    admin.execute("drop role porter")


def test_temporary_tables_locks_and_sequences(fleet, owner):
    owner.execute("create sequence bell_number")

    def one(number):
        with fleet.psycopg() as connection:
            connection.execute("create temp table mine (n int)")
            connection.execute("insert into mine values (%s)", [number])
            connection.execute("select pg_advisory_lock(%s)", [number])
            assert value(connection, "select n from mine") == number
            held = "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
            assert value(connection, held) == 1
            connection.execute("discard temp", prepare=False)
            connection.execute("select pg_advisory_unlock_all()")
            assert value(connection, held) == 0
            with connection.transaction():
                mine = value(connection, "select nextval('bell_number')")
                assert value(connection, "select currval('bell_number')") == mine
            with pytest.raises(psycopg.errors.UndefinedTable):
                connection.execute("select n from mine")

    together(one)
