"""
`make fuzz`: every target for so many seconds, several at a time; what breaks one ends with status 1.

Theory. A hunt is a process of its own, since a fuzzer that finds something ends its process, and since an input may
take all memory there is. Together they take (number of targets) * SECONDS / JOBS; a hunt that does not end by itself is
ended. What reaches new code is kept below .local/fuzz, so the next run goes on there; with --keep some of it goes
to tests/fuzz/corpus, which `make test` runs through.
"""

import argparse
import asyncio
import os
import re
import shutil
import sys
from pathlib import Path

from tests.fuzz.targets import TARGETS

WORK = Path(".local/fuzz")
GRACE = 120  # seconds beyond its own that a hunt may take to start and to end
MOST_KEPT = 30  # inputs of each target in the corpus
KEPT_LENGTH = 300  # bytes of one


async def hunt(name: str, seconds: int, places: asyncio.Semaphore) -> bool:
    """Is it unbroken?"""
    async with places:
        call = [sys.executable, "-m", "tests.fuzz.hunt", name, str(seconds), str(WORK / name)]
        process = await asyncio.create_subprocess_exec(*call, stdout=-1, stderr=asyncio.subprocess.STDOUT)
        try:
            said, _ = await asyncio.wait_for(process.communicate(), seconds + GRACE)
        except TimeoutError:
            process.kill()
            await process.wait()
            said = b"it did not end by itself\n"
    tell(name, said.decode(errors="replace"), is_sound=process.returncode == 0)
    return process.returncode == 0


def tell(name: str, said: str, *, is_sound: bool) -> None:
    runs = re.search(r"stat::number_of_executed_units: (\d+)", said)
    print(f"{name:20} {'sound ' if is_sound else 'BROKEN'} {runs[1] if runs else '?':>10} inputs", flush=True)
    if not is_sound:
        print(said[-6000:], flush=True)


def keep(name: str) -> None:
    """Some of what reached new code, short and long, as far as there is room."""
    found = [path for path in (WORK / name).glob("*") if 0 < path.stat().st_size <= KEPT_LENGTH]
    found.sort(key=lambda path: (path.stat().st_size, path.name))
    TARGETS[name].folder.mkdir(parents=True, exist_ok=True)
    for path in found[:: len(found) // max(MOST_KEPT - len(TARGETS[name].corpus), 1) + 1]:
        shutil.copyfile(path, TARGETS[name].folder / path.name[:16])


async def hunt_all(names: list[str], seconds: int, jobs: int) -> bool:
    places = asyncio.Semaphore(jobs)
    return all(await asyncio.gather(*(hunt(name, seconds, places) for name in names)))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[1])  # type: ignore[union-attr]
    parser.add_argument("names", nargs="*", help=f"targets, all by default: {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (%(default)s)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="at a time (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="keep the smallest of what reached new code in the corpus")
    said = parser.parse_args()
    names = said.names or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    WORK.mkdir(parents=True, exist_ok=True)
    is_sound = asyncio.run(hunt_all(names, said.seconds, said.jobs))
    if said.keep:
        for name in names:
            keep(name)
    return not is_sound


if __name__ == "__main__":
    sys.exit(main())
