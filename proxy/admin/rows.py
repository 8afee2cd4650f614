"""
Tables on the wire: columns with their types, values to text or binary, many rows in slices.

Theory. A table's shape is one line, as in PgBouncer's documentation: "database s, maxwait i". The letter says the
type clients are told, and that matters: exporters and drivers convert by it. Values travel as text, unless a driver
asks for binary (extended.py): for each type there is one function to either.

A table may have 10,000 rows, and while they are made no query moves. So rows are an iterable that is read a few at a
time, and after `SLICE` seconds of it what there is goes out with one write, and the event loop has a turn. How dear a
row is need not be known: a slice is bounded by the clock, and by `MAX_SLICE` rows where the clock stands still.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from struct import Struct
from typing import Any, Final

from protocol.backend import build_row_description

SLICE: Final = 0.0005  # seconds
AT_ONCE: Final = 10  # rows between two looks at the clock
MAX_SLICE: Final = 400  # rows
MAX_KNOWN: Final = 100  # values of a column that are kept encoded

TEXT, BINARY = 0, 1

Value = str | int | bytes | None
Row = Sequence[Value]
Encode = Callable[[Any], bytes]

_INT32, _INT64, _UINT16 = Struct("!i").pack, Struct("!q").pack, Struct("!H").pack
_INT_MIN, _INT_MAX = -(1 << 31), (1 << 31) - 1
_NULL: Final = _INT32(-1)
_ROW_HEAD: Final = Struct("!cIH").pack


@dataclass(frozen=True, slots=True)
class Table:
    """An answer: the shape as "name type, name type", and rows with one value per column."""

    shape: str
    rows: Iterable[Row]


def _text(value: str | int) -> bytes:
    # "replace": a name that is not UTF-8 must not break a driver that decodes strictly.
    return str(value).encode("utf-8", "replace")


def _number(value: int) -> bytes:
    return b"%d" % value


def _int4(value: int) -> bytes:
    return _INT32(min(max(value, _INT_MIN), _INT_MAX))


def _numeric(value: int | str) -> bytes:
    """A decimal number as PostgreSQL's numeric: how many digits, the weight of the first, sign, scale, the digits.

    A digit is four of ours.
    """
    whole, _, fraction = str(value).removeprefix("-").partition(".")
    places = whole.zfill(-(-len(whole) // 4) * 4) + fraction.ljust(-(-len(fraction) // 4) * 4, "0")
    digits = [int(places[pos : pos + 4]) for pos in range(0, len(places), 4)]
    weight = -(-len(whole) // 4) - 1
    while digits and not digits[0]:
        del digits[0]
        weight -= 1
    sign = 0x4000 if digits and str(value).startswith("-") else 0
    head = (len(digits), weight & 0xFFFF if digits else 0, sign, len(fraction))
    return b"".join(map(_UINT16, (*head, *digits)))


_TYPES: Final[dict[str, tuple[int, int, Encode, Encode]]] = {
    "s": (25, -1, _text, _text),  # text
    "T": (25, -1, _text, _text),  # text that holds a time
    "i": (23, 4, _number, _int4),  # int4
    "q": (20, 8, _number, _INT64),  # int8
    "N": (1700, -1, _text, _numeric),  # numeric: a whole number, or decimals as text
    "b": (17, -1, lambda value: b"\\x" + value.hex().encode(), bytes),  # bytea
    "B": (16, 1, lambda value: b"t" if value else b"f", lambda value: b"\1" if value else b"\0"),  # bool
}
"""By letter: type OID, type size, and how a value becomes text and binary."""


def parse_shape(shape: str) -> list[tuple[str, str]]:
    """(name, letter) of each column."""
    return [(name, letter) for name, letter in (column.split() for column in shape.split(","))]


def build_head(shape: str, formats: Sequence[int] = ()) -> bytes:
    """The RowDescription. `formats`: none (all text), one for all, or one for each column."""
    columns = parse_shape(shape)
    return build_row_description(
        [(name, *_TYPES[letter][:2]) for name, letter in columns], spread(formats, len(columns))
    )


def spread(formats: Sequence[int], count: int) -> list[int]:
    """One format for each of `count` columns. ValueError: there are more or fewer than that."""
    if len(formats) <= 1:
        return [*(formats or (TEXT,))] * count
    if len(formats) != count:
        raise ValueError(f"{len(formats)} formats for {count} columns")
    return [*formats]


def _find_encode(letter: str, form: int) -> Encode:
    _, _, to_text, to_binary = _TYPES[letter]
    return to_binary if form == BINARY else to_text


class Encoder:
    """Rows of one shape to messages. Most columns say the same few things again and again: these are kept."""

    __slots__ = ("_columns", "_count")

    def __init__(self, shape: str, formats: Sequence[int] = ()) -> None:
        columns = parse_shape(shape)
        wanted = zip(columns, spread(formats, len(columns)), strict=True)
        self._columns: list[tuple[dict[Value, bytes], Encode]] = [
            ({None: _NULL}, _find_encode(letter, form)) for (_, letter), form in wanted
        ]
        self._count = len(columns)

    def build(self, row: Row) -> bytes:
        """One DataRow."""
        pieces = []
        for (known, encode), value in zip(self._columns, row, strict=True):
            piece = known.get(value)
            if piece is None:
                raw = encode(value)
                piece = _INT32(len(raw)) + raw
                if len(known) < MAX_KNOWN:
                    known[value] = piece
            pieces.append(piece)
        body = b"".join(pieces)
        return _ROW_HEAD(b"D", len(body) + 6, self._count) + body

    def build_slices(self, rows: Iterator[Row], head: bytes = b"", most: int = 0) -> Iterator[bytes]:
        """`head`, then rows, in pieces to be written one at a time; at most `most` rows, 0 is all."""
        pieces, count = [head] if head else [], 0
        until, batch = time.monotonic() + SLICE, self._build_some(rows, most)
        while batch:
            pieces += batch
            count += len(batch)
            if most and count >= most:
                break
            if time.monotonic() >= until or len(pieces) >= MAX_SLICE:
                yield b"".join(pieces)
                pieces, until = [], time.monotonic() + SLICE
            batch = self._build_some(rows, most - count if most else 0)
        if pieces:
            yield b"".join(pieces)

    def _build_some(self, rows: Iterator[Row], most: int) -> list[bytes]:
        return [*map(self.build, islice(rows, min(most, AT_ONCE) if most else AT_ONCE))]


def build_slices(table: Table, tail: bytes = b"") -> Iterator[bytes]:
    """The table as text, from its RowDescription on; `tail` follows the last row."""
    pending = b""
    for piece in Encoder(table.shape).build_slices(iter(table.rows), build_head(table.shape)):
        if pending:
            yield pending
        pending = piece
    yield pending + tail
