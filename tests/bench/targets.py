"""
The three ways to PostgreSQL that are compared.

Theory. A target is an address and, for a pooler, the process behind it. Both poolers get the same file: that is
PgBouncer's format, which pgshuttle reads. Both log to stderr, which is a file in the report's folder. One line a
login is not written, by either: at thousands of logins per second the log would be what is measured.

A target that cannot be had raises Failed, and the report says so: PgBouncer may not be installed.
"""

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.cluster import find_free_port
from tests.bench.cluster import wait_for, workshop
from tests.bench.processes import Failed, other_user, running
from tests.bench.wire import Address

POOLERS = "same file for both: transaction mode, 20 servers, trust, no log line per login"
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
max_client_conn = 10000
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
    """Both poolers as POOLERS says."""
    return ""


@contextlib.contextmanager
def direct(upstream: Address, log: Path) -> Iterator[Target]:
    """PostgreSQL itself."""
    yield Target("direct", upstream)


@contextlib.contextmanager
def pgbouncer(upstream: Address, log: Path, add: Addition = add_nothing) -> Iterator[Target]:
    """PgBouncer as installed. Failed when it is not, or does not start."""
    program = find_pgbouncer()
    if program is None:
        raise Failed("PgBouncer is not installed (Debian: apt-get install pgbouncer)")
    with _pooler("pgbouncer", [program], upstream, log, other_user(), add) as target:
        yield target


@contextlib.contextmanager
def pgshuttle(upstream: Address, log: Path, add: Addition = add_nothing) -> Iterator[Target]:
    """This project, on the Python that runs the bench. As root it gives up its rights by itself."""
    user = other_user()
    command = [sys.executable, "-m", "proxy", *(["-u", user] if user else [])]
    with _pooler("pgshuttle", command, upstream, log, None, add) as target:
        yield target


OPENERS: Mapping[str, Opener] = {"direct": direct, "pgbouncer": pgbouncer, "pgshuttle": pgshuttle}


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
