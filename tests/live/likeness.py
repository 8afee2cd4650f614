"""
Two worlds, one script: six clients of PostgreSQL itself and six of the proxy say the same, and must hear the same.

Theory. A script is made from a seed: units of one or more messages, mostly about what belongs to a session. It is run
in both worlds at once, unit by unit, and whatever the two say is compared: every message, the parameters reported, the
transaction status, from time to time all settings and what was notified. The worlds are two databases of one cluster,
so they share neither tables nor locks.

The proxy has fewer servers than there are clients, and the script is one thread. So those who must keep a server, by
PostgreSQL's own word, are counted, and when all servers are kept the others are silent.

Left out of the comparison is what cannot be the same: numbers of processes and tables, where in a text an error is,
whether a role is a superuser, which its first server tells and not the welcome, and a custom parameter that nobody has
set, which is empty on a server where somebody has.
"""

import random
import re
import select
import time
from collections import Counter
from collections.abc import Callable
from struct import unpack_from

from tests.live.script import Unit, describe_unit, is_about, write_unit
from tests.live.wire import Gone, Message, Raw, fields, parameters, rows

SERVERS = 2
HELD_ALWAYS = "TE"  # transaction statuses
STARTUPS: tuple[dict[str, str], ...] = (
    {},
    {},
    {"options": "-c work_mem=7MB -c search_path=spare"},
    {"options": "-c DateStyle=German -c my.start=hello"},
    {"client_encoding": "LATIN1"},
    {"options": "-c statement_timeout=54321 -c TimeZone=Asia/Tokyo -c role=squire", "application_name": "app one"},
)
ASKED = (
    "work_mem", "search_path", "DateStyle", "TimeZone", "application_name", "statement_timeout", "lock_timeout",
    "extra_float_digits", "bytea_output", "client_encoding", "IntervalStyle", "default_transaction_isolation",
    "default_transaction_read_only", "enable_seqscan", "standard_conforming_strings", "role", "my.custom", "my.other",
    "my.start",
)  # fmt: skip
SHOW = "select " + ",".join(f"coalesce(pg_catalog.current_setting('{name}', true), '')" for name in ASKED)
KEEPS = (
    "select exists(select from pg_catalog.pg_locks where pid = pg_catalog.pg_backend_pid() and locktype = 'advisory')"
    " or exists(select from pg_catalog.pg_cursors where is_holdable)"
    " or exists(select from pg_catalog.pg_depend where refclassid = 2615 and refobjid ="
    " pg_catalog.pg_my_temp_schema()) or exists(select from pg_catalog.pg_prepared_statements where not from_sql)"
)


FORGIVEN = (
    "unnamed prepared statement does not exist",  # ended by a simple query; here it may live on
    "cached plan must not change result type",  # here it may have been made anew, on another server
)
TELLING = (b"advisory", b"hold", b"temp", b"e\0\0\0")  # of a text, or an Execute of what was said before


_NAMED = re.compile(r'(prepared statement) "p\d"')


class Unlike(AssertionError):
    """The two worlds have said different things."""


class Undecided(Exception):
    """From here on the two may differ: PostgreSQL has refused what the proxy can still do."""


class Speaker:
    """One client in one world, and what it has been told aside."""

    def __init__(self, port: int, database: str, password: str, startup: dict[str, str]) -> None:
        self.line = Raw(port, 20.0)
        welcome = self.line.login("postgres", database, password, **startup)
        assert welcome[-1].kind == "Z", welcome
        self.reported = _find_reported(welcome)
        self.notices: list[str] = []
        self.heard: Counter[tuple[bytes, bytes]] = Counter()
        self.status = "I"

    def listen(self, readies: int) -> list[tuple[object, ...]]:
        """The answers, in a form that can be compared."""
        answers: list[tuple[object, ...]] = []
        while readies:
            each = self.line.read()
            if self.take_aside(each):
                continue
            answers.append(_comparable(each))
            if each.kind == "Z":
                readies -= 1
                self.status = each.body.decode()
        return answers

    def take_aside(self, each: Message) -> bool:
        if each.kind == "S":
            self.reported |= _find_reported([each])
        elif each.kind == "N":
            self.notices.append(fields(each.body)["M"])
        elif each.kind == "A":
            channel, payload, _ = each.body[4:].split(b"\0")
            self.heard[channel, payload] += 1
        return each.kind in "SNA"

    def hear(self, seconds: float) -> None:
        """What comes by itself."""
        end = time.monotonic() + seconds
        while self.line._unread or select.select([self.line.socket], [], [], max(end - time.monotonic(), 0))[0]:
            each = self.line.read()
            assert self.take_aside(each), each

    def ask(self, text: str) -> list[tuple[str | None, ...]]:
        """Rows only; in a failed transaction none."""
        answer = self.line.ask(text)
        for each in answer:
            self.take_aside(each)
        return rows(answer)


def _find_reported(messages: list[Message]) -> dict[str, str]:
    return {name: value for name, value in parameters(messages).items() if name != "is_superuser"}


