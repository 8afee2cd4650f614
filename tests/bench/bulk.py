"""
Measures of bulk: many rows at once, out by COPY and by SELECT, and in by COPY.

Theory. Three kinds of rows: of 1 kB, where bytes are what costs; small ones of equal length, and small ones whose
length looks random, where each row costs. COPY and SELECT bring the same rows as different messages. Once is short, so
each is repeated until the bench's seconds are gone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from time import perf_counter

from tests.bench.figures import Figures
from tests.bench.measure import MILLI, Bench, Work, if_pooler, metered
from tests.bench.processes import Failed
from tests.bench.targets import Target
from tests.bench.wire import Line, build_message


@dataclass(frozen=True)
class Rows:
    """A kind of rows: columns over a series g, how many of them, and the least bytes that one takes."""

    columns: str
    count: Callable[[Bench], int]
    least: int

    def query(self, bench: Bench) -> str:
        series = f"SELECT generate_series(1000001, 1000000 + {self.count(bench)}) AS g"
        return f"SELECT {self.columns} FROM ({series}) AS s"


EQUAL = Rows("g", lambda bench: bench.small_rows, 7)
MIXED = Rows("repeat('x', 1 + (g * 7919::bigint % 40)::int)", lambda bench: bench.small_rows, 10)  # 1 to 40 bytes
WIDE = Rows("g, repeat('x', 1000)", lambda bench: bench.wide_rows, 1000)


def copy_out(rows: Rows) -> Work:
    """COPY ... TO STDOUT; duration and the pooler's CPU of one."""
    return _asked(rows, "COPY ({}) TO STDOUT")


def select(rows: Rows) -> Work:
    """The same rows by a simple query."""
    return _asked(rows, "{}")


def _asked(rows: Rows, form: str) -> Work:
    def work(bench: Bench, target: Target) -> Figures:
        with Line(target.address) as line, metered(target) as meter:
            got = line.ask(form.format(rows.query(bench)))
        if got < rows.least * rows.count(bench):
            raise Failed(f"only {got} bytes came")
        return {"seconds": meter.seconds} | if_pooler(target, cpu_ms=meter.cpu * MILLI)

    return _repeated(work)


def _copy_in(bench: Bench, target: Target) -> Figures:
    """Numbers, a message each, into an empty table."""
    payload = copy_payload(bench.small_rows)
    with Line(bench.cluster.address) as line:
        line.ask("TRUNCATE bench_in")
    with Line(target.address) as line, metered(target) as meter:
        line.copy_in("COPY bench_in FROM STDIN", payload)
    return {"seconds": meter.seconds} | if_pooler(target, cpu_ms=meter.cpu * MILLI)


@lru_cache(maxsize=1)
def copy_payload(rows: int) -> bytes:
    """That many CopyData messages of one row each: the numbers from 1."""
    return b"".join(build_message(b"d", b"%d\n" % number) for number in range(1, rows + 1))


def _repeated(work: Work) -> Work:
    """The same over and over until the bench's seconds are gone; the median of each figure."""

    def repeat(bench: Bench, target: Target) -> Figures:
        end = perf_counter() + bench.seconds
        runs = [work(bench, target)]
        while perf_counter() < end:
            runs.append(work(bench, target))
        return {name: median(one[name] for one in runs) for name in runs[0]}

    return repeat


copy_in = _repeated(_copy_in)
