"""
What is measured, one row a measure.

Theory. A measure is a function of the bench and a target; it gives figures by name (units in `figures.UNITS`). The
table at the end is the whole list: what is added later (open loops, prepared statements, mixed loads) is a function
and a row. CPU is the pooler's alone, so there is none for direct connections.

Measures of which one run says enough, since they count instead of timing, are taken in the first round only.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import pgbench
from tests.bench.cluster import Cluster
from tests.bench.figures import Figures
from tests.bench.processes import Failed, cpu_seconds, run
from tests.bench.syscalls import counting
from tests.bench.targets import OPENERS, Target
from tests.bench.wire import Address, Line, build_message

MICRO, MILLI = 1e6, 1e3


@dataclass(frozen=True)
class Bench:
    """One run of the bench: its PostgreSQL, where it may write, how long and how much."""

    cluster: Cluster
    folder: Path
    seconds: float  # of each timed load
    small_rows: int
    wide_rows: int
    idle_clients: int


@dataclass(frozen=True)
class Measure:
    """`work` gives the figures; `is_once`: first round only; `needs_pooler`: not for direct; `is_quick`: with --quick."""

    name: str
    says: str
    work: Callable[[Bench, Target], Figures]
    is_once: bool = False
    needs_pooler: bool = False
    is_quick: bool = True


def _cpu_of(target: Target, work: Callable[[], Figures]) -> tuple[Figures, float | None]:
    """The figures of `work`, and the CPU seconds that the pooler took meanwhile (None: there is no pooler)."""
    if target.pid is None:
        return work(), None
    before = cpu_seconds(target.pid)
    figures = work()
    return figures, cpu_seconds(target.pid) - before


def _pgbench(clients: int, *options: str) -> Callable[[Bench, Target], Figures]:
    def work(bench: Bench, target: Target) -> Figures:
        before = cpu_seconds(target.pid) if target.pid else 0.0
        done = pgbench.timed(bench.cluster.programs, target.address, clients, bench.seconds, options)
        figures = {"tps": done.tps, "latency_ms": done.latency_ms}
        if target.pid:
            figures["cpu_us"] = (cpu_seconds(target.pid) - before) / done.transactions * MICRO
        return figures

    return work
