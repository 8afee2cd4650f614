"""
SHOW DNS_HOSTS, DNS_ZONES, PEERS and PEER_POOLS: the names of others.

Theory. Host names are looked up now and then (resolver.py), and shown with the addresses in use and the seconds until
they are looked up again. Zones are not polled here, so that table is empty. Peers are the entries of [peers]; a peer's
pool is the connections over which cancel requests are passed on to it.
"""

from collections.abc import Iterator
from typing import Any

from proxy.admin.rows import Table, Value


def show_dns_hosts(proxy: Any) -> Table:
    """Every host name that was looked up and is remembered."""
    rows = [(name, ttl, ",".join(addresses)) for name, ttl, addresses in proxy.resolver.known()]
    return Table("hostname s, ttl q, addrs s", rows)


def show_dns_zones(proxy: Any) -> Table:
    """Zones whose serial is watched: none."""
    return Table("zonename s, serial q, count i", ())


def show_peers(proxy: Any) -> Table:
    """The entries of [peers]. Where one does not say how many connections there may be, the common size counts."""
    return Table("peer_id i, host s, port i, pool_size i", _peer_rows(proxy))


def _peer_rows(proxy: Any) -> Iterator[tuple[Value, ...]]:
    common = proxy.settings.default_pool_size
    for peer in proxy.config.peers.values():
        size = common if peer.pool_size is None else peer.pool_size
        yield peer.number, peer.host, peer.port, size or 0


def show_peer_pools(proxy: Any) -> Table:
    """Cancel requests on their way to other processes."""
    shape = "peer_id i, cl_active_cancel_req i, cl_waiting_cancel_req i, sv_active_cancel i, sv_login i"
    return Table(shape, list(proxy.peers.pools()))
