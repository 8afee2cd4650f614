"""
Measures of logins, by trust and by SCRAM: again and again, by pgbench -C, and very many at once.

Theory. Those that need a password get a pooler of their own, beside the one of the other measures: same file but for
the way to log in. So does a storm: it shall not find memory that an earlier crowd has left. Its pooler has a queue for
all of them at the listening socket, since with the usual 128 places most of a crowd waits for the kernel to knock a
second time, a second later, and that is all one would measure.
"""

from pathlib import Path

from tests.bench import helper, pgbench
from tests.bench.figures import Figures
from tests.bench.measure import MICRO, Bench, Work, if_pooler, metered
from tests.bench.scram import PASSWORD, add_scram
from tests.bench.targets import Addition, Target
from tests.bench.wire import Address, with_options

GRACE = 30.0  # seconds that a load may take longer than asked
STORM_TIME = 60.0  # seconds that all may take
QUEUE = "listen_backlog = 4096\n"


def logins(clients: int) -> Work:
    """In by trust and out, over and over."""

    def work(bench: Bench, target: Target) -> Figures:
        return _logins(bench, target, clients)

    return work


def scram_logins(clients: int) -> Work:
    """In by SCRAM and out, over and over."""

    def work(bench: Bench, target: Target) -> Figures:
        with bench.freshly(target, "scram", add_scram) as fresh:
            return _logins(bench, fresh, clients, "--scram")

    return work


def _logins(bench: Bench, target: Target, clients: int, *options: str) -> Figures:
    words = ["--clients", str(clients), "--seconds", str(bench.seconds), *options]
    with metered(target) as meter:
        figures = helper.call("login_load", target.address, words, bench.seconds + GRACE)
    each = meter.cpu / (figures["logins"] * bench.seconds) * MICRO
    return figures | if_pooler(target, login_cpu_us=each)


def connects(clients: int) -> Work:
    """pgbench, a new connection for each question."""

    def work(bench: Bench, target: Target) -> Figures:
        return _connects(bench, target, target.address, clients)

    return work


def scram_connects(clients: int) -> Work:
    """The same with a password."""

    def work(bench: Bench, target: Target) -> Figures:
        with bench.freshly(target, "scram", add_scram) as fresh:
            return _connects(bench, fresh, with_options(fresh.address, password=PASSWORD), clients)

    return work


def _connects(bench: Bench, target: Target, address: Address, clients: int) -> Figures:
    with metered(target) as meter:
        done = pgbench.timed(bench.cluster.programs, address, clients, bench.seconds, ["-S", "-C"])
    return {"tps": done.tps} | if_pooler(target, login_cpu_us=meter.cpu / done.transactions * MICRO)


def storm(clients: int) -> Work:
    """So many at once, by trust."""
    return _storm(clients, _add_queue)


def scram_storm(clients: int) -> Work:
    """So many at once, with a password."""
    return _storm(clients, _add_queue_and_scram, "--scram")


def _storm(clients: int, add: Addition, *options: str) -> Work:
    def work(bench: Bench, target: Target) -> Figures:
        count = bench.part(clients)
        words = ["--clients", str(count), "--at-once", *options]
        with bench.freshly(target, "storm", add) as fresh, metered(fresh) as meter:
            figures = helper.call("login_load", fresh.address, words, STORM_TIME)
        return figures | if_pooler(target, login_cpu_us=meter.cpu / count * MICRO)

    return work


def _add_queue(folder: Path) -> str:
    return QUEUE


def _add_queue_and_scram(folder: Path) -> str:
    return QUEUE + add_scram(folder)
