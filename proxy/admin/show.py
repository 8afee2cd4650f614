"""
What can be looked at: one table of all SHOWs, and the small ones.

Theory. Each SHOW is a plain function from the proxy to a `Table`: no I/O, no waiting, nothing changed. Names, types and
order of the columns are PgBouncer's (1.25), because exporters and scripts know them by name and some by place. What
only we can say, or what PgBouncer has added since, stands behind them, never between.

No secret and no cancel key is in any table. Passwords are not among what is shown, and settings that may hold one are
masked by the same list that masks them in the log of a reload.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from proxy import VERSION
from proxy.admin.grammar import invalid
from proxy.admin.rows import Table, Value
from proxy.admin.scope import check_known, list_databases
from proxy.admin.show_buffers import show_active_sockets, show_fds, show_sockets
from proxy.admin.show_hba import show_hba
from proxy.admin.show_holders import show_holders
from proxy.admin.show_lines import show_lines
from proxy.admin.show_listeners import show_listeners
from proxy.admin.show_logins import list_logins, show_logins
from proxy.admin.show_memory import show_mem
from proxy.admin.show_names import show_dns_hosts, show_dns_zones, show_peer_pools, show_peers
from proxy.admin.show_pins import show_audit, show_pins
from proxy.admin.show_pools import CONSOLE, show_databases, show_pools
from proxy.admin.show_sockets import show_clients, show_servers
from proxy.admin.show_statements import show_statements
from proxy.admin.show_stats import show_averages, show_stats, show_stats_totals, show_totals
from proxy.config.entries import User
from proxy.config.reload import SECRETS
from proxy.config.settings import LIVE, SETTINGS, defaults, format_setting

PER_MILLISECOND: Final = 1_000_000  # nanoseconds


def show_version(proxy: Any) -> Table:
    """Whose console this is, and whose it really is."""
    return Table("version s", [(VERSION,)])


def show_config(proxy: Any) -> Table:
    """Every setting: its value now, what it is when nobody says anything, and whether SET or RELOAD can change it."""
    unsaid = defaults(proxy.config.section)
    rows = (
        (
            name,
            _mask(name, format_setting(proxy.settings, name)),
            format_setting(unsaid, name),
            "yes" if row.reload is LIVE else "no",
        )
        for name, row in sorted(SETTINGS.items())
    )
    return Table("key s, value s, default s, changeable s", rows)


def _mask(name: str, text: str) -> str:
    return "***" if name in SECRETS and text else text


def show_state(proxy: Any) -> Table:
    """Is it running, paused, suspended? And what is not to be taken for granted on every machine or at every time."""
    is_paused, is_suspended = proxy.pools.is_paused, proxy.is_suspended
    outbox, refused = proxy.outbox, proxy.reloader.refused
    rows = [
        ("active", _yes(not (is_paused or is_suspended))),
        ("paused", _yes(is_paused)),
        ("suspended", _yes(is_suspended)),
        ("io_uring", _yes(outbox.ring is not None)),
        ("busy_poll", _yes(outbox.busy_poll.limit > 0)),
        ("busy_poll_ms", str(outbox.busy_poll.spent // PER_MILLISECOND)),
        ("reload", f"refused: {refused[0]}" if refused else "ok"),
        ("log", proxy.log.trouble or "ok"),
    ]
    return Table("key s, value s", rows)


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def show_lists(proxy: Any) -> Table:
    """How many there are of each thing. Nothing is kept free in advance here, and names have no zones."""
    rows: list[tuple[str, int]] = [
        ("databases", len(list_databases(proxy)) + 1),  # the console's
        ("users", len(list_users(proxy))),
        ("peers", len(proxy.config.peers)),
        ("pools", len(proxy.pools) + 1),
        ("peer_pools", len(list(proxy.peers.pools()))),
        ("free_clients", 0),
        ("used_clients", proxy.client_count - proxy.visitors + len(proxy.consoles)),
        ("login_clients", proxy.visitors + proxy.strangers.logging_in),
        ("free_servers", 0),
        ("used_servers", proxy.pools.count_servers(list(proxy.pools))),
        ("dns_names", len(proxy.resolver)),
        ("dns_zones", 0),
        ("dns_queries", proxy.resolver.pending),
        ("dns_pending", 0),
        *list_logins(proxy),
    ]
    return Table("list s, items i", rows)


def show_users(proxy: Any) -> Table:
    """
    Everyone of auth_file, [users] and the pools.

    Sizes and the mode are those of the user's own entry, "" and NULL where it says nothing; limits are those in
    force, 0 for none.
    """
    shape = (
        "name s, pool_size s, reserve_pool_size s, pool_mode s, max_user_connections i, current_connections i,"
        " max_user_client_connections i, current_client_connections i"
    )
    return Table(shape, _user_rows(proxy))


def _user_rows(proxy: Any) -> Iterator[tuple[Value, ...]]:
    servers, clients = _count_by_user(proxy)
    settings = proxy.settings
    for name in list_users(proxy):
        user = proxy.config.users.get(name) or User(name=name)
        yield (
            name,
            _or_empty(user.pool_size),
            _or_empty(user.reserve_pool_size),
            user.pool_mode,
            user.max_user_connections or settings.max_user_connections or 0,
            servers.get(name, 0),
            user.max_user_client_connections or settings.max_user_client_connections or 0,
            clients.get(name, 0),
        )


def _count_by_user(proxy: Any) -> tuple[dict[str, int], dict[str, int]]:
    """(servers per user towards PostgreSQL, clients per user towards us)"""
    servers: dict[str, int] = {}
    clients: dict[str, int] = {}
    for pool in proxy.pools:
        servers[pool.user] = servers.get(pool.user, 0) + pool.size
        for client in pool.clients:
            clients[client.user] = clients.get(client.user, 0) + 1
    for tunnel in proxy.pools.tunnels:
        servers[tunnel.pool.user] = servers.get(tunnel.pool.user, 0) + 1
        clients[tunnel.user] = clients.get(tunnel.user, 0) + tunnel.has_client
    return servers, clients


def _or_empty(number: int | None) -> str:
    return "" if number is None else str(number)


def list_users(proxy: Any) -> list[str]:
    """Names of all users we have heard of, and the console's own, sorted."""
    return sorted({CONSOLE, *proxy.users.secrets, *proxy.config.users, *(pool.user for pool in proxy.pools)})


