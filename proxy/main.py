"""
The proxy: a table of contents. Start, receive, reload, pause, drain, stop.

Theory. `Proxy` owns the world and passes parts of it down; there is no state at module level, and nobody imports
this file. What it holds is replaced as a whole (config, users), so whoever reads it sees one consistent moment.

A reload reads and checks everything first, off the event loop, and swaps in one breath. If anything is wrong the old
world stays as it is, and the caller gets every mistake with file and line.

Leaving is gentle by default: WAIT_FOR_CLIENTS serves those who are here until they go, WAIT_FOR_SERVERS lets
transactions end, IMMEDIATE does neither. A second wish to leave is immediate. Whoever is still connected at the end
is told so.
"""

import asyncio
import enum
import signal
import socket
from collections.abc import Callable
from typing import Any

from protocol import sqlstate
from protocol.backend import build_error
from protocol.errors import ProtocolError, Refused
from protocol.parameters import FOLLOWED, spelling
from protocol.startup import CancelRequest, Startup
from proxy import __version__, login
from proxy.admin.console import converse
from proxy.auth.keys import KeyKeeper
from proxy.auth.users import NOBODY, BadUserFile, Users, read_users
from proxy.cancel import Cancels
from proxy.clock import Clock
from proxy.config.entries import CONSOLES, Database, hosts_of
from proxy.config.ini import BadConfig, Config, read
from proxy.config.reload import Changes, compare
from proxy.connect import Opener
from proxy.inbox import Inbox, PeerGone
from proxy.janitor import Janitor
from proxy.listener import Arrival, Listener, open_sockets, tune
from proxy.log import Log
from proxy.notify import Notifier
from proxy.pool import LoginFailed, Pool
from proxy.pools import Pools
from proxy.server import Server
from proxy.states import Closing, Waiting
from proxy.stats import Stats
from proxy.tasks import Tasks

LAST_BREATH = 0.2  # seconds for the last words to leave the sockets
PREWARM_PATIENCE = 10.0  # seconds a start waits for min_pool_size before it takes clients anyway


class Leaving(enum.Enum):
    """How the proxy ends."""

    WAIT_FOR_CLIENTS = "wait for clients"
    WAIT_FOR_SERVERS = "wait for servers"
    IMMEDIATE = "immediate"


