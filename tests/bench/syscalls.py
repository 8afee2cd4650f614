"""
System calls per transaction, counted by `strace -c`.

Theory. System calls are most of a pooler's cost, and unlike time they do not depend on how busy the machine is.
strace slows the pooler several times, so such a run gives a count and no timing. To leave out what belongs to
logging in and hanging up, a run of few transactions is counted too and the two are subtracted.
"""

import contextlib
import re
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.bench.processes import PATIENCE, Failed, last_line, stop

_TOTAL = re.compile(r"^\s*(\d+)\s+total\s*$", re.MULTILINE)


class Tally:
    """How many system calls there were; -1 while they are still being counted."""

    calls = -1


@contextlib.contextmanager
def counting(pid: int, folder: Path) -> Iterator[Tally]:
    """Count the calls of a process while the block runs. Failed when strace is missing or may not attach."""
    program = shutil.which("strace")
    if program is None:
        raise Failed("strace is not installed")
    tally, summary = Tally(), folder / f"strace-{pid}.txt"
    command = [program, "-c", "-U", "calls,name", "-f", "-p", str(pid), "-o", str(summary)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _wait_attached(process)
        yield tally
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
        tally.calls = parse_total(summary.read_text())
    except subprocess.TimeoutExpired as error:
        raise Failed("strace does not end") from error
    finally:
        stop(process)
        assert process.stderr is not None
        process.stderr.close()


def _wait_attached(process: "subprocess.Popen[str]") -> None:
    """strace says one line when it holds the process, or why it cannot and ends."""
    assert process.stderr is not None
    speaks, _, _ = select.select([process.stderr], [], [], PATIENCE)
    first = process.stderr.readline() if speaks else "no answer"
    if "attached" not in first:
        raise Failed(f"strace cannot attach: {last_line(first)}")


def parse_total(summary: str) -> int:
    """The number of calls in the table that `strace -c -U calls,name` writes; 0 when there were none."""
    found = _TOTAL.search(summary)
    return int(found[1]) if found else 0
