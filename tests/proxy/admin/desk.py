"""An operator's desk: a proxy that is not started, a console on it, and what is heard there."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protocol import codes
from protocol.backend import parse_command_complete, parse_data_row, parse_error, parse_row_description
from protocol.frontend import SYNC_MESSAGE, build_query
from protocol.passwords import Plain, Secret
from proxy.admin.console import converse
from proxy.auth.users import Users
from proxy.client import Client
from proxy.config.ini import read
from proxy.inbox import PeerGone
from proxy.log import Address, Log
from proxy.login import Visitor
from proxy.main import Proxy
from proxy.server import Server
from proxy.states import ACTIVE, IDLE, LINKED, OPENING, move
from tests.fakes import FakeClock
from tests.proxy.auth.wire import Wire, joined

INI = """
[proxy]
listen_port = 6432
admin_users = ann
stats_users = watcher
default_pool_size = 7
[databases]
shop = host=10.0.0.1,10.0.0.2 user=web password=hunter2 pool_size=3 max_db_connections=9
bare =
* = host=10.0.0.9
[users]
joe = pool_size=2 pool_mode=session max_user_connections=5
"""
LINES = INI.replace("[proxy]", "[proxy]\npipeline_depth = 4\npipeline_servers = 1\npipeline_group = 1")


@dataclass
class Answer:
    """What came before a ReadyForQuery."""

    columns: list[tuple[str, int]] = field(default_factory=list)
    rows: list[tuple[str | None, ...]] = field(default_factory=list)
    tag: str = ""
    error: str = ""
    detail: str = ""
    hint: str = ""
    notice: str = ""

    def dicts(self) -> list[dict[str, str | None]]:
        names = [name for name, _ in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.rows]


class Line(Wire):
    """A socket whose other end is us; `unsent` bytes of what was written nobody has taken yet."""

    def __init__(self) -> None:
        super().__init__()
        self.is_read = True
        self.unsent = 0

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass


class Operator:
    """Somebody at the console."""

    def __init__(self, proxy: Proxy, user: str, *, is_owner: bool = False) -> None:
        us, self.inbox = joined()
        self.us = us
        visitor = Visitor(user, "pgbouncer", {"application_name": "psql"}, b"", 0, is_owner=is_owner)
        self.talk = asyncio.get_running_loop().create_task(converse(us, proxy, visitor, ("127.0.0.1", 5)))
        self.welcome: list[tuple[int, bytes]] = []

    async def enter(self) -> "Operator":
        while not self.welcome or self.welcome[-1][0] != codes.READY_FOR_QUERY:
            self.welcome.append(await self.hear())
        return self

    async def hear(self) -> tuple[int, bytes]:
        listening = asyncio.ensure_future(self.inbox.wait_message(1 << 20))
        await asyncio.wait({listening, self.talk}, return_when=asyncio.FIRST_COMPLETED)
        if not listening.done():
            await asyncio.sleep(0)
        if not listening.done():
            listening.cancel()
            self.talk.result()
            raise PeerGone("the console ended")
        return listening.result()

    def say(self, text: str) -> None:
        self.inbox.write(build_query(text))

    async def ask(self, text: str) -> Answer:
        self.say(text)
        return await self.answer()

    async def batch(self, *messages: bytes) -> list[tuple[int, bytes]]:
        """Messages of the extended protocol and a Sync; all that is heard up to its ReadyForQuery."""
        self.inbox.write(b"".join(messages) + SYNC_MESSAGE)
        heard = [await self.hear()]
        while heard[-1][0] != codes.READY_FOR_QUERY:
            heard.append(await self.hear())
        return heard

    async def answer(self) -> Answer:
        answer = Answer()
        while (message := await self.hear())[0] != codes.READY_FOR_QUERY:
            _note(answer, *message)
        return answer


def _note(answer: Answer, kind: int, body: bytes) -> None:
    if kind == codes.ROW_DESCRIPTION:
        answer.columns = [(column.name.decode(), column.type_oid) for column in parse_row_description(body)]
    elif kind == codes.DATA_ROW:
        answer.rows.append(tuple(None if value is None else value.decode() for value in parse_data_row(body)))
    elif kind == codes.COMMAND_COMPLETE:
        answer.tag = parse_command_complete(body).decode()
    elif kind == codes.ERROR_RESPONSE:
        fields = parse_error(body)
        answer.error = f"{fields.sqlstate} {fields.message}"
        answer.detail, answer.hint = fields.detail, fields.hint
    elif kind == codes.NOTICE_RESPONSE:
        fields = parse_error(body)
        answer.notice, answer.detail = fields.message, fields.detail


@asynccontextmanager
async def open_proxy(folder: Path, text: str = INI) -> AsyncIterator[Proxy]:
    (folder / "proxy.ini").write_text(text)
    users = Users({name: (Plain(Secret("secret")),) for name in ("ann", "joe", "watcher")})
    log = Log(str(folder / "log"), quiet=True)
    proxy = Proxy(read(str(folder / "proxy.ini")), users, log, FakeClock())
    try:
        yield proxy
    finally:
        await proxy.tasks.cancel_all()
        proxy.keeper.close()


def at_desk(
    folder: Path, story: Callable[[Proxy, Operator], Awaitable[None]], user: str = "ann", text: str = INI
) -> None:
    """Play `story` with a proxy and an operator who has been let in."""

    async def play() -> None:
        async with open_proxy(folder, text) as proxy:
            operator = await Operator(proxy, user).enter()
            try:
                await story(proxy, operator)
            finally:
                operator.talk.cancel()
                await asyncio.wait({operator.talk})

    asyncio.run(asyncio.wait_for(play(), 60))


def a_server(proxy: Proxy, database: str = "shop", user: str = "joe") -> Server:
    """An idle server in the pool of that database and user."""
    entry = proxy.config.find_database(database)
    assert entry is not None
    pool = proxy.pools.find(entry, user)
    server: Any = Server(pool)
    server.connection_made(Line())
    server.number = proxy._next_number()
    server.address, server.pid, server.key = ("10.0.0.1", 5432), 4711, b"\0\0\0\1key!"
    pool.places[OPENING][server] = None
    move(server, IDLE)
    return server


def a_client(proxy: Proxy, server: Server, user: str = "joe") -> Client:
    """A client linked to `server`."""
    key = proxy.cancels.mint_key()
    client = Client(server.pool, user, key, {"application_name": "shop"}, Address("10.1.1.1", 40000))
    client.connection_made(Line())
    proxy.client_arrived(client)
    move(server, LINKED)
    client.move(ACTIVE)
    client.server, server.client = server, client
    return client


TOLD = {"standard_conforming_strings": "on", "client_encoding": "UTF8", "application_name": "shop"}
READ = build_query("select 1")
ROW = b"T\0\0\0\6\0\0D\0\0\0\6\0\0C\0\0\0\rSELECT 1\0Z\0\0\0\5I"


async def lined(proxy: Proxy, count: int, server: Server | None = None) -> tuple[Server, list[Client]]:
    """`count` clients of a pool with lines, each with a read in the line of the one server; and that."""
    server = server or a_server(proxy)
    server.followed = dict(TOLD)
    pool = server.pool
    pool.lines.book.find_query(READ).is_trusted = True
    clients = []
    for number in range(count):
        client = Client(pool, "joe", proxy.cancels.mint_key(), server.followed, Address("10.1.1.1", 40000 + number))
        client.connection_made(Line())
        proxy.client_arrived(client)
        client.data_received(READ)
        clients.append(client)
    await settle()
    return server, clients


def hang_up(server: Server) -> None:
    """PostgreSQL closes its end."""
    server.connection_lost(None)


async def settle() -> None:
    """A few turns of the loop: what is under way comes to rest."""
    for _ in range(20):
        await asyncio.sleep(0)
