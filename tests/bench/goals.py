"""
What the pooler must reach, one row a goal.

Theory. A goal is a figure of one measure, taken either as it stands or as a ratio to another target's figure in
the same run, and a bound it must keep. Latency is asked for as speed ("at least 0.9 of PgBouncer"): for a
figure where less is better that is a ratio of at most 1 / 0.9.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.figures import Results

OURS = "pgshuttle"
THEIRS = "pgbouncer"


@dataclass(frozen=True)
class Goal:
    """`says` in words; the figure of `measure`, over that of `beside` if given, within `at_least` .. `at_most`."""

    says: str
    measure: str
    figure: str
    beside: str | None = None
    at_least: float | None = None
    at_most: float | None = None

    def value(self, results: Results) -> float | None:
        """What the bound is put to; None when it was not measured."""
        if self.beside is None:
            return results.middle(self.measure, self.figure, OURS)
        return results.ratio(self.measure, self.figure, OURS, self.beside)

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
        return bound if self.beside is None else f"{bound} of {self.beside}'s"


GOALS: Sequence[Goal] = (
    Goal("syscalls per transaction, 64 clients", "syscalls-64", "syscalls", at_most=4.3),
    Goal("throughput, 64 clients", "simple-64", "tps", THEIRS, at_least=0.9),
    Goal("latency, 1 client (0.9 of the speed)", "simple-1", "latency_ms", THEIRS, at_most=1.11),
    Goal("CPU of COPY out, rows of 1 kB", "copy-out-wide", "cpu_ms", THEIRS, at_most=0.8),
    Goal("CPU of COPY out, small rows", "copy-out-small", "cpu_ms", THEIRS, at_most=1.3),
    Goal("RSS of an idle client, bytes", "idle", "idle_bytes", at_most=6144),
    Goal("logins per second, trust", "logins", "logins", THEIRS, at_least=0.8),
    Goal("TLS logins per second, SCRAM", "tls-connect-8", "tps", THEIRS, at_least=0.8),
    Goal("throughput over TLS, 64 clients", "tls-simple-64", "tps", THEIRS, at_least=0.8),
    Goal("COPY out over TLS (0.75 of the speed)", "tls-copy-out-wide", "seconds", THEIRS, at_most=1.33),
)
