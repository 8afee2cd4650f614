"""
What a measure is, and what it is given.

Theory. A measure is a function of the bench and a target; it gives figures by name (units in `figures.UNITS`). It
names the targets it can be taken from, and when it is taken at all. What cannot be had from one of them is not left
out in silence: the measure raises `Unavailable` and the table shows n/a with the reason.

CPU is the pooler's alone, so there is none for direct connections.
"""

import contextlib
import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from tests.bench.cluster import Cluster
from tests.bench.figures import Figures
from tests.bench.processes import Failed, cpu_seconds
from tests.bench.targets import DIRECT, LINES, OPENERS, OURS, THEIRS, Addition, Target, add_nothing

MICRO, MILLI = 1e6, 1e3

EVERYBODY = (DIRECT, THEIRS, OURS, LINES)
POOLERS = (THEIRS, OURS, LINES)
WITHOUT_LINES = (DIRECT, THEIRS, OURS)  # where lines are never in the way: COPY, logins
POOLERS_WITHOUT_LINES = (THEIRS, OURS)


class Unavailable(Failed):
    """This target cannot do it, whoever asks. Says why."""


class Tier(enum.Enum):
    """When a measure is taken."""

    QUICK = "always"
    FULL = "unless the run is a quick one"
    ASKED = "only when it is named"


@dataclass(frozen=True)
class Bench:
    """One run of the bench: its PostgreSQL, where it may write, how long and how much."""

    cluster: Cluster
    folder: Path
    seconds: float  # of each timed load
    share: float  # of rows and of crowds of clients; 1 is all

    @property
    def small_rows(self) -> int:
        return self.part(1_000_000)

    @property
    def wide_rows(self) -> int:
        return self.part(300_000)

    def part(self, count: int) -> int:
        """So many, or fewer in a quick run."""
        return max(1, round(count * self.share))

    @property
    def says(self) -> str:
        """How much is done, in words."""
        crowds = "" if self.share == 1 else f"; crowds of clients are {self.share:.0%} of what is said"
        return f"loads of {self.seconds:g} s; {self.small_rows:,} small or {self.wide_rows:,} wide rows{crowds}"

    @contextlib.contextmanager
    def freshly(self, target: Target, why: str, add: Addition = add_nothing) -> Iterator[Target]:
        """The same pooler started anew beside the other one, for `why`, with more lines in its file."""
        log = self.folder / f"{target.name}-{why}.log"
        with OPENERS[target.name](self.cluster.address, log, add) as fresh:
            yield fresh


Work = Callable[[Bench, Target], Figures]


@dataclass(frozen=True)
class Measure:
    """`work` gives the figures, from each of `targets`; in the first round only when it counts instead of timing."""

    name: str
    words: str
    work: Work
    tier: Tier = Tier.QUICK
    targets: Sequence[str] = EVERYBODY
    is_once: bool = False

    @property
    def says(self) -> str:
        """What it does, in words, and from whom it is taken if not from everybody."""
        return self.words if self.targets == EVERYBODY else f"{self.words} ({', '.join(self.targets)})"


class Meter:
    """What a block took: `seconds` on the clock, `cpu` seconds of the pooler. Zero until the block is over."""

    seconds = 0.0
    cpu = 0.0


@contextlib.contextmanager
def metered(target: Target) -> Iterator[Meter]:
    """Meter a block of work on a target; a direct connection has no pooler and its `cpu` stays 0."""
    meter = Meter()
    started, cpu = perf_counter(), _cpu(target)
    yield meter
    meter.seconds = perf_counter() - started
    meter.cpu = _cpu(target) - cpu


def _cpu(target: Target) -> float:
    return cpu_seconds(target.pid) if target.pid else 0.0


def if_pooler(target: Target, **figures: float) -> Figures:
    """These figures, or none when there is no pooler in the way."""
    return figures if target.pid else {}
