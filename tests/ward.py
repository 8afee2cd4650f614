"""
A ward: clients, the pool and scripted backends, with every wire between them in the hands of a chooser.

Theory. Each wire is a row of bytes that waits until somebody moves some of it on: from a person to the proxy, from
the proxy to a backend, back from there, and to a person who reads slowly. A step is one such move, of any number of
bytes, or an accident: a death, a broken line, a cancel, a moment that passes. Any order of steps may happen in the
world, so any may be chosen; after each the LAWs hold and nobody has heard a byte that is not his.

What somebody ought to hear is what his shadow says: a private backend that is fed the same bytes (`fake_postgres`).
A person who waits in the queue has not been heard by anybody, so his shadow hears him when the waiting is over.
"""

import asyncio
import random
import re
from collections.abc import Callable
from typing import Any

from protocol import codes, sqlstate
from protocol.backend import build_error, build_ready, parse_error
from protocol.frontend import (
    COPY_DONE_MESSAGE,
    FLUSH_MESSAGE,
    PORTAL,
    SYNC_MESSAGE,
    TERMINATE_MESSAGE,
    Bind,
    build_bind,
    build_copy_data,
    build_copy_fail,
    build_describe,
    build_execute,
    build_parse,
    build_query,
)
from protocol.startup import CancelRequest, parse_startup
from proxy.cancel import Cancels
from proxy.client import Client
from proxy.failing import LoginFailed
from proxy.inbox import Inbox
from proxy.janitor import Janitor
from proxy.server import Server
from proxy.states import BEGUN, CLOSED, GONE, IDLE, USED, WAITING
from tests.fake_postgres import CANCELLED, WOKEN, FakePostgres
from tests.fakes import FakeLoop, FakeTransport, FakeWorld, check_world, socket_of

CANCELLED_IN_LINE = build_error("ERROR", sqlstate.QUERY_CANCELED, "canceling statement due to user request")
QUIET_ROUNDS = 4
UNITS = (codes.QUERY, codes.FUNCTION_CALL, codes.SYNC)


def messages(data: bytes) -> list[bytes]:
    """Whole messages, and what is left of a cut one."""
    found = []
    while len(data) >= 5 and len(data) >= (end := 1 + int.from_bytes(data[1:5], "big")):
        found.append(data[:end])
        data = data[end:]
    return [*found, data] if data else found


def trimmed(said: bytes) -> bytes:
    """`said` without a ReadyForQuery that PostgreSQL may owe after a COPY and that comes too late to be heard."""
    return _LATE.sub(rb"\1", said)


_LATE = re.compile(rb"(a trigger says no \w+\0\0Z\0\0\0\x05.)(?:Z\0\0\0\x05.)+")


class _Pools(list[Any]):
    """What the janitor asks of all pools."""

    dying: tuple[()] = ()

    def forget_unused(self) -> None:
        pass

    def relieve(self, pool: Any) -> None:
        pass

    def hubs(self) -> tuple[()]:
        return ()


class _Tasks:
    def __init__(self, loop: FakeLoop) -> None:
        self._loop = loop

    def start(self, coroutine: Any, *, name: str) -> asyncio.Task[Any]:
        return self._loop.create_task(coroutine)


class _Endpoint:
    """Where a cancel request for one backend goes."""

    def __init__(self, ward: "Ward", postgres: FakePostgres) -> None:
        self._ward = ward
        self._postgres = postgres

    async def connect(self, loop: Any) -> Inbox:
        transport = FakeTransport(self._ward.loop)
        inbox: Inbox = transport.start(Inbox())
        self._ward.cancels_on_their_way.append((transport, self._postgres))
        return inbox


