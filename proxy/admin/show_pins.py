"""
SHOW PINS and SHOW AUDIT: who keeps a server for itself and why, and who would.

Theory. Two views of one question, what clients do that servers cannot share. SHOW PINS counts what happened (pins.py):
a row per pool and reason, how many clients are pinned now and how many ever were. SHOW AUDIT is for pools with
session_state = audit (audit.py): a row for each thing each application does, and what transaction mode would do about
it. Rows where nothing happened are left out. Which client is pinned, since when and by which statement stands in its
row of SHOW CLIENTS.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from proxy.admin.rows import Table, Value


def show_pins(proxy: Any) -> Table:
    """How many clients are pinned now, and how many ever were, by pool and reason."""
    return Table("database s, user s, reason s, now i, total q", _pin_rows(list(proxy.pools)))


def _pin_rows(pools: list[Any]) -> Iterator[tuple[Value, ...]]:
    for pool in pools:
        for reason, count in pool.learnt.pins.counts.items():
            if count.total:
                yield pool.database, pool.user, reason.value, count.now, count.total


def show_audit(proxy: Any) -> Table:
    """What applications do, how often, and what transaction mode would make of it."""
    shape = "database s, user s, application_name s, what s, would_be s, count q, statement s"
    return Table(shape, _audit_rows(list(proxy.pools)))


def _audit_rows(pools: list[Any]) -> Iterator[tuple[Value, ...]]:
    for pool in pools:
        for user, application, word, entry in pool.learnt.audit:
            yield pool.database, user, application, word, entry.would.value, entry.count, entry.statement


def describe_pins(client: Any, proxy: Any) -> tuple[int, str]:
    """For SHOW CLIENTS: is it pinned, and by its oldest pin: which kind, since when, by which statement."""
    pins = client.session.pins if client.session is not None else {}
    if not pins:
        return 0, ""
    reason, pin = min(pins.items(), key=lambda item: item[1].since)
    wall = proxy.clock.wall()
    since = datetime.fromtimestamp(wall.timestamp() - proxy.clock.now() + pin.since, wall.tzinfo)
    return 1, f"{reason.value} since {since:%Y-%m-%d %H:%M:%S %Z} by: {pin.statement}"
