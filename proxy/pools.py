"""
All pools: which one serves whom, the limits they share, and what a reload means for them.

Theory. A pool is made when the first client of a (database, user) comes, or before any client where `min_pool_size`
wants servers and we know how to log in. It stays until its database is gone from the configuration.

Some limits span pools: servers per database, servers per user. They are counted, not tallied: a sum over the few
pools concerned, asked only when a server is about to be opened, so no counter can drift. When such a limit stands
in the way, an idle server of another pool is closed to make room (`make_room`). When a place becomes free, the pool
whose client has waited longest has the first choice (`room_made`), wherever the place was.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from proxy.config.entries import FALLBACK, Database
from proxy.config.ini import Config
from proxy.config.limits import resolve
from proxy.config.reload import Changes
from proxy.pool import Pool, World
from proxy.states import CLOSING, IDLE, LINKED, USED, Closing, PoolState, Waiting

STARVING = 1.0  # seconds; after that a busy server of another pool is asked to leave at its next release


class Pools:
    """Every pool, by (database, user)."""

    def __init__(self, world: World, config: Config) -> None:
        self._world = world
        self._config = config
        self._pools: dict[tuple[str, str], Pool] = {}
        self._by_database: dict[str, list[Pool]] = defaultdict(list)
        self._by_user: dict[str, list[Pool]] = defaultdict(list)
        self.dying: list[Pool] = []  # no longer in the configuration, their last servers still saying goodbye
        self.paused: set[str] = set()  # databases; a pool made later is paused too
        self.is_paused = False  # all of them

    def __iter__(self) -> Iterator[Pool]:
        return iter(list(self._pools.values()))

    def __len__(self) -> int:
        return len(self._pools)

    def find(self, database: Database, client_user: str) -> Pool:
        """The pool that serves `client_user` in `database`; made if there is none yet."""
        key = (database.name, database.user or client_user)
        pool = self._pools.get(key)
        if pool is None or pool.state is PoolState.DYING:
            pool = self._make(*key)
        return pool

    def _make(self, database: str, user: str) -> Pool:
        pool = Pool(database, user, resolve(self._config, database, user), self._world)
        if self.is_pausing(database):
            pool.state = PoolState.PAUSED
        self._pools[database, user] = pool
        self._by_database[database].append(pool)
        self._by_user[user].append(pool)
        return pool

    def of_database(self, database: str) -> list[Pool]:
        return list(self._by_database.get(database, ()))

    def databases(self) -> list[str]:
        """Names of databases that have a pool."""
        return [name for name, pools in self._by_database.items() if pools]

    # Limits over several pools.

    def find_obstacle(self, pool: Pool) -> Waiting | None:
        """Which limit over several pools forbids one more server of `pool`."""
        limits = pool.limits
        if _is_reached(limits.max_db_connections, self._by_database[pool.database]):
            return Waiting.DATABASE_LIMIT
        if _is_reached(limits.max_user_connections, self._by_user[pool.user]):
            return Waiting.USER_LIMIT
        return None

    def make_room(self, pool: Pool, obstacle: Waiting) -> None:
        """`pool` may not grow because of `obstacle`: have an idle server of a neighbour leave, if there is one."""
        neighbours = self._neighbours(pool, obstacle)
        if any(each.places[CLOSING] for each in neighbours):
            return  # somebody is leaving already
        for each in sorted(neighbours, key=lambda each: each.size, reverse=True):
            for state in (USED, IDLE):
                for server in each.places[state]:
                    server.close(Closing.EVICTED)
                    return

    def _neighbours(self, pool: Pool, obstacle: Waiting) -> list[Pool]:
        if obstacle is Waiting.DATABASE_LIMIT:
            pools = self._by_database[pool.database]
        elif obstacle is Waiting.USER_LIMIT:
            pools = self._by_user[pool.user]
        else:
            return []
        return [each for each in pools if each is not pool]

    def relieve(self, pool: Pool) -> None:
        """Those who wait in `pool` have waited long, kept out by a neighbour whose servers are never idle."""
        obstacle = pool.find_obstacle()
        if pool.longest_wait < STARVING or obstacle is None:
            return
        self.make_room(pool, obstacle)
        neighbours = self._neighbours(pool, obstacle)
        if any(server.doomed for each in neighbours for server in each.places[LINKED]):
            return
        for each in sorted(neighbours, key=lambda each: each.size, reverse=True):
            for server in each.places[LINKED]:
                server.doomed = Closing.EVICTED
                return

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

    # What an administrator does, to one database or to all (None).

    def pause(self, database: str | None) -> list[Pool]:
        """No server is handed out from here on. Returns the pools, for `wait_quiet`."""
        self._mark(database, paused=True)
        return self._each(database, Pool.pause)

    def resume(self, database: str | None) -> list[Pool]:
        """Undo `pause` and `kill` of the same scope: a database that was paused by name stays so when all go on."""
        self._mark(database, paused=False)
        return self._each(database, lambda pool: None if self.is_pausing(pool.database) else pool.unpause())

    def is_pausing(self, database: str) -> bool:
        return self.is_paused or database in self.paused

    def kill(self, database: str | None) -> list[Pool]:
        """At once: clients and servers of the database leave, and it stays paused."""
        self._mark(database, paused=True)
        self._each(database, Pool.pause)
        return self._each(database, lambda pool: pool.close_all(Closing.ADMIN))

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

    def reconcile(self, changes: Changes) -> None:
        """Live by the new configuration: new limits, servers of changed databases retired, lost databases closed."""
        self._config = config = changes.effective
        for pool in self:
            if config.find_database(pool.database) is None:
                self._dismiss(pool)
                continue
            pool.set_limits(resolve(config, pool.database, pool.user))
            if pool.database in changes.retired or _comes_from(config, pool.database) in changes.retired:
                pool.welcome = None
                pool.failure = None
                pool.retire_servers(Closing.STALE)
        for pool in self:
            pool.grow()

    def retire(self, database: str | None, why: Closing) -> None:
        """RECONNECT: every server leaves at its next release."""
        self._each(database, lambda pool: pool.retire_servers(why))

    def _dismiss(self, pool: Pool) -> None:
        pool.state = PoolState.DYING
        del self._pools[pool.database, pool.user]
        self.dying.append(pool)  # its servers count until PostgreSQL has hung up
        pool.close_all(Closing.DATABASE_GONE)
        self._bury(pool)

    def forget_unused(self) -> None:
        """Pools of databases that only `*` knows go when nobody has used them for `autodb_idle_timeout`.

        One that never had a server goes at once: somebody asked for a database that does not exist, and may ask again.
        """
        limit = self._config.settings.autodb_idle_timeout
        for pool in self:
            if pool.database in self._config.databases or pool.is_used:
                continue
            idle_for = pool.now() - pool.unused_since
            if pool.welcome is None or (limit is not None and idle_for > limit):
                self._dismiss(pool)

    def _bury(self, pool: Pool) -> None:
        """Forget a dying pool once its last server is gone."""
        if not pool.size and pool in self.dying:
            self.dying.remove(pool)
            self._by_database[pool.database].remove(pool)
            self._by_user[pool.user].remove(pool)

    # Pre-warming.

    def prewarm(self, known_users: Sequence[str]) -> list[Pool]:
        """Make the pools that want servers before the first client; the janitor keeps them.

        `known_users` are those we can log in as. A database that names no user is pre-warmed for all of them if its
        own entry says `min_pool_size`; the general setting counts for it only if there is but one: a hundred users
        times five servers would be a flood nobody asked for.
        """
        warm = []
        for database in self._config.databases.values():
            if database.name == FALLBACK:
                continue  # nobody knows its names yet
            is_meant = database.min_pool_size is not None or len(known_users) == 1
            users = [database.user] if database.user else known_users if is_meant else ()
            for user in users:
                if resolve(self._config, database.name, user).min_pool_size:
                    warm.append(self.find(database, user))
        for pool in warm:
            pool.is_kept_warm = True
        return warm


def _is_reached(limit: int | None, pools: Iterable[Pool]) -> bool:
    return limit is not None and sum(pool.size for pool in pools) >= limit


def _comes_from(config: Config, database: str) -> str:
    """The entry that serves `database`."""
    return database if database in config.databases else "*"
