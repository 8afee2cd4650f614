"""
What is measured, one row a measure.

Theory. A measure is a function of the bench and a target; it gives figures by name (units in `figures.UNITS`). The
table at the end is the whole list: what is added later (open loops, prepared statements, mixed loads) is a function
and a row. CPU is the pooler's alone, so there is none for direct connections.

Measures of which one run says enough, since they count instead of timing, are taken in the first round only.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median
from time import perf_counter

from tests.bench import pgbench
from tests.bench.cluster import Cluster
from tests.bench.encrypted import add_tls, add_tls_and_scram, encrypted_copy_out, encrypted_pgbench
from tests.bench.figures import Figures
from tests.bench.processes import Failed, cpu_seconds, run
from tests.bench.syscalls import counting
from tests.bench.targets import OPENERS, Target
from tests.bench.wire import Address, Line, build_message

MICRO, MILLI = 1e6, 1e3
GRACE = 30.0  # seconds that a load may take longer than asked
IDLE_TIME = 120.0  # seconds that all idle clients may take
FEW = 10  # transactions per client of the small run that is subtracted from the traced one
TRACED_RATE = 3000  # transactions a second that a pooler does about, while it is traced
EXTENDED = ("-M", "extended")
PREPARED = ("-M", "prepared")
MIXED = "repeat('x', 1 + (g * 7919::bigint % 40)::int)"  # lengths that look random and are the same each time


@dataclass(frozen=True)
class Bench:
    """One run of the bench: its PostgreSQL, where it may write, how long and how much."""

    cluster: Cluster
    folder: Path
    seconds: float  # of each timed load
    small_rows: int
    wide_rows: int
    idle_clients: int

    @property
    def says(self) -> str:
        """How much is done, in words."""
        rows = f"{self.small_rows:,} small or {self.wide_rows:,} wide rows"
        return f"loads of {self.seconds:g} s; {rows}; {self.idle_clients:,} idle clients"


@dataclass(frozen=True)
class Measure:
    """`work` gives the figures; it is done in the first round only, not for direct, or not with --quick, as flagged."""

    name: str
    says: str
    work: Callable[[Bench, Target], Figures]
    is_once: bool = False
    needs_pooler: bool = False
    is_quick: bool = True


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


def _if_pooler(target: Target, **figures: float) -> Figures:
    return figures if target.pid else {}


def _pgbench(clients: int, *options: str) -> Callable[[Bench, Target], Figures]:
    def work(bench: Bench, target: Target) -> Figures:
        with metered(target) as meter:
            done = pgbench.timed(bench.cluster.programs, target.address, clients, bench.seconds, options)
        each = meter.cpu / done.transactions * MICRO
        return {"tps": done.tps, "latency_ms": done.latency_ms} | _if_pooler(target, cpu_us=each)

    return work


def _load(clients: int, rate: str, cost: str, *options: str) -> Callable[[Bench, Target], Figures]:
    """Our own load maker; its figure `rate` is per second, the CPU of one goes under the name `cost`."""

    def work(bench: Bench, target: Target) -> Figures:
        words = ["--clients", str(clients), "--seconds", str(bench.seconds), *options]
        with metered(target) as meter:
            figures = _helper("load", target.address, words, bench.seconds + GRACE)
        each = meter.cpu / (figures[rate] * bench.seconds) * MICRO
        return figures | _if_pooler(target, **{cost: each})

    return work


def _helper(name: str, address: Address, options: Sequence[str], seconds: float) -> Figures:
    """Run one of our own programs beside us, on its own interpreter, and read the figures it prints."""
    where = ["--host", address.host, "--port", str(address.port), "--user", address.user]
    command = [sys.executable, "-m", f"tests.bench.{name}", *where, "--database", address.database, *options]
    figures: Figures = json.loads(run(command, seconds=seconds))
    return figures


def _copy_out(rows: Callable[[Bench], int], least: int, columns: str) -> Callable[[Bench, Target], Figures]:
    """COPY so many rows of `columns` (over a series g) out; Failed when fewer than `least` bytes a row came."""

    def work(bench: Bench, target: Target) -> Figures:
        series = f"SELECT generate_series(1, {rows(bench)}) AS g"
        with Line(target.address) as line, metered(target) as meter:
            got = line.ask(f"COPY (SELECT {columns} FROM ({series}) AS s) TO STDOUT")
        if got < least * rows(bench):
            raise Failed(f"COPY out gave only {got} bytes")
        return {"seconds": meter.seconds} | _if_pooler(target, cpu_ms=meter.cpu * MILLI)

    return _repeated(work)


def _copy_in(bench: Bench, target: Target) -> Figures:
    payload = copy_payload(bench.small_rows)
    with Line(bench.cluster.address) as line:
        line.ask("TRUNCATE bench_in")
    with Line(target.address) as line, metered(target) as meter:
        line.copy_in("COPY bench_in FROM STDIN", payload)
    return {"seconds": meter.seconds} | _if_pooler(target, cpu_ms=meter.cpu * MILLI)


def _repeated(work: Callable[[Bench, Target], Figures]) -> Callable[[Bench, Target], Figures]:
    """The same over and over until the bench's seconds are gone, since once is short; the median of each figure."""

    def repeat(bench: Bench, target: Target) -> Figures:
        end = perf_counter() + bench.seconds
        runs = [work(bench, target)]
        while perf_counter() < end:
            runs.append(work(bench, target))
        return {name: median(one[name] for one in runs) for name in runs[0]}

    return repeat


