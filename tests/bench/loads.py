"""
Measures of transactions: pgbench's loads, and the one of our own load maker.

Theory. Each gives a rate, latencies and the pooler's CPU per transaction. Reads and writes mixed are pgbench's own two
scripts, drawn by weight; there the percentiles are told apart, since a write is seven statements and would hide the
reads. The open loops ask at fixed rates whatever the answers do, which a closed loop never shows. The CPU is that of a
whole run, so the logins at its start are in it: those of 256 clients are about a percent of two seconds.

pgbench's prepared mode gives a name to each statement once and then only executes it. That needs a pooler which knows
the names of its clients' statements, as PgBouncer does from 1.21 on.
"""

from functools import cache

from tests.bench import helper, pgbench
from tests.bench.figures import Figures
from tests.bench.measure import MICRO, Bench, Unavailable, Work, if_pooler, metered
from tests.bench.pgbench_log import summarize
from tests.bench.targets import PREPARED_SINCE, THEIRS, Target, pgbouncer_version
from tests.bench.wire import Line

GRACE = 30.0  # seconds that a load may take longer than asked
READS, WRITES = 0, 1  # numbers of the scripts of the mixed load
SWEEPING = ("VACUUM pgbench_branches", "VACUUM pgbench_tellers", "TRUNCATE pgbench_history")
MIXED_SCRIPTS = ("-b", "select-only@80", "-b", "tpcb-like@20")


def _run(bench: Bench, target: Target, clients: int, *options: str) -> tuple[pgbench.Outcome, Figures]:
    """One run of pgbench; what it did, and the pooler's CPU for each."""
    with metered(target) as meter:
        done = pgbench.timed(bench.cluster.programs, target.address, clients, bench.seconds, options)
    return done, if_pooler(target, cpu_us=meter.cpu / done.transactions * MICRO)


def closed(clients: int, *options: str) -> Work:
    """pgbench, each client asking as soon as it is answered."""

    def work(bench: Bench, target: Target) -> Figures:
        done, cpu = _run(bench, target, clients, *options)
        return done.figures | cpu

    return work


def at_rate(clients: int, rate: int, *options: str) -> Work:
    """pgbench, so many transactions a second whatever comes back; latencies count from when each was due."""
    return closed(clients, "-R", str(rate), *options)


def mixed(clients: int) -> Work:
    """Four reads to one write."""

    def work(bench: Bench, target: Target) -> Figures:
        done, cpu = _run(bench, target, clients, *MIXED_SCRIPTS)
        reads, writes = (summarize(done.latencies.get(script, ())) for script in (READS, WRITES))
        return {"tps": done.tps, "reads_p99_ms": reads["p99_ms"], "writes_p99_ms": writes["p99_ms"]} | cpu

    return work


def swept(work: Work) -> Work:
    """The same on small tables without dead rows, as pgbench sees to it by itself where it is not the pooler's time:
    each update of a branch walks over the dead ones, which is more with every write of those who came before."""

    def after_sweeping(bench: Bench, target: Target) -> Figures:
        with Line(bench.cluster.address) as line:
            for each in SWEEPING:
                line.ask(each)
        return work(bench, target)

    return after_sweeping


def prepared(work: Work) -> Work:
    """The same, but not from a PgBouncer that cannot do it."""

    def checked(bench: Bench, target: Target) -> Figures:
        if target.name == THEIRS:
            check_prepared(_pgbouncer_version())
        return work(bench, target)

    return checked


@cache
def _pgbouncer_version() -> tuple[int, ...]:
    return pgbouncer_version()


def check_prepared(version: tuple[int, ...]) -> None:
    """Unavailable when a PgBouncer of this version knows no prepared statements in transaction mode."""
    if version < PREPARED_SINCE:
        said, since = (".".join(map(str, numbers)) for numbers in (version, PREPARED_SINCE))
        raise Unavailable(f"PgBouncer {said} knows no prepared statements in transaction mode (from {since} on)")


def own(clients: int) -> Work:
    """Our own load maker."""

    def work(bench: Bench, target: Target) -> Figures:
        words = ["--clients", str(clients), "--seconds", str(bench.seconds)]
        with metered(target) as meter:
            figures = helper.call("load", target.address, words, bench.seconds + GRACE)
        return figures | if_pooler(target, cpu_us=meter.cpu / (figures["tps"] * bench.seconds) * MICRO)

    return work
