"""
Stand-ins for the world: what the second ring of tests gives the proxy instead of clocks, sockets and PostgreSQL.

Theory. Time moves when told, callbacks run when told, and a socket is a list of the chunks written to it. So a test
is a transcript: `Play` puts bytes in with `>>` and takes what came out with `<<`, and after every step asserts the
LAWs of the whole picture (`check_world`). What the fakes forbid is what uvloop forbids: writing to a handle that is
closed raises, and nothing is ever called back from inside a call.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextvars import Context
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from hypothesis import HealthCheck, settings

from protocol import codes
from protocol.ledger import NOTHING
from proxy.client import Client
from proxy.clock import Clock
from proxy.config.ini import Config
from proxy.config.kinds import PoolMode, SessionState
from proxy.config.limits import Limits, resolve
from proxy.config.settings import Settings
from proxy.laws import check_pool
from proxy.log import Destination, Level, Voice
from proxy.log.lines import NO_FACTS
from proxy.outbox import Outbox
from proxy.pool import Pool
from proxy.server import Server
from proxy.slices import Slices
from proxy.states import ACTIVE, CLOSED, GONE, IDLE, LINED, LINKED, USED, WAITING, Leaving, ServerState, Waiting
from proxy.strangers import Strangers
from proxy.tls import Contexts

settings.register_profile("check", deadline=None, derandomize=True, max_examples=50, database=None)
settings.register_profile(
    "hunt", deadline=None, max_examples=3000, database=None, suppress_health_check=[HealthCheck.too_slow]
)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "check")
settings.load_profile(PROFILE)
IS_HUNT = PROFILE == "hunt"

WELCOME = {
    "application_name": "",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "standard_conforming_strings": "on",
    "TimeZone": "UTC",
}
FOLLOWED = frozenset(WELCOME)
HIGH_WATER = 65536


class FakeClock(Clock):
    """A clock that stands still until told: `advance` moves both its answers by so many seconds."""

    __slots__ = ("_now", "_wall")

    def __init__(self, now: float = 1000.0, wall: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) -> None:
        self._now = now
        self._wall = wall

    def now(self) -> float:
        return self._now

    def wall(self) -> datetime:
        return self._wall

    def advance(self, seconds: float) -> None:
        assert seconds >= 0, "time does not run backwards"
        self._now += seconds
        self._wall += timedelta(seconds=seconds)


class FakeLoop(asyncio.AbstractEventLoop):
    """An event loop that turns when told, on a clock that moves when told. What a callback raises `turn` raises."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self._ready: list[asyncio.Handle] = []
        self._later: list[asyncio.TimerHandle] = []
        self.complaints: list[BaseException] = []  # of tasks that failed unheard

    def time(self) -> float:
        return self.clock.now()

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return False

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._later.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: object = None, context: Context | None = None) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self, name=None if name is None else str(name))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if "exception" in context:  # else a task that was still waiting when its test ended
            self.complaints.append(context["exception"])

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """asyncio.TimerHandle.cancel tells us; a cancelled one is skipped when its time comes."""

    def turn(self) -> None:
        """Run what is ready, and what that makes ready, until nothing is."""
        for _ in range(10_000):
            due = [each for each in self._later if each.when() <= self.time()]
            self._later = [each for each in self._later if each.when() > self.time()]
            self._ready += due
            assert not self.complaints, self.complaints
            if not self._ready:
                return
            handle = self._ready.pop(0)
            if not handle.cancelled():
                # Not handle._run(): that would swallow what the callback raises.
                handle._context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]
        raise AssertionError("the loop spins")

    @contextlib.contextmanager
    def running(self) -> Iterator["FakeLoop"]:
        """`asyncio.get_running_loop()` gives this loop."""
        asyncio._set_running_loop(self)
        try:
            yield self
        finally:
            asyncio._set_running_loop(None)


