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


class Entry:
    """What is in one row: all shapes with one sketch. They are summed up when the row is made: there may be many."""

    __slots__ = ("pool", "shapes", "shown", "spent")

    def __init__(self, pool: Any, shown: str) -> None:
        self.pool = pool
        self.shown = shown
        self.shapes: list[Shape] = []
        self.spent = 0.0

    def take(self, shape: Shape) -> None:
        self.shapes.append(shape)
        self.spent += shape.spent

    def build(self) -> tuple[Value, ...]:
        sums = _sum_up(self.shapes)
        is_one = self.shown not in (FAILED, OTHERS)
        reason = find_reason(max(self.shapes, key=attrgetter("calls"))) if is_one else ""
        return (
            self.pool.database,
            self.pool.user,
            self.shown,
            sums.calls,
            sums.errors,
            _micros(sums.spent),
            _micros(sums.spent / sums.calls) if sums.calls else 0,
            _micros(sums.find_percentile(_MOST)),
            _micros(sums.waited),
            sums.bytes,
            ("no" if reason else "yes") if is_one else None,
            reason or None,
        )


def _sum_up(shapes: list[Shape]) -> Figures:
    if len(shapes) == 1:
        return shapes[0]
    sums = Figures()
    for shape in shapes:
        sums.add(shape)
    return sums


def show_statements(proxy: Any, database: str = "") -> Table:
    """Of all pools, what took most time first."""
    pools = [pool for pool in proxy.pools if pool.lines is not None and (not database or pool.database == database)]
    entries = [entry for pool in pools for entry in _find_entries(pool)]
    return Table(SHAPE, (entry.build() for entry in sorted(entries, key=attrgetter("spent"), reverse=True)))


def _find_entries(pool: Any) -> list[Entry]:
    book: Book = pool.lines.book
    found: dict[str, Entry] = {}
    for shape in (*book, book.others):
        if shape.calls or shape.errors:
            shown = OTHERS if shape is book.others else shape.sketch if shape.calls else FAILED
            if shown not in found:
                found[shown] = Entry(pool, shown)
            found[shown].take(shape)
    return [*found.values()]


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
