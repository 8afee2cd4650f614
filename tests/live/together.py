"""
Clients whose reads stand in one line, and a gate in their way.

Theory. What arrives in one turn of the proxy's loop travels together. So the proxy is stopped while a test sends, and
goes on when all has been said (`Together`). A text stands in a line only after it has shown that it is fast and small
(`earn_trust`). The view `line_gate` is passed at once, until somebody holds GATE: then whoever reads it waits, in the
middle of its execution. No text tells that, as no text tells that a table is locked. `Readers` are load.
"""

import asyncio
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import psycopg

from tests.live.stand import Stand, wait_until
from tests.live.wire import SYNC, TERMINATE, Gone, Message, Raw, bind, error, execute, parse, query, rows, startup

GATE = 4711  # an advisory lock
READ_GATE = "select '{}', is_open from line_gate"
_ACTIVE = "select pid from pg_stat_activity where state = 'active' and query like %s order by query_start"


def build_gate(admin: psycopg.Connection[Any]) -> None:
    gate = f"create or replace view line_gate as select pg_advisory_xact_lock_shared({GATE}) is not null as is_open"
    admin.execute(f"{gate}; grant select on line_gate to public")


class Shut:
    """Nobody passes the gate meanwhile."""

    def __init__(self, admin: psycopg.Connection[Any]) -> None:
        self._admin = admin

    def __enter__(self) -> Self:
        self._admin.execute(f"select pg_advisory_lock({GATE})")
        return self

    def __exit__(self, *_: object) -> None:
        self._admin.execute(f"select pg_advisory_unlock({GATE})")


class Together:
    """The proxy sleeps in here: what is sent meanwhile is found in one turn of its loop."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand

    def __enter__(self) -> None:
        self._stand.signal(signal.SIGSTOP)
        wait_until(lambda: self._stand.is_stopped, "the proxy sleeps")

    def __exit__(self, *_: object) -> None:
        self._stand.signal(signal.SIGCONT)


def send_together(stand: Stand, clients: Sequence[Raw], parts: Sequence[bytes]) -> None:
    with Together(stand):
        for client, part in zip(clients, parts, strict=True):
            client.send(part)


def ask_together(stand: Stand, clients: Sequence[Raw], parts: Sequence[bytes]) -> list[list[Message]]:
    send_together(stand, clients, parts)
    return [client.read_until() for client in clients]


def earn_trust(stand: Stand, clients: Sequence[Raw], *texts: str) -> None:
    """Their shapes have shown that they are fast and small."""
    for text in texts:
        for _ in range(4):
            answers = ask_together(stand, clients, [query(text)] * len(clients))
            assert not any(map(error, answers)), error(answers[0])


@contextmanager
def crowd(stand: Stand, count: int, *texts: str, database: str = "lines") -> Iterator[list[Raw]]:
    """Clients whose next reads of these texts stand in one line, since somebody else has a server already."""
    with ExitStack() as stack:
        clients = [stack.enter_context(stand.raw(database=database)) for _ in range(count)]
        holder = stack.enter_context(stand.raw(database=database))
        earn_trust(stand, clients, *texts)
        holder.ask("begin; select 1")
        yield clients


def find_running(admin: psycopg.Connection[Any], text: str) -> list[int]:
    """The backends that run what begins with `text`, the longest first."""
    return [pid for (pid,) in admin.execute(_ACTIVE, [text + "%"]).fetchall()]


def wait_running(admin: psycopg.Connection[Any], text: str, count: int = 1) -> list[int]:
    wait_until(lambda: len(find_running(admin, text)) == count, f"{count} backends run {text}", 10)
    return find_running(admin, text)


def line_up(stand: Stand, admin: psycopg.Connection[Any], clients: Sequence[Raw]) -> list[Raw]:
    """All of them at the gate, in one line: in which order they stand."""
    send_together(stand, clients, [query(READ_GATE.format(f"client {n}")) for n in range(len(clients))])
    (pid,) = wait_running(admin, "select 'client")
    row = admin.execute("select query from pg_stat_activity where pid = %s", [pid]).fetchone()
    assert row is not None
    head = clients[int(row[0].split()[2][0])]
    return [head, *(client for client in clients if client is not head)]


class Readers:
    """Clients that never pause, in a thread of their own: reads of all kinds, each with its reader's token in it."""

    def __init__(self, stand: Stand, count: int = 24, database: str = "lines") -> None:
        self._stand = stand
        self._database = database
        self.rounds = [0] * count
        self.failures: list[str] = []
        self._is_over = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait_round()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join(30)

    def wait_round(self, times: int = 3) -> None:
        """Until each has been answered so many times more, or one was not as he should."""
        before = list(self.rounds)

        def have_all_gone_on() -> bool:
            return all(now >= then + times for now, then in zip(self.rounds, before, strict=True))

        wait_until(lambda: self.failures or have_all_gone_on(), "all readers go on", 30)
        assert not self.failures, self.failures

    async def _run(self) -> None:
        await asyncio.gather(*map(self._guard, range(len(self.rounds))))

    async def _guard(self, number: int) -> None:
        try:
            await self._read_on(number)
        except Exception as failure:
            self.failures.append(f"reader {number}, round {self.rounds[number]}: {failure!r}")

    async def _read_on(self, number: int) -> None:
        token = f"token {number}"
        reader, writer = await asyncio.open_connection("127.0.0.1", self._stand.port)
        said = {"application_name": f"reader {number}"} if number % 4 == 0 else {}
        writer.write(startup("app", self._database, **said))
        await _read_until_ready(reader)
        writer.write(parse(f"select '{token}', $1::int", "mine") + SYNC)
        await _read_until_ready(reader)
        while not self._is_over:
            count = self.rounds[number]
            asked = [
                query(f"select '{token}', {count}"),
                bind(count, statement="mine") + execute() + SYNC,
                parse(f"select '{token}', {count}") + bind() + execute() + SYNC,
            ]
            writer.write(asked[count % 3])
            answer = await _read_until_ready(reader)
            assert rows(answer) == [(token, str(count))], (error(answer), rows(answer))
            self.rounds[number] += 1
        writer.write(TERMINATE)
        writer.close()


async def _read_until_ready(reader: asyncio.StreamReader) -> list[Message]:
    found: list[Message] = []
    while not found or found[-1].kind != "Z":
        head = await asyncio.wait_for(reader.readexactly(5), 30)
        found.append(Message(chr(head[0]), await reader.readexactly(int.from_bytes(head[1:], "big") - 4)))
        if found[-1].kind == "E" and error(found)["S"] == "FATAL":
            raise Gone(error(found)["M"])
    return found