class Proxy:
    """The world. Built from a config that is known to be right."""

    def __init__(self, config: Config, users: Users, log: Log, clock: Clock | None = None) -> None:
        self.config = config
        self.settings = config.settings
        self.users = users
        self.log = log
        self.clock = clock or Clock()
        self.tasks = Tasks(log)
        self.keeper = KeyKeeper(config.settings.scram_iterations)
        self.spelling = spelling((*FOLLOWED, *config.settings.track_extra_parameters))
        self.followed = frozenset(self.spelling.values())
        self.pools = Pools(self, config)
        self.cancels = Cancels(self.tasks)
        self.cancels.timeout = config.settings.cancel_wait_timeout
        self.listeners: list[Listener] = []
        self.notifier = Notifier()
        self.leaving: Leaving | None = None
        self.visitors = 0  # clients that are still logging in; the console's are not counted
        self.started_at = self.clock.wall()
        self._opener = Opener(self.tasks, self.keeper, self)
        self._last_number = 0
        self._gone = asyncio.Event()
        self._reloading = asyncio.Lock()

    # Start.

    async def start(self, sockets: list[socket.socket] | None = None) -> None:
        """Pre-warm, listen, say so. `sockets` are inherited ones; else those of the settings are opened (OSError)."""
        asyncio.get_running_loop().set_exception_handler(self.tasks.on_loop_error)
        opened = sockets or open_sockets(self.settings)
        await self.keeper.warm(self.users.secrets.items())
        await self._prewarm()
        for each in opened:
            self._listen(each, self.arrive)
        self.tasks.start(Janitor(self).run(), name="janitor")
        self.log.log(f"process up: pgshuttle {__version__}")
        self.notifier.ready()

    def _listen(self, listening: socket.socket, arrive: Arrival) -> None:
        listener = Listener(listening, arrive, self.log)
        self.listeners.append(listener)
        self.log.log(f"listening on {listener}")

    async def _prewarm(self) -> None:
        """Servers that `min_pool_size` wants are open before the first client comes, if they can be."""
        pools = self.pools.prewarm(self._can_log_in, self.users.secrets)
        for pool in pools:
            while pool.size < pool.limits.min_pool_size and pool.find_obstacle() is None:
                pool.open_one()
        openings = [server.opening for pool in pools for place in pool.places for server in place if server.opening]
        if openings:
            await asyncio.wait(openings, timeout=PREWARM_PATIENCE)
        for pool in pools:
            ready, wanted = pool.size, pool.limits.min_pool_size
            words = f"{pool}: {ready} of {wanted} server connections open and authenticated"
            self.log.log(words if pool.failure is None else f"{words}: {pool.failure}")

    def _can_log_in(self, database: str, user: str) -> bool:
        entry = self.config.find_database(database)
        return entry is not None and (entry.password is not None or self.users.password_of(user) is not None)

    # Clients arrive.

    def arrive(self, connected: socket.socket, address: tuple[str, int]) -> None:
        tune(connected, self.settings)
        self.tasks.start(self._serve(connected, address), name="login")

    async def _serve(self, connected: socket.socket, address: tuple[str, int]) -> None:
        """One client, from its first byte to its first query; or one console, to its end."""
        try:
            _, inbox = await asyncio.get_running_loop().connect_accepted_socket(Inbox, connected)
        except OSError:
            connected.close()
            return
        visit = _Visit(self, inbox, address)
        try:
            await visit.serve()
        finally:
            visit.finish()

    def client_arrived(self, client: Any) -> None:
        self._last_number += 1
        client.number = self._last_number
        client.pool.clients.add(client)
        client.pool.stats.client_login_count += 1
        self.cancels.register(client)

    def client_left(self, client: Any) -> None:
        client.pool.clients.discard(client)
        self.cancels.forget(client)
        self.check_drained()

    @property
    def client_count(self) -> int:
        """Clients and those who want to become one; the console's do not count."""
        return len(self.cancels) + self.visitors

    # What pools ask of the world.

    def open_server(self, pool: Pool) -> Server:
        return self._opener.open_server(pool)

    def find_obstacle(self, pool: Pool) -> Waiting | None:
        return Waiting.SHUTDOWN if self._gone.is_set() else self.pools.find_obstacle(pool)

    def make_room(self, pool: Pool, obstacle: Waiting) -> None:
        self.pools.make_room(pool, obstacle)

    def room_made(self, pool: Pool) -> None:
        self.pools.room_made(pool)
        self.check_drained()

    def issue_cancel(self, server: Server) -> None:
        self.cancels.issue(server)

    def find_login(self, pool: Pool) -> tuple[Database, Any]:
        """Where `pool` connects to, and the password for it. LoginFailed when the database is gone."""
        database = self.config.find_database(pool.database)
        if database is None:
            raise OSError(f"database {pool.database} is no longer configured")
        password = database.password if database.password is not None else self.users.password_of(pool.user)
        return database, password

    def find_hosts(self, database: Database) -> tuple[str, ...]:
        return hosts_of(database, self.settings.unix_socket_dir)

    def tune_socket(self, connected: socket.socket) -> None:
        tune(connected, self.settings)

    # Reload.

    async def reload(self) -> list[str]:
        """Read the files again. Returns every mistake, and then nothing has changed; none: the new world is in force."""
        async with self._reloading:
            self.notifier.reloading()
            try:
                return await self._reload()
            finally:
                self.notifier.ready()

    async def _reload(self) -> list[str]:
        try:
            config = await asyncio.to_thread(read, self.config.path)
            users = await asyncio.to_thread(read_users_of, config)
        except BadConfig as bad:
            return self._refuse_reload([str(mistake) for mistake in bad.mistakes])
        except BadUserFile as bad:
            return self._refuse_reload(list(bad.mistakes))
        changes = compare(self.config, config)
        await self.keeper.warm(users.secrets.items())
        self._swap(changes, users)
        return []

    def _refuse_reload(self, mistakes: list[str]) -> list[str]:
        for mistake in mistakes:
            self.log.error(mistake)
        self.log.error("reload failed, nothing has changed")
        return mistakes

    def _swap(self, changes: Changes, users: Users) -> None:
        self.config = changes.effective
        self.settings = self.config.settings
        self.users = users
        self.keeper.iterations = self.settings.scram_iterations
        self.cancels.timeout = self.settings.cancel_wait_timeout
        self.pools.reconcile(changes)
        for warning in self.config.warnings:
            self.log.warning(str(warning))
        for change in changes.restart:
            self.log.warning(f"{change}: needs a restart, the old value stays in force")
        self.log.log(f"reloaded: {changes.summary()}")

    def on_hangup(self) -> None:
        self.log.log("got SIGHUP, re-reading config")
        self.log.reopen()
        self.tasks.start(self.reload(), name="reload")

    # Pause and resume.

    def on_pause(self) -> None:
        self.log.log("got SIGUSR1, pausing all activity")
        self.pools.pause(None)

    def on_resume(self) -> None:
        if self.leaving is not None:
            self.log.log("got SIGUSR2 while shutting down, ignoring")
            return
        self.log.log("got SIGUSR2, continuing from PAUSE")
        self.pools.resume(None)

    # Leave.

    def leave(self, how: Leaving) -> None:
        """Stop taking clients, and end as `how` says. A second call is immediate."""
        if self.leaving is not None:
            how = Leaving.IMMEDIATE
        self.leaving = how
        self.log.log(f"shutting down: {how.value}")
        self.notifier.stopping()
        for listener in self.listeners:
            listener.close()
        self.listeners = []
        if how is Leaving.WAIT_FOR_SERVERS:
            self.pools.pause(None)
        self.check_drained()

    def check_drained(self) -> None:
        """Is everything gone that a gentle end waits for?"""
        if self.leaving is Leaving.IMMEDIATE:
            self._gone.set()
        elif self.leaving is Leaving.WAIT_FOR_CLIENTS and self.client_count == 0:
            self._gone.set()
        elif self.leaving is Leaving.WAIT_FOR_SERVERS and all(pool.is_quiet for pool in self.pools):
            self._gone.set()

    async def wait_gone(self) -> None:
        """Until somebody has told us to leave and nothing holds us back; then say goodbye to everyone."""
        await self._gone.wait()
        for pool in self.pools:
            pool.close_all(Closing.SHUTDOWN)
        await asyncio.sleep(LAST_BREATH)
        await self.tasks.cancel_all()
        self.keeper.close()
        self.log.log("process down")

    # Saying how it goes.

    def log_stats(self) -> None:
        """The `stats:` line, for the log and for systemd."""
        total = sum_averages(self.pools)
        line = (
            f"stats: {total['xact_count']:.0f} xacts/s, {total['query_count']:.0f} queries/s,"
            f" {total['client_parse_count']:.0f} client parses/s, {total['server_parse_count']:.0f} server parses/s,"
            f" {total['bind_count']:.0f} binds/s, {total['client_login_count']:.0f} client logins/s,"
            f" in {total['received']:.0f} B/s, out {total['sent']:.0f} B/s, xact {total['xact_time'] * 1e6:.0f} us,"
            f" query {total['query_time'] * 1e6:.0f} us, wait {total['wait_time'] * 1e6:.0f} us"
        )
        self.notifier.status(line)
        if self.settings.log_stats:
            self.log.log(line)


