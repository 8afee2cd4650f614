"""
The four ways to PostgreSQL that are compared.

Theory. A target is an address and, for a pooler, the process behind it. All poolers get the same file: that is
PgBouncer's format, which pgshuttle reads. pgshuttle comes twice, as it is and with shared lines and busy polling, which
takes two lines more. A PgBouncer that can follow prepared statements is told to, since pgshuttle does by itself. All
log to stderr, which is a file in the report's folder. One line a login is not written, by any: at thousands of logins
per second the log would be what is measured.

A target that cannot be had raises Failed, and the report says so: PgBouncer may not be installed.
"""

import contextlib
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.cluster import find_free_port
from tests.bench.cluster import wait_for, workshop
from tests.bench.processes import Failed, other_user, run, running
from tests.bench.wire import Address

DIRECT, THEIRS, OURS, LINES = "direct", "pgbouncer", "pgshuttle", "pgshuttle-lines"
SHARED_LINES = "pipeline_depth = 64\nbusy_poll_us = 200\n"
PREPARED_SINCE = (1, 21)
PREPARED = "max_prepared_statements = 200\n"
POOLERS = (
    "same file for all: transaction mode, 20 servers, trust, no log line per login; "
    "with lines: pipeline_depth = 64, busy_poll_us = 200"
)
INI = """\
[databases]
{database} = host={host} port={upstream} dbname={database}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/userlist.txt
pool_mode = transaction
default_pool_size = 20
max_client_conn = 12000
log_connections = 0
log_disconnections = 0
"""


@dataclass(frozen=True)
class Target:
    """Where to go, and the pooler's process there; None when it is PostgreSQL itself."""

    name: str
    address: Address
    pid: int | None = None


Opener = Callable[..., AbstractContextManager[Target]]  # (PostgreSQL's address, log) to a running target
Addition = Callable[[Path], str]  # writes files into the pooler's folder; more lines of its main section


def add_nothing(folder: Path) -> str:
    """The poolers as POOLERS says."""
    return ""


@contextlib.contextmanager
def direct(upstream: Address, log: Path) -> Iterator[Target]:
    """PostgreSQL itself."""
    yield Target(DIRECT, upstream)


@contextlib.contextmanager
def pgbouncer(upstream: Address, log: Path, add: Addition = add_nothing) -> Iterator[Target]:
    """PgBouncer as installed. Failed when it is not, or does not start."""
    program = find_pgbouncer()
    if program is None:
        raise Failed("PgBouncer is not installed (Debian: apt-get install pgbouncer)")
    more = PREPARED if pgbouncer_version() >= PREPARED_SINCE else ""
    with _pooler(THEIRS, [program], upstream, log, other_user(), lambda folder: more + add(folder)) as target:
        yield target


@contextlib.contextmanager
def pgshuttle(upstream: Address, log: Path, add: Addition = add_nothing, name: str = OURS) -> Iterator[Target]:
    """This project, on the Python that runs the bench. As root it gives up its rights by itself."""
    user = other_user()
    command = [sys.executable, "-m", "proxy", *(["-u", user] if user else [])]
    with _pooler(name, command, upstream, log, None, add) as target:
        yield target


def pgshuttle_lines(upstream: Address, log: Path, add: Addition = add_nothing) -> AbstractContextManager[Target]:
    """The same, with reads of many clients in line on one server, and awake where there is one client."""
    return pgshuttle(upstream, log, lambda folder: SHARED_LINES + add(folder), LINES)


OPENERS: Mapping[str, Opener] = {DIRECT: direct, THEIRS: pgbouncer, OURS: pgshuttle, LINES: pgshuttle_lines}


def pgbouncer_version() -> tuple[int, ...]:
    """Of the installed one, as (1, 18, 0); empty when there is none."""
    program = find_pgbouncer()
    return parse_version(run([program, "--version"], seconds=10)) if program else ()


def parse_version(words: str) -> tuple[int, ...]:
    """`PgBouncer 1.18.0` and more lines as (1, 18, 0). Failed when there is no such number."""
    found = re.search(r"PgBouncer (\d+(?:\.\d+)*)", words)
    if found is None:
        raise Failed(f"no version of PgBouncer: {words[:80]!r}")
    return tuple(map(int, found[1].split(".")))


def find_pgbouncer() -> str | None:
    """The program's path; Debian puts it where only root's PATH looks."""
    return shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")


@contextlib.contextmanager
def _pooler(
    name: str, command: list[str], upstream: Address, log: Path, user: str | None, add: Addition
) -> Iterator[Target]:
    with workshop(user) as folder:
        address = replace(upstream, port=find_free_port())
        ini = _write_files(folder, upstream, address)
        ini.write_text(ini.read_text() + add(folder))
        with running([*command, str(ini)], log=log, user=user) as process:
            wait_for(address, process, log)
            yield Target(name, address, process.pid)


def _write_files(folder: Path, upstream: Address, address: Address) -> Path:
    (folder / "userlist.txt").write_text(f'"{address.user}" ""\n')
    ini = folder / "pooler.ini"
    where = {"host": upstream.host, "upstream": upstream.port, "port": address.port, "database": address.database}
    ini.write_text(INI.format(folder=folder, **where))
    return ini
