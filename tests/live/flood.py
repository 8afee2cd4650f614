"""
A flood, as a process of its own: `python -m tests.live.flood PORT KIND COUNT SECONDS`.

Theory. Whoever measures must not be slowed down by those who attack, so they do not share an interpreter. KIND silent
opens COUNT connections and says one byte; asking says who it is and never its password; guessing keeps COUNT logins
under way, each with a wrong password, and begins anew when it is refused. `up` is printed when all stand, and at the
end how many logins were refused, by SQLSTATE.
"""

import asyncio
import collections
import contextlib
import resource
import sys
import time
from collections import Counter

from tests.live.wire import message, startup

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def call(port: int, said: bytes) -> Streams:
    for patience in (0.1, 0.3, 1.0, 3.0):
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            return reader, writer
        await asyncio.sleep(patience)
    raise ConnectionError


async def hold(port: int, said: bytes, count: int) -> list[Streams]:
    held = []
    for _ in range(count):
        held.append(await call(port, said))
        if len(held) % 50 == 0:
            await asyncio.sleep(0.02)
    return held


async def guess(port: int, until: float, heard: Counter[str]) -> None:
    while time.monotonic() < until:
        try:
            reader, writer = await call(port, startup("app", "postgres"))
            heard[await find_end(reader, writer)] += 1
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            heard["cut"] += 1
            await asyncio.sleep(0.01)


async def find_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """The SQLSTATE it ends with; its password is wrong each time."""
    while True:
        head = await reader.readexactly(5)
        body = await reader.readexactly(int.from_bytes(head[1:], "big") - 4)
        if head[:1] == b"E":
            return body.split(b"\0C", 1)[1][:5].decode()
        if head[:1] == b"R" and body[3] == 3:
            writer.write(message("p", b"guess %d\0" % time.monotonic_ns()))


async def main(port: int, kind: str, count: int, seconds: float) -> None:
    until, heard = time.monotonic() + seconds, collections.Counter[str]()
    if kind == "guessing":
        print("up", flush=True)
        await asyncio.gather(*(guess(port, until, heard) for _ in range(count)))
    else:
        held = await hold(port, b"\0" if kind == "silent" else startup("app", "postgres"), count)
        print("up", flush=True)
        await asyncio.sleep(seconds)
        heard["held"] = sum(not reader.at_eof() for reader, _ in held)
        for _, writer in held:
            writer.transport.abort()
    print(dict(heard), flush=True)


if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
