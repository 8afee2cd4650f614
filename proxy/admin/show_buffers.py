"""
SHOW SOCKETS, ACTIVE_SOCKETS and FDS: every connection with what lies in its buffers, and its descriptor.

Theory. The first two are the rows of SHOW CLIENTS and SHOW SERVERS with seven columns behind them that PgBouncer has
for its one buffer per connection. Here is no such buffer; what stands there is what lies here instead: `recv_pos` bytes
were received and not sent on yet, `pkt_pos` of them are read and wait for a server, `pkt_avail` are a message that is
not whole; of a long message that is passed on as it comes `pkt_remain` bytes are missing; `send_remain` bytes wait
until the peer takes them, which `send_avail` says too. States have the words of SHOW POOLS here, and a client is
cl_active unless it waits, as in PgBouncer. ACTIVE_SOCKETS shows those where something lies in a buffer.

SHOW FDS is what a successor of PgBouncer's process reads. Whoever reads it here gets the rows, and no secret: no
password, no SCRAM key, no cancel key, and no descriptor travels along.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

from proxy.admin.rows import Row, Table, Value
from proxy.admin.scope import consoles_of, tunnels_of
from proxy.admin.show_sockets import (
    SHAPE,
    Times,
    build_client_row,
    build_console_row,
    build_server_row,
    build_tunnel_rows,
    find_partner,
    find_server,
    list_clients,
    list_servers,
)
from proxy.states import CLOSING, GONE
from proxy.tunnel import Tunnel

SOCKETS_SHAPE: Final = (
    f"{SHAPE}, recv_pos i, pkt_pos i, pkt_remain i, send_pos i, send_remain i, pkt_avail i, send_avail i"
)
FDS_SHAPE: Final = (
    "fd i, task s, user s, database s, addr s, port i, cancel q, link i, client_encoding s, std_strings s, datestyle s,"
    " timezone s, password s, scram_client_key b, scram_server_key b"
)
_STATE: Final = 4  # the column
_POSITIONS: Final = 7  # columns
_WORDS: Final[dict[tuple[Value, Value], str]] = {
    ("C", "active"): "cl_active",
    ("C", "idle"): "cl_active",
    ("C", "waiting"): "cl_waiting",
    ("S", "active"): "sv_active",
    ("S", "idle"): "sv_idle",
    ("S", "used"): "sv_used",
    ("S", "tested"): "sv_tested",
    ("S", "being_canceled"): "sv_tested",
    ("S", "new"): "sv_login",
}
_TOLD: Final = ("client_encoding", "standard_conforming_strings", "DateStyle", "TimeZone")


def show_sockets(proxy: Any, database: str = "") -> Table:
    """All connections: clients, consoles, servers."""
    return Table(SOCKETS_SHAPE, _socket_rows(proxy, database))


def show_active_sockets(proxy: Any, database: str = "") -> Table:
    """Those with something in a buffer."""
    return Table(SOCKETS_SHAPE, (row for row in _socket_rows(proxy, database) if any(row[-_POSITIONS:])))


def _socket_rows(proxy: Any, database: str) -> Iterator[tuple[Value, ...]]:
    times = Times(proxy)
    for client in list_clients(proxy, database):
        if isinstance(client, Tunnel):
            yield from (_extend(row, client.near) for row in build_tunnel_rows(client, times, 0))
        elif client.state is not GONE:
            yield _extend(build_client_row(client, times), client)
    for session in consoles_of(proxy, database):
        yield _extend(build_console_row(session, times), session.inbox)
    for server in list_servers(proxy, database):
        if server.state < CLOSING:
            yield _extend(build_server_row(server, times), server)
    for tunnel in tunnels_of(proxy, database):
        yield from (_extend(row, tunnel.far) for row in build_tunnel_rows(tunnel, times, 1))


def _extend(row: tuple[Value, ...], stream: Any) -> tuple[Value, ...]:
    """A row of SHOW CLIENTS or SHOW SERVERS, in the words of SHOW SOCKETS."""
    return (*row[:_STATE], _WORDS[row[0], row[_STATE]], *row[_STATE + 1 :], *_positions(stream))


def _positions(stream: Any) -> tuple[int, ...]:
    held, carry = len(getattr(stream, "held", None) or b""), len(getattr(stream, "carry", b""))
    transport = getattr(stream, "transport", None)
    unsent = transport.get_write_buffer_size() if transport is not None else 0
    return held + carry, held, getattr(stream, "remain", 0), 0, unsent, carry, unsent


def show_fds(proxy: Any) -> Table:
    """Listening sockets, clients, servers."""
    return Table(FDS_SHAPE, _descriptor_rows(proxy))


def _descriptor_rows(proxy: Any) -> Iterator[Row]:
    for listener in proxy.listeners:
        name = listener.socket.getsockname()
        addr, port = (str(name[0]), int(name[1])) if isinstance(name, tuple) else ("unix", proxy.settings.listen_port)
        yield (listener.socket.fileno(), "pooler", None, None, addr, port, 0, 0, *_nothing())
    for client in list_clients(proxy, ""):
        if not isinstance(client, Tunnel) and client.state is not GONE:
            yield _descriptor_row(client, "client", client.user, find_server(client), client.followed)
    for server in list_servers(proxy, ""):
        if server.state < CLOSING:
            yield _descriptor_row(server, "server", server.pool.user, find_partner(server), server.parameters)


def _descriptor_row(stream: Any, task: str, user: str, link: Any, told: Any) -> Row:
    place = (user, stream.pool.database, *stream.address)
    words = (told.get(name) for name in _TOLD)
    return (find_descriptor(stream), task, *place, 0, find_descriptor(link), *words, "", None, None)


def _nothing() -> Iterable[Value]:
    return (None, None, None, None, "", None, None)


def find_descriptor(stream: Any) -> int:
    """Its number; 0 while it has none."""
    transport = getattr(stream, "transport", None)
    with contextlib.suppress(AttributeError, OSError):
        return int(transport.get_extra_info("socket").fileno()) if transport is not None else 0
    return 0
