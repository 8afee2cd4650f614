"""
What happens because time passes: timeouts, ages, minimum sizes, averages.

Theory. The streams set no timers. They note when something began, and every `TICK` one sweep compares. A timeout is
therefore kept within a third of a second, and a query costs no timer. A sweep looks at servers (few) and at the
front of each queue (the oldest), and at all clients only if a client_idle_timeout is set.

A proxy may have thousands of pools, most of which nobody uses. Such a pool costs a few comparisons: when nobody waits
and no server is busy, what can be due is the age of what is idle, and `look_at` says before when that cannot be. It is
reckoned with everything that may become idle meanwhile, so that the streams need not tell; new limits reset it.
`retire_at` is the same for servers in use, which in session mode are busy for as long as their clients stay; their
queries are looked at only where there is a timeout for them.

A server that is too old is closed when idle; in use, it is `doomed` and leaves at its next release. Lifetimes carry
a jitter of up to a tenth, or servers opened together would all leave together.
"""

import math
from typing import Any

from proxy.overtime import find_rest_timeout, find_timeout, has_timeouts, is_over, is_quiet, send_away
from proxy.patience import Patience
from proxy.pool import Pool
from proxy.states import CLEANING, CLOSING, IDLE, LINKED, TESTING, USED, Closing, Leaving, PoolState, move

TICK = 1 / 3  # seconds, as PgBouncer's
JITTER = 0.1  # of server_lifetime

OUTDATED = frozenset({Closing.STALE, Closing.RECONNECT})
_OVERDUE = {LINKED: Closing.SAID_GOODBYE, TESTING: Closing.TEST_TIMEOUT, CLEANING: Closing.CLEANING_TIMEOUT}


