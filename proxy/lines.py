"""
Which unit stands in which line: the lines of one pool, and who waits for a place in them.

Theory. Which units may share is decided by their text (protocol/sharing.py) and by what has been seen of their kind
(shapes.py); the others have a server of their own, as ever. So has who comes alone: with nobody to travel with, a line
would only be a detour.

Units are put into lines once per turn of the event loop, so that all that has come in this turn travels together; first
come, first served. They go over few servers first, since two that are busy do more than twenty that fall asleep between
any two queries (spread.py says how many), each up to `pipeline_depth`. A line is filled up only when it is half empty,
for the same reason. Nobody shall wait in a line, or for a place in one, for longer than `pipeline_max_ms` by what units
have taken lately: sooner than that one more server is used, if it has nothing to do.

While somebody waits for a server of his own, or a line's server is to leave, the line takes nobody in any more; so it
runs empty, and whoever waits gets the server. A line whose head has run for too long takes nobody in either, and what
stands behind is rescued (stuck.py).
"""

import asyncio
from collections import deque
from collections.abc import Collection
from math import inf
from typing import Any

from protocol.framing import HEADER_SIZE
from protocol.ledger import Debt
from protocol.parameters import ParameterSet
from protocol.sharing import ZEROS, can_vouch
from proxy import rounds, stuck
from proxy.books import Book
from proxy.config.kinds import is_private
from proxy.line import Line
from proxy.probes import Probe
from proxy.requests import CARE, UNNAMED
from proxy.shapes import Shape
from proxy.sharers import Sharers
from proxy.spread import Spread
from proxy.states import IDLE, LINED, LINKED, Closing
from proxy.units import MAX_RUNS, Round, Unit
from proxy.unread import Unread

SMOOTHING = 0.1  # the weight of the newest figure in an average
PATIENT_TURNS = 20  # times `pipeline_max_ms`: whoever runs for longer than that has nobody sent behind him


