"""
SHOW CLIENTS and SHOW SERVERS: every connection, one row each.

Theory. These may be long, so the rows are made as they are sent, of a list taken at the start: whoever has left in the
meantime is left out. `ptr` and `link` are addresses of ours, the same that stand in the log, so a line there finds
its row here; `id` is what KILL_CLIENT takes.

A client with a server is active, one in the queue waiting, all others idle. One that stands in a line (lines.py) is
active from the moment its query has been sent, and linked to that server, whose own link is the client it runs; before
that it waits. A server's words are PgBouncer's (see
show_pools.py for the places behind them). One that is being closed is not listed: there is no word for it. Whether a
client is pinned to its server, and why, stands behind everything else, and then the balancer it came through, if any:
`addr` and `port` are those of the client itself.

A tunnel is two rows, one in each table, and the only ones whose `replication` is not none. While its connection to
PostgreSQL is being opened its client is waiting and its server is new.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Final

from proxy.admin.rows import Table, Value
from proxy.admin.scope import consoles_of, pools_of, tunnels_of
from proxy.admin.show_pins import describe_pins
from proxy.admin.show_pools import CONSOLE, split_seconds
from proxy.log import unmapped
from proxy.states import (
    ACTIVE,
    BEGUN,
    CLEANING,
    CLOSING,
    GONE,
    IDLE,
    LINED,
    LINKED,
    OPENING,
    RESTING,
    TESTING,
    USED,
    WAITING,
    ClientState,
    ServerState,
)
from proxy.tls import describe
from proxy.tunnel import Stage, Tunnel

SHAPE: Final = (
    "type s, user s, database s, replication s, state s, addr s, port i, local_addr s, local_port i, connect_time T,"
    " request_time T, wait i, wait_us i, close_needed i, ptr s, link s, remote_pid i, tls s, application_name s,"
    " prepared_statements i, id i"
)
CLIENTS_SHAPE: Final = f"{SHAPE}, pinned i, pin_reason s, via s"
_NOT_PINNED: Final = (0, "")

_CLIENT_WORDS: Final[dict[ClientState, str]] = {
    RESTING: "idle",
    BEGUN: "idle",
    ACTIVE: "active",
}
_TUNNEL_WORDS: Final[dict[Stage, tuple[str, str]]] = {
    Stage.OPENING: ("waiting", "new"),
    Stage.OPEN: ("active", "active"),
}
_SERVER_WORDS: Final[dict[ServerState, str]] = {
    LINKED: "active",
    IDLE: "idle",
    USED: "used",
    TESTING: "tested",
    CLEANING: "tested",
    OPENING: "new",
}


def show_clients(proxy: Any, database: str = "") -> Table:
    """Everyone who is logged in, the operators of consoles at the end."""
    rows = _client_rows(proxy, list_clients(proxy, database), consoles_of(proxy, database))
    return Table(CLIENTS_SHAPE, rows)


def list_clients(proxy: Any, database: str) -> list[Any]:
    """Clients and tunnels, in the order they came."""
    clients = [client for pool in pools_of(proxy, database) for client in pool.clients]
    return sorted([*clients, *tunnels_of(proxy, database)], key=attrgetter("number"))


def _client_rows(proxy: Any, clients: list[Any], consoles: list[Any]) -> Iterator[tuple[Value, ...]]:
    times = Times(proxy)
    for client in clients:
        if isinstance(client, Tunnel):
            yield from ((*row, *_NOT_PINNED, _via(client)) for row in build_tunnel_rows(client, times, 0))
        elif client.state is not GONE:
            yield (*build_client_row(client, times), *describe_pins(client, proxy), _via(client))
    for session in consoles:
        if session in proxy.consoles:
            yield (*build_console_row(session, times), *_NOT_PINNED, _via(session))


def _via(client: Any) -> str:
    """The balancer in between, if there is one."""
    via: str = getattr(client.address, "via", "")
    return via


def build_client_row(client: Any, times: "Times") -> tuple[Value, ...]:
    word, asked_at, since = _find_times(client)
    waited = 0.0 if since is None else client.pool.now() - since
    return (
        "C",
        client.user,
        client.pool.database,
        "none",
        word,
        *client.address,
        *local_address(client),
        times.at(client.connected_at),
        times.at(asked_at),
        *split_seconds(waited),
        0,
        f"{client.tag.ptr:#x}",
        _link(find_server(client)),
        getattr(client.address, "pid", 0),
        tls_of(client),
        client.followed.get("application_name", ""),
        len(client.statements or ()),
        client.number,
    )


def _find_times(client: Any) -> tuple[str, float, float | None]:
    """(word, when it asked, since when it has waited; None if it does not)"""
    if client.state is WAITING:
        return "waiting", client.request_at, client.waiting_since
    if client.state is not LINED:
        return _CLIENT_WORDS[client.state], client.request_at, None
    since = client.unit.since
    return ("active", since, None) if client.unit.is_sent else ("waiting", since, since)


def find_server(client: Any) -> Any:
    """The one that works for it, or will when those before it in line are done."""
    return client.unit.server if client.unit is not None else client.server


def build_console_row(session: Any, times: "Times") -> tuple[Value, ...]:
    return (
        "C",
        session.user,
        CONSOLE,
        "none",
        "active",
        *session.address,
        *local_address(session.inbox),
        times.at(session.connected_at),
        times.at(session.request_at),
        0,
        0,
        0,
        f"{session.tag.ptr:#x}",
        "",
        getattr(session.address, "pid", 0),
        tls_of(session.inbox),
        session.application_name,
        0,
        session.number,
    )


def show_servers(proxy: Any, database: str = "") -> Table:
    """Every connection to PostgreSQL that is not being closed. `request_time`: its client's, else when it came free."""
    return Table(SHAPE, _server_rows(proxy, list_servers(proxy, database), tunnels_of(proxy, database)))


