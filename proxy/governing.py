"""
What an administrator does to a pool: pause it, have its servers leave, close it; and how he waits until that is done.

Theory. Nobody is asked to look again and again whether a pool has come to rest. Whoever waits leaves a question behind
(`_wait_until`), and it is asked whenever something has happened that may have changed its answer: a server has left,
the pool was paused, or is open again.

A reload may ask for more than was asked before: that what one client leaves in its session is nobody else's. What was
left until then nobody has looked at, so servers that may have some of it serve no other client (`outlive`). And what
clients have said that still waits is looked at anew, as it will be sent in the new world.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from protocol import sqlstate
from proxy.failing import LoginFailed
from proxy.rereading import reread
from proxy.states import CLEANING, CLOSED, CLOSING, IDLE, LINKED, TESTING, USED, Closing, PoolState

Hopes = list[tuple[Callable[[], bool], "asyncio.Future[None]"]]
"""What somebody waits for, and how he is told."""


class Governing:
    """The half of a pool that administrators deal with. Its attributes are the pool's."""

    def pause(self: Any) -> None:
        """Hand out no server any more; those that are idle leave now, the others when they are released."""
        self.state = PoolState.PAUSED
        self.close_idle(Closing.PAUSE)
        self.check_hopes()

    def unpause(self: Any) -> None:
        self.state = PoolState.OPEN
        self.check_hopes()
        self.grow()
        if self.lines is not None:
            self.lines.plan()

    def retire_servers(self: Any, why: Closing) -> None:
        """Every present server leaves at its next release, the idle ones now."""
        for place in self.places[:CLOSING]:
            for server in place:
                server.doomed = why
        self.close_idle(why)

    def outlive(self: Any, before: Any) -> None:
        """The habits of this pool are no longer those. What its clients have left on servers is nobody else's now."""
        habits, dirty = self.habits, []
        if before.is_leaking and not habits.is_leaking:
            dirty = [IDLE, USED, TESTING, CLEANING]
        if not (habits.is_private or before.is_tracking) and (before.is_private or habits.is_tracking):
            dirty.append(LINKED)  # a private one is reset when its client leaves it
        if habits.is_tracking and not before.pins_all_of(habits):
            dirty = [IDLE, USED, TESTING, CLEANING, LINKED]
        for state in dirty:
            for server in list(self.places[state]):
                server.doomed = server.doomed or Closing.STALE
                if state in (IDLE, USED):
                    server.close(Closing.STALE)
        if before.reader is not habits.reader:
            reread(self)
        if before.view != habits.view:
            for client in list(self.clients):
                client.weigh_anew()

    def close_idle(self: Any, why: Closing) -> None:
        for state in (IDLE, USED):
            for server in list(self.places[state]):
                server.close(why)

    def close_all(self: Any, why: Closing) -> None:
        """At once: clients first, so that nobody is resumed in between."""
        self._settle_welcomes(LoginFailed(sqlstate.ADMIN_SHUTDOWN, why.value))
        for client in list(self.clients):
            client.close(why)
        for place in self.places[:CLOSING]:
            for server in list(place):
                server.close(why)

    async def wait_quiet(self: Any) -> None:
        """Until nobody is using a server of this pool, or it is no longer paused: see which."""
        await self._wait_until(lambda: self.is_quiet or self.state is PoolState.OPEN)

    async def wait_doomed(self: Any) -> None:
        """Until every server that is to leave at its next release, and every one that is leaving now, has left."""
        leaving = [server for place in self.places for server in place if server.doomed or server.state is CLOSING]
        await self._wait_until(lambda: all(server.state is CLOSED for server in leaving))

    async def _wait_until(self: Any, comes_true: Callable[[], bool]) -> None:
        """`comes_true` is asked whenever a server has left, and at pause and unpause."""
        if not comes_true():
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._hopes.append((comes_true, future))
            await future

    def check_hopes(self: Any) -> None:
        for hope in list(self._hopes):
            comes_true, future = hope
            if future.done() or comes_true():
                self._hopes.remove(hope)
                if not future.done():
                    future.set_result(None)
