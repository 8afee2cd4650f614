"""
SHOW LINES: who stands in line, on which server, and why a line takes nobody in.

Theory. Where servers are shared by lines (proxy/lines.py) a pool has a row for those that wait for a place, its server
and `limit` NULL, and behind it one for each line. `depth` counts what was sent and is not answered, `waiting` what of
it stands behind the head; in the pool's row that is how many wait for a place. `client_id` is the head's `id` in SHOW
CLIENTS, 0 when it has left; `age` is how long the head has run, in the pool's row how long the first has waited, in
seconds. `pace` is how long a unit took lately, in microseconds.

`state` has one word of each line, the gravest: `open` takes more; all others do not, for the reason they say.
"""

import enum
from collections.abc import Iterator
from typing import Any, Final

from proxy.admin.rows import Table, Value
from proxy.states import PoolState

SHAPE: Final = (
    "database s, user s, server_id i, server_pid i, depth i, limit i, client_id i, age N, waiting i, pace i, state s"
)
MICROS: Final = 1_000_000


class Standing(enum.Enum):
    """The words of the column `state`."""

    QUEUE = "waiting for a place"  # the pool's row
    IDLE = "idle"  # has no server and wants none
    PAUSED = "paused"
    WANTING = "waiting for a server"
    LEAVING = "leaving"  # its server is closed when the line is empty
    CANCELING = "cancel on its way"
    STUCK = "stuck"  # its head has run for too long
    HELD = "held by a slow reader"
    CHOKED = "held by a slow server"
    FULL = "full"
    YIELDING = "yielding"  # somebody waits for a server of his own, and gets this one when it is empty
    OPEN = "open"


def show_lines(proxy: Any, database: str = "") -> Table:
    """The lines of all pools that have any."""
    return Table(SHAPE, _rows(proxy, database))


def _rows(proxy: Any, database: str) -> Iterator[tuple[Value, ...]]:
    for pool in proxy.pools.serving():
        if _has_lines(pool) and (not database or pool.database == database):
            yield _pool_row(pool)
            for line in list(pool.lines.members):
                yield _line_row(pool, line)


def _has_lines(pool: Any) -> bool:
    """Or had them a moment ago. (Else they are there to track statements.)"""
    return pool.lines is not None and bool(pool.lines.book.is_sharing or pool.lines.members)


def _pool_row(pool: Any) -> tuple[Value, ...]:
    waiting = pool.lines.waiting()
    number, age = (waiting[0].client.number, _seconds(pool.now() - waiting[0].since)) if waiting else (None, None)
    return (pool.database, pool.user, None, None, 0, None, number, age, len(waiting), None, Standing.QUEUE.value)


def _line_row(pool: Any, line: Any) -> tuple[Value, ...]:
    server, units = line.server, line.units
    head = units[0].client if units else None
    return (
        pool.database,
        pool.user,
        None if server is None else server.number,
        None if server is None else server.pid,
        line.load,
        pool.lines.depth,
        (0 if head is None else head.number) if units else None,
        _seconds(pool.now() - line.head_since) if units else None,
        max(len(units) - 1, 0),
        int(line.pace * MICROS),
        find_standing(line).value,
    )


def find_standing(line: Any) -> Standing:
    """Why `line` takes nobody in, or that it does."""
    pool, server = line.pool, line.server
    if pool.state is not PoolState.OPEN:
        return Standing.PAUSED
    if server is None:
        return Standing.WANTING if line in pool.waiting else Standing.IDLE
    return next((word for word, is_so in _reasons(line, server) if is_so), Standing.OPEN)


def _reasons(line: Any, server: Any) -> Iterator[tuple[Standing, bool]]:
    """Of a line with a server, the gravest first."""
    lines = line.lines
    yield Standing.LEAVING, server.doomed is not None or server.last_error is not None
    yield Standing.CANCELING, server.cancels > 0
    yield Standing.HELD, line.is_held
    yield Standing.STUCK, line.is_late(lines.now(), lines.patience)
    yield Standing.CHOKED, server.is_choked
    yield Standing.FULL, line.load >= lines.depth
    yield Standing.YIELDING, line.load > 0 and lines.is_somebody_waiting


def _seconds(span: float) -> str:
    return f"{max(span, 0.0):.3f}"
