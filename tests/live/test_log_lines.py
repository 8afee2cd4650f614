"""The lines that people's scripts look for, in PgBouncer's words, each of them there before the client knows."""

import json
import os
import re
import signal
import time

import psycopg
import pytest

from tests.live.stand import Stand, wait_until
from tests.live.upstream import LIMITED
from tests.live.wire import error, query, startup
from tests.ports import find_free_port

pytestmark = pytest.mark.live

HEAD = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \S+ \[\d+\] "
CLIENT = r"C-0x[0-9a-f]+: "
SERVER = r"S-0x[0-9a-f]+: "


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    databases = {
        "one": "dbname=postgres pool_size=1 reserve_pool_size=1",
        "dead": f"host=127.0.0.1 port={find_free_port()}",
        "wrong": "dbname=postgres user=app password=no",
        "*": "",
    }
    settings = {"listen_addr": "127.0.0.1,::1", "reserve_pool_timeout": 0.3, "query_wait_timeout": 1.5}
    stand = Stand(upstream, settings, databases=databases)
    stand.folder.chmod(0o777)
    stand.settings["unix_socket_dir"] = stand.folder
    with stand:
        yield stand


@pytest.fixture(autouse=True)
def _marked(stand):
    stand.mark()


def lines(stand, pattern):
    """The fresh lines that are `pattern` from their level to their end. Not waited for: they are there, or too late."""
    return [line for line in stand.fresh_log.splitlines() if re.fullmatch(HEAD + pattern, line)]


def test_a_login_its_server_and_its_end(stand, upstream):
    with stand.raw(database="postgres") as line:
        line.ask("select 1")
        who = f"{CLIENT}postgres/app@127.0.0.1:{line.socket.getsockname()[1]} "
        assert lines(stand, f"LOG {who}login attempt: db=postgres user=app tls=no replication=no")
        server = rf"LOG {SERVER}postgres/app@{re.escape(upstream.host)}:{upstream.port} new connection to server "
        assert lines(stand, server + r"\(from [\d.]+:\d+\)")
        time.sleep(1.1)
        line.leave()
    end = stand.wait_log(r"closing because: client close request \(age=1s\)")
    attempt = next(each for each in stand.fresh_log.splitlines() if "login attempt" in each)
    assert re.search(CLIENT, end)[0] == re.search(CLIENT, attempt)[0], "one connection has one name"


def test_the_name_in_the_log_is_that_of_show_clients(stand):
    with stand.raw() as line, stand.connect("postgres", "pgbouncer") as console:
        line.ask("select 1")
        rows = console.execute("show clients").fetchall()
        names = [column.name for column in console.execute("show clients").description]
        pointers = {row[names.index("ptr")] for row in rows}
        assert all(f"C-{pointer}: " in stand.log for pointer in pointers)
        mine = next(row[names.index("ptr")] for row in rows if row[names.index("database")] == "postgres")
        console.execute(f"kill_client {mine}")
        assert error(line.read_to_end())["M"] == "admin forced disconnect"


def test_ipv6_stands_in_brackets_and_a_unix_socket_is_a_process(stand):
    with psycopg.connect(**stand.options(host="::1")):
        assert lines(stand, rf"LOG {CLIENT}postgres/app@\[::1\]:\d+ login attempt: .*")
    with psycopg.connect(**stand.options(host=str(stand.folder))):
        who = rf"{CLIENT}postgres/app@unix\({os.getpid()}\):{stand.port} "
        assert lines(stand, f"LOG {who}login attempt: .*")


@pytest.mark.parametrize(
    ("database", "detail", "words"),
    [
        ("dead", "connect failed: .* refused", "connect failed"),
        ("wrong", 'server login failed: FATAL password authentication failed for user "app"', "login failed"),
        ("nowhere_at_all", 'server login failed: FATAL database "nowhere_at_all" does not exist', "login failed"),
    ],
)
def test_a_server_that_cannot_be_had(stand, database, detail, words):
    with stand.call() as line:
        line.login("app", database)
    assert lines(stand, rf"WARNING {SERVER}{database}/app@[\d.]+:\d+ {detail}")
    assert lines(stand, rf"LOG {SERVER}{database}/app@[\d.]+:\d+ closing because: {words} \(age=0s\)")
    assert lines(stand, rf"LOG {CLIENT}{database}/app@127.0.0.1:\d+ closing because: .* \(age=\d+s\)")
    assert lines(stand, rf"WARNING {CLIENT}{database}/app@127.0.0.1:\d+ pooler error: .*")
    assert not lines(stand, ".*login failed: db=.*"), "it was not the client's login that failed"


