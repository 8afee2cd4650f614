"""
All pools: which one serves whom, the limits they share, and what a reload means for them.

Theory. A pool is made when the first client of a (database, user) comes, or before any client where `min_pool_size`
wants servers and we know how to log in. It stays until its database is gone from the configuration.

A pool whose clients listen has a hub, and that has a connection in a pool of its own beside this one (`ear.py`).
Whoever goes through all pools meets these too, and those that run auth_query (`lookup_pool.py`); `serving` are those
that clients are served from. A connection that listens stays for long, so such connections never take the last place
under a limit that spans pools.

Some limits span pools: servers per database, servers per user. They are counted, not tallied: a sum over the few
pools concerned, asked only when a server is about to be opened, so no counter can drift. When such a limit stands
in the way, an idle server of another pool is closed to make room (`make_room`). When a place becomes free, the pool
whose client has waited longest has the first choice (`room_made`), wherever the place was.

Tunnels (tunnel.py) are in no pool: what they carry is one client's for good, so `pool_size` says nothing about them.
But they are connections of their database and user, and count as such from the moment one is wanted: nobody grows into
the place it waits for, and it is opened when those counted before it leave room.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any
from weakref import WeakSet

from protocol.parameters import IDENTITY, UNSURE
from proxy.config.entries import FALLBACK, Database
from proxy.config.ini import Config
from proxy.config.limits import Limits, resolve
from proxy.config.reload import Changes
from proxy.contracts import World
from proxy.ear import EarPool
from proxy.elders import Elders
from proxy.hub import Hub
from proxy.lookup_pool import LookupPool
from proxy.pool import Pool
from proxy.room import doom, evict, is_last_place
from proxy.states import CLOSING, IDLE, LINKED, USED, Closing, PoolState, Waiting

STARVING = 1.0  # seconds; after that a busy server of another pool is asked to leave at its next release


class Pools:
    """Every pool, by (database, user)."""

    def __init__(self, world: World, config: Config) -> None:
        self._world = world
        self._config = config
        self._pools: dict[tuple[str, str], Pool] = {}
        self._hubs: dict[Pool, Hub] = {}
        self._lookups: dict[tuple[str, str], LookupPool] = {}
        self._by_database: dict[str, list[Pool]] = defaultdict(list)
        self._by_user: dict[str, list[Pool]] = defaultdict(list)
        self._deserted: dict[Pool, float] = {}  # those without a client, and since when
        self.tunnels: dict[Any, None] = {}  # wanted, open, or not yet hung up by PostgreSQL, in the order they came
        self.dying: list[Pool] = []  # no longer in the configuration, their last servers still saying goodbye
        self.paused: set[str] = set()  # databases; a pool made later is paused too
        self.is_paused = False  # all of them
        self.passing: WeakSet[Pool] = WeakSet()  # of users that no file names
        self.elders = Elders()  # what a process before us still has

    def __iter__(self) -> Iterator[Pool]:
        """All, those of hubs and of auth_query behind the others."""
        ears = (hub.ear.pool for hub in self._hubs.values())
        return iter([*self._pools.values(), *ears, *self._lookups.values()])

    def serving(self) -> list[Pool]:
        """Those that clients are served from."""
        return list(self._pools.values())

    def keys(self) -> list[tuple[str, str]]:
        """(database, user) of those that clients are served from."""
        return list(self._pools)

    def __len__(self) -> int:
        return len(self._pools)

    def find(self, database: Database, client_user: str) -> Pool:
        """The pool that serves `client_user` in `database`; made if there is none yet."""
        key = (database.name, database.user or client_user)
        pool = self._pools.get(key)
        if pool is None or pool.state is PoolState.DYING:
            pool = self._make(*key)
        self._deserted.pop(pool, None)
        return pool

    def find_old(self, database: Database, client_user: str) -> Pool | None:
        """The same, if there is one."""
        return self._pools.get((database.name, database.user or client_user))

    def _make(self, database: str, user: str) -> Pool:
        pool = Pool(database, user, resolve(self._config, database, user), self._world)
        if database not in self._config.databases and not self._by_database[database]:
            self._world.log.log(f"registered new auto-database: db={database}")
        self._pools[database, user] = pool
        self._enter(pool)
        return pool

    def lookups(self) -> dict[tuple[str, str], LookupPool]:
        """Those that run auth_query, by (database, user)."""
        return dict(self._lookups)

    def find_lookup(self, database: str, user: str) -> LookupPool:
        """The pool that runs auth_query in `database` as `user`; made when the first user is asked for."""
        pool = self._lookups.get((database, user))
        if pool is None:
            limits = resolve(self._config, database, user)
            pool = self._lookups[database, user] = LookupPool(database, user, limits, self._world)
            self._enter(pool)
        return pool

    def _enter(self, pool: Pool) -> None:
        if self.is_pausing(pool.database):
            pool.state = PoolState.PAUSED
        self._by_database[pool.database].append(pool)
        self._by_user[pool.user].append(pool)

    def hubs(self) -> list[Hub]:
        return list(self._hubs.values())

    def find_hub(self, pool: Pool) -> Hub:
        """The hub of `pool`'s clients; made when the first of them listens."""
        hub = self._hubs.get(pool)
        if hub is None:
            hub = self._hubs[pool] = Hub(pool)
            self._enter(hub.ear.pool)
        return hub

    def of_database(self, database: str) -> list[Pool]:
        return list(self._by_database.get(database, ()))

    def databases(self) -> list[str]:
        """Names of databases that have a pool."""
        return [name for name, pools in self._by_database.items() if pools]

    # Limits over several pools.

    def count_servers(self, pools: Sequence[Pool], before: Any = None) -> int:
        """Connections to PostgreSQL of these pools, tunnels included: all, or those that came before that tunnel."""
        earlier = takewhile(lambda each: each is not before, self.tunnels)
        return sum(pool.size for pool in pools) + sum(each.pool in pools for each in earlier)

    def tunnels_of(self, pool: Pool) -> list[Any]:
        return [tunnel for tunnel in self.tunnels if tunnel.pool is pool]

    def find_obstacle(self, pool: Pool, before: Any = None) -> Waiting | None:
        """Which limit over several pools forbids one more server of `pool`, or the tunnel `before`, which has a number
        in the line already."""
        limits = pool.limits
        by_database, by_user = self._by_database[pool.database], self._by_user[pool.user]
        if isinstance(pool, EarPool) and (
            is_last_place(limits.max_db_connections, by_database) or is_last_place(limits.max_user_connections, by_user)
        ):
            return Waiting.NO_PLACE_TO_LISTEN
        elders = self.elders
        if self._is_full(limits.max_db_connections, by_database, before, elders.of_database(pool.database)):
            return Waiting.DATABASE_LIMIT
        if self._is_full(limits.max_user_connections, by_user, before, elders.of_user(pool.user)):
            return Waiting.USER_LIMIT
        return Waiting.ELDERS if before is None and elders.is_in_the_way(pool) else None

    def _is_full(self, limit: int | None, pools: Sequence[Pool], before: Any, elders: int) -> bool:
        return limit is not None and self.count_servers(pools, before) + elders >= limit

    def make_room(self, pool: Pool, obstacle: Waiting) -> None:
        """`pool` may not grow because of `obstacle`: have an idle server of a neighbour leave, if there is one."""
        evict([each for each in self.sharers(pool, obstacle) if each is not pool])

    def make_room_for_tunnel(self, pool: Pool, obstacle: Waiting, waited: float) -> None:
        """As for a pool, but its own servers may go as well; after STARVING also a busy one, at its next release."""
        sharers = self.sharers(pool, obstacle)
        evict(sharers)
        if waited >= STARVING:
            doom(sharers)

    def sharers(self, pool: Pool, obstacle: Waiting) -> list[Pool]:
        """Those that `obstacle` limits together with `pool`, itself among them."""
        if obstacle is Waiting.DATABASE_LIMIT:
            return self._by_database[pool.database]
        return self._by_user[pool.user] if obstacle is Waiting.USER_LIMIT else []

    def relieve(self, pool: Pool) -> None:
        """Those who wait in `pool` have waited long, kept out by a neighbour whose servers are never idle."""
        obstacle = pool.find_obstacle()
        if pool.longest_wait < STARVING or obstacle is None:
            return
        self.make_room(pool, obstacle)
        doom([each for each in self.sharers(pool, obstacle) if each is not pool])

    def room_made(self, pool: Pool) -> None:
        """A server of `pool` is gone: whoever has waited longest may open one in its place."""
        self._bury(pool)
        concerned = {id(pool): pool}
        if pool.limits.max_db_connections is not None:
            concerned |= {id(each): each for each in self._by_database[pool.database]}
        if pool.limits.max_user_connections is not None:
            concerned |= {id(each): each for each in self._by_user[pool.user]}
        for each in sorted(concerned.values(), key=lambda each: each.longest_wait, reverse=True):
            each.grow()

    # What statements do to databases.

    def schema_changed(self, pool: Pool) -> None:
        """DDL was seen in `pool`: whoever parses anew, in any pool of that database, gets fresh statements."""
        place = self._place_of(pool)
        for each in self:
            if each is pool or self._place_of(each) == place:
                each.generation += 1

    def roles_changed(self) -> None:
        """A role may have another name by now: servers that were told one are told again before they serve anybody."""
        for server in (server for pool in self for state in pool.places for server in state):
            if not server.followed.keys().isdisjoint(IDENTITY):
                told = {name: UNSURE for name in IDENTITY if name in server.followed}
                server.followed = server.pool.intern({**server.followed, **told})

    def servers_in(self, databases: set[str]) -> list[Any]:
        """Those connected to databases that PostgreSQL knows under these names."""
        found = [pool for pool in self if (place := self._place_of(pool)) is not None and place[-1] in databases]
        return [server for pool in found for state in pool.places for server in state]

    def _place_of(self, pool: Pool) -> tuple[object, ...] | None:
        """Which database of which server it is about, as PostgreSQL sees it."""
        database = self._config.find_database(pool.database)
        return None if database is None else (database.hosts, database.port, database.server_dbname)

    # What an administrator does, to one database or to all (None).

    def pause(self, database: str | None) -> list[Pool]:
        """No server is handed out from here on. Returns the pools, for `wait_quiet`."""
        self._mark(database, paused=True)
        return self._each(database, lambda pool: pool.pause())

    def resume(self, database: str | None) -> list[Pool]:
        """Undo `pause` and `kill` of the same scope: a database that was paused by name stays so when all go on."""
        self._mark(database, paused=False)
        return self._each(database, lambda pool: None if self.is_pausing(pool.database) else pool.unpause())

    def is_pausing(self, database: str) -> bool:
        return self.is_paused or database in self.paused

    def kill(self, database: str | None) -> list[Pool]:
        """At once: clients and servers of the database leave, and it stays paused."""
        self._mark(database, paused=True)
        self._each(database, lambda pool: pool.pause())
        return self.close_all(database, Closing.KILLED)

    def close_all(self, database: str | None, why: Closing) -> list[Pool]:
        """Everybody in these pools, and their tunnels."""
        return self._each(database, lambda pool: self._empty(pool, why))

    def _empty(self, pool: Pool, why: Closing) -> None:
        pool.close_all(why)
        for tunnel in self.tunnels_of(pool):
            tunnel.close(why)

    def _mark(self, database: str | None, *, paused: bool) -> None:
        if database is None:
            self.is_paused = paused
        elif paused:
            self.paused.add(database)
        else:
            self.paused.discard(database)

    def _each(self, database: str | None, act: Callable[[Pool], None]) -> list[Pool]:
        pools = [pool for pool in self if database is None or pool.database == database]
        for pool in pools:
            act(pool)
        return pools

    # Reload.

    def reconcile(self, changes: Changes, limits: Mapping[tuple[str, str], Limits]) -> None:
        """Live by the new configuration: new limits, servers of changed databases retired, lost databases closed.

        `limits` are those of the pools that were here when they were reckoned.
        """
        self._config = config = changes.effective
        for pool in [*self.serving(), *self._lookups.values()]:
            if _comes_from(config, pool.database) not in config.databases:
                self._dismiss(pool, Closing.DATABASE_GONE)
        for pool in self:
            new = limits.get((pool.database, pool.user)) or resolve(config, pool.database, pool.user)
            if new != pool.limits:
                pool.set_limits(new)
            if pool.database in changes.retired or _comes_from(config, pool.database) in changes.retired:
                pool.welcome = None
                pool.failure = None
                pool.retire_servers(Closing.STALE)
        for pool in self:
            if pool.is_wanted:
                pool.grow()

    def retire(self, database: str | None, why: Closing) -> None:
        """RECONNECT: every server leaves at its next release."""
        self._each(database, lambda pool: pool.retire_servers(why))

    # Hosts that move.

    def hosts_in_use(self) -> set[str]:
        """Those that servers are connected to, or on their way to."""
        servers = (server for pool in self for place in pool.places for server in place)
        return {server.endpoint.host for server in servers if server.endpoint is not None}

    def retire_addresses(self, host: str, gone: Collection[str]) -> None:
        """`host` is no longer at these addresses: the servers there leave at their next release."""
        for pool in self:
            found = [server for place in pool.places[:CLOSING] for server in place if _is_at(server, host, gone)]
            for server in found:
                server.doomed = Closing.OBSOLETE
                if server.state in (IDLE, USED) or (isinstance(pool, EarPool) and server.state is LINKED):
                    server.close(Closing.OBSOLETE)  # an ear is never released

    def _dismiss(self, pool: Pool, why: Closing) -> None:
        del (self._lookups if isinstance(pool, LookupPool) else self._pools)[pool.database, pool.user]
        self._deserted.pop(pool, None)
        hub = self._hubs.pop(pool, None)
        both = [pool] if hub is None else [pool, hub.ear.pool]
        for each in both:
            each.state = PoolState.DYING
            self.dying.append(each)  # its servers count until PostgreSQL has hung up
        for each in both:
            self._empty(each, why)
            self._bury(each)

    def forget_unused(self) -> None:
        """Pools that nobody has used for `pool_idle_timeout`, or `autodb_idle_timeout` where only `*` knows them."""
        for pool in self.serving():
            if self._is_deserted(pool) or self._is_forgotten(pool):
                if pool.welcome is not None:
                    self._world.log.log(f"cleaning up idle pool {pool}")
                self._dismiss(pool, Closing.POOL_IDLE)
        for lookup in list(self._lookups.values()):
            if not lookup.is_used:
                self._dismiss(lookup, Closing.POOL_IDLE)

    def _is_deserted(self, pool: Pool) -> bool:
        """Has it had no client for `pool_idle_timeout`? Servers that do nothing do not count: they go with it."""
        limit = self._config.settings.pool_idle_timeout
        is_needed = pool.clients or pool.is_wanted or pool.is_kept_warm or self.tunnels_of(pool)
        if limit is None or is_needed or not pool.is_quiet or pool.state is not PoolState.OPEN:
            self._deserted.pop(pool, None)
            return False
        return pool.now() - self._deserted.setdefault(pool, pool.now()) > limit

    def _is_forgotten(self, pool: Pool) -> bool:
        """Is its database only known by `*`, or its user by auth_query, and nobody uses it?

        One that never had a server goes at once: somebody asked for a database that does not exist, and may ask again.
        """
        is_known = pool.database in self._config.databases and pool not in self.passing
        if is_known or pool.is_used or self.tunnels_of(pool):
            return False
        limit, idle_for = self._config.settings.autodb_idle_timeout, pool.now() - pool.unused_since
        return pool.welcome is None or (limit is not None and idle_for > limit)

    def _bury(self, pool: Pool) -> None:
        """Forget a dying pool once its last server is gone."""
        if pool in self.dying and not self.count_servers([pool]):
            self.dying.remove(pool)
            self._by_database[pool.database].remove(pool)
            self._by_user[pool.user].remove(pool)

    # Pre-warming.

    def prewarm(self, known_users: Sequence[str]) -> list[Pool]:
        """Make the pools that want servers before the first client; the janitor keeps them.

        `known_users` are those we can log in as. A database that names no user is pre-warmed for all of them if its
        own entry says `min_pool_size`; the general setting counts for it only if there is but one: a hundred users
        times five servers would be a flood nobody asked for. In a file of PgBouncer's the entry is no such wish
        either: there it holds from the first client on.
        """
        warm, settings = [], self._config.settings
        for database in self._config.databases.values():
            if database.name == FALLBACK:
                continue  # nobody knows its names yet
            if not (settings.min_pool_size if database.min_pool_size is None else database.min_pool_size):
                continue  # as most: to reckon their limits for nothing would take long
            is_wish = database.min_pool_size is not None and self._config.section != "pgbouncer"
            is_meant = is_wish or len(known_users) == 1
            users = [database.user] if database.user else known_users if is_meant else ()
            for user in users:
                if resolve(self._config, database.name, user).min_pool_size:
                    warm.append(self.find(database, user))
        for pool in warm:
            pool.is_kept_warm = True
        return warm


def _is_at(server: Any, host: str, addresses: Collection[str]) -> bool:
    endpoint = server.endpoint
    return endpoint is not None and endpoint.host == host and endpoint.address in addresses


def _comes_from(config: Config, database: str) -> str:
    """The entry that serves `database`."""
    return database if database in config.databases else FALLBACK
