"""
The limits one pool lives under, with every override worked out.

Theory. A limit may be said for a user, for a database and for all; the nearest word wins, in that order.
Working this out in every sweep is how a pooler comes to compare a user's timeout with a global zero; here
it is done once per pool and reload, and the pool holds the frozen result. None means "no limit" in all
fields, whichever way the file said so.

What a 0 in an entry means is PgBouncer's where it could let in more than the operator expects: the number of
connections and `server_lifetime` are then those of everywhere. For a size it is a size ("no limit" for `pool_size`),
and for a timeout "no limit for this one", where PgBouncer would apply the common one.

`min_pool_size` never exceeds `pool_size`: more could not be opened anyway.
"""

from dataclasses import dataclass
from typing import Final, TypeVar

from proxy.config.entries import Database, User
from proxy.config.ini import Config
from proxy.config.kinds import ListenMode, PoolMode, SessionState

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one (database, user). Times are seconds; None is no limit.

    For `query_wait_notify` and `reserve_pool_timeout` None is never.
    `server_lifetime` 0 means a server serves once; `server_check_delay` 0 means it is checked each time;
    `server_check_query` None means no check, "" an empty query.
    """

    pool_mode: PoolMode
    pool_size: int | None
    min_pool_size: int
    reserve_pool_size: int
    reserve_pool_timeout: float | None
    max_db_connections: int | None
    max_user_connections: int | None
    max_db_client_connections: int | None
    max_user_client_connections: int | None
    query_timeout: float | None
    query_wait_timeout: float | None
    query_wait_notify: float | None
    transaction_timeout: float | None
    idle_transaction_timeout: float | None
    client_idle_timeout: float | None
    server_lifetime: float
    server_idle_timeout: float | None
    server_connect_timeout: float | None
    server_login_retry: float
    server_check_delay: float
    server_check_query: str | None
    server_reset_query: str
    server_reset_query_always: bool
    server_round_robin: bool
    max_prepared_statements: int
    session_state: SessionState
    listen_mode: ListenMode
    pin_functions: tuple[str, ...]
    deferred_begin: bool
    disable_pqexec: bool
    server_fast_close: bool
    pipeline_depth: int = 1
    pipeline_servers: int = 0
    pipeline_max_ms: int = 5
    pipeline_max_bytes: int = 16384
    pipeline_stall_ms: int = 200
    pipeline_group: int = 1
    pipeline_group_min: int = 2
    pipeline_functions: tuple[str, ...] = ()
    track_statements: bool = False


_COMMON: Final = (
    "reserve_pool_timeout",
    "query_wait_notify",
    "server_idle_timeout",
    "server_connect_timeout",
    "server_login_retry",
    "server_check_delay",
    "server_check_query",
    "server_reset_query",
    "server_reset_query_always",
    "server_round_robin",
    "max_prepared_statements",
    "session_state",
    "listen_mode",
    "pin_functions",
    "deferred_begin",
    "disable_pqexec",
    "server_fast_close",
    "pipeline_stall_ms",
    "pipeline_group_min",
    "pipeline_functions",
    "track_statements",
)


def resolve(config: Config, database: str, user: str) -> Limits:
    """The limits of the pool of `database` and `user`, the user the server sees; names the file lacks have none."""
    s = config.settings
    d = config.find_database(database) or Database(name=database)
    u = config.users.get(user) or User(name=user)
    pool_size = _limit(u.pool_size, d.pool_size, s.default_pool_size)
    min_pool_size = _nearest(d.min_pool_size, s.min_pool_size)
    return Limits(
        pool_mode=_nearest(u.pool_mode, d.pool_mode, s.pool_mode),
        pool_size=pool_size,
        min_pool_size=min_pool_size if pool_size is None else min(min_pool_size, pool_size),
        reserve_pool_size=_nearest(u.reserve_pool_size, d.reserve_pool_size, s.reserve_pool_size),
        max_db_connections=d.max_db_connections or s.max_db_connections,
        max_user_connections=u.max_user_connections or s.max_user_connections,
        max_db_client_connections=d.max_db_client_connections or s.max_db_client_connections,
        max_user_client_connections=u.max_user_client_connections or s.max_user_client_connections,
        query_timeout=_limit(u.query_timeout, s.query_timeout),
        query_wait_timeout=_limit(u.query_wait_timeout, d.query_wait_timeout, s.query_wait_timeout),
        transaction_timeout=_limit(u.transaction_timeout, s.transaction_timeout),
        idle_transaction_timeout=_limit(u.idle_transaction_timeout, s.idle_transaction_timeout),
        client_idle_timeout=_limit(u.client_idle_timeout, s.client_idle_timeout),
        pipeline_depth=_nearest(u.pipeline_depth, d.pipeline_depth, s.pipeline_depth),
        pipeline_servers=_nearest(u.pipeline_servers, d.pipeline_servers, s.pipeline_servers),
        pipeline_max_ms=_nearest(u.pipeline_max_ms, d.pipeline_max_ms, s.pipeline_max_ms),
        pipeline_max_bytes=_nearest(u.pipeline_max_bytes, d.pipeline_max_bytes, s.pipeline_max_bytes),
        pipeline_group=_nearest(u.pipeline_group, d.pipeline_group, s.pipeline_group),
        server_lifetime=d.server_lifetime or s.server_lifetime,
        **{name: getattr(s, name) for name in _COMMON},
    )


def _said(*words: T | None) -> T | None:
    """The first word that was said."""
    return next((word for word in words if word is not None), None)


def _limit(*words: T | None) -> T | None:
    """The first word said, where a written 0 is "no limit"."""
    return _said(*words) or None


def _nearest(*words: T | None) -> T:
    """The first word said, where 0 is 0; the last is always said."""
    word = _said(*words)
    assert word is not None
    return word
