"""
What answers a server still owes, in order, each with its owner.

Theory. PostgreSQL answers requests strictly in order, so a queue of debts says whose the next byte is. A
debt is entered when its request is sent (`expect`) and leaves when its answer comes (`settle`). The owner
stands in the entry and is never inferred from who holds the server: a client, or one of our own chores
(a SET in front of a query, a reset) whose answers reach nobody. `ANSWERS` (debts.py) is the whole law of what a
server may say while it owes a given debt; anything else is a ProtocolError, and the server is closed
before a byte of it reaches anybody.

Three rules of the protocol shape it (docs: "Message Flow", Extended Query and COPY Operations):

1. After an error in an extended request the server skips everything, a simple Query too, until the next
   Sync. So an error pays all debts up to that Sync; when no Sync is entered yet, requests are not
   owed anything until it is (`skipping`).
2. While it receives COPY data the server ignores Sync. A Sync sent before the CopyDone is then never
   answered: CopyInResponse voids those debts. A COPY_END entry, owed no answer, marks where a CopyDone
   or CopyFail stood. If the COPY failed before the server had read that Sync, it is answered after all,
   which nobody can tell from here: one more ReadyForQuery may come than is owed (`doubts`). It is known
   by coming where none can be due; anything else there proves that it never will. A server in doubt must
   serve nobody else, or that ReadyForQuery would pay somebody else's debt.
3. ReadyForQuery answers one Query, FunctionCall or Sync, each a debt of its own kind. A Sync right behind another of
   those has nothing to end (`was_bare`).

The ledger never looks at a socket: it gives verdicts.
"""

from collections import deque
from collections.abc import Iterable

from . import codes
from .answers import NO_BEGIN, NO_COLUMNS, WholeAnswers
from .debts import (
    ANSWERS,
    ASIDE,
    BIND,
    BOUND,
    BOUND_DESCRIBED,
    CLOSE,
    COPY_END,
    COPY_IN,
    DESCRIBE,
    DULL,
    DULL_REQUESTS,
    ENDS_UNIT,
    ERROR,
    EXECUTE,
    FUNCTION,
    LEAST_LENGTH,
    NOBODYS,
    NOTHING,
    ONE_QUERY,
    PARSE,
    PARSED,
    PARSED_DESCRIBED,
    PART,
    PAYS,
    QUERY,
    READY,
    REQUESTS,
    RUN,
    SYNC,
    TELLING,
    UNASKED,
    Answer,
    Debt,
    Entry,
    Owner,
    Round,
)
from .errors import ProtocolError

__all__ = [
    "ANSWERS", "ASIDE", "BIND", "BOUND", "BOUND_DESCRIBED", "CLOSE", "COPY_END", "COPY_IN", "DESCRIBE", "DULL",
    "DULL_REQUESTS", "ENDS_UNIT", "ERROR", "EXECUTE", "FUNCTION", "LEAST_LENGTH", "NOBODYS", "NOTHING", "ONE_QUERY",
    "PARSE", "PARSED", "PARSED_DESCRIBED", "PART", "PAYS", "QUERY", "READY", "REQUESTS", "RUN", "SYNC", "UNASKED",
    "Answer", "Debt", "Entry", "Ledger", "Owner", "Round", "is_unit_closed",
]  # fmt: skip