class _Visit:
    """One connection until it is a client: what went wrong is said here, to the visitor and to the log."""

    def __init__(self, proxy: Proxy, inbox: Inbox, address: tuple[str, int]) -> None:
        self.proxy = proxy
        self.inbox = inbox
        self.address = address
        self.startup: Startup | None = None
        self.is_counted = False
        self.is_handed_over = False

    async def serve(self) -> None:
        try:
            async with asyncio.timeout(self.proxy.settings.client_login_timeout):
                visitor = await self._log_in()
            if visitor is not None:
                await converse(self.inbox, self.proxy, visitor, self.address)
        except Refused as no:
            self._refuse(no.sqlstate, no.sentence, no.detail, no.hint)
        except LoginFailed as failed:
            self._refuse(failed.sqlstate, failed.sentence)
        except ProtocolError as error:
            self._refuse(sqlstate.PROTOCOL_VIOLATION, str(error))
        except TimeoutError:
            self._refuse(sqlstate.PROTOCOL_VIOLATION, "client_login_timeout")
        except PeerGone as gone:
            self._log(self.proxy.settings.log_disconnections, f"closing because: client unexpected eof ({gone})")

    async def _log_in(self) -> login.Visitor | None:
        """A visitor who wants the console; None when everything is done already."""
        proxy, inbox = self.proxy, self.inbox
        request = await login.wait_startup(inbox)
        if isinstance(request, CancelRequest):
            proxy.cancels.request(request.key)
            return None
        self.startup = request
        is_console = request.database in CONSOLES
        if not is_console:
            self._count()
            login.check_max_clients(proxy)
        visitor = await login.wait_visitor(inbox, proxy, request)
        self._log(
            proxy.settings.log_connections,
            f"login attempt: db={visitor.database} user={visitor.user} tls=no replication=no",
        )
        if is_console:
            return visitor
        client = await login.welcome(inbox, proxy, visitor, self.address)
        self._discount()
        self.is_handed_over = True
        inbox.hand_over_to(client)
        return None

    def _count(self) -> None:
        self.is_counted = True
        self.proxy.visitors += 1

    def _discount(self) -> None:
        if self.is_counted:
            self.is_counted = False
            self.proxy.visitors -= 1

    def finish(self) -> None:
        self._discount()
        if not self.is_handed_over:
            self.inbox.close()
            self.proxy.check_drained()

    def _refuse(self, state: str, sentence: str, detail: str = "", hint: str = "") -> None:
        if state in (sqlstate.INVALID_PASSWORD, sqlstate.INVALID_AUTHORIZATION) and self.startup is not None:
            self._log(True, f"login failed: db={self.startup.database} user={self.startup.user}")
        self._log(self.proxy.settings.log_pooler_errors, f"pooler error: {sentence}")
        self._log(self.proxy.settings.log_disconnections, f"closing because: {sentence} (age=0s)")
        self.inbox.write(build_error("FATAL", state, sentence, detail=detail, hint=hint))

    def _log(self, wanted: bool, text: str) -> None:
        if wanted:
            who = f"{self.startup.database}/{self.startup.user}" if self.startup else "(nodb)/(nouser)"
            self.proxy.log.log(f"C-{id(self):#x}: {who}@{self.address[0]}:{self.address[1]} {text}")


