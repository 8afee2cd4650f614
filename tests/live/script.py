"""
What the clients of `likeness` say: units at random, out of all that belongs to a session.

Theory. A generator for each kind of thing (settings, roles, transactions, prepared statements, cursors, temporary
objects, advisory locks, channels, COPY), weighed by how often applications do it and how easily it goes wrong, in
simple queries of one or several statements and in batches of the extended protocol. Nothing here can wait for another
client.
"""

import random
from collections.abc import Callable
from struct import pack
from typing import NamedTuple

from tests.live.wire import COPY_DONE, SYNC, bind, copy_data, describe, execute, message, parse, query


class Unit(NamedTuple):
    """Messages that go out together; `readies` ReadyForQuery come back."""

    messages: list[bytes]
    readies: int


VALUES = {
    "work_mem": ("'5MB'", "'9MB'", "64000"),
    "search_path": ("public", "spare, public", "''", "pg_catalog", "'spare'"),
    "DateStyle": ("'ISO, DMY'", "German", "'SQL'"),
    "TimeZone": ("'UTC'", "'Europe/Rome'", "'-3'"),
    "application_name": ("'one'", "'it''s'", "''"),
    "statement_timeout": ("0", "77777", "'60s'"),
    "lock_timeout": ("0", "'3s'"),
    "extra_float_digits": ("0", "3", "9"),
    "bytea_output": ("escape", "hex", "nonsense"),
    "my.custom": ("'a'", "'b c'", "''"),
    "my.other": ("'1'", "'2'"),
    "my.start": ("'x'",),
    "client_encoding": ("UTF8", "LATIN1", "SQL_ASCII", "'nonsense'"),
    "IntervalStyle": ("postgres", "iso_8601"),
    "default_transaction_isolation": ("'serializable'", "'read committed'"),
    "default_transaction_read_only": ("on", "off"),
    "enable_seqscan": ("on", "off"),
    "standard_conforming_strings": ("on", "off"),
}
ROLES = (
    "SET ROLE squire", "SET ROLE herald", "RESET ROLE", "SET ROLE NONE", "SET SESSION AUTHORIZATION squire",
    "RESET SESSION AUTHORIZATION", "SET LOCAL ROLE squire",
)  # fmt: skip
TRANSACTIONS = (
    "BEGIN", "BEGIN", "START TRANSACTION READ ONLY", "BEGIN ISOLATION LEVEL SERIALIZABLE", "COMMIT", "COMMIT",
    "COMMIT", "ROLLBACK", "ROLLBACK", "SAVEPOINT a", "SAVEPOINT b", "ROLLBACK TO a", "ROLLBACK TO SAVEPOINT b",
    "RELEASE a", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "ABORT", "END",
)  # fmt: skip
CURSORS = (
    "DECLARE c1 CURSOR WITH HOLD FOR SELECT generate_series(1, 9)", "FETCH 2 FROM c1", "FETCH 1 FROM c2",
    "DECLARE c2 CURSOR FOR SELECT generate_series(1, 9)", "CLOSE c1", "CLOSE c2", "CLOSE ALL", "MOVE 1 IN c1",
)  # fmt: skip
TEMPORARY = (
    "CREATE TEMP TABLE t1(a int)", "CREATE TEMP TABLE t2(a int) ON COMMIT DROP", "INSERT INTO t1 VALUES (1), (2)",
    "SELECT count(*) FROM t1", "SELECT count(*) FROM t2", "DROP TABLE t1", "DROP TABLE IF EXISTS t1, t2, t3",
    "CREATE TEMP VIEW tv AS SELECT 1 x", "DROP VIEW IF EXISTS tv", "SELECT 3 AS x INTO TEMP t3",
    "CREATE TEMP SEQUENCE ts", "DROP SEQUENCE IF EXISTS ts",
)  # fmt: skip
LOCKS = (
    "SELECT pg_try_advisory_lock(1)", "SELECT pg_try_advisory_lock(2, 3)", "SELECT pg_advisory_unlock(1)",
    "SELECT pg_advisory_unlock(2, 3)", "SELECT pg_advisory_unlock_all()", "SELECT pg_try_advisory_xact_lock(4)",
    "SELECT pg_try_advisory_lock_shared(5)", "SELECT pg_advisory_unlock_shared(5)",
)  # fmt: skip
CHANNELS = (
    "LISTEN ch1", "LISTEN ch2", "UNLISTEN ch1", "UNLISTEN *", "NOTIFY ch1", "NOTIFY ch1, 'hi'", "NOTIFY ch2, 'x'",
    "SELECT pg_notify('ch1', 'by function')", 'LISTEN "Ch 3"', "NOTIFY \"Ch 3\", 'three'",
)  # fmt: skip
RESETS = ("DISCARD ALL", "DISCARD PLANS", "DISCARD SEQUENCES", "DISCARD TEMP", "RESET ALL", "RESET ALL")
WORK = (
    "INSERT INTO ground VALUES (1)", "INSERT INTO ground VALUES (2)",
    "DELETE FROM ground WHERE ctid IN (SELECT ctid FROM ground WHERE a = 1 FOR UPDATE SKIP LOCKED)",
    "SELECT count(*) FROM ground", "TABLE ground", "DO $$ begin perform set_config('my.custom', 'done', false); end $$",
    "DO $$ begin perform set_config('lock_timeout', '4s', false); end $$", "SELECT 1/0", "SELECT 'a\\'b'",
    "no such statement", "", "SELECT 'z'", "COPY (SELECT set_config('work_mem', '8MB', false)) TO STDOUT",
    "SELECT set_config(n, v, false) FROM (VALUES ('work_mem', '7MB'), ('my.custom', 'several')) AS z(n, v)",
    "DECLARE c4 CURSOR FOR SELECT set_config('my.other', 'fetched', false)", "FETCH c4", "DO $$ begin end $$",
)  # fmt: skip
SCHEMA = ("ALTER TABLE ground ADD COLUMN IF NOT EXISTS b int", "ALTER TABLE ground DROP COLUMN IF EXISTS b")
PREPARABLE = (
    "SELECT 1 AS one", "SELECT $1 AS t", "SELECT current_setting('work_mem') w", "TABLE ground",
    "INSERT INTO ground VALUES (7) RETURNING a", "SET work_mem = '6MB'",
)  # fmt: skip
PARSED = (
    "SELECT 1 AS one", "SELECT $1::text AS t", "SELECT current_setting('work_mem') w", "SELECT 1/0", "SHOW search_path",
    "SELECT $1::int + 1 AS n", "TABLE ground", "SELECT current_user, session_user",
    "SELECT set_config($1, '5MB', false)", "SET my.custom = 'parsed'", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT a",
    "RESET ALL", "DEALLOCATE ALL", "DEALLOCATE p1", "DISCARD ALL", "EXECUTE p4", "SELECT pg_try_advisory_lock(9)",
    "SELECT pg_advisory_unlock(9)", "DECLARE c3 CURSOR WITH HOLD FOR SELECT generate_series(1, 3)", "CLOSE c3",
    "SELECT generate_series(1, 5)", "INSERT INTO ground VALUES (8) RETURNING a",
)  # fmt: skip
NAMES = ("p1", "p2", "p3")  # of Parse: PostgreSQL has crashed on an EXECUTE of what only a Parse can prepare
SQL_NAMES = ("p4", "p5", "p6")
MAX_MESSAGES = 9

