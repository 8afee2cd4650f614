"""
People who name statements: what they say in a ward, and what must be true of their servers afterwards.

Theory. Few names, few texts and many people: so names are given twice, closed, given again, statements are shared,
pushed out and brought back, and errors of all kinds void what was asked in one breath with them. What is bound is a
token of that person, and every row that comes back carries it. The names include such as could be taken for ours.

Two things are left out. We are kinder than PostgreSQL where an unnamed statement outlives a simple Query that was in
another transaction; so whoever binds it here parses it just before. And a text that deallocates a name and then
executes what another name for the same stands for is told that it is gone.
"""

import random

from protocol.frontend import (
    FLUSH_MESSAGE,
    PORTAL,
    STATEMENT,
    SYNC_MESSAGE,
    Bind,
    build_bind,
    build_close,
    build_describe,
    build_execute,
    build_parse,
    build_query,
)
from protocol.prepared import is_ours
from proxy.server import Server
from proxy.states import IDLE, USED
from tests.fake_postgres import FakePostgres
from tests.ward import PROGRAMS, Person, Program, Ward, batch, simple, together

NAMES = [b"a", b"b", b"c", b'd"d', b"PGSHUTTLE_1", b"PGSHUTTLE_0"]
TEXTS = [*(f"select echo t{number}" for number in range(6)), "select wrong w", "select late l", "select fail f"]


class _Speech:
    """One breath of somebody."""

    def __init__(self, person: Person, chance: random.Random) -> None:
        self.person = person
        self.chance = chance

    def say(self) -> bytes:
        kinds = (self.parse, self.parse, self.run, self.run, self.run, self.describe, self.close, self.unnamed)
        said = b"".join(self.chance.choice(kinds)() for _ in range(self.chance.randint(1, 5)))
        return said + self.chance.choice([SYNC_MESSAGE] * 8 + [SYNC_MESSAGE * 2, FLUSH_MESSAGE, b""])

    def name(self) -> bytes:
        return self.chance.choice(NAMES[:3] if self.chance.random() < 0.8 else NAMES)

    def parse(self) -> bytes:
        name = self.name()
        again = build_close(STATEMENT, name) if self.chance.random() < 0.4 else b""
        return again + build_parse(name, self.chance.choice(TEXTS).encode())

    def bound(self, name: bytes) -> bytes:
        portal = self.chance.choice([b"", b"", b"", b"p"])
        said = build_bind(Bind(portal, name, (), (self.person.token().encode(),)))
        if self.chance.random() < 0.4:
            said += build_describe(PORTAL, portal)
        said += FLUSH_MESSAGE if self.chance.random() < 0.1 else b""
        return said + build_execute(portal)

    def run(self) -> bytes:
        return self.bound(self.name())

    def unnamed(self) -> bytes:
        return build_parse(b"", self.chance.choice(TEXTS).encode()) + self.bound(b"")

    def describe(self) -> bytes:
        return build_describe(STATEMENT, self.name())

    def close(self) -> bytes:
        return self.chance.choice([build_close(STATEMENT, self.name()), build_close(PORTAL, b"p")])


def babble(person: Person, chance: random.Random) -> bytes:
    return _Speech(person, chance).say()


def units(person: Person, chance: random.Random) -> bytes:
    """Several in one go."""
    return b"".join(_Speech(person, chance).say() + SYNC_MESSAGE for _ in range(3))


def round_of_a_driver(person: Person, chance: random.Random) -> bytes:
    """The whole of what most of them ever say."""
    token = person.token().encode()
    ask = build_describe(PORTAL, b"") if chance.random() < 0.5 else b""
    return build_bind(Bind(b"", chance.choice(NAMES[:3]), (), (token,))) + ask + build_execute(b"") + SYNC_MESSAGE


def in_sql(person: Person, chance: random.Random) -> bytes:
    name, other = chance.choice("abc"), chance.choice("abc")
    text = chance.choice(TEXTS)
    return build_query(
        chance.choice([
            f"prepare {name} as {text}",
            f"execute {name}",
            f"execute {name}; execute {other}",
            f"deallocate {name}",
            f"prepare {name} as {text}; execute {name}",
            f"deallocate {name}; prepare {name} as {text}; execute {name}",
            "deallocate all",
            f"deallocate all; prepare {name} as {text}",
            f"select echo t1; execute {name}",
        ])
    )  # fmt: skip


def all_at_once(person: Person, chance: random.Random) -> bytes:
    """DEALLOCATE ALL by the extended protocol, and something behind it in the same breath."""
    drop = build_parse(b"", b"deallocate all") + build_bind(Bind(b"", b"", (), (b"x",)))
    return drop + build_execute(b"") + chance.choice([SYNC_MESSAGE, b""]) + babble(person, chance)


SPEECHES: list[Program] = [
    *[babble] * 8,
    *[units] * 3,
    *[round_of_a_driver] * 6,
    *[in_sql] * 4,
    all_at_once,
    simple("select echo t9"),
    simple("begin"),
    simple("commit"),
    simple("rollback"),
    together(simple("begin"), babble, simple("rollback")),
    together(simple("begin"), babble, babble, simple("commit")),
    together(babble, simple("error TOKEN"), babble),
    simple("sleep TOKEN"),
    batch("rows 5 TOKEN"),
]
EVERYTHING: list[Program] = SPEECHES + PROGRAMS


def check_names(ward: Ward) -> None:
    """Of a server at rest it is known what it has."""
    for server, postgres in ward.postgres.items():
        if server.state in (IDLE, USED):
            _check_server(server, postgres)


def _check_server(server: Server, postgres: FakePostgres) -> None:
    known = {statement.name: statement for statement in server.statements}
    there = {name for name in postgres.names if is_ours(name)}
    assert {name for name in postgres.names if name} == there, f"{server!r} has names of clients: {postgres.names}"
    assert there <= known.keys(), f"{server!r} has {there - known.keys()}, and nobody knows"
    for statement, generation in server.statements.items():
        if generation:
            assert postgres.names.get(statement.name) == _text(statement), f"{server!r}: {statement!r}"
    assert not server.arriving
    assert not server.leaving
    limit = max(server.pool.limits.max_prepared_statements, 1)
    trusted = sum(map(bool, server.statements.values()))
    assert trusted <= limit + 2, f"{server!r} has {trusted} statements"  # two in one text


def _text(statement: object) -> str:
    text: str = statement.text.decode()  # type: ignore[attr-defined]
    return text.split(" as ", 1)[1] if statement.is_sql else text  # type: ignore[attr-defined]
