"""
Several whole units up to one Sync: to PostgreSQL they are one transaction, and are answered with one write.

Theory. Each Sync ends a transaction and makes PostgreSQL send what it has; for a short read these two cost more than
the read. Without it units still run one after another, each statement with a snapshot of its own under READ COMMITTED
(docs: "Pipelining" in "Message Flow"). A chain is atomic: an error in one unit takes back what the others did, and
skips those behind it. So its answers are good only when its ReadyForQuery has come.

A simple query ends a transaction as well, so it is asked as a round: Parse, Bind, Describe, Execute of the statement
and the portal without a name. What answers that is what answers the query, behind ParseComplete and BindComplete.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from struct import Struct
from typing import Final, cast

from . import codes
from .body import build_message
from .debts import ASKED, ONE_QUERY, SYNC, Debt, Round
from .framing import HEADER_SIZE
from .frontend import PORTAL, SYNC_MESSAGE, Bind, build_bind, build_describe, build_execute

_head: Final = Struct("!cI").pack
_header: Final = Struct("!BI").unpack_from
_NO_TYPES: Final = bytes(2)
_BEHIND_TEXT: Final = b"".join(
    (_NO_TYPES, build_bind(Bind(b"", b"", (), (), ())), build_describe(PORTAL, b""), build_execute(b""))
)
SHORT: Final = 1024  # bytes of a query whose Parse begins with something prepared


def _build_parse(size: int) -> bytes:
    """How a Parse begins whose text is that of a Query of `size` bytes: up to the text."""
    return _head(b"P", size + 2) + b"\0"


_PARSES: Final = [_build_parse(size) for size in range(SHORT)]
_SYNC_SIZE: Final = len(SYNC_MESSAGE)
_ENDS: Final = frozenset(b"CsI")  # CommandComplete, PortalSuspended, EmptyQueryResponse
_UNHEARD: Final = frozenset(b"12n")  # of a round: who has asked a query is told none of these
_READY: Final = build_message(codes.READY_FOR_QUERY, b"I")
ONE_SYNC: Final = (SYNC,)


class Chain(tuple[Debt, ...]):
    """What several units earn together, but for the Sync behind them (`ONE_SYNC`)."""

    rounds: tuple[Round, ...]

    @classmethod
    def of(cls, units: Sequence[tuple[Debt, ...]]) -> "Chain":
        """`units` are debts of simple queries, and rounds."""
        first = ASKED if units[0] is ONE_QUERY else cast(Round, units[0])
        if units.count(units[0]) == len(units):  # they are mostly of one kind
            made = cls(first[:-1] * len(units))
            made.rounds = (first,) * len(units)
        else:
            rounds = [ASKED if debts is ONE_QUERY else cast(Round, debts) for debts in units]
            made = cls(chain.from_iterable([debts[:-1] for debts in rounds]))
            made.rounds = tuple(rounds)
        return made


def link(said: Iterable[bytes], units: Iterable[tuple[Debt, ...]]) -> bytes:
    """What is sent for a chain of `units`, whose clients have `said` this."""
    pieces: list[bytes] = []
    for data, debts in zip(said, units, strict=True):
        if debts is ONE_QUERY:
            size = len(data)
            pieces += _PARSES[size] if size < SHORT else _build_parse(size), data[HEADER_SIZE:], _BEHIND_TEXT
        else:
            pieces.append(data[:-_SYNC_SIZE])
    pieces.append(SYNC_MESSAGE)
    return b"".join(pieces)


def split(units: Chain, data: bytes) -> list[bytes]:
    """The whole answer to a chain without an error, which has been judged by the ledger: that to each of its units, as
    if it had come alone. The general case of `WholeAnswers.pay_chain`."""
    answers, pos = [], 0
    for debts in units.rounds:
        pieces, start, kind = [], pos, 0
        while kind not in _ENDS:
            kind, length = _header(data, pos)
            end = pos + length + 1
            if debts is ASKED and kind in _UNHEARD:
                pieces.append(data[start:pos])
                start = end
            pos = end
        pieces.append(data[start:pos])
        answers.append(b"".join(pieces))
    answers[-1] += data[pos : -len(_READY)]
    return [answer + _READY for answer in answers]


def count_whole(data: bytes) -> int:
    """To how many units whole answers stand in `data`, which may be cut."""
    count = pos = 0
    while pos + HEADER_SIZE <= len(data):
        kind, length = _header(data, pos)
        pos += length + 1
        count += kind in _ENDS and pos <= len(data)
    return count
