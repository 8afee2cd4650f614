"""
Two proxies in one event loop, the one taking over from the other, over real sockets and without PostgreSQL.

Theory. The pools know what a server is like, so clients can log in and rest; nobody asks anything that a server would
have to answer. Clocks stand still until told. `Scene` has the old proxy listening; `claim` is the new one's first half,
`accept` its second.
"""

import asyncio
import contextlib
import os
import socket
from contextlib import asynccontextmanager

from protocol.startup import build_startup, build_succession_request
from proxy import inherit
from proxy.auth.users import parse_users
from proxy.config.ini import read
from proxy.courier import VERSION, Kind, Reader, build_frame, wait_frame
from proxy.listener import open_sockets, socket_path
from proxy.main import Proxy
from tests.fakes import FakeClock, FakeLog

WELCOME = {"server_version": "18.0", "TimeZone": "UTC", "client_encoding": "UTF8"}
SECONDS = 30  # a bound for a busy machine; nothing here waits for time to pass


class Person:
    """A client's end."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    async def hear(self, text):
        return await asyncio.wait_for(self.reader.readuntil(text), SECONDS)

    def say(self, data):
        self.writer.write(data)


class Scene:
    """The old proxy, and in time the new one."""

    def __init__(self, path, settings=""):
        self.file = path / "proxy.ini"
        self.file.write_text(
            "[databases]\nshop = host=127.0.0.1 port=1\nlost = host=127.0.0.1 port=1\n"
            f"[proxy]\nlisten_addr =\nunix_socket_dir = {path}\nauth_type = trust\n{settings}"
        )
        self.users = parse_users('"anna" "secret"\n', "users.txt")
        self.old = self.new = self.make()
        self.inheritance = None
        self.people = []

    def make(self):
        config = read(str(self.file))
        return Proxy(config, self.users, FakeLog(), FakeClock())

    @property
    def path(self):
        return socket_path(self.old.settings)

    def pool(self, proxy, database="shop"):
        pool = proxy.pools.find(proxy.config.find_database(database), "anna")
        pool.welcome = pool.welcome or WELCOME
        return pool

    async def join(self, proxy=None, database="shop", **wishes):
        """A new client of whoever listens; its `pool` must know what servers are like."""
        spelled = self.pool(proxy or self.old, database).learnt.spelled
        spelled.update({(name, value): value for name, value in wishes.items()})
        person = Person(*await asyncio.open_unix_connection(self.path))
        self.people.append(person)
        person.say(build_startup({"user": "anna", "database": database, **wishes}))
        await person.hear(b"Z\0\0\0\x05I")
        return person

    async def claim(self, users=None):
        """The new proxy asks, and gets its answer."""
        self.new = self.make()
        settings = self.new.settings
        self.inheritance = await asyncio.to_thread(inherit.claim, settings, users or {os.geteuid()})
        return self.inheritance

    async def accept(self):
        """The new proxy takes its place."""
        if self.inheritance is None:
            await self.claim()
        await self.new.start(self.inheritance.listeners, self.inheritance)

    def die(self):
        """The new process is no more, without a word."""
        self.inheritance._courier._line.close()

    async def until(self, condition, what):
        end = asyncio.get_running_loop().time() + SECONDS
        while not condition():
            assert asyncio.get_running_loop().time() < end, f"{what}\n{self.old.log.text}\n--\n{self.new.log.text}"
            await asyncio.sleep(0.002)

    def clients(self, proxy, database="shop"):
        return self.pool(proxy, database).clients


@asynccontextmanager
async def scene(path, settings=""):
    it = Scene(path, settings)
    await it.old.start(open_sockets(it.old.settings))
    try:
        yield it
    finally:
        for person in it.people:
            person.writer.close()
        for proxy in {it.old, it.new}:
            for end in (proxy.kin.heir, proxy.kin.elder):
                if end is not None:
                    end._courier.cut("the test is over")
            proxy.close_listeners()
            await proxy.tasks.cancel_all()
            proxy.keeper.close()


def play(path, act, settings=""):
    """Run `act(scene)`."""

    async def main():
        async with scene(path, settings) as it:
            await asyncio.wait_for(act(it), 3 * SECONDS)
            for proxy in {it.old, it.new}:
                assert "Traceback" not in proxy.log.text, proxy.log.text

    asyncio.run(main())


def open_descriptors():
    """What each descriptor of ours leads to."""
    found = {}
    for each in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that lists them
            found[each] = os.readlink(f"/proc/self/fd/{each}")
    return found


class Stranger:
    """A new process that is made of bytes: it does what it is told, and no more."""

    def __init__(self, path):
        self.line = socket.socket(socket.AF_UNIX)
        self.line.settimeout(10)
        self.line.connect(path)
        self.reader = Reader()
        self.heard = []

    async def ask(self, version=VERSION):
        self.line.sendall(build_succession_request(version))
        return await self.wait()

    async def wait(self, *kinds):
        """The next message, of one of `kinds` if any are named."""
        while True:
            frame = await asyncio.to_thread(wait_frame, self.line, self.reader)
            self.heard.append(frame)
            if not kinds or frame.kind in kinds:
                return frame

    def say(self, kind, **body):
        self.line.sendall(build_frame(kind, body))

    async def succeed(self):
        testament = await self.ask()
        self.say(Kind.READY, pid=4711, proof=self.read_proof(testament))

    def read_proof(self, testament):
        return os.read(testament.descriptors[-1], 100).hex()

    def die(self):
        self.line.close()
        for frame in self.heard:
            for descriptor in frame.descriptors:
                os.close(descriptor)
        self.reader.close()