def read_users_of(config: Config) -> Users:
    """The users of the configured auth_file; nobody when none is named. BadUserFile."""
    return read_users(config.settings.auth_file) if config.settings.auth_file else NOBODY


def sum_averages(pools: Pools) -> dict[str, float]:
    """Over all pools: per second for counts and bytes, seconds per event for times."""
    earlier, later, period = Stats(), Stats(), 0.0
    for pool in pools:
        earlier.add(pool.averages.earlier)
        later.add(pool.averages.later)
        period = max(period, pool.averages.period)
    averages = type(pool.averages)(earlier, later, period) if len(pools) else None
    return {name: averages.of(name) if averages else 0.0 for name in STAT_NAMES}


STAT_NAMES = (
    "xact_count", "query_count", "client_parse_count", "server_parse_count", "bind_count", "client_login_count",
    "received", "sent", "xact_time", "query_time", "wait_time",
)  # fmt: skip


def install_signals(proxy: Proxy) -> None:
    """HUP reload, TERM wait for clients, INT wait for servers, QUIT at once, USR1 pause, USR2 resume."""
    loop = asyncio.get_running_loop()
    handlers: dict[signal.Signals, Callable[[], None]] = {
        signal.SIGHUP: proxy.on_hangup,
        signal.SIGTERM: lambda: proxy.leave(Leaving.WAIT_FOR_CLIENTS),
        signal.SIGINT: lambda: proxy.leave(Leaving.WAIT_FOR_SERVERS),
        signal.SIGQUIT: lambda: proxy.leave(Leaving.IMMEDIATE),
        signal.SIGUSR1: proxy.on_pause,
        signal.SIGUSR2: proxy.on_resume,
    }
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
