"""
The unforgivable bug once more, where it would be easiest to make: strangers' reads behind one another on one server.

Theory. As in test_cross_talk.py: a crowd, each with a token of its own that is in everything it asks, and no answer may
hold another's. But here nearly all is what may stand in a line: texts that have shown that they are fast and small,
with a time zone, a schema or an application name of the client's own, prepared or not. Among them stand those that turn
out to be something else this time: an error, a read of a million rows, an answer of megabytes that nobody reads.
Cancels and clients that vanish meanwhile must hit nobody else, and backends that are terminated only whoever ran there.
"""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from tests.live.stand import Stand
from tests.live.test_cross_talk import MOST_TIMES, PATIENCE, Rider, Vanished, check_clean
from tests.live.upstream import LIMIT, LIMITED
from tests.live.wire import (
    SYNC,
    Message,
    ask,
    bind,
    cancel_request,
    describe,
    error,
    execute,
    kinds,
    parse,
    query,
    startup,
)

pytestmark = pytest.mark.live

CROWD = 200
SECONDS = float(os.environ.get("PGSHUTTLE_TEST_CROSS_TALK_SECONDS", "15")) / 2  # twice
ZONES = {"Asia/Tokyo": "09", "America/Lima": "-05", "Asia/Kolkata": "05:30", "UTC": "00"}
SCHEMAS = [f"line_{number}" for number in range(4)]
HOUR = "select to_char('2020-01-01 00:00+00'::timestamptz, 'TZH:TZM'), '{}'"
SLOW = "select '{}', count(*) from line_numbers a, line_numbers b where a.n < {} and b.n < 1000"
BIG = "select '{}', repeat('x', {})"
LONG = 2_000_000


class LineRider(Rider):
    """One who reads."""

    def __init__(self, number: int, port: int, seed: int) -> None:
        super().__init__(number, port, seed)
        self.seen: Counter[str] = Counter()
        self.zone = self.schema = ""
        self.is_named = False

    async def _visit(self, is_over: Callable[[], bool]) -> None:
        """Who is still talking when his server dies may lose its last words: so he would with PostgreSQL itself."""
        try:
            await super()._visit(is_over)
        except ConnectionError:
            self.seen["terminated"] += 1

    def choose(self) -> Callable[[Any], Awaitable[None]]:
        return self.random.choice(READS)

    async def _log_in(self) -> None:
        self.token = f"token-{self.number}-{self.random.randrange(16**12):012x}"
        self.zone = self.random.choice([*ZONES, "UTC"])
        self.schema = ""
        self.is_named = False
        said = {"application_name": self.token} if self.random.random() < 0.2 else {}
        self.writer.write(startup(LIMITED, "lines", TimeZone=self.zone, **said))
        welcome = await self.read_until()
        assert kinds(welcome) == "RKZ", welcome
        self.key = next(each.body for each in welcome if each.kind == "K")

    async def read(self) -> Message:
        message = await super().read()
        if message.kind == "E" and error([message])["S"] == "FATAL":
            # (What a backend says last is lost where something is sent to it once it has hung up.)
            assert error([message])["C"] in ("57P01", "08006"), error([message])
            self.seen["terminated"] += 1
            raise Vanished
        return message

    async def number_read(self) -> None:
        n = self.random.randrange(1000)
        await self.say(query(f"select n, '{self.token}' from line_numbers where n = {n}"))
        self.check(await self.read_until(), [(str(n), self.token)], "TDCZ")

    async def own_hour(self) -> None:
        await self.say(query(HOUR.format(self.token)))
        hour = ZONES[self.zone]
        hour = hour if hour[0] == "-" else f"+{hour}"
        self.check(await self.read_until(), [(hour if ":" in hour else hour + ":00", self.token)], "TDCZ")

    async def own_schema(self) -> None:
        """Some of us have one: enough to be in the way of the others."""
        if not self.schema and self.number % 7:
            await self.number_read()
            return
        if not self.schema:
            self.schema = self.random.choice(SCHEMAS)
            await self.say(query(f"set search_path to {self.schema}, public"))
            await self.read_until()
        await self.say(query(f"select word, '{self.token}' from mine"))
        self.check(await self.read_until(), [(self.schema, self.token)], "TDCZ")

    async def named(self) -> None:
        if not self.is_named:
            self.is_named = True
            await self.say(parse(f"select '{self.token}', n from line_numbers where n = 7", "mine"), SYNC)
            self.check(await self.read_until(), [], "1Z")
        await self.say(bind(statement="mine") + describe() + execute() + SYNC)
        self.check(await self.read_until(), [(self.token, "7")], "2TDCZ")

    async def unnamed(self) -> None:
        await self.say(ask(f"select '{self.token}', 5") + SYNC)
        self.check(await self.read_until(), [(self.token, "5")], "12TDCZ")

    async def mishap(self) -> None:
        """As good as always, but for one number."""
        by = self.random.choice([0, 1, 1, 1])
        await self.say(query(f"select '{self.token}', 1/{by}"))
        answer = await self.read_until()
        if by:
            self.check(answer, [(self.token, "1")], "TDCZ")
        else:
            assert error(answer)["C"] == "22012", (kinds(answer), error(answer))

    async def sluggish(self) -> None:
        """Mostly quick; now and then it takes a while, and is cancelled, or not."""
        many = 1000 if self.random.random() < 0.05 else 1
        await self.say(query(SLOW.format(self.token, many)))
        if self.random.random() < 0.2:
            await asyncio.sleep(self.random.random() * 0.02)
            await self.cancel()
        self.check_cancelled(await self.read_until(), [(self.token, str(many * 1000))])
        await self.settle()

    async def canceled_read(self) -> None:
        await self.say(query(f"select '{self.token}', 3"))
        await self.cancel()
        self.check_cancelled(await self.read_until(), [(self.token, "3")])
        await self.settle()

    async def cancel(self) -> None:
        _, caller = await asyncio.open_connection("127.0.0.1", self.port)
        caller.write(cancel_request(self.key))
        await asyncio.sleep(self.random.choice([0, 0.005]))
        caller.close()
        with suppress(OSError):
            await caller.wait_closed()
        self.cancels += 1

    def check_cancelled(self, answer: list[Message], expected: list[tuple[str | None, ...]]) -> None:
        if error(answer):
            assert error(answer)["C"] == "57014", error(answer)
            self.seen["cancelled"] += 1
        else:
            self.check(answer, expected, "TDCZ")

    async def large(self) -> None:
        """Mostly small; now and then it is more than anybody expects, and is read late, or never."""
        width = LONG if self.random.random() < 0.03 else self.random.randrange(12_000)
        await self.say(query(BIG.format(self.token, width)))
        if width == LONG:
            await asyncio.sleep(self.random.random() * 0.5)
            if self.random.random() < 0.5:
                await self._vanish()
        self.check(await self.read_until(), [(self.token, "x" * width)], "TDCZ")