class FakeTransport(asyncio.Transport):
    """
    A socket as uvloop shows it. The peer reads at once, unless `is_slow`: then what is written lies in the buffer
    until `peer_reads`, and the protocol is told to pause beyond HIGH_WATER.
    """

    def __init__(self, loop: FakeLoop, *, is_slow: bool = False) -> None:
        super().__init__()
        self.loop = loop
        self.protocol: Any = None
        self.is_slow = is_slow
        self.written: list[bytes] = []  # each write call
        self.arrived = bytearray()  # what the peer has read
        self.unsent = bytearray()
        self.reads = True
        self.can_half_close = False
        self.has_written_eof = False
        self.is_lost = False  # connection_lost has been called: the handle is closed
        self.was_aborted = False
        self._is_closing = False
        self._is_losing = False
        self._has_paused = False

    def start(self, protocol: Any) -> Any:
        """`protocol` gets this socket."""
        self.protocol = protocol
        protocol.connection_made(self)
        return protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol  # type: ignore[no-any-return]

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: Any) -> None:
        if self.is_lost:
            raise RuntimeError("unable to perform operation on a closed handle")
        assert isinstance(data, bytes), "a buffer that may change must not be written: it is kept by reference"
        if self._is_losing or not data:
            return
        self.written.append(data)
        self.unsent += data
        if self.is_slow:
            self._push_back()
        else:
            self._drain(len(self.unsent))

    def _push_back(self) -> None:
        if len(self.unsent) > HIGH_WATER and not self._has_paused:
            self._has_paused = True
            self.protocol.pause_writing()

    def _drain(self, count: int) -> None:
        self.arrived += self.unsent[:count]
        del self.unsent[:count]

    def can_write_eof(self) -> bool:
        return self.can_half_close

    def write_eof(self) -> None:
        self.has_written_eof = True

    def get_write_buffer_size(self) -> int:
        return len(self.unsent)

    def is_closing(self) -> bool:
        return self._is_closing

    def pause_reading(self) -> None:
        self._check_alive()
        self.reads = False

    def resume_reading(self) -> None:
        self._check_alive()
        self.reads = True

    def _check_alive(self) -> None:
        if self._is_closing:
            raise RuntimeError("Cannot pause or resume reading when closing")

    def close(self) -> None:
        self._is_closing = True
        if not self.unsent:
            self._lose(None)

    def abort(self) -> None:
        self.was_aborted = True
        self._is_closing = True
        self.unsent.clear()
        self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if not self._is_losing:
            self._is_losing = True
            self.loop.call_soon(self._tell_lost, error)

    def _tell_lost(self, error: Exception | None) -> None:
        self.protocol.connection_lost(error)
        self.is_lost = True

    # What the peer does.

    def peer_sends(self, data: bytes) -> None:
        if not self._is_closing:
            assert self.reads, "reading is paused"
            self.protocol.data_received(data)

    def peer_reads(self, count: int | None = None) -> bytes:
        """Everything, or at most `count` bytes, of what lies in the buffer."""
        had = len(self.arrived)
        self._drain(len(self.unsent) if count is None else count)
        if self._has_paused and len(self.unsent) <= HIGH_WATER // 4:
            self._has_paused = False
            self.protocol.resume_writing()
        if self._is_closing and not self.unsent:
            self._lose(None)
        return bytes(self.arrived[had:])

    def peer_hangs_up(self) -> None:
        """FIN: nothing more will come."""
        if not self._is_closing and not self.protocol.eof_received():
            self.close()

    def peer_breaks(self) -> None:
        """RST: nothing goes either way."""
        self._is_closing = True
        self.unsent.clear()
        self._lose(ConnectionResetError("connection reset by peer"))


class FakeLog(Voice):
    """A log that remembers."""

    is_quiet = False
    level = Level.LOG

    def __init__(self, lines: list[str] | None = None, tag: str = "") -> None:
        self.lines: list[str] = [] if lines is None else lines
        self._tag = tag

    def say(self, level: Level, text: str, facts: Mapping[str, object] = NO_FACTS) -> None:
        self.lines.append(f"{level.name} {self._tag}{text}")

    def for_socket(self, tag: object) -> "FakeLog":
        return FakeLog(self.lines, f"{tag} ")

    def direct(self, destination: Destination) -> None:
        pass

    def reopen(self) -> None:
        pass

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


class FakeOpening:
    """The task that opens a server: remembers that it was cancelled."""

    def __init__(self) -> None:
        self.was_cancelled = False

    def cancel(self, why: str | None = None) -> None:
        self.was_cancelled = True


def socket_of(stream: Any) -> FakeTransport:
    """What a client or a server writes to, once it does not wait any more (outbox.py)."""
    return cast(FakeTransport, stream.transport.transport)


