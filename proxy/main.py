"""
The proxy: a table of contents. Start, receive, reload, pause; how it ends is in draining.py.

Theory. `Proxy` owns the world and passes parts of it down; there is no state at module level, and nobody imports
this file. What it holds is replaced as a whole (config, users), so whoever reads it sees one consistent moment: see
reloading.py.
"""

import asyncio
import socket
from typing import Any

from protocol import sqlstate
from protocol.parameters import FOLLOWED, spelling
from proxy.auth.gate import Gate
from proxy.auth.keys import KeyKeeper
from proxy.auth.lookup import Lookups
from proxy.auth.mock_key import find_mock_key
from proxy.auth.outside import Outside
from proxy.auth.proofs import Proofs, name_unwarmed
from proxy.auth.users import Users
from proxy.balancer import receive
from proxy.busy_poll import set_limit
from proxy.cancel import Cancels
from proxy.clock import Clock
from proxy.config.entries import Database, hosts_of
from proxy.config.ini import Config
from proxy.connect import Opener
from proxy.daemon import PidFile, describe_build
from proxy.draining import Draining
from proxy.express import Express
from proxy.hub import Hub
from proxy.inherit import Inheritance
from proxy.janitor import Janitor
from proxy.kin import Kin
from proxy.listener import Arrival, Listener, open_sockets, tune, tune_all, tune_buffers
from proxy.log import UNIX, Address, Level, Log
from proxy.notify import Notifier
from proxy.outbox import AT_THE_DOOR, Crowd, Outbox
from proxy.peers import Peers
from proxy.pool import Pool
from proxy.pools import Pools
from proxy.reloading import Reloader
from proxy.resolver import Resolver
from proxy.server import Server
from proxy.slices import Slices
from proxy.states import Leaving, Waiting
from proxy.stats import as_fields, describe, sum_averages
from proxy.strangers import Strangers
from proxy.suspend import Suspension
from proxy.tasks import Tasks
from proxy.tls import Contexts, build_contexts
from proxy.tunnel import Far, Tunnel
from proxy.userfile import UserFile

MAX_FOUND = 1000  # names of databases remembered, known or not
PREWARM_PATIENCE = 10.0  # seconds a start waits for min_pool_size before it takes clients anyway


