"""
`make run`: a local PostgreSQL cluster with the proxy in front of it, until Ctrl-C.

Theory. Two programs live and die with this one. PostgreSQL comes first and goes last, the proxy runs between. Both run
in sessions of their own, so that Ctrl-C at the terminal reaches only us and we end them in order, whatever signal we
get and however often: the first asks the proxy to finish what its servers are doing, each further one makes haste.
What the proxy logs goes to the terminal as it comes; when it dies by itself its last lines are said again.
"""

import argparse
import contextlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Final

from deploy.cluster import ClusterFailed, LocalCluster, check_port_is_free, find_free_port
from deploy.healthcheck import is_answering
from deploy.place import CommandFailed, Owner

__all__ = ["ClusterFailed", "LocalCluster", "check_port_is_free", "find_free_port", "main"]

DIRECTORY: Final = Path(".local")
PROXY_PORT: Final = 6432  # where the ini file says nothing
CLUSTER_PORT: Final = 5433  # not 5432: there may be a PostgreSQL on this machine already
START_SECONDS: Final = 20.0
PATIENCE: Final = 10.0  # seconds between asking the proxy to end and asking less politely
TICK: Final = 0.05
LAST_LINES: Final = 20
WAYS_TO_END: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)  # wait for servers; at once; no matter what


class Wishes:
    """How often we were told to stop."""

    def __init__(self) -> None:
        self.count = 0

    def note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1

    @contextlib.contextmanager
    def heard(self) -> Iterator["Wishes"]:
        """Within this, SIGINT and SIGTERM are counted and nothing else happens."""
        before = {number: signal.signal(number, self.note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Child:
    """
    The proxy as our child: `command` is started at once, as `owner` (None: ourselves).

    Its stderr goes to ours, and the last lines are kept.
    """

    def __init__(self, command: Sequence[str], owner: Owner | None) -> None:
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self.process = subprocess.Popen(  # noqa: S603 (our own interpreter and arguments)
            command,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            user=owner.uid if owner else None,
            group=owner.gid if owner else None,
            extra_groups=() if owner else None,
        )
        assert self.process.stderr is not None
        self._pump = threading.Thread(target=self._copy, args=(self.process.stderr,), daemon=True)
        self._pump.start()

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def last_words(self) -> str:
        """What it wrote last; to be asked when it has ended."""
        self._pump.join(timeout=1)
        return "".join(self._last)

    def end(self, wishes: Wishes) -> None:
        """Make it end, politely at first; each further wish, or PATIENCE running out, makes it less so."""
        for way in WAYS_TO_END:
            if self.is_running:
                self.process.send_signal(way)
                self._wait(wishes, time.monotonic() + PATIENCE)
        self.process.wait()
        self._pump.join(timeout=1)

    def _wait(self, wishes: Wishes, deadline: float) -> None:
        heard = wishes.count
        while self.is_running and wishes.count == heard and time.monotonic() < deadline:
            time.sleep(TICK)

    def _copy(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._last.append(line)
                sys.stderr.write(line)
                sys.stderr.flush()


def read_ports(ini: Path) -> tuple[int, int]:
    """
    The proxy's port and the port of the first database's server, as `ini` says; the defaults where it says nothing.

    Only a glance at two numbers: the proxy itself reads the file with care and says what is wrong with it.
    """
    try:
        text = ini.read_text(errors="replace")
    except OSError as error:
        raise ClusterFailed(f"cannot read {ini}: {error.strerror}") from error
    listen = re.search(r"^\s*listen_port\s*=\s*(\d+)", text, re.MULTILINE)
    server = re.search(r"^\s*[^;#\s].*\bhost\s*=.*\bport\s*=\s*'?(\d+)", text, re.MULTILINE)
    return int(listen[1]) if listen else PROXY_PORT, int(server[1]) if server else CLUSTER_PORT


def run(ini: Path, directory: Path, command: tuple[str, ...]) -> int:
    """Serve until told to stop. Returns the exit status; ClusterFailed when something does not start."""
    proxy_port, cluster_port = read_ports(ini)
    cluster = LocalCluster(directory, cluster_port)
    with Wishes().heard() as wishes:
        check_port_is_free(proxy_port, f"the proxy (listen_port in {ini})")
        say(f"starting PostgreSQL on port {cluster_port} in {directory}")
        with cluster:
            owner, options = find_runner(cluster, ini)
            child = Child((*command, str(ini), *options), owner)
            try:
                wait_until_answering(child, proxy_port, wishes)
                greet(cluster, child, proxy_port)
                status = wait_for_the_end(child, wishes)
            finally:
                child.end(wishes)
                say("the proxy has stopped, stopping PostgreSQL")
    say("all stopped")
    return status


def find_runner(cluster: LocalCluster, ini: Path) -> tuple[Owner | None, tuple[str, ...]]:
    """
    As whom the proxy runs, None for ourselves, and the options it needs for that.

    It refuses to be root unless told so by name. As root we make it PostgreSQL's owner if he can get at the
    interpreter, the project and the two files, which it reads again at each reload; in root's home he cannot.
    """
    owner = cluster.place.owner
    if owner is None:
        return None, ()
    program = "import sys, proxy.__main__; [open(path).close() for path in sys.argv[1:]]"
    files = (ini.absolute(), cluster.user_list.absolute())
    try:
        cluster.place.run(sys.executable, "-c", program, *files, folder=Path.cwd())
    except CommandFailed:
        say(f"the proxy runs as root: user {owner.name} cannot get at its program or its files")
        return None, ("--user", "root")
    return owner, ()


def wait_until_answering(child: Child, port: int, wishes: Wishes) -> None:
    """Until the proxy serves, or ends, or we are told to stop. ClusterFailed after START_SECONDS of none of these."""
    deadline = time.monotonic() + START_SECONDS
    while child.is_running and not wishes.count and not is_answering(port=port, seconds=1.0):
        if time.monotonic() > deadline:
            raise ClusterFailed(f"the proxy does not answer on port {port} after {START_SECONDS:.0f} seconds")
        time.sleep(TICK)


def greet(cluster: LocalCluster, child: Child, port: int) -> None:
    if child.is_running:
        say(
            "",
            "The proxy is ready. Point psql, pgbench or an application at",
            f"    {cluster.dsn(port)}",
            "The console, where SHOW HELP tells more:",
            f"    {cluster.program('psql')} {cluster.dsn(port, 'pgbouncer')}",
            f"PostgreSQL itself, past the proxy:  {cluster.dsn()}",
            f"After a change of the ini file:     kill -HUP {child.process.pid}",
            "Ctrl-C stops both.",
            "",
        )


def wait_for_the_end(child: Child, wishes: Wishes) -> int:
    """0 when we were told to stop, 1 when the proxy ended by itself."""
    while not wishes.count:
        if not child.is_running:
            words = child.last_words() or "(it said nothing)\n"
            say(f"the proxy ended by itself with status {child.process.returncode}. Its last lines:", words)
            return 1
        time.sleep(TICK)
    return 0


def say(*lines: str) -> None:
    print("\n".join(lines), flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__.strip().splitlines()[0])
    parser.add_argument("verb", choices=["run"], help="run: start both, serve until Ctrl-C")
    parser.add_argument("--ini", type=Path, default=Path("proxy.ini"), help="the proxy's settings (%(default)s)")
    parser.add_argument("--directory", type=Path, default=DIRECTORY, help="where the cluster lives (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        return run(options.ini, options.directory, (sys.executable, "-m", "proxy"))
    except ClusterFailed as error:
        print(f"make run: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