def make_limits(**said: Any) -> Limits:
    """The limits of a file that says nothing, but for these; `pool_mode` and `session_state` may be words.

    What is said in transcripts is mostly no SQL, so nobody looks at it unless told to: `session_state` is leak, and
    no BEGIN is deferred.
    """
    said.setdefault("deferred_begin", False)
    if "pool_mode" in said:
        said["pool_mode"] = PoolMode(said["pool_mode"])
    said["session_state"] = SessionState(said.get("session_state", "leak"))
    return replace(resolve(Config(path="", section="proxy", settings=Settings()), "shop", "web"), **said)


class FakeWorld:
    """What a pool, its clients and its servers ask of the proxy, and one pool, `shop/web`."""

    def __init__(self, *, is_slow: bool = False, **limits: Any) -> None:
        self.doorsteps: dict[Any, None] = {}
        self.clock = FakeClock()
        self.outbox = Outbox()
        self.slices = Slices()
        self.loop = FakeLoop(self.clock)  # type: ignore[abstract]
        self.log = FakeLog()
        self.settings = Settings()
        self.tls = Contexts()
        self.strangers = Strangers(self)
        self.followed = FOLLOWED
        self.is_slow = is_slow
        self.is_suspended = False
        self.obstacle: Waiting | None = None
        self.leaving: Leaving | None = None
        self.openings: list[Server] = []  # servers somebody wants opened
        self.cancels: list[Server] = []  # whose query we were asked to cancel
        self.left: list[Any] = []  # clients
        self.wanted_room: list[Waiting] = []
        self.on_check: Callable[[], None] | None = None
        self.pool = Pool("shop", "web", make_limits(**limits), self)  # type: ignore[arg-type]
        self.pools: list[Pool] = [self.pool]
        self.databases_made = 0
        self.roles_named = 0
        self.pool.welcome = dict(WELCOME)

    # What they ask.

    def open_server(self, pool: Pool) -> Server:
        server = Server(pool)
        server.opening = FakeOpening()  # type: ignore[assignment]
        self.openings.append(server)
        return server

    def find_obstacle(self, pool: Pool) -> Waiting | None:
        return self.obstacle

    def make_room(self, pool: Pool, obstacle: Waiting) -> None:
        self.wanted_room.append(obstacle)

    def room_made(self, pool: Pool) -> None:
        for each in self.pools:
            each.grow()

    def schema_changed(self, pool: Pool) -> None:
        for each in self.pools:
            each.generation += 1

    def roles_changed(self) -> None:
        self.roles_named += 1

    def database_made(self) -> None:
        self.databases_made += 1

    def servers_in(self, databases: set[str]) -> list[Server]:
        return []

    def issue_cancel(self, server: Server) -> None:
        server.cancels += 1
        self.cancels.append(server)

    def client_left(self, client: Any) -> None:
        client.pool.clients.discard(client)
        self.left.append(client)

    # What tests do.

    def finish_opening(self, server: Server | None = None, parameters: dict[str, str] | None = None) -> Server:
        """The oldest opening, or that of `server`, has succeeded."""
        server = server or self.openings[0]
        self.openings.remove(server)
        server.parameters = dict(parameters or WELCOME)
        server.followed = server.pool.intern({name: server.parameters[name] for name in self.followed})
        server.pool.proven.update(server.followed.items())
        server.opening = None
        server.key = b"\0\0\0\1" + len(self.log.lines).to_bytes(4, "big")
        FakeTransport(self.loop, is_slow=self.is_slow).start(server)
        server.pool.server_opened(server, dict(server.parameters))
        return server

    def new_server(self, pool: Pool | None = None) -> Server:
        """One more server, opened at once."""
        pool = pool or self.pool
        pool.open_one()
        return self.finish_opening(self.openings[-1])

    def new_client(self, *, is_slow: bool = False, pool: Pool | None = None, **parameters: str) -> Client:
        pool = pool or self.pool
        followed = pool.intern({**WELCOME, **parameters})
        client = Client(pool, "web", os.urandom(8), followed, ("127.0.0.1", 1 + len(pool.clients)))
        pool.clients.add(client)
        FakeTransport(self.loop, is_slow=is_slow).start(client)
        return client

    def cancel_arrives(self, server: Server) -> None:
        """PostgreSQL has hung up the connection that carried the cancel request."""
        self.cancels.remove(server)
        server.cancels -= 1
        server.rest()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.loop.turn()

    def run_tasks(self, seconds: float = 0.0) -> None:
        """`advance`, where there are tasks: what they have woken has its turn too."""
        with self.loop.running():
            self.advance(seconds)
            self.loop.turn()

    def answer(self, server: Server, data: bytes) -> None:
        """PostgreSQL says `data`, and who waits for it hears it."""
        with self.loop.running():
            server.transport.peer_sends(data)  # type: ignore[attr-defined]
        self.run_tasks()


