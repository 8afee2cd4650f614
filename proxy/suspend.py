"""
SUSPEND: nothing is read any more, what was read goes out, and then everything stands still until RESUME.

Theory. A process that is about to be replaced, or a network about to be changed, wants no bytes under way inside the
proxy. So no client, server or tunnel is read from here on, and once all they were owed has left our buffers the proxy
is quiet; whoever does not take it within `suspend_timeout` is closed. Whatever holds a stream asks before it lets it go
(`is_on`, in `let_go`), and since a login that was under way may still become a client, or a server's, all sockets are
looked at again every `TICK`. The janitor rests meanwhile: nobody can keep a timeout who is not heard.

Connections are still accepted: an operator must be able to come and say RESUME. A client that comes is not answered
until then, and its login does not time out before.
"""

import asyncio
from collections.abc import Iterator
from typing import Any, Final

from proxy.states import CLOSING, OPENING, Closing
from proxy.tunnel import Stage

TICK: Final = 0.05  # seconds


class Suspension:
    """One per proxy."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy
        self.is_on = False
        self._since = 0.0
        self._keeper: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self._over.set()

    def begin(self) -> None:
        self.is_on = True
        self._since = self._proxy.clock.now()
        self._over.clear()
        self._keeper = self._proxy.tasks.start(self._keep(), name="suspend")

    def end(self) -> None:
        """Everybody is read again who has no other reason not to be. Idempotent."""
        if not self.is_on:
            return
        self.is_on = False
        self._over.set()
        if self._keeper is not None:
            self._keeper.cancel()
        self._forgive(self._proxy.clock.now() - self._since)
        for stream in self._streams():
            if not _is_held_back(stream):
                stream.let_go()

    async def wait_over(self, scope: asyncio.Timeout) -> None:
        """Until nothing is suspended; the timeout of `scope` stands still meanwhile."""
        deadline = scope.when()
        if self.is_on:
            scope.reschedule(None)
            since = asyncio.get_running_loop().time()
            await self._over.wait()
            waited = asyncio.get_running_loop().time() - since
            scope.reschedule(None if deadline is None else deadline + waited)

    async def wait_quiet(self) -> None:
        """Until everything read has been sent on, or `suspend_timeout` has closed who does not take it, or RESUME."""
        while self.is_on and any(map(_is_busy, self._streams())):  # noqa: ASYNC110 - sockets tell nobody
            await asyncio.sleep(TICK)

    async def _keep(self) -> None:
        """Whoever becomes a stream while we are suspended is held too."""
        while self.is_on:
            patience = self._proxy.settings.suspend_timeout
            is_over = patience is not None and self._proxy.clock.now() - self._since > patience
            for stream in [*self._streams()]:
                stream.hold()
                if is_over and _is_busy(stream):
                    _close(stream)
            await asyncio.sleep(TICK)

    def _streams(self) -> Iterator[Any]:
        """Everything with a socket that is read as a stream."""
        pools = self._proxy.pools
        for pool in [*pools, *pools.dying]:
            yield from list(pool.clients)
            for place in pool.places[OPENING + 1 : CLOSING]:
                yield from list(place)
        for tunnel in [each for each in pools.tunnels if each.stage is Stage.OPEN]:
            yield tunnel.near
            yield tunnel.far

    def _forgive(self, span: float) -> None:
        """The time that stood still counts for no timeout."""
        for door in self._proxy.doorsteps:
            door.arrived_at += span
        for pool in [*self._proxy.pools, *self._proxy.pools.dying]:
            for client in pool.clients:
                client.request_at += span
                client.ready_at += span
                client.xact_at += span
                client.waiting_since += span
            if pool.lines is not None:
                pool.lines.forgive(span)
            for place in pool.places[OPENING + 1 : CLOSING]:
                for server in place:
                    server.deadline = None if server.deadline is None else server.deadline + span


def _is_busy(stream: Any) -> bool:
    """Has it not taken yet what it was sent?"""
    transport = stream.transport
    return not transport.is_closing() and transport.get_write_buffer_size() > 0


def _is_held_back(stream: Any) -> bool:
    """Does whoever gets its bytes take no more? (A client: itself.) Then it is let go when that is over."""
    partner = getattr(stream, "other", None) or getattr(stream, "client", stream)
    return partner is not None and partner.is_choked


def _close(stream: Any) -> None:
    (stream.tunnel if hasattr(stream, "tunnel") else stream).close(Closing.SUSPEND_TIMEOUT)