class Lines:
    """Of one pool whose clients may share servers."""

    def __init__(self, pool: Any, limits: Any) -> None:
        self.pool = pool
        self.now = pool.now
        self._linked = pool.places[LINKED]
        self.pending: deque[Unit] = deque()
        self.members: list[Line] = []
        self.spread = Spread(self.now())
        self.is_planned = False
        self._loop: asyncio.AbstractEventLoop | None = None  # asked for once: see outbox.py
        self._planned_at = self.now()
        self.lag = 0.0  # seconds that a turn of the loop takes, lately: so late we may see an answer
        self._watch: asyncio.TimerHandle | None = None
        self.sharers = Sharers(pool)
        self.unread = Unread()
        self._last_set: ParameterSet | None = None  # the last one that may
        self.book = Book(frozenset(), 0.0, 0)
        self.known = self.book.known
        self.set_limits(limits)

    def set_limits(self, limits: Any) -> None:
        is_sharing = may_share(limits)
        self.depth: int = limits.pipeline_depth if is_sharing else 1
        self.low = self.depth // 2  # a line that has more takes nobody in, so that many travel together
        self.stall: float = limits.pipeline_stall_ms / 1000
        self.max_wait: float = limits.pipeline_max_ms / 1000
        self.patience = min(self.max_wait * PATIENT_TURNS, self.stall / 2)
        self.group: int = limits.pipeline_group
        self.fewest = max(limits.pipeline_group_min, 2) if self.group > 1 else inf  # that make a group
        self.spread.set_limit(limits.pipeline_servers)
        vouched = frozenset(name.lower().encode() for name in limits.pipeline_functions if can_vouch(name))
        self.book.adapt(
            vouched, self.max_wait, limits.pipeline_max_bytes,
            is_sharing=is_sharing, is_tracking=limits.track_statements,
        )  # fmt: skip
        self._find_query = self.book.find_none if limits.disable_pqexec else self.book.find_query

    # Who may share.

    def take(self, client: Any, data: bytes) -> bool:
        """`client` rests, `data` is one short simple query. Does it stand in line now? Else it needs its own server."""
        shape = self.known.get(data.translate(ZEROS)) or self._find_query(data)
        is_usual = client.followed is self._last_set and client.session is None and client.stall is None
        if not (shape.is_trusted and (is_usual or self._may_share(client)) and (self.pending or self._linked)):
            return self._is_learning(client, data, shape)
        client.unit = Unit(client, data, shape, self.now())
        client.state = LINED
        self.pending.append(client.unit)
        if not self.is_planned:
            self.plan()
        return True

    def _may_share(self, client: Any) -> bool:
        """Is there nothing about this client that only a server of its own may see?"""
        if client.stall is not None or (client.session is not None and not client.session.is_at_ease):
            return False
        if client.followed is not self._last_set:
            if not self.sharers.may_share(client.followed):
                return False
            self._last_set = client.followed
        return True

    def note_alone(self, followed: ParameterSet, values: ParameterSet) -> None:
        """These did not travel: see sharers.py."""
        self.sharers.note_alone(followed, values)
        self._last_set = None

    def _is_learning(self, client: Any, data: bytes, shape: Shape, text: bytes | None = None) -> bool:
        """It has a server of its own, where it is measured if it may ever share. (False, for `take`.) `text` is that of
        the statement, None if `data` is a Query."""
        book = self.book
        if book.is_tracking and shape is book.unread:
            text = data[HEADER_SIZE:-1] if text is None else text
            shape = book.find_strange(text, client.followed.get("client_encoding", ""))
        is_learning = book.is_tracking or (shape.is_fit and not shape.is_trusted)
        client.probe = Probe(client, shape, data) if is_learning else None
        if is_learning and not self.is_planned:
            self.plan()  # for the lag
        return False

    def take_named(self, client: Any, data: bytes) -> bool:
        """The same for a round of a named statement (rounds.py), if `data` is one."""
        found = rounds.find_named(client, data)
        if client.carry or client.remain:
            return False
        if found is None:
            return self.book.is_tracking and self._take_walked(client, data)
        statement, debts, stop = found
        shape = statement.shape
        if shape is None or shape.book is not self.book:
            shape = self.book.find_statement(statement)
        is_usual = client.followed is self._last_set and client.session is None and client.stall is None
        if not (shape.is_trusted and (is_usual or self._may_share(client)) and (self.pending or self._linked)):
            return self._is_learning(client, data, shape, statement.text) or self._is_on_its_way(
                client, data, debts, CARE
            )
        self.pool.stats.bind_count += 1
        said = rounds.rename(data, statement.name, stop)
        self._enter(client, Round(client, said, shape, self.now(), data, debts, CARE, statement))
        return True

    def _take_walked(self, client: Any, data: bytes) -> bool:
        """`take_unnamed`, if `data` is such a round, where statements are tracked: there nobody else looks for one."""
        is_long = len(data) >= rounds.MAX_SHARED
        debts = None if is_long or self.pool.is_private else rounds.recognise_unnamed(client, data)
        if debts is None:
            return False
        return self.take_unnamed(client, data, debts) or self._is_on_its_way(client, data, debts, UNNAMED)

    def _is_on_its_way(self, client: Any, data: bytes, debts: tuple[Debt, ...], care: int) -> bool:
        """It does not share. Is it sent to a server of its client's own at once, since its probe has been made?"""
        if self.book.is_tracking:
            client.ask_alone(data, debts, care)
        return self.book.is_tracking

    def take_unnamed(self, client: Any, data: bytes, debts: tuple[Debt, ...]) -> bool:
        """The same for a round of the unnamed statement, which has been noted already."""
        text = data[HEADER_SIZE + 1 : data.find(0, HEADER_SIZE + 1)]
        shape = self.book.find(text)
        if not (shape.is_trusted and self._may_share(client) and (self.pending or self._linked)):
            return self._is_learning(client, data, shape, text)
        client.unnamed = client.unnamed_said
        self._enter(client, Round(client, data, shape, self.now(), b"", debts, UNNAMED, None))
        return True

    def _enter(self, client: Any, unit: Unit) -> None:
        client.unit = unit
        client.state = LINED
        self.pending.append(unit)
        if not self.is_planned:
            self.plan()

    def put_first(self, units: list[Unit]) -> None:
        """These run again, before all others."""
        self.pending.extendleft(reversed(units))
        self.plan()

    def run_again(self, units: list[Unit], alone: Collection[Unit] = ()) -> None:
        """Nobody has heard anything of these, which stay in their order. Some need a server of their own: `alone`, and
        whom that happens to again and again. Where a client wants to end its unit, that is done: its cancel request
        would not find the server it runs on next."""
        together = []
        for unit in units:
            if unit.is_canceled:
                unit.end_canceled()
                continue
            again = unit.make_again()
            if unit in alone or again.runs >= MAX_RUNS:
                self.send_alone(again)
            else:
                together.append(again)
        self.put_first(together)

    def send_alone(self, unit: Unit) -> None:
        """It needs a server of its client's own after all."""
        if unit.client is not None:
            unit.go_alone()

    # Who goes where.

    def plan(self) -> None:
        """`serve`, once in this turn of the loop."""
        if not self.is_planned:
            self.is_planned = True
            self._planned_at = self.now()
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        self.is_planned = False
        self.lag += (self.now() - self._planned_at - self.lag) * SMOOTHING
        self.serve()
        self.pool.crowd.outbox.send()  # our servers work while the next ones are heard

    def serve(self) -> None:
        """Those who wait are put into the lines that have room, and sent."""
        now, pending = self.now(), self.pending
        while pending:
            if pending[0].client is None:  # it has left
                pending.popleft()
                continue
            line, room = self._find_line(now)
            if line is None:
                break
            line.send([pending.popleft() for _ in range(room)], now)
        for line in self.members:
            if not line.load:
                line.leave(is_wanted=bool(pending))
        if self._watch is None:
            self._look_later()

    def _find_line(self, now: float) -> "tuple[Line | None, int]":
        """The shortest line that has room, and how many it should take: its share, where there are others."""
        best: Line | None = None
        spare: Line | None = None
        least, working, room, is_fair = self.depth, 0, 0, self.is_somebody_waiting
        for line in self.members:
            load = line.load
            if line.server is None:
                if line in self.pool.waiting:
                    working += 1
                else:
                    spare = line
            elif not line.is_late(now, self.patience):  # else its head is stuck: others take over
                working += 1
                is_full = load > self.low or load * line.pace > self.max_wait or (is_fair and not line.is_fresh)
                if not is_full and line.is_open:
                    room += self.depth - load
                    if load < least:
                        best, least = line, load
        if least and (working < self.spread.width or (best is None and self._is_slow())):
            newcomer = self._open_line(spare)
            if newcomer is not None:
                best, least, room = newcomer, 0, room + self.depth
        if best is None:
            return None, 0
        own, count = self.depth - least, len(self.pending)
        return best, min(count, own, max(count * own // room, 1))

    def _is_slow(self) -> bool:
        """Would those who wait for a place in a line do so for too long, while a server has nothing to do?"""
        if not self.pool.places[IDLE]:
            return False
        waits = [line.load * line.pace for line in self.members if line.server is not None]
        return not waits or min(waits) + len(self.pending) * max(line.pace for line in self.members) > self.max_wait

    def _open_line(self, spare: "Line | None") -> "Line | None":
        """One more that has a server at once; or stands in the queue for one."""
        if spare is None:
            spare = Line(self)
            self.members.append(spare)
        spare.want(self.pending[0].client.followed if self.pending[0].client is not None else {})
        return spare if spare.is_open else None

    @property
    def is_somebody_waiting(self) -> bool:
        """Does anybody wait for a server of his own?"""
        return bool(self.pool.waiting) and any(not client.is_line for client in self.pool.waiting)

    @property
    def is_used(self) -> bool:
        """Does anybody wait here, or has a line a server (or a place in the queue)?"""
        return bool(self.pending) or any(line.server is not None or line in self.pool.waiting for line in self.members)

    # Who waits for too long.

    def waiting(self) -> list[Unit]:
        """The units that wait and have not been abandoned, the oldest first."""
        return [unit for unit in self.pending if unit.client is not None]

    def find_places(self) -> "list[tuple[Unit, Line | None, int]]":
        """Who waits for a place, or stands in one and has not begun: where, and as which number."""
        places: list[tuple[Unit, Line | None, int]] = []
        places += [(unit, None, place) for place, unit in enumerate(self.pending, 1)]
        for line in self.members:
            behind = [*line.behind, *line.preparing.waiting]
            places += [(unit, line, place) for place, unit in enumerate(behind, 2)]
        return [each for each in places if each[0].client is not None]

    @property
    def longest_wait(self) -> float:
        """Seconds the first of those has waited; 0 when there is none."""
        first = next((unit for unit in self.pending if unit.client is not None), None)
        return 0.0 if first is None else float(self.now() - first.since)

    def refuse_late(self, line: Line, error: Any, why: Closing, note: str) -> None:
        """`line` has waited too long for a server: whoever has as well hears so."""
        limits, now = self.pool.limits, self.now()
        of_time = {
            Closing.QUERY_WAIT_TIMEOUT: limits.query_wait_timeout,
            Closing.QUEUED_TIMEOUT: limits.query_timeout,
        }
        limit = of_time.get(why)
        for unit in self.waiting():
            if limit is None or now - unit.since > limit:
                unit.client.refuse(error, why, note)
        left = self.waiting()
        if left:
            line.waiting_since = left[0].since
        else:
            self.pool.waiting.pop(line, None)

    def forgive(self, span: float) -> None:
        """So much time has passed in which nobody was read (suspend.py): it counts for nobody."""
        for line in self.members:
            line.head_since += span
            line.waiting_since += span
        for unit in [*self.pending, *(unit for line in self.members for unit in line.units)]:
            unit.since += span

    def rescue(self, line: Line) -> None:
        """What runs there takes too long."""
        self.pool.stats.line_rescue_count += stuck.rescue(line)

    def _look_later(self) -> None:
        self._watch = asyncio.get_running_loop().call_later(self.patience, self._look)

    def _look(self) -> None:
        """As long as anything is on its way: is a line stuck?"""
        self._watch = None
        now = self.now()
        for line in self.members:
            if line.is_late(now, self.stall):
                self.rescue(line)
            line.hurry()
        self.spread.note(now, self.pool.stats.lone_count + self.pool.stats.query_count)
        if self.pending:
            self.plan()
        if self.pending or any(line.is_busy for line in self.members):
            self._look_later()


def may_share(limits: Any) -> bool:
    """Do the clients of a pool with these limits?"""
    return bool(limits.pipeline_depth > 1 and not is_private(limits.pool_mode, limits.session_state))


def find_lines(pool: Any, limits: Any) -> "Lines | None":
    """Those of a pool with these limits; None: its clients do not share, and are not measured."""
    before: Lines | None = getattr(pool, "lines", None)
    is_wanted = may_share(limits) or limits.track_statements
    if before is None:
        return Lines(pool, limits) if is_wanted else None
    before.set_limits(limits)
    return before if is_wanted or before.is_used else None