class Person:
    """A client, what it has yet to send, and what it ought to hear."""

    def __init__(self, name: str, client: Client, shadow: FakePostgres) -> None:
        self.name = name
        self.client = client
        self.shadow = shadow
        self.outgoing = bytearray()
        self.unheard = bytearray()
        self.count = 0
        self.wants_cancel = False

    @property
    def transport(self) -> FakeTransport:
        return socket_of(self.client)

    @property
    def heard(self) -> bytes:
        return bytes(self.transport.arrived)

    def token(self) -> str:
        self.count += 1
        return f"{self.name}{self.count}"

    def check(self) -> None:
        """Not a byte that its shadow has not said, but for one FATAL as the last word."""
        if self.shadow.out.startswith(self.heard):
            return
        heard, ought = trimmed(self.heard), trimmed(bytes(self.shadow.out))
        if ought.startswith(heard):
            return
        *good, last = messages(heard)
        same = next((at for at, (one, two) in enumerate(zip(ought, heard, strict=False)) if one != two), len(ought))
        told = f"{self.name} heard ...{heard[same - 60 : same + 60]!r} and ought to ...{ought[same - 60 : same + 60]!r}"
        assert ought.startswith(b"".join(good)), told
        is_cut = len(last) < 5 or len(last) < 1 + int.from_bytes(last[1:5], "big")
        assert last[0] == codes.ERROR_RESPONSE, f"{self.name} heard {last!r}"
        assert is_cut or parse_error(last[5:]).severity == "FATAL", f"{self.name} heard {last!r}"
        assert is_cut or self.client.state is GONE or parse_error(last[5:]).sqlstate == "57P01"


