"""
Where messages begin and end in a stream, without looking inside them.

Theory. Most messages of a stream are dull: a row is carried, not read. `scan` steps over dull messages by
their headers and stops at the first that needs a look, so the caller pays per interesting message. What is
dull depends on the moment, hence the table of 256 flags that the caller brings.

Every header is verified, always: a row may hold bytes that look like a ReadyForQuery, so a guess is never
enough. There are four ways, with their price for a message (nanoseconds, CPython 3.11):

    plain    the header is unpacked, its length and its type are judged                               135
    walk     the header is the key of a table that tells the step                                      90
    match    a regular expression knows the headers of lengths near the mean, the nearest first   40 - 80
    gallop   equal headers at equal distances are verified many at once                                 4

A few messages are all plain, and most answers have no more. Where dull ones go on and on, `_hurry` tries the other
ways in turn: walk and match know rows and COPY data only, and any other header ends the hurry. So does the end of the
data, since a cut header is in no table.

Rows often come in runs of equal length. Then every header in the run is the same five bytes at the same distance:
one strided slice holds all their first bytes, one all their second, and so on. Where the first of these five differs
from what it should be, there the run ends. Whether one begins, a single look tells.

Nothing is copied here, and a stream may be cut anywhere: `scan` says where the next message begins, which
may lie beyond the data (a long row, cut) or just before its end (a cut header).
"""

import re
from functools import lru_cache
from struct import Struct

from . import codes
from .errors import ProtocolError

HEADER_SIZE = 5
LEAST_LENGTH = HEADER_SIZE - 1  # a length counts itself
HURRY_AFTER = 8  # dull messages, if there is more to come than
HURRY_FROM = 4096  # bytes: for most answers the other ways are not worth a look
MASSES_FROM = 7168  # bytes: so many that come at once are mostly rows, and they are hurried from the second on
HURRY_OVER = 16  # messages, if all are as long: for fewer the other ways cost more than they save
HURRY_AGAIN_AFTER = 64  # where the messages are neither short nor equal, a hurry is in vain and costs about 1 us
SHORT = 1024  # bytes, whereof the walk knows messages; longer ones cost more to carry than to step over
TINY = 256  # bytes, whereof the match knows messages
STRETCH, LONG_STRETCH = 32, 256  # messages walked before the other ways are tried, and while these are in vain
BAND = 8  # bytes: mean lengths that close share a match
REACH = 32  # bytes around the mean that a match knows; each costs 2 ns when it is not the one
MATCH_MOST = 500  # messages in one match, which needs 200 bytes of memory for each
GALLOP_LEAST, GALLOP_MOST = 64, 4096  # messages verified at once: at first, unless the last is equal too, and at most

_header = Struct("!BI").unpack_from  # type byte, then a length that counts itself


def _build_steps(kind: int) -> dict[bytes, int]:
    return {bytes([kind]) + length.to_bytes(4, "big"): length + 1 for length in range(LEAST_LENGTH, SHORT)}


_STEPS = {kind: _build_steps(kind) for kind in (codes.DATA_ROW, codes.COPY_DATA)}
"""How long a message is that begins so, by the type of those that come in masses."""


def flags(kinds: str | bytes) -> bytes:
    """A table for `scan`: 256 bytes, 1 at each of `kinds`."""
    wanted = kinds.encode("ascii") if isinstance(kinds, str) else kinds
    return bytes(1 if kind in wanted else 0 for kind in range(256))


