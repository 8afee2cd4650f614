"""
What was measured, and the little arithmetic on it.

Theory. One `Sample` is one number: a measure ("simple-64"), a figure of it ("tps"), the target it was taken
from, the round it was taken in. Everything the report says comes from a plain list of samples, so the JSON file
holds all there is to know and the tables can be made again from it.

The machine is shared and noisy, and for a minute it may have half of its speed: so targets take turns within each
round, a ratio compares two that were taken in the same round, and a table shows medians over rounds, of figures and of
such ratios. No number here is comparable with one of another run.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median

Figures = dict[str, float]  # by name, in the unit that UNITS gives


@dataclass(frozen=True)
class Sample:
    """One number, in the unit of its figure."""

    measure: str
    figure: str
    target: str
    round: int
    value: float


# Every figure a measure may give, in the order of the page: its unit, in words for the table.
UNITS: dict[str, str] = {
    "tps": "transactions/s",
    "cpu_us": "pooler CPU, us/transaction",
    "syscalls": "syscalls/transaction",
    "latency_ms": "mean latency, ms",
    "p50_ms": "median latency, ms",
    "p99_ms": "99th percentile of latency, ms",
    "p999_ms": "99.9th percentile of latency, ms",
    "reads_p99_ms": "99th percentile of the reads, ms",
    "writes_p99_ms": "99th percentile of the writes, ms",
    "logins": "logins/s",
    "all_in_seconds": "until all are in, s",
    "login_cpu_us": "pooler CPU, us/login",
    "seconds": "duration, s",
    "cpu_ms": "pooler CPU, ms",
    "idle_bytes": "RSS/idle client, bytes",
    "active_bytes": "RSS/active client, bytes, at most",
}


class Results:
    """The samples of one run."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self.samples = list(samples)

    def add(self, measure: str, target: str, round_: int, figures: Figures) -> None:
        """Keep what one measure gave on one target; KeyError when a figure has no unit."""
        for figure, value in figures.items():
            assert UNITS[figure]
            self.samples.append(Sample(measure, figure, target, round_, value))

    def rows(self) -> list[tuple[str, str]]:
        """Each (measure, figure) once, in the order in which they were first seen."""
        return list(dict.fromkeys((sample.measure, sample.figure) for sample in self.samples))

    def middle(self, measure: str, figure: str, target: str) -> float | None:
        """The median over rounds; None when it was not measured."""
        values = self._by_round(measure, figure, target).values()
        return median(values) if values else None

    def ratio(self, measure: str, figure: str, target: str, other: str, than: str | None = None) -> float | None:
        """Median over rounds of `target` over `other` (of the measure `than`, if given); None when there is no round
        that has both, or `other` is zero there."""
        ours = self._by_round(measure, figure, target)
        theirs = self._by_round(than or measure, figure, other)
        ratios = [value / theirs[round_] for round_, value in ours.items() if theirs.get(round_)]
        return median(ratios) if ratios else None

    def _by_round(self, measure: str, figure: str, target: str) -> dict[int, float]:
        wanted = (measure, figure, target)
        return {s.round: s.value for s in self.samples if (s.measure, s.figure, s.target) == wanted}


def percentile(ordered: Sequence[float], part: float) -> float:
    """The value that `part` (0 to 1) of an ascending, non-empty sequence does not exceed (nearest rank)."""
    assert 0 <= part <= 1
    return ordered[max(0, ceil(part * len(ordered)) - 1)]