class Ward(FakeWorld):
    """The whole picture. `chance` makes every choice."""

    def __init__(self, chance: random.Random, **limits: Any) -> None:
        super().__init__(is_slow=True, **limits)
        self.chance = chance
        self.outcomes: dict[str, str] = {}
        self.people: list[Person] = []
        self.postgres: dict[Server, FakePostgres] = {}
        self.real_cancels = Cancels(_Tasks(self.loop))  # type: ignore[arg-type]
        self.cancels_on_their_way: list[tuple[FakeTransport, FakePostgres]] = []
        self.pools = _Pools([self.pool])
        self.janitor = Janitor(self)
        self.trail: list[str] = []
        self.programs = PROGRAMS  # what people say
        self.laws: list[Callable[[Ward], None]] = []  # that hold at every step, besides those of the house
        self._names = 0

    def log_stats(self) -> None:
        pass

    def issue_cancel(self, server: Server) -> None:
        self.real_cancels.issue(server)

    def client_left(self, client: Any) -> None:
        super().client_left(client)
        self.real_cancels.forget(client)

    def finish_opening(self, server: Server | None = None, parameters: dict[str, str] | None = None) -> Server:
        postgres = FakePostgres(outcomes=self.outcomes)
        waiting = server or self.openings[0]
        waiting.endpoint = _Endpoint(self, postgres)
        self.postgres[waiting] = postgres
        return super().finish_opening(server, parameters)

    def join(self) -> Person:
        """Somebody new."""
        self._names += 1
        name = f"p{self._names}_"
        parameters = {"application_name": self.chance.choice(["app", name])}
        client = self.new_client(is_slow=self.chance.random() < 0.3, **parameters)  # type: ignore[arg-type]
        client.key = name.encode().ljust(8, b".")
        self.real_cancels.register(client)
        person = Person(name, client, FakePostgres(parameters, self.outcomes))
        self.people.append(person)
        return person

    # One step.

    def step(self) -> None:
        moves = self._moves()
        act, label = self.chance.choice(moves)
        self.trail.append(label)
        with self.loop.running():
            act()
            if self.chance.random() < 0.9:
                self.loop.turn()
        self.check()

    def check(self) -> None:
        for person in self.people:
            self._overhear(person)
            person.check()
        check_world(self)
        for law in self.laws:
            law(self)
        for server, postgres in self.postgres.items():
            postgres.is_dead |= socket_of(server).was_aborted
        limit = self.pool.limits.pool_size
        assert limit is None or self.pool.size <= limit
        assert sum(not each.is_dead for each in self.postgres.values()) <= (limit or 99)

    def _overhear(self, person: Person) -> None:
        """The shadow hears what PostgreSQL may have heard."""
        if person.client.state is not WAITING and person.unheard:
            person.shadow.reads(bytes(person.unheard))
            person.unheard.clear()
        person.shadow.run()

    def _moves(self) -> list[tuple[Callable[[], object], str]]:
        moves: list[tuple[Callable[[], object], str]] = []
        if sum(each.client.state is not GONE for each in self.people) < 6:
            moves.append((self.join, "join"))
        for person in self.people:
            moves += self._moves_of(person)
        for server in self.openings:
            moves.append((lambda s=server: self.finish_opening(s), "opened"))  # type: ignore[misc]
            if self.chance.random() < 0.1:
                moves.append((lambda s=server: self.fail_opening(s), "opening fails"))  # type: ignore[misc]
        for server, postgres in list(self.postgres.items()):
            moves += self._moves_of_server(server, postgres)
        for each in self.cancels_on_their_way:
            moves.append((lambda e=each: self.land(e), "a cancel arrives"))  # type: ignore[misc]
        moves.append((lambda: self.pass_time(self.chance.choice([0.01, 0.4, 3.0])), "time passes"))
        return moves

    def _moves_of(self, person: Person) -> list[tuple[Callable[[], object], str]]:
        if person.client.state is GONE and not person.transport.unsent:
            return []
        name, moves = person.name, list[tuple[Callable[[], object], str]]()
        if person.transport.unsent:
            moves.append(
                (lambda: person.transport.peer_reads(self._some(len(person.transport.unsent))), f"{name} reads")
            )
        if person.client.state is GONE:
            return moves
        if len(person.outgoing) < 500:
            moves.append((lambda: self.say(person), f"{name} says"))
        if person.outgoing and person.transport.reads and not person.transport.is_closing():
            moves += [(lambda: self.send(person), f"{name} sends")] * 3
        luck = self.chance.random()
        if luck < 0.03:
            moves.append((person.transport.peer_hangs_up, f"{name} hangs up"))
        elif luck < 0.06:
            moves.append((person.transport.peer_breaks, f"{name} breaks"))
        elif luck < 0.12:
            moves.append((lambda: self.cancel(person), f"{name} cancels"))
        return moves

    def _moves_of_server(self, server: Server, postgres: FakePostgres) -> list[tuple[Callable[[], object], str]]:
        moves: list[tuple[Callable[[], object], str]] = []
        transport = socket_of(server)
        if server.state is CLOSED:
            del self.postgres[server]
            return moves
        if transport.unsent and not postgres.is_dead:
            moves += [(lambda: self.take(server, postgres), f"{postgres.name} takes")] * 3
        if postgres.out and transport.reads:
            moves += [(lambda: self.deliver(server, postgres), f"{postgres.name} delivers")] * 3
        if postgres.is_dead and (not postgres.out or transport.is_closing()):
            moves.append((lambda: self.hang_up(server), "a server hangs up"))
        if postgres.sleeping and self.chance.random() < 0.4:
            moves.append((lambda: self.wake(postgres), "wakes"))
        if self.chance.random() < 0.01 and not postgres.is_dead:
            moves.append((postgres.dies, "a server dies"))
        elif self.chance.random() < 0.01:
            moves.append((lambda: self.break_server(server, postgres), "a server breaks"))
        return moves

    def _some(self, most: int) -> int:
        return most if self.chance.random() < 0.5 else self.chance.randint(1, min(most, 40))

    # The moves.

    def say(self, person: Person) -> None:
        person.outgoing += self.chance.choice(self.programs)(person, self.chance)

    def send(self, person: Person, count: int | None = None) -> None:
        self._overhear(person)
        count = count or self._some(len(person.outgoing))
        data = bytes(person.outgoing[:count])
        del person.outgoing[:count]
        person.unheard += data
        person.transport.peer_sends(data)

    def take(self, server: Server, postgres: FakePostgres, count: int | None = None) -> None:
        transport = socket_of(server)
        postgres.reads(transport.peer_reads(count or self._some(len(transport.unsent))))

    def deliver(self, server: Server, postgres: FakePostgres, count: int | None = None) -> None:
        count = count or self._some(len(postgres.out))
        data = bytes(postgres.out[:count])
        del postgres.out[:count]
        socket_of(server).peer_sends(data)

    def hang_up(self, server: Server) -> None:
        transport = socket_of(server)
        transport.peer_hangs_up()
        transport.peer_reads()

    def break_server(self, server: Server, postgres: FakePostgres) -> None:
        postgres.is_dead = True
        postgres.out.clear()
        socket_of(server).peer_breaks()

    def wake(self, postgres: FakePostgres) -> None:
        self.outcomes[postgres.sleeping] = WOKEN
        postgres.run()

    def cancel(self, person: Person) -> None:
        client = person.client
        was_waiting, carry = client.state is WAITING, bytes(client.carry)
        held = bytes(person.shadow.inbox + person.unheard)  # it may have begun before the waiting did
        held = held[: len(held) - len(carry)]
        self.real_cancels.request(client.key)
        if was_waiting and client.state is not WAITING:
            count = sum(message[0] in UNITS for message in messages(held))
            if client.state is BEGUN:  # it believes in a transaction, and that has failed
                person.shadow.status = codes.FAILED
            ready = build_ready(person.shadow.status)
            person.shadow.out += (CANCELLED_IN_LINE + ready) * count
            person.shadow.inbox.clear()
            person.unheard[:] = carry
        elif client.server is not None:
            person.wants_cancel = True

    def land(self, flying: tuple[FakeTransport, FakePostgres]) -> None:
        self.cancels_on_their_way.remove(flying)
        transport, postgres = flying
        if transport.arrived and not transport.is_closing():
            request = parse_startup(bytes(transport.arrived[4:]))
            assert isinstance(request, CancelRequest)
            self._check_target(postgres)
            postgres.cancel()
        transport.peer_hangs_up()

    def _check_target(self, postgres: FakePostgres) -> None:
        """Whose statement is hit?"""
        for person in self.people:
            if postgres.sleeping.startswith(person.name):
                assert person.wants_cancel or person.client.state is GONE, f"{person.name} is hit by another's cancel"

    def fail_opening(self, server: Server) -> None:
        self.openings.remove(server)
        self.pool.opening_failed(LoginFailed("08006", "no"))
        self.pool.server_closed(server)

    def pass_time(self, seconds: float) -> None:
        self.advance(seconds)
        self.janitor.sweep()

    # The end.

    def settle(self) -> None:
        """Everything on its way arrives, until nothing moves."""
        with self.loop.running():
            quiet = 0
            for _ in range(2000):
                quiet = 0 if self._settle_once() else quiet + 1
                if quiet == QUIET_ROUNDS:
                    break
                if quiet:
                    self.pass_time(15.0)  # back-offs and patience end
            else:
                raise AssertionError("it never settles")
        self.check()

    def _settle_once(self) -> bool:
        self.loop.turn()
        moved = False
        for person in self.people:
            if person.outgoing and person.transport.reads and person.client.state is not GONE:
                self.send(person, len(person.outgoing))
                moved = True
            if person.transport.unsent:
                person.transport.peer_reads()
                moved = True
        for server in list(self.openings):
            self.finish_opening(server)
            moved = True
        for each in list(self.cancels_on_their_way):
            self.land(each)
            moved = True
        for server, postgres in list(self.postgres.items()):
            moved = self._settle_server(server, postgres) or moved
        return moved

    def _settle_server(self, server: Server, postgres: FakePostgres) -> bool:
        transport, moved = socket_of(server), False
        if server.state is CLOSED:
            del self.postgres[server]
            return True
        if postgres.sleeping:
            self.wake(postgres)
            moved = True
        if transport.unsent and not postgres.is_dead:
            self.take(server, postgres, len(transport.unsent))
            moved = True
        if postgres.out and transport.reads:
            self.deliver(server, postgres, len(postgres.out))
            moved = True
        elif postgres.is_dead or transport.is_closing():
            self.hang_up(server)
            moved = True
        return moved

    def finish(self) -> None:
        """Everything arrives, everyone has heard everything and leaves; no server is lost, none is dirty."""
        self.settle()
        for person in self.people:
            if person.client.state is not GONE:
                assert trimmed(person.heard) == trimmed(bytes(person.shadow.out)), f"{person.name} did not hear it all"
                person.outgoing += TERMINATE_MESSAGE
        self.settle()
        assert not self.pool.clients
        assert not self.pool.waiting
        assert self.pool.size == len(self.pool.places[IDLE]) + len(self.pool.places[USED]), self.pool.places
        for postgres in self.postgres.values():
            assert postgres.status == codes.IDLE
            assert not postgres.sleeping
            assert not postgres._copying
            assert not postgres.inbox
        strangers = [each for each, how in self.outcomes.items() if how not in (WOKEN, CANCELLED)]
        assert not strangers


