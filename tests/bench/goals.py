"""
What the pooler must reach, one row a goal.

Theory. A goal is a figure of one measure, taken either as it stands or as a ratio to another target's figure in
the same run (of the same measure, unless `than` names another one), and a bound it must keep. A ratio of latencies of
at most 1.1 is what "within 10 %" means.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.figures import Results
from tests.bench.targets import DIRECT, LINES, OURS, THEIRS


@dataclass(frozen=True)
class Goal:
    """`says` in words; `target`'s figure of `measure`, over that of `beside` if given, within at_least .. at_most."""

    says: str
    target: str
    measure: str
    figure: str
    beside: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    than: str | None = None  # the measure that `beside` is taken from

    def value(self, results: Results) -> float | None:
        """What the bound is put to; None when it was not measured."""
        if self.beside is None:
            return results.middle(self.measure, self.figure, self.target)
        return results.ratio(self.measure, self.figure, self.target, self.beside, self.than)

    def is_reached(self, results: Results) -> bool | None:
        """None when it was not measured."""
        value = self.value(results)
        if value is None:
            return None
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    @property
    def asked(self) -> str:
        """The bound in words."""
        bound = f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"
        if self.beside is None:
            return bound
        return f"{bound} of {self.beside}'s" + (f" in {self.than}" if self.than else "")


GOALS: Sequence[Goal] = (
    Goal("reads, 64 clients: throughput", LINES, "simple-64", "tps", THEIRS, at_least=1.8),
    Goal("reads, 256 clients: throughput", LINES, "simple-256", "tps", THEIRS, at_least=1.8),
    Goal("reads, 64 clients: CPU", LINES, "simple-64", "cpu_us", THEIRS, at_most=0.6),
    Goal("reads, 256 clients: CPU", LINES, "simple-256", "cpu_us", THEIRS, at_most=0.6),
    Goal("reads, 64 clients: system calls", LINES, "syscalls-64", "syscalls", at_most=2.4),
    Goal("reads, 64 clients: 99th percentile", LINES, "simple-64", "p99_ms", THEIRS, at_most=1.0),
    Goal("prepared reads, 64 clients: throughput", LINES, "prepared-64", "tps", DIRECT, at_least=1.5),
    Goal("prepared reads, 256 clients: throughput", LINES, "prepared-256", "tps", DIRECT, at_least=1.5),
    Goal("four reads to a write, 64 clients: throughput", LINES, "mixed-64", "tps", THEIRS, at_least=1.2),
    Goal("reads, 1 client: latency", LINES, "simple-1", "latency_ms", THEIRS, at_most=1.1),
    Goal("reads, 1 client: latency", OURS, "simple-1", "latency_ms", THEIRS, at_most=1.1),
    Goal("reads, 64 clients: system calls", OURS, "syscalls-64", "syscalls", at_most=4.1),
    Goal("reads, 64 clients: CPU", OURS, "simple-64", "cpu_us", THEIRS, at_most=1.0),
    Goal("prepared reads, 64 clients: CPU", OURS, "prepared-64", "cpu_us", THEIRS, at_most=1.15, than="simple-64"),
    Goal("TPC-B-like, 16 clients: throughput", OURS, "tpcb-16", "tps", THEIRS, at_least=1.0),
    Goal("COPY out, rows of 1 kB: CPU", OURS, "copy-out-wide", "cpu_ms", THEIRS, at_most=0.6),
    Goal("COPY out, small rows of equal length: CPU", OURS, "copy-out-small", "cpu_ms", THEIRS, at_most=1.0),
    Goal("COPY out, small rows of random length: CPU", OURS, "copy-out-mixed", "cpu_ms", THEIRS, at_most=1.5),
    Goal("SELECT, rows of 1 kB: CPU", OURS, "select-wide", "cpu_ms", THEIRS, at_most=0.6),
    Goal("SELECT, small rows of equal length: CPU", OURS, "select-small", "cpu_ms", THEIRS, at_most=1.0),
    Goal("SELECT, small rows of random length: CPU", OURS, "select-mixed", "cpu_ms", THEIRS, at_most=1.5),
    Goal("COPY in, small rows: CPU", OURS, "copy-in-small", "cpu_ms", THEIRS, at_most=1.0),
    Goal("pgbench -C, trust: throughput", OURS, "connect-8", "tps", THEIRS, at_least=1.0),
    Goal("pgbench -C, SCRAM: throughput", OURS, "connect-scram-8", "tps", THEIRS, at_least=1.0),
    Goal("logins, trust", OURS, "logins", "logins", THEIRS, at_least=1.0),
    Goal("logins, SCRAM", OURS, "logins-scram", "logins", THEIRS, at_least=1.0),
    Goal("2,000 logins at once, trust", OURS, "storm", "logins", THEIRS, at_least=1.0),
    Goal("2,000 logins at once, SCRAM", OURS, "storm-scram", "logins", THEIRS, at_least=1.0),
    Goal("bytes of an idle client, of 10,000", OURS, "memory-10000", "idle_bytes", at_most=4096),
    Goal("bytes of an idle client, of 10,000", LINES, "memory-10000", "idle_bytes", at_most=4096),
    Goal("TLS, SCRAM, pgbench -C: throughput", OURS, "tls-connect-8", "tps", THEIRS, at_least=0.8),
    Goal("TLS, reads, 64 clients: throughput", OURS, "tls-simple-64", "tps", THEIRS, at_least=0.8),
    Goal("TLS, COPY out: duration", OURS, "tls-copy-out-wide", "seconds", THEIRS, at_most=1.33),
)
