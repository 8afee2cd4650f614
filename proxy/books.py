"""
The shapes of one pool: which of them a text has, and how many are remembered.

Theory. A text is looked up twice: as it is but for its digits (`known`, one dictionary and 0.2 us), and if that is not
known by its shape (protocol/sharing.py). Where statements are tracked (tracking.py) those that have no shape, since
there are comments or quoted names in them, are told apart as well: by what they look like (protocol/sketches.py), which
costs ten times as much, but only once for all that have one outline.

What is remembered is bounded. Whoever has not been used since it was last looked at goes, and what was measured of it
is added to that of all `others`. A statement or a text may still know one that has gone; it is judged like all others
when the judgement changes (`adapt`), and shown as long as it lasts.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

from protocol.framing import HEADER_SIZE
from protocol.sharing import MAX_LENGTH, ZEROS, Verdict, fold, judge
from protocol.sketches import MAX_SKETCHED, outline, sketch
from proxy.shapes import Shape

MAX_SHAPES: Final = 2_000  # remembered per pool, and as many of those that have none
MAX_KNOWN: Final = 4_000  # texts without their digits
LOOKED_AT: Final = 50  # shapes, for one that may go
OTHERS: Final = "<others>"


class Book:
    """Of one pool. `max_time` and `max_size` are what an answer may need that shares a line."""

    def __init__(self, vouched: frozenset[bytes], max_time: float, max_size: int) -> None:
        self._vouched = vouched
        self.max_time = max_time
        self.max_size = max_size
        self.is_sharing = True
        self.is_tracking = False
        self.shapes: dict[str, Shape] = {}
        self.known: dict[bytes, Shape] = {}  # by Query messages without their digits
        self.strange: dict[str, Shape] = {}  # by sketch: what has no shape
        self._outlines: dict[bytes, Shape] = {}  # of these
        self._former: WeakSet[Shape] = WeakSet()  # that had to go, and somebody knows
        self.unread = Shape(None, Verdict.UNREAD, self)
        self.others = Shape(None, Verdict.UNREAD, self, OTHERS)  # all that had to go
        self.spoken: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # see tracking.py

    def adapt(
        self, vouched: frozenset[bytes], max_time: float, max_size: int, *, is_sharing: bool, is_tracking: bool
    ) -> None:
        """The settings have changed, perhaps."""
        self.max_time, self.max_size, self.is_tracking = max_time, max_size, is_tracking
        if (vouched, is_sharing) != (self._vouched, self.is_sharing):
            self._vouched, self.is_sharing = vouched, is_sharing
            for shape in self:
                shape.judge(judge(shape.key, vouched), is_sharing=is_sharing)

    def __iter__(self) -> Iterator[Shape]:
        """All of them."""
        return chain([*self.shapes.values()], [*self.strange.values()], [*self._former])

    def clear(self) -> None:
        """What was measured is forgotten; who is trusted stays so."""
        for shape in chain(self, (self.others,)):
            shape.clear()

    def find_query(self, data: bytes) -> Shape:
        """Of a Query message. It is `known` from now on, unless there are strings in it: those are endless."""
        text = data[HEADER_SIZE:-1]
        shape = self.find(text)
        if b"'" not in text and shape is not self.unread:
            if len(self.known) >= MAX_KNOWN:
                self.known.clear()
            self.known[data.translate(ZEROS)] = shape
        return shape

    def find_none(self, data: bytes) -> Shape:
        """Of a Query message where none may pass."""
        return self.unread

    def find(self, text: bytes) -> Shape:
        """`unread` if it has none that is cheap and certain."""
        key = fold(text)
        if key is None or len(key) > MAX_LENGTH:
            return self.unread
        return self.shapes.get(key) or self._learn(key)

    def find_statement(self, statement: Any) -> Shape:
        """Of a named statement, which remembers it."""
        shape: Shape = self.find(statement.text)
        statement.shape = shape
        return shape

    def _learn(self, key: str) -> Shape:
        shape = Shape(key, judge(key, self._vouched), self)
        shape.judge(shape.verdict, is_sharing=self.is_sharing)
        if self.is_tracking:
            shape.shown = shape.sketch  # now, not all at once when somebody looks
        self._keep(self.shapes, key, shape)
        return shape

    # Where statements are tracked.

    def find_any(self, text: bytes, encoding: str) -> Shape:
        """Of a text of a client with this client_encoding, whatever it is."""
        cut = text if len(text) <= MAX_SKETCHED else text[:MAX_SKETCHED]
        shape = self.find(cut)
        return shape if shape is not self.unread else self.find_strange(cut, encoding)

    def find_strange(self, text: bytes, encoding: str) -> Shape:
        """The same, of one that is `unread`."""
        rough = outline(text)
        shape = self._outlines.get(rough)
        if shape is None:
            shown = sketch(text, encoding)
            shape = self.strange.get(shown)
            if shape is None:
                shape = Shape(None, Verdict.UNREAD, self, shown)
                self._keep(self.strange, shown, shape)
            if len(self._outlines) >= MAX_KNOWN:
                self._outlines.clear()
            self._outlines[rough] = shape
        return shape

    def _keep(self, table: dict[str, Shape], key: str, shape: Shape) -> None:
        if len(table) >= MAX_SHAPES:
            gone = _take_unused(table)
            self.others.add(gone)
            gone.clear()
            self._former.add(gone)
        table[key] = shape


def _take_unused(table: dict[str, Shape]) -> Shape:
    """Out of `table`: one that has not been used since it was last looked at, if there is one nearby."""
    for _ in range(LOOKED_AT):
        key = next(iter(table))
        shape = table.pop(key)
        if shape.calls == shape.seen:
            return shape
        shape.seen = shape.calls
        table[key] = shape
    return table.pop(next(iter(table)))
