"""
A restart under load: a new process takes over from the running one, and nobody who is connected notices.

What the clients see is judged here; who is where, and why, the proxy's log says.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psycopg
import pytest

from protocol.startup import build_succession_request
from proxy.courier import VERSION, Kind, build_frame
from tests.live.stand import ROOT, SECONDS, Stand, wait_until
from tests.live.upstream import find_tool
from tests.live.wire import SYNC, Raw, bind, cancel_request, describe, error, execute, parse, query, rows, sqlstate

pytestmark = pytest.mark.live

CLIENTS = 50
RESTARTS = 3


@pytest.fixture(name="stand")
def _stand(upstream, tmp_path):
    with open_stand(upstream, tmp_path) as stand:
        yield stand


@pytest.fixture(name="tmp_path")
def _tmp_path():
    """Not pytest's own: whenever another run of it begins on this machine it shuts its folders to everybody else."""
    with tempfile.TemporaryDirectory(prefix="pgshuttle-restart-") as folder:
        yield Path(folder)


def open_stand(upstream, path, **settings):
    folder = path / "sockets"
    folder.mkdir()
    for each in (path, folder):
        each.chmod(0o777)
    pid_file = folder / "proxy.pid"
    return Stand(upstream, {"unix_socket_dir": folder, "pidfile": pid_file, "max_db_connections": 20} | settings)


class Crowd:
    """Clients that never pause, in a thread of their own; each checks every answer, and ends at the first surprise."""

    def __init__(self, stand, count=CLIENTS):
        self.stand = stand
        self.rounds = [0] * count
        self.failures = []
        self._is_over = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._is_over = True
        self._thread.join(30)

    async def _run(self):
        await asyncio.gather(*(self._guard(number) for number in range(len(self.rounds))))

    async def _guard(self, number):
        try:
            await self._loop(number)
        except Exception as failure:
            self.failures.append(f"client {number}, round {self.rounds[number]}: {type(failure).__name__} {failure}")

    async def _loop(self, number):
        options = self.stand.options(prepare_threshold=0, autocommit=True, application_name=f"crowd {number}")
        async with await psycopg.AsyncConnection.connect(**options) as line:
            await line.execute(f"set search_path to s{number}, public")
            while not self._is_over:
                await self._round(line, number)
                self.rounds[number] += 1

    async def _round(self, line, number):
        count = self.rounds[number]
        cursor = await line.execute("select %s::int, %s::text, current_setting('search_path')", (number, f"r{count}"))
        assert await cursor.fetchall() == [(number, f"r{count}", f"s{number}, public")]
        async with line.transaction():
            await line.execute(f"set local statement_timeout to {10_000 + number}")
            cursor = await line.execute("select current_setting('statement_timeout'), %s::int", (number,))
            assert await cursor.fetchall() == [(await self._spell(10_000 + number), number)]
        await line.execute(f"set pgshuttle.mark to 'm{number}.{count}'")
        cursor = await line.execute("select current_setting('pgshuttle.mark'), current_setting('application_name')")
        assert await cursor.fetchall() == [(f"m{number}.{count}", f"crowd {number}")]

    async def _spell(self, milliseconds):
        return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"


def all_went_on(crowd, before):
    return crowd.failures or all(now > then + 2 for now, then in zip(crowd.rounds, before, strict=True))


def test_a_crowd_that_never_pauses_does_not_notice_three_restarts(stand):
    pids = [stand.pid]
    with Crowd(stand) as crowd:
        wait_until(lambda: all_went_on(crowd, [0] * CLIENTS), "everybody is at it", 60)
        for _ in range(RESTARTS):
            elder = stand.succeed()
            pids.append(stand.pid)
            assert elder.wait(60) == 0, "the old process ends by itself when the last client is over"
            before = list(crowd.rounds)
            wait_until(lambda then=before: all_went_on(crowd, then), "all go on", 60)
    assert not crowd.failures
    assert len(set(pids)) == RESTARTS + 1
    assert Path(stand.settings["pidfile"]).read_text() == f"{pids[-1]}\n"


