"""
What is known of the shapes of texts: may they share a line, and have they shown that they are fast and small?

Theory. A text that may share by its words need not be fit for it: it may read a million rows. So a shape must first be
seen, run on servers of its clients' own (probes.py): `NEEDED` fast and small answers, with few slow ones in between,
and it is trusted. A large answer, or a time that is typically too long, and the trust is lost, and has to be earned
anew by twice as many as the last time; who kept it for long begins anew. So who swings between fast and slow shares
less and less. One slow answer says nothing: PostgreSQL or this process may have been waiting for a core. What is
typical follows what is seen in steps, up a little less than down, so it comes to lie a little below the median, however
far out others are.

What was measured on the way is shown as well (`Figures`, SHOW STATEMENTS).

Times are seconds a server took, sizes bytes of an answer.
"""

import enum
from math import exp, log
from typing import Any, Final

from protocol.sharing import FIT, Verdict
from protocol.sketches import sketch

NEEDED: Final = 3  # good answers before a shape is trusted
NEEDED_AT_MOST: Final = 100
LONG: Final = 10_000  # answers, after which a new loss counts as the first
UP: Final = 1.1
DOWN: Final = 0.87
SHORTEST: Final = 1e-5  # seconds; from nothing no step leads anywhere
PENALTY: Final = 0.25  # good answers that a slow one costs
MEAN_SOCIABLE: Final = 4_096  # bytes; larger answers are not waited for by others
ALONE_AT_FIRST: Final = 100  # answers, for which it goes by itself when it has made a group fail
ALONE_AT_MOST: Final = 100_000
BUCKETS: Final = 128  # of times: four to a doubling, from a microsecond to an hour
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
        "__weakref__", "alone", "book", "doubted", "good", "is_fit", "is_sociable", "is_trusted", "key", "needed",
        "seen", "shown", "shy_until", "trusted_at", "typical", "verdict",
    )  # fmt: skip

    def __init__(self, key: str | None, verdict: Verdict, book: Any = None, shown: str = "") -> None:
        super().__init__()
        self.key = key
        self.shown = shown  # its sketch; "": not made yet
        self.book = book
        self.is_trusted = False
        self.good = 0.0  # answers, less the penalties
        self.needed = NEEDED
        self.trusted_at = 0  # `calls` when it was trusted
        self.typical = 0.0  # time of an answer, while it is trusted
        self.doubted: Doubt | None = None  # why it was last found wanting
        self.is_sociable = True  # may it be in a group (groups.py)?
        self.shy_until = 0  # `calls` until which it may not, since it made one fail
        self.alone = 0  # for how many calls that was last
        self.seen = 0  # calls, when it was last looked at for one that may go
        self.judge(verdict, is_sharing=True)

    def judge(self, verdict: Verdict, *, is_sharing: bool) -> None:
        """Who may not share loses its trust; who may has to earn it."""
        self.verdict = verdict
        self.is_fit = is_sharing and verdict is FIT
        self.is_trusted = self.is_trusted and self.is_fit

    def clear(self) -> None:
        super().clear()
        self.seen = self.trusted_at = self.shy_until = 0

    @property
    def sketch(self) -> str:
        """As it may be shown to anybody."""
        if not self.shown and self.key is not None:
            self.shown = sketch(self.key.encode("latin-1"))
        return self.shown

    def note(self, seconds: float, size: int) -> None:
        """A server took `seconds` for an answer of `size`."""
        self.note_all(1, seconds, size)
        if self.is_trusted or not self.is_fit:
            return
        if seconds <= self.book.max_time and size <= self.book.max_size:
            self.good += 1
        else:
            self.good -= min(PENALTY, self.good)
            self.doubted = Doubt.LARGE if size > self.book.max_size else Doubt.SLOW
        if self.good >= self.needed:
            self.is_trusted = True
            self.typical, self.trusted_at = max(seconds, SHORTEST), self.calls

    def note_all(self, count: int, seconds: float, size: int) -> None:
        """`count` answers of `size` in all, and a server took `seconds` for each."""
        self.calls += count
        self.spent += seconds * count
        self.bytes += size
        self.times[find_bucket(seconds)] += count
        if seconds > self.typical:
            self.typical *= UP
        elif self.typical > SHORTEST:
            self.typical *= DOWN
        self.is_sociable = self.calls >= self.shy_until and size <= MEAN_SOCIABLE * count
        if size > self.book.max_size * count:
            self.distrust(Doubt.LARGE)
        elif self.typical > self.book.max_time:
            self.distrust(Doubt.SLOW)

    def shun(self) -> None:
        """It has made a group fail. Who has behaved for as long as it had to go alone begins anew."""
        is_soon = self.calls - self.shy_until < self.alone
        self.alone = min(2 * self.alone, ALONE_AT_MOST) if is_soon else ALONE_AT_FIRST
        self.shy_until = self.calls + self.alone
        self.is_sociable = False

    def distrust(self, why: Doubt = Doubt.STUCK) -> None:
        """It has to show again that it is fast and small."""
        if self.is_trusted:
            self.needed = min(2 * self.needed, NEEDED_AT_MOST) if self.calls - self.trusted_at < LONG else NEEDED
        self.is_trusted = False
        self.doubted = why
        self.good = self.typical = 0.0
