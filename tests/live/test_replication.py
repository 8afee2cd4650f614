"""Replication through the proxy: PostgreSQL's own tools, walsenders by hand, and nothing left behind by either."""

import os
import signal
import subprocess
import threading
import time
from struct import pack, unpack

import psycopg
import pytest

from tests.live.stand import Stand, wait_until
from tests.live.test_limits import Sampler
from tests.live.upstream import COPIER, PASSWORD, find_tool
from tests.live.wire import COPY_DONE, PROTOCOL, Gone, cancel_request, copy_data, error, kinds, query, rows, sqlstate

pytestmark = pytest.mark.live

MEGABYTE = 1_000_000
SIZE = 20  # MB
ROOM = 3 * MEGABYTE  # what a slow reader may cost: the buffers of one tunnel, and what the allocator keeps
WALSENDERS = "select count(*) from pg_stat_activity where backend_type = 'walsender'"
NAP = "select pg_sleep(30), 'a nap in a tunnel'"
NAPPING = "select count(*) from pg_stat_activity where query like '%a nap in a tunnel%' and pid <> pg_backend_pid()"
SEGMENT = 16 << 20  # bytes of WAL in a file
FALLS_ASLEEP = """
    create function falls_asleep() returns trigger language plpgsql as $$
    begin
        if new.words = 'sleep' then perform pg_sleep(1.5); end if;
        return new;
    end $$
"""


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    with Stand(upstream, {"auth_type": "scram-sha-256"}) as stand:
        yield stand


@pytest.fixture(autouse=True)
def _no_walsender_is_left(upstream):
    yield
    with upstream.connect() as admin:
        wait_until(lambda: admin.execute(WALSENDERS).fetchone() == (0,), "every walsender is gone", 8)


def call(stand, kind, user=COPIER, database="postgres", password=PASSWORD, seconds=15.0, **more):
    """A bare socket logged in with replication=`kind`."""
    line = stand.call(seconds)
    line.heard = line.login(user, database, password, replication=kind, **more)
    return line


def console(stand, text):
    """Rows of the console, as dicts."""
    options = stand.options("postgres", "pgbouncer", password=stand.secrets["postgres"])
    with psycopg.connect(**options, autocommit=True, row_factory=psycopg.rows.dict_row) as operator:
        cursor = operator.execute(text)
        return cursor.fetchall() if cursor.description else []


