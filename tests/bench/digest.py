"""
The run in short: the table of deploy/docs/bench.md, one row a figure that a reader would ask for; the README has some.

Theory. The page has everything, which is too much to show at a door. The rows are chosen once and not after the run:
where we lose is shown as well as where we win. Each ratio is the median of those within a round.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench.figures import Results
from tests.bench.tables import format_ratio, table
from tests.bench.targets import DIRECT, LINES, OURS, THEIRS

COLUMNS = {DIRECT: "direct", THEIRS: "PgBouncer", OURS: "pgshuttle", LINES: "with lines"}
RATIOS = ((OURS, THEIRS), (LINES, THEIRS), (LINES, DIRECT))

Cell = Callable[[str, str, str], str]  # (measure, figure, target) to what stands in the table


@dataclass(frozen=True)
class Row:
    """A figure of a measure, and what a reader calls it."""

    words: str
    measure: str
    figure: str


ROWS: Sequence[Row] = (
    Row("`pgbench -S`, 1 client, latency, ms", "simple-1", "latency_ms"),
    Row("`pgbench -S`, 16 clients, transactions/s", "simple-16", "tps"),
    Row("`pgbench -S`, 64 clients, transactions/s", "simple-64", "tps"),
    Row("`pgbench -S`, 256 clients, transactions/s", "simple-256", "tps"),
    Row("median latency, 64 clients, ms", "simple-64", "p50_ms"),
    Row("99th percentile, 64 clients, ms", "simple-64", "p99_ms"),
    Row("99.9th percentile, 64 clients, ms", "simple-64", "p999_ms"),
    Row("pooler's CPU per transaction, 64 clients, us", "simple-64", "cpu_us"),
    Row("system calls per transaction, 64 clients", "syscalls-64", "syscalls"),
    Row("8,000 transactions/s asked for: 99th percentile, ms", "rate-8000", "p99_ms"),
    Row("`pgbench -S -M extended`, 64 clients, transactions/s", "extended-64", "tps"),
    Row("`pgbench -S -M prepared`, 64 clients, transactions/s", "prepared-64", "tps"),
    Row("`pgbench -S -M prepared`, 256 clients, transactions/s", "prepared-256", "tps"),
    Row("pooler's CPU per prepared round, 64 clients, us", "prepared-64", "cpu_us"),
    Row("four reads to a write, 64 clients, transactions/s", "mixed-64", "tps"),
    Row("four reads to a write: 99th percentile of the reads, ms", "mixed-64", "reads_p99_ms"),
    Row("TPC-B-like, 16 clients, transactions/s", "tpcb-16", "tps"),
    Row("`pgbench -C`, 8 clients, trust, transactions/s", "connect-8", "tps"),
    Row("`pgbench -C`, 8 clients, SCRAM, transactions/s", "connect-scram-8", "tps"),
    Row("logins/s, trust", "logins", "logins"),
    Row("logins/s, SCRAM", "logins-scram", "logins"),
    Row("2,000 clients at once, trust: all in after, s", "storm", "all_in_seconds"),
    Row("2,000 clients at once, SCRAM: all in after, s", "storm-scram", "all_in_seconds"),
    Row("pooler's CPU per login, trust, us", "logins", "login_cpu_us"),
    Row("pooler's CPU per login, SCRAM, us", "logins-scram", "login_cpu_us"),
    Row("COPY out, 300 k rows of 1 kB, pooler's CPU, ms", "copy-out-wide", "cpu_ms"),
    Row("COPY out, 1 M small rows of equal length, pooler's CPU, ms", "copy-out-small", "cpu_ms"),
    Row("COPY out, 1 M rows of 1 to 40 bytes, pooler's CPU, ms", "copy-out-mixed", "cpu_ms"),
    Row("SELECT, 1 M rows of 1 to 40 bytes, pooler's CPU, ms", "select-mixed", "cpu_ms"),
    Row("COPY in, 1 M small rows, pooler's CPU, ms", "copy-in-small", "cpu_ms"),
    Row("TLS 1.3: logins with SCRAM, per second (`pgbench -C`, P-256)", "tls-connect-8", "tps"),
    Row("TLS 1.3: `pgbench -S`, 64 clients, transactions/s", "tls-simple-64", "tps"),
    Row("TLS 1.3: COPY out, rows of 1 kB, seconds", "tls-copy-out-wide", "seconds"),
    Row("memory per idle client (10,000), bytes", "memory-10000", "idle_bytes"),
)


def build_digest(results: Results, cell: Cell) -> str:
    """The table; rows of which nothing was measured are left out."""
    head = ["", *COLUMNS.values(), *(f"{COLUMNS[mine]} / {COLUMNS[other]}" for mine, other in RATIOS)]
    measured = set(results.rows())
    return table(head, [_row(row, results, cell) for row in ROWS if (row.measure, row.figure) in measured])


def _row(row: Row, results: Results, cell: Cell) -> list[str]:
    ratios = (results.ratio(row.measure, row.figure, mine, other) for mine, other in RATIOS)
    return [row.words, *(cell(row.measure, row.figure, target) for target in COLUMNS), *map(format_ratio, ratios)]