def scan(data: bytes, pos: int, dull: bytes, limit: int) -> tuple[int, int, int]:
    """Step over dull messages from `pos`; the first that needs a look as (kind, start, end).

    kind is 0 when the data ends first; start and end are then both where the next message begins. `end` may
    lie beyond the data in either case. A length below 4 or above `limit` is a ProtocolError.
    O(messages), copies nothing.
    """
    stop = len(data) - 4
    count = 0 if stop - pos < MASSES_FROM else HURRY_AFTER - 2  # (behind a RowDescription is soon enough)
    while pos < stop:
        kind, length = _header(data, pos)
        if not 4 <= length <= limit:
            raise ProtocolError(f"invalid message length {length} of a message of type {chr(kind)!r}")
        end: int = pos + length + 1
        if not dull[kind]:
            if not kind:  # would be taken for the end of the data, and waited for for ever
                raise ProtocolError("invalid message type 0")
            return kind, pos, end
        count += 1
        if count == HURRY_AFTER and stop - pos > HURRY_FROM:
            if stop - pos > HURRY_OVER * length:
                end = _hurry(data, pos, length + 1, limit)
            count = HURRY_AFTER - HURRY_AGAIN_AFTER
        pos = end
    return 0, pos, pos


def _hurry(data: bytes, pos: int, step: int, limit: int) -> int:
    """The end of the messages of the type of that at `pos`, which takes `step` bytes: at least its own end."""
    kind = data[pos]
    pos = _gallop(data, pos, step)
    may_go_on = kind in _STEPS and limit >= SHORT and pos + HEADER_SIZE <= len(data)
    return _walk(data, pos, kind) if may_go_on else pos


def _walk(data: bytes, pos: int, kind: int) -> int:
    """The end of the short messages of this type from `pos` on."""
    steps, stretch = _STEPS[kind], STRETCH
    try:
        while True:
            start = pos
            for _ in range(stretch):
                pos += steps[data[pos : pos + 5]]
            walked, start = pos - start, pos
            pos = _match(data, pos, kind, walked // stretch)
            stretch = STRETCH if pos - start > walked else min(stretch * 2, LONG_STRETCH)
            pos = _gallop(data, pos, steps[data[pos : pos + 5]])
    except KeyError:
        return pos


def _match(data: bytes, pos: int, kind: int, mean: int) -> int:
    """The end of the messages of this type whose lengths are near the mean, from `pos` on."""
    if pos > len(data) or mean >= TINY:
        return pos
    found = _build_pattern(kind, mean // BAND).match(data, pos)
    return found.end() if found else pos


@lru_cache(maxsize=2 * TINY // BAND)
def _build_pattern(kind: int, band: int) -> "re.Pattern[bytes]":
    """About 1 ms, once for each: most will never be needed. It may match nothing, and never goes back."""
    mean = band * BAND + BAND // 2
    lengths = range(max(LEAST_LENGTH + 1, mean - REACH), min(TINY, mean + REACH))
    nearest_first = sorted(lengths, key=lambda length: abs(length - mean))
    tails = (re.escape(bytes([length])) + b".{%d}+" % (length - LEAST_LENGTH) for length in nearest_first)
    return re.compile(b"(?:%c\\0\\0\\0(?:%b)){0,%d}" % (kind, b"|".join(tails), MATCH_MOST), re.DOTALL)


def _gallop(data: bytes, pos: int, step: int) -> int:
    """The end of the messages with exactly the header at `pos`, one every `step` bytes: at least that of the first."""
    head = data[pos : pos + HEADER_SIZE]
    ahead = pos + 4 * step
    if data[ahead : ahead + HEADER_SIZE] != head:  # the look that is enough when there is no run
        return pos + step
    room = (len(data) - pos - HEADER_SIZE) // step + 1  # whole headers in the data
    last = pos + (room - 1) * step
    count = GALLOP_MOST if data[last : last + HEADER_SIZE] == head else GALLOP_LEAST
    while True:
        verified = _count_equal(data, pos, step, head, min(count, room))
        pos += verified * step
        if verified < count:
            return pos
        room -= verified
        count = min(count * 4, GALLOP_MOST)


def _count_equal(data: bytes, pos: int, step: int, head: bytes, count: int) -> int:
    """How many of `count` messages, `step` bytes apart, have this header, before the first that has not."""
    for i in (4, 3, 0, 2, 1):  # the low byte of the length first: where rows differ, they differ there
        column = data[pos + i : pos + (count - 1) * step + i + 1 : step]
        wanted = head[i : i + 1]
        if column != wanted * count:
            count -= len(column.lstrip(wanted))
    return count