class Proxy(Draining):
    """The world. Built from a config that is known to be right."""

    def __init__(
        self,
        config: Config,
        users: Users,
        log: Log,
        clock: Clock | None = None,
        *,
        verbosity: int = 0,
        tls: Contexts | None = None,
    ) -> None:
        self._verbosity = verbosity  # the command line's, to which the file's is added
        self.config = config
        self.settings = config.settings
        self.users = users
        self.tls = tls or build_contexts(config.settings)
        self.log = log
        log.level = self.find_level()
        self.clock = clock or Clock()
        self.tasks = Tasks(log)
        self.outbox, self.slices = Outbox(warn=log.warning), Slices()
        self._find_ways_in()
        self.spelling = spelling((*FOLLOWED, *config.settings.track_extra_parameters))
        self.followed = frozenset(self.spelling.values())
        self.pools = Pools(self, config)
        self.peers = Peers(self)
        self.cancels = Cancels(self.tasks, self.peers)
        self.cancels.timeout = config.settings.cancel_wait_timeout
        self.listeners: list[Listener] = []
        self.notifier = Notifier()
        self.pid_file: PidFile | None = None
        self.kin = Kin(self)
        self.cancels.relay = self.kin.cancel
        self.is_activated = False  # systemd opened our sockets
        self.leaving: Leaving | None = None
        self.doorsteps: dict[Any, None] = {}  # those who are not yet heard by anybody else, in the order they came
        self.crowd = Crowd(self.doorsteps, AT_THE_DOOR, self.outbox)
        self.strangers = Strangers(self)
        self.express = Express(self)
        self.callers = 0  # those whose conversation is not over, the console's among them
        self.visitors = 0  # clients that are still logging in; the console's are not counted
        self.consoles: dict[Any, None] = {}  # operators at the console, in the order they came
        self.disabled: set[str] = set()  # databases that take no new clients (DISABLE)
        self.started_at = self.clock.wall()
        self.resolver = Resolver(self.tasks, self)
        self.opener = Opener(self.tasks, self.keeper, self)
        self.last_number = 0
        self._found: dict[str, Database | None] = {}
        self._gone = asyncio.Event()
        self.reloader = Reloader(self)
        self.suspension = Suspension(self)

    def _find_ways_in(self) -> None:
        """How it is decided who somebody is, and how we show PostgreSQL who we are."""
        mock_key = find_mock_key(self.settings.client_tls_key_file)
        self.keeper = KeyKeeper(self.settings.scram_iterations, mock_key=mock_key)
        self.gate = Gate(self)
        self.outside = Outside(self)
        self.lookups = Lookups(self)
        self.proofs = Proofs(self)

    # Start.

    async def start(self, sockets: list[socket.socket] | None = None, inheritance: Inheritance | None = None) -> None:
        """Pre-warm, listen, say so. `sockets` are inherited ones; else those of the settings are opened (OSError)."""
        asyncio.get_running_loop().set_exception_handler(self.tasks.on_loop_error)
        set_limit(self)
        if inheritance is not None:
            inheritance.prepare(self)
        opened = sockets or open_sockets(self.settings, warn=self.log.warning)
        await self.keeper.warm(self.users.secrets.items())
        await self._prewarm()
        if self.leaving is not None:  # told to end before it began, or it may not take over any more
            for each in opened:
                each.close()
            return
        for each in opened:
            self._listen(each, self.arrive)
        self.tasks.start(Janitor(self).run(), name="janitor")
        self.tasks.start(self.resolver.run(), name="resolver")
        self.tasks.start(UserFile(self).run(), name="auth_file")
        self.log.log(f"process up: {', '.join(describe_build())}")
        self.notifier.ready()
        if inheritance is not None:
            inheritance.begin()

    def _listen(self, listening: socket.socket, arrive: Arrival) -> None:
        tune_all(listening, self.settings)
        listener = Listener(listening, arrive, self.log, self.settings.listen_port)
        self.listeners.append(listener)
        self.log.log(f"listening on {listener}")

    async def _prewarm(self) -> None:
        """Servers that `min_pool_size` wants are open before the first client comes, if they can be."""
        pools = self.find_warm()
        for pool in pools:
            while pool.size < pool.limits.min_pool_size and pool.find_obstacle() is None:
                pool.open_one()
        openings = [server.opening for pool in pools for place in pool.places for server in place if server.opening]
        if openings:
            await asyncio.wait(openings, timeout=PREWARM_PATIENCE)
        for pool in pools:
            ready, wanted = pool.size, pool.limits.min_pool_size
            words = f"{pool}: {ready} of {wanted} server connections open and authenticated"
            if pool.failure is None:
                self.log.log(words)
            else:
                self.log.warning(f"{words}: {pool.failure}")
        if line := name_unwarmed(self.config, self.users):
            self.log.log(line)

    def find_warm(self) -> list[Pool]:
        """The pools that are filled before their first client; the janitor keeps them so."""
        users = self.users
        return self.pools.prewarm([user for user in users.secrets if users.password_of(user) is not None])

    # Clients arrive.

    def arrive(self, connected: socket.socket, address: Address) -> None:
        if self.settings.tcp_socket_buffer and address.host != UNIX:
            tune_buffers(connected, self.settings)
        receive(self, connected, address)

    def client_arrived(self, client: Any) -> None:
        client.number = self._next_number()
        client.pool.clients.add(client)
        client.pool.stats.client_login_count += 1
        self.cancels.register(client)

    def client_left(self, client: Any) -> None:
        client.pool.clients.discard(client)
        self.cancels.forget(client)
        self.check_drained()

    def tunnel_wanted(self, tunnel: Tunnel) -> None:
        tunnel.number, tunnel.far_number = self._next_number(), self._next_number()
        self.pools.tunnels[tunnel] = None

    def tunnel_opened(self, tunnel: Tunnel) -> None:
        tunnel.pool.stats.client_login_count += 1
        self.cancels.register(tunnel)

    def tunnel_left(self, tunnel: Tunnel) -> None:
        """Its client is gone."""
        self.cancels.forget(tunnel)
        self.check_drained()

    def tunnel_closed(self, tunnel: Tunnel) -> None:
        """Its connection to PostgreSQL is gone too."""
        del self.pools.tunnels[tunnel]
        self.room_made(tunnel.pool)

    @property
    def client_count(self) -> int:
        """Clients and those who want to become one; the console's do not count."""
        return len(self.cancels) - len(self.consoles) + self.visitors

    def console_arrived(self, session: Any) -> None:
        session.number = self._next_number()
        self.consoles[session] = None
        self.cancels.register(session)

    def console_left(self, session: Any) -> None:
        del self.consoles[session]
        self.cancels.forget(session)

    def _next_number(self) -> int:
        self.last_number += 1
        return self.last_number

    # What pools ask of the world.

    @property
    def is_suspended(self) -> bool:
        return self.suspension.is_on

    def open_server(self, pool: Pool) -> Server:
        server = self.opener.open_server(pool)
        server.number = self._next_number()
        return server

    def find_obstacle(self, pool: Pool) -> Waiting | None:
        return Waiting.SHUTDOWN if self._gone.is_set() else self.pools.find_obstacle(pool)

    def make_room(self, pool: Pool, obstacle: Waiting) -> None:
        self.pools.make_room(pool, obstacle)

    def room_made(self, pool: Pool) -> None:
        self.pools.room_made(pool)
        self.check_drained()

    def schema_changed(self, pool: Pool) -> None:
        self.pools.schema_changed(pool)
        self.kin.schema_changed(pool)

    def roles_changed(self) -> None:
        self.pools.roles_changed()

    def database_made(self) -> None:
        """Or renamed: who was told that there is none of that name may ask again."""
        for pool in self.pools:
            if pool.failure is not None and pool.failure.sqlstate == sqlstate.INVALID_CATALOG:
                pool.retry_at = 0.0

    def servers_in(self, databases: set[str]) -> list[Server]:
        return self.pools.servers_in(databases)

    def find_hub(self, pool: Pool) -> Hub:
        return self.pools.find_hub(pool)

    def issue_cancel(self, server: Server | Far) -> None:
        self.cancels.issue(server)

    def find_database(self, name: str) -> Database | None:
        """The entry that serves `name`, also by `*`; remembered, since a copy of an entry costs 30 us."""
        if name not in self._found:
            if len(self._found) >= MAX_FOUND:
                self._found.clear()
            self._found[name] = self.config.find_database(name)
        return self._found[name]

    def forget_found(self) -> None:
        """The entries have changed."""
        self._found.clear()

    def find_hosts(self, database: Database) -> tuple[str, ...]:
        return hosts_of(database, self.settings.unix_socket_dir)

    def hosts_in_use(self) -> set[str]:
        return self.pools.hosts_in_use()

    def addresses_gone(self, host: str, gone: set[str]) -> None:
        self.pools.retire_addresses(host, gone)

    def tune_socket(self, connected: socket.socket) -> None:
        if connected.family != socket.AF_UNIX:
            tune(connected, self.settings)

    # Reload.

    async def reload(self) -> list[str]:
        """Read the files again. Returns every mistake; then nothing has changed. Empty: the new world is in force."""
        return await self.reloader.reload()

    def find_level(self) -> Level:
        """How much the log tells: the command line's wish and the file's together."""
        return Level(min(Level.LOG + self._verbosity + self.settings.verbose, Level.NOISE))

    def on_hangup(self) -> None:
        self.log.log("got SIGHUP, re-reading config")
        self.tasks.start(self.reload(), name="reload")

    # Pause and resume.

    def on_pause(self) -> None:
        if self.is_suspended or self.pools.is_paused:
            self.log.log("got SIGUSR1, but already paused/suspended")
            return
        self.log.log("got SIGUSR1, pausing all activity")
        self.pools.pause(None)

    def on_resume(self) -> None:
        if self.leaving not in (None, Leaving.SUCCEEDED):
            self.log.log("got SIGUSR2 while shutting down, ignoring")
            return
        if self.is_suspended:
            self.log.log("got SIGUSR2, continuing from SUSPEND")
            self.suspension.end()
        elif self.pools.is_paused:
            self.log.log("got SIGUSR2, continuing from PAUSE")
            self.pools.resume(None)
        else:
            self.log.log("got SIGUSR2, but not paused/suspended")

    # Saying how it goes.

    def log_stats(self) -> None:
        """The `stats:` line, for the log and for systemd."""
        averages = sum_averages(pool.averages for pool in self.pools)
        line = describe(averages)
        self.notifier.status(line)
        if self.settings.log_stats:
            self.log.log(line, as_fields(averages))