def storm(
    chance: random.Random,
    steps: int,
    programs: "list[Program] | None" = None,
    law: "Callable[[Ward], None] | None" = None,
    **limits: Any,
) -> Ward:
    """So many random steps, and the end."""
    ward = Ward(chance, **{"pool_size": 2, "query_wait_timeout": None, "query_wait_notify": None, **limits})
    ward.programs = programs or PROGRAMS
    ward.laws += [law] if law else []
    with ward.loop.running():
        ward.join()
    try:
        for _ in range(steps):
            ward.step()
        ward.trail.append("the end")
        ward.finish()
    except BaseException as error:
        error.add_note(" | ".join(ward.trail[-60:]))
        raise
    return ward


# What people say.

Program = Callable[[Person, random.Random], bytes]


def simple(text: str) -> Program:
    return lambda person, chance: build_query(text.replace("TOKEN", person.token()))


def batch(*texts: str, end: bytes = SYNC_MESSAGE) -> Program:
    def build(person: Person, chance: random.Random) -> bytes:
        said = b""
        for text in texts:
            said += build_parse(b"", text.replace("TOKEN", person.token()).encode()) + build_bind(Bind(b"", b""))
            said += build_describe(PORTAL, b"") if chance.random() < 0.5 else b""
            said += build_execute(b"", chance.choice([0, 0, 2]))
        return said + end

    return build


