"""
Clients that only come: log in and out again and again, or very many at the same moment.

    python -m tests.bench.login_load --port 6432 --clients 16 --seconds 5 [--scram]
    python -m tests.bench.login_load --port 6432 --clients 2000 --at-once [--scram]

Theory. Both happen: applications without a pool of their own log in for each question, and after a restart of the
pooler all that were connected come back in the same moment. Nothing is asked after a login, so PostgreSQL stays out
of it. One client comes first and is not counted: a pooler learns from its first server how PostgreSQL greets.
"""

import asyncio
import json
from time import perf_counter

from tests.bench import helper, loop
from tests.bench.crowd import Client, Make, be_silent, hang_up, log_in, open_client, raise_open_files, wait_welcomed
from tests.bench.figures import Figures
from tests.bench.scram import ScramClient
from tests.bench.wire import Address


async def log_in_and_out(address: Address, clients: int, seconds: float, make: Make) -> Figures:
    """Each client logs in and hangs up again and again: logins per second, all clients together."""
    hang_up(await log_in(address, 1, make=make))
    end = asyncio.get_running_loop().time() + seconds
    started = perf_counter()
    counts = await asyncio.gather(*(_come_and_go(address, end, make) for _ in range(clients)))
    return {"logins": sum(counts) / (perf_counter() - started)}


async def _come_and_go(address: Address, end: float, make: Make) -> int:
    here = asyncio.get_running_loop()
    count = 0
    while here.time() < end:
        hang_up(await log_in(address, 1, make=make))
        count += 1
    return count


async def storm(address: Address, clients: int, make: Make) -> Figures:
    """All at once: how long until the last one is in. Complaint when one is refused."""
    hang_up(await log_in(address, 1, make=make))
    started = perf_counter()
    crowd = await asyncio.gather(*(open_client(address, be_silent, make) for _ in range(clients)))
    await wait_welcomed(crowd)
    took = perf_counter() - started
    hang_up(crowd)
    return {"all_in_seconds": took, "logins": clients / took}


def main() -> None:
    """Parse the command line, make the load, print its figures as JSON."""
    parser = helper.parser(__doc__)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--at-once", action="store_true", help="all at the same moment, once")
    parser.add_argument("--scram", action="store_true", help="log in with the bench's password")
    args = parser.parse_args()
    raise_open_files()
    address, make = helper.address_of(args), ScramClient if args.scram else Client
    if args.at_once:
        print(json.dumps(loop.run(storm(address, args.clients, make))))
    else:
        print(json.dumps(loop.run(log_in_and_out(address, args.clients, args.seconds, make))))


if __name__ == "__main__":
    main()
