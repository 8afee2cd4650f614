"""
What is known of the shapes of texts: may they share a line, and have they shown that they are fast and small?

Theory. A text that may share by its words need not be fit for it: it may read a million rows. So a shape must first be
seen, run on servers of its clients' own (probes.py): `NEEDED` fast and small answers, with few slow ones in between, and
it is trusted. A large answer, or a time that is typically too long, and the trust is lost, and has to be earned anew by
twice as many as the last time; who kept it for long begins anew. So who swings between fast and slow shares less and
less. One slow answer says nothing: PostgreSQL or this process may have been waiting for a core. What is typical follows
what is seen in steps, up a little less than down, so it comes to lie a little below the median, however far out others
are.

A text is looked up twice: as it is but for its digits (`known`, one dictionary and 0.2 us), and if that is not known by
its shape (protocol/sharing.py). What is known is bounded; who came first is forgotten first.

Times are seconds a server took, sizes bytes of an answer.
"""

from math import exp, log
from typing import Any, Final

from protocol.framing import HEADER_SIZE
from protocol.sharing import FIT, ZEROS, Verdict, fold, judge

NEEDED: Final = 3  # good answers before a shape is trusted
NEEDED_AT_MOST: Final = 100
LONG: Final = 10_000  # answers, after which a new loss counts as the first
UP: Final = 1.1
DOWN: Final = 0.87
PENALTY: Final = 0.25  # good answers that a slow one costs
MAX_SHAPES: Final = 2_000  # remembered per pool
MAX_KNOWN: Final = 4_000  # texts without their digits
BUCKETS: Final = 80  # of times: four to a doubling, from a microsecond on
_STEPS: Final = 4 / log(2)


def find_bucket(seconds: float) -> int:
    return min(int(log(max(seconds * 1e6, 1.0)) * _STEPS), BUCKETS - 1)


class Shape:
    """One shape."""

    __slots__ = (
        "book", "bytes", "calls", "good", "is_fit", "is_trusted", "key", "needed", "since", "spent", "times",
        "typical", "verdict", "waited",
    )  # fmt: skip

    def __init__(self, key: str | None, verdict: Verdict, book: "Book") -> None:
        self.key = key
        self.verdict = verdict
        self.book = book
        self.is_fit = verdict is FIT
        self.is_trusted = False
        self.good = 0.0  # answers, less the penalties
        self.needed = NEEDED
        self.since = 0  # `calls` when it was trusted
        self.typical = 0.0  # time of an answer
        self.calls = 0
        self.spent = self.waited = 0.0  # by servers; by clients, for one
        self.bytes = 0
        self.times = [0] * BUCKETS  # how many answers took how long

    def note(self, seconds: float, size: int) -> None:
        """A server took `seconds` for an answer of `size`."""
        self.note_all(1, seconds, size)
        book = self.book
        if self.is_trusted or not self.is_fit:
            return
        self.good += 1 if size <= book.max_size and seconds <= book.max_time else -min(PENALTY, self.good)
        if self.good >= self.needed:
            self.is_trusted = True
            self.typical, self.since = seconds, self.calls

    def note_all(self, count: int, seconds: float, size: int) -> None:
        """`count` answers of `size` in all, and a server took `seconds` for each."""
        self.calls += count
        self.spent += seconds * count
        self.bytes += size
        self.times[find_bucket(seconds)] += count
        self.typical *= UP if seconds > self.typical else DOWN
        book = self.book
        if self.typical > book.max_time or size > book.max_size * count:
            self.distrust()

    def distrust(self) -> None:
        """It has to show again that it is fast and small."""
        if self.is_trusted:
            self.needed = min(2 * self.needed, NEEDED_AT_MOST) if self.calls - self.since < LONG else NEEDED
        self.is_trusted = False
        self.good = 0
        self.typical = 0.0

    def find_percentile(self, part: float) -> float:
        """Seconds that so large a part of the answers did not exceed, within a fifth."""
        left = part * sum(self.times)
        for bucket, count in enumerate(self.times):
            left -= count
            if left <= 0 and count:
                return exp((bucket + 1) / _STEPS) / 1e6
        return 0.0


class Book:
    """The shapes of one pool."""

    def __init__(self, vouched: frozenset[bytes], max_time: float, max_size: int) -> None:
        self._vouched = vouched
        self.max_time = max_time
        self.max_size = max_size
        self.shapes: dict[str, Shape] = {}
        self.known: dict[bytes, Shape] = {}  # by Query messages without their digits
        self._unread = Shape(None, Verdict.UNREAD, self)

    def find_query(self, data: bytes) -> Shape:
        """Of a Query message. It is `known` from now on, unless there are strings in it: those are endless."""
        shape = self.find(data[HEADER_SIZE:-1])
        if b"'" not in data and shape is not self._unread:
            if len(self.known) >= MAX_KNOWN:
                self.known.clear()
            self.known[data.translate(ZEROS)] = shape
        return shape

    def find_none(self, data: bytes) -> Shape:
        """Of a Query message where none may pass."""
        return self._unread

    def find(self, text: bytes) -> Shape:
        key = fold(text)
        if key is None:
            return self._unread
        return self.shapes.get(key) or self._learn(key)

    def find_statement(self, statement: Any) -> Shape:
        """Of a named statement, which remembers it."""
        shape: Shape = self.find(statement.text)
        statement.shape = shape
        return shape

    def _learn(self, key: str) -> Shape:
        if len(self.shapes) >= MAX_SHAPES:
            oldest = next(iter(self.shapes))
            del self.shapes[oldest]
            self.known.clear()
        shape = self.shapes[key] = Shape(key, judge(key, self._vouched), self)
        return shape
