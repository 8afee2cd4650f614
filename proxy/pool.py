"""
One pool: the servers and the waiting clients of one (database, user).

Theory. A server is in exactly one place (`states.py`). A client that needs one and finds none stands in `waiting`,
first come first served, and nobody overtakes: an idle server is only taken when nobody waits. `acquire` and
`release` are plain functions: between choosing a server and handing it over nothing else can run, so a connection
cannot be lost on the way. The price is re-entrancy: the client that is resumed may close and give its server back
before the call returns. Hence the habit here: own bookkeeping first, calling out last.

Idle servers are a stack, newest on top: the warm ones stay warm and the cold ones age out, which is what lets a
pool shrink. `server_round_robin` turns it into a queue.

Growth: as many servers are opened as clients wait, but at most `OPENING_AT_ONCE`, since by the time a login is done
others may have come back; after a failed login one at a time, with a back-off that doubles up to
`server_login_retry`. A closing server counts until PostgreSQL has hung up, so limits hold at every moment, also as
PostgreSQL counts.

The pool knows neither Client nor Server: it takes anything with the few methods that contracts.py names.
"""

import asyncio
import itertools
import sys
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from protocol import sqlstate
from protocol.parameters import ParameterSet
from protocol.prepared import Context, Statement, Statements, find_meanings, is_of_its_time
from proxy.config.limits import Limits
from proxy.contracts import PooledClient, PooledServer, World
from proxy.failing import LoginFailed
from proxy.governing import Governing, Hopes
from proxy.habits import Habits
from proxy.learnt import Learnt
from proxy.lines import find_lines
from proxy.log.seldom import Seldom
from proxy.outbox import AT_WORK, Crowd
from proxy.states import (
    CLEANING,
    CLOSED,
    CLOSING,
    IDLE,
    LINKED,
    OPENING,
    TESTING,
    USED,
    Closing,
    PoolState,
    Waiting,
    forget,
    move,
)
from proxy.stats import Stats, new_averages

OPEN, PAUSED = PoolState.OPEN, PoolState.PAUSED  # plain names: a member through its class costs five times as much
OPENING_AT_ONCE = 4
SAY_AGAIN = 60.0  # seconds
LOOKED_AT = 8  # idle servers, for one that needs no SET
MAX_INTERNED = 1000  # different sets of parameters remembered per pool
MAX_DERIVED = 1000  # texts that set what others mean, each where it was said


