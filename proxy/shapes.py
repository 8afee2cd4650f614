"""
What is known of the shapes of texts: may they share a line, and have they shown that they are fast and small?

Theory. A text that may share by its words need not be fit for it: it may read a million rows. So a shape must first be
seen, run on servers of its clients' own: `NEEDED` fast and small answers, and it is trusted. One answer that is neither
and the trust is lost, and has to be earned anew by twice as many as the last time: who swings between fast and slow
shares less and less. What is known is bounded; the shapes used least lately are forgotten first.

Times are seconds a server took, sizes bytes of an answer.
"""

from typing import Final

from protocol.sharing import FIT, Verdict, fold, judge

NEEDED: Final = 3  # good answers in a row before a shape is trusted
NEEDED_AT_MOST: Final = 1_000
SLACK: Final = 10  # times the limit: a single answer so slow, on a machine that is busy, costs the trust
MAX_SHAPES: Final = 2_000  # remembered per pool: at most 4 MB


class Shape:
    """One shape."""

    __slots__ = ("good", "is_trusted", "mean", "needed", "size", "skip", "verdict")

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.is_trusted = False
        self.good = 0  # answers in a row
        self.needed = NEEDED
        self.skip = 0 if verdict is FIT else 1  # how many more must have a server of their own
        self.mean = 0.0  # of the time a server takes
        self.size = 0  # of the largest answer lately

    def note(self, seconds: float, size: int, book: "Book") -> None:
        """A server took `seconds` for an answer of `size`."""
        self.mean = seconds if seconds < self.mean or not self.mean else self.mean * 1.05
        self.size = size
        is_bad = size > book.max_size or self.mean > book.max_time or seconds > book.max_time * SLACK
        if is_bad:
            self._lose()
        elif not self.is_trusted:
            self.good += 1
            self.is_trusted = self.good >= self.needed

    def _lose(self) -> None:
        self.needed = min(2 * self.needed, NEEDED_AT_MOST)
        self.is_trusted = False
        self.good = 0
        self.skip = self.needed


UNFIT: Final = {verdict: Shape(verdict) for verdict in Verdict if verdict is not FIT}


class Book:
    """The shapes of one pool."""

    def __init__(self, vouched: frozenset[bytes], max_time: float, max_size: int) -> None:
        self._vouched = vouched
        self.max_time = max_time
        self.max_size = max_size
        self.shapes: dict[str, Shape] = {}

    def find(self, text: bytes) -> Shape:
        """Of `text`, which `is_plain` has found plain."""
        key = fold(text)
        shape = self.shapes.get(key) if key is not None else UNFIT[Verdict.UNREAD]
        return self._learn(key) if shape is None else shape

    def _learn(self, key: str | None) -> Shape:
        verdict = judge(key, self._vouched)
        shape = Shape(verdict) if verdict is FIT else UNFIT[verdict]
        if key is not None:
            if len(self.shapes) >= MAX_SHAPES:
                del self.shapes[next(iter(self.shapes))]
            self.shapes[key] = shape
        return shape
