"""The process among others: systemd, sockets of others, names, pid files, the sockets' rights."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from proxy.ring import open_ring
from tests.live.stand import ROOT, SECONDS, USER, Stand, find_account, is_listening, wait_until
from tests.live.wire import rows, startup
from tests.ports import find_free_port

pytestmark = pytest.mark.live

BECOME = ["-u", USER] if os.geteuid() == 0 else []


# What systemd does between fork and exec: the sockets become 3, 4, ..., and the environment says for whom they are.
_HAND_OVER = """
import fcntl, os, sys
fds, command = [int(fd) for fd in sys.argv[1].split(",")], sys.argv[2:]
for at, fd in enumerate([fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]):
    os.dup2(fd, 3 + at)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(fds))}
os.execv(command[0], command)
"""


class Started:
    """A proxy that the test starts itself, as systemd would, with these `sockets`."""

    def __init__(self, file, *arguments, sockets=(), environ=None):
        command = [sys.executable, "-m", "proxy", *BECOME, *map(str, arguments), str(file)]
        fds = [each.fileno() for each in sockets]
        if fds:
            command = [sys.executable, "-c", _HAND_OVER, ",".join(map(str, fds)), *command]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | (environ or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=fds,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def end(self, number=signal.SIGQUIT):
        self.process.send_signal(number)
        said, _ = self.process.communicate(timeout=SECONDS)
        assert self.process.returncode == 0, said
        assert "Traceback" not in said
        return said


@pytest.fixture(name="stand")
def _stand(upstream):
    """Written, not started."""
    stand = Stand(upstream)
    stand.folder.chmod(0o777)
    stand.write()
    yield stand
    stand.finish()


@pytest.fixture(name="systemd")
def _systemd(stand):
    path = stand.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(path))
        path.chmod(0o777)
        ear.settimeout(SECONDS)
        yield ear, {"NOTIFY_SOCKET": str(path)}


def _run(*arguments):
    command = [sys.executable, "-m", "proxy", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)


def hear(ear, wanted):
    """Until systemd is told something that begins with `wanted`; that, line by line."""
    for _ in range(100):
        lines = ear.recv(10_000).decode().split("\n")
        if lines[0].startswith(wanted):
            return lines
    raise AssertionError(f"systemd never heard {wanted}")


def test_systemd_hears_of_the_start_the_numbers_a_reload_and_the_end(stand, systemd):
    ear, environ = systemd
    stand.settings |= {"stats_period": 0.4, "log_stats": 0}
    stand.write()
    with Started(stand.file, environ=environ) as proxy:
        assert hear(ear, "READY=1") == ["READY=1", f"MAINPID={proxy.process.pid}"]
        assert is_listening(stand.port)
        (status,) = hear(ear, "STATUS=")
        assert status.startswith("STATUS=stats: 0 xacts/s, 0 queries/s, 0 client parses/s, ")
        proxy.process.send_signal(signal.SIGHUP)
        assert hear(ear, "RELOADING=1")[1].startswith("MONOTONIC_USEC=")
        hear(ear, "READY=1")
        stand.settings["listen_port"] = "high"
        stand.write()
        proxy.process.send_signal(signal.SIGHUP)
        hear(ear, "RELOADING=1")
        hear(ear, "READY=1")  # also of a reload that failed: the old settings serve
        proxy.process.send_signal(signal.SIGINT)
        assert hear(ear, "STOPPING=1") == ["STOPPING=1"]
        proxy.process.communicate(timeout=SECONDS)


def test_sockets_that_systemd_opened_are_used_instead_of_our_own_and_stay_when_we_go(stand):
    stand.settings["unix_socket_dir"] = stand.folder
    stand.write()
    path = stand.folder / "theirs"
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        tcp.bind(("127.0.0.1", 0))
        unix.bind(str(path))
        path.chmod(0o777)
        for each in (tcp, unix):
            each.listen()
        port = tcp.getsockname()[1]
        with Started(stand.file, sockets=(tcp, unix)) as proxy:
            with psycopg.connect(**stand.options(port=port, connect_timeout=10), autocommit=True) as connection:
                assert connection.execute("select 'by tcp'").fetchone() == ("by tcp",)
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(str(path))
                caller.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")  # an SSLRequest
                assert caller.recv(1) == b"N"
            assert not is_listening(stand.port), "listen_addr is ignored"
            assert not (stand.folder / f".s.PGSQL.{stand.port}").exists(), "unix_socket_dir is ignored"
            said = proxy.end()
        assert f"listening on 127.0.0.1:{port}" in said
        assert f"listening on unix:{path}" in said
        assert path.exists(), "systemd goes on listening there"


def test_on_a_socket_for_all_addresses_that_systemd_opened_an_ipv4_caller_is_himself(stand):
    stand.settings |= {"auth_type": "hba", "auth_hba_file": stand.folder / "hba"}
    (stand.folder / "hba").write_text("host all all 127.0.0.0/8 trust\n")
    (stand.folder / "hba").chmod(0o644)
    stand.write()
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as both:
        port = both.getsockname()[1]
        with Started(stand.file, sockets=(both,)) as proxy:
            with psycopg.connect(**stand.options(port=port, connect_timeout=10), autocommit=True) as connection:
                assert connection.execute("select 1").fetchone() == (1,)
            said = proxy.end()
    assert "app@127.0.0.1:" in said
    assert "::ffff:" not in said


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="no systemd-socket-activate here")
@pytest.mark.parametrize("is_by_path", [False, True], ids=["tcp", "unix"])
def test_the_call_for_which_systemd_starts_us_is_answered(stand, is_by_path):
    """Its own program opens what pgshuttle.socket names, one port and one path, and starts us for the first caller."""
    folder, port = (str(stand.folder), str(find_free_port()))
    stand.settings["listen_port"] = port
    stand.write()
    path = f"{folder}/.s.PGSQL.{port}"
    listening = ["systemd-socket-activate", "--listen", f"127.0.0.1:{port}", "--listen", path]
    proxy = [sys.executable, "-m", "proxy", *BECOME, str(stand.file)]
    with subprocess.Popen([*listening, *proxy], cwd=ROOT, stderr=subprocess.PIPE, text=True) as started:
        try:
            wait_until(lambda: Path(path).exists(), "systemd-socket-activate does not listen")
            Path(path).chmod(0o777)
            where = {"host": folder if is_by_path else "127.0.0.1", "port": port, "connect_timeout": 20}
            with psycopg.connect(**stand.options(**where), autocommit=True) as connection:
                assert connection.execute("select 'here'").fetchone() == ("here",)
            started.send_signal(signal.SIGINT)
            _, said = started.communicate(timeout=SECONDS)
        finally:
            started.kill()
    assert f"listening on 127.0.0.1:{port}" in said
    assert f"listening on unix:{path}" in said
    assert Path(path).exists(), "it is systemd's"


@pytest.mark.parametrize(("said", "name"), [({}, "pgbouncer"), ({"job_name": "shop-pooler"}, "shop-pooler")])
def test_the_process_has_the_name_of_the_job(upstream, said, name):
    with Stand(upstream, said) as stand:
        assert Path(f"/proc/{stand.pid}/comm").read_text().strip() == name


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="this system has no SCHED_BATCH")
@pytest.mark.parametrize(("said", "policy"), [({}, "SCHED_BATCH"), ({"batch_scheduling": 0}, "SCHED_OTHER")])
def test_the_process_leaves_the_core_to_who_has_it(upstream, said, policy):
    with Stand(upstream, said) as stand:
        assert os.sched_getscheduler(stand.pid) == getattr(os, policy)
        assert "batch_scheduling" not in stand.log


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="one processor")
def test_who_is_to_stay_awake_for_answers_does_and_sleeps_when_nobody_asks(upstream):
    """How often a process went to sleep its kernel counts: a thousand times for these queries, or ten. (Where others
    are busy some answers are there before it sleeps, and some too late for who stays awake.)"""

    def count_sleeps(stand):
        said = Path(f"/proc/{stand.pid}/status").read_text()
        return int(said.split("voluntary_ctxt_switches:")[1].split()[0])

    def ask(said):
        with Stand(upstream, said) as stand, stand.connect() as client:
            before = count_sleeps(stand)
            assert [client.execute("select %s::int", (number,)).fetchone()[0] for number in range(500)] == [*range(500)]
            sleeps = count_sleeps(stand) - before
            time.sleep(0.1)
            before = cpu_of(stand)
            time.sleep(0.5)
            assert cpu_of(stand) - before < 0.1
            return sleeps

    def cpu_of(stand):
        fields = Path(f"/proc/{stand.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    pairs = [(ask({}), ask({"busy_poll_us": 1_000})) for _ in range(3)]
    assert sum(4 * awake < usual for usual, awake in pairs) >= 2, pairs


def test_many_are_told_through_one_ring_and_nobody_has_to_have_one(upstream):
    """A crowd, so that a ring has something to do. Where there is none the log says so. (libuv may have its own.)"""

    def serve(said):
        with Stand(upstream, {**said, "default_pool_size": 12}) as stand, ThreadPoolExecutor(24) as crowd:

            def ask(number):
                with stand.connect() as client:
                    return [client.execute("select %s::int + %s", (number, turn)).fetchone()[0] for turn in range(200)]

            assert list(crowd.map(ask, range(24))) == [[number + turn for turn in range(200)] for number in range(24)]
            files = [os.readlink(each) for each in Path(f"/proc/{stand.pid}/fd").iterdir() if each.is_symlink()]
            return sum("io_uring" in each for each in files), "io_uring: not here" in stand.log

    is_none = isinstance(open_ring(), str)
    (rings, is_said), (others, is_said_without) = serve({}), serve({"io_uring": 0})
    assert (rings > others, is_said, is_said_without) == (not is_none, is_none, False)


def test_version_says_what_show_version_says(stand):
    done = _run("--version")
    stand.start()
    with stand.connect("postgres", "pgbouncer") as console:
        assert console.execute("show version").fetchone() == (done.stdout.splitlines()[0],)


def test_quiet_is_quiet_and_verbose_tells_more(stand):
    log = stand.folder / "its.log"
    stand.settings["logfile"] = log
    stand.write()
    with Started(stand.file, "-q", "-v") as proxy:
        wait_until(lambda: log.exists() and "process up" in log.read_text(), "it is up")
        stand.raw().leave()
        wait_until(lambda: " DEBUG " in log.read_text(), "it tells more")
        assert proxy.end() == ""
    with Started(stand.file) as proxy:
        wait_until(lambda: log.read_text().count("process up") == 2, "it is up")
        assert "process up" in proxy.end(), "without -q stderr hears it too"


def test_an_abstract_socket_is_where_libpq_looks_for_it(upstream):
    name = f"@pgshuttle-live-{os.getpid()}"
    with Stand(upstream, {"unix_socket_dir": name}) as stand:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(f"\0{name[1:]}/.s.PGSQL.{stand.port}")
            caller.sendall(startup("app", "postgres"))
            assert caller.recv(1) == b"R"
        assert f"listening on unix:{name}/.s.PGSQL.{stand.port}" in stand.log
        assert f"@unix({os.getpid()}):{stand.port} login attempt" in stand.log


def test_the_socket_has_the_rights_asked_for(stand):
    stand.settings |= {"unix_socket_dir": stand.folder, "unix_socket_mode": "0600"}
    stand.start()
    path = stand.folder / f".s.PGSQL.{stand.port}"
    assert path.stat().st_mode & 0o777 == 0o600
    stand.signal(signal.SIGQUIT)
    stand.wait_end()
    assert not path.exists()


def test_pid_files(stand):
    pid_file = stand.folder / "pid"
    pid_file.write_text("4194304\n")  # left by a crash: no such process can be
    stand.settings["pidfile"] = pid_file
    stand.start()
    assert pid_file.read_text() == f"{stand.pid}\n"
    other = Stand(stand.upstream, {"pidfile": pid_file})
    other.write()
    refused = _run(*BECOME, other.file)
    other.finish()
    assert refused.returncode == 1
    assert refused.stderr.strip() == (f"pgshuttle: already running: pid file {pid_file} is held by process {stand.pid}")
    with stand.raw() as line:
        assert rows(line.ask("select 'the first goes on'")) == [("the first goes on",)]


def test_an_empty_pidfile_is_none(upstream):
    with Stand(upstream, {"pidfile": ""}) as stand:
        with stand.raw() as line:
            assert line.value("select 'up'") == "up"
        assert not list(stand.folder.glob("*pid*"))


def test_a_silent_caller_does_not_reach_us_while_the_kernel_keeps_him(upstream):
    with Stand(upstream, {"client_login_timeout": 0.5}) as stand, stand.call() as silent:
        time.sleep(1.0)
        assert "client_login_timeout" not in stand.log, "tcp_defer_accept: we do not know of him"
        stand.settings["tcp_defer_accept"] = 0
        stand.reload()
        with stand.call() as known:
            known.read_to_end()
        stand.wait_log("closing because: client_login_timeout")
        silent.close()


def test_a_file_of_roots_that_only_the_start_can_read_is_warned_of(upstream, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root becomes somebody else")
    users = tmp_path / "users.txt"
    users.write_text('"app" "x"\n')
    users.chmod(0o600)
    with Stand(upstream, {"user": USER, "auth_file": str(users)}) as stand:
        assert f"WARNING {users}: user {find_account()}, group " in stand.log
        assert " may not read it: reloads will fail" in stand.log


def test_the_account_of_the_file_is_the_one_we_become(upstream):
    if os.geteuid() != 0:
        pytest.skip("only root becomes somebody else")
    with Stand(upstream, {"user": USER}) as stand:
        assert f"running as user {find_account()}, group " in stand.log
        assert "reloads will fail" not in stand.log
        status = Path(f"/proc/{stand.pid}/status").read_text()
        assert "Uid:\t0\t" not in status
