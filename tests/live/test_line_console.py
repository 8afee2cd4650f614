"""What administrators do while clients' reads stand in lines: PAUSE, RECONNECT, KILL, RELOAD, a stop, a restart."""

import signal
import tempfile
import time
from pathlib import Path

import pytest

from tests.live.stand import Stand, wait_until
from tests.live.together import READ_GATE, Readers, Shut, build_gate, crowd, line_up, send_together, wait_running
from tests.live.wire import error, kinds, query, rows, sqlstate

pytestmark = pytest.mark.live

LINES = "dbname=postgres pool_size=4 pipeline_depth=16 pipeline_servers=1"
PATIENT = {"pipeline_stall_ms": 20_000}  # nobody is rescued here
PIDS = "select pid from pg_stat_activity where usename = 'app' and backend_type = 'client backend'"


@pytest.fixture(autouse=True, scope="module")
def _gate(upstream):
    with upstream.connect() as admin:
        build_gate(admin)


@pytest.fixture(name="stand")
def _stand(upstream):
    with Stand(upstream, PATIENT, databases={"lines": LINES}) as stand:
        yield stand


@pytest.fixture(name="console")
def _console(stand):
    with stand.connect("postgres", "pgbouncer") as console:
        yield console


def find_pids(admin):
    return {pid for (pid,) in admin.execute(PIDS).fetchall()}


def made_ready(stand, count=3):
    return crowd(stand, count, READ_GATE.format("trust"))


def test_pause_waits_for_the_lines_and_resume_lets_them_go_on(stand, console, admin):
    with Readers(stand) as readers:
        for _ in range(5):
            console.execute("PAUSE lines")
            assert not find_pids(admin)
            console.execute("RESUME lines")
            readers.wait_round()


def test_reconnect_replaces_the_servers_of_lines_and_nobody_notices(stand, console, admin):
    with Readers(stand) as readers:
        for _ in range(5):
            before = find_pids(admin)
            console.execute("RECONNECT lines")
            readers.wait_round()
            wait_until(lambda old=before: not (find_pids(admin) & old), "all servers are others", 10)


def test_suspend_holds_the_lines_and_resume_lets_them_go_on(stand, console):
    with Readers(stand) as readers:
        for _ in range(3):
            console.execute("SUSPEND")
            console.execute("RESUME")
            readers.wait_round()


def test_lines_are_turned_off_and_on_again_under_load(stand, admin):
    with Readers(stand) as readers:
        for depth in (1, 16, 1, 16, 1):
            stand.databases["lines"] = LINES.replace("depth=16", f"depth={depth}")
            stand.reload()
            readers.wait_round()
    with made_ready(stand) as clients:
        with Shut(admin):
            send_together(stand, clients, [query(READ_GATE.format("client"))] * 3)
            wait_running(admin, "select 'client", 3)
        assert [kinds(client.read_until()) for client in clients] == ["TDCZ"] * 3


def test_session_pooling_that_is_turned_on_is_session_pooling(stand, admin):
    with made_ready(stand) as clients:
        with Shut(admin):
            send_together(stand, clients, [query(READ_GATE.format("client"))] * 3)
            wait_running(admin, "select 'client")
            stand.databases["lines"] = "dbname=postgres pool_mode=session pool_size=20"
            stand.reload()
        assert [kinds(client.read_until()) for client in clients] == ["TDCZ"] * 3
        send_together(stand, clients, [query(READ_GATE.format("client"))] * 3)
        assert [kinds(client.read_until()) for client in clients] == ["TDCZ"] * 3
        assert len({client.value("select pg_backend_pid()") for client in clients}) == 3


def test_kill_ends_the_clients_in_line_with_a_word(stand, console, admin):
    with made_ready(stand) as clients:
        with Shut(admin):
            send_together(stand, clients, [query(READ_GATE.format("client"))] * 3)
            wait_running(admin, "select 'client")
            console.execute("KILL lines")
        for client in clients:
            answer = client.read_to_end()
            assert sqlstate(answer) == "57P01", answer
    console.execute("RESUME lines")
    with stand.raw(database="lines") as client:
        assert rows(client.ask("select 'alive'")) == [("alive",)]


def test_one_client_in_line_is_killed_and_the_others_are_answered(stand, console, admin):
    with made_ready(stand, 4) as clients:
        by_port = {client.socket.getsockname()[1]: client for client in clients}
        with Shut(admin):
            send_together(stand, clients, [query(READ_GATE.format("client"))] * 4)
            wait_running(admin, "select 'client")
            cursor = console.execute("SHOW CLIENTS")
            names = [column.name for column in cursor.description]
            shown = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            for row in [row for row in shown if row["port"] in by_port][:2]:
                console.execute(f"KILL_CLIENT {row['id']}")
                assert sqlstate(by_port.pop(row["port"]).read_to_end()) == "57P01"
        assert [kinds(client.read_until()) for client in by_port.values()] == ["TDCZ"] * 2


def test_a_restart_under_load_is_not_noticed(upstream):
    with tempfile.TemporaryDirectory(prefix="pgshuttle-lines-") as folder:
        Path(folder).chmod(0o777)
        settings = {"unix_socket_dir": folder, "pidfile": f"{folder}/proxy.pid"}
        with Stand(upstream, settings, databases={"lines": LINES}) as stand, Readers(stand) as readers:
            for _ in range(3):
                elder = stand.succeed()
                assert elder.wait(60) == 0
                readers.wait_round()


def test_a_stop_that_waits_for_clients_lets_those_in_line_read_on(stand):
    with Readers(stand) as readers:
        stand.signal(signal.SIGTERM)
        stand.wait_log("SIGTERM")
        readers.wait_round()
    assert not readers.failures
    assert stand.wait_end() == 0


def test_a_query_that_takes_too_long_ends_its_client_and_no_other(upstream, admin):
    settings = {
        "query_timeout": 2,
        **PATIENT,
        "pipeline_group": 1,
    }  # of a group all would wait for the gate, and too long
    with Stand(upstream, settings, databases={"lines": LINES}) as stand, made_ready(stand) as clients:
        with Shut(admin):
            head, *others = line_up(stand, admin, clients)
            answer = head.read_to_end()
        assert (sqlstate(answer), error(answer)["M"]) == ("57014", "query timeout")
        assert [kinds(client.read_until()) for client in others] == ["TDCZ"] * 2


def test_whoever_waits_too_long_for_a_place_in_a_line_hears_so_when_his_own_time_is_over(upstream):
    databases = {"lines": LINES.replace("pool_size=4", "pool_size=1")}
    with Stand(upstream, {"query_wait_timeout": 2}, databases=databases) as stand, made_ready(stand) as clients:
        early, late, _ = clients
        early.send(query(READ_GATE.format("early")))
        time.sleep(1.5)
        late.send(query(READ_GATE.format("late")))
        start = time.monotonic()
        assert error(early.read_to_end())["M"] == "query_wait_timeout"
        assert error(late.read_to_end())["M"] == "query_wait_timeout"
        assert time.monotonic() - start > 1.9
