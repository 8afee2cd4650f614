"""
What a server tells a client: its answers, which are counted and passed on.

Theory. A client is the owner of the debts it has at its server (ledger.py): `deliver` brings bytes, `answered` is the
end of a unit, `finish` is both at once for the usual case, an answer that came whole. Each unit counts as a query with
the time since it was asked, and as a transaction when it leaves none open.
"""

from collections.abc import Mapping
from typing import Any

from protocol import codes
from protocol.backend import ErrorFields
from proxy.config.kinds import PoolMode
from proxy.envoys import NO_ALIASES
from proxy.reword import reword
from proxy.states import GONE, Closing

MAX_BACKLOG = 10_000  # requests of one client that may be unanswered before we stop reading it

_IDLE = codes.IDLE
_STATEMENT = PoolMode.STATEMENT


class Served:
    """The half of a client that is answered. Its attributes are the client's."""

    __slots__ = ()

    def deliver(self: Any, data: bytes) -> None:
        """Bytes of the server for this client."""
        if self.state is not GONE:
            self.pool.stats.sent += len(data)
            self.transport.write(data)
            if self.is_paced:
                self._ease()

    def finish(self: Any, server: Any, data: bytes) -> None:
        """The whole answer to one query of ours: `answered` and `deliver` in one."""
        began = self.request_at
        if server.status != _IDLE or began != self.xact_at or self.is_paced:
            self._finish_part(server, data)
            return
        pool = self.pool  # from here on the usual case: the query was a transaction of its own
        stats, now = pool.stats, pool.now()
        stats.lone_count += 1
        stats.lone_time += now - began
        self.request_at = self.xact_at = self.ready_at = server.ready_at = now
        stats.sent += len(data)
        self.transport.write(data)

    def _finish_part(self: Any, server: Any, data: bytes) -> None:
        """... which was part of a longer transaction."""
        pool = self.pool
        if self.is_paced or pool.limits.pool_mode is _STATEMENT:
            self.answered(server)
            self.deliver(data)
            return
        stats, now = pool.stats, pool.now()
        stats.query_count += 1
        stats.query_time += now - self.request_at
        self.request_at = self.ready_at = server.ready_at = now
        if server.status == _IDLE:
            stats.xact_count += 1
            stats.xact_time += now - self.xact_at
            self.xact_at = now
        stats.sent += len(data)
        self.transport.write(data)

    def answered(self: Any, server: Any) -> None:
        """A ReadyForQuery of ours has come."""
        stats, now = self.pool.stats, self.pool.now()
        stats.query_count += 1
        stats.query_time += now - self.request_at
        self.request_at = self.ready_at = server.ready_at = now
        if server.status == codes.IDLE:
            stats.xact_count += 1
            stats.xact_time += now - self.xact_at
            self.xact_at = now
        elif self.pool.limits.pool_mode is PoolMode.STATEMENT:
            self.close(Closing.STATEMENT_MODE)  # before it hears this ReadyForQuery, or it would miss our error

    def failed(self: Any, error: ErrorFields, aliases: Mapping[bytes, bytes] = NO_ALIASES) -> bytes | None:
        """An error of ours has come. What we are told instead, if our names must be put back into it; see reword.py."""
        if self.stall is not None:
            self.stall.has_failed = True
        if self.session is not None:
            self.session.hear_error()
        return reword(self, error, aliases) if self.statements is not None else None

    def voided(self: Any) -> None:
        """An error has paid our Parse, Close or Describe; those that matter have envoys."""

    def relieve(self: Any) -> None:
        """We do not wait for that."""

    def _ease(self: Any) -> None:
        """Some of too many requests have been answered. (Not only at a ReadyForQuery: its Sync may be yet to come.)"""
        if self.server is None or self.server.ledger.backlog < MAX_BACKLOG // 2:
            self.is_paced = False
            self.let_go()
