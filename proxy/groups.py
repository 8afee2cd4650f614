"""
Units of a line that travel as one: up to one Sync, in one transaction.

Theory. What a short read costs PostgreSQL is mostly not the read: it ends a transaction, and sends its answer with a
system call that wakes us. Units that go to a server at the same time may share both (protocol/chains.py). That changes
nothing for their clients: all of them had asked before the transaction began, so its snapshots are as fresh as their
own would have been, and each hears exactly what it would have heard alone.

What is new is that they stand or fall together, and that PostgreSQL sends nothing before it is done with all of them.
One rule answers both: **a group succeeds as a whole, or it never was.** Nobody hears anything before its ReadyForQuery
has come. If one unit fails, PostgreSQL takes back what the others did; then all of them run again, by themselves, and
each hears of that run, the one that failed too. The same where a cancel hits, the server dies, the answers are larger
than they ever were, or where one waits for a lock (stuck.py). So nothing ever happens twice here, not even where a text
that seems to read has an effect, unless the server finished its work and was not heard to the end.

A kind of statement whose unit made a group fail goes by itself for a while, the longer the more often that happens.
"""

from typing import Any, Final

from protocol import codes
from protocol.backend import ErrorFields
from protocol.chains import ONE_SYNC, Chain, count_whole, link, split
from protocol.errors import ProtocolError
from protocol.ledger import Debt, Owner
from proxy.states import Closing
from proxy.units import Unit, let_off

MAX_ANSWERS: Final = 262_144  # bytes of all answers to a group that are kept for its end

LEAST: Final = 4  # units that are not divided

Entries = list[tuple[tuple[Debt, ...], Owner]]


class Group:
    """Several units of `line`. It owns their debts."""

    __slots__ = ("_answers", "_is_answered", "_is_failed", "is_begun", "is_ending", "line", "units")

    client = None  # who hears it: nobody, before it is done

    def __init__(self, line: Any, units: list[Unit]) -> None:
        self.line = line
        self.units = units  # none: what still comes is nobody's
        self._answers = b""
        self._is_failed = self._is_answered = False
        self.is_ending = False  # it has stood still, and has been cancelled for that
        self.is_begun = False  # has some of its answers come already? (A notice does, whatever it stands before.)

    def dissolve(self) -> None:
        """It never was: its units run again, by themselves."""
        units = self.leave(has_begun=True)
        self.line.lines.run_again(units, alone=units if self.is_ending else ())

    def end(self) -> int:
        """It stands still (stuck.py): cancel it, for all of its units, which are so many."""
        self.is_ending = True
        for unit in self.units:
            unit.shape.distrust()
        self.line.end_head()
        return len(self.units)

    def leave(self, *, has_begun: bool) -> list[Unit]:
        """Those units whose clients are still there. What PostgreSQL still says of this group is nobody's."""
        units, self.units = self.units, []
        self._answers = b""
        self.line.load -= len(units)
        if has_begun:
            for unit in units:
                unit.is_loner = True
                unit.runs -= 1  # that was none
        return [unit for unit in units if unit.client is not None]

    # What a server calls, where the answers are not the usual ones or come in pieces.

    def deliver(self, data: bytes) -> None:
        self.is_begun = True
        if not self.units:
            return
        self._answers += data
        if self._is_failed and self._is_answered:
            self.line.head_since = self.line.now()  # of what stood behind it
            self.dissolve()
        elif self._is_answered:
            self.line.hand_over(list(zip(self.units, self._split(), strict=True)))
        elif len(self._answers) > MAX_ANSWERS:
            self._give_up()

    def _split(self) -> list[bytes]:
        return split(Chain.of([unit.debts for unit in self.units]), self._answers)

    def _give_up(self) -> None:
        """Too much to keep. The server goes on for nobody."""
        self._shun()
        self.line.nobodys += 1
        self.dissolve()

    def _shun(self) -> None:
        """Whose answer has not come to its end, of that kind is no unit in a group for a while."""
        place = count_whole(self._answers)
        if place < len(self.units):
            self.units[place].shape.shun()

    def failed(self, error: ErrorFields) -> bytes | None:
        """Nobody hears of it."""
        if not (error.is_fatal or self._is_failed):
            self._is_failed = True
            if not self.line.was_canceled:
                self._shun()
        return b""

    def answered(self, server: Any) -> None:
        """Its ReadyForQuery has come; the last bytes of the answer come a moment later."""
        self._is_answered = True
        if not self.units:
            self.line.nobody_is_served(server)
        elif server.status != codes.IDLE:
            self._break_off()

    def finish(self, server: Any, data: bytes) -> None:
        """Its ReadyForQuery has come by itself: `answered` and `deliver` in one."""
        self.answered(server)
        self.deliver(data)

    def _break_off(self) -> None:
        """Its server will be closed. It is owed nothing any more, so nobody else would tell the clients."""
        for unit in self.leave(has_begun=True):
            client, unit.client = unit.client, None
            let_off(client, client.pool.now())
            client.lose_server(Closing.HOSTILE, None, was_told=False, cut=None)
        raise ProtocolError("a transaction that nobody has begun")

    def voided(self) -> None:
        """An error has paid something of it; `failed` knows."""

    def relieve(self) -> None:
        """There is nothing that waits."""


def enter(line: Any, units: list[Unit], pieces: list[bytes], entries: Entries) -> None:
    """`units` are sent behind `pieces`, as groups: two at least, if they are many, so that we and their clients work on
    one half while the server works on the other; and of at most so many as the settings say."""
    most = min(line.lines.group, max(LEAST, (len(units) + 1) // 2))
    loners = [unit for unit in units if unit.is_loner or not unit.shape.is_sociable]
    if loners:
        together: list[Unit] = []
        for unit in units:
            if unit in loners:
                _enter_groups(line, together, most, pieces, entries)
                _enter_group(line, [unit], pieces, entries)
                together = []
            else:
                together.append(unit)
        units = together
    _enter_groups(line, units, most, pieces, entries)


def _enter_groups(line: Any, units: list[Unit], most: int, pieces: list[bytes], entries: Entries) -> None:
    for start in range(0, len(units), most):
        _enter_group(line, units[start : start + most], pieces, entries)


def _enter_group(line: Any, units: list[Unit], pieces: list[bytes], entries: Entries) -> None:
    """`units` are all of a group; one is none."""
    if len(units) > 1:
        group = Group(line, units)
        debts = [unit.debts for unit in units]
        pieces.append(link([unit.data for unit in units], debts))
        entries += (Chain.of(debts), group), (ONE_SYNC, group)
    elif units:
        pieces.append(units[0].data)
        entries.append((units[0].debts, units[0]))
