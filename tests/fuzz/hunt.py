"""
One target, hunted for so many seconds: `python -m tests.fuzz.hunt NAME SECONDS FOLDER`.

Theory. Where atheris is installed (`pip install '.[fuzz]'`; it has wheels for CPython 3.11 to 3.13 on Linux) it guides
the hunt by coverage of `protocol` and `proxy`, keeps what reaches new code in FOLDER, and writes what breaks a target
to FOLDER.broken. Elsewhere a mutator of our own goes over seeds and corpus without a guide, and finds less.
What breaks a target is an exception that is none of its errors, an input that takes ten seconds, or two gigabytes.
"""

import random
import sys
import time
import traceback
from collections.abc import Callable
from hashlib import sha1
from importlib.util import find_spec
from pathlib import Path

LONGEST = 4096  # bytes of an input
STALE = 10  # seconds one input may take


def hunt(name: str, seconds: int, folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    broken = folder.parent / f"{folder.name}.broken"
    broken.mkdir(exist_ok=True)
    return (hunt_guided if find_spec("atheris") else hunt_blindly)(name, seconds, folder, broken)


def hunt_guided(name: str, seconds: int, folder: Path, broken: Path) -> int:
    import atheris  # noqa: PLC0415  only here: what is imported below is instrumented

    with atheris.instrument_imports(include=["protocol", "proxy"]):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415
    target = TARGETS[name]
    for seed in target.seeds:
        (folder / sha1(seed).hexdigest()).write_bytes(seed)
    limits = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-timeout={STALE}", "-rss_limit_mb=2048"]
    told = [f"-artifact_prefix={broken}/", "-print_final_stats=1", "-verbosity=1"]
    atheris.Setup([name, *limits, *told, str(folder), *([str(target.folder)] if target.corpus else [])], target.feed)
    atheris.Fuzz()  # ends the process
    return 0


def hunt_blindly(name: str, seconds: int, folder: Path, broken: Path) -> int:
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415

    target, until, chance, runs = TARGETS[name], time.monotonic() + seconds, random.Random(name), 0
    known = [*target.seeds, *(path.read_bytes() for path in target.corpus), b""]
    while time.monotonic() < until:
        data, runs = mutate(chance, chance.choice(known), chance.choice(known)), runs + 1
        began = time.process_time()
        try:
            target.feed(data)
            assert time.process_time() - began < STALE, "it takes too long"
        except Exception:
            traceback.print_exc()
            place = broken / f"crash-{sha1(data).hexdigest()}"
            place.write_bytes(data)
            print(f"what broke it is in {place}")
            return 1
    print(f"stat::number_of_executed_units: {runs}")
    return 0


def mutate(chance: random.Random, data: bytes, other: bytes) -> bytes:
    """A few small accidents."""
    for _ in range(chance.randint(1, 4)):
        data = chance.choice(ACCIDENTS)(chance, data, chance.randint(0, len(data)), other)
    return data[:LONGEST]


def _burst(chance: random.Random, data: bytes, at: int, other: bytes) -> bytes:
    return data[:at] + chance.randbytes(chance.randint(1, 8)) + data[at:]


def _flip(chance: random.Random, data: bytes, at: int, other: bytes) -> bytes:
    return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]


def _cut(chance: random.Random, data: bytes, at: int, other: bytes) -> bytes:
    return data[:at] + data[at + chance.randint(1, 16) :]


def _repeat(chance: random.Random, data: bytes, at: int, other: bytes) -> bytes:
    return data[:at] + data[at : at + chance.randint(1, 16)] * chance.choice((2, 3, 50)) + data[at:]


def _cross(chance: random.Random, data: bytes, at: int, other: bytes) -> bytes:
    return data[:at] + other[chance.randint(0, len(other)) :]


ACCIDENTS: list[Callable[[random.Random, bytes, int, bytes], bytes]] = [_burst, _flip, _cut, _repeat, _cross]

if __name__ == "__main__":
    sys.exit(hunt(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
