"""
Where messages begin and end in a stream, without looking inside them.

Theory. Most messages of a stream are dull: a row is carried, not read. `scan` steps over dull messages by
their headers and stops at the first that needs a look, so the caller pays per interesting message. What is
dull depends on the moment, hence the table of 256 flags that the caller brings.

Every header is verified, always: a row may hold bytes that look like a ReadyForQuery, so a guess is never
enough. What that costs (CPython 3.11, nanoseconds per message):

    plain   a header unpacked, its length and type judged                            135
    walk    the five bytes of the header are the key of a table that says the step    85
    gallop  equal headers in a row, verified many at once                              4

A few messages are all plain, and most answers have no more. Then rows are walked as long as their headers are in
the table, which is as long as they are short and of one type; any other header ends the walk, and the end of the
data too, since a cut header is in no table. Rows often come in runs of equal length. Then every header in the run is
the same five bytes at the same distance, so five strided slices hold all first bytes, all second ones, and so on; how
many of these are what they should be is how far the run is verified. Between stretches of the walk one look tells
whether such a run may have begun.

Nothing is copied here, and a stream may be cut anywhere: `scan` says where the next message begins, which
may lie beyond the data (a long row, cut) or just before its end (a cut header).
"""

from struct import Struct

from . import codes
from .errors import ProtocolError

HEADER_SIZE = 5
LEAST_LENGTH = HEADER_SIZE - 1  # a length counts itself
HURRY_AFTER = 8  # dull messages: from then on it is worth a try
HURRY_AGAIN_AFTER = 64  # those that are neither short nor equal cost a failed try, about 0.5 us, this often only
SHORT = 1024  # bytes; for longer messages the walk would win nothing that matters
STRETCH = range(64)  # of the walk
GALLOP_LEAST, GALLOP_MOST = 64, 4096  # messages verified at once, at first and at most: slices of up to 4 kB each

_header = Struct("!BI").unpack_from  # type byte, then a length that counts itself
_LONGEST = (SHORT - 1).to_bytes(LEAST_LENGTH, "big")


def _steps(kind: int) -> dict[bytes, int]:
    return {bytes([kind]) + length.to_bytes(4, "big"): length + 1 for length in range(LEAST_LENGTH, SHORT)}


_STEPS = {kind: _steps(kind) for kind in (codes.DATA_ROW, codes.COPY_DATA)}
"""How long a message is that begins so: the short ones of the types that come in masses."""


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
    """The end of the messages like the one at `pos`, which is `step` long, as far as walk and gallop get."""
    steps = _STEPS.get(data[pos]) if limit >= SHORT else None
    pos = _gallop(data, pos, step)
    if steps is None:
        return pos
    try:
        while True:
            for _ in STRETCH:
                pos += steps[data[pos : pos + 5]]
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