READS = [
    *[LineRider.tiny] * 4, *[LineRider.number_read] * 4, *[LineRider.own_hour] * 4, *[LineRider.own_schema] * 4,
    *[LineRider.named] * 4, *[LineRider.unnamed] * 3, *[LineRider.mishap] * 2, *[LineRider.large] * 2,
    LineRider.sluggish, LineRider.canceled_read, LineRider.pipeline, LineRider.batch,
    LineRider.transaction, LineRider.failed, LineRider.failed_batch, LineRider.copy_out, LineRider.rest,
]  # fmt: skip


@pytest.fixture(name="stand", params=[(16, 1), (16, 8), (64, 2), (64, 64)], ids="depth {0[0]}, groups of {0[1]}".format)
def _stand(upstream, admin, request):
    admin.execute("drop table if exists secrets, line_numbers; create unlogged table secrets (word text)")
    admin.execute("create table line_numbers as select n from generate_series(0, 999) n; analyze line_numbers")
    admin.execute(f"grant all on secrets, line_numbers to {LIMITED}")
    for schema in SCHEMAS:
        admin.execute(f"drop schema if exists {schema} cascade; create schema {schema}")
        admin.execute(f"create table {schema}.mine as select '{schema}'::text as word")
        admin.execute(f"grant usage on schema {schema} to {LIMITED}; grant all on {schema}.mine to {LIMITED}")
    depth, group = request.param
    shared = f"pipeline_depth={depth} pipeline_group={group} pipeline_servers=2"
    databases = {"lines": f"dbname=postgres pool_size={LIMIT} {shared}"}
    settings = {"query_wait_notify": 0, "query_wait_timeout": PATIENCE, "log_connections": 0, "log_disconnections": 0}
    with Stand(upstream, settings, databases=databases) as stand:
        yield stand


@pytest.mark.parametrize("is_deadly", [False, True], ids=["all live", "backends die"])
def test_nobody_in_a_line_hears_anything_that_was_not_meant_for_him(stand, admin, capsys, is_deadly):
    seed = random.randrange(10**9)
    print(f"seed {seed}")  # shown when the test fails
    riders = [LineRider(number, stand.port, seed + number) for number in range(CROWD)]
    asyncio.run(_run(riders, admin, is_deadly=is_deadly))
    seen = sum((each.seen for each in riders), Counter())
    answers, cancels = sum(each.answers for each in riders), sum(each.cancels for each in riders)
    vanished = sum(each.vanished for each in riders)
    with capsys.disabled():
        print(f"[{answers} answers, {cancels} cancels, {vanished} vanished, {dict(seen)}] ", end="")
    assert answers > CROWD * 5
    assert "too many connections" not in stand.log
    if not is_deadly:
        assert not seen["terminated"]
    check_clean(stand, admin, "lines")


async def _run(riders: list[LineRider], admin: psycopg.Connection[Any], *, is_deadly: bool) -> None:
    start = time.monotonic()

    def is_over() -> bool:
        """A busy machine takes longer to show as much."""
        spent = time.monotonic() - start
        has_shown_enough = sum(each.answers for each in riders) > CROWD * 5
        return spent > SECONDS and (has_shown_enough or spent > SECONDS * MOST_TIMES)

    killing = [_kill(admin, is_over)] if is_deadly else []
    await asyncio.gather(*killing, *(rider.ride(is_over) for rider in riders))


async def _kill(admin: psycopg.Connection[Any], is_over: Callable[[], bool]) -> None:
    one = f"(select pid from pg_stat_activity where usename = '{LIMITED}' order by random() limit 1)"
    while not is_over():
        await asyncio.to_thread(admin.execute, f"select pg_terminate_backend({one})")
        await asyncio.sleep(0.3)
