"""The admin console as tools meet it: psql, drivers with their extended protocol, its owner, and busy neighbours."""

import asyncio
import os
import signal
import subprocess
import threading
import time
from decimal import Decimal
from pathlib import Path

import asyncpg
import psycopg
import pytest

from tests.live.clients.fleet import find_postgresql_program, find_program, miss
from tests.live.stand import USER, Stand, wait_until
from tests.live.wire import Raw, error, query, rows

pytestmark = pytest.mark.live

JAVA = Path(__file__).parent / "clients" / "java"
JDBC = Path("/usr/share/java/postgresql.jar")


@pytest.fixture(name="stand")
def _stand(upstream):
    stand = Stand(upstream, {"stats_users": "app"})
    stand.settings["unix_socket_dir"] = stand.folder
    with stand:
        yield stand


def psql(stand, command, *, host="127.0.0.1", user="postgres", account=""):
    program = [find_postgresql_program("psql"), "--no-psqlrc", "--no-align", "--tuples-only", "-c", command]
    place = ["-h", host, "-p", str(stand.port), "-U", user, "pgbouncer"]
    become = {"user": account} if account and os.geteuid() == 0 else {}
    return subprocess.run(program + place, capture_output=True, text=True, check=False, timeout=20, **become)


def test_psql_sees_rows_notices_and_errors(stand):
    done = psql(stand, "show databases")
    assert done.stdout.splitlines()[-1].startswith("pgbouncer||")
    done = psql(stand, "show help")
    assert "SHOW HELP|CONFIG|DATABASES" in done.stderr
    done = psql(stand, "show nonsense")
    assert done.stderr == "ERROR:  invalid command 'show nonsense', use SHOW HELP;\n"
    assert psql(stand, "pause nobody").returncode == 0  # served by *
    assert psql(stand, "resume nobody").stdout == "RESUME\n"


def test_the_mistakes_of_a_reload_are_read_in_psql(stand):
    stand.settings["default_pool_size"] = "many"
    stand.write()
    for command in ("reload", "reload check"):
        done = psql(stand, command)
        assert done.returncode == 1
        assert f"DETAIL:  {stand.file}:" in done.stderr
        assert "default_pool_size is not a whole number: 'many'" in done.stderr
    stand.settings["default_pool_size"] = "9"
    stand.write()
    assert psql(stand, "reload check").stdout == "setting|default_pool_size|20|9|at once\n"
    assert "default_pool_size|20|" in psql(stand, "show config").stdout
    assert psql(stand, "reload").stdout == "RELOAD\n"
    assert psql(stand, "reload check").stdout == ""


def test_psycopg_works_as_it_is(stand):
    with psycopg.connect(**stand.options("postgres", "pgbouncer")) as connection:  # it says BEGIN
        cursor = connection.cursor(binary=True)
        found = cursor.execute("show totals").fetchall()
        assert found[0] == ("total_server_assignment_count", Decimal(0))
        assert connection.execute("select version()").fetchone()[0].startswith("PgBouncer 1.25.2")
        for _ in range(3):
            assert cursor.execute("show lists", prepare=True).fetchall()[0] == ("databases", 1)
        with pytest.raises(psycopg.errors.UndefinedParameter, match="commands of the console take no parameters"):
            connection.execute("show clients %s", ["postgres"])
        connection.rollback()
        with connection.transaction(), connection.pipeline():
            first, second = connection.execute("show state"), connection.execute("show peers")
            assert (len(first.fetchall()), second.fetchall()) == (8, [])


def test_asyncpg_works_as_it_is(stand):
    async def talk():
        options = {"host": "127.0.0.1", "port": stand.port, "user": "postgres", "database": "pgbouncer", "timeout": 10}
        async with asyncpg.create_pool(min_size=1, max_size=2, **options) as pool:
            for _ in range(3):  # it is reset in between
                async with pool.acquire() as connection:
                    record = await connection.fetchrow("show pools")
                    assert (record["database"], record["cl_active"]) == ("pgbouncer", 1)
                    with pytest.raises(asyncpg.PostgresSyntaxError, match="use SHOW HELP"):
                        await connection.fetch("show nonsense")
                    assert await connection.execute("set verbose = 0") == "SET verbose=0"
                    async with connection.transaction():
                        assert await connection.fetchval("select 1") == 1

    asyncio.run(talk())


