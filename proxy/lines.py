"""
Lines: units of several clients behind one another on one server connection.

Theory. A backend runs one unit after another, and owes one ReadyForQuery for each. A unit that cannot leave a transaction
open may therefore stand behind a stranger's in the server's socket: PostgreSQL finishes one and finds the next without
going to sleep, and several units travel with one system call. Which ones may is decided by their text (protocol/sharing)
and by what has been seen of their kind (shapes.py).

To its pool a `Line` is a client like any other: it takes a server or stands in the queue, first come first served, and
gives the server back as soon as nothing is owed. To its server it is the client too. So limits, pausing, retiring,
fairness to those who need a server of their own: all of it holds as it did. While somebody waits for a server, or its
server is to leave, a line takes nobody in any more; so it runs empty, and whoever waits gets the server.

Units are put into lines once per turn of the event loop, so that all that has come in this turn travels together: first
over `pipeline_servers` lines, each up to `pipeline_depth`. A line whose head has been running for longer than
`pipeline_stall_ms` gets nobody new; another line is opened instead.

Answers are routed by the ledger, as ever: each debt's owner is its unit.
"""

import asyncio
from collections import deque
from typing import Any

from protocol.backend import ErrorFields
from protocol.ledger import ONE_QUERY
from protocol.parameters import ParameterSet
from protocol.sharing import FIT, is_readable
from proxy import dispatch
from proxy.config.kinds import PoolMode
from proxy.log import Tag, tag_client
from proxy.shapes import Book
from proxy.states import IDLE, LINED, RESTING, ClientState, Closing, PoolState
from proxy.units import Unit, let_off

MAX_GROUPS = 8  # sets of parameters that have lines of their own
SPREAD = 2  # lines, where `pipeline_servers` leaves the choice to us


