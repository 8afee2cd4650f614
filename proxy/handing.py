"""
What comes back along a line: each answer to its unit's client.

Theory. Several answers come with one read. Those that are whole are paid in the ledger in one go
(`Ledger.pay_answers`), noted, and written to their clients last of all, since each write may wake somebody who takes
our core away. The server's next units go before that: it works while we write.

How long a unit took is not seen, only when its answer was read, and how many came with it. So times are shares of that,
and what a line goes by is not their mean. A machine on which everybody waits for a core is not a line that is slow:
`pace` is what a unit takes when it need not wait, `gap` the usual time between two reads, and a head is late when it
takes much longer than that.

A client that does not read has some of its answer kept for it (unread.py); then our server is not read any more.
"""

from typing import Any, Final

from protocol.answers import CUT
from proxy.groups import MAX_ANSWERS, Group
from proxy.states import RESTING
from proxy.units import Unit, let_off

UP: Final = 1.05  # steps of `pace` and `gap`
DOWN: Final = 0.8
LATE: Final = 10  # times the usual gap


class Handing:
    """The half of a line that answers. Its attributes are the line's."""

    now: Any
    lines: Any
    pool: Any
    server: Any
    load: int
    preparing: Any
    rest: bytes
    nobodys: int
    pace: float
    gap: float
    head_since: float
    ready_at: float
    is_held: bool
    was_canceled: bool

    def take_answers(self, data: bytes) -> bytes:
        """Whole answers, each to its owner. What is left."""
        server = self.server
        ledger = server.ledger
        if self.rest:
            data, self.rest = self.rest + data, b""
        paid: list[tuple[Any, bytes]] = []
        while data and (owner := ledger.head[1]) is not None:
            if type(owner) is Group and not owner.is_begun:
                answers, end = ledger.pay_chain(data)
                some = list(zip(owner.units, answers, strict=False))
                if end == CUT and len(data) <= MAX_ANSWERS:
                    self.rest, data = data, b""
            else:
                some, end = ledger.pay_answers(data)
                if some and self.was_canceled and isinstance(owner, Unit):
                    some[0] = owner, owner.take_kept(some[0][1])
            if not some:
                break
            paid += some
            data = data[end:]
        if paid:
            server.is_streaming = True  # it does not come to rest before all have what is theirs
            self.hand_over(paid)
            server.is_streaming = False
        return data

    def hand_over(self, paid: list[tuple[Any, bytes]]) -> None:
        """To each owner its whole answer. The writes come last: each may wake somebody who takes our core away."""
        now = self.now()
        share = self._note_time(now, len(paid))
        writes = []
        spent, sent, count, size, shape = 0.0, 0, 0, 0, None
        for unit, answer in paid:
            client = unit.client
            if client is None:
                self._hand_to_nobody(unit)
                continue
            spent += now - unit.since
            if unit.shape is not shape:
                if shape is not None:
                    shape.note_all(count, share, size)
                    self.load -= count
                    sent += size
                    count = size = 0
                shape = unit.shape
            count += 1
            size += len(answer)
            client.unit = None
            client.state = RESTING
            client.ready_at = now
            writes.append((client, answer))
        if shape is not None:
            shape.note_all(count, share, size)
        self.load -= count
        stats = self.pool.stats
        stats.lone_count += len(writes)
        stats.line_query_count += len(writes)
        stats.lone_time += spent
        stats.sent += sent + size
        self._has_room(now)
        if self.lines.pending and self.load <= self.lines.low:
            self.lines.serve()  # our server first: it works while we write (who finds no place now is planned for)
        self.pool.crowd.outbox.write_all(writes)
        for client, _ in writes:
            if client.carry:
                let_off(client, now)

    def _hand_to_nobody(self, owner: Any) -> None:
        """A unit whose client has left, or a chore."""
        if isinstance(owner, Unit):
            self.load -= 1
        else:
            owner.answered(self.server)

    def _note_time(self, now: float, count: int) -> float:
        """`count` units have been answered: how long one took."""
        elapsed = float(now - self.head_since)
        share = elapsed / count
        self.head_since = now
        self.pace *= UP if share > self.pace else DOWN
        self.gap *= UP if elapsed > self.gap else 1 / UP
        return share

    @property
    def is_busy(self) -> bool:
        """Is anything on its way that might not come to an end?"""
        return bool(self.load or self.nobodys or self.preparing.is_busy)

    def is_late(self, now: float, patience: float) -> bool:
        """Has its head been running for longer than `patience`, and for much longer than others do here? Or did it?"""
        return self.nobodys > 0 or (self.is_busy and now - self.head_since > max(patience, LATE * self.gap))

    def advance(self, unit: Unit) -> float:
        """The head has been answered, with what came before: the next one runs."""
        now = float(self.now())
        self.load -= 1
        unit.shape.note(self._note_time(now, 1), unit.size)
        self._has_room(now)
        return now

    def nobody_is_served(self, server: Any) -> None:
        """Something has been answered that was nobody's any more (stuck.py)."""
        if server is self.server:
            self.nobodys -= 1
            self.head_since = float(self.now())

    def hurry(self) -> None:
        """If all that our server still runs is nobody's, it is cancelled. (What that hits is nobody's as well.)"""
        server = self.server
        if self.nobodys and not self.load and server is not None and not server.cancels:
            self.was_canceled = True
            self.pool.world.issue_cancel(server)

    def end_head(self) -> None:
        """What runs is to end, and gets its time for that."""
        self.head_since = self.now()
        self.was_canceled = True
        if not self.server.cancels:
            self.pool.world.issue_cancel(self.server)

    def _has_room(self, now: float) -> None:
        self.server.ready_at = self.ready_at = now
        if self.is_held:
            self.let_go()
        if self.lines.pending and self.load <= self.lines.low:
            self.lines.plan()

    # Flow control.

    def hold(self) -> None:
        """Somebody does not read his answer, and too much of it lies here; or our server does not read."""
        server = self.server
        if server is not None and not server.is_choked:
            self.is_held = True
            server.hold()

    def let_go(self) -> None:
        server = self.server
        if self.is_held and server is not None:
            self.is_held = False
            server.let_go()
        if self.lines.pending:
            self.lines.plan()
