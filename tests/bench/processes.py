"""
Other programs: run within a time, started and ended by their own pid, and what the kernel counts for them.

Theory. Nothing outlives the benchmark and nothing can hang it: `run` bounds a command in seconds, `running`
ends what it started on the way out. Figures come from /proc: CPU time is user + system over all living threads,
in nanoseconds where the kernel keeps schedstat, else in clock ticks of usually 10 ms. Descendants are counted too,
for a pooler of several processes.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE = 5.0  # seconds between asking a process to end and making it


class Failed(Exception):
    """A program did not start, did not end in time, or ended badly. Says which and its last words."""


def run(command: Sequence[str | Path], *, seconds: float) -> str:
    """What the command printed. Failed when it takes longer than `seconds` or does not exit with 0."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{Path(words[0]).name} took longer than {seconds:g} s") from error
    if done.returncode:
        raise Failed(f"{Path(words[0]).name} exited with {done.returncode}: {find_reason(done.stderr)}")
    return done.stdout


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], *, log: Path, user: str | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """The command in the background, its output in `log`, as `user` (None: as ourselves); ended on the way out."""
    words = [str(word) for word in command]
    with log.open("ab") as sink:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, user=user, group=user and _group_of(user)
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process: "subprocess.Popen[bytes] | subprocess.Popen[str]") -> None:
    """Ask with SIGTERM, wait a little, then make it end."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _group_of(user: str) -> int:
    import pwd  # noqa: PLC0415 (not on every platform, and only root needs it)

    return pwd.getpwnam(user).pw_gid


def other_user() -> str | None:
    """Who runs the programs that refuse root: None when we are not root ourselves."""
    if os.geteuid() != 0:
        return None
    import pwd  # noqa: PLC0415

    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)


def find_reason(text: str) -> str:
    """The first line that PostgreSQL or a pooler has sent as an error, else the last one that says anything."""
    told = (line.strip() for line in text.splitlines() if "FATAL: " in line or "ERROR: " in line)
    return next(told, last_line(text))


def last_line(text: str) -> str:
    """The last line that says anything."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "(no words)"


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, its threads and its living descendants; 0 for one that is gone."""
    return sum(_own_cpu_seconds(one) for one in family(pid))


def _own_cpu_seconds(pid: int) -> float:
    try:
        threads = list(Path(f"/proc/{pid}/task").glob("*/schedstat"))
        exact = sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9  # nanoseconds on a processor
        return exact or _ticks(pid) / TICKS
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def _ticks(pid: int) -> int:
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(after_name[11]) + int(after_name[12])  # fields 14 and 15 of proc(5): utime, stime


def rss_bytes(pid: int) -> int:
    """Resident memory of a process and its living descendants."""
    return sum(_own_rss_bytes(one) for one in family(pid))


def _own_rss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def family(pid: int) -> list[int]:
    """A process and its living descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in task.read_text().split():
                found += family(int(child))
    return found
