"""
Whole answers: the usual case of the ledger, in which everything that is owed arrives at once and went well.

Theory. Most answers are short, arrive in one piece and end with ReadyForQuery. Then one walk over the headers is all
there is to judge, a third of the work of taking them message by message; whatever is unusual (an error, a notice, a
COPY, a cut message) is left to `Ledger.settle`. Nothing is guessed: every header is looked at, as a row may hold any
bytes.
"""

from struct import Struct
from typing import Any

from . import codes
from .debts import ANSWERS, DULL, LEAST_LENGTH, NOBODYS, ONE_QUERY, PART, PAYS, QUERY, READY, Owner

SHORT = 4096  # bytes of an answer that is looked at as a whole
_READY = (b"Z\0\0\0\5I", b"Z\0\0\0\5T")  # ReadyForQuery after something that went well, outside a transaction or in one
_READY_SIZE = len(_READY[0])
_ONE_ROW = tuple(b"C\0\0\0\rSELECT 1\0" + ready for ready in _READY)  # how most answers end
_ONE_ROW_SIZE = len(_ONE_ROW[0]) - _READY_SIZE
_LEAST_IN_QUERY = tuple(LEAST_LENGTH if dull else 1 << 32 for dull in DULL[QUERY])  # no length reaches what is not dull
_header = Struct("!BI").unpack_from


class WholeAnswers:
    """The half of a ledger that pays by the unit. Its attributes are the ledger's."""

    __slots__ = ()

    def pay_whole(self: Any, data: bytes) -> Owner:
        """If `data` is short, pays the head's unit to its end, went well and holds nothing else: paid, and whose it is.

        Most answers are. Then this one walk is all there is to judge: a third of the work of `settle` by message.
        """
        pos, last = 0, len(data) - _READY_SIZE
        if last > SHORT or self.doubts or not data.endswith(_READY):
            return None
        if self._now is ONE_QUERY:
            if data.endswith(_ONE_ROW):
                last -= _ONE_ROW_SIZE
            while pos < last:
                kind, length = _header(data, pos)
                if length < _LEAST_IN_QUERY[kind]:
                    return None
                pos += length + 1
            if pos != last:
                return None
        elif not self._is_whole_batch(data, last):
            return None
        owner = self.head[1]
        if self._behind:
            self._next = len(self._now)
            self._end_unit()
        else:
            self._now = ()
            self.head = NOBODYS
            self.is_settled = True
            self._swallowed = 0
        return owner

    def _is_whole_batch(self: Any, data: bytes, last: int) -> bool:
        """`pay_whole` for more than one debt: do the messages before `last` pay all but the one for ReadyForQuery?"""
        debts, at, pos = self._now, self._next - 1, 0
        if not debts or debts[at] is not self.head[0]:
            return False  # (a COPY has swallowed what stood between)
        answers = ANSWERS[debts[at]]
        while pos < last:
            kind, length = _header(data, pos)
            answer = answers[kind]
            if answer is not PART:
                at += 1
                if answer is not PAYS or at == len(debts):
                    return False
                answers = ANSWERS[debts[at]]
            if length < LEAST_LENGTH:
                return False
            pos += length + 1
        return pos == last and at + 1 == len(debts) and answers[codes.READY_FOR_QUERY] is READY

    def find_answer_end(self: Any, data: bytes, pos: int) -> int:
        """Where the answer at `pos` ends, if it is whole and short, went well and pays one Query; else 0."""
        if self._now is not ONE_QUERY or self.doubts:
            return 0
        last = min(len(data), pos + SHORT) - _READY_SIZE
        while pos <= last:
            kind, length = _header(data, pos)
            if length < _LEAST_IN_QUERY[kind]:
                return pos + _READY_SIZE if data.startswith(_READY, pos) else 0
            pos += length + 1
        return 0

    def pay_query(self: Any) -> Owner:
        """The answer of `find_answer_end` has been taken; whose it is."""
        owner = self.head[1]
        self._swallowed = 0
        if not self._behind:
            self._now = ()
            self.head = NOBODYS
            self.is_settled = True
        elif self._behind[0][0] is ONE_QUERY:
            self.head = (QUERY, self._behind.popleft()[1])
            self.backlog -= 1
        else:
            self._next = 1
            self._end_unit()
        return owner
