"""
Our conversation with PostgreSQL: from a free place in a pool to a server that is ready for its first client.

Theory. One coroutine per server, started by the pool and owned by nobody else: find an address, connect, say who we
are, prove it, listen to what the server tells about itself, run `connect_query`. All of it stands under one deadline
(`server_connect_timeout`). It ends in exactly one of two calls, `pool.server_opened` or `pool.opening_failed`; the
place in the pool is freed in any case, also when the task is cancelled. A tunnel (tunnel.py) comes in by the same
door, `Opener.enter`, and has no place in a pool.

What the version of the protocol is, is found out once per address: we ask for the newest, PostgreSQL takes what it
knows, and a pooler that hangs up on us is asked again in the oldest and remembered.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from protocol import sqlstate
from protocol.errors import ProtocolError
from protocol.parameters import spelling
from protocol.startup import LATEST_MINOR
from proxy.approach import Approach
from proxy.auth.keys import KeyKeeper
from proxy.auth.prove import ServerRefused, TooNew
from proxy.config.entries import Database
from proxy.failing import LoginFailed
from proxy.inbox import Inbox, PeerGone
from proxy.pool import Pool
from proxy.server import Server
from proxy.states import OPENING, Closing
from proxy.tasks import Tasks


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place where a server listens: a TCP host and port, or the path of a Unix socket (`@` for abstract)."""

    host: str
    port: int

    @property
    def path(self) -> str | None:
        if self.host.startswith("/"):
            return f"{self.host}/.s.PGSQL.{self.port}"
        return f"\0{self.host[1:]}/.s.PGSQL.{self.port}" if self.host.startswith("@") else None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    async def connect(self, loop: asyncio.AbstractEventLoop) -> Inbox:
        """A conversation with whoever listens there. OSError when nobody does."""
        if self.path is not None:
            _, inbox = await loop.create_unix_connection(Inbox, self.path)
        else:
            _, inbox = await loop.create_connection(Inbox, self.host, self.port)
        return inbox