def start_tool(name, stand, *options):
    """One of PostgreSQL's programs, talking to the proxy as COPIER."""
    where = ("-h", "127.0.0.1", "-p", str(stand.port), "-U", COPIER, "-w")
    environment = {"PATH": os.environ["PATH"], "PGPASSWORD": PASSWORD, "LC_ALL": "C"}
    return subprocess.Popen(
        [find_tool(name), *where, *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(tool, seconds=60):
    """Its exit code and what it said."""
    try:
        said, _ = tool.communicate(timeout=seconds)
    finally:
        tool.kill()
        tool.wait()
        tool.stdout.close()
    return tool.returncode, said


# By hand.


@pytest.mark.parametrize(("kind", "database"), [("database", "postgres"), ("true", None), ("YES", None), ("1", None)])
def test_a_walsender_says_who_it_is(kind, database, stand):
    with call(stand, kind) as line:
        (row,) = rows(line.ask("IDENTIFY_SYSTEM"))
        assert row[3] == database
        assert stand.log.count(f"replication={'database' if database else 'yes'}")
        line.leave()


def test_the_welcome_is_the_servers_own(stand, admin):
    with call(stand, "true", application_name="standby one", options="-c client_min_messages=error") as line:
        told = dict(each.body.split(b"\0")[:2] for each in line.heard if each.kind == "S")
        assert told[b"application_name"] == b"standby one"
        assert told[b"in_hot_standby"] == b"off"
        wait_until(lambda: admin.execute(WALSENDERS).fetchone() == (1,), "a walsender of its own")
        names = "select application_name from pg_stat_activity where backend_type = 'walsender'"
        assert admin.execute(names).fetchone() == ("standby one",)


def test_logical_decoding_sees_a_row_that_came_through_a_pool(stand, admin):
    admin.execute("create table tunnelled (words text primary key)")
    admin.execute("create publication tunnelled for table tunnelled")
    admin.execute("grant insert on tunnelled to app")
    try:
        with call(stand, "database") as line, stand.connect() as pooled:
            answer = line.ask("CREATE_REPLICATION_SLOT tunnelled TEMPORARY LOGICAL pgoutput")
            assert kinds(answer) == "TDCZ"
            options = "proto_version '1', publication_names 'tunnelled'"
            line.send(query(f"START_REPLICATION SLOT tunnelled LOGICAL 0/0 ({options})"))
            assert line.read().kind == "W"
            pooled.execute("insert into tunnelled values ('out of the pool')")
            end = wait_wal(line, b"out of the pool")
            line.send(copy_data(b"r" + pack("!QQQQB", end, end, end, 0, 1)))
            assert wait_reply(line), "and what we say reaches the walsender"
            line.leave()
    finally:
        admin.execute("drop table tunnelled cascade")
        admin.execute("drop publication tunnelled")


def wait_wal(line, words):
    """Until a piece of WAL with `words` has come; where it ends."""
    while True:
        message = line.read()
        assert message.kind == "d"
        if message.body[:1] == b"w" and words in message.body:
            return unpack("!Q", message.body[9:17])[0]


def wait_reply(line):
    """Until the answer to a status that asks for one."""
    while True:
        message = line.read()
        if message.kind == "d" and message.body[:1] == b"k":
            return True


def test_a_wrong_password_is_refused_as_ever_and_starts_no_walsender(stand, admin):
    with call(stand, "true", password="wrong") as line:
        assert sqlstate(line.heard) == "28P01"
    with stand.call() as ordinary:
        assert error(ordinary.login(COPIER, "postgres", "wrong")) == error(line.heard)


def test_who_may_not_replicate_hears_it_from_postgresql(stand):
    with call(stand, "true", user="app") as line:
        assert sqlstate(line.heard) == "42501"
        assert "permission denied to start WAL sender" in error(line.heard)["M"]


def test_a_parameter_that_the_server_does_not_like_is_its_to_refuse(stand):
    with call(stand, "true", options="-c work_mem=nonsense") as line:
        assert sqlstate(line.heard) == "22023"
        assert "work_mem" in error(line.heard)["M"]


def test_a_value_that_is_no_boolean_is_refused(stand):
    with call(stand, "perhaps") as line:
        assert sqlstate(line.heard) == "22023"


@pytest.mark.parametrize("minor", [0, 2])
def test_a_cancel_request_reaches_its_server(minor, stand, admin):
    with call(stand, "database", protocol=PROTOCOL | minor) as line:
        assert len(line.key) == (36 if minor else 8)
        line.send(query(NAP))
        wait_until(lambda: admin.execute(NAPPING).fetchone() == (1,), "it sleeps")
        with stand.call() as other:
            other.send(cancel_request(line.key))
            assert other.read_to_end() == []
        assert sqlstate(line.read_until()) == "57014"
        assert kinds(line.ask("IDENTIFY_SYSTEM")) == "TDCZ"


def test_a_client_that_disappears_takes_a_running_statement_along(stand, admin):
    line = call(stand, "database")
    line.send(query(NAP))
    wait_until(lambda: admin.execute(NAPPING).fetchone() == (1,), "it sleeps")
    line.close()
    wait_until(lambda: admin.execute(WALSENDERS).fetchone() == (0,), "it is cancelled", 4)


def test_a_slow_reader_costs_a_bounded_amount_and_gets_everything(stand):
    with call(stand, "database") as warm:
        warm.ask("select repeat('x', 1000000)")
    with call(stand, "database", seconds=60) as line:
        before = stand.rss
        line.send(query(f"select repeat('x', {MEGABYTE}) from generate_series(1, {SIZE})"))
        time.sleep(1.5)
        assert stand.rss - before < ROOM
        answer = line.read_until()
        assert sum(len(each.body) for each in answer if each.kind == "D") == SIZE * (MEGABYTE + 6)
        assert stand.rss - before < ROOM


def test_a_slow_server_is_not_flooded(stand, admin):
    """COPY into a table whose trigger sleeps on the first row: nobody reads what we send."""
    admin.execute("create table flooded (words text)")
    admin.execute(f"grant insert on flooded to {COPIER}")
    admin.execute(FALLS_ASLEEP)
    admin.execute("create trigger falls_asleep before insert on flooded for each row execute function falls_asleep()")
    try:
        with call(stand, "database", seconds=60) as line:
            before = stand.rss
            line.send(query("copy flooded from stdin"))
            line.read_until("G")
            line.send(copy_data(b"sleep\n"))
            writer = threading.Thread(target=lambda: line.send(*[copy_data(b"y" * 8191 + b"\n")] * (SIZE * 122)))
            writer.start()
            time.sleep(1)
            assert writer.is_alive(), "it is not read any more"
            most = stand.rss
            writer.join()
            line.send(COPY_DONE)
            assert kinds(line.read_until()) == "CZ"
            assert max(most, stand.rss) - before < ROOM
    finally:
        admin.execute("drop table flooded")
        admin.execute("drop function falls_asleep")


# PostgreSQL's own programs.


def test_pg_basebackup_makes_a_backup_that_verifies(stand, tmp_path):
    folder = tmp_path / "backup"
    stand.mark()
    code, said = finish(start_tool("pg_basebackup", stand, "-D", folder, "-X", "stream", "-c", "fast", "-v"))
    assert code == 0, said
    assert stand.fresh_log.count("replication=yes") == 2, "one for the files, one for the WAL"
    checked = subprocess.run([find_tool("pg_verifybackup"), folder], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_pg_receivewal_gets_the_wal(stand, admin, tmp_path):
    tool = start_tool("pg_receivewal", stand, "-D", tmp_path, "-v", "--no-loop")
    try:
        streaming = "select application_name from pg_stat_replication where state = 'streaming'"
        wait_until(lambda: admin.execute(streaming).fetchone() == ("pg_receivewal",), "it streams")
        (client,) = [row for row in console(stand, "show clients") if row["replication"] == "physical"]
        (server,) = [row for row in console(stand, "show servers") if row["replication"] == "physical"]
        assert (client["state"], server["state"], client["link"]) == ("active", "active", server["ptr"])
        assert admin.execute("select pid from pg_stat_replication").fetchone() == (server["remote_pid"],)
        with stand.connect() as pooled:
            pooled.execute("create table received as select generate_series(1, 1000)")
            pooled.execute("drop table received")
        admin.execute("select pg_switch_wal()")
        wait_until(lambda: [each for each in tmp_path.iterdir() if len(each.name) == 24], "a whole file of WAL")
        assert next(each for each in tmp_path.iterdir() if len(each.name) == 24).stat().st_size == SEGMENT
        tool.send_signal(signal.SIGINT)
    finally:
        code, said = finish(tool, 10)
    assert code == 0, said


def test_one_that_is_killed_leaves_no_walsender_behind(stand, admin, tmp_path):
    tool = start_tool("pg_receivewal", stand, "-D", tmp_path, "--no-loop")
    try:
        wait_until(lambda: admin.execute(WALSENDERS).fetchone() == (1,), "it streams")
    finally:
        tool.kill()
        finish(tool)
    wait_until(lambda: admin.execute(WALSENDERS).fetchone() == (0,), "its walsender is gone", 3)
    assert [row for row in console(stand, "show servers") if row["replication"] != "none"] == []


def test_the_limit_of_its_user_is_never_exceeded_and_room_is_made(upstream, tmp_path):
    """Five clients keep all places busy; a backup needs two."""
    most = 3
    with (
        Stand(upstream, users={COPIER: f"max_user_connections={most}"}) as stand,
        Sampler(upstream, f"usename = '{COPIER}'") as sampler,
    ):
        is_over = threading.Event()
        clients = [threading.Thread(target=keep_busy, args=(stand, is_over)) for _ in range(5)]
        for client in clients:
            client.start()
        try:
            wait_until(lambda: sampler.most == most, "all places are taken")
            backup = start_tool("pg_basebackup", stand, "-D", tmp_path / "backup", "-X", "stream", "-c", "fast")
            code, said = finish(backup)
        finally:
            is_over.set()
            for client in clients:
                client.join()
        assert code == 0, said
    assert sampler.most == most


def keep_busy(stand, is_over):
    with stand.connect(COPIER) as connection:
        while not is_over.is_set():
            connection.execute("select pg_sleep(0.05)")


def test_without_room_it_is_refused(upstream):
    with Stand(upstream, databases={"*": "max_db_connections=1"}) as stand, call(stand, "true") as first:
        with call(stand, "true") as second:
            assert sqlstate(second.heard) == "53300"
            assert "max_db_connections" in error(second.heard)["M"]
        assert kinds(first.ask("IDENTIFY_SYSTEM")) == "TDCZ"


# Ends.


def test_postgresqls_last_words_arrive_and_then_the_end(stand, admin):
    with call(stand, "true") as line:
        admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'walsender'")
        answer = line.read_to_end()
        assert [(each.kind, sqlstate([each])) for each in answer] == [("E", "57P01")]


def test_a_restart_of_postgresql_does_not_confuse_the_proxy(upstream):
    with Stand(upstream) as stand:
        with call(stand, "true") as line:
            upstream.restart()
            assert sqlstate(line.read_to_end()) == "57P01"
        with call(stand, "true") as line:
            assert kinds(line.ask("IDENTIFY_SYSTEM")) == "TDCZ"


def test_kill_disable_and_kill_client_mean_it_too(upstream, admin):
    with Stand(upstream) as stand:
        with call(stand, "true") as line:
            console(stand, "disable postgres")
            assert kinds(line.ask("IDENTIFY_SYSTEM")) == "TDCZ", "those who are here stay"
            with call(stand, "true") as refused:
                assert sqlstate(refused.heard) == "08004"
            console(stand, "enable postgres")
            console(stand, "kill postgres")
            assert line.read_to_end() == []
        wait_until(lambda: admin.execute(WALSENDERS).fetchone() == (0,), "its walsender is gone", 3)
        console(stand, "resume postgres")
        with call(stand, "true") as line:
            (row,) = [row for row in console(stand, "show clients") if row["replication"] == "physical"]
            console(stand, f"kill_client {row['id']}")
            assert line.read_to_end() == []


def test_paused_those_who_are_here_go_on_and_new_ones_wait(upstream):
    with Stand(upstream) as stand, call(stand, "true") as line:
        console(stand, "pause")
        assert kinds(line.ask("IDENTIFY_SYSTEM")) == "TDCZ"
        late = threading.Timer(0.5, console, (stand, "resume"))
        late.start()
        start = time.monotonic()
        with call(stand, "true") as second:
            assert time.monotonic() - start > 0.4
            assert kinds(second.ask("IDENTIFY_SYSTEM")) == "TDCZ"
        late.join()


def test_a_database_that_leaves_the_file_takes_its_tunnels_along(upstream):
    databases = {"here": "dbname=postgres", "other": ""}
    with Stand(upstream, databases=databases) as stand, call(stand, "true", database="here") as line:
        del stand.databases["here"]
        assert "reloaded" in stand.reload()
        assert line.read_to_end() == []


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGINT])
def test_it_does_not_hold_up_an_end_that_waits_for_transactions(number, upstream, admin):
    with Stand(upstream) as stand, call(stand, "true") as line:
        stand.signal(number)
        assert line.read_to_end() == []
        assert stand.wait_end() == 0


def test_an_end_that_waits_for_clients_waits_for_it(upstream):
    with Stand(upstream) as stand:
        with call(stand, "true") as line:
            stand.signal(signal.SIGTERM)
            time.sleep(0.5)
            assert kinds(line.ask("IDENTIFY_SYSTEM")) == "TDCZ"
            assert stand.is_running
            line.leave()
        assert stand.wait_end() == 0


def test_client_idle_timeout_is_not_for_it(upstream):
    settings = {"client_idle_timeout": 0.5, "query_timeout": 0.5}
    with Stand(upstream, settings) as stand, call(stand, "database") as line:
        time.sleep(1.5)
        assert rows(line.ask("select pg_sleep(1), 'still here'")) == [("", "still here")]


def test_a_hundred_that_come_and_go_in_every_way_leave_nothing(stand, admin):
    before = len(os.listdir(f"/proc/{stand.pid}/fd"))
    for number in range(100):
        try:
            line = call(stand, "true" if number % 2 else "database")
            if number % 3 == 0:
                line.leave()
            elif number % 3 == 1:
                line.ask("IDENTIFY_SYSTEM")
            line.close()
        except Gone:
            pytest.fail("it hung up on us")
    wait_until(lambda: admin.execute(WALSENDERS).fetchone() == (0,), "every walsender is gone", 8)
    wait_until(lambda: len(os.listdir(f"/proc/{stand.pid}/fd")) <= before, "every socket is closed", 8)
    assert [row for row in console(stand, "show clients") if row["replication"] != "none"] == []