def test_the_lines_of_an_error_are_on_disk_before_the_client_reads_it(stand):
    for _ in range(20):
        stand.mark()
        with stand.call() as line:
            line.login("app", "dead")
            assert lines(stand, f"WARNING {CLIENT}dead/app@.* pooler error: .*")
            assert lines(stand, f"LOG {CLIENT}dead/app@.* closing because: .*")


def test_a_timeout_in_the_queue_and_the_reserve(stand):
    with stand.raw(database="one") as first, stand.raw(database="one") as second, stand.raw(database="one") as third:
        first.ask("begin; select 1")
        second.ask("begin; select 1")  # by the reserve
        port = second.socket.getsockname()[1]
        assert lines(stand, f"WARNING {CLIENT}one/app@127.0.0.1:{port} taking connection from reserve_pool")
        third.send(query("select 1"))
        assert error(third.read_to_end())["M"].startswith("query_wait_timeout")
        port = third.socket.getsockname()[1]
        assert lines(stand, rf"LOG {CLIENT}one/app@127.0.0.1:{port} closing because: query_wait_timeout \(age=\ds\)")
        assert lines(stand, f"WARNING {CLIENT}one/app@127.0.0.1:{port} pooler error: query_wait_timeout.*")


def test_a_server_that_dies(stand, admin):
    with stand.raw(user=LIMITED) as line:
        pid = line.value("select pg_backend_pid()")
        line.send(query("select pg_sleep(20)"))
        time.sleep(0.2)
        admin.execute("select pg_terminate_backend(%s)", [int(pid)])
        line.read_to_end()
        assert lines(stand, rf"LOG {SERVER}.* closing because: server conn crashed\? \(age=\d+s\)")
        assert lines(stand, rf"LOG {CLIENT}.* closing because: server conn crashed\? \(age=\d+s\)")
        assert lines(stand, rf"WARNING {SERVER}.* server said: FATAL terminating connection .*")


def test_who_never_logs_in_has_an_age_too(stand):
    with stand.call() as line:
        line.send(startup("app", "postgres")[:-1])
        time.sleep(1.1)
        line.send(b"x")
        line.read_to_end()
    assert lines(stand, rf"LOG {CLIENT}\(nodb\)/\(nouser\)@127.0.0.1:\d+ closing because: .* \(age=1s\)")


def test_a_port_scan_is_not_worth_a_line(stand):
    stand.call().close()
    time.sleep(0.2)
    assert "closing because" not in stand.fresh_log


def test_an_error_of_the_console(stand):
    with stand.connect("postgres", "pgbouncer") as console:
        with pytest.raises(psycopg.Error):
            console.execute("nonsense")
        assert lines(stand, f"WARNING {CLIENT}pgbouncer/postgres@.* pooler error: invalid command 'nonsense', .*")


def test_signals(upstream):
    with Stand(upstream) as stand:
        for number, words in (
            (signal.SIGHUP, "got SIGHUP, re-reading config"),
            (signal.SIGUSR1, "got SIGUSR1, pausing all activity"),
            (signal.SIGUSR1, "got SIGUSR1, but already paused/suspended"),
            (signal.SIGUSR2, "got SIGUSR2, continuing from PAUSE"),
            (signal.SIGUSR2, "got SIGUSR2, but not paused/suspended"),
        ):
            stand.mark()
            stand.signal(number)
            stand.wait_log(f"LOG {words}")
        with stand.raw() as line:
            line.ask("select 1")
            stand.signal(signal.SIGTERM)
            stand.wait_log("LOG got SIGTERM, shutting down, waiting for all clients disconnect")
            stand.signal(signal.SIGUSR2)
            stand.wait_log("LOG got SIGUSR2 while shutting down, ignoring")
            stand.signal(signal.SIGTERM)
            stand.wait_log("LOG got SIGTERM while shutting down, fast exit")
        assert stand.wait_end() == 0


