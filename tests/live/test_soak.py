"""
Everything at once, for as long as you like: PGSHUTTLE_SOAK_SECONDS=600 pytest tests/live/test_soak.py

Forty clients of two drivers on four servers do at random what applications do: prepare, set, listen, lock, make
temporary tables, change a table that others read, fail, cancel, vanish. Each knows a token that nobody else knows, and
whatever it asks has its token in the answer. At the end nothing may be left: no pin, no server in use, no memory.
"""

import asyncio
import contextlib
import os
import random
import time
from collections import Counter

import asyncpg
import psycopg
import pytest

from tests.live.stand import Stand, wait_until

pytestmark = [pytest.mark.live, pytest.mark.slow]

SECONDS = float(os.environ.get("PGSHUTTLE_SOAK_SECONDS", "12"))
CLIENTS = 40
MEGABYTE = 1 << 20


class Foreign(AssertionError):
    """Somebody has seen what is not his."""


def check(seen, expected):
    if seen != expected:
        raise Foreign(f"saw {seen!r}, and not {expected!r}")


class Talk:
    """One application: a driver behind four verbs, and a token."""

    discards: tuple[str, ...] = ()  # for those that do not go on using statements they have prepared before

    def __init__(self, stand, number, done):
        self.stand = stand
        self.number = number
        self.done = done
        self.rng = random.Random(number)
        self.token = f"token-{number}-{self.rng.random()}"
        self.tenant = ""
        self.heard = []

    async def run(self, end):
        while time.monotonic() < end:
            await self.open()
            self.tenant = ""
            try:
                for _ in range(self.rng.randint(5, 60)):
                    act = self.rng.choice(ACTS)
                    await asyncio.wait_for(act(self), 60)
                    self.done[act.__name__] += 1
                    check(await self.value("select coalesce(current_setting('soak.tenant', true), '')"), self.tenant)
                    if time.monotonic() > end:
                        break
                for payload in self.heard:
                    check(payload, self.token)
            finally:
                await self.close(abruptly=self.rng.random() < 0.2)


class Asyncpg(Talk):
    async def open(self):
        options = self.stand.options()
        self.connection = await asyncpg.connect(
            host=options["host"],
            port=options["port"],
            user="app",
            password=options.get("password"),
            database="postgres",
            statement_cache_size=self.rng.choice([0, 100]),
        )

    async def close(self, *, abruptly):
        self.connection.terminate() if abruptly else await self.connection.close()

    async def run_text(self, text):
        await self.connection.execute(text)

    async def value(self, text, *values):
        numbered = text.replace("%s", "$1")
        return await self.connection.fetchval(numbered, *values)

    def block(self):
        return self.connection.transaction()

    async def listen(self, channel):
        await self.connection.add_listener(channel, lambda *said: self.heard.append(said[3]))

    async def sleep_and_cancel(self):
        with pytest.raises((asyncio.TimeoutError, asyncpg.QueryCanceledError)):
            await self.connection.execute("select pg_sleep(30)", timeout=0.05)


class Psycopg(Talk):
    async def open(self):
        threshold = self.rng.choice([None, 0, 2])
        self.discards = ("discard all",) if threshold is None else ()
        self.connection = await psycopg.AsyncConnection.connect(
            **self.stand.options(), autocommit=True, prepare_threshold=threshold
        )

    async def close(self, *, abruptly):
        if abruptly:
            os.close(os.dup(self.connection.fileno()))  # (its own is closed by finish)
            self.connection.pgconn.finish()
        else:
            await self.connection.close()

    async def run_text(self, text):
        await self.connection.execute(text)

    async def value(self, text, *values):
        cursor = await self.connection.execute(text, values or None)
        row = await cursor.fetchone()
        return row[0]

    def block(self):
        return self.connection.transaction()

    async def listen(self, channel):
        self.connection.add_notify_handler(lambda said: self.heard.append(said.payload))
        await self.run_text(f"listen {channel}")

    async def sleep_and_cancel(self):
        sleeping = asyncio.ensure_future(self.connection.execute("select pg_sleep(30)"))
        for _ in range(20):  # one that comes between the statement's Parse and its Bind finds nothing to cancel
            await asyncio.sleep(0.05)
            if sleeping.done():
                break
            await self.connection.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            await sleeping


