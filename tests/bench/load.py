"""
A load maker of our own: N clients on one event loop, each asking the next question when it has its answer.

    python -m tests.bench.load --port 6432 --clients 64 --seconds 5 [--query TEXT | --logins]

Theory. pgbench costs about as much CPU as a pooler and tells no percentiles. Here a client is one asyncio
protocol that sends a fixed text and looks at the last six bytes of what comes back: that leaves more of a small
machine to those who are measured.

A closed loop: nobody asks before being answered, so a stalled pooler also stops the questions and the worst
latencies are too few. What decides when a client asks next is its `Pace`; an open loop, asking at fixed times and
counting from when the question was due, is another Pace and nothing else changes.

With --logins nothing is asked: each client logs in, hangs up and logs in again.
"""

import argparse
import asyncio
import json
from array import array
from collections.abc import Callable
from time import perf_counter
from typing import cast

from tests.bench import loop
from tests.bench.figures import Figures, percentile
from tests.bench.wire import (
    ERROR,
    READY_LENGTH,
    TERMINATE,
    Address,
    Complaint,
    build_query,
    build_startup,
    is_ready,
    read_complaint,
)

SELECT = "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;"  # as pgbench -S, but always the same account
LOGIN_TIME = 30.0  # seconds that all clients together may take to log in


class Client(asyncio.Protocol):
    """One connection. Calls `on_ready(client)` at each ReadyForQuery after the one that ends the login.

    `welcomed` is done after the login, `ended` when we left; when refused or cut off, both hold a Complaint.
    """

    __slots__ = ("_address", "_on_ready", "_tail", "asked", "ended", "transport", "welcomed")

    transport: asyncio.Transport

    def __init__(self, address: Address, on_ready: Callable[["Client"], None]) -> None:
        here = asyncio.get_running_loop()
        self._address = address
        self._on_ready = on_ready
        self._tail = b""
        self.asked = 0.0
        self.welcomed: asyncio.Future[None] = here.create_future()
        self.ended: asyncio.Future[None] = here.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(build_startup(self._address))

    def data_received(self, data: bytes) -> None:
        if not self._tail and data[0] == ERROR:
            return self._fail(read_complaint(data))
        tail = data[-READY_LENGTH:] if len(data) >= READY_LENGTH else (self._tail + data)[-READY_LENGTH:]
        if not is_ready(tail):
            self._tail = tail
            return None
        self._tail = b""
        if self.welcomed.done():
            return self._on_ready(self)
        return self.welcomed.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail("the connection was closed")

    def _fail(self, words: str) -> None:
        for future in (self.welcomed, self.ended):
            if not future.done():
                future.set_exception(Complaint(words))
                future.exception()  # marks it as seen: not everybody waits for both

    def leave(self) -> None:
        """Say Terminate and hang up; this is a good end."""
        if not self.ended.done():
            self.ended.set_result(None)
        self.transport.write(TERMINATE)
        self.transport.close()


async def open_client(address: Address, on_ready: Callable[[Client], None]) -> Client:
    """Connect and begin to log in. OSError when nobody listens."""
    here = asyncio.get_running_loop()
    _, client = await here.create_connection(lambda: Client(address, on_ready), address.host, address.port)
    return client


async def log_in(address: Address, count: int, on_ready: Callable[[Client], None]) -> list[Client]:
    """That many clients, all logged in. Complaint when one is refused, TimeoutError after LOGIN_TIME."""
    crowd = [await open_client(address, on_ready) for _ in range(count)]
    async with asyncio.timeout(LOGIN_TIME):
        for client in crowd:
            await client.welcomed
    return crowd


class Pace:
    """A closed loop from `start` on: asks `question` again as soon as it is answered, until `stop`."""

    def __init__(self, question: bytes) -> None:
        self._question = question
        self._running = False
        self.latencies = array("d")  # seconds

    def start(self, clients: list[Client]) -> None:
        self._running = True
        for client in clients:
            self._ask(client)

    def stop(self) -> None:
        self._running = False

    def on_ready(self, client: Client) -> None:
        if self._running:
            self.latencies.append(perf_counter() - client.asked)
            self._ask(client)

    def _ask(self, client: Client) -> None:
        client.asked = perf_counter()
        client.transport.write(self._question)


async def ask(address: Address, clients: int, seconds: float, text: str) -> Figures:
    """Ask `text` over and over for so long: tps, p50_ms, p99_ms. Complaint when any client is refused."""
    pace = Pace(build_query(text))
    crowd = await log_in(address, clients, pace.on_ready)
    started = perf_counter()
    pace.start(crowd)
    await asyncio.wait({client.ended for client in crowd}, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    pace.stop()
    took = perf_counter() - started
    hang_up(crowd)
    return summarize(pace.latencies, took)


def hang_up(crowd: list[Client]) -> None:
    """Let all leave. Complaint when one was cut off before."""
    for client in crowd:
        if client.ended.done():
            client.ended.result()
        client.leave()


def summarize(latencies: "array[float]", took: float) -> Figures:
    """What the latencies of a run of `took` seconds say. Complaint when there are none."""
    if not latencies:
        raise Complaint("not one answer came")
    ordered = sorted(latencies)
    return {
        "tps": len(ordered) / took,
        "p50_ms": percentile(ordered, 0.5) * 1000,
        "p99_ms": percentile(ordered, 0.99) * 1000,
    }


async def log_in_and_out(address: Address, clients: int, seconds: float) -> Figures:
    """Each client logs in and hangs up again and again: logins per second, all clients together."""
    end = asyncio.get_running_loop().time() + seconds
    started = perf_counter()
    counts = await asyncio.gather(*(_come_and_go(address, end) for _ in range(clients)))
    return {"logins": sum(counts) / (perf_counter() - started)}


async def _come_and_go(address: Address, end: float) -> int:
    here = asyncio.get_running_loop()
    count = 0
    while here.time() < end:
        (client,) = await log_in(address, 1, lambda _: None)
        client.leave()
        count += 1
    return count


def main() -> None:
    """Parse the command line, make the load, print its figures as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--user", default="postgres")
    parser.add_argument("--database", default="bench")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--query", default=SELECT)
    parser.add_argument("--logins", action="store_true", help="log in and out instead of asking")
    args = parser.parse_args()
    address = Address(args.host, args.port, args.user, args.database)
    if args.logins:
        print(json.dumps(loop.run(log_in_and_out(address, args.clients, args.seconds))))
    else:
        print(json.dumps(loop.run(ask(address, args.clients, args.seconds, args.query))))


if __name__ == "__main__":
    main()