def test_jdbc_works_as_it_is(stand, tmp_path):
    if not JDBC.exists():
        miss(f"no {JDBC}: the package is libpostgresql-jdbc-java")
    compiler = find_program("javac", "it compiles the JDBC program; the package is default-jdk-headless")
    java = find_program("java", "it runs the JDBC program")
    subprocess.run([compiler, "-cp", JDBC, "-d", tmp_path, JAVA / "Console.java"], check=True, timeout=120)
    program = [java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{tmp_path}{os.pathsep}{JDBC}", "Console"]
    done = subprocess.run(
        [*program, str(stand.port), "postgres"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_account_of_the_proxy_needs_no_password_on_the_unix_socket(stand):
    folder = str(stand.settings["unix_socket_dir"])
    for user in ("pgbouncer", "pgshuttle"):
        done = psql(stand, "disable shop", host=folder, user=user, account=USER)
        assert done.stdout == "DISABLE\n"
    assert "pgbouncer access from unix socket" in stand.log
    (row,) = psql(stand, "show clients pgbouncer", host=folder, user="pgshuttle", account=USER).stdout.splitlines()
    assert int(row.split("|")[16]) > 0, "the process at the other end"
    with pytest.raises(psycopg.OperationalError, match="not allowed"):
        psycopg.connect(**stand.options("pgbouncer", "pgbouncer"))
    if os.geteuid() == 0:  # then we are somebody else
        done = psql(stand, "show version", host=folder, user="pgbouncer")
        assert done.returncode == 2
        assert "FATAL:  not allowed" in done.stderr


def test_what_was_prepared_is_counted(stand):
    console = stand.connect("postgres", "pgbouncer", cursor_factory=psycopg.ClientCursor)
    with console, stand.connect(prepare_threshold=0) as first, stand.connect(prepare_threshold=0) as second:
        for client in (first, second):
            for number in range(3):
                assert client.execute("select %s::int", [number]).fetchone() == (number,)
        names = [column.name for column in console.execute("show stats").description]
        found = [dict(zip(names, row, strict=True)) for row in console.execute("show stats")]
        (row,) = [row for row in found if row["database"] == "postgres"]
        counts = [row[f"total_{name}_count"] for name in ("client_parse", "server_parse", "bind")]
        assert counts == [2, 1, 6]
        assert row["total_server_assignment_count"] >= row["total_xact_count"] >= 6
        for table in ("clients", "servers"):
            names = [column.name for column in console.execute(f"show {table} postgres").description]
            for row in console.execute(f"show {table} postgres"):
                assert dict(zip(names, row, strict=True))["prepared_statements"] == 1


def test_suspend_holds_everybody_until_resume_even_if_its_operator_has_gone(stand):
    with stand.connect() as client:
        client.execute("select 1")
        with stand.connect("postgres", "pgbouncer", cursor_factory=psycopg.ClientCursor) as console:
            assert console.execute("suspend").statusmessage == "SUSPEND"
        answers = []

        def ask():
            answers.append(client.execute("select 'old'").fetchone())

        def come():
            with stand.connect() as late:
                answers.append(late.execute("select 'new'").fetchone())

        threads = [threading.Thread(target=each) for each in (ask, come)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        assert answers == []
        assert psql(stand, "show state").stdout.splitlines()[2] == "suspended|yes"
        assert psql(stand, "resume").stdout == "RESUME\n"
        for thread in threads:
            thread.join(10)
        assert sorted(answers) == [("new",), ("old",)]


def test_suspend_ends_with_sigusr2_too(stand):
    with stand.connect() as client:
        assert psql(stand, "suspend").stdout == "SUSPEND\n"
        stand.signal(signal.SIGUSR2)
        assert client.execute("select 1").fetchone() == (1,)


def test_who_does_not_read_is_closed_at_suspend_timeout(stand):
    with stand.connect() as client, stand.raw() as deaf:
        psql(stand, "set suspend_timeout = 0.5")
        deaf.send(query("select repeat('x', 1000) from generate_series(1, 100000)"))
        wait_until(lambda: "active" in psql(stand, "show servers postgres").stdout, "it is being answered")
        time.sleep(0.3)
        start = time.monotonic()
        assert psql(stand, "suspend").stdout == "SUSPEND\n"
        assert 0.3 < time.monotonic() - start < 5
        psql(stand, "resume")
        assert client.execute("select 1").fetchone() == (1,)
        assert "closing because: suspend_timeout" in stand.log


def test_a_long_table_is_no_burden_to_others(stand):
    """How long others wait is measured elsewhere; here: nobody is lost, and a probe is answered meanwhile."""
    lines = [stand.raw() for _ in range(300)]
    with stand.raw() as probe, Raw(stand.port) as console:
        console.login("postgres", "pgbouncer")
        console.send(query("show clients"))
        probe.send(query("select 'here'"))
        assert rows(probe.read_until()) == [("here",)]
        assert len(rows(console.read_until())) == 302
    for line in lines:
        line.close()


def test_nonsense_is_answered_and_the_console_goes_on(stand):
    with Raw(stand.port) as console:
        console.login("postgres", "pgbouncer")
        for text in ("'", "pause 'x'", "set", "set verbose = many", "set nothing = 1", "x" * 100_000, "kill_client x"):
            console.send(query(text))
            assert error(console.read_until()), text
        console.send(query("show version"))
        assert rows(console.read_until())[0][0].startswith("PgBouncer 1.25.2")