def list_servers(proxy: Any, database: str) -> list[Any]:
    return [server for pool in pools_of(proxy, database) for place in pool.places[:CLOSING] for server in place]


def _server_rows(proxy: Any, servers: list[Any], tunnels: list[Tunnel]) -> Iterator[tuple[Value, ...]]:
    times = Times(proxy)
    for server in servers:
        if server.state < CLOSING:
            yield build_server_row(server, times)
    for tunnel in tunnels:
        yield from build_tunnel_rows(tunnel, times, 1)


def build_server_row(server: Any, times: "Times") -> tuple[Value, ...]:
    is_being_canceled = server.state is CLEANING and server.cancels > 0
    return (
        "S",
        server.pool.user,
        server.pool.database,
        "none",
        "being_canceled" if is_being_canceled else _SERVER_WORDS[server.state],
        *server.address,
        *local_address(server),
        times.at(server.opened_at),
        times.at(server.ready_at if server.client is None else server.client.request_at),
        0,
        0,
        int(server.doomed is not None),
        f"{server.tag.ptr:#x}",
        _link(find_partner(server)),
        server.pid,
        tls_of(server),
        server.parameters.get("application_name", ""),
        len(server.statements),
        server.number,
    )


def build_tunnel_rows(tunnel: Tunnel, times: "Times", end: int) -> Iterator[tuple[Value, ...]]:
    """The client's end (0) or PostgreSQL's (1). None when it is being closed."""
    if tunnel.stage not in _TUNNEL_WORDS:
        return
    is_far = bool(end)
    since = times.at(tunnel.opened_at if is_far else tunnel.connected_at)
    yield (
        "S" if is_far else "C",
        tunnel.pool.user if is_far else tunnel.user,
        tunnel.pool.database,
        tunnel.replication.value,
        _TUNNEL_WORDS[tunnel.stage][end],
        *(tunnel.far.address if is_far else tunnel.address),
        *local_address(tunnel.far if is_far else tunnel.near),
        since,
        since,
        0,
        0,
        0,
        f"{(tunnel.far if is_far else tunnel).tag.ptr:#x}",
        f"{(tunnel if is_far else tunnel.far).tag.ptr:#x}",
        tunnel.far.pid if is_far else 0,
        tls_of(tunnel.far if is_far else tunnel.near),
        tunnel.application_name,
        0,
        tunnel.far_number if is_far else tunnel.number,
    )


def local_address(owner: Any) -> tuple[str, int]:
    """Our end of a connection: address and port, or ("unix", 0); ("", 0) while there is none."""
    transport = getattr(owner, "transport", None)
    name = transport.get_extra_info("sockname") if transport is not None else ("", 0)
    return (unmapped(str(name[0])), int(name[1])) if isinstance(name, tuple) else ("unix", 0)


def tls_of(owner: Any) -> str:
    """Version and cipher; empty where the connection is not encrypted, or not there yet."""
    return describe(getattr(owner, "transport", None))


def find_partner(server: Any) -> Any:
    """The client it works for now, if there is one."""
    client = server.client
    return client.head if client is not None and client.is_line else client


def _link(other: Any) -> str:
    return "" if other is None else f"{other.tag.ptr:#x}"


class Times:
    """Moments as PgBouncer writes them. One per answer: the same moments come again and again, and are kept."""

    def __init__(self, proxy: Any) -> None:
        now = proxy.clock.wall()
        self._zone = now.tzinfo or UTC
        self._offset = now.timestamp() - proxy.clock.now()
        self._known: dict[int, str] = {}

    def at(self, moment: float) -> str:
        """`moment` is of the clock that measures spans."""
        second = int(moment + self._offset)
        text = self._known.get(second)
        if text is None:
            text = datetime.fromtimestamp(second, self._zone).strftime("%Y-%m-%d %H:%M:%S %Z")
            self._known[second] = text
        return text