def together(*programs: Program) -> Program:
    return lambda person, chance: b"".join(program(person, chance) for program in programs)


def copied(data: list[bytes], end: bytes) -> Program:
    return lambda person, chance: b"".join(map(build_copy_data, data)) + end


DONE, FAIL = COPY_DONE_MESSAGE, build_copy_fail(b"no")

PROGRAMS: list[Program] = [
    simple("rows 3 TOKEN"),
    simple("rows 0 TOKEN"),
    simple("rows 40 TOKEN"),
    simple("big 5000 TOKEN"),
    simple("big 80000 TOKEN"),
    simple("error TOKEN"),
    simple("notice TOKEN"),
    simple(""),
    simple("sleep TOKEN"),
    simple("sleep TOKEN"),
    simple("show application_name TOKEN"),
    simple("set application_name TOKEN TOKEN"),
    simple("begin TOKEN"),
    simple("commit TOKEN"),
    simple("rollback TOKEN"),
    simple("copyout 3 TOKEN"),
    together(simple("begin TOKEN"), simple("set TimeZone CET TOKEN"), simple("rollback TOKEN")),
    together(simple("begin TOKEN"), simple("rows 2 TOKEN"), simple("error TOKEN"), simple("commit TOKEN")),
    together(simple("copyin TOKEN"), copied([b"row"] * 3, DONE)),
    together(simple("copyin TOKEN"), copied([b"row", b"bad", b"row"], DONE)),
    together(simple("copyin TOKEN"), copied([b"row"], FAIL)),
    together(simple("copytrap TOKEN"), copied([b"row" * 50000], DONE)),
    batch("rows 5 TOKEN"),
    batch("rows 5 TOKEN", "show TimeZone TOKEN"),
    batch("rows 2 TOKEN", "error TOKEN", "rows 2 TOKEN"),
    batch("begin TOKEN", "rows 1 TOKEN"),
    batch("sleep TOKEN"),
    batch("commit TOKEN"),
    batch("rows 1 TOKEN", end=FLUSH_MESSAGE),
    batch("error TOKEN", end=FLUSH_MESSAGE),
    batch(end=SYNC_MESSAGE),
    together(batch("rows 2 TOKEN", end=b""), batch("set TimeZone UTC TOKEN"), simple("show TimeZone TOKEN")),
    together(batch("copyin TOKEN"), copied([b"row"] * 2, DONE + SYNC_MESSAGE)),
    together(batch("copyin TOKEN", end=b""), copied([b"row"] * 2, DONE + SYNC_MESSAGE)),
    together(batch("copyin TOKEN"), copied([b"row", b"bad"], DONE + SYNC_MESSAGE)),
    together(batch("copytrap TOKEN"), copied([b"row"], DONE + SYNC_MESSAGE)),
    together(simple("sleep TOKEN"), simple("rows 1 TOKEN")),
    simple("die TOKEN"),
]