class Ledger(WholeAnswers):
    """The debts of one server. `head` is the next to be paid, as (debt, owner); the others stand behind it.

    What one client sent at once stands there as one entry, (debts, owner), so a batch is entered in one step.
    """

    __slots__ = ("_is_begun", "copying", "failed_at", "skipping", "voided", "was_bare")

    def __init__(self) -> None:
        self.head = NOBODYS
        self._now = ()  # the debts that stand with the head, paid ones too
        self._next = 0  # where in `_now` the debt after the head is
        self._behind = deque()
        self.columns = NO_COLUMNS
        self.begin = NO_BEGIN
        self.backlog = 0  # how many debts stand in `_behind`
        self.is_settled = True  # nothing owed, nothing half asked: a ReadyForQuery was the last word of both sides
        self.copying = False  # the server reads COPY data and no CopyDone has been sent yet
        self.skipping = False  # an error came and its Sync has not been sent yet
        self.doubts = 0  # how many ReadyForQuery may come that nobody is owed; see rule 2
        self._swallowed = 0  # Syncs that a COPY under way has swallowed, if it goes well
        self._is_begun = False  # something has been paid since the last ReadyForQuery
        self.was_bare = False  # the last ReadyForQuery, if it was settled here, answered a Sync and nothing else
        self.failed_at = NOTHING  # what was at the head when the last error came
        self.voided: list[Owner] = []  # whose Parse, Close, Describe, Execute and Query an error has paid, in order

    def __len__(self) -> int:
        return self.backlog + (len(self._now) - self._next + 1 if self.is_owing else 0)

    @property
    def is_owing(self) -> bool:
        """Is anything owed?"""
        return self.head is not NOBODYS

    def _groups(self) -> list[tuple[tuple[Debt, ...], Owner]]:
        """All that is owed, as it was entered."""
        if self.head is NOBODYS:
            return []
        debt, owner = self.head
        return [((debt, *self._now[self._next :]), owner), *self._behind]

    @property
    def is_unit_open(self) -> bool:
        """Requests have been sent, but not yet the Query, FunctionCall or Sync that ends their unit."""
        for debts, _ in reversed(self._groups()):
            for debt in reversed(debts):
                if debt is not COPY_END:
                    return debt not in ENDS_UNIT
        return not self.is_settled

    @property
    def is_between_units(self) -> bool:
        """Would a Sync change nothing? Not if a unit is open, or if one failed unheard that only a Query stands behind:
        the server skips that too."""
        is_closed = is_unit_closed(debt for debts, _ in reversed(self._groups()) for debt in reversed(debts))
        return is_closed is not False and not self.skipping and not self.is_unit_open

    def is_in_open_unit(self, owner: Owner) -> bool:
        """Was what `owner` is owed entered behind the last request that ends a unit?"""
        for debts, who in reversed(self._behind):
            if not ENDS_UNIT.isdisjoint(debts):
                return False
            if who is owner:
                return True
        return self.head[1] is owner and ENDS_UNIT.isdisjoint((self.head[0], *self._now[self._next :]))

    def owners(self) -> list[Owner]:
        """Who is owed something, in order, with repetitions."""
        return [owner for debts, owner in self._groups() for _ in debts]

    def expect_query(self, owner: Owner) -> None:
        """`expect` for one Query when nothing was owed before: the usual case."""
        assert self.is_settled
        self.is_settled = False
        self.head = (QUERY, owner)
        self._now = ONE_QUERY
        self._next = 1

    def expect_alone(self, debts: tuple[Debt, ...], owner: Owner) -> None:
        """The same for a batch that has no COPY_END in it."""
        assert self.is_settled
        self.is_settled = False
        self.head = (debts[0], owner)
        self._now = debts
        self._next = 1

    def expect_behind_run(self, first: Owner, owner: Owner) -> None:
        """The same for a statement of `first` (see RUN), and behind it a Query of `owner`."""
        self.expect_alone(RUN, first)
        self._behind.append((ONE_QUERY, owner))
        self.backlog = 1

    def expect(self, debts: tuple[Debt, ...], owner: Owner) -> None:
        """Enter what the requests just sent will earn."""
        if self.copying or self.skipping or COPY_END in debts:
            debts = tuple(debt for debt in debts if self._is_owed(debt))
            while self.head is NOBODYS and debts[:1] == (COPY_END,):
                debts = debts[1:]  # no COPY it could be the end of
        if not debts:
            return
        self.is_settled = False
        if self.head is NOBODYS:
            self.head = (debts[0], owner)
            self._now = debts
            self._next = 1
        else:
            self._behind.append((debts, owner))
            self.backlog += len(debts)

    def _is_owed(self, debt: Debt) -> bool:
        """The unusual cases of `expect`, rules 1 and 2 of the theory: does this earn an answer?"""
        if self.copying:
            if debt is COPY_END:
                self.copying = False
            elif debt is SYNC:
                self._swallowed += 1
            else:
                raise ProtocolError(f"a {debt.name.lower()} message in the middle of COPY data")
            return False
        self.skipping = self.skipping and debt is not SYNC
        return not self.skipping

    def settle(self, kind: int) -> Answer:
        """A message of type `kind` came: what it is to the debt at the head, which it may have paid."""
        answer = ANSWERS[self.head[0]][kind]
        if self.doubts and answer is not ASIDE and self._is_late(kind):
            return READY
        if answer is PAYS:
            self._swallowed = 0  # the COPY went well, so they were
            self._is_begun = True
            self._pay()
        elif answer is READY:
            self._end_unit()
        elif answer is ERROR:
            self._fail()
        elif answer is COPY_IN:
            self._begin_copy()
        return answer

    def _is_late(self, kind: int) -> bool:
        """Is this the ReadyForQuery in doubt? It is if none can be due; whatever else comes there ends the doubt."""
        if self.head[0] is SYNC:
            return False
        is_late = kind == codes.READY_FOR_QUERY
        self.doubts = self.doubts - 1 if is_late else 0
        if is_late:
            self.skipping = False
            self.is_settled = self.head is NOBODYS
        return is_late

    def _end_unit(self) -> None:
        """The ReadyForQuery at the head's unit's end."""
        self.was_bare = self.head[0] is SYNC and not self._is_begun
        self._is_begun = False
        self._swallowed = 0
        self._pay()
        self.is_settled = self.head is NOBODYS

    def _pay(self) -> None:
        """The debt at the head is paid: the next one that earns an answer takes its place."""
        while True:
            while self._next < len(self._now):
                debt = self._now[self._next]
                self._next += 1
                if debt is not COPY_END:
                    self.head = (debt, self.head[1])
                    return
            if not self._behind:
                self._now, self._next, self.head = (), 0, NOBODYS
                return
            self._now, owner = self._behind.popleft()
            self._next = 0
            self.backlog -= len(self._now)
            self.head = (NOTHING, owner)  # until the first of the group that earns an answer is found

    def _fail(self) -> None:
        """An ErrorResponse pays extended requests up to their Sync; the others wait for their ReadyForQuery."""
        self.copying = False
        self._is_begun = True
        self.failed_at = self.head[0]
        self.doubts += self._swallowed
        self._swallowed = 0
        if self.head[0] in ENDS_UNIT or self.head is NOBODYS:
            return
        while self.head[0] not in (SYNC, NOTHING):
            if self.head[0] in TELLING:
                self.voided.append(self.head[1])
            self._pay()
        self.skipping = self.head is NOBODYS

    def _begin_copy(self) -> None:
        """CopyInResponse: the Syncs already sent before the CopyDone will be swallowed."""
        while True:
            while self._next < len(self._now):
                debt = self._now[self._next]
                if debt is not SYNC:
                    self._next += debt is COPY_END
                    return  # (anything else the server will call a protocol violation itself, and hang up)
                self._next += 1
                self._swallowed += 1
            if not self._behind:
                self.copying = True
                return
            if self._behind[0][1] is not self.head[1]:
                return  # whoever comes next did not mean to speak into a COPY
            self._now, _ = self._behind.popleft()
            self._next = 0
            self.backlog -= len(self._now)

    def owe_again(self, owner: Owner) -> None:
        """What came as the ReadyForQuery of `owner` was none."""
        if self.is_owing:
            debt, heir = self.head
            self._behind.appendleft(((debt, *self._now[self._next :]), heir))
            self.backlog += len(self._behind[0][0])
        self._now, self._next, self.head = (SYNC,), 1, (SYNC, owner)
        self.is_settled = False

    def disown(self, owner: Owner, heir: Owner) -> None:
        """`owner` has left: what it is still owed goes to `heir`."""
        if self.head[1] is owner:
            self.head = (self.head[0], heir)
        self._behind = deque((debts, heir if who is owner else who) for debts, who in self._behind)


def is_unit_closed(debts: Iterable[Debt]) -> bool | None:
    """Has the last Sync among these, which come from the last to the first, nothing extended behind it? None: if there
    is neither."""
    for debt in debts:
        if debt not in (QUERY, FUNCTION, COPY_END):
            return debt is SYNC
    return None
