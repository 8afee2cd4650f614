"""
How the process ends: who asks for it, what it waits for, and the last words.

Theory. Leaving is gentle by default: WAIT_FOR_CLIENTS serves those who are here until they go, WAIT_FOR_SERVERS lets
transactions end, IMMEDIATE does neither; who was SUCCEEDED by another process serves those who stayed with it. A second
wish to leave is immediate, and so is `shutdown_timeout`, since whoever waits for us to end may have less patience and
other means: one forgotten transaction would keep everybody out until we are killed without a word. Meanwhile the log
names who is waited for: nobody can ask on the console any more. Whatever may have been the last thing to wait for calls
`check_drained`. Whoever is still connected at the end is told so.
"""

import asyncio
import signal
from typing import Any

from proxy.audit import build_report
from proxy.clock import span
from proxy.explain import Explanation
from proxy.listener import Listener
from proxy.states import Closing, Leaving

LAST_BREATH = 0.2  # seconds for the last words to leave the sockets
TICK = 1 / 3  # seconds
REMIND = 5.0  # seconds until the log says who is waited for
REMIND_AGAIN = 60.0
MAX_NAMED = 3  # pools in one such line


class Draining:
    """The half of a proxy that leaves. Its attributes are the proxy's."""

    leaving: Leaving | None
    listeners: list[Listener]

    def on_leave(self: Any, number: signal.Signals, how: Leaving) -> None:
        """A signal wants us gone."""
        words = _LEAVING_WORDS[how] if self.leaving in (None, Leaving.SUCCEEDED) else " while shutting down, fast exit"
        self.log.log(f"got {number.name}{words}")
        self.leave(how)

    def leave(self: Any, how: Leaving) -> None:
        """Stop taking clients, and end as `how` says. A second call is immediate."""
        if self.leaving not in (None, Leaving.SUCCEEDED):
            how = Leaving.IMMEDIATE
        self.leaving = how
        self.log.log(f"shutting down: {how.value}")
        self.notifier.stopping()
        self.kin.leave()
        self.close_listeners()
        self.suspension.end()  # else nobody could ever finish
        if how is Leaving.WAIT_FOR_SERVERS:
            self.pools.pause(None)
        self.check_drained()
        if not self._gone.is_set():
            self.tasks.start(self._watch(self.clock.now()), name="leaving")

    async def _watch(self: Any, began: float) -> None:
        last = began
        while not self._gone.is_set():
            await asyncio.sleep(TICK)
            last = self.insist(began, last)

    def insist(self: Any, began: float, last: float) -> float:
        """A gentle end that takes long is told of, one that takes too long is made at once. When it was told last."""
        now: float = self.clock.now()
        waited, limit = now - began, self.settings.shutdown_timeout
        if limit is not None and waited >= limit:
            self.log.warning(f"shutdown_timeout ({limit:g} s) is over, fast exit: {self._name_hindrances()}")
            self.leave(Leaving.IMMEDIATE)
        elif now - last >= (REMIND if last == began else REMIND_AGAIN):
            self.log.warning(f"shutting down for {span(waited)}, still waiting: {self._name_hindrances()}")
            return now
        return last

    def _name_hindrances(self: Any) -> str:
        """Who or what keeps us here."""
        if self.leaving is Leaving.WAIT_FOR_CLIENTS:
            return f"clients are connected: {self.client_count}"
        busy = [pool for pool in [*self.pools, *self.pools.dying] if not pool.is_quiet]
        words = [Explanation(pool).tell_servers(None) for pool in busy[:MAX_NAMED]]
        return " ".join(words + [f"(and {len(busy) - MAX_NAMED} pools more)"] * (len(busy) > MAX_NAMED))

    def close_listeners(self: Any) -> None:
        for listener in self.listeners:
            listener.close()
        self.listeners = []

    def check_drained(self: Any) -> None:
        """Is everything gone that a gentle end waits for?"""
        if self.leaving is not None and self._is_drained(self.leaving):
            self._gone.set()

    def _is_drained(self: Any, how: Leaving) -> bool:
        if how is Leaving.SUCCEEDED:  # a caller may not have said yet that it wants to be a client
            has_callers = self.doorsteps or self.callers > len(self.consoles)
            return not (self.client_count or has_callers or self.kin.holds_us)
        if how is Leaving.WAIT_FOR_CLIENTS:
            return self.client_count == 0 and not self.strangers.logging_in
        if how is Leaving.WAIT_FOR_SERVERS:
            return all(pool.is_quiet for pool in [*self.pools, *self.pools.dying])
        return True

    async def wait_gone(self: Any) -> None:
        """Until somebody has told us to leave and nothing holds us back; then say goodbye to everyone."""
        await self._gone.wait()
        self.kin.finish()
        for line in build_report(list(self.pools)):
            self.log.log(line)
        self.pools.close_all(None, Closing.SHUTDOWN)
        await asyncio.sleep(LAST_BREATH)
        self.pools.close_all(None, Closing.SHUTDOWN)  # those whose login was under way
        await self.tasks.cancel_all()
        self.keeper.close()
        self.log.log("process down")


_LEAVING_WORDS = {  # PgBouncer's
    Leaving.WAIT_FOR_CLIENTS: ", shutting down, waiting for all clients disconnect",
    Leaving.WAIT_FOR_SERVERS: ", shutting down, waiting for all servers connections to be released",
    Leaving.IMMEDIATE: ", fast exit",
}
