"""
SHOW DATABASES and SHOW POOLS: what is configured, and how it goes there.

Theory. Both list the console itself, as PgBouncer does: its operators are clients too. A 0 stands for "no limit" and
NULL for "not said in this entry", as there.

Where a server stands here, and where PgBouncer would count it: sv_active is LINKED; sv_tested is TESTING and also
CLEANING, since a server that runs server_reset_query is "tested" there as well (and a rollback is the same errand);
sv_being_canceled is CLEANING while a cancel request is on its way to it; sv_login is OPENING; sv_used is USED.
CLOSING has no word there, where a closed connection is gone at once. Here it counts until PostgreSQL has hung up, so
it has a column of its own behind the others. `waiting_for` is what those who wait are waiting for, and `failing` since
when and why no server can be opened, also while nobody waits: that is what to be alarmed by. A tunnel is
one more active client and one more active server. Of those who stand in line (lines.py) whoever has been sent is
active, the others wait for a place. What runs auth_query is a server of auth_user's; it is tested while it is asked.
"""

from collections.abc import Iterator
from typing import Any, Final

from proxy.admin.rows import Table, Value
from proxy.admin.scope import is_console_meant, list_databases
from proxy.config.entries import CONSOLES, Database
from proxy.config.kinds import PoolMode
from proxy.explain import Explanation
from proxy.failing import describe_failing
from proxy.states import CLEANING, CLOSING, IDLE, LINED, LINKED, OPENING, TESTING, USED

CONSOLE: Final = CONSOLES[0]


def show_databases(proxy: Any) -> Table:
    """One row per database."""
    shape = (
        "name s, host s, port i, database s, force_user s, pool_size i, min_pool_size i, reserve_pool_size i,"
        " server_lifetime i, pool_mode s, load_balance_hosts s, max_connections i, current_connections i,"
        " max_client_connections i, current_client_connections i, paused i, disabled i"
    )
    return Table(shape, _database_rows(proxy))


def _database_rows(proxy: Any) -> Iterator[tuple[Value, ...]]:
    for name in list_databases(proxy):
        database = proxy.find_database(name)
        if database is not None:
            yield _database_row(proxy, database)
    port, consoles = proxy.settings.listen_port, len(proxy.consoles)
    mode = PoolMode.STATEMENT
    yield (CONSOLE, None, port, CONSOLE, CONSOLE, 2, 0, 0, 0, mode, None, 0, 0, 0, consoles, 0, 0)


def _database_row(proxy: Any, database: Database) -> tuple[Value, ...]:
    settings, pools = proxy.settings, proxy.pools.of_database(database.name)
    return (
        database.name,
        ",".join(database.hosts) or None,
        database.port,
        database.server_dbname,
        database.user,
        _said(database.pool_size, settings.default_pool_size),
        _said(database.min_pool_size, settings.min_pool_size),
        _said(database.reserve_pool_size, settings.reserve_pool_size),
        int(database.server_lifetime or settings.server_lifetime),
        database.pool_mode,
        database.load_balance_hosts if len(database.hosts) > 1 else None,
        database.max_db_connections or settings.max_db_connections or 0,
        proxy.pools.count_servers(pools),
        database.max_db_client_connections or settings.max_db_client_connections or 0,
        sum(len(pool.clients) + _count_clients(proxy.pools.tunnels_of(pool)) for pool in pools),
        int(proxy.pools.is_pausing(database.name)),
        int(database.name in proxy.disabled),
    )


def _said(own: float | None, common: float | None) -> int:
    """The entry's word, else the common one, as a number where 0 is no limit."""
    return int((common if own is None else own) or 0)


def show_pools(proxy: Any, database: str = "") -> Table:
    """One row per pool. `maxwait` is how long the first in the queue has waited: seconds, and the rest in us."""
    shape = (
        "database s, user s, cl_active i, cl_waiting i, cl_active_cancel_req i, cl_waiting_cancel_req i, sv_active i,"
        " sv_active_cancel i, sv_being_canceled i, sv_idle i, sv_used i, sv_tested i, sv_login i, maxwait i,"
        " maxwait_us i, pool_mode s, load_balance_hosts s, sv_closing i, waiting_for s, failing s"
    )
    return Table(shape, _pool_rows(proxy, database))


def _pool_rows(proxy: Any, database: str) -> Iterator[tuple[Value, ...]]:
    tunnels, lookups = {tunnel.pool for tunnel in proxy.pools.tunnels}, proxy.pools.lookups()
    for pool in proxy.pools.serving():
        lookup = lookups.pop((pool.database, pool.user), None)
        if not database or pool.database == database:
            yield _pool_row(proxy, pool, proxy.pools.tunnels_of(pool) if pool in tunnels else [], lookup)
    for lookup in lookups.values():
        if not database or lookup.database == database:
            yield _pool_row(proxy, lookup, [])
    if not is_console_meant(database):
        return
    consoles = len(proxy.consoles)
    yield (CONSOLE, CONSOLE, consoles, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, PoolMode.STATEMENT, None, 0, None, None)


def _pool_row(proxy: Any, pool: Any, tunnels: list[Any], lookup: Any = None) -> tuple[Value, ...]:
    """`lookup` is the pool of the same name that runs auth_query, if there is one: its servers are in the same row."""
    places = (
        pool.places if lookup is None else [{**one, **two} for one, two in zip(pool.places, lookup.places, strict=True)]
    )
    cancels = sum(server.cancels for place in (LINKED, CLEANING) for server in places[place])
    being_canceled = sum(server.cancels > 0 for server in places[CLEANING])
    database = proxy.find_database(pool.database)
    seconds, micros = split_seconds(max(pool.longest_wait, 0.0 if pool.lines is None else pool.lines.longest_wait))
    waiting = _count_waiting(pool)
    return (
        pool.database,
        pool.user,
        len(pool.clients) - waiting + _count_clients(tunnels),
        waiting,
        cancels,
        0,  # a cancel request never waits for a place: it has a connection of its own
        len(places[LINKED]) + len(tunnels),
        cancels,
        being_canceled,
        len(places[IDLE]),
        len(places[USED]),
        len(places[TESTING]) + len(places[CLEANING]) - being_canceled,
        len(places[OPENING]),
        seconds,
        micros,
        pool.limits.pool_mode,
        database.load_balance_hosts if database is not None and len(database.hosts) > 1 else None,
        len(places[CLOSING]),
        Explanation(pool).brief() if pool.is_wanted else None,
        describe_failing(pool, pool.failure.sentence) if pool.failure is not None else None,
    )


def _count_waiting(pool: Any) -> int:
    """In the queue, but neither those who are logging in nor lines; and in line, not sent yet."""
    waiting = sum(client in pool.clients for client in pool.waiting)
    if pool.lines is None:
        return waiting
    return waiting + sum(client.state is LINED and not client.unit.is_sent for client in pool.clients)


def _count_clients(tunnels: list[Any]) -> int:
    return sum(tunnel.has_client for tunnel in tunnels)


def split_seconds(span: float) -> tuple[int, int]:
    """Whole seconds, and the rest in microseconds."""
    return divmod(max(int(span * 1_000_000), 0), 1_000_000)