@lru_cache(maxsize=1)
def copy_payload(rows: int) -> bytes:
    """That many CopyData messages of one row each: the numbers from 1."""
    return b"".join(build_message(b"d", b"%d\n" % number) for number in range(1, rows + 1))


def _syscalls(clients: int, *options: str) -> Callable[[Bench, Target], Figures]:
    def count(bench: Bench, target: Target, each: int) -> int:
        assert target.pid is not None
        with counting(target.pid, bench.folder) as tally:
            pgbench.counted(bench.cluster.programs, target.address, clients, each, (*pgbench.SELECT_ONLY, *options))
        return tally.calls

    def work(bench: Bench, target: Target) -> Figures:
        few, many = FEW, FEW + round(TRACED_RATE * bench.seconds / clients)
        calls = count(bench, target, many) - count(bench, target, few)
        return {"syscalls": calls / ((many - few) * clients)}

    return work


def _idle(bench: Bench, target: Target) -> Figures:
    """On a fresh pooler: memory freed by earlier clients would be used again."""
    opener = OPENERS[target.name]
    with opener(bench.cluster.address, bench.folder / f"{target.name}-idle.log") as fresh:
        options = ["--pid", str(fresh.pid), "--clients", str(bench.idle_clients)]
        return _helper("idle", fresh.address, options, IDLE_TIME)


def _small(bench: Bench) -> int:
    return bench.small_rows


def _wide(bench: Bench) -> int:
    return bench.wide_rows


MEASURES: Sequence[Measure] = (
    Measure("simple-1", "pgbench -S, 1 client", _pgbench(1, "-S")),
    Measure("simple-16", "pgbench -S, 16 clients", _pgbench(16, "-S"), is_quick=False),
    Measure("simple-64", "pgbench -S, 64 clients", _pgbench(64, "-S")),
    Measure("simple-256", "pgbench -S, 256 clients", _pgbench(256, "-S"), is_quick=False),
    Measure("extended-1", "pgbench -S -M extended, 1 client", _pgbench(1, "-S", *EXTENDED), is_quick=False),
    Measure("extended-16", "pgbench -S -M extended, 16 clients", _pgbench(16, "-S", *EXTENDED), is_quick=False),
    Measure("extended-64", "pgbench -S -M extended, 64 clients", _pgbench(64, "-S", *EXTENDED)),
    Measure("extended-256", "pgbench -S -M extended, 256 clients", _pgbench(256, "-S", *EXTENDED), is_quick=False),
    Measure("prepared-1", "pgbench -S -M prepared, 1 client", _pgbench(1, "-S", *PREPARED), is_quick=False),
    Measure("prepared-64", "pgbench -S -M prepared, 64 clients", _pgbench(64, "-S", *PREPARED)),
    Measure(
        "load-64", "one SELECT by key, 64 clients of our own load maker", _load(64, "tps", "cpu_us"), is_quick=False
    ),
    Measure("tpcb-16", "pgbench's TPC-B-like script, 16 clients", _pgbench(16)),
    Measure("connect-8", "pgbench -S -C (a new connection each time), 8 clients", _pgbench(8, "-S", "-C")),
    Measure("logins", "log in (trust) and out, 16 clients", _load(16, "logins", "login_cpu_us", "--logins")),
    Measure("copy-out-small", "COPY out, small rows: a number", _copy_out(_small, 10, "g")),
    Measure("copy-out-mixed", "COPY out, small rows: 1 to 40 bytes", _copy_out(_small, 20, MIXED), is_quick=False),
    Measure("copy-out-wide", "COPY out, wide rows: 1 kB", _copy_out(_wide, 1000, "g, repeat('x', 1000)")),
    Measure("copy-in-small", "COPY in, small rows: a number, a message each", _repeated(_copy_in)),
    Measure(
        "tls-connect-8",
        "pgbench -S -C over TLS 1.3 with SCRAM-SHA-256, 8 clients; P-256 certificate",
        encrypted_pgbench(8, "login_cpu_us", add_tls_and_scram, "-S", "-C"),
        needs_pooler=True,
    ),
    Measure(
        "tls-simple-64",
        "pgbench -S over TLS 1.3, 64 clients",
        encrypted_pgbench(64, "cpu_us", add_tls, "-S"),
        needs_pooler=True,
    ),
    Measure("tls-copy-out-wide", "COPY out over TLS 1.3, wide rows: 1 kB", encrypted_copy_out, needs_pooler=True),
    Measure("syscalls-64", "strace -c, pgbench -S, 64 clients", _syscalls(64), is_once=True, needs_pooler=True),
    Measure(
        "syscalls-prepared-64",
        "strace -c, pgbench -S -M prepared, 64 clients",
        _syscalls(64, *PREPARED),
        is_once=True,
        needs_pooler=True,
    ),
    Measure("idle", "memory of idle clients on a fresh pooler", _idle, is_once=True, needs_pooler=True),
)
