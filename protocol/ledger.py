"""
What answers a server still owes, in order, each with its owner.

Theory. PostgreSQL answers requests strictly in order, so a queue of debts says whose the next byte is. A
debt is entered when its request is sent (`expect`) and leaves when its answer comes (`settle`). The owner
stands in the entry and is never inferred from who holds the server: a client, or one of our own chores
(a SET in front of a query, a reset) whose answers reach nobody. `ANSWERS` is the whole law of what a
server may say while it owes a given debt; anything else is a ProtocolError, and the server is closed
before a byte of it reaches anybody.

Three rules of the protocol shape it (docs: "Message Flow", Extended Query and COPY Operations):

1. After an error in an extended request the server skips everything, a simple Query too, until the next
   Sync. So an error pays all debts up to that Sync; when no Sync is entered yet, requests are not
   owed anything until it is (`skipping`).
2. While it receives COPY data the server ignores Sync. A Sync sent before the CopyDone is then never
   answered: CopyInResponse voids those debts. A COPY_END entry, owed no answer, marks where a CopyDone
   or CopyFail stood. If the COPY failed in between, a voided Sync may be answered after all: once, to
   the same owner.
3. ReadyForQuery answers one Query, FunctionCall or Sync, each a debt of its own kind.

The ledger never looks at a socket: it gives verdicts.
"""

import enum
from collections import deque
from collections.abc import Iterable
from typing import Any

from . import codes
from .errors import ProtocolError
from .framing import flags

Owner = Any  # whoever a server delivers to: a client, or a chore of ours


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

    UNASKED = 0  # nobody asked for this: the server is broken or hostile
    PART = 1  # belongs to the debt, pays nothing
    PAYS = 2  # pays the debt
    READY = 3  # pays a Query, FunctionCall or Sync: the end of a unit
    ERROR = 4
    COPY_IN = 5  # the server now reads COPY data
    ASIDE = 6  # asynchronous: may come at any time, pays nothing


NOTHING, QUERY, FUNCTION, SYNC, PARSE, BIND, CLOSE, DESCRIBE, EXECUTE, COPY_END = Debt
UNASKED, PART, PAYS, READY, ERROR, COPY_IN, ASIDE = Answer

ENDS_UNIT = frozenset({QUERY, FUNCTION, SYNC})

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


class Ledger:
    """The debts of one server. `head` is the next to be paid, as (debt, owner)."""

    __slots__ = ("_entries", "_voided", "copying", "head", "is_unit_open", "skipping")

    def __init__(self) -> None:
        self._entries: deque[tuple[Debt, Owner]] = deque()
        self.head: tuple[Debt, Owner] = (NOTHING, None)
        self.copying = False  # the server reads COPY data and no CopyDone has been sent yet
        self.skipping = False  # an error came and its Sync has not been sent yet
        self.is_unit_open = False  # the last request sent was not a Query, FunctionCall or Sync
        self._voided: Owner = None  # whose Sync was swallowed by a COPY

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_settled(self) -> bool:
        """Nothing is owed and nothing half asked: a ReadyForQuery was the last word of both sides."""
        return not (self._entries or self.copying or self.skipping or self.is_unit_open)

    def owners(self) -> list[Owner]:
        """Who is owed something, in order, with repetitions."""
        return [owner for _, owner in self._entries]

    def expect(self, debts: Iterable[Debt], owner: Owner) -> None:
        """Enter what the requests just sent will earn."""
        for debt in debts:
            if (self.copying or self.skipping or debt is COPY_END) and not self._is_owed(debt, owner):
                continue
            self._entries.append((debt, owner))
            self.is_unit_open = debt not in ENDS_UNIT
        if self._entries:
            self.head = self._entries[0]

    def _is_owed(self, debt: Debt, owner: Owner) -> bool:
        """The unusual cases of `expect`, rules 1 and 2 of the theory: does this earn an answer?"""
        if self.copying:
            if debt is COPY_END:
                self.copying = False
            elif debt is SYNC:
                self._voided = owner
            else:
                raise ProtocolError(f"a {debt.name.lower()} message in the middle of COPY data")
            return False
        if debt is COPY_END:
            if self._entries and not self.skipping:
                self._entries.append((debt, owner))
            return False
        self.skipping = self.skipping and debt is not SYNC
        return not self.skipping

    def settle(self, kind: int) -> Answer:
        """A message of type `kind` came: what it is to the debt at the head, which it may have paid."""
        answer = ANSWERS[self.head[0]][kind]
        if answer is PAYS:
            self._pay()
        elif answer is READY:
            self._voided = None
            self._pay()
        elif answer is ERROR:
            self._fail()
        elif answer is COPY_IN:
            self._begin_copy()
        elif answer is UNASKED:
            return self._answer_voided(kind)
        return answer

    def _pay(self) -> None:
        entries = self._entries
        entries.popleft()
        while entries and entries[0][0] is COPY_END:
            entries.popleft()
        self.head = entries[0] if entries else (NOTHING, None)

    def _fail(self) -> None:
        """An ErrorResponse pays extended requests up to their Sync; the others wait for their ReadyForQuery."""
        self.copying = False
        if self.head[0] in ENDS_UNIT or self.head[0] is NOTHING:
            return
        while self.head[0] not in (SYNC, NOTHING):
            self._pay()
        if self.head[0] is NOTHING:
            self.skipping = True
            self.is_unit_open = False

    def _begin_copy(self) -> None:
        """CopyInResponse: the Syncs already sent before the CopyDone will be swallowed."""
        head, *rest = self._entries
        for place, (debt, owner) in enumerate(rest):
            if debt is COPY_END:
                self._entries = deque([head, *rest[place + 1 :]])
                return
            if debt is not SYNC:
                self._entries = deque([head, *rest[place:]])
                return  # the server will call this a protocol violation itself, and hang up
            self._voided = owner
        self._entries = deque([head])
        self.copying = True
        self.is_unit_open = head[0] is EXECUTE  # whatever Sync there was, it is gone

    def _answer_voided(self, kind: int) -> Answer:
        """A ReadyForQuery for a Sync that we thought swallowed: the COPY failed before the server read it."""
        if kind != codes.READY_FOR_QUERY or self._voided is None or self.head[0] is not NOTHING:
            return UNASKED
        self._voided = None
        self.skipping = self.is_unit_open = False
        return READY

    def disown(self, owner: Owner, heir: Owner) -> None:
        """`owner` has left: what it is still owed goes to `heir`."""
        self._entries = deque((debt, heir if who is owner else who) for debt, who in self._entries)
        if self._entries:
            self.head = self._entries[0]
        if self._voided is owner:
            self._voided = heir
