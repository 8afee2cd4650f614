"""
Our conversation with PostgreSQL: from a free place in a pool to a server that is ready for its first client.

Theory. One coroutine per server, started by the pool and owned by nobody else: find an address, connect, say who we
are, prove it, listen to what the server tells about itself, run `connect_query`. All of it stands under one deadline
(`server_connect_timeout`). A `connect_query` that fails is a line in the log, as in PgBouncer: a server without it
serves better than none. It ends in exactly one of two calls, `pool.server_opened` or `pool.opening_failed`; the
place in the pool is freed in any case, also when the task is cancelled. A tunnel (tunnel.py) comes in by the same
door, `Opener.enter`, and has no place in a pool.

Where there are several places (places.py) one opening tries one after another, each with a share of what is left of
the deadline, until one lets us in. A place that is not there, breaks off, says nothing, starts up or shuts down sends
us on to the next; one that refuses who we are ends the opening, since the others would say the same.

What the version of the protocol is, is found out once per address: we ask for the newest, PostgreSQL takes what it
knows, and a pooler that hangs up on us is asked again in the oldest and remembered.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from protocol import sqlstate
from protocol.errors import ProtocolError
from protocol.parameters import spelling
from protocol.startup import LATEST_MINOR
from proxy.approach import Approach
from proxy.auth.claim import Password
from proxy.auth.keys import KeyKeeper
from proxy.auth.prove import ServerRefused, TooNew
from proxy.config.entries import Database
from proxy.failing import LoginFailed
from proxy.inbox import PeerGone
from proxy.places import MAX_PLACES, Endpoint, Place, PlaceFailed, Places, sum_up
from proxy.pool import Pool
from proxy.resolver import LookupFailed
from proxy.server import Server
from proxy.server_tls import TlsFailed, find_tls
from proxy.states import OPENING, Closing
from proxy.tasks import Tasks
from proxy.tls import describe


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are towards a server: the parameters of the startup packet, and the proof, or several, one of which is
    right."""

    said: Mapping[str, str]
    passwords: tuple[Password, ...]


