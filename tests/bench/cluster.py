"""
The PostgreSQL behind every target, and the data in it.

Theory. One fresh cluster a run, thrown away afterwards. Durability is off (fsync): what is compared is the way to
PostgreSQL, not its disk. Autovacuum is off too, since it would strike whoever's turn it is; instead the tables that
grow old with every write are vacuumed before each load that writes (loads.py). Everybody on this machine is let in
without a password while it runs: the price of a login is the pooler's, not that of a password's hash.
"""

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.cluster import ClusterFailed, LocalCluster, find_free_port
from tests.bench.processes import Failed, last_line, other_user, run
from tests.bench.wire import Address, Line, is_answering

SETTINGS = {
    "max_connections": "400",
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
    "fsync": "off",
    "autovacuum": "off",
}
TRUST = "host all all 127.0.0.1/32 trust\n"
SCALE = 20  # of pgbench: two million accounts, and as many branches as a pool has servers
START_TIME = 20.0  # seconds that a target may take to start


@dataclass(frozen=True)
class Cluster:
    """A running PostgreSQL: its programs and where it listens. The database `bench` exists and is filled."""

    programs: Path
    address: Address


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A new cluster with the bench's data, gone on the way out. Failed when PostgreSQL does not start."""
    with workshop(other_user()) as folder:
        (folder / "hba.conf").write_text(TRUST)
        settings = {**SETTINGS, "hba_file": str(folder / "hba.conf")}
        try:
            with LocalCluster(folder / "cluster", find_free_port(), settings) as local:
                made = Cluster(local.program("pgbench").parent, Address("127.0.0.1", local.port))
                fill(made)
                yield made
        except ClusterFailed as error:
            raise Failed(str(error)) from error


@contextlib.contextmanager
def workshop(user: str | None) -> Iterator[Path]:
    """A temporary folder that belongs to `user` (None: to us)."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        if user is not None:
            shutil.chown(name, user)
        yield Path(name)


def wait_for(address: Address, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until it answers. Failed, with the last words in `log`, when the process ends first or it takes too long."""
    deadline = time.monotonic() + START_TIME
    while True:
        with contextlib.suppress(OSError):
            if is_answering(address, START_TIME):
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise Failed(f"does not start: {last_line(log.read_text(errors='replace'))}")
        time.sleep(0.05)


def fill(made: Cluster) -> None:
    """Make the database, pgbench's tables and the table that COPY in fills."""
    address = made.address
    with Line(replace(address, database="postgres")) as line:
        line.ask(f"CREATE DATABASE {address.database}")
    where = ["-h", address.host, "-p", str(address.port), "-U", address.user]
    run([made.programs / "pgbench", "-i", "-q", "-s", str(SCALE), *where, address.database], seconds=120)
    with Line(address) as line:
        line.ask("CREATE UNLOGGED TABLE bench_in (n int)")
        line.ask("CHECKPOINT")