Rng = random.Random


def _set(rng: Rng) -> str:
    name = rng.choice(tuple(VALUES))
    value = rng.choice(VALUES[name])
    quoted = value if value.startswith("'") else f"'{value}'"
    forms = (
        f"SET {name} = {value}", f"SET {name} TO {value}", f"SET SESSION {name} = {value}",
        f"SET LOCAL {name} = {value}", f"RESET {name}", f"SET {name} TO DEFAULT",
        f"SELECT set_config('{name}', {quoted}, false)", f"SELECT set_config('{name}', {quoted}, true)",
    )  # fmt: skip
    return rng.choice(forms)


def _prepare(rng: Rng) -> str:
    name, text = rng.choice(SQL_NAMES), rng.choice(PREPARABLE)
    types = "(text)" if "$1" in text else ""
    forms = (
        f"PREPARE {name}{types} AS {text}", f"PREPARE {name}{types} AS {text}", f"EXECUTE {name}",
        f"EXECUTE {name}('v')", f"EXECUTE {name}", f"EXPLAIN (COSTS OFF) EXECUTE {name}", f"DEALLOCATE {name}",
        "DEALLOCATE ALL",
    )  # fmt: skip
    return rng.choice(forms)


def _one_of(texts: tuple[str, ...]) -> Callable[[Rng], str]:
    return lambda rng: rng.choice(texts)


WRITERS = {
    _set: 8, _one_of(ROLES): 2, _one_of(TRANSACTIONS): 9, _one_of(CURSORS): 3, _one_of(TEMPORARY): 2,
    _one_of(LOCKS): 3, _one_of(CHANNELS): 3, _one_of(RESETS): 1, _one_of(WORK): 4, _prepare: 5,
}  # fmt: skip


def _write(rng: Rng) -> str:
    writer = rng.choices(tuple(WRITERS), tuple(WRITERS.values()))[0]
    return writer(rng)


