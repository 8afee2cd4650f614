"""
SHOW MEM: how much there is of what, and what it takes.

Theory. PgBouncer lists its slabs. Python has none that are ours, so a row is a kind of object, under PgBouncer's name
where it has one: `size` is what one of them takes by itself, `used` how many there are, `free` how many are kept in
reserve (none ever is), `memtotal` the product. What hangs on an object is not in its size, so the last row tells the
truth about the whole: memory pages, of which the system has given the process so many.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from proxy.admin.rows import Table

_INT_MAX: Final = (1 << 31) - 1  # what an int4 can say
_PAGES: Final = Path("/proc/self/statm")


def show_mem(proxy: Any) -> Table:
    """One row per kind of object, then the process."""
    rows = [
        (name, size, used, 0, min(size * used, _INT_MAX))
        for name, size, used in [*_count_objects(proxy), ("process", os.sysconf("SC_PAGE_SIZE"), _count_pages())]
    ]
    return Table("name s, size i, used i, free i, memtotal i", rows)


def _count_objects(proxy: Any) -> Iterator[tuple[str, int, int]]:
    pools = list(proxy.pools)
    clients = [next(iter(pool.clients), None) for pool in pools]
    servers = [next(iter(place), None) for pool in pools for place in pool.places]
    yield "user_cache", *_measure(list(proxy.users.secrets.values())[:1], len(proxy.users))
    yield "db_cache", *_measure(list(proxy.config.databases.values())[:1], len(proxy.config.databases))
    yield "peer_cache", *_measure(list(proxy.config.peers.values())[:1], len(proxy.config.peers))
    yield "pool_cache", *_measure(pools[:1], len(pools))
    yield "server_cache", *_measure(servers, sum(pool.size for pool in pools))
    yield "client_cache", *_measure(clients, sum(len(pool.clients) for pool in pools))
    yield "server_prepared_statement_cache", 0, sum(len(pool.statements) for pool in pools)
    yield "console_cache", *_measure(list(proxy.consoles)[:1], len(proxy.consoles))


def _measure(samples: Sequence[object], count: int) -> tuple[int, int]:
    """What one takes, by the first of `samples` that is there, and how many there are."""
    sample = next((each for each in samples if each is not None), None)
    own = getattr(sample, "__dict__", None)
    size = 0 if sample is None else sys.getsizeof(sample) + (sys.getsizeof(own) if own is not None else 0)
    return size, count


def _count_pages() -> int:
    """Resident ones; 0 where the system does not say."""
    try:
        return int(_PAGES.read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
