"""
A proxy under test: a child process with a file of its own, a log of its own, and a door.

Theory. A test says which settings, databases and users it wants; the rest is plain: 127.0.0.1, a free port, no Unix
socket, trust for everybody in the user list. Started by root the proxy becomes another user, as it must. Its log is
read by tests, printed when one fails, and examined at the end: a traceback in it fails the test that caused it, however
green it was otherwise.
"""

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.live.upstream import PASSWORD, Upstream
from tests.live.wire import Raw
from tests.ports import find_free_port

ROOT = Path(__file__).resolve().parents[2]
USER = "nobody"  # whom the proxy becomes when we are root
SECONDS = 45.0  # patience with anything that should take a moment; a machine may have other things to do
LOG_TAIL = 60  # lines shown when a test fails

_WRONG = re.compile(r"Traceback|task .* failed|AssertionError|never retrieved|unhandled error")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")

living: list["Stand"] = []  # for the report of a failed test

Entries = Mapping[str, str]


class Stand:
    """One proxy in front of `upstream`. As context manager it runs inside."""

    def __init__(
        self,
        upstream: Upstream,
        settings: Mapping[str, object] | None = None,
        *,
        databases: Entries | None = None,
        users: Entries | None = None,
        secrets: Entries | None = None,
        peers: Entries | None = None,
        limits: Callable[[], None] | None = None,
        program: Sequence[str] = ("-m", "proxy"),
    ) -> None:
        self.upstream = upstream
        self.port = find_free_port()
        self.settings: dict[str, object] = dict(settings or {})
        self.databases = dict(databases or {"*": ""})
        self.users = dict(users or {})
        self.peers = dict(peers or {})
        self.secrets = dict(upstream.secrets if secrets is None else secrets)
        self.folder = Path(tempfile.mkdtemp(prefix="pgshuttle-stand-"))
        self.folder.chmod(0o755)
        self.file = self.folder / "proxy.ini"
        self.user_list = self.folder / "userlist.txt"
        self._log = self.folder / "log"
        self._limits = limits  # called in the child before it becomes the proxy
        self._program = program  # what Python runs
        self._process: subprocess.Popen[bytes] | None = None
        self.elders: list[subprocess.Popen[bytes]] = []  # from which others have taken over
        self._seen = 0

    # The files.

    def write(self) -> None:
        """Both files as the attributes say."""
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": self.user_list,
            "admin_users": "postgres",
            "max_client_conn": 1000,
            "log_stats": 0,
            "pipeline_group_min": 2,  # tests have few clients
        } | self.settings
        lines = ["[proxy]", *(f"{name} = {value}" for name, value in settings.items()), "[databases]"]
        lines += [f"{name} = {self._place(text)}" for name, text in self.databases.items()]
        lines += ["[users]", *(f"{name} = {text}" for name, text in self.users.items())]
        lines += ["[peers]", *(f"{name} = {text}" for name, text in self.peers.items())]
        self.file.write_text("\n".join(lines) + "\n")
        self.user_list.write_text("".join(f"{_quote(user)} {_quote(word)}\n" for user, word in self.secrets.items()))

    def _place(self, text: str) -> str:
        """An entry that names no host is the upstream's."""
        return text if "host=" in text else f"host={self.upstream.host} port={self.upstream.port} {text}"

    # The process.

    def __enter__(self) -> "Stand":
        try:
            self.start()
        except BaseException:
            self._clear()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def start(self) -> None:
        """Returns when it listens."""
        self.write()
        self._process = self._spawn()
        living.append(self)
        self.wait_log("process up")

    def _spawn(self, *options: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command(*options),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=self._limits,  # noqa: PLW1509
            )

    def _command(self, *options: str) -> list[str]:
        become = ["-u", USER] if os.geteuid() == 0 else []
        return [sys.executable, *self._program, *options, *become, str(self.file)]

    def succeed(self) -> subprocess.Popen[bytes]:
        """A new process takes over and accepts, and is meant from here on. Returns the one before."""
        assert self._process is not None
        elder = self._process
        self.elders.append(elder)
        self.mark()
        self._process = self._spawn("-R")
        self.wait_log(f"process {self.pid} has taken over")
        return elder

    def succeed_and_end(self) -> subprocess.Popen[bytes]:
        """The same, and the one before is told to end as soon as it has been asked."""
        assert self._process is not None
        elder = self._process
        self.elders.append(elder)
        self.mark()
        self._process = self._spawn("-R")
        self.wait_log(f"process {self.pid} wants to take over")
        elder.send_signal(signal.SIGTERM)
        self.wait_log("process up")
        return elder

    def lose(self) -> int:
        """The new process is killed: the one before is meant again. Returns the number of the dead one."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        pid, self._process = self.pid, self.elders.pop()
        return pid

    def fail_to_succeed(self) -> str:
        """A new process asks to take over and must not: what it says."""
        refused = subprocess.run(
            self._command("-R"), cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS
        )
        assert refused.returncode == 1, refused.stderr
        return refused.stderr

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def is_stopped(self) -> bool:
        """By SIGSTOP, which it obeys a moment later."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait_end(self, seconds: float = SECONDS) -> int:
        """Its exit code."""
        assert self._process is not None
        return self._process.wait(seconds)

    def finish(self) -> None:
        """End it, and look at what it has written."""
        try:
            self._end()
            lines = self.log.splitlines()
            wrong = next((number for number, line in enumerate(lines) if _WRONG.search(line)), None)
            assert wrong is None, "the proxy's log:\n" + "\n".join(lines[max(wrong - 5, 0) : wrong + LOG_TAIL])
        finally:
            self._clear()

    def _clear(self) -> None:
        for process in [*self.elders, *([] if self._process is None else [self._process])]:
            if process.poll() is None:
                process.kill()
                process.wait()
        if self in living:
            living.remove(self)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self) -> None:
        for process in [*self.elders, *([] if self._process is None else [self._process])]:
            self._end_one(process)

    def _end_one(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGQUIT)
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError("the proxy does not end on SIGQUIT:\n" + self.tail) from None

    # What it says and costs.

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def tail(self) -> str:
        return "\n".join(self.log.splitlines()[-LOG_TAIL:])

    def mark(self) -> None:
        """`wait_log` looks only at what comes from here on."""
        self._seen = len(self.log)

    @property
    def fresh_log(self) -> str:
        """What was logged since `mark`."""
        return self.log[self._seen :]

    def wait_log(self, text: str, seconds: float = SECONDS) -> str:
        """Until a line with `text` (a pattern) has been logged since `mark`; that line."""
        pattern = re.compile(f"^.*{text}.*$", re.MULTILINE)
        end = time.monotonic() + seconds
        while (found := pattern.search(self.fresh_log)) is None:
            assert self.is_running or pattern.search(self.fresh_log), f"the proxy ended:\n{self.tail}"
            assert time.monotonic() < end, f"no {text!r} in the log:\n{self.tail}"
            time.sleep(0.01)
        return found[0]

    @property
    def rss(self) -> int:
        """Resident memory, bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE

    @property
    def cpu(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    # Doing things to it.

    def reload(self) -> str:
        """Write the files anew, send SIGHUP; the log line that says how it went."""
        self.write()
        self.mark()
        self.signal(signal.SIGHUP)
        return self.wait_log(r"(reloaded: |reload failed)")

    # Doors.

    def options(self, user: str = "app", dbname: str = "postgres", **more: Any) -> dict[str, Any]:
        """For psycopg and its kin."""
        return {"host": "127.0.0.1", "port": self.port, "user": user, "dbname": dbname, "password": PASSWORD} | more

    def connect(self, user: str = "app", dbname: str = "postgres", **more: Any) -> psycopg.Connection[Any]:
        """With psycopg; without named statements unless asked for."""
        options = {"autocommit": True, "prepare_threshold": None} | more
        return psycopg.connect(**self.options(user, dbname, **options))

    def wait_pools(self, database: str, **ought: int) -> None:
        """Until SHOW POOLS says so of `database`, as `cl_waiting=1`: what it has sent has been read."""

        def add_up() -> dict[str, int]:
            pools = [pool for pool in console.execute("SHOW POOLS") if pool["database"] == database]
            return {name: sum(int(pool[name]) for pool in pools) for name in ought}

        with self.connect("postgres", "pgbouncer", row_factory=dict_row) as console:
            wait_until(lambda: add_up() == ought, f"{database} has {ought}")

    def call(self, seconds: float = SECONDS) -> Raw:
        """A bare socket that has said nothing yet."""
        return Raw(self.port, seconds)

    def raw(self, user: str = "app", database: str = "postgres", seconds: float = SECONDS, **parameters: str) -> Raw:
        """A bare socket, logged in by trust."""
        line = self.call(seconds)
        line.login(user, database, **parameters)
        return line


def wait_until(condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Until `condition` holds; AssertionError saying `what` when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)


def find_slowest(line: Raw, seconds: float) -> float:
    """The longest that a query of somebody inside takes, tried for so long."""
    slowest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.monotonic()
        assert line.value("select 1") == "1"
        slowest = max(slowest, time.monotonic() - start)
        time.sleep(0.01)
    return slowest


def find_account() -> str:
    """Whom the proxy runs as."""
    return USER if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
