"""
A line: units of several clients behind one another on one server connection.

Theory. A backend runs one unit after another, and owes one ReadyForQuery for each. A unit that cannot leave a
transaction open may therefore stand behind a stranger's in the server's socket: PostgreSQL finishes one and finds the
next without going to sleep, and several units travel with one system call.

To its pool a `Line` is a client like any other: it takes a server or stands in the queue, first come first served, and
gives the server back as soon as nothing is owed. To its server it is the client too. So limits, pausing, retiring,
fairness to those who need a server of their own: all of it holds as it did.

Answers are routed by the ledger, as ever: each debt's owner is its unit. What a unit needs of its server (a SET, since
its client's parameters are others than those of the one before it; a statement) goes in front of it, as a debt of ours.
"""

from typing import Any

from protocol import sqlstate
from protocol.backend import ErrorFields
from protocol.frontend import build_query
from protocol.ledger import ONE_QUERY
from protocol.parameters import NO_CHANGE, ParameterSet, build_change, difference, is_sendable
from proxy import dispatch, reset
from proxy.chores import Chore
from proxy.groups import Entries, Group, enter
from proxy.handing import Handing
from proxy.log import Tag, tag_client
from proxy.preparing import Preparing
from proxy.reword import forget_stale, is_replanned
from proxy.states import RESTING, ClientState, Closing, PoolState
from proxy.units import Unit, let_off

OPEN = PoolState.OPEN


