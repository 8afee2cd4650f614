"""
What a server may owe, and what its messages do to that: the tables of the ledger.

Theory. A request earns a debt (`REQUESTS`), and for each debt a table says what every type of message is while that is
at the head (`ANSWERS`): part of the answer, its end, an error, or something that nobody asked for. It is the whole law
of what a server may say, in numbers that index tables, since it is asked for every message that is not stepped over
(docs: "Message Flow", "Message Formats").
"""

import enum
from typing import Any

from . import codes
from .framing import HEADER_SIZE, flags

Owner = Any  # whoever a server delivers to: a client, or a chore of ours
Entry = tuple["Debt", Owner]


class Debt(enum.IntEnum):
    """What is owed, by the request that earned it. The numbers index the tables below."""

    NOTHING = 0  # asynchronous messages only
    QUERY = 1  # the ReadyForQuery of a simple Query, and all before it; errors do not pay it
    FUNCTION = 2  # the ReadyForQuery of a FunctionCall
    SYNC = 3  # the ReadyForQuery of a Sync; survives any error before it
    PARSE = 4  # ParseComplete
    BIND = 5  # BindComplete
    CLOSE = 6  # CloseComplete
    DESCRIBE = 7  # RowDescription or NoData
    EXECUTE = 8  # CommandComplete, EmptyQueryResponse or PortalSuspended, and the rows before it
    COPY_END = 9  # no answer: where a CopyDone or CopyFail stood among the requests


class Answer(enum.IntEnum):
    """What a message of the server does to the debt at the head."""

    PART = 1  # belongs to the debt, pays nothing
    PAYS = 2  # pays the debt
    READY = 3  # pays a Query, FunctionCall or Sync: the end of a unit
    ERROR = 4
    COPY_IN = 5  # the server now reads COPY data
    ASIDE = 6  # asynchronous: may come at any time, pays nothing
    UNASKED = 7  # nobody asked for this: the server is broken or hostile


NOTHING, QUERY, FUNCTION, SYNC, PARSE, BIND, CLOSE, DESCRIBE, EXECUTE, COPY_END = Debt
PART, PAYS, READY, ERROR, COPY_IN, ASIDE, UNASKED = Answer

NOBODYS: Entry = (NOTHING, None)
"""The head of a ledger in which nothing is owed."""

LEAST_LENGTH = HEADER_SIZE - 1  # a length counts itself

ONE_QUERY = (QUERY,)


class Round(tuple[Debt, ...]):
    """What a batch earns that drivers send all day, and how its answer begins when all goes well."""

    begins: tuple[bytes, ...]
    size: int  # of what begins it and is the same for each of these, but for the type that comes next
    skipped: int = 0  # of that, what nobody wants to hear
    is_described: bool

    @classmethod
    def of(cls, *debts: Debt) -> "Round":
        made = cls(debts)
        done = b"".join(_DONE[debt] for debt in debts if debt in _DONE)
        made.is_described = DESCRIBE in debts
        made.begins = (done + b"T", done + b"n") if made.is_described else (done,)
        made.size = len(done)
        return made


_DONE = {PARSE: b"1\0\0\0\4", BIND: b"2\0\0\0\4"}
BOUND = Round.of(BIND, EXECUTE, SYNC)
BOUND_DESCRIBED = Round.of(BIND, DESCRIBE, EXECUTE, SYNC)
PARSED = Round.of(PARSE, *BOUND)
PARSED_DESCRIBED = Round.of(PARSE, *BOUND_DESCRIBED)
ASKED = Round.of(*PARSED_DESCRIBED)
"""What a simple query earns that is asked as such a round (chains.py)."""
ASKED.skipped = ASKED.size
RUN = (PARSE, BIND, EXECUTE)
"""What one statement earns that does not end its unit (frontend.build_run)."""
ENDS_UNIT = frozenset({QUERY, FUNCTION, SYNC})
TELLING = frozenset({PARSE, CLOSE, DESCRIBE, EXECUTE, QUERY})  # who asked for these hears when an error pays them

_ROWS = "D" + "Hdc"  # DataRow; CopyOutResponse, CopyData, CopyDone


def _answers(**kinds: str) -> tuple[Answer, ...]:
    table = [UNASKED] * 256
    for name, letters in {"ASIDE": "NSA", "ERROR": "E", **kinds}.items():
        for letter in letters:
            table[ord(letter)] = Answer[name]
    return tuple(table)


ANSWERS: tuple[tuple[Answer, ...], ...] = (
    _answers(),
    _answers(PART="TCI" + _ROWS, COPY_IN="GW", READY="Z"),  # QUERY
    _answers(PART="V", READY="Z"),  # FUNCTION
    _answers(READY="Z"),  # SYNC
    _answers(PAYS="1"),  # PARSE
    _answers(PAYS="2"),  # BIND
    _answers(PAYS="3"),  # CLOSE
    _answers(PART="t", PAYS="Tn"),  # DESCRIBE
    _answers(PART=_ROWS, COPY_IN="GW", PAYS="CIs"),  # EXECUTE
    _answers(),  # COPY_END is never at the head
)

DULL = tuple(bytes(int(answer is PART) for answer in table) for table in ANSWERS)
"""For `framing.scan`: the messages to step over while this debt is at the head."""

REQUESTS: dict[int, Debt] = {
    codes.QUERY: QUERY,
    codes.FUNCTION_CALL: FUNCTION,
    codes.SYNC: SYNC,
    codes.PARSE: PARSE,
    codes.BIND: BIND,
    codes.CLOSE: CLOSE,
    codes.DESCRIBE: DESCRIBE,
    codes.EXECUTE: EXECUTE,
    codes.COPY_DONE: COPY_END,
    codes.COPY_FAIL: COPY_END,
}
"""Which debt a client's message earns; Flush, CopyData and Terminate earn none."""


DULL_REQUESTS = flags(bytes([codes.COPY_DATA, codes.FLUSH]))
