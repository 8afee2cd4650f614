"""
The unforgivable bug: a byte of one client's answer reaching another.

Theory. CROWD clients share four servers and do at random all that clients do: queries with tiny and big answers,
transactions, batches, errors, COPY both ways, cancels, pauses in mid-message, and they vanish at a random byte. Each
has a token that nobody else knows and puts it into everything it asks; each answer must hold this token and no other,
in the right number and order. PostgreSQL itself holds the role to four connections, so one too many would be refused
by it, and what a client that vanished left behind in the table would be found there at the end.
"""

import asyncio
import os
import random
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from struct import unpack_from
from typing import Any

import pytest

from tests.live.stand import Stand, wait_until
from tests.live.upstream import LIMIT, LIMITED
from tests.live.wire import (
    COPY_DONE,
    FLUSH,
    SYNC,
    TERMINATE,
    Message,
    ask,
    cancel_request,
    copy_data,
    error,
    kinds,
    query,
    rows,
    startup,
)

pytestmark = pytest.mark.live

CROWD = 300
SECONDS = float(os.environ.get("PGSHUTTLE_TEST_CROSS_TALK_SECONDS", "15"))
MOST_TIMES = 8  # so many SECONDS, where the machine is busy
PATIENCE = 60  # seconds for any one answer
TOKEN = re.compile(rb"token-\d+-[0-9a-f]{12}")
BY_ZERO = "select '{}', 1/count(*) from generate_series(1, 0)"


class Vanished(Exception):
    """We have hung up in the middle of something, as we wanted to."""