class Line:
    """One server's worth of units, of clients with the same parameters."""

    is_notified = True  # nobody reads notices here
    is_line = True
    is_choked = is_paced = is_slicing = is_stalled = False
    session = stall = statements = unit = None
    remain = 0
    begun = b""

    def __init__(self, group: "Group") -> None:
        self.group = group
        self.lines = group.lines
        self.pool = group.pool
        self.followed = self.origin = group.followed
        self.state: ClientState = RESTING
        self.server: Any = None
        self.sent: deque[Unit] = deque()
        self.batch: list[Unit] = []  # of this turn
        self.waiting_since = self.head_since = self.ready_at = self.pool.now()
        self.marks = frozenset({0, self.lines.low})  # at so many units there is room for others
        self.was_canceled = False  # a cancel request has been on its way to this server, since it is ours
        self.is_held = False
        self.newcomer: Unit | None = None  # at the end, of a shape that is not trusted yet
        self.held: bytes | None = None  # not None: nothing may be sent before our server has agreed to a change

    # What the pool, the console and the janitor want of a client.

    @property
    def _first(self) -> Any:
        """The client at the head, or whoever waits for longest."""
        unit = self.sent[0] if self.sent else next(iter(self.group.waiting()), None)
        return unit.client if unit is not None else None

    @property
    def tag(self) -> Tag:
        first = self._first
        return first.tag if first is not None else tag_client(("", 0), self.pool.database, self.pool.user)

    @property
    def request_at(self) -> float:
        """When the unit that runs began to."""
        return self.head_since

    @request_at.setter
    def request_at(self, moment: float) -> None:
        self.head_since = moment

    xact_at = request_at

    @property
    def user(self) -> str:
        return self.pool.user

    @property
    def address(self) -> tuple[str, int]:
        first = self._first
        return first.address if first is not None else ("", 0)

    def __repr__(self) -> str:
        return f"line of {self.pool} with {len(self.sent)} units"

    def move(self, to: ClientState) -> None:
        self.state = to

    def close(self, why: Closing) -> None:
        """Whoever is to blame goes: the client whose unit runs."""
        first = self._first
        if first is not None:
            first.close(why)

    def refuse(self, error: ErrorFields, why: Closing, note: str = "") -> None:
        """A time has run out: for the unit that runs, or for those that have waited for too long."""
        if self.server is not None:
            first = self._first
            if first is not None:
                first.refuse(error, why, note)
            if not self.sent and self.server is not None:  # it was about what our server was to agree to
                self.held = None
                dispatch.clean(self.server)
            return
        limit, now = self.pool.limits.query_wait_timeout, self.pool.now()
        for unit in self.group.waiting():
            if why is not Closing.QUERY_WAIT_TIMEOUT or limit is None or now - unit.asked_at > limit:
                unit.client.refuse(error, why, note)
        left = self.group.waiting()
        if left:
            self.waiting_since = left[0].asked_at
        else:
            self.pool.waiting.pop(self, None)

    def deliver(self, data: bytes) -> None:
        """What nobody asked for reaches nobody."""

    def failed(self, error: ErrorFields) -> bytes | None:
        return None

    # Having a server.

    @property
    def is_open(self) -> bool:
        """May more units be sent?"""
        server = self.server
        return (
            server is not None
            and server.doomed is None
            and not server.cancels
            and server.last_error is None
            and server.followed is self.followed
            and self.pool.state is PoolState.OPEN
            and self.held is None
            and self.newcomer is None
            and not self.is_held
            and not server.is_choked
        )

    def want(self) -> None:
        """Get a server, now or when it is our turn."""
        if self.server is None and self not in self.pool.waiting:
            server = self.pool.acquire(self)
            if server is not None:
                self._take(server)

    def resume(self, server: Any) -> None:
        """The pool has a server for us."""
        self._take(server)
        self.group.serve()
        if not self.sent:
            server.rest()  # whoever waited has left

    def _take(self, server: Any) -> None:
        self.followed = self.origin
        self.was_canceled = False
        prefix = dispatch.attach(self, server)
        self.pool.stats.server_assignment_count -= 1  # those of the units are counted
        server.unnamed = None
        if prefix is None:
            self.held = b"something"
        elif prefix:
            server.transport.write(prefix)

    def play(self, server: Any) -> None:
        """Our server has agreed."""
        self.held = None
        self.group.serve()
        if not self.sent:
            server.rest()

    def fill(self, pending: deque[Unit], room: int) -> None:
        """The next `room` of those that wait stand in our batch. Behind one of a shape not yet trusted stands nobody."""
        batch = self.batch
        while pending and len(batch) < room and self.newcomer is None:
            unit = pending.popleft()
            if unit.client is not None:
                batch.append(unit)
                if not unit.shape.is_trusted:
                    self.newcomer = unit

    def send(self, now: float) -> None:
        """The batch goes to our server, with one write."""
        batch, server = self.batch, self.server
        self.batch = []
        if not self.sent:
            self.head_since = now
        stats = self.pool.stats
        for unit in batch:
            unit.line = self
            unit.runs += 1
            client = unit.client
            unit.sent_at = client.request_at = client.xact_at = now
            stats.wait_time += now - unit.asked_at
            server.ledger.expect(ONE_QUERY, unit)
        stats.server_assignment_count += len(batch)
        self.sent.extend(batch)
        server.transport.write(b"".join([unit.data for unit in batch]) if len(batch) > 1 else batch[0].data)

    def advance(self, unit: Unit, server: Any) -> float:
        """The head has been answered: the next one runs."""
        assert self.sent[0] is unit, f"{self!r}: not at the head"
        del self.sent[0]
        now: float = self.pool.now()
        self.judge(unit, now, unit.size)
        self.head_since = now
        if self.is_held:
            self.let_go()
        self.drained(server, now)
        return now

    def judge(self, unit: Unit, now: float, size: int) -> None:
        """What `unit` has taken is noted of its shape."""
        unit.shape.note(now - self.head_since, size, self.lines.book)
        if unit is self.newcomer:
            self.newcomer = None

    def drained(self, server: Any, now: float) -> None:
        """There is room for others."""
        server.ready_at = self.ready_at = now
        if self.group.pending:
            self.lines.plan()

    def run_again(self, unit: Unit) -> None:
        """It was hit by a cancel that was meant for another."""
        client, unit.client = unit.client, None
        again = Unit(client, unit.data, unit.shape, unit.asked_at)
        again.runs = unit.runs
        client.unit = again
        self.lines.put_first(again, self.group)

    def lose_server(self, why: Closing, said: ErrorFields | None, *, was_told: bool, cut: Any) -> None:
        """Our server is gone, and with it what it was asked: it may have been run."""
        units, self.sent = list(self.sent), deque()
        self.state = RESTING
        self.held, self.is_held, self.newcomer = None, False, None
        for unit in units:
            client, unit.client = unit.client, None
            if client is not None:
                let_off(client, self.pool.now())
                client.lose_server(why, said, was_told=unit.was_told, cut=cut)
        if self.group.pending:
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
        if self.group.pending:
            self.lines.plan()


