"""
The pool of those connections that run auth_query: a few, for us alone.

Theory. A client's own wishes must never reach a connection on which somebody's secret is asked for: who names a schema
of his own in search_path would choose which pg_authid is read, with the rights of auth_user (CVE-2025-12819). So no
client is ever served from this pool. Its connections are opened with what the database's entry says and nothing else,
nothing but auth_query runs on them, and search_path is what PostgreSQL has for auth_user in that database, behind its
own names (protocol/authquery.py). A client that logs in as auth_user has the usual pool of that name, beside this one,
and cannot leave a temporary table or a setting behind for us.

Being a pool it is counted and bounded like all others: max_db_connections, max_user_connections, server_idle_timeout,
server_lifetime, PAUSE, RECONNECT, KILL, RELOAD and the back-off after a failed login hold for it. Its size is that of
the pool beside it, and at most MOST: a query that reads one row by its key takes less than a millisecond.
"""

from dataclasses import replace
from typing import Final

from proxy.config.kinds import PoolMode
from proxy.config.limits import Limits
from proxy.pool import Pool

MOST: Final = 4  # connections


class LookupPool(Pool):
    """One per (database, auth_user)."""

    def set_limits(self, limits: Limits) -> None:
        super().set_limits(find_limits(limits))


def find_limits(limits: Limits) -> Limits:
    """Of a pool that only answers questions. What spans pools stays as it is."""
    return replace(
        limits,
        pool_mode=PoolMode.TRANSACTION,
        pool_size=MOST if limits.pool_size is None else min(MOST, limits.pool_size),
        min_pool_size=0,
        reserve_pool_size=0,
        query_wait_notify=None,
        server_reset_query="",
        server_reset_query_always=False,
        pipeline_depth=1,
        track_statements=False,
    )
