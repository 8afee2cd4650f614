"""Where and with what a benchmark ran: words without which its numbers say nothing."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.bench.processes import Failed, run
from tests.bench.targets import find_pgbouncer


def describe_machine(programs: Path) -> dict[str, str]:
    """Names and values for the head of the report: `programs` is the folder of PostgreSQL's."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{os.cpu_count()} cores, {_processor()}; all programs share them",
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "uvloop": _package("uvloop"),
        "PostgreSQL": _first_line([str(programs / "postgres"), "--version"]),
        "PgBouncer": _first_line([find_pgbouncer() or "pgbouncer", "--version"]),
    }


def _processor() -> str:
    with open("/proc/cpuinfo") as lines:
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _first_line(command: list[str]) -> str:
    try:
        return run(command, seconds=10).splitlines()[0]
    except (Failed, OSError):
        return "not installed"
