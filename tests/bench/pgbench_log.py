"""
What `pgbench --log` wrote: one line a transaction, from which come the percentiles that pgbench does not tell.

Theory. Written by whom? pgbench with a log takes 17 us of processor for a transaction, half a microsecond more than
without; a driver of our own on uvloop takes 20, and on a machine of two cores the driver takes from those who are
measured. So closed and open loops both are pgbench's.

A line is: client, transaction, time in us, number of the script, seconds, microseconds, and under -R how late it began.
Under -R the time is counted from when the transaction was due and not from when it was sent, so a target that stalls
pays for all those that had to wait meanwhile. A transaction that failed or was skipped has a word in place of its time.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.bench.figures import Figures, percentile
from tests.bench.processes import Failed

TIME, SCRIPT = 2, 3  # columns of a line
US_PER_MS = 1000
PARTS = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}

Latencies = dict[int, list[int]]  # microseconds, by the number of the script


def read_logs(folder: Path) -> Latencies:
    """All of pgbench's logs in a folder: it writes one a thread."""
    found: Latencies = {}
    for log in sorted(folder.iterdir()):
        with log.open() as lines:
            parse_log(lines, found)
    return found


def parse_log(lines: Iterable[str], found: Latencies) -> None:
    """Add the times of a log to `found`. Failed when a line is none of pgbench's."""
    try:
        for line in lines:
            words = line.split(maxsplit=SCRIPT + 1)
            if words[TIME].isdigit():
                found.setdefault(int(words[SCRIPT]), []).append(int(words[TIME]))
    except (IndexError, ValueError):
        raise Failed(f"a line of pgbench's log is not understood: {line[:80]!r}") from None


def summarize(times: Iterable[int]) -> Figures:
    """The percentiles, in milliseconds. Failed when there is nothing."""
    ordered: Sequence[int] = sorted(times)
    if not ordered:
        raise Failed("pgbench's log is empty")
    return {name: percentile(ordered, part) / US_PER_MS for name, part in PARTS.items()}
