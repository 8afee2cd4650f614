"""
Strangers: everybody who is connected and has not shown yet who he is.

Theory. Anybody can open a connection and say nothing, or say a name and never the password. So those who have not
logged in have room of their own: they take none of `max_client_conn`, and there are never more than `max_half_open`
of them. When one more comes an old one goes, since an honest login takes milliseconds: newcomers always get in
(cutting them off would let a thousand silent sockets lock everybody out). Of the oldest it is one of the address that
has sent most of them: a flood faster than a login throws out itself, and nobody whose login takes a little longer.

What is told of this, and of other things that strangers do as often as they like, is told seldom: see log/seldom.py.
"""

from collections import Counter
from itertools import islice
from typing import Any, Final

from protocol import sqlstate
from protocol.backend import build_error
from proxy.auth.guesses import Guesses
from proxy.log.seldom import PERIOD, Seldom

LOOKED_AT: Final = 32  # of the oldest: 10 us
LEAST: Final = 100  # max_half_open where nothing is said, and max_client_conn is small

TOO_MANY: Final = build_error(
    "FATAL",
    sqlstate.TOO_MANY_CONNECTIONS,
    "too many connections are logging in (max_half_open)",
    detail="The oldest give way to the newest.",
)
"""What whoever is thrown out hears. No numbers: we do not know who he is."""


class Strangers:
    """
    One per proxy. Those who have said nothing yet, or are asked there, stand in `proxy.doorsteps`, the others in
    `visits`, by arrival.
    """

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy
        self.visits: dict[Any, None] = {}
        self.dropped = 0
        self.guesses = Guesses(proxy)
        self._told = Seldom(proxy.clock.now)
        self.wrong_keys = Seldom(proxy.clock.now)  # cancel requests that are nobody's

    def __len__(self) -> int:
        return len(self._proxy.doorsteps) + len(self.visits)

    @property
    def limit(self) -> int:
        settings = self._proxy.settings
        limit: int = settings.max_half_open or max(settings.max_client_conn, LEAST)
        return limit

    @property
    def logging_in(self) -> int:
        """How many have said something, some of them on the doorstep still."""
        begun: int = sum(door.has_begun for door in self._proxy.doorsteps)
        return len(self.visits) + begun

    def check(self) -> None:
        """Somebody has come: is there room?"""
        limit = self.limit
        while len(self._proxy.doorsteps) + len(self.visits) > limit:
            self._drop(self._find_victim())

    def _find_victim(self) -> Any:
        fronts = [*islice(self.visits, LOOKED_AT), *islice(self._proxy.doorsteps, LOOKED_AT)]
        oldest = sorted(fronts, key=lambda front: front.arrived_at)[:LOOKED_AT]
        counts = Counter(each.address[0] for each in oldest)
        return max(oldest, key=lambda each: counts[each.address[0]])  # of several the first, which is the oldest

    def _drop(self, victim: Any) -> None:
        self.dropped += 1
        if self._told.is_time():
            words = f"more than {self.limit} connections have not logged in (max_half_open), an old one is closed"
            self._proxy.log.warning(f"{words}: it came from {victim.address}")
        victim.drop()
        self.leave(victim)

    def leave(self, visit: Any) -> None:
        """He has shown who he is, or is gone."""
        self.visits.pop(visit, None)

    def sweep(self) -> None:
        """Tell what has not been told."""
        if count := self._told.take_left_out():
            self._proxy.log.warning(f"{count} more connections were closed before they logged in (max_half_open)")
        if count := self.wrong_keys.take_left_out():
            self._proxy.log.log(f"{count} more cancel requests had a wrong key, in {PERIOD:g}s or more")