NARROWABLE: Final[Mapping[str, Callable[[Any, str], Table]]] = {
    "SHOW POOLS": show_pools,
    "SHOW CLIENTS": show_clients,
    "SHOW SERVERS": show_servers,
    "SHOW SOCKETS": show_sockets,
    "SHOW ACTIVE_SOCKETS": show_active_sockets,
    "SHOW LINES": show_lines,
    "SHOW STATEMENTS": show_statements,
}
"""Those that may be followed by the name of a database."""

SHOWS: Final[Mapping[str, Callable[[Any], Table]]] = {
    "SHOW VERSION": show_version,
    "SHOW CONFIG": show_config,
    "SHOW DATABASES": show_databases,
    "SHOW POOLS": show_pools,
    "SHOW CLIENTS": show_clients,
    "SHOW SERVERS": show_servers,
    "SHOW SOCKETS": show_sockets,
    "SHOW ACTIVE_SOCKETS": show_active_sockets,
    "SHOW FDS": show_fds,
    "SHOW STATS": show_stats,
    "SHOW STATS_TOTALS": show_stats_totals,
    "SHOW STATS_AVERAGES": show_averages,
    "SHOW TOTALS": show_totals,
    "SHOW LISTS": show_lists,
    "SHOW USERS": show_users,
    "SHOW STATE": show_state,
    "SHOW MEM": show_mem,
    "SHOW DNS_HOSTS": show_dns_hosts,
    "SHOW DNS_ZONES": show_dns_zones,
    "SHOW PEERS": show_peers,
    "SHOW PEER_POOLS": show_peer_pools,
    "SHOW LISTENERS": show_listeners,
    "SHOW PINS": show_pins,
    "SHOW HOLDERS": show_holders,
    "SHOW LINES": show_lines,
    "SHOW STATEMENTS": show_statements,
    "SHOW AUDIT": show_audit,
    "SHOW HBA": show_hba,
    "SHOW LOGINS": show_logins,
}
"""By the name in `rights.RIGHTS`. HELP is the console's own."""


def find_table(proxy: Any, name: str, database: str = "") -> Table:
    """The table called `name`, of one database if that is not "". Refused: there is none, or it is not told apart."""
    if not database:
        return SHOWS[name](proxy)
    if name not in NARROWABLE:
        kin = ", ".join(each.removeprefix("SHOW ") for each in NARROWABLE)
        raise invalid(f"{name} {database}", f"{name} takes no name. Those that take one: {kin}.")
    check_known(proxy, database)
    return NARROWABLE[name](proxy, database)
