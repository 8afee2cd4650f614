"""
What happened, in numbers: totals that only grow, and averages over the last period.

Theory. The streams add to plain integers of their pool (`Stats`), nothing else: times in seconds, sizes in bytes.
Everything derived (sums per database, rates, averages) is computed when somebody asks, from two snapshots that
the janitor takes every `stats_period`. Names are those of PgBouncer's SHOW STATS without their prefix; that
table also says the units: it shows times in microseconds.

A time is counted while a server works or is kept for somebody, as PgBouncer defines it: a query's from the moment its
server is asked, a transaction's from the moment it has a server (so the pause behind a BEGIN that was deferred is in
neither), with the client's own pauses after that; what it waited before is `wait_time`. Statements are counted where
they have names that are shared: as there, nothing is counted of the unnamed ones, or in session mode.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from operator import attrgetter, sub
from typing import Any


@dataclass(slots=True)
class Stats:
    """Totals of one pool, or sums of several."""

    server_assignment_count: int = 0
    xact_count: int = 0
    query_count: int = 0
    received: int = 0  # bytes from clients
    sent: int = 0  # bytes to clients
    xact_time: float = 0.0  # from the first request to the ReadyForQuery that ends the transaction
    query_time: float = 0.0  # from a request to its ReadyForQuery
    wait_time: float = 0.0  # in the queue
    client_parse_count: int = 0
    server_parse_count: int = 0
    bind_count: int = 0
    client_login_count: int = 0
    line_query_count: int = 0  # answers to those who stood in line (lines.py); they are in query_count too
    line_rerun_count: int = 0  # units that stood in line anew: a neighbour's cancel hit them, or their server was lost
    line_rescue_count: int = 0  # units that were taken from behind a head that was stuck; these ran again too
    line_set_count: int = 0  # SETs put in front of a unit, and
    line_parse_count: int = 0  # statements; these are in server_parse_count too
    lone_count: int = 0  # queries that were transactions of their own, most often all of them: counted once, and
    lone_time: float = 0.0  # not yet in the four numbers that they belong to; see `fold`

    def fold(self) -> None:
        """Now they are."""
        self.xact_count += self.lone_count
        self.query_count += self.lone_count
        self.xact_time += self.lone_time
        self.query_time += self.lone_time
        self.lone_count, self.lone_time = 0, 0.0

    def since(self, earlier: "Stats") -> "Stats":
        """What has happened between `earlier` and now."""
        return Stats(*map(sub, _numbers(self), _numbers(earlier)))

    def copy(self) -> "Stats":
        return Stats(*_numbers(self))


NAMES = tuple(field.name for field in fields(Stats) if not field.name.startswith("lone_"))
_get_numbers = attrgetter(*NAMES)


def _numbers(stats: Stats) -> tuple[Any, ...]:
    if stats.lone_count:
        stats.fold()
    return _get_numbers(stats)


def sum_stats(several: Iterable[Stats]) -> Stats:
    """As if they were one. (A thousand of them take a millisecond.)"""
    return Stats(*map(sum, zip(*map(_numbers, several), strict=True)))


TIMES = ("xact_time", "query_time", "wait_time")
_PER = {"xact_time": "xact_count", "query_time": "query_count", "wait_time": "server_assignment_count"}


@dataclass(slots=True)
class Averages:
    """Two snapshots, `period` seconds apart, and what they make."""

    earlier: Stats
    later: Stats
    period: float = 0.0

    def roll(self, now: Stats, period: float) -> None:
        """A period is over."""
        self.earlier, self.later, self.period = self.later, now.copy(), period

    def rates(self) -> Mapping[str, float]:
        """By name: per second for counts and bytes; for times, seconds per transaction, query or assignment."""
        span = self.later.since(self.earlier)
        seconds = self.period or math.inf
        return {
            name: value / ((getattr(span, _PER[name]) or 1) if name in _PER else seconds)
            for name, value in zip(NAMES, _numbers(span), strict=True)
        }


def new_averages() -> Averages:
    return Averages(Stats(), Stats())


def sum_averages(several: Iterable[Averages]) -> Averages:
    """As if they were one."""
    all_of_them = list(several)
    return Averages(
        sum_stats(each.earlier for each in all_of_them),
        sum_stats(each.later for each in all_of_them),
        max((each.period for each in all_of_them), default=0.0),
    )


def describe(averages: Averages) -> str:
    """The `stats:` line of the log: rates per second, times in microseconds."""
    rates = averages.rates()
    counts = ", ".join(f"{rates[name]:.0f} {words}/s" for name, words in _RATES)
    sizes = f"in {rates['received']:.0f} B/s, out {rates['sent']:.0f} B/s"
    times = ", ".join(f"{name.removesuffix('_time')} {rates[name] * 1e6:.0f} us" for name in TIMES)
    return f"stats: {counts}, {sizes}, {times}"


def as_fields(averages: Averages) -> dict[str, int]:
    """The same, each under the name that SHOW STATS has for it."""
    return {
        f"avg_{'recv' if name == 'received' else name}": round(rate * 1e6 if name in TIMES else rate)
        for name, rate in averages.rates().items()
    }


_RATES = (
    ("xact_count", "xacts"),
    ("query_count", "queries"),
    ("client_parse_count", "client parses"),
    ("server_parse_count", "server parses"),
    ("bind_count", "binds"),
    ("client_login_count", "client logins"),
)
