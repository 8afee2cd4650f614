"""
What is known of the shapes of texts: may they share a line, and have they shown that they are fast and small?

Theory. A text that may share by its words need not be fit for it: it may read a million rows. So a shape must first be
seen, run on servers of its clients' own (probes.py): `NEEDED` fast and small answers in a row, and it is trusted. Three
slow ones close together, a single one that is slow beyond doubt or a large one, and the trust is lost, and has to be
earned anew by twice as many as the last time: who swings between fast and slow shares less and less. (One slow answer
says little: this process may have been waiting for a core.)

What was measured on the way is shown as well (`Figures`, SHOW STATEMENTS).

Times are seconds a server took, sizes bytes of an answer.
"""

import enum
from math import exp, log
from typing import Any, Final

from protocol.sharing import FIT, Verdict
from protocol.sketches import sketch

NEEDED: Final = 3  # good answers in a row before a shape is trusted
NEEDED_AT_MOST: Final = 1_000
STRIKES: Final = 3  # slow answers, each within `CLOSE` of the one before
CLOSE: Final = 20
SLACK: Final = 10  # times the limit: slow beyond doubt
BUCKETS: Final = 80  # of times: four to a doubling, from a microsecond on
_STEPS: Final = 4 / log(2)


def find_bucket(seconds: float) -> int:
    return min(int(log(max(seconds * 1e6, 1.0)) * _STEPS), BUCKETS - 1)


class Doubt(enum.Enum):
    """What a shape lost its trust by, or never earned it."""

    SLOW = "slow"
    LARGE = "large"
    STUCK = "stuck"


class Figures:
    """What was measured of some statements."""

    __slots__ = ("bytes", "calls", "errors", "spent", "times", "waited")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.calls = 0  # that went well
        self.errors = 0
        self.spent = self.waited = 0.0  # by servers; by clients, for one
        self.bytes = 0
        self.times = [0] * BUCKETS  # how many answers took how long

    def add(self, other: "Figures") -> None:
        self.calls += other.calls
        self.errors += other.errors
        self.spent += other.spent
        self.waited += other.waited
        self.bytes += other.bytes
        self.times = [one + two for one, two in zip(self.times, other.times, strict=True)]

    def find_percentile(self, part: float) -> float:
        """Seconds that so large a part of the answers did not exceed, within a fifth."""
        left = part * sum(self.times)
        for bucket, count in enumerate(self.times):
            left -= count
            if left <= 0 and count:
                return exp((bucket + 1) / _STEPS) / 1e6
        return 0.0


class Shape(Figures):
    """One shape."""

    __slots__ = (
        "__weakref__", "book", "doubted", "good", "is_fit", "is_trusted", "key", "needed", "seen", "shown", "slow_at",
        "strikes", "verdict",
    )  # fmt: skip

    def __init__(self, key: str | None, verdict: Verdict, book: Any = None, shown: str = "") -> None:
        super().__init__()
        self.key = key
        self.shown = shown  # its sketch; "": not made yet
        self.book = book
        self.is_trusted = False
        self.good = 0  # answers in a row
        self.needed = NEEDED
        self.strikes = self.slow_at = 0
        self.doubted: Doubt | None = None  # why it was last found wanting
        self.seen = 0  # calls, when it was last looked at for one that may go
        self.judge(verdict, is_sharing=True)

    def judge(self, verdict: Verdict, *, is_sharing: bool) -> None:
        """Who may not share loses its trust; who may has to earn it."""
        self.verdict = verdict
        self.is_fit = is_sharing and verdict is FIT
        self.is_trusted = self.is_trusted and self.is_fit

    def clear(self) -> None:
        super().clear()
        self.seen = self.slow_at = 0

    @property
    def sketch(self) -> str:
        """As it may be shown to anybody."""
        if not self.shown and self.key is not None:
            self.shown = sketch(self.key.encode("latin-1"))
        return self.shown

    def note(self, seconds: float, size: int) -> None:
        """A server took `seconds` for an answer of `size`."""
        self.note_all(1, seconds, size)
        book = self.book
        is_good = size <= book.max_size and seconds <= book.max_time
        if is_good and not self.is_trusted and self.is_fit:
            self.good += 1
            self.is_trusted = self.good >= self.needed

    def note_all(self, count: int, seconds: float, size: int) -> None:
        """`count` answers of `size` in all, and a server took `seconds` for each."""
        self.calls += count
        self.spent += seconds * count
        self.bytes += size
        self.times[find_bucket(seconds)] += count
        book = self.book
        if seconds > book.max_time or size > book.max_size * count:
            self.doubt(seconds, size // count)

    def doubt(self, seconds: float, size: int) -> None:
        """An answer was slow, or large."""
        book = self.book
        if size <= book.max_size and seconds <= book.max_time * SLACK:
            self.strikes = self.strikes + 1 if self.calls - self.slow_at <= CLOSE else 1
            self.slow_at = self.calls
            if self.strikes < STRIKES:
                return
        self.distrust(Doubt.LARGE if size > book.max_size else Doubt.SLOW)

    def distrust(self, why: Doubt = Doubt.STUCK) -> None:
        """It has to show again that it is fast and small."""
        if self.is_trusted:
            self.needed = min(2 * self.needed, NEEDED_AT_MOST)
        self.is_trusted = False
        self.doubted = why
        self.good = self.strikes = 0