class Opener:
    """Opens servers for pools, and whatever else needs a connection to PostgreSQL in a pool's name."""

    def __init__(self, tasks: Tasks, keeper: KeyKeeper, world: Any) -> None:
        self._tasks = tasks
        self._keeper = keeper
        self._world = world  # for what a reload may change: find_database, find_password, tune_socket
        self._turn = 0  # of round robin over several hosts
        self._old: set[Endpoint] = set()  # those that turn away whoever asks for more than protocol 3.0

    def open_server(self, pool: Pool) -> Server:
        """A server in OPENING, and a task that goes on from there."""
        server = Server(pool)
        server.opening = self._tasks.start(self._open(server), name=f"open a server for {pool}")
        server.opening.add_done_callback(lambda task: _free_place(server, task))
        return server

    async def _open(self, server: Server) -> None:
        approach = self.approach(server)
        try:
            await self.enter(approach)
        except asyncio.CancelledError:
            await _give_up(approach, None)
            raise
        except LoginFailed as failure:
            await _give_up(approach, failure)
        else:
            _succeed(approach)

    def approach(self, owner: Any) -> Approach:
        return Approach(owner, self._keeper)

    async def enter(self, approach: Approach, said: Mapping[str, str] | None = None, *, may_query: bool = True) -> None:
        """
        Connect and log in, in the name of the owner's pool. `said` are startup parameters beyond the pool's own.

        LoginFailed says what went wrong; what is connected by then, the caller hangs up.
        """
        owner = approach.owner
        pool: Pool = owner.pool
        try:
            async with asyncio.timeout(pool.limits.server_connect_timeout):
                database, password = self._world.find_login(pool)
                await self._connect(approach, database)
                await self._log_in(approach, _startup_parameters(database, pool.user) | dict(said or {}), password)
                if database.connect_query and may_query:
                    is_pooled = isinstance(owner, Server)
                    await (approach.prepare if is_pooled else approach.ask)(database.connect_query)
        except TimeoutError:
            what = Closing.CONNECT_FAILED if approach.inbox is None else Closing.CONNECT_TIMEOUT
            raise LoginFailed(sqlstate.CONNECTION_FAILURE, f"{what.value}: server_connect_timeout") from None
        except ServerRefused as refusal:
            fields = refusal.fields
            self._world.log.for_socket(repr(owner)).warning(
                f"server login failed: {fields.severity or 'FATAL'} {refusal}"
            )
            raise LoginFailed(fields.sqlstate or sqlstate.CONNECTION_FAILURE, str(refusal)) from None
        except (OSError, UnicodeError, PeerGone, ProtocolError) as error:
            what = Closing.CONNECT_FAILED if approach.inbox is None else Closing.LOGIN_FAILED
            raise LoginFailed(sqlstate.CONNECTION_FAILURE, f"{what.value}: {error}") from None
        self._world.log.for_socket(repr(owner)).log(f"new connection to server (from {approach.describe()})")

    async def _connect(self, approach: Approach, database: Database) -> None:
        """To the next host in turn that answers."""
        places = [Endpoint(host, database.port) for host in self._world.find_hosts(database)]
        self._turn += 1
        first = self._turn % len(places) if database.hosts else 0
        last: OSError | None = None
        for endpoint in places[first:] + places[:first]:
            try:
                await self._connect_to(approach, endpoint)
            except OSError as error:
                last = error
                continue
            return
        raise last or OSError("no address")

    async def _connect_to(self, approach: Approach, endpoint: Endpoint) -> None:
        inbox = await endpoint.connect(asyncio.get_running_loop())
        self._world.tune_socket(inbox.transport.get_extra_info("socket"))
        approach.connected(inbox, endpoint)

    async def _log_in(self, approach: Approach, said: Mapping[str, str], password: Any) -> None:
        """By the newest protocol we speak, and once more by the oldest where that is not understood."""
        endpoint: Endpoint = approach.owner.endpoint
        try:
            await approach.log_in(said, password, 0 if endpoint in self._old else LATEST_MINOR)
        except TooNew as words:
            await approach.hang_up()
            await self._connect_to(approach, endpoint)
            await approach.log_in(said, password, 0)
            self._old.add(endpoint)
            self._world.log.log(f"{endpoint} does not speak protocol 3.{LATEST_MINOR} ({words}): 3.0 from here on")


def _free_place(server: Server, task: "asyncio.Task[None]") -> None:
    """The task is over and nobody has freed the place: it was cancelled before its first step, or it has a bug."""
    if server.state is OPENING:
        if not task.cancelled():
            server.pool.opening_failed(LoginFailed(sqlstate.CONNECTION_FAILURE, Closing.CONNECT_FAILED.value))
        server.pool.server_closed(server)


def _succeed(approach: Approach) -> None:
    """From conversation to stream: the pool has one server more."""
    server, inbox = approach.owner, approach.inbox
    assert inbox is not None
    pool = server.pool
    told = {name: server.parameters[name] for name in pool.world.followed if name in server.parameters}
    base = {name: value for name, value in approach.base.items() if name not in spelling(told)}
    if base != pool.learnt.base:
        pool.learnt.base = base
        pool.greetings.clear()
    server.followed = pool.intern({**told, **base})
    server.opening = None
    pool.prove(told.items())
    inbox.hand_over_to(server)
    if server.state is OPENING:  # else it has said goodbye in the same breath
        pool.server_opened(server, dict(server.parameters))


async def _give_up(approach: Approach, failure: LoginFailed | None) -> None:
    """The place is free again: now if nothing was connected, else when the server has hung up."""
    server = approach.owner
    try:
        await approach.hang_up()
    finally:
        if failure is not None:
            server._log().log(f"closing because: {failure} (age={server.age:.0f}s)")
            server.pool.opening_failed(failure)
        server.pool.server_closed(server)


def _startup_parameters(database: Database, user: str) -> dict[str, str]:
    said = {
        "client_encoding": database.client_encoding,
        "datestyle": database.datestyle,
        "timezone": database.timezone,
        "application_name": database.application_name,
    }
    return {"user": user, "database": database.server_dbname} | {name: value for name, value in said.items() if value}