def _write_message(rng: Rng, before: list[bytes]) -> bytes:
    """One of the extended protocol, behind others of its unit; a name it speaks of may well not be there.

    But not a portal of an earlier unit: PostgreSQL 18.6 has crashed on one, where the transaction had failed.
    """
    name, portal = rng.choice(_find_names(before)), rng.choice(("", "", "", "q"))
    is_bound = any(each.startswith(b"B") and each[5:].startswith(portal.encode() + b"\0") for each in before)
    values = rng.choice(((), (), ("5",), ("work_mem",)))
    makers = (
        (4, lambda: parse(rng.choice(PARSED), rng.choice((name, "")))),
        (6, lambda: bind(*values, portal=portal, statement=name)),
        (2 * is_bound, lambda: describe("P", portal)),
        (1, lambda: describe("S", name)),
        (6 * is_bound, lambda: execute(portal, rng.choice((0, 0, 0, 2)))),
        (1, lambda: message("C", rng.choice((f"S{name}", f"P{portal}")).encode() + b"\0")),
        (1, lambda: message("H")),
    )
    weights, makers_only = zip(*makers, strict=True)
    return rng.choices(makers_only, weights)[0]()


def _find_names(messages: list[bytes]) -> tuple[str, ...]:
    """The unnamed statement is spoken of only behind its Parse: a simple query ends it, and here it may live on."""
    return (*NAMES, "", "") if any(each.startswith(b"P") and each[5:6] == b"\0" for each in messages) else NAMES


def _write_whole(rng: Rng) -> list[bytes]:
    """What drivers send: something that mostly works."""
    text, name = rng.choice(PARSED), rng.choice((*NAMES[:2], "", ""))
    values = ("work_mem" if "set_config" in text else "5",) if "$1" in text else ()
    head = [message("C", f"S{name}\0".encode())] if name else []
    return [*head, parse(text, name), *([describe("S", name)] * rng.randint(0, 1)),
            bind(*values, statement=name), *([describe()] * rng.randint(0, 1)), execute()]  # fmt: skip


def _write_batch(rng: Rng) -> Unit:
    messages: list[bytes] = []
    for _ in range(rng.randint(1, 3)):
        part = _write_whole(rng) if rng.random() < 0.5 else []
        for _ in range(0 if part else rng.randint(1, MAX_MESSAGES)):
            part.append(_write_message(rng, part))
        messages += [*part, SYNC] if rng.random() < 0.4 else part
    messages.append(SYNC)
    return Unit(messages, messages.count(SYNC))


def _write_copy(rng: Rng) -> Unit:
    """If it cannot begin, what comes behind its text is overlooked."""
    rows = [copy_data(b"%d\n" % rng.randint(3, 5)) for _ in range(rng.randint(0, 3))]
    end = rng.choice((COPY_DONE, COPY_DONE, message("f", b"changed my mind\0")))
    coming = [query("COPY ground(a) FROM STDIN"), *rows, end]
    going = [query("COPY (SELECT a FROM ground ORDER BY a) TO STDOUT")]
    return Unit(rng.choice((coming, coming, going)), 1)


SET_CONFIG = 2078  # its number, the same in every version


def _write_call(rng: Rng) -> Unit:
    """The protocol's function call."""
    arguments = [rng.choice((b"work_mem", b"my.custom")), rng.choice((b"5MB", b"9MB")), b"f"]
    said = b"".join(pack("!I", len(each)) + each for each in arguments)
    return Unit([message("F", pack("!IHH", SET_CONFIG, 0, len(arguments)) + said + pack("!H", 0))], 1)


def write_unit(rng: Rng, *, kept: int, servers: int, is_plain: bool) -> Unit:
    """`kept` of the servers are kept: if all are it is time that one is not, if none is a table may be changed.

    Who is not `is_plain` came with values of its own. What brings them back comes behind a RESET, so what goes out
    together with that has the server's own.
    """
    while True:
        unit = _write_unit(rng, kept, servers)
        if is_plain or not _is_reset_with_more(unit):
            return unit


def _is_reset_with_more(unit: Unit) -> bool:
    is_more = len(unit.messages) > 1 or is_about(unit, b";")
    return is_more and is_about(unit, b"reset", b"discard", b"to default")


def _write_unit(rng: Rng, kept: int, servers: int) -> Unit:
    if not kept and rng.random() < 0.05:
        return Unit([query(rng.choice(SCHEMA))], 1)
    if kept >= servers and rng.random() < 0.3:
        return Unit([query(rng.choice(("ROLLBACK", "COMMIT", "DISCARD ALL")))], 1)
    form = rng.random()
    if form < 0.02:
        return _write_call(rng)
    if form < 0.05:
        return _write_copy(rng)
    if form < 0.6:
        return Unit([query(_write(rng))], 1)
    if form < 0.7:
        return Unit([query("; ".join(_write(rng) for _ in range(rng.randint(2, 4))))], 1)
    if form < 0.75:
        texts = [_write(rng) for _ in range(rng.randint(2, 3))]
        return Unit([query(text) for text in texts], len(texts))
    return _write_batch(rng)


def is_about(unit: Unit, *words: bytes) -> bool:
    """Does one of them, in lower case, occur in it?"""
    said = b" ".join(unit.messages).lower()
    return any(word in said for word in words)


def describe_unit(unit: Unit) -> str:
    return " ".join(f"{chr(each[0])}:{each[5:-1].decode(errors='replace')!r}" for each in unit.messages)
