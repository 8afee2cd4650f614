"""
A load maker of our own: N clients on one event loop, each asking the next question when it has its answer.

    python -m tests.bench.load --port 6432 --clients 64 --seconds 5 [--query TEXT]

Theory. What pgbench cannot do: any text, by clients that look at nothing but the end of an answer. pgbench with its log
costs a little less of the machine (see pgbench_log.py), so the figures that count are pgbench's.

A closed loop: nobody asks before being answered, so a stalled pooler also stops the questions and the worst
latencies are too few. What decides when a client asks next is its `Pace`.
"""

import asyncio
import json
from array import array
from time import perf_counter

from tests.bench import helper, loop
from tests.bench.crowd import Client, hang_up, log_in
from tests.bench.figures import Figures, percentile
from tests.bench.wire import Address, Complaint, build_query

SELECT = "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;"  # as pgbench -S, but always the same account


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


def main() -> None:
    """Parse the command line, make the load, print its figures as JSON."""
    parser = helper.parser(__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--query", default=SELECT)
    args = parser.parse_args()
    print(json.dumps(loop.run(ask(helper.address_of(args), args.clients, args.seconds, args.query))))


if __name__ == "__main__":
    main()
