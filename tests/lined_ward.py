"""
A ward whose people share servers: random programs against lines, with deaths, cancels, reloads and pauses in between.

Theory. As in ward.py, but what most people say may stand in a line (`select rows 3 TOKEN`), so several of them are on
one backend at a time, and a cancel, a death or a stuck head meets those behind it. The law is the same, and strict: not
a byte that a PostgreSQL of one's own would not have said, each answer once, in order, but for one FATAL at the end.

Two things differ. A backend that is hit by a cancel while it runs somebody else's statement ends that here only
(`Hit`); if its client were to hear of it his shadow, which was not hit, would say otherwise. And a person's shadow does
not hear what stands in a line before something of its answer has come, since until then it may be cancelled as if
nobody had heard it: at once if it has not been sent, or when it is taken from its line to run elsewhere (rescued, say).

A cancel means what its person has in line at that moment (`meant`); whatever he asks later is a stranger to it.

A backend keeps what it says between two Syncs until it must send it, and takes back all of it that has an effect when
something fails; so whoever shares a transaction with others may run again (groups.py). What has been committed is
counted: nothing twice, unless somebody was not heard to the end.
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from protocol import codes
from protocol.backend import build_ready
from proxy.server import Server
from proxy.states import GONE, LINED, RESTING, Closing, PoolState
from tests.fake_postgres import CANCELLED, WOKEN, FakePostgres
from tests.fakes import socket_of
from tests.lined import trust
from tests.named import SPEECHES
from tests.ward import CANCELLED_IN_LINE, PROGRAMS, Person, Program, Ward, batch, simple, together

SHARED: list[Program] = [
    simple("select rows 3 TOKEN"),
    simple("select rows 1 TOKEN"),
    simple("select rows 1 TOKEN"),
    simple("select rows 0 TOKEN"),
    simple("select big 5000 TOKEN"),
    simple("select big 80000 TOKEN"),
    simple("select error TOKEN"),
    simple("select notice TOKEN"),
    simple("select sleep TOKEN"),
    simple("select sleep TOKEN"),
    simple("select show application_name TOKEN"),
    simple("select show TimeZone TOKEN"),
    batch("select rows 2 TOKEN"),
    batch("select rows 1 TOKEN"),
    batch("select error TOKEN"),
    batch("select sleep TOKEN"),
    together(simple("select rows 1 TOKEN"), simple("select rows 1 TOKEN")),
]
MIXED: list[Program] = SHARED * 3 + PROGRAMS + SPEECHES[:10]
TRUSTED = (
    "select rows 3 p1_1", "select big 5 p1_1", "select error p1_1", "select notice p1_1", "select sleep p1_1",
    "select show application_name p1_1", "select show TimeZone p1_1", "select echo a",
)  # fmt: skip
ALIKE = 0.8
WHOLE = 0.85  # of what moves, moves in one piece: cut messages are not shared
RELOADS: tuple[dict[str, Any], ...] = (
    {"pipeline_depth": 1},
    {"pipeline_depth": 2},
    {"pipeline_depth": 16},
    {"pipeline_depth": 16, "pipeline_servers": 1},
    {"pipeline_depth": 4, "pipeline_servers": 2},
    {"pipeline_group": 1},
    {"pipeline_depth": 16, "pipeline_group": 2},
    {"pipeline_depth": 16, "pipeline_group": 32},
)
BUFFER = 8192  # bytes that PostgreSQL keeps at most
AT_ONCE = frozenset({codes.ERROR_RESPONSE, codes.NOTICE_RESPONSE, codes.COPY_IN_RESPONSE})
SENT_EARLY = 0.03  # of messages, although there is no need


CANCELLED_HERE = CANCELLED_IN_LINE + build_ready(codes.IDLE)
_TOKEN = re.compile(rb"p\d+_\d+")


class Hit(FakePostgres):
    """A backend on which a cancel ends what runs, whosever it is; only `is_meant` says whether he meant it."""

    def __init__(self, ward: "LinedWard") -> None:
        super().__init__(outcomes=ward.outcomes)
        self._ward = ward
        self._kept = bytearray()  # said, and not sent yet
        self._undecided: set[str] = set()  # tokens of what this transaction has done
        self._executed = 0  # since the last Sync
        self.was_cut = False  # it may have done what nobody heard of

    def cancel(self) -> None:
        token = self.sleeping
        if token and self._ward.is_meant(token):
            super().cancel()
        elif token:
            self._ward.strays.add(token)
            self.sleeping = ""
            self._fail("57014", f"canceling statement {token}")
            self._after()
            self.run()

    def dies(self, words: str = "terminating connection due to administrator command") -> None:
        self.was_cut = True
        super().dies(words)

    def _heed(self, kind: int, body: bytes) -> None:
        self._executed += kind == codes.EXECUTE
        if kind == codes.SYNC:
            self._ward.chains += self._executed > 1
            self._executed = 0
        super()._heed(kind, body)
        if kind == codes.FLUSH:
            self.flush()

    def _say(self, message: bytes) -> None:
        self._kept += message
        is_due = not self._is_extended or message[0] in AT_ONCE or len(self._kept) > BUFFER
        if is_due or self._ward.chance.random() < SENT_EARLY:
            self.flush()

    def flush(self) -> None:
        self.out += self._kept
        self._kept.clear()

    # What it does.

    def _complete(self, tag: str) -> None:
        super()._complete(tag)
        if tag.startswith("ROLLBACK"):
            self._undecided.clear()
        self._undecided |= find_tokens(tag.encode())

    def _fail(self, sqlstate: str, words: str) -> None:
        super()._fail(sqlstate, words)
        self._undecided.clear()

    def _ready(self) -> None:
        super()._ready()
        if self.status == codes.IDLE:
            for token in self._undecided:
                self._ward.done[token].append(self)
            self._undecided.clear()


class LinedWard(Ward):
    """The whole picture, with lines."""

    def __init__(self, chance: random.Random, **limits: Any) -> None:
        super().__init__(chance, **{"pipeline_depth": 16, "pipeline_group_min": 2, **limits})
        self.programs = SHARED
        self.in_line: dict[Person, bytes] = {}  # what their shadows have not heard
        self.strays: set[str] = set()
        self.meant: set[str] = set()  # the tokens whose person has wanted a cancel while they stood in line
        self.done: dict[str, list[Hit]] = defaultdict(list)  # where what has a token has been committed
        self.is_twice = False  # somebody has been served elsewhere while it runs for nobody
        self.chains = 0  # how many transactions had several units
        trust(self.pool, *TRUSTED)

    def begin(self, people: int) -> None:
        """All servers are open, and everybody asks in one turn of the loop."""
        with self.loop.running():
            for _ in range(self.pool.limits.pool_size or 1):
                self.new_server()
            for _ in range(people):
                person = self.join()
                self.say(person)
                self.send(person, len(person.outgoing))
            self.loop.turn()
        self.check()

    def _some(self, most: int) -> int:
        return most if self.chance.random() < WHOLE else self.chance.randint(1, min(most, 40))

    def finish_opening(self, server: Server | None = None, parameters: dict[str, str] | None = None) -> Server:
        opened = super().finish_opening(server, parameters)
        hit = Hit(self)
        hit.name = self.postgres[opened].name
        self.postgres[opened] = hit
        opened.endpoint._postgres = hit
        return opened

    def is_meant(self, token: str) -> bool:
        person = next(person for person in self.people if token.startswith(person.name))
        return token in self.meant or person.wants_cancel or person.client.state is GONE

    def _check_target(self, postgres: FakePostgres) -> None:
        """Whoever is hit in another's place must not hear of it: what he hears is looked at."""

    def join(self) -> Person:
        """Most have the same parameters: who has others needs a SET in front, or a server of his own."""
        person = super().join()
        if self.chance.random() < ALIKE:
            person.client.followed = self.pool.intern({**person.client.followed, "application_name": "app"})
            person.shadow = FakePostgres({"application_name": "app"}, self.outcomes)
        self.in_line[person] = b""
        return person

    def _overhear(self, person: Person) -> None:
        """What stands in line is heard by his shadow when something of its answer has come."""
        client, transport = person.client, person.transport
        unit = self.in_line[person]
        letter = self.outbox.letters.get(client.transport, b"")
        news = bytes(transport.arrived + transport.unsent + letter)[len(person.shadow.out) :] if unit else b""
        if news:
            if news.startswith(CANCELLED_HERE) and self._is_wanted_to_end(unit):
                person.shadow.out += CANCELLED_HERE  # before it ran anywhere
            else:
                person.shadow.reads(unit)
            unit = b""
        if client.state is LINED:
            if not unit:
                carry = len(client.carry)
                unit = bytes(person.unheard[: len(person.unheard) - carry])
                del person.unheard[: len(unit)]
        elif unit:  # it needs a server of its own after all
            can_hear = client.state is not GONE and not transport.is_closing()
            assert not (can_hear and self._is_wanted_to_end(unit)), f"a cancel of {person.name} is lost"
            person.unheard[:0] = unit
            unit = b""
        self.in_line[person] = unit
        if client.state is RESTING:  # what it holds may have to wait
            count = len(person.unheard) - len(client.carry)
            person.shadow.reads(bytes(person.unheard[:count]))
            del person.unheard[:count]
        elif client.state is not LINED:
            super()._overhear(person)
        person.shadow.run()

    def _is_wanted_to_end(self, unit: bytes) -> bool:
        return not self.meant.isdisjoint(find_tokens(unit))

    def check(self) -> None:
        super().check()
        for server, postgres in self.postgres.items():
            cast(Hit, postgres).was_cut |= socket_of(server).was_aborted
        self.is_twice |= any(line.nobodys for line in self._lines())
        for person in self.people:
            unit = person.client.unit
            assert unit is None or unit.is_canceled or not self._is_wanted_to_end(self.in_line[person]), (
                f"a cancel of {person.name} is lost"
            )

    def _lines(self) -> list[Any]:
        return [] if self.pool.lines is None else list(self.pool.lines.members)

    def break_server(self, server: Server, postgres: FakePostgres) -> None:
        cast(Hit, postgres).was_cut = True
        super().break_server(server, postgres)

    def finish(self) -> None:
        super().finish()
        assert not [line for line in self._lines() if line.load or line.nobodys or line.rest]
        for token, backends in self.done.items():
            heard = [each for each in backends if not each.was_cut]
            assert len(heard) < 2 or self.is_twice, f"{token} was done {len(heard)} times"

    def cancel(self, person: Person) -> None:
        if person.client.state is not LINED:
            super().cancel(person)
            return
        self._overhear(person)
        wanted = find_tokens(self.in_line[person]) | {person.shadow.sleeping}
        self.meant |= wanted
        for token in self.strays & wanted:  # that may be what he wanted, if he has not heard of it yet
            self.outcomes[token] = CANCELLED
        self.real_cancels.request(person.client.key)

    def _moves_of_server(self, server: Server, postgres: FakePostgres) -> list[tuple[Callable[[], object], str]]:
        moves = super()._moves_of_server(server, postgres)
        if moves and not postgres.is_dead and (socket_of(server).unsent or postgres.out):
            moves += [(lambda: self.serve(server, postgres), f"{postgres.name} serves")] * 3
        return moves

    def wake(self, postgres: FakePostgres) -> None:
        """It may sleep on two backends, since it has been rescued: what was decided on one is so for all."""
        self.outcomes.setdefault(postgres.sleeping, WOKEN)
        postgres.run()

    def serve(self, server: Server, postgres: FakePostgres) -> None:
        """It reads all there is and answers."""
        transport = socket_of(server)
        if transport.unsent:
            self.take(server, postgres, len(transport.unsent))
        if postgres.out and transport.reads:
            self.deliver(server, postgres, len(postgres.out))

    def _moves(self) -> list[tuple[Callable[[], object], str]]:
        moves = super()._moves()
        luck = self.chance.random()
        if luck < 0.03:
            limits = self.chance.choice(RELOADS)
            moves.append((lambda: self.reload(limits), f"reload {limits}"))
        elif luck < 0.05:
            moves.append((lambda: self.pool.retire_servers(Closing.RECONNECT), "reconnect"))
        elif luck < 0.07 or self.pool.state is PoolState.PAUSED:
            is_paused = self.pool.state is PoolState.PAUSED
            moves.append((self.pool.unpause if is_paused else self.pool.pause, "resume" if is_paused else "pause"))
        return moves

    def reload(self, limits: dict[str, Any]) -> None:
        self.pool.set_limits(replace(self.pool.limits, **limits))

    def _settle_server(self, server: Server, postgres: FakePostgres) -> bool:
        cast(Hit, postgres).flush()  # somebody may have said no Sync
        return super()._settle_server(server, postgres)

    def settle(self) -> None:
        if self.pool.state is PoolState.PAUSED:
            with self.loop.running():
                self.pool.unpause()
        super().settle()


def find_tokens(said: bytes) -> set[str]:
    return {token.decode() for token in _TOKEN.findall(said)}


def line_storm(chance: random.Random, steps: int, people: int = 4, **limits: Any) -> LinedWard:
    """A crowd that asks at once, so many random steps, and the end."""
    wanted = {"pool_size": 2, "query_wait_timeout": None, "query_wait_notify": None, **limits}
    programs = wanted.pop("programs", SHARED)
    ward = LinedWard(chance, **wanted)
    ward.programs = programs
    try:
        ward.begin(people)
        for _ in range(steps):
            ward.step()
        ward.trail.append("the end")
        ward.finish()
    except BaseException as error:
        error.add_note(" | ".join(ward.trail[-80:]))
        raise
    return ward