class Group:
    """The lines of clients with the same parameters, and the units that wait for them."""

    def __init__(self, lines: "Lines", followed: ParameterSet) -> None:
        self.lines = lines
        self.pool = lines.pool
        self.followed = followed
        self.pending: deque[Unit] = deque()
        self.members: list[Line] = []
        self.is_full = False  # no line had room for all when it was last looked at

    def waiting(self) -> list[Unit]:
        """The units that wait and have not been abandoned, the oldest first."""
        return [unit for unit in self.pending if unit.client is not None]

    def serve(self) -> None:
        """The units that wait are put into the lines that have room, and sent."""
        now = self.pool.now()
        self.is_full = False
        while self.pending:
            line, room = self._find_line(now)
            if line is None:
                self.is_full = True
                self.lines.plan_later()
                return
            line.fill(self.pending, room)
            if line.batch:
                line.send(now)

    def _find_line(self, now: float) -> "tuple[Line | None, int]":
        """The shortest that has room, and how many it should take: its share, where there are others.

        Lines without a server ask for one, as long as there are fewer than may be.
        """
        best: Line | None = None
        spare: Line | None = None
        lines, least, working, room = self.lines, self.lines.depth, 0, 0
        for line in self.members:
            if line.server is None:
                if line in self.pool.waiting:
                    working += 1
                else:
                    spare = line
            elif not line.sent or now - line.head_since <= lines.patience:  # else its head is stuck: another takes over
                working += 1
                length = len(line.sent)
                if length <= lines.low and line.is_open and not (length and lines.is_somebody_waiting):
                    room += lines.depth - length
                    if length < least:
                        best, least = line, length
        if working < lines.spread and least and (best is None or self.pool.places[IDLE]):
            line = self._open_line(spare)
            if line.is_open:
                best, least, room = line, 0, room + lines.depth
        if best is None:
            return None, 0
        own = lines.depth - least
        return best, max(min(own, len(self.pending) * own // room), 1)

    def _open_line(self, spare: "Line | None") -> "Line":
        """One more gets a server, now if there is one."""
        if spare is None:
            spare = Line(self)
            self.members.append(spare)
        spare.want()
        return spare


class Lines:
    """Of one pool whose clients may share servers."""

    def __init__(self, pool: Any, limits: Any) -> None:
        self.pool = pool
        self.groups: dict[int, Group] = {}  # by the identity of their clients' parameters
        self._is_planned = self._is_looking = False
        self.set_limits(limits)

    def set_limits(self, limits: Any) -> None:
        self.depth: int = limits.pipeline_depth
        self.spread: int = limits.pipeline_servers or SPREAD
        self.low = self.depth // 2  # a line that has more takes nobody in, so that many travel together
        self.patience: float = limits.pipeline_stall_ms / 1000
        vouched = frozenset(name.lower().encode() for name in limits.pipeline_functions)
        self.book = Book(vouched, limits.pipeline_max_ms / 1000, limits.pipeline_max_bytes)

    @property
    def is_somebody_waiting(self) -> bool:
        """Does anybody wait for a server of his own?"""
        return any(not client.is_line for client in self.pool.waiting)

    def take(self, client: Any, data: bytes, text: bytes) -> bool:
        """Does `client`'s unit stand in line now? Else it needs a server of its own."""
        if self.depth <= 1:
            return False
        shape = self.book.find(text)
        if shape.skip:
            shape.skip -= shape.verdict is FIT
            return False
        group = self.groups.get(id(client.followed)) or self._open_group(client.followed)
        if group is None or client.stall is not None:
            return False
        now = self.pool.now()
        unit = client.unit = Unit(client, data, shape, now)
        client.state = LINED
        client.request_at = client.xact_at = now
        group.pending.append(unit)
        if not (self._is_planned or group.is_full):
            self.plan()
        return True

    def _open_group(self, followed: ParameterSet) -> Group | None:
        """For clients with these parameters; None: they share nothing."""
        is_standard = followed.get("standard_conforming_strings") == "on"
        if not is_standard or not is_readable(followed.get("client_encoding", "")) or len(self.groups) >= MAX_GROUPS:
            return None
        group = self.groups[id(followed)] = Group(self, followed)
        return group

    def put_first(self, unit: Unit, group: Group) -> None:
        """It runs again, before all others."""
        group.pending.appendleft(unit)
        self.plan()

    def plan(self) -> None:
        """`serve` all groups, once in the next turn of the loop."""
        if not self._is_planned:
            self._is_planned = True
            asyncio.get_running_loop().call_soon(self._serve)

    def plan_later(self) -> None:
        """The same, when a line may have turned out to be stuck."""
        if not self._is_looking:
            self._is_looking = True
            asyncio.get_running_loop().call_later(self.patience, self._look)

    def _look(self) -> None:
        self._is_looking = False
        if any(group.pending for group in self.groups.values()):
            self.plan()

    def _serve(self) -> None:
        self._is_planned = False
        for group in self.groups.values():
            if group.pending:
                group.serve()


def find_lines(pool: Any, limits: Any) -> "Lines | None":
    """Those of a pool with these limits; None: its clients do not share."""
    before: Lines | None = getattr(pool, "lines", None)
    is_wanted = limits.pipeline_depth > 1 and limits.pool_mode is not PoolMode.SESSION
    if before is None:
        return Lines(pool, limits) if is_wanted else None
    before.set_limits(limits)
    return before
