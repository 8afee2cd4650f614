"""
Whole answers: the usual case of the ledger, in which everything that is owed arrives at once and went well.

Theory. Most answers are short, arrive in one piece and end with ReadyForQuery. Then one walk over the headers is all
there is to judge, a third of the work of taking them message by message; whatever is unusual (an error, a notice, a
COPY, a cut message) is left to `Ledger.settle`. Nothing is guessed: every header is looked at, as a row may hold any
bytes.
"""

from collections import deque
from struct import Struct

from . import codes
from .body import build_message
from .chains import Chain
from .debts import (
    ANSWERS,
    ASKED,
    COPY_END,
    DULL,
    EXECUTE,
    LEAST_LENGTH,
    NOBODYS,
    ONE_QUERY,
    PART,
    PAYS,
    QUERY,
    READY,
    RUN,
    SYNC,
    Debt,
    Entry,
    Owner,
    Round,
)
from .framing import HEADER_SIZE

SHORT = 4096  # bytes of an answer that is looked at as a whole
_READY = (b"Z\0\0\0\5I", b"Z\0\0\0\5T")  # ReadyForQuery after something that went well, outside a transaction or in one
_READY_SIZE = len(_READY[0])
_ONE_ROW = tuple(b"C\0\0\0\rSELECT 1\0" + ready for ready in _READY)  # how most answers end
_ONE_ROW_OUTSIDE = _ONE_ROW[0]
_ONE_ROW_WHOLE = len(_ONE_ROW_OUTSIDE)
_CUT = (0, 0)
NO_COLUMNS = b"T\0\0\0\6\0\0"  # a RowDescription too, and so is whatever else may be skipped as the last one
_DATA_ROW, _ROW_DESCRIPTION = codes.DATA_ROW, codes.ROW_DESCRIPTION
_ONE_ROW_SIZE = len(_ONE_ROW[0]) - _READY_SIZE
_READY_OUTSIDE = _READY[0]
_ONE_ROW_COMPLETE = _ONE_ROW_OUTSIDE[:_ONE_ROW_SIZE]
CUT, UNUSUAL = 0, -1
_LONGEST_BEGIN = len(ASKED.begins[0])
_DESCRIBED_BY = frozenset({codes.ROW_DESCRIPTION, codes.NO_DATA})
_ROW_OR_COMPLETE = frozenset({codes.DATA_ROW, codes.COMMAND_COMPLETE})
NO_BEGIN = (ASKED, b"\0")
_TAGS = (b"BEGIN", b"COMMIT", b"ROLLBACK", b"INSERT 0 1", b"UPDATE 1", b"UPDATE 0", b"DELETE 1", b"DELETE 0", b"SET")
_USUAL = frozenset(build_message(codes.COMMAND_COMPLETE, tag + b"\0") + ready for tag in _TAGS for ready in _READY)
_BEGUN = build_message(codes.COMMAND_COMPLETE, b"BEGIN\0")
_BEGUN_AND_READY = _BEGUN + _READY[1]  # what answers a Query
_BEGUN_IN_UNIT = build_message(codes.PARSE_COMPLETE) + build_message(codes.BIND_COMPLETE) + _BEGUN  # and RUN
_LONGEST_USUAL = max(map(len, _USUAL)) - _READY_SIZE
_LEAST_IN_QUERY, _LEAST_IN_EXECUTE = (
    tuple(LEAST_LENGTH if dull else 1 << 32 for dull in DULL[debt])  # no length reaches what is not dull
    for debt in (QUERY, EXECUTE)
)
_COMPLETE = codes.COMMAND_COMPLETE
_header = Struct("!BI").unpack_from


