"""
SHOW HOLDERS: who keeps servers from the others, the longest first.

Theory. When clients wait, the question is who has what they wait for. One row per client that has a server, or is
carried by a tunnel, over all pools: who it is, what it does and for how long. `state` has the words of
pg_stat_activity; ages are seconds, NULL where there is no transaction, no query, no idling in one. `server_pid` finds
the row there, `id` is what KILL_CLIENT takes. `servers` counts what this application, of this user, has in this pool
at the moment: a leak is mostly many of them. No text of any query is shown.

A client without a transaction has its server because of its session: `pinned` says why, and is empty in session mode.
"""

from collections.abc import Iterator
from operator import itemgetter
from typing import Any, Final

from protocol.parameters import clean
from proxy.admin.rows import Table, Value
from proxy.admin.show_pins import describe_pins
from proxy.holders import Holder, count_by_application, find_holders

SHAPE: Final = (
    "database s, user s, application_name s, addr s, port i, id i, server_pid i, state s, xact_age N, query_age N,"
    " idle_in_xact N, servers i, pinned s"
)


def show_holders(proxy: Any) -> Table:
    """Every client with a server."""
    found = [*_find_rows(proxy), *_find_tunnels(proxy)]
    return Table(SHAPE, (row for _, row in sorted(found, key=itemgetter(0), reverse=True)))


def _find_rows(proxy: Any) -> Iterator[tuple[float, tuple[Value, ...]]]:
    """(how long, the row)"""
    for pool in proxy.pools.serving():
        holders = find_holders(pool)
        counts = count_by_application(holders)
        for holder in holders:
            yield holder.age, _row(holder, counts[holder.client.user, holder.application], proxy)


def _row(holder: Holder, servers: int, proxy: Any) -> tuple[Value, ...]:
    client = holder.client
    return (
        client.pool.database,
        client.user,
        holder.application,
        *client.address,
        client.number,
        holder.server.pid,
        holder.doing.value,
        _seconds(holder.xact_age),
        _seconds(holder.query_age),
        _seconds(holder.idle_in_xact),
        servers,
        describe_pins(client, proxy)[1],
    )


def _find_tunnels(proxy: Any) -> Iterator[tuple[float, tuple[Value, ...]]]:
    for tunnel in proxy.pools.tunnels:
        if tunnel.has_client:
            name, now = clean(tunnel.application_name), proxy.clock.now()
            who = (tunnel.pool.database, tunnel.user, name, *tunnel.address, tunnel.number)
            yield now - tunnel.connected_at, (*who, tunnel.far.pid, "replication", None, None, None, 1, "")


def _seconds(span: float | None) -> str | None:
    return None if span is None else f"{max(span, 0.0):.3f}"