class Rider:
    """One client, connected again and again under a new token each time."""

    def __init__(self, number: int, port: int, seed: int) -> None:
        self.number = number
        self.port = port
        self.random = random.Random(seed)
        self.answers = self.cancels = self.vanished = 0
        self.token = ""
        self.key = b""

    async def ride(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            with suppress(Vanished):
                await self._visit(is_over)

    async def _visit(self, is_over: Callable[[], bool]) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            await self._log_in()
            for _ in range(self.random.randrange(1, 25)):
                if is_over():
                    break
                await self.choose()(self)
                self.answers += 1
            self.writer.write(TERMINATE)
        finally:
            self.writer.close()
            with suppress(OSError):
                await self.writer.wait_closed()

    def choose(self) -> Callable[[Any], Awaitable[None]]:
        """What to do next."""
        return self.random.choice(ACTS)

    async def _log_in(self) -> None:
        self.token = f"token-{self.number}-{self.random.randrange(16**12):012x}"
        self.writer.write(startup(LIMITED, "crosstalk", application_name=self.token))
        welcome = await self.read_until()
        assert kinds(welcome) == "RKZ", welcome
        self.key = next(each.body for each in welcome if each.kind == "K")

    # Talking.

    async def read(self) -> Message:
        head = await asyncio.wait_for(self.reader.readexactly(5), PATIENCE)
        (length,) = unpack_from("!I", head, 1)
        body = await asyncio.wait_for(self.reader.readexactly(length - 4), PATIENCE)
        foreign = {token for token in TOKEN.findall(body) if token.decode() != self.token}
        assert not foreign, f"{self.token} has got {foreign}"
        return Message(chr(head[0]), body)

    async def read_until(self, last: str = "Z") -> list[Message]:
        found = [await self.read()]
        while found[-1].kind not in last:
            found.append(await self.read())
        return found

    async def say(self, *parts: bytes) -> None:
        """Mostly whole; sometimes in pieces; sometimes only up to some byte, and then we are gone."""
        data = b"".join(parts)
        fate = self.random.random()
        if fate < 0.02:
            self.writer.write(data[: self.random.randrange(len(data))])
            await self._vanish()
        elif fate < 0.1:
            cut = self.random.randrange(len(data))
            self.writer.write(data[:cut])
            await asyncio.sleep(self.random.random() * 0.01)
            self.writer.write(data[cut:])
        else:
            self.writer.write(data)
        if self.random.random() < 0.01:
            await asyncio.sleep(self.random.random() * 0.01)
            await self._vanish()

    async def _vanish(self) -> None:
        if self.random.random() < 0.5:
            self.writer.transport.abort()
        self.vanished += 1
        raise Vanished

    def check(self, answer: list[Message], expected: list[tuple[str | None, ...]], shape: str) -> None:
        assert kinds(answer) == shape, (self.token, shape, kinds(answer)[:100], error(answer))
        assert rows(answer) == expected, (self.token, expected[:2], rows(answer)[:2])

    # Acts.

    async def tiny(self) -> None:
        await self.say(query(f"select '{self.token}'"))
        self.check(await self.read_until(), [(self.token,)], "TDCZ")

    async def pipeline(self) -> None:
        count = self.random.randrange(2, 20)
        await self.say(*(query(f"select '{self.token}', {n}") for n in range(count)))
        for n in range(count):
            self.check(await self.read_until(), [(self.token, str(n))], "TDCZ")

    async def batch(self) -> None:
        await self.say(ask("select $1::text", self.token), ask("select $1::int", 7), SYNC)
        self.check(await self.read_until(), [(self.token,), ("7",)], "12TDC12TDCZ")

    async def flushed(self) -> None:
        await self.say(ask("select $1::text", self.token), FLUSH)
        answer = await self.read_until("C")
        await self.say(SYNC)
        self.check(answer + await self.read_until(), [(self.token,)], "12TDCZ")

    async def big(self) -> None:
        count, width = self.random.choice([(1000, 10), (50, 5000), (2, 300_000)])
        await self.say(query(f"select '{self.token}', n, repeat('x', {width}) from generate_series(1, {count}) as n"))
        answer = await self.read_until()
        expected = [(self.token, str(n), "x" * width) for n in range(1, count + 1)]
        self.check(answer, expected, "T" + "D" * count + "CZ")

    async def transaction(self) -> None:
        await self.say(query("begin"))
        self.check(await self.read_until(), [], "CZ")
        await self.say(query(f"insert into secrets values ('{self.token}') returning pg_backend_pid(), word"))
        answer = await self.read_until()
        ((pid, word),) = rows(answer)
        assert word == self.token
        if self.random.random() < 0.3:
            await asyncio.sleep(self.random.random() * 0.01)
        await self.say(
            query(f"select pg_backend_pid(), '{self.token}', count(*) from secrets where word='{self.token}'")
        )
        self.check(await self.read_until(), [(pid, self.token, "1")], "TDCZ")
        await self.say(query("rollback"))
        self.check(await self.read_until(), [], "CZ")

    async def failed(self) -> None:
        await self.say(query(BY_ZERO.format(self.token)))
        answer = await self.read_until()
        assert kinds(answer) in ("TEZ", "EZ")
        assert error(answer)["C"] == "22012"

    async def failed_batch(self) -> None:
        await self.say(ask("select $1::text", self.token), ask(BY_ZERO.format(self.token)), ask("select 1"), SYNC)
        await self.say(query(f"select '{self.token}'"))
        answer = await self.read_until()
        assert rows(answer) == [(self.token,)]
        assert error(answer)["C"] == "22012"
        self.check(await self.read_until(), [(self.token,)], "TDCZ")

    async def failed_transaction(self) -> None:
        await self.say(query(f"begin; select '{self.token}'; select 1/0"))
        assert error(await self.read_until())["C"] == "22012"
        await self.say(query("select 1"))
        assert error(await self.read_until())["C"] == "25P02"
        await self.say(query("rollback"))
        self.check(await self.read_until(), [], "CZ")

    async def copy_out(self) -> None:
        count = self.random.randrange(1, 2000)
        await self.say(query(f"copy (select '{self.token}', n from generate_series(1, {count}) as n) to stdout"))
        answer = await self.read_until()
        lines = [each.body for each in answer if each.kind == "d"]
        assert lines == [f"{self.token}\t{n}\n".encode() for n in range(1, count + 1)]

    async def copy_in(self) -> None:
        await self.say(query("begin; copy secrets from stdin"))
        answer = await self.read_until("G")
        count = self.random.randrange(1, 200)
        await self.say(*[copy_data(self.token.encode() + b"\n")] * count, COPY_DONE)
        answer = await self.read_until()
        assert answer[-2].body == f"COPY {count}\0".encode()
        await self.say(query(f"select count(*), '{self.token}' from secrets where word = '{self.token}'; rollback"))
        self.check(await self.read_until(), [(str(count), self.token)], "TDCCZ")

    async def parameter(self) -> None:
        await self.say(query("select current_setting('application_name')"))
        self.check(await self.read_until(), [(self.token,)], "TDCZ")

    async def cancelled(self) -> None:
        """Ask for something slow, cancel it at some moment; only our own query may be hit."""
        nap = self.random.choice([0.001, 0.01, 0.1])
        await self.say(query(f"select '{self.token}', pg_sleep({nap})"))
        await asyncio.sleep(self.random.random() * nap * 1.5)
        _, caller = await asyncio.open_connection("127.0.0.1", self.port)
        caller.write(cancel_request(self.key))
        caller.close()
        with suppress(OSError):
            await caller.wait_closed()
        answer = await self.read_until()
        if error(answer):
            assert error(answer)["C"] == "57014"
            self.cancels += 1
        else:
            self.check(answer, [(self.token, "")], "TDCZ")
        await self.settle()

    async def settle(self) -> None:
        """A cancel may be on its way still, and hit our next query: that would be ours to bear."""
        while True:
            await self.say(query(f"select '{self.token}'"))
            answer = await self.read_until()
            if not error(answer):
                return self.check(answer, [(self.token,)], "TDCZ")
            assert error(answer)["C"] == "57014"

    async def rest(self) -> None:
        await asyncio.sleep(self.random.random() * 0.05)


ACTS = [
    *[Rider.tiny] * 4, *[Rider.pipeline] * 2, *[Rider.batch] * 2, *[Rider.transaction] * 2,
    Rider.flushed, Rider.big, Rider.failed, Rider.failed_batch, Rider.failed_transaction, Rider.copy_out,
    Rider.copy_in, Rider.parameter, Rider.cancelled, Rider.rest,
]  # fmt: skip


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    databases = {"crosstalk": f"dbname=postgres pool_size={LIMIT}"}
    # Who waits long is told whose application is in the way, and here that is a token: by design, and no cross-talk.
    settings = {"query_wait_notify": 0, "query_wait_timeout": PATIENCE, "log_connections": 0, "log_disconnections": 0}
    with upstream.connect() as admin:
        admin.execute("drop table if exists secrets; create unlogged table secrets (word text)")
        admin.execute(f"grant all on secrets to {LIMITED}")
    with Stand(upstream, settings, databases=databases) as stand:
        yield stand


def test_nobody_ever_hears_anything_that_was_not_meant_for_him(stand, admin, capsys):
    seed = random.randrange(10**9)
    print(f"seed {seed}")  # shown when the test fails
    riders = [Rider(number, stand.port, seed + number) for number in range(CROWD)]
    most = asyncio.run(_run(riders, admin))
    answers, cancels = sum(each.answers for each in riders), sum(each.cancels for each in riders)
    vanished = sum(each.vanished for each in riders)
    with capsys.disabled():
        print(f"[{answers} answers, {cancels} cancelled, {vanished} vanished, at most {most} servers] ", end="")
    assert _has_shown_enough(riders)
    assert 0 < most <= LIMIT
    assert "too many connections" not in stand.log
    check_clean(stand, admin)


async def _run(riders: list[Rider], admin: Any) -> int:
    """Everybody rides; the most servers PostgreSQL has seen at once."""
    start = time.monotonic()

    def is_over() -> bool:
        """A busy machine takes longer to show as much."""
        spent = time.monotonic() - start
        return spent > SECONDS and (spent > SECONDS * MOST_TIMES or _has_shown_enough(riders))

    most, *_ = await asyncio.gather(_watch(admin, is_over), *(rider.ride(is_over) for rider in riders))
    return most


def _has_shown_enough(riders: list[Rider]) -> bool:
    answers, cancels = sum(each.answers for each in riders), sum(each.cancels for each in riders)
    return answers > CROWD * 5 and cancels > 0 and sum(each.vanished for each in riders) > CROWD / 3


async def _watch(admin: Any, is_over: Callable[[], bool]) -> int:
    text, most = f"select count(*) from pg_stat_activity where usename = '{LIMITED}'", 0
    while not is_over():
        most = max(most, (await asyncio.to_thread(admin.execute, text)).fetchone()[0])
        await asyncio.sleep(0.02)
    return most


def check_clean(stand, admin, database="crosstalk"):
    """All servers idle, none in a transaction, nothing left behind; and each still works."""
    busy = f"select count(*) from pg_stat_activity where usename = '{LIMITED}' and state <> 'idle'"
    wait_until(lambda: admin.execute(busy).fetchone() == (0,), "all servers are idle", 20)
    assert admin.execute("select count(*) from secrets").fetchone() == (0,)
    lines = [stand.raw(LIMITED, database) for _ in range(LIMIT * 2)]
    for number, line in enumerate(lines):
        line.send(query(f"select 'clean', {number}, pg_sleep(0.05)"))
    for number, line in enumerate(lines):
        assert rows(line.read_until()) == [("clean", str(number), "")]
        line.leave()
