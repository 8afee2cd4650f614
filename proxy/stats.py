"""
What happened, in numbers: totals that only grow, and averages over the last period.

Theory. The streams add to plain integers of their pool (`Stats`), nothing else: times in seconds, sizes in bytes.
Everything derived (sums per database, rates, averages) is computed when somebody asks, from two snapshots that
the janitor takes every `stats_period`. Names are those of PgBouncer's SHOW STATS without their prefix; that
table also says the units: it shows times in microseconds.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields


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

    def add(self, other: "Stats") -> None:
        for name in NAMES:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def since(self, earlier: "Stats") -> "Stats":
        """What has happened between `earlier` and now."""
        return Stats(**{name: getattr(self, name) - getattr(earlier, name) for name in NAMES})

    def copy(self) -> "Stats":
        return self.since(_ZERO)


NAMES = tuple(field.name for field in fields(Stats))
TIMES = ("xact_time", "query_time", "wait_time")
_PER = {"xact_time": "xact_count", "query_time": "query_count", "wait_time": "server_assignment_count"}
_ZERO = Stats()


@dataclass(slots=True)
class Averages:
    """Two snapshots, `period` seconds apart, and what they make."""

    earlier: Stats
    later: Stats
    period: float = 0.0

    def roll(self, now: Stats, period: float) -> None:
        """A period is over."""
        self.earlier, self.later, self.period = self.later, now.copy(), period

    def of(self, name: str) -> float:
        """Per second for counts and bytes; for times, seconds per transaction, query or assignment."""
        span = self.later.since(self.earlier)
        value: float = getattr(span, name)
        if name in _PER:
            return value / (getattr(span, _PER[name]) or 1)
        return value / self.period if self.period else 0.0


def new_averages() -> Averages:
    return Averages(Stats(), Stats())


def sum_averages(several: Iterable[Averages]) -> Averages:
    """As if they were one."""
    total = new_averages()
    for each in several:
        total.earlier.add(each.earlier)
        total.later.add(each.later)
        total.period = max(total.period, each.period)
    return total


def describe(averages: Averages) -> str:
    """The `stats:` line of the log: rates per second, times in microseconds."""
    rates = ", ".join(f"{averages.of(name):.0f} {words}/s" for name, words in _RATES)
    sizes = f"in {averages.of('received'):.0f} B/s, out {averages.of('sent'):.0f} B/s"
    times = ", ".join(f"{name.removesuffix('_time')} {averages.of(name) * 1e6:.0f} us" for name in TIMES)
    return f"stats: {rates}, {sizes}, {times}"


_RATES = (
    ("xact_count", "xacts"),
    ("query_count", "queries"),
    ("client_parse_count", "client parses"),
    ("server_parse_count", "server parses"),
    ("bind_count", "binds"),
    ("client_login_count", "client logins"),
)