@pytest.mark.parametrize("mode", ["simple", "prepared"])
def test_pgbench_does_not_notice_either(stand, upstream, mode):
    with upstream.connect(autocommit=True) as owner:
        owner.execute("create table if not exists restarts (id int primary key, n int default 0)")
        owner.execute("insert into restarts select generate_series(1, 100) on conflict do nothing")
        owner.execute("update restarts set n = 0")
        owner.execute("grant all on restarts to public")
    script = stand.folder / "script.sql"
    script.write_text(
        "\\set id random(1, 100)\nbegin;\nupdate restarts set n = n + 1 where id = :id;\n"
        "select n from restarts where id = :id;\ncommit;\n"
    )
    options = ["-n", "-c", "16", "-j", "16", "-T", "8", "-M", mode, "-f", str(script)]
    address = {"PGHOST": "127.0.0.1", "PGPORT": str(stand.port), "PGUSER": "app", "PGDATABASE": "postgres"}
    with subprocess.Popen(
        [find_tool("pgbench"), *options],
        env={**os.environ, **address},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as bench:
        time.sleep(1)
        elders = [stand.succeed() for _ in range(RESTARTS) if not time.sleep(1)]
        out, complaints = bench.communicate(timeout=60)
    assert bench.returncode == 0, complaints
    assert "failed transactions: 0 (0.000%)" in out
    done = int(out.split("actually processed: ")[1].split("/")[0].split()[0])
    with upstream.connect() as owner:
        assert owner.execute("select sum(n) from restarts").fetchone() == (done,), "each once"
    assert [elder.wait(30) for elder in elders] == [0] * RESTARTS


def test_an_idle_client_goes_on_as_if_nothing_had_been(stand):
    with stand.raw(application_name="sleeper", **{"options": "-c lock_timeout=7s"}) as line:
        line.ask("set search_path to depot; prepare p as select 'by sql'; set my.mark to 'x''y'")
        line.send(parse("select $1::text || current_setting('search_path')", "named"), SYNC)
        line.read_until()
        elder = stand.succeed()
        time.sleep(3)
        assert elder.wait(SECONDS) == 0
        line.send(bind("in ", statement="named"), describe(), execute(), SYNC)
        assert rows(line.read_until()) == [("in depot",)]
        assert line.value("execute p") == "by sql"
        assert line.value("select current_setting('my.mark')") == "x'y"
        assert line.value("show lock_timeout") == "7s"
        line.ask("reset search_path")
        assert line.value("show application_name") == "sleeper"
        assert line.value("show search_path") != "depot"
        assert error(line.ask("execute q"))["M"] == 'prepared statement "q" does not exist'


class UnixRaw(Raw):
    """The same over a Unix socket."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(SECONDS)
        self.socket.connect(address)
        self.key = self._unread = b""


@pytest.mark.parametrize("is_abstract", [False, True])
def test_so_does_one_on_the_unix_socket_by_path_or_abstract(upstream, tmp_path, is_abstract):
    folder = f"@{tmp_path.name}" if is_abstract else str(tmp_path / "sockets")
    with open_stand(upstream, tmp_path, unix_socket_dir=folder) as stand:
        path = f"{folder}/.s.PGSQL.{stand.port}"
        with UnixRaw("\0" + path[1:] if is_abstract else path) as line:
            line.login("app", "postgres")
            line.ask("set search_path to depot")
            for _ in range(2):
                assert stand.succeed().wait(SECONDS) == 0
                assert line.value("show search_path") == "depot"


def test_a_transaction_ends_where_it_began_and_then_its_client_goes_over(stand):
    with stand.raw() as line, stand.raw() as begun:
        line.ask("begin")
        pid = line.value("select pg_backend_pid()")
        begun.ask("begin")  # and no server knows
        elder = stand.succeed()
        time.sleep(1.5)
        assert elder.poll() is None
        stand.wait_log("1 clients have gone over .* 1 with a server")
        assert line.value("select pg_backend_pid()") == pid
        line.ask("commit")
        assert elder.wait(SECONDS) == 0
        assert line.value("select 'served'") == "served"
        assert begun.value("select 'in its transaction'") == "in its transaction"
        begun.ask("rollback")


def test_who_has_something_in_its_session_stays_until_that_is_gone(stand):
    with stand.raw() as line:
        line.ask("create temp table mine as select 1 as n")
        elder = stand.succeed()
        time.sleep(0.5)
        assert line.value("select n from mine") == "1"
        assert elder.poll() is None
        line.ask("drop table mine")
        assert elder.wait(SECONDS) == 0
        assert line.value("select 'over'") == "over"


def test_in_session_mode_a_client_with_a_server_stays_to_its_end(upstream, tmp_path):
    with open_stand(upstream, tmp_path, pool_mode="session") as stand, stand.raw() as line:
        pid = line.value("select pg_backend_pid()")
        elder = stand.succeed()
        time.sleep(0.5)
        assert line.value("select pg_backend_pid()") == pid
        line.leave()
        assert elder.wait(SECONDS) == 0


# LISTEN.


def test_who_listens_goes_over_and_hears_everything_once(stand, admin):
    """Whatever is said while it goes, three times in a row."""
    admin.autocommit = True
    is_over, said = threading.Event(), [0]

    def talk():
        with stand.upstream.connect(autocommit=True) as line:
            while not is_over.is_set():
                line.execute("select pg_notify('n' || (%s %% 3), %s)", (said[0], str(said[0])))
                said[0] += 1
                time.sleep(0.001)

    options = stand.options(autocommit=True)
    with psycopg.connect(**options) as one, psycopg.connect(**options) as two:
        for line, channels in ((one, "012"), (two, "1")):
            for channel in channels:
                line.execute(f"listen n{channel}")
        talking = threading.Thread(target=talk)
        talking.start()
        elders = []
        for _ in range(RESTARTS):
            elders.append(stand.succeed())
            assert elders[-1].wait(30) == 0, "they do not keep the old process"
            two.execute("select 1")
        is_over.set()
        talking.join()
        heard = [[int(each.payload) for each in line.notifies(timeout=2)] for line in (one, two)]
        assert said[0] > 100
        assert heard[0] == list(range(said[0]))
        assert heard[1] == list(range(1, said[0], 3))
        one.execute("unlisten *")
        admin.execute("notify n1, 'last'")
        assert [each.payload for each in two.notifies(timeout=2, stop_after=1)] == ["last"]
        assert not list(one.notifies(timeout=0.2))


# Arriving.


def test_nobody_who_calls_is_turned_away_at_any_moment(stand):
    """Over TCP and over the Unix socket, as fast as it goes."""
    failures, count, is_over = [], [0], threading.Event()

    def call(host):
        while not is_over.is_set():
            try:
                with psycopg.connect(**stand.options(host=host), autocommit=True) as line:
                    assert line.execute("select 1").fetchone() == (1,)
                count[0] += 1
            except Exception as failure:
                failures.append(f"{host}: {failure}")
                return

    folder = str(stand.settings["unix_socket_dir"])
    callers = [threading.Thread(target=call, args=[host]) for host in ("127.0.0.1", folder) * 3]
    for each in callers:
        each.start()
    elders = [stand.succeed() for _ in range(RESTARTS)]
    is_over.set()
    for each in callers:
        each.join(30)
    assert not failures
    assert count[0] > 20
    assert [elder.wait(30) for elder in elders] == [0] * RESTARTS


def test_the_servers_of_both_together_are_no_more_than_one_may_have(upstream, tmp_path, admin):
    admin.autocommit = True
    with open_stand(upstream, tmp_path, default_pool_size=5, max_db_connections=0) as stand, Crowd(stand, 20) as crowd:
        wait_until(lambda: all_went_on(crowd, [0] * 20), "everybody is at it", 60)
        elder, most = stand.succeed(), 0
        while elder.poll() is None:
            most = max(most, admin.execute("select count(*) from pg_stat_activity where usename='app'").fetchone()[0])
        assert not crowd.failures
        assert most <= 5


# Dying.


def test_killing_the_new_process_in_the_middle_leaves_the_old_one_serving(stand):
    with stand.raw() as line:
        line.ask("begin")
        line.ask("select 1")
        elder = stand.succeed()
        stand.wait_log(f"process {stand.lose()}, which had taken over, is lost")
        assert line.value("select 'still here'") == "still here"
        line.ask("commit")
        with stand.raw() as newcomer:
            assert newcomer.value("select 'let in'") == "let in"
        assert line.value("select 'and after'") == "and after"
        assert Path(stand.settings["pidfile"]).read_text() == f"{elder.pid}\n"
        assert stand.succeed() is elder, "and the next one may try"
        assert line.value("select 'over'") == "over"
        assert elder.wait(SECONDS) == 0


@pytest.mark.parametrize("moment", [0.0, 0.1])
def test_killing_it_under_load_takes_nobody_along_but_those_it_had(stand, moment):
    with Crowd(stand, 20) as crowd, stand.raw() as staying:
        staying.ask("begin; select 1")
        wait_until(lambda: all_went_on(crowd, [0] * 20), "everybody is at it", 60)
        stand.succeed()
        time.sleep(moment)
        pid = stand.lose()
        lost = int(
            stand.wait_log(f"process {pid}, which had taken over, is lost").split("accepts again. ")[1].split()[0]
        )
        before = list(crowd.rounds)
        wait_until(lambda: count_gone_on(crowd, before) >= 20 - lost, "the others go on", 60)
        staying.ask("commit")
    assert len(crowd.failures) <= lost
    assert all("OperationalError" in failure for failure in crowd.failures), crowd.failures


def count_gone_on(crowd, before):
    return sum(now > then + 2 for now, then in zip(crowd.rounds, before, strict=True))


def test_when_the_old_process_is_killed_the_new_one_goes_on(stand):
    with stand.raw() as line, stand.raw() as other:
        line.ask("begin; select 1")
        elder = stand.succeed()
        wait_until(lambda: other.value("select 'served'") == "served", "the other is served")
        time.sleep(0.3)
        elder.kill()
        stand.wait_log(f"process {elder.pid} is lost")
        line.read_to_end()
        assert other.value("select 'still'") == "still"
        with stand.raw() as newcomer:
            assert newcomer.value("select 'let in'") == "let in"
        elder.wait()
        stand.elders.remove(elder)


def test_the_old_process_may_be_told_to_end_before_the_new_one_accepts(stand):
    """As who is used to PgBouncer's ways does: a new one with -R, and at once a signal for the old one."""
    folder, pid_file = stand.settings["unix_socket_dir"], Path(stand.settings["pidfile"])
    with UnixRaw(f"{folder}/.s.PGSQL.{stand.port}") as line, stand.raw() as other:
        line.login("app", "postgres")
        for _ in range(RESTARTS):
            elder = stand.succeed_and_end()
            assert elder.wait(SECONDS) == 0
            assert line.value("select 'still'") == other.value("select 'still'") == "still"
            with UnixRaw(f"{folder}/.s.PGSQL.{stand.port}") as newcomer:
                newcomer.login("app", "postgres")
                assert newcomer.value("select 'let in'") == "let in"
            assert pid_file.read_text() == f"{stand.pid}\n"


# Cancelling.


def test_a_cancel_request_finds_its_query_in_the_old_process(stand):
    with stand.raw() as line:
        line.send(query("select pg_sleep(30)"))
        time.sleep(0.3)
        stand.succeed()
        with stand.call() as caller:
            caller.send(cancel_request(line.key))
        assert sqlstate(line.read_until()) == "57014"
        stand.wait_log("nothing more will come .* 1 clients came over")
        line.send(query("select pg_sleep(30)"))
        time.sleep(0.3)
        with stand.call() as caller:
            caller.send(cancel_request(line.key))
        assert sqlstate(line.read_until()) == "57014", "the old key is good in the new process"


# Refusals.


def test_a_second_start_without_it_fails_and_says_what_would_work(stand):
    done = subprocess.run(stand._command(), cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 1
    assert "cannot listen on 127.0.0.1" in done.stderr
    assert "-R takes over" in done.stderr
    with stand.raw() as line:
        assert line.value("select 'untouched'") == "untouched"


def test_where_nobody_serves_it_is_an_ordinary_start(upstream, tmp_path):
    stand = open_stand(upstream, tmp_path)
    stand._command = lambda *options: Stand._command(stand, "-R", *options)
    with stand, stand.raw() as line:
        assert "nobody serves here yet" in stand.log
        assert line.value("select 1") == "1"


def test_while_paused_it_is_refused_and_says_so(stand):
    stand.signal(signal.SIGUSR1)
    stand.wait_log("got SIGUSR1")
    assert "it is paused: RESUME first" in stand.fail_to_succeed()
    stand.signal(signal.SIGUSR2)


def test_without_a_unix_socket_it_is_refused_and_says_so(upstream):
    with Stand(upstream) as stand:
        assert "unix_socket_dir is empty" in stand.fail_to_succeed()


def test_with_socket_activation_it_is_refused_and_says_so(stand):
    program = "exec env LISTEN_FDS=1 LISTEN_PID=$$ " + " ".join(stand._command("-R"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        done = subprocess.run(
            ["bash", "-c", f"{program} 3<&{listening.fileno()}"],
            cwd=ROOT,
            pass_fds=[listening.fileno()],
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
    assert done.returncode == 1
    assert "socket activation" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_another_user_gets_nothing(stand):
    program = f"""
import os
from proxy.inherit import claim
from proxy.config.ini import read
settings = read({str(stand.file)!r}).settings
os.setgid(65533)
os.setuid(65533)
claim(settings, {{0, os.geteuid()}})
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert "hands nothing over" in done.stderr
    assert "of user id 65533 wanted to take over and was refused" in stand.log
    with stand.raw() as line:
        assert line.value("select 'untouched'") == "untouched"


class Forwarder:
    """Carries bytes from a TCP port to a Unix socket and back, as stunnel, haproxy and socat do; one caller."""

    def __init__(self, path):
        self.path = path
        self.door = socket.create_server(("127.0.0.1", 0))
        self.address = self.door.getsockname()
        self.thread = threading.Thread(target=self._carry)

    def _carry(self):
        outside, _ = self.door.accept()
        with outside, socket.socket(socket.AF_UNIX) as inside:
            inside.connect(self.path)
            back = threading.Thread(target=self._copy, args=[inside, outside])
            back.start()
            self._copy(outside, inside)
            back.join(SECONDS)

    def _copy(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.door.close()
        self.thread.join(SECONDS)


@pytest.mark.parametrize("proof", [None, "00" * 32])
def test_a_stranger_behind_a_forwarder_of_our_own_user_gets_nothing_and_stops_nothing(stand, proof):
    path = f"{stand.settings['unix_socket_dir']}/.s.PGSQL.{stand.port}"
    with stand.raw() as resting, Forwarder(path) as forwarder, socket.create_connection(forwarder.address) as stranger:
        resting.send(parse("select 'a secret text'", "mine"), SYNC)
        assert not error(resting.read_until())
        stranger.settimeout(SECONDS)
        stranger.sendall(build_succession_request(VERSION))
        said = stranger.recv(6, socket.MSG_WAITALL)
        assert said[:1] == Kind.TESTAMENT.value, "for the kernel it is root or our own user"
        ready = build_frame(Kind.READY, {"pid": 1, "pid_file": True, "proof": proof})
        stranger.sendall(build_frame(Kind.PULSE, {}) + ready + build_frame(Kind.PULSE, {}))
        while data := stranger.recv(65_536):
            said += data
        assert kinds_in(said) <= {Kind.TESTAMENT, Kind.POOL, Kind.SERVERS, Kind.SEVERED}
        assert b"a secret text" not in said
        assert json.dumps(resting.key[4:].decode("latin-1"))[1:-1].encode() not in said
        stand.wait_log("does not take over .it has not got our descriptors.*nothing has changed")
        assert resting.value("select 'still served'") == "still served"
        with stand.raw() as newcomer:
            assert newcomer.value("select 'let in'") == "let in"
    assert stand.succeed().wait(SECONDS) == 0, "who is there itself may take over after that"


def kinds_in(said):
    kinds = set()
    while said:
        kinds.add(Kind(said[:1]))
        said = said[6 + int.from_bytes(said[1:5]) :]
    return kinds


# In the background, and with systemd.


def test_a_daemon_takes_over_from_a_daemon_and_systemd_hears_of_it(upstream, tmp_path):
    pids = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        ear = str(tmp_path / "notify")
        systemd.bind(ear)
        os.chmod(ear, 0o777)
        systemd.settimeout(SECONDS)
        stand = open_stand(upstream, tmp_path, logfile=tmp_path / "sockets" / "log")
        stand.write()
        pid_file = Path(stand.settings["pidfile"])
        try:
            for options, environ in (["-d"], {"NOTIFY_SOCKET": ear}), (["-d", "-R"], {}), (["-d", "-R"], {}):
                command = stand._command(*options)
                subprocess.run(command, cwd=ROOT, env=os.environ | environ, check=True, timeout=SECONDS)
                wait_until(lambda: pid_file.exists() and int(pid_file.read_text() or 0) not in [0, *pids], "its pid")
                pids.append(int(pid_file.read_text()))
                wait_until(lambda: f"MAINPID={pids[-1]}" in systemd.recv(1000).decode().split("\n"), "systemd hears")
            with stand.raw() as line:
                assert line.value("select 1") == "1"
            wait_until(lambda: not any(map(is_alive, pids[:-1])), "the old ones have ended")
            os.kill(pids[-1], signal.SIGTERM)
            wait_until(lambda: not is_alive(pids[-1]), "and the last")
            assert not pid_file.exists()
        finally:
            for pid in filter(is_alive, pids):
                os.kill(pid, signal.SIGKILL)
            stand._clear()


def is_alive(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return False
