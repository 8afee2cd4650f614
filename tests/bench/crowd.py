"""
Clients by the thousand: each one asyncio protocol, which asks little of the machine.

Theory. A client logs in and then calls back at each ReadyForQuery. It looks at the last six bytes of what comes and at
nothing else, which leaves more of a small machine to those who are measured. `make` builds a client: one that logs in
by trust, or one that knows a password (scram.ScramClient). Each is a connection on this side too, so the limit of open
files is raised to what is allowed.
"""

import asyncio
import resource
from collections.abc import Callable
from typing import cast

from tests.bench.wire import ERROR, READY_LENGTH, TERMINATE, Address, Complaint, build_startup, is_ready, read_complaint

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
            return self.fail(read_complaint(data))
        tail = data[-READY_LENGTH:] if len(data) >= READY_LENGTH else (self._tail + data)[-READY_LENGTH:]
        if not is_ready(tail):
            self._tail = tail
            return None
        self._tail = b""
        if self.welcomed.done():
            return self._on_ready(self)
        return self.welcomed.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.fail("the connection was closed")

    def fail(self, words: str) -> None:
        """Whoever waits for us learns why it is in vain."""
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


Make = Callable[[Address, Callable[[Client], None]], Client]


def be_silent(client: Client) -> None:
    """What a client does that asks nothing."""


async def open_client(address: Address, on_ready: Callable[[Client], None], make: Make = Client) -> Client:
    """Connect and begin to log in. OSError when nobody listens."""
    here = asyncio.get_running_loop()
    _, client = await here.create_connection(lambda: make(address, on_ready), address.host, address.port)
    return client


async def log_in(
    address: Address, count: int, on_ready: Callable[[Client], None] = be_silent, make: Make = Client
) -> list[Client]:
    """That many clients, all logged in. Complaint when one is refused, TimeoutError after LOGIN_TIME."""
    crowd = [await open_client(address, on_ready, make) for _ in range(count)]
    await wait_welcomed(crowd)
    return crowd


async def wait_welcomed(crowd: list[Client]) -> None:
    """Until all are logged in. Complaint when one is refused, TimeoutError after LOGIN_TIME."""
    async with asyncio.timeout(LOGIN_TIME):
        for client in crowd:
            await client.welcomed


def hang_up(crowd: list[Client]) -> None:
    """Let all leave. Complaint when one was cut off before."""
    for client in crowd:
        if client.ended.done():
            client.ended.result()
        client.leave()


def raise_open_files() -> int:
    """Raise the soft limit of open files to the hard one; the limit that now holds."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
