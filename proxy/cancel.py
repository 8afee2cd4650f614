"""
Cancelling: whose query a CancelRequest means, and how it gets there without hitting another's.

Theory. A client's key is ours, random, and known to one client only. A request that carries it has three possible
fates: the client still waits for a server (its requests are taken out of the queue and answered 57014, PostgreSQL
never hears of them); the client has a query running (we open a connection to that very server and send its own
key); or there is nothing to cancel, and nothing happens.

PostgreSQL cancels "whatever runs now", so a cancel that arrives late could hit the next client's query. Hence the
server counts the cancels on their way to it (`server.cancels`) and is not given to anybody before they have arrived.
PostgreSQL hangs up the connection of a cancel request after it has sent the signal, and a backend that
waits for its next command drops a pending cancel; so from that moment the server is safe.
"""

import asyncio
import secrets
from typing import Any

from protocol.startup import build_cancel_request
from proxy.chores import hearer
from proxy.inbox import PeerGone
from proxy.states import Closing
from proxy.tasks import Tasks

KEY_LENGTH = 8  # protocol 3.0: an int32 "process id" and an int32 secret
LONG_KEY_LENGTH = 36  # protocol 3.2 allows 4 + 4 to 256 bytes
HEAD_STEP = 0.005  # seconds between two looks at a server that is busy with our own SET


class Cancels:
    """The keys of all clients, and the cancel requests on their way."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._clients: dict[bytes, Any] = {}
        self.timeout: float | None = None  # cancel_wait_timeout
        self.forwarding = 0

    def __len__(self) -> int:
        return len(self._clients)

    def mint_key(self, *, is_long: bool = False) -> bytes:
        """A key no client has."""
        while True:
            key = secrets.token_bytes(LONG_KEY_LENGTH if is_long else KEY_LENGTH)
            if key not in self._clients:
                return key

    def register(self, client: Any) -> None:
        self._clients[client.key] = client

    def forget(self, client: Any) -> None:
        self._clients.pop(client.key, None)

    def request(self, key: bytes) -> None:
        """A CancelRequest with `key` has come. The asker learns nothing, as in PostgreSQL."""
        client = self._clients.get(key)
        if client is None or client.cancel_waiting():
            return
        server = client.server
        if server is not None and server.ledger.is_owing:
            self.issue(server, client)

    def issue(self, server: Any, client: Any = None) -> None:
        """Cancel what `server` runs; with `client`, only once it runs that client's request."""
        if server.key:
            server.cancels += 1
            self._tasks.start(self._issue(server, client), name=f"cancel on {server!r}")

    async def _issue(self, server: Any, client: Any) -> None:
        self.forwarding += 1
        try:
            async with asyncio.timeout(self.timeout):
                if await self._wait_turn(server, client):
                    await self._send(server)
        except (OSError, PeerGone, TimeoutError) as error:
            server.pool.world.log.for_socket(repr(server)).warning(f"cancel request failed: {str(error) or 'timeout'}")
        finally:
            self.forwarding -= 1
            server.cancels -= 1
            server.rest()

    async def _wait_turn(self, server: Any, client: Any) -> bool:
        """Until the server works for `client` and not on something of ours in front; False when nothing is left."""
        while client is not None:
            owner = server.ledger.head[1]
            is_held = client.server is server and client.held is not None  # behind something of ours, unsent
            if owner is client or (not is_held and hearer(owner) is client):
                return True
            if not is_held and client not in map(hearer, server.ledger.owners()):
                return False
            await asyncio.sleep(HEAD_STEP)
        return True

    async def _send(self, server: Any) -> None:
        """Returns when the request has arrived for certain. If not, it may arrive at any later time: nobody else may be
        there then, so the server is doomed."""
        inbox = await server.endpoint.connect(asyncio.get_running_loop())
        try:
            inbox.write(build_cancel_request(server.key))
            await inbox.wait_closed()
        except BaseException:
            server.doomed = Closing.UNCLEAN
            raise
        finally:
            inbox.close()
