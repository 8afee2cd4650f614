"""
Our conversation with PostgreSQL: from a free place in a pool to a server that is ready for its first client.

Theory. One coroutine per server, started by the pool and owned by nobody else: find an address, connect, say who we
are, prove it, listen to what the server tells about itself, run `connect_query`. All of it stands under one deadline
(`server_connect_timeout`). It ends in exactly one of two calls, `pool.server_opened` or `pool.opening_failed`; the
place in the pool is freed in any case, also when the task is cancelled.

The server is not trusted: the number and the length of what it may say before ReadyForQuery are bounded.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from protocol import codes, sqlstate
from protocol.backend import parse_backend_key, parse_error, parse_parameter_status, parse_ready
from protocol.errors import ProtocolError
from protocol.frontend import build_query
from protocol.startup import build_startup
from proxy.auth.keys import KeyKeeper
from proxy.auth.prove import MAX_MESSAGE, ServerRefused, prove_ourselves
from proxy.config.entries import Database
from proxy.inbox import Inbox, PeerGone
from proxy.pool import LoginFailed, Pool
from proxy.server import Server
from proxy.states import OPENING, Closing
from proxy.tasks import Tasks

MAX_GREETINGS = 1000  # messages between AuthenticationOk and ReadyForQuery
LAST_WORDS = 1.0  # seconds a server that did not let us in has to hang up


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
    """Opens servers for pools."""

    def __init__(self, tasks: Tasks, keeper: KeyKeeper, world: Any) -> None:
        self._tasks = tasks
        self._keeper = keeper
        self._world = world  # for what a reload may change: find_database, find_password, tune_socket
        self._turn = 0  # of round robin over several hosts

    def open_server(self, pool: Pool) -> Server:
        """A server in OPENING, and a task that goes on from there."""
        server = Server(pool)
        server.opening = self._tasks.start(self._open(server), name=f"open a server for {pool}")
        server.opening.add_done_callback(lambda task: _free_place(server, task))
        return server

    async def _open(self, server: Server) -> None:
        pool = server.pool
        opening = _Opening(server, self._keeper)
        try:
            async with asyncio.timeout(pool.limits.server_connect_timeout):
                database, password = self._world.find_login(pool)
                await self._connect(opening, database)
                await opening.log_in(database, password)
        except asyncio.CancelledError:
            await opening.give_up(None)
            raise
        except TimeoutError:
            what = Closing.CONNECT_FAILED if opening.inbox is None else Closing.CONNECT_TIMEOUT
            await opening.give_up(LoginFailed(sqlstate.CONNECTION_FAILURE, f"{what.value}: server_connect_timeout"))
        except ServerRefused as refusal:
            fields = refusal.fields
            server._log().warning(f"server login failed: {fields.severity or 'FATAL'} {refusal}")
            await opening.give_up(LoginFailed(fields.sqlstate or sqlstate.CONNECTION_FAILURE, str(refusal)))
        except (OSError, PeerGone, ProtocolError) as error:
            what = Closing.CONNECT_FAILED if opening.inbox is None else Closing.LOGIN_FAILED
            await opening.give_up(LoginFailed(sqlstate.CONNECTION_FAILURE, f"{what.value}: {error}"))
        else:
            opening.succeed()

    async def _connect(self, opening: "_Opening", database: Database) -> None:
        """To the next host in turn that answers."""
        places = [Endpoint(host, database.port) for host in self._world.find_hosts(database)]
        self._turn += 1
        first = self._turn % len(places) if database.hosts else 0
        last: OSError | None = None
        for endpoint in places[first:] + places[:first]:
            try:
                inbox = await endpoint.connect(asyncio.get_running_loop())
            except OSError as error:
                last = error
                continue
            self._world.tune_socket(inbox.transport.get_extra_info("socket"))
            opening.connected(inbox, endpoint)
            return
        raise last or OSError("no address")


def _free_place(server: Server, task: "asyncio.Task[None]") -> None:
    """The task is over and nobody has freed the place: it was cancelled before its first step, or it has a bug."""
    if server.state is OPENING:
        if not task.cancelled():
            server.pool.opening_failed(LoginFailed(sqlstate.CONNECTION_FAILURE, Closing.CONNECT_FAILED.value))
        server.pool.server_closed(server)


class _Opening:
    """One server on its way, and what it has told about itself."""

    def __init__(self, server: Server, keeper: KeyKeeper) -> None:
        self.server = server
        self.inbox: Inbox | None = None
        self._keeper = keeper

    def connected(self, inbox: Inbox, endpoint: Endpoint) -> None:
        self.inbox = inbox
        self.server.endpoint = endpoint
        self.server.address = (endpoint.path or endpoint.host, endpoint.port)

    async def log_in(self, database: Database, password: Any) -> None:
        assert self.inbox is not None
        user = self.server.pool.user
        self.inbox.write(build_startup(_startup_parameters(database, user)))
        await prove_ourselves(self.inbox, user, password, self._keeper)
        await self._wait_ready()
        if database.connect_query:
            self.inbox.write(build_query(database.connect_query))
            await self._wait_ready()

    async def _wait_ready(self) -> None:
        """Everything up to the next ReadyForQuery."""
        assert self.inbox is not None
        for _ in range(MAX_GREETINGS):
            kind, body = await self.inbox.wait_message(MAX_MESSAGE)
            if kind == codes.READY_FOR_QUERY:
                if parse_ready(body) != codes.IDLE:
                    raise ProtocolError("the server is in a transaction right after login")
                return
            self._note(kind, body)
        raise ProtocolError("the server talks and talks and does not get ready")

    def _note(self, kind: int, body: bytes) -> None:
        server = self.server
        if kind == codes.PARAMETER_STATUS:
            name, value = parse_parameter_status(body)
            server.parameters[name] = value
        elif kind == codes.BACKEND_KEY_DATA:
            server.key = parse_backend_key(body)
            server.pid = int.from_bytes(server.key[:4], "big")
        elif kind == codes.ERROR_RESPONSE:
            raise ServerRefused(parse_error(body))
        elif kind not in _GREETINGS:
            raise ProtocolError(f"the server sends a message of type {chr(kind)!r} during login")

    def succeed(self) -> None:
        """From conversation to stream: the pool has one server more."""
        server, inbox = self.server, self.inbox
        assert inbox is not None
        pool = server.pool
        server.followed = pool.intern(
            {name: server.parameters[name] for name in pool.world.followed if name in server.parameters}
        )
        server.opening = None
        pool.prove(server.followed.items())
        local = inbox.transport.get_extra_info("sockname")
        where = f"{local[0]}:{local[1]}" if isinstance(local, tuple) else "unix"
        server._log().log(f"new connection to server (from {where})")
        inbox.hand_over_to(server)
        if server.state is OPENING:  # else it has said goodbye in the same breath
            pool.server_opened(server, dict(server.parameters))

    async def give_up(self, failure: LoginFailed | None) -> None:
        """The place is free again: now if nothing was connected, else when the server has hung up."""
        server = self.server
        try:
            if self.inbox is not None:
                self.inbox.close()
                async with asyncio.timeout(LAST_WORDS):
                    await self.inbox.wait_closed()
        except TimeoutError:
            assert self.inbox is not None
            self.inbox.transport.abort()
        finally:
            if failure is not None:
                server._log().log(f"closing because: {failure} (age={server.age:.0f}s)")
                server.pool.opening_failed(failure)
            server.pool.server_closed(server)


_GREETINGS = frozenset(
    {
        codes.NOTICE_RESPONSE,
        codes.NOTIFICATION_RESPONSE,
        codes.ROW_DESCRIPTION,
        codes.DATA_ROW,
        codes.COMMAND_COMPLETE,
        codes.EMPTY_QUERY_RESPONSE,
    }
)


def _startup_parameters(database: Database, user: str) -> dict[str, str]:
    said = {
        "client_encoding": database.client_encoding,
        "datestyle": database.datestyle,
        "timezone": database.timezone,
        "application_name": database.application_name,
    }
    return {"user": user, "database": database.server_dbname} | {name: value for name, value in said.items() if value}
