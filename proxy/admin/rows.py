"""
Tables on the wire: columns with their types, values to text, many rows in slices.

Theory. A table's shape is one line, as in PgBouncer's documentation: "database s, maxwait i". The letter says the
type clients are told, and that matters: exporters and drivers convert by it. All values travel as text.

A table may have 10,000 rows, and while they are made no query moves. So rows are an iterable that is read `SLICE`
at a time, one write and one turn of the event loop for each: 13 us a row of SHOW CLIENTS make 0.7 ms a slice.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from protocol.backend import build_data_row, build_row_description

SLICE: Final = 50  # rows

Value = str | int | None

_TYPES: Final = {
    "s": (25, -1),  # text
    "i": (23, 4),  # int4
    "q": (20, 8),  # int8
    "N": (1700, -1),  # numeric
    "T": (25, -1),  # text that holds a time
}


@dataclass(frozen=True, slots=True)
class Table:
    """An answer: the shape as "name type, name type", and rows with one value per column."""

    shape: str
    rows: Iterable[Sequence[Value]]


def parse_shape(shape: str) -> list[tuple[str, int, int]]:
    """(name, type OID, type size) of each column."""
    pairs = (column.split() for column in shape.split(","))
    return [(name, *_TYPES[letter]) for name, letter in pairs]


def build_slices(table: Table, tail: bytes) -> Iterator[bytes]:
    """The table from its RowDescription on, in pieces to be written one at a time; `tail` follows the last row."""
    rows = iter(table.rows)
    pending, piece = build_row_description(parse_shape(table.shape)), _build_slice(rows)
    while piece:
        pending += piece
        piece = _build_slice(rows)
        if piece:
            yield pending
            pending = b""
    yield pending + tail


def _build_slice(rows: Iterator[Sequence[Value]]) -> bytes:
    return b"".join(map(_build_row, islice(rows, SLICE)))


def _build_row(values: Sequence[Value]) -> bytes:
    return build_data_row([None if value is None else _build_text(value) for value in values])


def _build_text(value: str | int) -> bytes:
    # "replace": a name that is not UTF-8 must not break a driver that decodes strictly.
    return str(value).encode("utf-8", "replace")
