"""
Where messages begin and end in a stream, without looking inside them.

Theory. Most messages of a stream are dull: a row is carried, not read. `scan` steps over dull messages by
their headers and stops at the first that needs a look, so the caller pays per interesting message. What is
dull depends on the moment, hence the table of 256 flags that the caller brings.

Every header is verified, always: a row may hold bytes that look like a ReadyForQuery, so a guess is never
enough. There are four ways, with their price for a message (nanoseconds, CPython 3.11):

    plain    the header is unpacked, its length and its type are judged                        135
    walk     the header is the key of a table that tells the step                               90
    match    a regular expression knows the headers of tiny messages and takes their bodies     30, and 2 a byte
    gallop   equal headers at equal distances are verified many at once                          4

A few messages are all plain, and most answers have no more. In a longer row of dull ones `_hurry` tries the other
ways in turn: they know rows and COPY data only, and any other header ends the hurry. So does the end of the data, since
a cut header is in no table.

Rows often come in runs of equal length. Then every header in the run is the same five bytes at the same distance:
one strided slice holds all their first bytes, one all their second, and so on. Where the first of these five differs
from what it should be, there the run ends. Whether one begins, a single look tells.

Nothing is copied here, and a stream may be cut anywhere: `scan` says where the next message begins, which
may lie beyond the data (a long row, cut) or just before its end (a cut header).
"""

import re
from collections.abc import Callable
from struct import Struct

from . import codes
from .errors import ProtocolError

HEADER_SIZE = 5
LEAST_LENGTH = HEADER_SIZE - 1  # a length counts itself
HURRY_AFTER = 8  # dull messages: most answers have fewer
HURRY_AGAIN_AFTER = 64  # where the messages are neither short nor equal, a hurry is in vain and costs about 1 us
SHORT = 1024  # bytes, whereof the walk knows messages; longer ones cost more to carry than to step over
TINY = 68  # bytes, whereof the match knows messages, from the shortest to the longest
MATCH_BELOW = 34  # bytes of the mean message: where they are longer, the walk is quicker
MATCH_MOST = 500  # messages in one match, which needs 200 bytes of memory for each
STRETCH = 32  # messages walked before the other ways are tried again
GALLOP_LEAST, GALLOP_MOST = 64, 4096  # messages verified at once, at first and at most: slices of up to 4 kB each

_STRETCH = range(STRETCH)
_header = Struct("!BI").unpack_from  # type byte, then a length that counts itself
_LEAST_IN_MASSES = {codes.DATA_ROW: 10, codes.COPY_DATA: 5}  # lengths: one column that is null; one byte


def _build_steps(kind: int) -> dict[bytes, int]:
    return {bytes([kind]) + length.to_bytes(4, "big"): length + 1 for length in range(LEAST_LENGTH, SHORT)}


def _build_match(kind: int, least: int) -> Callable[[bytes, int], "re.Match[bytes] | None"]:
    tails = (re.escape(bytes([length])) + b".{%d}+" % (length - LEAST_LENGTH) for length in range(least, TINY))
    return re.compile(b"(?:%c\\0\\0\\0(?:%b)){0,%d}" % (kind, b"|".join(tails), MATCH_MOST), re.DOTALL).match


_STEPS = {kind: _build_steps(kind) for kind in _LEAST_IN_MASSES}
"""By type, how long a message is that begins so."""
_MATCHES = {kind: _build_match(kind, least) for kind, least in _LEAST_IN_MASSES.items()}


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
    count = 0
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
        if count == HURRY_AFTER:
            end = _hurry(data, pos, length + 1, limit)
            count = HURRY_AFTER - HURRY_AGAIN_AFTER
        pos = end
    return 0, pos, pos


def _hurry(data: bytes, pos: int, step: int, limit: int) -> int:
    """The end of the messages like that at `pos`, which takes `step` bytes: at least its own end."""
    kind = data[pos]
    pos = _gallop(data, pos, step)
    if kind not in _STEPS or limit < SHORT:
        return pos
    steps, match = _STEPS[kind], _MATCHES[kind]
    try:
        while True:
            start = pos
            for _ in _STRETCH:
                pos += steps[data[pos : pos + 5]]
            if pos - start < MATCH_BELOW * STRETCH and (tiny := match(data, pos)):
                pos = max(pos, tiny.end())  # a match behind the data is taken for one at its end
            pos = _gallop(data, pos, steps[data[pos : pos + 5]])
    except KeyError:
        return pos


def _gallop(data: bytes, pos: int, step: int) -> int:
    """The end of the messages with exactly the header at `pos`, one every `step` bytes: at least that of the first."""
    head = data[pos : pos + HEADER_SIZE]
    ahead = pos + 4 * step
    if data[ahead : ahead + HEADER_SIZE] != head:  # the look that is enough when there is no run
        return pos + step
    count = GALLOP_LEAST
    while True:
        room = (len(data) - pos - HEADER_SIZE) // step + 1  # whole headers in the data
        verified = _count_equal(data, pos, step, head, min(count, room))
        pos += verified * step
        if verified < count:
            return pos
        count = min(count * 4, GALLOP_MOST)


def _count_equal(data: bytes, pos: int, step: int, head: bytes, count: int) -> int:
    """How many of `count` messages, `step` bytes apart, have this header, before the first that has not."""
    for i in (4, 3, 0, 2, 1):  # the low byte of the length first: where rows differ, they differ there
        column = data[pos + i : pos + (count - 1) * step + i + 1 : step]
        wanted = head[i : i + 1]
        if column != wanted * count:
            count -= len(column.lstrip(wanted))
    return count