class Janitor:
    """One per proxy."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy
        self._now = proxy.clock.now
        self._patience = Patience(proxy.clock.now)
        self._stats_since = self._now()

    async def run(self) -> None:
        await self._proxy.tasks.repeat(TICK, self.sweep, "the janitor")

    def sweep(self) -> None:
        """Everything once. While nothing is read nobody can be late."""
        if self._proxy.is_suspended:
            return
        now = self._now()
        for pool in self._proxy.pools:
            self._sweep_pool(pool, now)
        for hub in self._proxy.pools.hubs():
            hub.sweep()
        self._sweep_doorsteps()
        self._proxy.strangers.sweep()
        self._proxy.pools.forget_unused()
        for pool in list(self._proxy.pools.dying):
            self._sweep_overdue(pool)
        if self._now() - self._stats_since >= self._proxy.settings.stats_period:
            self._roll_stats()

    def _sweep_doorsteps(self) -> None:
        """Those at the front have been silent for longest."""
        limit, doors = self._proxy.settings.client_login_timeout, self._proxy.doorsteps
        while doors and is_over(limit, self._now() - next(iter(doors)).arrived_at):
            next(iter(doors)).expire()

    def _sweep_pool(self, pool: Pool, now: float) -> None:
        _, idle, used, testing, linked, cleaning, closing = pool.places
        if pool.is_wanted:
            self._sweep_waiting(pool)
        if pool.lines is not None:
            self._patience.sweep_lines(pool)
        if linked:
            self._sweep_linked(pool, now)
        if now >= pool.look_at and (idle or used):
            self._sweep_idle(pool)
            pool.look_at = self._find_due(pool)
        if testing or cleaning or closing or any(server.deadline for server in linked):
            self._sweep_overdue(pool)
        if pool.clients:
            self._sweep_clients(pool)
        if pool.limits.min_pool_size:
            self._keep_size(pool)

    def _find_due(self, pool: Pool) -> float:
        """Before when nothing in `pool` can have been idle for too long or be too old, whatever happens until then."""
        limits = pool.limits
        now: float = self._now()
        if limits.reserve_pool_size or self._count_excess(pool, 0) > 0:
            return now
        idle = math.inf if limits.server_idle_timeout is None else limits.server_idle_timeout
        check = math.inf if limits.server_check_query is None else limits.server_check_delay
        due: float = now + min(limits.server_lifetime * (1 - JITTER), idle, check)  # of those that are not here yet
        for place in pool.places[:CLOSING]:
            for server in place:
                lifetime = limits.server_lifetime * (1 - JITTER * server.spread)
                due = min(due, server.opened_at + lifetime, server.ready_at + idle)
                if server.state is not USED:
                    due = min(due, server.ready_at + check)
        return due

    def _sweep_waiting(self, pool: Pool) -> None:
        if pool.is_wanted:
            self._patience.sweep(pool)
            pool.grow()
            self._proxy.pools.relieve(pool)

    def _sweep_linked(self, pool: Pool, now: float) -> None:
        if pool.limits.server_fast_close or has_timeouts(pool.limits):
            self._sweep_users(pool)
        if now >= pool.retire_at:
            self._retire(pool)
            pool.retire_at = self._find_retirement(pool)

    def _sweep_users(self, pool: Pool) -> None:
        """Those who have a server, and may have been at it for too long."""
        for server in list(pool.places[LINKED]):
            client = server.client
            why = find_timeout(client, server, self._now()) if client is not None else None
            if why is not None:
                send_away(client, why, self._now())
            elif pool.limits.server_fast_close and is_in_the_way(server):
                client.close(Closing.STALE)

    def _retire(self, pool: Pool) -> None:
        """Servers in use that are to leave when they are released."""
        doomed = sum(server.doomed is not None for server in pool.places[LINKED])
        too_many = self._count_excess(pool, pool.limits.reserve_pool_size) - doomed
        for server in pool.places[LINKED]:
            if server.doomed is None and self._is_too_old(server):
                server.doomed = Closing.LIFETIME
            elif server.doomed is None and too_many > 0:
                too_many -= 1
                server.doomed = Closing.OVER_LIMIT

    def _find_retirement(self, pool: Pool) -> float:
        """Before when nothing in `pool` can be too old or too many, whatever happens until then."""
        now, limits = self._now(), pool.limits
        if self._count_excess(pool, limits.reserve_pool_size) > 0:
            return float(now)
        due = now + limits.server_lifetime * (1 - JITTER)  # of those that are not here yet
        for place in pool.places[:CLOSING]:
            for server in place:
                if server.doomed is None:
                    due = min(due, server.opened_at + limits.server_lifetime * (1 - JITTER * server.spread))
        return float(due)

    def _count_excess(self, pool: Pool, reserve: int) -> int:
        """By how many servers the pool is too large, since its size was lowered or its reserve is no longer needed."""
        limits = pool.limits
        if limits.pool_size is None:
            return 0
        return pool.size - len(pool.places[CLOSING]) - limits.pool_size - reserve

    def _sweep_idle(self, pool: Pool) -> None:
        limits, now = pool.limits, self._now()
        staying = pool.size - len(pool.places[CLOSING])
        excess = staying - pool.min_size
        too_many = self._count_excess(pool, 0)
        for state in (USED, IDLE):
            for server in list(pool.places[state]):
                idle_for = now - server.ready_at
                if self._is_too_old(server):
                    server.close(Closing.LIFETIME)
                elif too_many > 0:
                    too_many -= 1
                    server.close(Closing.OVER_LIMIT)
                elif is_over(limits.server_idle_timeout, idle_for) and excess > 0:
                    excess -= 1
                    server.close(Closing.IDLE_TIMEOUT)
                elif state is IDLE and limits.server_check_query is not None and idle_for > limits.server_check_delay:
                    move(server, USED)

    def _is_too_old(self, server: Any) -> bool:
        return bool(server.age > server.pool.limits.server_lifetime * (1 - JITTER * server.spread))

    def _sweep_overdue(self, pool: Pool) -> None:
        """Servers that do not do in time what we asked of them ourselves."""
        now = self._now()
        for state, why in _OVERDUE.items():
            for server in list(pool.places[state]):
                if server.deadline is not None and now > server.deadline:
                    server.close(why)
        for server in list(pool.places[CLOSING]):
            if now > server.deadline:
                server.transport.abort()

    def _sweep_clients(self, pool: Pool) -> None:
        idle, begun = pool.limits.client_idle_timeout, pool.limits.idle_transaction_timeout
        if idle is None and (begun is None or not pool.habits.is_deferring):
            return
        now = self._now()
        for client in list(pool.clients):
            why = find_rest_timeout(client, now)
            if why is not None:
                send_away(client, why, now)

    def _keep_size(self, pool: Pool) -> None:
        """Pre-warm: one more server, while there are fewer than `min_pool_size`."""
        if self._proxy.leaving is Leaving.SUCCEEDED:
            return
        if pool.state is PoolState.OPEN and pool.size < pool.min_size and pool.find_obstacle() is None:
            pool.open_one()

    def _roll_stats(self) -> None:
        proxy, now = self._proxy, self._now()
        period = now - self._stats_since
        for pool in proxy.pools:
            pool.averages.roll(pool.stats, period)
        self._stats_since = now
        proxy.log_stats()


def is_in_the_way(server: Any) -> bool:
    """Is it to leave, kept by a session that does nothing at the moment? (server_fast_close)"""
    if server.doomed not in OUTDATED or not server.pool.is_private:
        return False
    return is_quiet(server.client) and not server.client.remain and server.client.held is None