class Pool(Governing):
    """One pool. `database` is the name clients ask for, `user` who we are towards PostgreSQL."""

    is_deserted = False  # is its server linked, and yet nobody's? (an ear's may be)

    def __init__(self, database: str, user: str, limits: Limits, world: World) -> None:
        self.database = database
        self.user = user
        self.world = world
        self.now = world.clock.now
        self.state = OPEN
        self.places: tuple[dict[Any, None], ...] = tuple({} for _ in range(CLOSED))
        self.set_limits(limits)
        self._idle = self.places[IDLE]
        self._linked = self.places[LINKED]
        self.crowd = Crowd(self._linked, AT_WORK, world.outbox, world.outbox.busy_poll.of_clients)
        self.crew = Crowd(self._linked, AT_WORK, world.outbox, world.outbox.busy_poll.of_servers)
        self.waiting: OrderedDict[Any, None] = OrderedDict()
        self.clients: set[Any] = set()
        self.stats = Stats()
        self.averages = new_averages()
        self.welcome: ParameterSet | None = None  # all parameters a server reported, for clients that log in
        self.is_kept_warm = False  # min_pool_size holds even while it has no clients
        self.statements = Statements()  # named ones of its clients
        self.generation = 1  # of the schema: grows with every DDL seen
        self._derived: dict[tuple[int, int, bytes], int] = {}
        self._last_private = 0  # schemas that only one client sees, in its transaction, have numbers below 0
        self.proven: set[tuple[str, str]] = set()  # followed values some server has accepted
        self.learnt = Learnt()
        self.failure: LoginFailed | None = None  # the last opening failed, and nobody has succeeded since
        self.failures = 0
        self.unclean = Seldom(self.now, SAY_AGAIN)  # lines about a server_reset_query that fails
        self.failing_since = 0.0
        self.retry_at = 0.0
        self.unused_since: float = self.now()
        self.greetings: dict[tuple[tuple[str, str], ...], tuple[ParameterSet, bytes]] = {}  # see login.greet
        self._sets: dict[tuple[tuple[str, str], ...], ParameterSet] = {}
        self._welcomes: list[asyncio.Future[None]] = []
        self._welcome_since = 0.0
        self._hopes: Hopes = []

    def __repr__(self) -> str:
        return f"{self.database}/{self.user}"

    # Counting.

    @property
    def size(self) -> int:
        """Connections to PostgreSQL, in whatever state: what limits count."""
        return sum(map(len, self.places))

    def set_limits(self, limits: Limits) -> None:
        """The only way limits change. (A plain attribute is read on the hot path, hence no property.)"""
        before: Habits | None = getattr(self, "habits", None)
        self.limits = limits
        self.look_at = self.retire_at = 0.0  # the janitor's: nothing idle, nothing busy here is due before
        self.habits: Habits = Habits(limits, before)
        self.is_plain, self.is_plain_inside = self.habits.is_plain, self.habits.is_plain_inside
        self.lines: Any = find_lines(self, limits)
        self._is_choosy = limits.server_round_robin
        self.is_wiping = limits.server_reset_query_always
        self.is_private = self.habits.is_private
        self.is_walking = self.habits.is_walking
        # From so many linked servers on there is nothing to grow, and a client that joins the queue need not ask.
        is_final = limits.pool_size is not None and not limits.reserve_pool_size
        self._full_at = limits.pool_size if is_final and limits.pool_size is not None else sys.maxsize
        if before is not None:
            self.outlive(before)

    @property
    def is_used(self) -> bool:
        """Does anybody or anything live here, or has a failed login to be remembered? Notes since when not."""
        is_failing = self.failure is not None and self.now() < self.retry_at
        if self.clients or self.size or self.is_wanted or self._hopes or is_failing:
            self.unused_since = self.now()
            return True
        return False

    @property
    def is_wanted(self) -> bool:
        """Does anybody wait for a server, in the queue or in a login?"""
        return bool(self.waiting or self._welcomes)

    def count_waiting(self) -> int:
        """How many do."""
        lined = 0
        if self.lines is not None and any(client.is_line for client in self.waiting):
            lined = len(self.lines.waiting()) - sum(client.is_line for client in self.waiting)
        return len(self.waiting) + len(self._welcomes) + lined

    @property
    def is_shared(self) -> bool:
        """Are servers given back between transactions?"""
        return not self.is_private

    @property
    def min_size(self) -> int:
        """How many servers are kept though nobody needs them. A user who came once is not remembered for ever."""
        return self.limits.min_pool_size if self.clients or self.is_kept_warm else 0

    @property
    def is_quiet(self) -> bool:
        """Nobody is using or opening a server, and those that were told to leave have left."""
        return not any(self.places[state] for state in (OPENING, TESTING, LINKED, CLEANING, CLOSING))

    @property
    def longest_wait(self) -> float:
        """Seconds the first in the queue has waited; 0 when there is no queue."""
        since = [client.waiting_since for client in itertools.islice(self.waiting, 1)]
        since += [self._welcome_since] if self._welcomes else []
        return self.now() - float(min(since)) if since else 0.0

    # The hot path.

    def acquire(self, client: PooledClient) -> Any:
        """A server for `client`, a linked one already; or None: then the client stands in the queue, to be resumed."""
        idle = self._idle
        if idle:  # then nobody waits and the pool is open: see `laws.check_pool`
            server, _ = idle.popitem()  # from here on `states.move`, for the usual case
            if self._is_choosy or server.followed is not client.followed:
                server = self._choose(client, server)
            self._linked[server] = None
            server.state = LINKED
            return server
        client.waiting_since = self.now()
        self.waiting[client] = None
        if len(self._linked) < self._full_at:
            self.grow()
        return None

    def _choose(self, client: PooledClient, newest: Any) -> Any:
        """Instead of the newest idle one: one in the state of `client` already; where they take turns, the oldest."""
        self._idle[newest] = None
        chosen = newest
        if self._is_choosy:
            chosen = next(iter(self._idle))
        else:
            for server in itertools.islice(reversed(self._idle), 1, LOOKED_AT):
                if server.followed is client.followed:
                    chosen = server
                    break
        del self._idle[chosen]
        return chosen

    def release(self, server: PooledServer) -> None:
        """Give `server`, settled and clean, to whoever has waited longest, else lay it on the idle stack."""
        if server.doomed is not None:
            server.close(server.doomed)
        elif self.state is not OPEN:
            server.close(Closing.PAUSE if self.state is PAUSED else Closing.DATABASE_GONE)
        elif self.waiting:
            client, _ = self.waiting.popitem(last=False)
            client.resume(server)  # last: it may come back to us before it returns
        elif server.state is LINKED:  # `states.move`, for the usual case
            del self._linked[server]
            self._idle[server] = None
            server.state = IDLE
        else:
            move(server, IDLE)

    # Growing.

    def find_obstacle(self) -> Waiting | None:
        """Why no server can be opened now; None when one can."""
        if self.state is not OPEN:
            return Waiting.PAUSED
        if self.failure is not None and self.now() < self.retry_at:
            return Waiting.RETRY
        limit = self.limits.pool_size
        if limit is not None and self.size >= limit + self._reserve():
            return Waiting.BUSY
        return self.world.find_obstacle(self)

    def _reserve(self) -> int:
        """How many servers above pool_size those who wait may have: after reserve_pool_timeout, the reserve."""
        reserve = self.limits.reserve_pool_size
        patience = self.limits.reserve_pool_timeout
        return reserve if reserve and self.longest_wait >= (patience or 0.0) > 0 else 0

    def grow(self) -> None:
        """Open servers for those who wait: as many as wait, and no more than may be."""
        at_once = 1 if self.failure else OPENING_AT_ONCE
        while self._unserved() > 0 and len(self.places[OPENING]) < at_once:
            if self._test_one():
                continue
            obstacle = self.find_obstacle()
            if obstacle is not None:
                self.world.make_room(self, obstacle)
                return
            self.open_one()

    def _unserved(self) -> int:
        """How many more servers would be taken at once."""
        wanted = len(self.waiting) or (1 if self._welcomes else 0)
        return wanted - len(self.places[OPENING]) - len(self.places[TESTING])

    def _test_one(self) -> bool:
        """Wake a server that has been idle for long: cheaper than opening one."""
        if not (self.waiting and self.places[USED] and self.state is OPEN):
            return False
        server = next(reversed(self.places[USED]))
        move(server, TESTING)
        server.test()
        return True

    def open_one(self) -> None:
        """Begin to open one server. The caller has looked at `find_obstacle`."""
        if self.limits.pool_size is not None and self.size >= self.limits.pool_size:
            first = next(iter(self.waiting), None)
            voice = self.world.log.for_socket(first.tag) if first is not None else self.world.log
            voice.warning("taking connection from reserve_pool")
        server = self.world.open_server(self)
        self.places[OPENING][server] = None

    def server_opened(self, server: PooledServer, welcome: ParameterSet) -> None:
        """`server` has logged in and is ready for its first client."""
        if welcome != self.welcome:
            self.welcome = welcome
            self.greetings.clear()
            self.learnt.spelled.clear()
        self.failure = None
        self.failures = 0
        self._settle_welcomes(None)
        self.release(server)
        if not self.limits.server_lifetime:
            server.doomed = Closing.LIFETIME  # it serves once
        self.grow()

    def opening_failed(self, failure: LoginFailed) -> None:
        """A server could not be opened: those who are logging in are told if it will last, the others go on waiting."""
        self.failures += 1
        if self.failure is None or self.failure.sqlstate != failure.sqlstate:
            self.failing_since = self.now()
        self.retry_at = self.now() + failure.find_delay(self.failures, self.limits.server_login_retry)
        self.failure = failure
        if not failure.is_passing:
            self._settle_welcomes(failure)

    def server_closed(self, server: PooledServer) -> None:
        """`server` is gone, whatever the reason: its place is free."""
        if server.state is not CLOSED:
            forget(server)
        self.check_hopes()
        self.world.room_made(self)  # whoever has waited longest may grow, in this pool or in another

    def prove(self, values: Iterable[tuple[str, str]]) -> None:
        """A server has accepted these."""
        if len(self.proven) >= MAX_INTERNED:
            self.proven.clear()  # costs a round trip here and there, no more
        before = len(self.proven)
        self.proven.update(values)
        if self.lines is not None and len(self.proven) > before:
            self.lines.sharers.hear_proven()

    def intern(self, parameters: ParameterSet) -> ParameterSet:
        """One object for all equal sets, so that the usual comparison is `is`."""
        if len(self._sets) >= MAX_INTERNED:
            self._sets.clear()  # costs a slower comparison here and there, no more
        return self._sets.setdefault(tuple(sorted(parameters.items())), parameters)

    def find_statement(self, body: bytes, parameters: ParameterSet, schema: int = 0) -> Statement:
        """The one that all clients share who send the same Parse (`body`: what follows its name) and mean the same.

        `schema` below 0: the client sees a schema that is only its own yet.
        """
        if is_of_its_time(body):
            schema = self.make_private_schema()
        return self.statements.find(body, Context(schema or self.generation, find_meanings(parameters)))

    def make_private_schema(self) -> int:
        """For a client that changes the schema in a transaction that is not over."""
        self._last_private -= 1
        return self._last_private

    def derive_schema(self, schema: int, text: bytes) -> int:
        """As the one before, but for what `text` sets: the same for all who say it in the same place."""
        key = (self.generation, schema, text)
        if key not in self._derived:
            if len(self._derived) >= MAX_DERIVED:
                self._derived.clear()
            self._derived[key] = self.make_private_schema()
        return self._derived[key]

    # Logging in: a client's welcome needs the parameters of a real server.

    async def wait_welcome(self) -> ParameterSet:
        """The parameters of this pool's servers. Raises LoginFailed when none can be opened."""
        while self.welcome is None:
            self.check_hope()
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if not self._welcomes:
                self._welcome_since = self.now()
            self._welcomes.append(future)
            self.grow()
            try:
                await future
            finally:
                if future in self._welcomes:
                    self._welcomes.remove(future)
            if self.state is PoolState.DYING:
                raise LoginFailed(sqlstate.ADMIN_SHUTDOWN, Closing.DATABASE_GONE.value)
        self.check_hope()
        return self.welcome

    def check_hope(self) -> None:
        """LoginFailed for whoever is logging in, when no server is here and none will be before the next try."""
        failure = self.find_hopeless()
        if failure is not None and not failure.is_passing:
            raise failure.as_cached(self)

    def find_hopeless(self) -> LoginFailed | None:
        """Why no server is here and none will be before the next try; None when there is one, or may be."""
        if self.failure is None or any(self.places) or self.find_obstacle() is not Waiting.RETRY:
            return None
        return self.failure

    def _settle_welcomes(self, failure: LoginFailed | None) -> None:
        futures, self._welcomes = self._welcomes, []
        for future in futures:
            if not future.done() and failure is None:
                future.set_result(None)
            elif not future.done() and failure is not None:
                future.set_exception(failure)