class Line(Handing):
    """One server's worth of units."""

    is_notified = True  # nobody reads notices here
    is_line = True
    is_choked = is_paced = is_slicing = is_stalled = False
    session = stall = statements = unit = held = probe = None
    remain = schema = number = 0
    begun = unnamed = b""

    def __init__(self, lines: Any) -> None:
        self.lines = lines
        self.pool = lines.pool
        self.now = lines.pool.now
        self._followed: ParameterSet = {}  # as a client's; what matters here is `tail`
        self.tail: ParameterSet = {}  # the parameters that hold behind all that has been sent
        self.state: ClientState = RESTING
        self.server: Any = None
        self.ledger: Any = None  # our server's; still known when that is lost
        self.load = 0  # units that have been sent and are not answered
        self.pace = 1e-4  # seconds a unit takes when it need not wait for a core: four fifths take longer
        self.gap = 1e-3  # seconds between two reads of answers: half of them are longer
        self.head_since = self.waiting_since = self.ready_at = self.now()
        self.rest = b""  # of answers to a group (groups.py) that are not whole yet
        self.was_canceled = False  # a cancel request has been on its way to this server, since it is ours
        self.is_held = False
        self.is_fresh = False  # we have got our server in our turn, and sent nothing yet
        self.nobodys = 0  # units that have been sent, and whose clients are served elsewhere: see stuck.py
        self.is_astray = False  # a parameter has changed there that nobody here has asked to change
        self.preparing = Preparing(self)

    # What the pool, the console and the janitor want of a client.

    @property
    def followed(self) -> ParameterSet:
        return self._followed

    @followed.setter
    def followed(self, parameters: ParameterSet) -> None:
        """Our server's have changed. If that was no SET of ours, `tail` is wrong: when we have run empty we look."""
        self._followed = parameters
        if self.server is not None and isinstance(self.ledger.head[1], Unit | Group):
            self.is_astray = True

    @property
    def units(self) -> list[Unit]:
        """Those that have been sent, the one that runs first."""
        return find_units(self.server.ledger) if self.server is not None else []

    @property
    def behind(self) -> list[Unit]:
        """Those of them that have not begun."""
        return find_behind(self.server.ledger) if self.server is not None else []

    @property
    def head(self) -> Any:
        """The client whose unit runs; None: it has left, or there is none."""
        units = self.units
        return units[0].client if units else None

    @property
    def _first(self) -> Any:
        """The client whose unit runs, or who waits for longest."""
        waiting = self.units or self.lines.waiting()
        return waiting[0].client if waiting else None

    @property
    def _running(self) -> Any:
        """The client whose unit runs; None: what runs is ours, or nobody's."""
        owner = self.server.ledger.head[1] if self.server is not None else None
        return owner.client if isinstance(owner, Unit) else None

    @property
    def tag(self) -> Tag:
        first = self._first
        return first.tag if first is not None else tag_client(("", 0), self.pool.database, self.pool.user)

    @property
    def request_at(self) -> float:
        """When the unit that runs began to."""
        return float(self.head_since)

    @request_at.setter
    def request_at(self, moment: float) -> None:
        self.head_since = moment

    xact_at = request_at

    @property
    def user(self) -> str:
        return str(self.pool.user)

    @property
    def address(self) -> Any:
        first = self._first
        return first.address if first is not None else ("", 0)

    def __repr__(self) -> str:
        return f"line of {self.pool} with {self.load} units"

    def move(self, to: ClientState) -> None:
        self.state = to

    def close(self, why: Closing) -> None:
        """Whoever is to blame goes: the client whose unit runs."""
        first = self._running if self.server is not None else self._first
        if first is not None:
            first.close(why)

    def refuse(self, error: ErrorFields, why: Closing, note: str = "") -> None:
        """A time has run out: for the unit that runs, or for those that have waited for too long."""
        if self.server is not None:
            first = self._running
            if first is not None:
                first.refuse(error, why, note)
            elif isinstance(self.ledger.head[1], Group):
                self.lines.rescue(self)  # by themselves the units show whose time it is
        else:
            self.lines.refuse_late(self, error, why, note)

    def deliver(self, data: bytes) -> None:
        """What nobody asked for reaches nobody."""

    def failed(self, error: ErrorFields, aliases: object = None) -> bytes | None:
        return None

    def answered(self, server: Any) -> None:
        """Of something of ours."""

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
            and not server.is_choked
            and not self.is_held
            and not self.is_astray
            and not self.nobodys
            and self.pool.state is OPEN
        )

    def want(self, followed: ParameterSet) -> None:
        """Get a server, now or when it is our turn; best one whose parameters are these."""
        if self.server is None and self not in self.pool.waiting:
            self.followed = followed
            server = self.pool.acquire(self)
            if server is not None:
                self._take(server)

    def resume(self, server: Any) -> None:
        """The pool has a server for us."""
        self._take(server)
        self.lines.serve()

    def leave(self, *, is_wanted: bool) -> None:
        """We have no units: our server is for others, and so is our place in the queue unless somebody waits for us."""
        if self.server is not None:
            if not (is_wanted and self.server.is_choked):  # else `let_go` will tell
                self.server.rest()
        elif not is_wanted:
            self.pool.waiting.pop(self, None)

    def _take(self, server: Any) -> None:
        self.followed = self.tail = server.followed
        self.was_canceled = self.is_astray = False
        self.is_fresh = True
        self.nobodys = 0
        self.rest = b""
        self.ledger = server.ledger
        dispatch.attach(self, server)
        self.pool.stats.server_assignment_count -= 1  # those of the units are counted
        server.unnamed = None

    def send(self, units: list[Unit], now: float) -> None:
        """They go to our server, with one write."""
        pieces: list[bytes] = []
        entries: Entries = []
        ready: list[Unit] = []
        waited, tail, count = 0.0, self.tail, 0
        for unit in units:
            client = unit.client
            if client is None:  # it has left
                continue
            if client.followed is not tail or (unit.statement is not None and not self.has(unit.statement)):
                count += self._enter(ready, pieces, entries)
                ready = []
                is_ready = self._prepare(unit, pieces, entries)
                tail = self.tail  # a SET may have been put in front even for one that is not ready
                if not is_ready:
                    continue
            unit.line = self
            wait = now - unit.since
            waited += wait
            unit.shape.waited += wait
            unit.since = now
            ready.append(unit)
        count += self._enter(ready, pieces, entries)
        self.load += count
        stats = self.pool.stats
        stats.wait_time += waited
        stats.server_assignment_count += count
        self.flush(pieces, entries)

    def _enter(self, units: list[Unit], pieces: list[bytes], entries: Entries) -> int:
        """They stand behind what has been gathered; how many they are."""
        if len(units) >= self.lines.fewest:
            enter(self, units, pieces, entries)
        else:
            pieces += [unit.data for unit in units]
            entries += [(unit.debts, unit) for unit in units]
        return len(units)

    def flush(self, pieces: list[bytes], entries: Entries) -> None:
        """What has been gathered is sent."""
        server = self.server
        if entries:
            if server.ledger.head[1] is None:
                self.head_since = self.now()
            server.unnamed = None
            self.is_fresh = False
            server.ledger.expect_units(entries)
            server.transport.write(b"".join(pieces))

    # What a unit needs of our server.

    def has(self, statement: Any) -> bool:
        """Does our server have it for certain? Then it is the one used last."""
        server = self.server
        known = server.statements
        if known.get(statement, 0) <= 0 or statement in server.arriving:
            return False
        known[statement] = known.pop(statement)
        return True

    def _prepare(self, unit: Unit, pieces: list[bytes], entries: Entries) -> bool:
        """See to it that our server is as `unit` needs it. False: it does not go now, and not here perhaps."""
        if unit.client.followed is not self.tail and not self._agree(unit.client, pieces, entries):
            self.lines.send_alone(unit)
            return False
        return unit.statement is None or self.preparing.has(unit, pieces, entries)

    def _agree(self, client: Any, pieces: list[bytes], entries: Entries) -> bool:
        """Put a SET in front, where the parameters of `client` are others than those before. False: it must not travel
        along, since it may fail."""
        change = difference(client.followed, self.tail, self.pool.world.followed)
        if change is NO_CHANGE:
            self.tail = client.followed
            return True
        is_sayable = all(map(is_sendable, change.sets.values()))
        if not is_sayable or not dispatch.may_travel(change, self.pool, self.tail):
            self.lines.note_alone(client.followed, change.sets)
            return False
        self.tail = wanted = client.followed
        self.pool.stats.line_set_count += 1
        pieces.append(build_query(build_change(change)))
        server = self.server  # ours no more, perhaps, when it answers
        entries.append((ONE_QUERY, Chore(lambda chore: self._agreed(server, wanted, chore))))
        return True

    def _agreed(self, server: Any, wanted: ParameterSet, chore: Chore) -> None:
        """A change has been answered. It was to be certain; if it is not, all who stand behind it are served anew:
        those whose it was hear of it on a server of their own, unless it was somebody's cancel that hit it."""
        if chore.error is None:
            dispatch.reach(server, wanted)
            return
        server.doomed = Closing.SET_FAILED
        was_hit = self.was_canceled and chore.error.sqlstate == sqlstate.QUERY_CANCELED
        behind = [unit for unit in self.units if unit.client is not None] if self.server is server else []
        its_own = [] if was_hit else [unit for unit in behind if unit.client.followed is wanted]
        self.lines.run_again(behind, alone=its_own)

    def distrust(self, error: ErrorFields) -> None:
        """The statements of our server are not what we took them for."""
        if is_replanned(error):
            forget_stale(self.pool, self.server)
        else:
            reset.forget_missing(self.server)

    def lose_server(self, why: Closing, said: ErrorFields | None, *, was_told: bool, cut: Any) -> None:
        """Our server is gone. What it ran may be why, and hears of it; those behind had not begun, and stand in line
        again. (All of them only read: to run one twice harms nobody.) What ran in a group runs by itself now."""
        units, behind = find_units(self.ledger), find_behind(self.ledger)
        self.lines.run_again([unit for unit in behind if unit.client is not None and unit.may_run_again])
        if isinstance(self.ledger.head[1], Group):
            self.ledger.head[1].dissolve()
        self.load = self.nobodys = 0
        self.is_held, self.state, self.rest = False, RESTING, b""
        self.preparing.give_up()
        for unit in units:
            if unit.client is not None and unit.kept:
                unit.pass_on(b"")
            client, unit.client = unit.client, None
            if client is not None:
                let_off(client, self.now())
                client.lose_server(why, said, was_told=unit.was_told, cut=cut)
        self.lines.plan()


def find_units(ledger: Any) -> list[Unit]:
    """Those that are owed something, the one that runs first."""
    units: list[Unit] = []
    for owner in dict.fromkeys(ledger.owners()):
        if isinstance(owner, Unit | Group):
            units += owner.units
    return units


def find_behind(ledger: Any) -> list[Unit]:
    """Those of them that have not begun: all, where something of ours runs."""
    head = ledger.head[1]
    return find_units(ledger)[len(head.units) if isinstance(head, Unit | Group) else 0 :]