def test_the_start_the_stats_and_the_switches(upstream):
    settings = {"stats_period": 0.5, "log_stats": 1, "log_connections": 0, "log_disconnections": 0}
    with Stand(upstream, settings | {"log_pooler_errors": 0}, databases={"a": "dbname=postgres"}) as stand:
        log = stand.log
        assert re.search(rf"LOG listening on 127\.0\.0\.1:{stand.port}$", log, re.MULTILINE)
        assert re.search(r"LOG process up: PgBouncer \d+\.\d+\.\d+ \(pgshuttle ", log)
        number = r"\d+"
        rates = ", ".join(
            f"{number} {each}/s"
            for each in ("xacts", "queries", "client parses", "server parses", "binds", "client logins")
        )
        times = ", ".join(f"{each} {number} us" for each in ("xact", "query", "wait"))
        stand.wait_log(f"LOG stats: {rates}, in {number} B/s, out {number} B/s, {times}$")
        with stand.call() as line:
            line.login("app", "nowhere")
        with stand.raw(database="a") as line:
            line.ask("select 1")
        assert "new connection to server" not in stand.log
        assert "login attempt" not in stand.log
        assert "login failed" not in stand.log
        assert "closing because" not in stand.log
        assert "pooler error" not in stand.log


def test_json_has_the_same_facts_line_by_line(upstream):
    with Stand(upstream, {"log_format": "json", "log_stats": 1, "stats_period": 0.5}) as stand:
        with stand.raw() as line:
            line.ask("select 1")
            port = line.socket.getsockname()[1]
            line.leave()
        stand.wait_log("client close request")
        found = [json.loads(each) for each in stand.log.splitlines()]
        end = next(each for each in found if each.get("reason") == "client close request")
        who = {"kind": "client", "database": "postgres", "user": "app", "host": "127.0.0.1", "port": port}
        assert who.items() <= end.items()
        assert (end["age"], end["level"], end["pid"]) == (0, "LOG", stand.pid)
        assert end["text"] == "closing because: client close request (age=0s)"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", end["time"])
        attempt = next(each for each in found if each["text"].startswith("login attempt: "))
        assert (attempt["ptr"], attempt["tls"], attempt["replication"]) == (end["ptr"], "no", "no")
        numbers = json.loads(stand.wait_log('"text": "stats: '))
        assert {"avg_xact_count", "avg_query_time", "avg_recv", "avg_client_login_count"} <= numbers.keys()
        server = next(each for each in found if each["text"].startswith("new connection to server"))
        assert (server["kind"], server["port"]) == ("server", upstream.port)


def test_the_log_moves_with_a_reload_and_is_opened_anew_for_rotation(upstream):
    stand = Stand(upstream)
    stand.folder.chmod(0o777)
    first, second = stand.folder / "first.log", stand.folder / "second.log"
    stand.settings["logfile"] = first
    with stand:
        wait_until(lambda: "process up" in first.read_text(), "it logs to the file")
        os.rename(first, stand.folder / "first.log.1")
        stand.signal(signal.SIGHUP)
        wait_until(lambda: first.exists() and "reloaded" in first.read_text(), "the file is opened anew")
        os.rename(first, stand.folder / "first.log.2")
        with stand.connect("postgres", "pgbouncer") as console:
            console.execute("reload")
        stand.raw().close()
        wait_until(lambda: first.exists() and "login attempt" in first.read_text(), "RELOAD opens it anew too")
        stand.settings["logfile"] = second
        stand.reload()
        stand.raw().close()
        wait_until(lambda: second.exists() and "login attempt" in second.read_text(), "a changed logfile takes effect")
        stand.settings["logfile"] = stand.folder / "no" / "such" / "folder"
        stand.reload()
        wait_until(lambda: "cannot be opened: there is no folder" in second.read_text(), "the old one stays")


def test_verbose_tells_more_and_may_be_changed_live(upstream):
    with Stand(upstream) as stand:
        for level, is_told in ((0, False), (1, True), (0, False)):
            stand.settings["verbose"] = level
            stand.reload()
            stand.mark()
            stand.raw().leave()
            stand.wait_log("closing because: client")
            assert bool(lines(stand, f"DEBUG {CLIENT}.* logged in")) is is_told
