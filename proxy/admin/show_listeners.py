"""
SHOW LISTENERS: which channels clients listen to, pool by pool.

Theory. One row per channel and pool. `state` says what PostgreSQL knows of it (see channels.py), `listeners` how many
clients hear it, `waiting` how many have asked and wait for PostgreSQL to confirm. `notifications` counts what
PostgreSQL said on it, `lost` the copies that found no room in a client's mailbox or could not be said in its encoding.
PgBouncer has no such table; the connection that listens is a row of SHOW SERVERS, where its application_name tells it
from the others.
"""

from collections.abc import Iterator
from typing import Any

from proxy.admin.rows import Table, Value


def show_listeners(proxy: Any) -> Table:
    """Every channel somebody listens to, or did a moment ago. What is not UTF-8 in a name is shown as U+FFFD."""
    shape = "database s, user s, channel s, state s, listeners i, waiting i, notifications q, lost q"
    return Table(shape, _rows([(hub.ear.pool, hub.report()) for hub in proxy.pools.hubs()]))


Report = list[tuple[bytes, str, int, int, int, int]]


def _rows(reports: list[tuple[Any, Report]]) -> Iterator[tuple[Value, ...]]:
    for pool, report in reports:
        for channel, state, *counts in report:
            yield (pool.database, pool.user, channel.decode("utf-8", "replace"), state, *counts)