class Opener:
    """Opens servers for pools, and whatever else needs a connection to PostgreSQL in a pool's name."""

    def __init__(self, tasks: Tasks, keeper: KeyKeeper, world: Any) -> None:
        self._tasks = tasks
        self._keeper = keeper
        self._world = world  # for what a reload may change: proofs, find_hosts, tune_socket
        self.places = Places(world)
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
        return Approach(owner, self._keeper, os.path.basename(self._world.config.path))

    async def enter(self, approach: Approach, said: Mapping[str, str] | None = None, *, may_query: bool = True) -> None:
        """
        Connect and log in, in the name of the owner's pool. `said` are startup parameters beyond the pool's own.

        LoginFailed says what went wrong; what is connected by then, the caller hangs up.
        """
        owner = approach.owner
        pool: Pool = owner.pool
        limit, approach.began = pool.limits.server_connect_timeout, pool.now()
        until = None if limit is None else asyncio.get_running_loop().time() + limit
        with self._explained(approach):
            database, passwords = self._world.proofs.find_login(pool)
        login = Login(_startup_parameters(database, pool.user) | dict(said or {}), passwords)
        await self._reach(approach, database, login, until)
        if database.connect_query and may_query:
            with self._explained(approach):
                async with asyncio.timeout_at(until):
                    is_pooled = isinstance(owner, Server)
                    error = await (approach.prepare if is_pooled else approach.ask)(database.connect_query)
            if error is not None:
                words = f"connect_query failed: {error.severity or 'ERROR'} {error.message}"
                self._world.log.for_socket(owner.tag).warning(words)

    async def _reach(self, approach: Approach, database: Database, login: Login, until: float | None) -> None:
        """Log in at the first place that lets us in. LoginFailed: none does, and why, of each."""
        places = await self.places.find(approach.owner.pool, database)
        failures: list[tuple[Endpoint, LoginFailed]] = []
        for at, place in enumerate(places):
            share = self.places.find_share(place.endpoint, until, len(places) - at)
            try:
                await self._try(approach, place, database, login, share)
            except PlaceFailed as failure:
                failures.append((place.endpoint, failure))
                self.places.failed(place.endpoint, failure, approach.owner.pool.limits.server_login_retry)
            else:
                self.places.worked(place.endpoint, database)
                return
            await approach.start_over()
            if until is not None and asyncio.get_running_loop().time() >= until:
                break
        raise sum_up(failures)

    async def _try(
        self, approach: Approach, place: Place, database: Database, login: Login, until: float | None
    ) -> None:
        """Connect and log in there, and nowhere else. PlaceFailed: another place may do; LoginFailed: none will."""
        self.places.begin(place.endpoint)
        approach.head_for(place.endpoint)
        with self._explained(approach):
            if place.failure is not None:
                raise place.failure
            async with asyncio.timeout_at(until):
                await self._connect(approach, database)
                await self._log_in(approach, database, login)

    @contextlib.contextmanager
    def _explained(self, approach: Approach) -> Iterator[None]:
        """What goes wrong inside becomes a LoginFailed with words for those who wait; the log has it first."""
        try:
            yield
        except LookupFailed as failure:
            raise self._failed(approach, Closing.LOOKUP_FAILED, str(failure)) from None
        except TimeoutError as error:
            what = Closing.CONNECT_FAILED if str(error) else Closing.CONNECT_TIMEOUT  # the system's deadline, or ours
            raise self._failed(approach, what, _words_of(error) or "server_connect_timeout") from None
        except ServerRefused as refusal:
            raise self._refused(approach, refusal) from None
        except TlsFailed as error:
            raise self._failed(approach, Closing.TLS_FAILED, str(error)) from None
        except (OSError, UnicodeError, PeerGone, ProtocolError) as error:
            what = Closing.CONNECT_FAILED if approach.inbox is None else Closing.LOGIN_FAILED
            raise self._failed(approach, what, _words_of(error)) from None

    def _failed(self, approach: Approach, why: Closing, detail: str) -> PlaceFailed:
        words = f"{why.value}: {detail}"
        self._log_failure(approach, why, words)
        return PlaceFailed(sqlstate.CONNECTION_FAILURE, words)

    def _refused(self, approach: Approach, refusal: ServerRefused) -> LoginFailed:
        fields = refusal.fields
        words = f"{fields.severity or 'FATAL'} {refusal}"
        self._log_failure(approach, Closing.LOGIN_FAILED, f"server login failed: {words}")
        failure = PlaceFailed if fields.sqlstate == sqlstate.CANNOT_CONNECT_NOW else LoginFailed
        return failure(fields.sqlstate or sqlstate.CONNECTION_FAILURE, str(refusal), hint=fields.hint)

    def _log_failure(self, approach: Approach, why: Closing, words: str) -> None:
        """What exactly went wrong, and the line that scripts look for."""
        owner = approach.owner
        voice = self._world.log.for_socket(owner.tag)
        voice.warning(words)
        if self._world.settings.log_disconnections:
            voice.closing(why.value, owner.pool.now() - approach.began)

    async def _connect(self, approach: Approach, database: Database) -> None:
        inbox = await approach.owner.endpoint.connect(asyncio.get_running_loop())
        self._world.tune_socket(inbox.transport.get_extra_info("socket"))
        approach.connected(inbox)
        voice, settings = self._world.log.for_socket(approach.owner.tag), self._world.settings
        if settings.log_connections:
            voice.log(f"new connection to server (from {approach.describe()})")
        tls = find_tls(self._world.tls, settings, database)
        is_encrypted = tls is not None and approach.owner.endpoint.path is None and await approach.encrypt(tls)
        if is_encrypted and settings.log_connections:
            voice.log(f"SSL established: {describe(inbox.transport)}")

    async def _log_in(self, approach: Approach, database: Database, login: Login) -> None:
        """With one proof after another, where there are several, until one is right."""
        password, *others = login.passwords
        try:
            await self._prove(approach, database, login.said, password)
        except ServerRefused as refusal:
            if not others or refusal.fields.sqlstate != sqlstate.INVALID_PASSWORD:
                raise
            await approach.start_over()
            await self._connect(approach, database)
            await self._log_in(approach, database, Login(login.said, tuple(others)))
        else:
            self._world.proofs.worked(approach.owner.pool, password)

    async def _prove(self, approach: Approach, database: Database, said: Mapping[str, str], password: Password) -> None:
        """By the newest protocol we speak, and once more by the oldest where that is not understood."""
        endpoint: Endpoint = approach.owner.endpoint
        try:
            await approach.log_in(said, password, 0 if endpoint in self._old else LATEST_MINOR)
        except TooNew as words:
            await approach.start_over()
            await self._connect(approach, database)
            await approach.log_in(said, password, 0)
            if len(self._old) >= MAX_PLACES:
                self._old.clear()
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
            server.pool.opening_failed(failure)
        server.pool.server_closed(server)


def _words_of(error: BaseException) -> str:
    """The system's words for its errors; their number says nothing to anybody."""
    words = error.strerror if isinstance(error, OSError) else None
    return words or str(error)


def _startup_parameters(database: Database, user: str) -> dict[str, str]:
    said = {
        "client_encoding": database.client_encoding,
        "datestyle": database.datestyle,
        "timezone": database.timezone,
        "application_name": database.application_name,
    }
    return {"user": user, "database": database.server_dbname} | {name: value for name, value in said.items() if value}