def check_world(world: Any) -> None:
    """The LAWs, over the whole picture: raises AssertionError."""
    for pool in world.pools:
        check_pool(pool)
        for place, state in zip(pool.places, ServerState, strict=False):
            for server in place:
                _check_server(server, state)
                assert sum(server in each for each in pool.places) == 1, f"{server!r} is in two places"
        for client in pool.clients:
            _check_client(client)
        people = [client for client in pool.waiting if not client.is_line]
        assert not [client for client in people if client not in pool.clients], "a stranger waits"
        linked = [client for client in pool.clients if client.server is not None] + check_lines(pool)
        assert len(linked) == len(pool.places[LINKED]), "as many linked clients as linked servers"


def check_lines(pool: Pool) -> list[Any]:
    """The LAWs of those who share servers. The lines that have one."""
    linked = [server.client for server in pool.places[LINKED] if server.client is not None and server.client.is_line]
    lines = pool.lines
    if lines is not None:
        assert {line for line in lines.members if line.server is not None} >= set(linked)
        assert not [line for line in lines.members if line.server is None and line.load], "a load without a server"
    sent = [unit for line in linked for unit in line.units]
    for line in linked:
        assert line.load == len(line.units), f"{line!r} has {len(line.units)}"
        assert all(unit.line is line for unit in line.units)
    preparing = [unit for line in linked for units in line.preparing._waiting.values() for unit in units]
    pending = [] if lines is None else list(lines.pending)
    places = [*sent, *preparing, *pending]
    assert len(places) == len(set(map(id, places))), "a unit is in two places"
    owned = {id(unit.client): unit for unit in places if unit.client is not None}
    assert len(owned) == sum(unit.client is not None for unit in places), "a client has two units"
    for client in pool.clients:
        assert (client.state is LINED) == (client.unit is not None), f"{client!r} is {client.state.name}"
        assert client.unit is owned.pop(id(client), None), f"{client!r} and its unit disagree"
    assert not owned, "a unit of a client that is gone"
    return linked


def _check_server(server: Server, state: ServerState) -> None:
    assert server.state is state is not CLOSED
    if state is LINKED:
        assert server.client is not None, f"{server!r} is linked to nobody"
        assert server.client.server is server, f"{server!r} and its client disagree"
    else:
        assert server.client is None, f"{server!r} is {state.name} and has a client"
    if state in (IDLE, USED):
        assert len(server.ledger) == 0, f"{server!r} is idle and owes {server.ledger.owners()}"
        assert server.ledger.is_settled
        assert server.ledger.head[0] is NOTHING
        assert server.status == codes.IDLE, f"{server!r} is idle in a transaction"
        assert not server.cancels, f"{server!r} is idle and a cancel is on its way to it"
        assert not server.doomed
        assert not server.remain, f"{server!r} is idle in the middle of a message"
    if state is LINKED or state in (IDLE, USED):
        owners = set(map(id, server.ledger.owners()))
        others = {id(each) for each in server.pool.clients if each is not server.client}
        assert not owners & others, f"{server!r} owes somebody else's client"


def _check_client(client: Client) -> None:
    assert client.state is not GONE, f"{client!r} is gone and still in the books"
    assert (client.state is ACTIVE) == (client.server is not None), f"{client!r} is {client.state.name}"
    assert (client.state is WAITING) == (client in client.pool.waiting), f"{client!r} is {client.state.name}"
    if client.server is not None:
        assert client.server.client is client, f"{client!r} and its server disagree"
        assert client.server.state is LINKED
    if client.state is WAITING:
        assert client.held is not None
    assert len(client.held or b"") <= 2**20, "held without bound"
