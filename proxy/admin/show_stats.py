"""
SHOW STATS and its kin: what has happened, per database and in all.

Theory. Three tables of the same numbers, in PgBouncer's three sets of names, which are not quite regular; so each is
written out here as pairs of (its name, ours in `stats.Stats`). Totals count from the start; averages are over the last
full `stats_period`: per second for counts and bytes, per event for times. Times are whole microseconds, as there.

A row is a database: its pools (users) are summed. The console's row is there and zero, as nothing is pooled for it.
The count of logins, which PgBouncer's next release puts in the middle, stands behind everything else of PgBouncer's;
behind that what only we can say: what has travelled in lines (proxy/lines.py).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from proxy.admin.rows import Table, Value
from proxy.admin.show_pools import CONSOLE
from proxy.stats import TIMES, Stats, sum_averages, sum_stats

MICROS: Final = 1_000_000

Names = Sequence[tuple[str, str]]
Rates = Mapping[str, float]

_COUNTS: Final[Names] = [(name, name) for name in ("server_assignment_count", "xact_count", "query_count")]
_TIMES: Final[Names] = [(name, name) for name in TIMES]
_PARSES: Final[Names] = [(name, name) for name in ("client_parse_count", "server_parse_count", "bind_count")]
_LOGINS: Final[Names] = [("client_login_count", "client_login_count")]
_LINES: Final[Names] = [
    (f"line_{name}_count", f"line_{name}_count") for name in ("query", "rerun", "rescue", "set", "parse")
]
_MORE: Final[Names] = [*_LOGINS, *_LINES]

_STATS_TOTALS: Final[Names] = [*_COUNTS, ("received", "received"), ("sent", "sent"), *_TIMES, *_PARSES]
_STATS_AVERAGES: Final[Names] = [*_COUNTS, ("recv", "received"), ("sent", "sent"), *_TIMES, *_PARSES]
_BYTES: Final[Names] = [("bytes_received", "received"), ("bytes_sent", "sent")]
_TOTALS: Final[Names] = [
    *_COUNTS,
    ("client_bytes", "received"),
    ("server_bytes", "sent"),
    *_TIMES,
    *((f"ps_{name}", name) for name, _ in _PARSES),
]


def show_stats(proxy: Any) -> Table:
    """Totals and averages, a row per database."""
    totals, averages = _prefix("total_", _STATS_TOTALS), _prefix("avg_", _STATS_AVERAGES)
    more_totals, more_averages = _prefix("total_", _MORE), _prefix("avg_", _MORE)

    def row(stats: Stats, means: Rates) -> list[int]:
        return [
            *_totals(stats, totals),
            *_averages(means, averages),
            *_totals(stats, more_totals),
            *_averages(means, more_averages),
        ]

    return _table(proxy, [*totals, *averages, *more_totals, *more_averages], row)


def show_stats_totals(proxy: Any) -> Table:
    """The totals alone, under other names."""
    names = [*_COUNTS, *_BYTES, *_TIMES, *_PARSES, *_MORE]
    return _table(proxy, names, lambda stats, _: _totals(stats, names))


def show_averages(proxy: Any) -> Table:
    """The averages alone, some with `avg_` in front and some without, as it came to be."""
    names = [*_COUNTS, *_BYTES, *_TIMES, *_prefix("avg_", [*_PARSES, *_MORE])]
    return _table(proxy, names, lambda _, means: _averages(means, names))


def show_totals(proxy: Any) -> Table:
    """Everything summed over all databases, a number per row."""
    pools = list(proxy.pools)
    stats, means = _sum(pools)
    names = [*_TOTALS, *_MORE]
    rows = [
        *zip((f"total_{name}" for name, _ in names), _totals(stats, names), strict=True),
        *zip((f"avg_{name}" for name, _ in names), _averages(means, names), strict=True),
    ]
    return Table("name s, value N", rows)


def _table(proxy: Any, names: Names, row: Callable[[Stats, Rates], Sequence[int]]) -> Table:
    shape = "database s, " + ", ".join(f"{name} N" for name, _ in names)
    return Table(shape, _rows(proxy, row))


def _rows(proxy: Any, row: Callable[[Stats, Rates], Sequence[int]]) -> Iterator[tuple[Value, ...]]:
    for database in sorted(proxy.pools.databases()):
        yield (database, *row(*_sum(proxy.pools.of_database(database))))
    yield (CONSOLE, *row(*_sum([])))


def _sum(pools: Sequence[Any]) -> tuple[Stats, Rates]:
    return sum_stats(pool.stats for pool in pools), sum_averages(pool.averages for pool in pools).rates()


def _prefix(word: str, names: Names) -> Names:
    return [(word + name, ours) for name, ours in names]


def _totals(stats: Stats, names: Names) -> list[int]:
    return [_scale(ours, getattr(stats, ours)) for _, ours in names]


def _averages(means: Rates, names: Names) -> list[int]:
    return [_scale(ours, means[ours]) for _, ours in names]


def _scale(name: str, value: float) -> int:
    return int(value * MICROS) if name in TIMES else int(value)