# What applications do.


async def ask(talk):
    check(await talk.value("select %s::text", talk.token), talk.token)


async def ask_in_a_transaction(talk):
    async with talk.block():
        for _ in range(3):
            check(await talk.value("select %s::text || '!'", talk.token), talk.token + "!")


async def set_something(talk):
    talk.tenant = f"{talk.token} {talk.rng.random()}"
    await talk.run_text(f"set soak.tenant = '{talk.tenant}'")


async def set_and_regret(talk):
    try:
        async with talk.block():
            await talk.run_text("set soak.tenant = 'never'")
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass


async def reset(talk):
    talk.tenant = ""
    await talk.run_text(talk.rng.choice(["reset soak.tenant", "reset all", *talk.discards]))


async def listen_and_hear(talk):
    await talk.listen(f"soak_{talk.number}")
    await talk.value("select pg_notify(%s, '" + talk.token + "')", f"soak_{talk.number}")
    await talk.run_text("unlisten *")


async def lock(talk):
    await talk.run_text(f"select pg_advisory_lock({talk.number})")
    await ask(talk)
    check(await talk.value(f"select pg_advisory_unlock({talk.number})"), True)


async def temporary(talk):
    await talk.run_text("create temp table mine (token text)")
    await talk.run_text(f"insert into mine values ('{talk.token}')")
    check(await talk.value("select min(token) || count(*) from mine"), talk.token + "1")
    await talk.run_text("drop table mine")


async def prepare_in_sql(talk):
    await talk.run_text(f"prepare one as select '{talk.token}'")
    check(await talk.value("execute one"), talk.token)
    await talk.run_text("deallocate one")


async def change_the_schema(talk):
    """Others read it. Not asked before it is changed: an old statement may fail, but never with other columns."""
    if talk.number % 8:
        return
    await talk.run_text("alter table soaked alter column a type bigint")
    await talk.run_text("alter table soaked alter column a type int")


async def read_what_changes(talk):
    with contextlib.suppress(asyncpg.FeatureNotSupportedError, psycopg.errors.FeatureNotSupported):
        check(await talk.value("select * from soaked limit 1"), 1)


async def fail(talk):
    with pytest.raises((asyncpg.DivisionByZeroError, psycopg.errors.DivisionByZero)):
        await talk.value("select 1 / %s::int", 0)


async def cancel(talk):
    await talk.sleep_and_cancel()


async def be_big(talk):
    check(await talk.value("select length(repeat('x', 200000) || %s)", talk.token), 200_000 + len(talk.token))


ACTS = [
    *(ask, ask, ask, ask_in_a_transaction, set_something, set_and_regret, reset, listen_and_hear, lock, temporary),
    *(prepare_in_sql, change_the_schema, read_what_changes, fail, cancel, be_big),
]


def test_nobody_sees_what_is_not_his_and_nothing_is_left(upstream, admin):
    admin.execute("drop table if exists soaked")
    admin.execute("create table soaked as select 1 as a")
    admin.execute("alter table soaked owner to app")
    done = Counter()
    with Stand(upstream, {"default_pool_size": 4, "log_connections": 0, "log_disconnections": 0}) as stand:

        async def soak(seconds):
            end = time.monotonic() + seconds
            talks = [(Asyncpg, Psycopg)[number % 2](stand, number, done) for number in range(CLIENTS)]
            await asyncio.gather(*(talk.run(end) for talk in talks))

        asyncio.run(soak(SECONDS / 3))
        warm = stand.rss
        asyncio.run(soak(SECONDS * 2 / 3))
        with stand.connect("postgres", "pgbouncer") as console:
            wait_until(lambda: _count(console, "show clients", "database", "postgres") == 0, "all clients are gone")
            wait_until(lambda: _count(console, "show servers", "state", "active") == 0, "all servers are at rest")
        assert stand.rss - warm < 20 * MEGABYTE
        assert all(done[act.__name__] for act in ACTS), done
        assert "Traceback" not in stand.log


def _count(console, command, column, word):
    cursor = console.execute(command)
    place = [each.name for each in cursor.description].index(column)
    return sum(row[place] == word for row in cursor.fetchall())
