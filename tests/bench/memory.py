"""
How much memory a client costs, idle and active: open many, let them sit, let all ask at once, look at the pooler's RSS.

    python -m tests.bench.memory --port 6432 --pid PID [--clients 5000] [--settle 1] [--seconds 2]

Theory. RSS is read after one client has come and gone (whatever is made once is made by then) and again when all
are logged in, idle, and the pooler has had a moment to settle. The pooler should be a fresh one: memory freed by an
earlier run would be used again and the clients would look cheaper than they are. What the kernel holds for the
sockets is in no process's RSS and is the same for every pooler.

Then all ask at the same moment, and again as soon as they are answered; the most that is seen meanwhile counts.
"""

import asyncio
import json
from collections.abc import Callable
from time import perf_counter

from tests.bench import helper, loop
from tests.bench.crowd import Client, hang_up, log_in, raise_open_files
from tests.bench.figures import Figures
from tests.bench.load import SELECT, Pace
from tests.bench.processes import rss_bytes
from tests.bench.wire import Address, build_query

GROUP = 100  # how many log in at once: fewer than the 128 places most listeners have in their queue
GLANCE = 0.1  # seconds between two looks at the memory


async def open_many(address: Address, count: int, on_ready: Callable[[Client], None]) -> list[Client]:
    """That many clients, logged in and silent. Complaint when one is refused."""
    crowd: list[Client] = []
    while len(crowd) < count:
        crowd += await log_in(address, min(GROUP, count - len(crowd)), on_ready)
    return crowd


async def measure(address: Address, pid: int, count: int, settle: float, seconds: float) -> Figures:
    """Bytes of RSS per client in process `pid` (and its descendants): after `settle` of quiet, in `seconds` of load."""
    hang_up(await log_in(address, 1))
    await asyncio.sleep(settle)
    before = rss_bytes(pid)
    pace = Pace(build_query(SELECT))
    crowd = await open_many(address, count, pace.on_ready)
    await asyncio.sleep(settle)
    idle = rss_bytes(pid)
    pace.start(crowd)
    active = await watch_memory(pid, seconds)
    pace.stop()
    hang_up(crowd)
    return {"idle_bytes": (idle - before) / count, "active_bytes": (active - before) / count}


async def watch_memory(pid: int, seconds: float) -> int:
    """The most that the process has had in the next `seconds`."""
    most, end = 0, perf_counter() + seconds
    while perf_counter() < end:
        await asyncio.sleep(GLANCE)
        most = max(most, rss_bytes(pid))
    return most


def main() -> None:
    """Parse the command line, print the figure as JSON."""
    parser = helper.parser(__doc__)
    parser.add_argument("--pid", type=int, required=True, help="the pooler's process")
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--settle", type=float, default=1.0, help="seconds of quiet before memory is read")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long all ask")
    args = parser.parse_args()
    raise_open_files()
    print(json.dumps(loop.run(measure(helper.address_of(args), args.pid, args.clients, args.settle, args.seconds))))


if __name__ == "__main__":
    main()
