"""
How much memory an idle client costs: open many, let them sit, look at the pooler's RSS.

    python -m tests.bench.idle --port 6432 --pid PID [--clients 5000] [--settle 1]

Theory. RSS is read after one client has come and gone (whatever is made once is made by then) and again when all
are logged in, idle, and the pooler has had a moment to settle. The pooler should be a fresh one: memory freed by an
earlier run would be used again and the clients would look cheaper than they are. What the kernel holds for the
sockets is in no process's RSS and is the same for every pooler.

Each client is one connection on this side too, so the limit of open files is raised to what is allowed.
"""

import asyncio
import json
import resource

from tests.bench import helper, loop
from tests.bench.crowd import Client, hang_up, log_in
from tests.bench.figures import Figures
from tests.bench.processes import rss_bytes
from tests.bench.wire import Address

GROUP = 100  # how many log in at once: fewer than the 128 places most listeners have in their queue


def raise_open_files() -> int:
    """Raise the soft limit of open files to the hard one; the limit that now holds."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


async def open_idle(address: Address, count: int) -> list[Client]:
    """That many clients, logged in and silent. Complaint when one is refused."""
    crowd: list[Client] = []
    while len(crowd) < count:
        crowd += await log_in(address, min(GROUP, count - len(crowd)))
    return crowd


async def measure(address: Address, pid: int, count: int, settle: float) -> Figures:
    """Bytes of RSS per idle client in process `pid` (and its descendants), after `settle` seconds of quiet."""
    hang_up(await open_idle(address, 1))
    await asyncio.sleep(settle)
    before = rss_bytes(pid)
    crowd = await open_idle(address, count)
    await asyncio.sleep(settle)
    after = rss_bytes(pid)
    hang_up(crowd)
    return {"idle_bytes": (after - before) / count}


def main() -> None:
    """Parse the command line, print the figure as JSON."""
    parser = helper.parser(__doc__)
    parser.add_argument("--pid", type=int, required=True, help="the pooler's process")
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--settle", type=float, default=1.0, help="seconds of quiet before memory is read")
    args = parser.parse_args()
    raise_open_files()
    print(json.dumps(loop.run(measure(helper.address_of(args), args.pid, args.clients, args.settle))))


if __name__ == "__main__":
    main()
