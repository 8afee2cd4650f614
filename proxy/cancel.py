"""
Cancelling: whose query a CancelRequest means, and how it gets there without hitting another's.

Theory. A client's key is ours, random, and known to one client only. A request that carries it has four possible
fates: the client still waits for a server (its requests are taken out of the queue and answered 57014, PostgreSQL
never hears of them); the client has a query running (we open a connection to that very server and send its own
key); there is nothing to cancel, and nothing happens; or the client is another process's (peers.py).

A key is found by its hash, which is keyed anew in each process: the time it takes says nothing about how much of a
guess was right, and 62 random bits of the short ones, 286 of the long ones, are not found by trying. What is wrong is
answered by nothing and costs a look-up; the log tells it seldom (strangers.py).

Whoever asks is kept until that is decided, as PostgreSQL does: libpq waits for it, so that what its program sends next
is not what is hit.

Whoever asks a thousand times does not have us make a thousand connections to a server: of one client there is one
request on its way there, and at most one behind it, which all who ask meanwhile share. So each has one sent after it
was asked.

PostgreSQL cancels "whatever runs now", so a cancel that arrives late could hit the next client's query. Hence the
server counts the cancels on their way to it (`server.cancels`) and is not given to anybody before they have arrived.
PostgreSQL hangs up the connection of a cancel request after it has sent the signal, and a backend that
waits for its next command drops a pending cancel; so from that moment the server is safe.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from protocol.startup import build_cancel_request
from proxy.chores import Preface, is_for
from proxy.inbox import PeerGone
from proxy.peers import SENT, TIMED_OUT, UNKNOWN, Peers, as_given_out, stamp
from proxy.states import Closing
from proxy.tasks import Tasks

KEY_LENGTH = 8  # protocol 3.0: an int32 "process id" and an int32 secret
LONG_KEY_LENGTH = 36  # protocol 3.2 allows 4 + 4 to 256 bytes
NOT_WAITING = "cancel request for a client that runs nothing"
WAS_WAITING = "cancel request served while the client waited"
FAILED = "cancel request failed"
_FIRST_BYTES = tuple(bytes([byte & 0x3F | 0x40]) for byte in range(256))
HEAD_STEP = 0.005  # seconds between two looks at a server that is busy with our own SET


def find_key_length(*, is_long: bool) -> int:
    return LONG_KEY_LENGTH if is_long else KEY_LENGTH


class Cancels:
    """The keys of all clients, and the cancel requests on their way."""

    def __init__(self, tasks: Tasks, peers: Peers | None = None) -> None:
        self._tasks = tasks
        self._peers = peers
        self._clients: dict[bytes, Any] = {}
        self.timeout: float | None = None  # cancel_wait_timeout
        self.forwarding = 0
        self._last: dict[tuple[Any, Any], asyncio.Task[str]] = {}  # by server and client, what was asked for last
        self._behind: set[asyncio.Task[str]] = set()  # those of them that wait for the one before
        self.relay: Callable[[bytes], Awaitable[bool]] | None = None  # to the processes before and after us

    def __len__(self) -> int:
        return len(self._clients)

    def mint_key(self, *, is_long: bool = False) -> bytes:
        """A key no client has."""
        while True:
            key = os.urandom(find_key_length(is_long=is_long))
            # To many it is a process id: no such is negative, and none so large. So whoever takes it for the id of his
            # backend, and terminates that, ends nobody.
            key = _FIRST_BYTES[key[0]] + key[1:]
            if self._peers is not None and self._peers.own_number is not None:
                key = stamp(key, self._peers.own_number)
            if key not in self._clients:
                return key

    def register(self, client: Any) -> None:
        self._clients[client.key] = client

    def forget(self, client: Any) -> None:
        self._clients.pop(client.key, None)

    def find(self, key: bytes) -> Any:
        """The client that has `key`, however often that has been forwarded; None: it is not here."""
        client = self._clients.get(key)
        if client is None and self._peers is not None and self._peers.own_number is not None:
            client = self._clients.get(as_given_out(key))
        return client

    async def serve(self, key: bytes) -> str:
        """A CancelRequest with `key` has come; what became of it, for the log. The asker learns nothing."""
        client = self.find(key)
        if client is None:
            result = await self._peers.forward(key) if self._peers is not None else UNKNOWN
            is_served = result is UNKNOWN and self.relay is not None and await self.relay(key)
            return SENT if is_served else result
        if client.cancel_waiting():
            return WAS_WAITING
        sending = self._request(client)
        if sending is None:
            return NOT_WAITING
        await asyncio.wait({sending})
        return sending.result() if not sending.cancelled() else FAILED

    def request(self, key: bytes) -> None:
        """The same, and nobody waits for it."""
        client = self.find(key)
        if client is not None and not client.cancel_waiting():
            self._request(client)

    def _request(self, client: Any) -> "asyncio.Task[str] | None":
        server = client.server
        if client.unit is not None:
            server = client.unit.prepare_cancel()
        return self._join(server, client) if server is not None and server.ledger.is_owing else None

    def _join(self, server: Any, client: Any) -> "asyncio.Task[str] | None":
        """As `issue`, but one after the other; one that has not begun serves whoever comes."""
        key = server, client
        last = self._last.get(key)
        if last in self._behind:
            return last
        task = self.issue(server, client) if last is None else self._issue_behind(last, server, client)
        if task is not None:
            self._last[key] = task
            task.add_done_callback(lambda task: self._finish(key, task))
        return task

    def _finish(self, key: tuple[Any, Any], task: "asyncio.Task[str]") -> None:
        self._behind.discard(task)
        if self._last.get(key) is task:
            del self._last[key]

    def _issue_behind(self, last: "asyncio.Task[str]", server: Any, client: Any) -> "asyncio.Task[str]":
        async def issue() -> str:
            await asyncio.wait({last})
            self._behind.discard(task)
            server.cancels += 1
            return await self._issue(server, client)

        task = self._tasks.start(issue(), name=f"one more cancel on {server!r}")
        self._behind.add(task)
        return task

    def issue(self, server: Any, client: Any = None) -> "asyncio.Task[str] | None":
        """Cancel what `server` runs; with `client`, only once it runs that client's request."""
        if not server.key:
            return None
        server.cancels += 1
        return self._tasks.start(self._issue(server, client), name=f"cancel on {server!r}")

    async def _issue(self, server: Any, client: Any) -> str:
        self.forwarding += 1
        try:
            async with asyncio.timeout(self.timeout):
                if not await self._wait_turn(server, client):
                    return NOT_WAITING
                await self._send(server)
                return SENT
        except (OSError, PeerGone, TimeoutError) as error:
            server.pool.world.log.for_socket(server.tag).warning(f"cancel request failed: {str(error) or 'timeout'}")
            return TIMED_OUT if isinstance(error, TimeoutError) else FAILED
        finally:
            self.forwarding -= 1
            server.cancels -= 1
            server.rest()

    async def _wait_turn(self, server: Any, client: Any) -> bool:
        """Until the server works for `client` and not on something of ours in front; False when nothing is left.

        A `Preface` is answered together with what follows it, so nobody sees when that begins. It takes no time.
        """
        has_looked = False
        while client is not None:
            owner = server.ledger.head[1]
            if has_looked and isinstance(owner, Preface) and server.client is client:
                return True
            has_looked = True
            is_held = client.server is server and client.held is not None  # behind something of ours, unsent
            if owner is client or (not is_held and is_for(owner, client)):
                return True
            if not is_held and not any(is_for(each, client) for each in server.ledger.owners()):
                return False
            await asyncio.sleep(HEAD_STEP)
        return True

    async def _send(self, server: Any) -> None:
        """Returns when the request has arrived for certain. If not, it may arrive at any later time: nobody else may be
        there then, so the server is doomed."""
        inbox = await server.endpoint.connect(asyncio.get_running_loop())
        try:
            if server.tls is not None:
                await server.tls.begin(inbox, server.endpoint.host)
            inbox.write(build_cancel_request(server.key))
            await inbox.wait_closed()
        except BaseException:
            server.doomed = Closing.UNCLEAN
            raise
        finally:
            inbox.close()
