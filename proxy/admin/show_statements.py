"""
SHOW STATEMENTS: which statements a pool runs, what they cost, and whether they share lines.

Theory. One row for each statement without its values, per pool, the one that took most of the servers' time first. With
`track_statements` that is everything that is asked; where lines are on (proxy/lines.py) what travelled in them is there
in any case, and what was tried for it. All times are microseconds: a server's for `total_time`, `mean_time` and
`p99_time` (to a fifth), its client's wait for a server or for its turn in a line for `wait_time`. `bytes` are those of
the answers. `calls` went well, `errors` did not; of these nothing else is counted.

`shared` says whether it may stand in a line now, `why_not` what speaks against it.

No value is in any row (protocol/sketches.py). A text that has never gone well may be none: a password without its
quotes, say. Those are summed up as `<none that went well>`; what was forgotten since there were too many is `<others>`.
"""

from collections.abc import Iterator
from operator import attrgetter
from typing import Any, Final

from proxy.admin.rows import Table, Value
from proxy.books import OTHERS, Book
from proxy.shapes import Figures, Shape

SHAPE: Final = (
    "database s, user s, statement s, calls q, errors q, total_time q, mean_time q, p99_time q, wait_time q, bytes q,"
    " shared s, why_not s"
)
FAILED: Final = "<none that went well>"
MICROS: Final = 1_000_000
_MOST: Final = 0.99


class Entry(Figures):
    """What is in one row: figures of all shapes with one sketch, and the one of these that is asked most."""

    __slots__ = ("pool", "shape", "shown")

    def __init__(self, pool: Any, shown: str) -> None:
        super().__init__()
        self.pool = pool
        self.shown = shown
        self.shape: Shape | None = None

    def take(self, shape: Shape) -> None:
        self.add(shape)
        if self.shape is None or shape.calls > self.shape.calls:
            self.shape = shape

    def build(self) -> tuple[Value, ...]:
        reason = find_reason(self.shape) if self.shape is not None else ""
        return (
            self.pool.database,
            self.pool.user,
            self.shown,
            self.calls,
            self.errors,
            _micros(self.spent),
            _micros(self.spent / self.calls) if self.calls else 0,
            _micros(self.find_percentile(_MOST)),
            _micros(self.waited),
            self.bytes,
            None if self.shape is None else "no" if reason else "yes",
            reason or None,
        )


def show_statements(proxy: Any, database: str = "") -> Table:
    """Of all pools, what took most time first."""
    pools = [pool for pool in proxy.pools if pool.lines is not None and (not database or pool.database == database)]
    entries = [entry for pool in pools for entry in _find_entries(pool)]
    return Table(SHAPE, _rows(sorted(entries, key=attrgetter("spent"), reverse=True)))


def _rows(entries: list[Entry]) -> Iterator[tuple[Value, ...]]:
    return (entry.build() for entry in entries)


def _find_entries(pool: Any) -> list[Entry]:
    book: Book = pool.lines.book
    found: dict[str, Entry] = {}
    failed, others = Entry(pool, FAILED), Entry(pool, OTHERS)
    others.add(book.others)
    for shape in book:
        if shape.calls:
            shown = shape.sketch
            if shown not in found:
                found[shown] = Entry(pool, shown)
            found[shown].take(shape)
        else:
            failed.add(shape)
    return [*found.values(), *(each for each in (failed, others) if each.calls or each.errors)]


def find_reason(shape: Shape) -> str:
    """Why it does not share; "" if it does."""
    if shape.is_trusted:
        return ""
    if not shape.book.is_sharing:
        return "lines are off"
    if not shape.is_fit:
        return shape.verdict.value
    doubted = "not seen often enough" if shape.doubted is None else f"was {shape.doubted.value}"
    return f"{doubted} ({int(shape.good)} of {shape.needed} good answers)"


def clear_statements(proxy: Any) -> None:
    """RESET STATEMENTS: what was measured is forgotten, in all pools."""
    for pool in proxy.pools:
        if pool.lines is not None:
            pool.lines.book.clear()


def _micros(seconds: float) -> int:
    return round(seconds * MICROS)
