"""
Runs of pgbench, and what it says at the end of one.

Theory. pgbench is a closed loop: each client asks when it has been answered; with -R it is an open one, in which a
transaction is due when it is due. Its figures come as sentences, which are found by pattern, and its log gives what
they leave out; a run in which a client was cut off ends with a bad exit code and is Failed, not slow.
"""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from tests.bench.figures import Figures
from tests.bench.pgbench_log import Latencies, read_logs, summarize
from tests.bench.processes import Failed, run
from tests.bench.wire import Address

GRACE = 30.0  # seconds that a run may take longer than asked: to log in, and to end


@dataclass
class Outcome:
    """
    Transactions done, their rate per second (with -C logins included, else not), mean latency in ms; of a timed run
    the time of each transaction too.
    """

    transactions: int
    tps: float
    latency_ms: float
    latencies: Latencies = field(default_factory=dict)

    @property
    def figures(self) -> Figures:
        """Rate, mean and percentiles."""
        times = chain.from_iterable(self.latencies.values())
        return {"tps": self.tps, "latency_ms": self.latency_ms} | summarize(times)


def timed(programs: Path, address: Address, clients: int, seconds: float, options: Sequence[str]) -> Outcome:
    """Run for so many seconds; pgbench knows whole ones only, and at least one."""
    whole = max(1, round(seconds))
    with tempfile.TemporaryDirectory(prefix="bench-log-") as folder:
        log = ["--log", f"--log-prefix={folder}/log"]
        done = _pgbench(programs, address, clients, ["-T", str(whole), *log, *options], whole + GRACE)
        done.latencies = read_logs(Path(folder))
    return done


def counted(programs: Path, address: Address, clients: int, each: int, options: Sequence[str]) -> Outcome:
    """Run `each` transactions per client."""
    return _pgbench(programs, address, clients, ["-t", str(each), *options], 4 * GRACE)


def _pgbench(programs: Path, address: Address, clients: int, options: Sequence[str], seconds: float) -> Outcome:
    where = ["-h", address.host, "-p", str(address.port), "-U", address.user, address.database]
    threads = ["-j", str(min(2, clients))]
    return parse(run([programs / "pgbench", "-n", "-c", str(clients), *threads, *options, *where], seconds=seconds))


def parse(report: str) -> Outcome:
    """pgbench's closing words as an Outcome. Failed when one of them is missing, or nothing was done."""
    transactions = int(_find(r"transactions actually processed: (\d+)", report))
    if not transactions:
        raise Failed("pgbench did not one transaction in its time")
    return Outcome(
        transactions,
        float(_find(r"tps = ([\d.]+)", report)),
        float(_find(r"latency average = ([\d.]+) ms", report)),
    )


def _find(pattern: str, report: str) -> str:
    found = re.search(pattern, report)
    if found is None:
        raise Failed(f"pgbench does not say {pattern!r}")
    return found[1]