def _comparable(each: Message) -> tuple[object, ...]:
    if each.kind == "E":
        said = fields(each.body)
        said["M"] = _NAMED.sub(r'\1 ""', said["M"])  # whose statement has several names may hear of another
        return ("E", *(said.get(key) for key in "SCMDH"))
    if each.kind == "T":
        return ("T", *_columns(each.body))
    return (each.kind, each.body)


def _columns(body: bytes) -> list[tuple[bytes, int]]:
    """Names and types."""
    (count,) = unpack_from("!H", body)
    pos, found = 2, []
    for _ in range(count):
        end = body.index(0, pos)
        found.append((body[pos:end], unpack_from("!I", body, end + 7)[0]))
        pos = end + 19
    return found


class Pair:
    """The same client in both worlds."""

    def __init__(self, direct: Speaker, proxied: Speaker) -> None:
        self.direct = direct
        self.proxied = proxied
        self.is_keeping = False

    @property
    def both(self) -> tuple[Speaker, Speaker]:
        return self.direct, self.proxied

    def say(self, unit: Unit) -> None:
        for speaker in self.both:  # so that a server has the one before's notifications out of the way
            speaker.line.send(*unit.messages)
        has_failed = self.direct.status == "E"
        one, other = (speaker.listen(unit.readies) for speaker in self.both)
        if one != other and any(reason in str(one) for reason in FORGIVEN):
            raise Undecided
        if has_failed:  # what a server lacks cannot be parsed there now, and fails for that reason
            one, other = ([each for each in answers if each[0] == "Z"] for answers in (one, other))
        _compare("answers", one, other)
        # What a RESET has brought back is told behind the ReadyForQuery.
        self._listen_until(lambda: self.direct.reported == self.proxied.reported)
        for what in ("status", "reported", "notices"):
            _compare(what, *(getattr(speaker, what) for speaker in self.both))
        for speaker in self.both:
            speaker.notices.clear()
        self.is_keeping = self._must_keep(unit)

    def _listen_until(self, condition: Callable[[], bool]) -> None:
        """To the proxy, for a second at most."""
        end = time.monotonic() + 1.0
        while not condition() and time.monotonic() < end:
            self.proxied.hear(0.01)

    def _must_keep(self, unit: Unit) -> bool:
        if self.direct.status in HELD_ALWAYS:
            return True
        if not self.is_keeping and not is_about(unit, *TELLING):
            return False
        self.proxied.ask(KEEPS)  # only so that both have said the same
        return self.direct.ask(KEEPS) == [("t",)]

    def check_settings(self) -> None:
        one, other = (speaker.ask(SHOW) for speaker in self.both)
        if one != other:
            pairs = zip(ASKED, one[0], other[0], strict=True) if one and other else [("all", one, other)]
            raise Unlike("settings: " + ", ".join(f"{name} {a!r} and {b!r}" for name, a, b in pairs if a != b))

    def check_heard(self) -> None:
        """One too many there may be, where a LISTEN has failed; and the proxy's come a moment later."""
        if self.direct.status != "I":
            return
        for speaker in self.both:
            speaker.hear(0.001)
        self._listen_until(lambda: not self.direct.heard - self.proxied.heard)
        _compare("notifications", self.direct.heard - self.proxied.heard, Counter())

    def close(self) -> None:
        for speaker in self.both:
            speaker.line.leave()


def _compare(what: str, direct: object, proxied: object) -> None:
    if direct != proxied:
        raise Unlike(f"{what}:\n  PostgreSQL {direct}\n  the proxy  {proxied}")


class Worlds:
    """Both, for one script."""

    def __init__(self, seed: int, direct: tuple[int, str], proxied: tuple[int, str], password: str) -> None:
        self.rng = random.Random(seed)
        self.said: list[tuple[int, Unit]] = []
        self.checked = 0  # the client that was looked at last
        self.pairs = [
            Pair(*(Speaker(port, database, password, startup) for port, database in (direct, proxied)))
            for startup in STARTUPS
        ]

    def run(self, steps: int) -> None:
        try:
            for step in range(steps):
                self._step(step)
        except Undecided:
            return
        except (Unlike, TimeoutError, AssertionError, Gone) as error:
            last = "\n".join(f"  {number}: {describe_unit(unit)}" for number, unit in self.said[-25:])
            raise Unlike(f"client {self.checked}: {type(error).__name__} {error}\nafter\n{last}") from error

    def _step(self, step: int) -> None:
        rng = self.rng
        keepers = [pair for pair in self.pairs if pair.is_keeping]
        free = keepers if len(keepers) >= SERVERS else self.pairs
        pair = rng.choice(free)
        number = self.pairs.index(pair)
        unit = write_unit(rng, kept=len(keepers), servers=SERVERS, is_plain=not STARTUPS[number])
        self.said.append((number, unit))
        self.checked = number
        pair.say(unit)
        keepers = [each for each in self.pairs if each.is_keeping]
        free = keepers if len(keepers) >= SERVERS else self.pairs
        if step % 3 == 0:
            looked = rng.choice(free)
            self.checked = self.pairs.index(looked)
            looked.check_settings()
        if is_about(unit, b"notify", b"commit", b"end"):
            for each in self.pairs:
                each.check_heard()

    def close(self) -> None:
        for pair in self.pairs:
            pair.close()
