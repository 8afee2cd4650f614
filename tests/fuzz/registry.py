"""
The targets of fuzzing, by name.

Theory. A target is one function that takes any bytes at all, and the errors it may raise: "raises our error or parses".
Whatever else comes out of it is a defect, and so is time: `tests/fuzz/steps.py` counts what one input costs. A new
parser is one line, in the file of its room (wire, sql, files, logins, console, streams):

    target("startup", parse_startup, ProtocolError, Refused, seeds=(b"...",))

The same target is run by three: `test_fuzz.py` over what was found before (corpus/NAME/) and over what hypothesis
thinks of, on every `make test`; `hunt.py` for as long as it is told, guided by coverage where atheris is installed.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
ENCODING = "latin-1"


@dataclass(frozen=True, slots=True)
class Target:
    """`run` may raise `errors`, and nothing else. An input costs at most `base` + `each` opcodes for every byte."""

    name: str
    run: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]
    base: int
    each: int

    def feed(self, data: bytes) -> None:
        with contextlib.suppress(*self.errors):
            self.run(data)

    @property
    def folder(self) -> Path:
        return CORPUS / self.name

    @property
    def corpus(self) -> list[Path]:
        """What was found before."""
        return sorted(path for path in self.folder.glob("*") if path.is_file())


TARGETS: dict[str, Target] = {}


def target(
    name: str,
    run: Callable[[bytes], object],
    *errors: type[Exception],
    seeds: tuple[bytes, ...] = (),
    base: int = 20_000,
    each: int = 1_000,
) -> None:
    assert name not in TARGETS
    TARGETS[name] = Target(name, run, errors, seeds, base, each)


def text_of(data: bytes) -> str:
    """Bytes of a file or a packet as we decode them: what is not UTF-8 becomes lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def cut(data: bytes, count: int) -> list[bytes]:
    """`count` pieces of one input, parted by the first zero bytes; those that are missing are empty."""
    pieces = data.split(b"\0", count - 1)
    return pieces + [b""] * (count - len(pieces))