class WholeAnswers:
    """The half of a ledger that pays by the unit, and what of it both halves need."""

    __slots__ = (
        "_behind", "_next", "_now", "_swallowed", "backlog", "begin", "columns", "doubts", "head", "is_settled",
    )  # fmt: skip

    head: Entry
    backlog: int
    begin: tuple[Round, bytes]  # of a chain's answers the last one began so, up to its rows
    columns: bytes  # the last RowDescription among answers of several units
    doubts: int
    is_settled: bool
    _now: tuple[Debt, ...]
    _next: int
    _behind: deque[tuple[tuple[Debt, ...], Owner]]
    _swallowed: int

    def _end_unit(self) -> None:
        raise NotImplementedError

    def pay_whole(self, data: bytes) -> Owner:
        """If `data` is short, pays the head's unit to its end, went well and holds nothing else: paid, and whose it is.

        Most answers are. Then this one walk is all there is to judge: a third of the work of `settle` by message.
        """
        pos, last = 0, len(data) - _READY_SIZE
        if last > SHORT or self.doubts or not data.endswith(_READY):
            return None
        if self._now is ONE_QUERY:
            if data.endswith(_ONE_ROW):
                last -= _ONE_ROW_SIZE
            elif last <= _LONGEST_USUAL and data in _USUAL:
                pos = last
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

    def _is_whole_batch(self, data: bytes, last: int) -> bool:
        """`pay_whole` for more than one debt: do the messages before `last` pay all but the one for ReadyForQuery?"""
        debts, at, pos = self._now, self._next - 1, 0
        if type(debts) is Round and not at and _is_whole_round(debts, data, last):
            return True
        if not debts or debts[at] is not self.head[0] or debts[at] is SYNC:
            return False  # (a COPY has swallowed what stood between; or it is a Sync alone)
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

    def pay_begin(self, data: bytes) -> int:
        """If a BEGIN is owed first and other units behind it, and `data` begins with the usual answer to it: that is
        paid, and how long it is. 0: it is not as simple as that."""
        if self._now is RUN:
            begun = _BEGUN_IN_UNIT
        elif self._now is ONE_QUERY:
            begun = _BEGUN_AND_READY
        else:
            return 0
        debts, heir = self._behind[0]
        if not data.startswith(begun) or self._next != 1 or self.doubts or debts[0] is COPY_END:
            return 0
        self._behind.popleft()
        self._now, self._next, self.head = debts, 1, (debts[0], heir)
        self.backlog -= len(debts)
        self._swallowed = 0
        return len(begun)

    def pay_answers(self, data: bytes) -> tuple[list[tuple[Owner, bytes]], int]:
        """The whole short answers at the beginning of `data` that went well, each with its owner; and where they end.

        Only those to single queries and to rounds of Bind and Execute, behind which others stand in line (lines.py).
        Most have one row, and the same columns as the answer before: then one look at a header is enough.
        """
        paid: list[tuple[Owner, bytes]] = []
        pos, behind, columns, header = 0, self._behind, self.columns, _header
        debts, owner, is_fresh = self._now, self.head[1], self._next == 1
        while not self.doubts:
            start, is_described = pos, True
            if debts is not ONE_QUERY:
                if type(debts) is not Round or not (paid or is_fresh) or not data.startswith(debts.begins, pos):
                    break
                pos += debts.size
                is_described = debts.is_described
            begin = pos
            if is_described and data.startswith(columns, pos):
                pos += len(columns)
            kind, length = header(data, pos) if pos + HEADER_SIZE <= len(data) else _CUT
            is_usual = kind == _DATA_ROW and length >= LEAST_LENGTH and (pos > begin or not is_described)
            if is_usual and data.startswith(_ONE_ROW_OUTSIDE, pos + length + 1):
                pos += length + 1 + _ONE_ROW_WHOLE
            else:
                last = min(len(data), start + SHORT) - _READY_SIZE
                if debts is ONE_QUERY:
                    pos = self._find_end(data, begin, last)
                else:
                    pos = self._find_round_end(data, begin, last, is_described=is_described)
                if not pos:
                    pos = start
                    break
                columns = self.columns
            paid.append((owner, data[start:pos]))
            if not behind:
                self._close()
                return paid, pos
            debts, owner = behind.popleft()
        if paid:
            self._now, self._next, self.head = debts, 1, (debts[0], owner)
            self._swallowed = 0
            self.backlog = sum([len(each) for each, _ in behind])
        return paid, pos

    def _find_end(self, data: bytes, pos: int, last: int) -> int:
        """Where the answer to a query ends that begins at `pos`: behind its ReadyForQuery, which is not behind `last`.
        0: it is not whole, or not of the usual kind."""
        while pos <= last:
            kind, length = _header(data, pos)
            if length < _LEAST_IN_QUERY[kind]:
                return pos + _READY_SIZE if data.startswith(_READY_OUTSIDE, pos) else 0
            if kind == _ROW_DESCRIPTION and pos + length <= last:
                self.columns = data[pos : pos + length + 1]
            pos += length + 1
        return 0

    def _find_round_end(self, data: bytes, pos: int, last: int, *, is_described: bool) -> int:
        """The same of a round, of whose answer the columns, if it `is_described`, or the rows begin at `pos`."""
        if is_described:
            kind, length = _header(data, pos) if pos <= last else _CUT
            begin, pos = pos, pos + length + 1
            if kind != _ROW_DESCRIPTION or length < LEAST_LENGTH or pos > last:
                return 0
            self.columns = data[begin:pos]
        end = self._find_complete(data, pos, last)
        return end + _READY_SIZE if end > 0 and data.startswith(_READY_OUTSIDE, end) else 0

    def pay_chain(self, data: bytes) -> tuple[list[bytes], int]:
        """If `data` begins with the usual answer to the chain at the head: that is paid; the answers to its units, each
        as if it had come alone, and where the last one ends. Else none, and `CUT` (more must come) or `UNUSUAL`.

        Most have one row, and begin like the answer before: then two looks are enough.
        """
        chain, header, pos = self._now, _header, 0
        answers: list[bytes] = []
        if type(chain) is not Chain or self._next != 1 or self.doubts:
            return [], UNUSUAL
        usual, begin = self.begin
        size = len(begin)
        for debts in chain.rounds:
            if debts is not usual or not data.startswith(begin, pos):
                end = self._find_begin(data, pos, debts)
                if end <= 0:
                    return [], end
                usual, begin = self.begin
                size = len(begin)
            row = pos + size
            kind, length = header(data, row) if row + HEADER_SIZE <= len(data) else _CUT
            end = row + length + 1
            if kind == _DATA_ROW and length >= LEAST_LENGTH and data.startswith(_ONE_ROW_COMPLETE, end):
                end += _ONE_ROW_SIZE
            else:
                end = self._find_complete(data, row, len(data))
                if end <= 0:
                    return [], end
            answers.append(data[pos + debts.skipped : end] + _READY_OUTSIDE)
            pos = end
        if not data.startswith(_READY_OUTSIDE, pos):
            return [], CUT if _READY_OUTSIDE.startswith(data[pos : pos + _READY_SIZE]) else UNUSUAL
        self._behind.popleft()  # its Sync
        self.backlog -= 1
        self._pass_on()
        return answers, pos + _READY_SIZE

    def _find_begin(self, data: bytes, pos: int, debts: Round) -> int:
        """Where the rows begin of the answer at `pos`, and `begin` is what stands before them; `CUT` or `UNUSUAL`."""
        if not data.startswith(debts.begins, pos):
            return CUT if debts.begins[0].startswith(data[pos : pos + _LONGEST_BEGIN]) else UNUSUAL
        end = pos + debts.size
        if debts.is_described:
            if end + HEADER_SIZE > len(data):
                return CUT
            kind, length = _header(data, end)
            if kind != _ROW_DESCRIPTION or length < LEAST_LENGTH:
                return UNUSUAL
            end += length + 1
        if end > len(data):
            return CUT
        self.begin = debts, data[pos:end]
        return end

    def _find_complete(self, data: bytes, pos: int, limit: int) -> int:
        """Where the CommandComplete ends that comes next, behind rows, by `limit`; or `CUT`, if later, or `UNUSUAL`."""
        while pos + HEADER_SIZE <= limit:
            kind, length = _header(data, pos)
            if length < LEAST_LENGTH or kind not in _ROW_OR_COMPLETE:
                return UNUSUAL
            pos += length + 1
            if kind == _COMPLETE and pos <= limit:
                return pos
        return CUT

    def _pass_on(self) -> None:
        """What is owed next stands at the head."""
        if not self._behind:
            self._close()
            return
        self._now, owner = self._behind.popleft()
        self._next, self.head = 1, (self._now[0], owner)
        self.backlog -= len(self._now)
        self._swallowed = 0

    def _close(self) -> None:
        """Nothing is owed any more."""
        self._now = ()
        self._next = 0
        self.head = NOBODYS
        self.is_settled = True
        self._swallowed = self.backlog = 0

    def expect_units(self, entries: list[tuple[tuple[Debt, ...], Owner]]) -> None:
        """`expect` for several whole units of different owners, of which none begins a COPY."""
        behind = self._behind
        behind.extend(entries)
        self.backlog += sum([len(entry[0]) for entry in entries])
        if self.head is NOBODYS:
            debts, owner = behind.popleft()
            self.backlog -= len(debts)
            self._now, self._next, self.head = debts, 1, (debts[0], owner)
        self.is_settled = False


def _is_whole_round(debts: Round, data: bytes, last: int) -> bool:
    """`_is_whole_batch` for the usual answer: perhaps rows, and a CommandComplete."""
    if not data.startswith(debts.begins):
        return False
    pos = debts.size
    if debts.is_described:
        kind, length = _header(data, pos)
        if length < LEAST_LENGTH or kind not in _DESCRIBED_BY:
            return False
        pos += length + 1
    while pos < last:
        kind, length = _header(data, pos)
        if length < _LEAST_IN_EXECUTE[kind]:
            return bool(kind == _COMPLETE and pos + length + 1 == last and length >= LEAST_LENGTH)
        pos += length + 1
    return False
