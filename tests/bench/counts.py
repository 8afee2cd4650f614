"""
Measures that count and do not time: system calls of a transaction, memory of a client.

Theory. What is counted is the same on a busy machine, so once is enough. strace slows a pooler several times; to leave
out what belongs to logging in and hanging up, a run of few transactions is counted too and the two are subtracted.
"""

from tests.bench import helper, pgbench
from tests.bench.figures import Figures
from tests.bench.measure import Bench, Work
from tests.bench.syscalls import counting
from tests.bench.targets import Target

CROWD_TIME = 120.0  # seconds that a crowd may take
FEW = 10  # transactions per client of the small run
TRACED_RATE = 3000  # transactions a second that a pooler does about, while it is traced


def syscalls(clients: int, *options: str) -> Work:
    """strace -c, with pgbench."""

    def count(bench: Bench, target: Target, each: int) -> int:
        assert target.pid is not None
        with counting(target.pid, bench.folder) as tally:
            pgbench.counted(bench.cluster.programs, target.address, clients, each, options)
        return tally.calls

    def work(bench: Bench, target: Target) -> Figures:
        few, many = FEW, FEW + round(TRACED_RATE * bench.seconds / clients)
        calls = count(bench, target, many) - count(bench, target, few)
        return {"syscalls": calls / ((many - few) * clients)}

    return work


def memory(clients: int) -> Work:
    """On a fresh pooler: memory freed by earlier clients would be used again."""

    def work(bench: Bench, target: Target) -> Figures:
        with bench.freshly(target, "memory") as fresh:
            options = ["--pid", str(fresh.pid), "--clients", str(bench.part(clients)), "--seconds", str(bench.seconds)]
            return helper.call("memory", fresh.address, options, CROWD_TIME)

    return work
