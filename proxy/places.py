"""
Where a database's servers are, in which order the places are tried, and which of them are down.

Theory. An entry names hosts; a host is an address, the folder of a Unix socket, or a name with any number of addresses,
each of which is a place of its own. An opening tries one place after another until one lets it in, so a dead host costs
its clients a moment and not a failure. In `round-robin` each new server of a pool begins at the next host, and within a
name at its next address; in `disable` all of a database stay with one place until it fails, then with the next one.

A place that failed is down: until its back-off is over (it doubles, up to `server_login_retry`) it is tried last. Then
one opening tries it in its usual turn, briefly; the others go on leaving it for last. What is known of a place is known
to all pools. Nothing is asked of a place for its own sake: only openings say how it is, and the log says it once when a
place is down and once when it is back.

What a place cannot help is no failure of the place: a wrong password or a missing database is the same everywhere, and
ends the opening. `PlaceFailed` are those that may be different elsewhere.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from protocol import sqlstate
from proxy.config.entries import Database
from proxy.config.kinds import LoadBalance
from proxy.failing import LoginFailed
from proxy.inbox import Inbox
from proxy.pool import Pool
from proxy.resolver import LookupFailed

T = TypeVar("T")

FIRST_RETRY = 1.0  # seconds a place that failed is tried last; doubles with every failure
BRIEFLY = 2.0  # seconds for a place that was down, as long as there are others
UNLIMITED = 15.0  # seconds for one of several places where there is no server_connect_timeout
MAX_PLACES = 1000  # that something is remembered of
MAX_TOLD = 10  # of several places that failed, in one sentence
MAX_WORDS = 300  # characters of the reason of each


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place where a server listens. `host` is what the file says: a name, an IP address, the folder of a Unix
    socket (`@` for abstract); of a name, `address` is the one of its addresses that is meant."""

    host: str
    port: int
    address: str = ""

    @property
    def path(self) -> str | None:
        if self.host.startswith("/"):
            return f"{self.host}/.s.PGSQL.{self.port}"
        return f"\0{self.host[1:]}/.s.PGSQL.{self.port}" if self.host.startswith("@") else None

    @property
    def is_named(self) -> bool:
        """Must its host be looked up?"""
        if self.path is not None:
            return False
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return True
        return False

    @property
    def where(self) -> str:
        """What people are shown: a path or an address."""
        return (self.path or self.address or self.host).replace("\0", "@")

    def __str__(self) -> str:
        if self.path is not None:
            return self.where
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port} ({self.address})" if self.address else f"{host}:{self.port}"

    async def connect(self, loop: asyncio.AbstractEventLoop) -> Inbox:
        """A conversation with whoever listens there. OSError when nobody does."""
        if self.path is not None:
            _, inbox = await loop.create_unix_connection(Inbox, sock=_connect_unix(self.path))
        else:
            _, inbox = await loop.create_connection(Inbox, self.where, self.port)
        return inbox


def _connect_unix(path: str) -> socket.socket:
    """Never waits: a Unix socket is connected at once or not at all. (uvloop would take no abstract name.)"""
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.setblocking(False)
        connected.connect(path)
    except BaseException:
        connected.close()
        raise
    return connected


class PlaceFailed(LoginFailed):
    """This place does not let us in now; another one may."""


class Down:
    """Of a place that failed: how often, since when, and until when it is tried last."""

    __slots__ = ("failures", "retry_at", "since", "step")

    def __init__(self, now: float) -> None:
        self.failures = 0
        self.since = now
        self.step = 0.0  # the back-off
        self.retry_at = now


@dataclass(frozen=True, slots=True)
class Place:
    """One try of an opening. `failure`: it need not be tried, its name leads nowhere."""

    endpoint: Endpoint
    failure: LookupFailed | None = None


class Places:
    """One per proxy. `world` has the clock, the log, the resolver, and `find_hosts`."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self._turns: WeakKeyDictionary[Pool, int] = WeakKeyDictionary()
        self._chosen: dict[tuple[tuple[str, ...], int], Endpoint] = {}  # where load_balance_hosts = disable stays
        self._down: dict[Endpoint, Down] = {}

    # Which places, in which order.

    async def find(self, pool: Pool, database: Database) -> list[Place]:
        """All places of `database`, the one to be tried first in front, those that are down behind; at least one."""
        hosts = [Endpoint(host, database.port) for host in self._world.find_hosts(database)]
        for host in hosts:
            if host.is_named:
                self._world.resolver.begin(host.host)  # all at once
        groups = [await self._look_up(host) for host in hosts]
        arranged = self._arrange(pool, database, groups)
        unique = {place.endpoint: place for place in arranged}  # a host named twice has two turns and one try
        return sorted(unique.values(), key=lambda place: self.is_down(place.endpoint))

    async def _look_up(self, host: Endpoint) -> list[Place]:
        """The places of one host."""
        if not host.is_named:
            return [Place(host)]
        try:
            addresses = await self._world.resolver.find(host.host)
        except LookupFailed as failure:
            return [Place(host, failure)]
        self.worked(host)  # the name itself: it leads somewhere again
        return [Place(Endpoint(host.host, host.port, address)) for address in addresses]

    def _arrange(self, pool: Pool, database: Database, groups: Sequence[Sequence[Place]]) -> list[Place]:
        if _is_staying(database):
            places = _flatten(groups)
            return _rotate(places, self._find_chosen(database, places))
        turn = self._turns[pool] = self._turns.get(pool, -1) + 1
        round_, host = divmod(turn, len(groups))
        return _flatten(_rotate(group, round_) for group in _rotate(groups, host))

    def _find_chosen(self, database: Database, places: Sequence[Place]) -> int:
        """The index of the place to stay with: the same, else one of the same host, else the first of all."""
        chosen = self._chosen.get(_list_of(database))
        if chosen is None:
            return 0
        return max(range(len(places)), key=lambda at: _likeness(places[at].endpoint, chosen))

    # How they are.

    def is_down(self, endpoint: Endpoint) -> bool:
        """Has it failed, and is it not its turn to be tried again?"""
        down = self._down.get(endpoint)
        return down is not None and self._now() < down.retry_at

    def find_share(self, endpoint: Endpoint, until: float | None, left: int) -> float | None:
        """Until when (by the loop's clock) `endpoint` may take, one of `left` places to be tried up to `until`."""
        now = asyncio.get_running_loop().time()
        if left == 1:
            return until
        share = UNLIMITED if until is None else (until - now) / left
        return now + (min(share, BRIEFLY) if endpoint in self._down else share)

    def begin(self, endpoint: Endpoint) -> None:
        """Somebody tries it: if it was down, nobody else has to until that is over."""
        down = self._down.get(endpoint)
        if down is not None:
            down.retry_at = self._now() + down.step

    def worked(self, endpoint: Endpoint, database: Database | None = None) -> None:
        """It let us in. Where hosts are not balanced, `database` stays there."""
        down = self._down.pop(endpoint, None)
        if down is not None:
            self._world.log.log(f"host {endpoint} is back, after {self._now() - down.since:.0f}s")
        if database is not None and _is_staying(database):
            self._choose(database, endpoint)

    def _choose(self, database: Database, endpoint: Endpoint) -> None:
        if len(self._chosen) >= MAX_PLACES:
            self._chosen.clear()
        before = self._chosen.get(key := _list_of(database))
        self._chosen[key] = endpoint
        if before not in (None, endpoint):
            self._world.log.log(f"{','.join(database.hosts)}: new servers are at {endpoint}, no longer at {before}")

    def failed(self, endpoint: Endpoint, failure: LoginFailed, most: float) -> None:
        """It did not let us in: it is tried last for a while, at `most` so many seconds."""
        if endpoint.address:
            self._world.resolver.doubt(endpoint.host)  # it may be elsewhere by now
        down = self._down.get(endpoint)
        if down is None:
            if len(self._down) >= MAX_PLACES:
                del self._down[next(iter(self._down))]
            down = self._down[endpoint] = Down(self._now())
            self._world.log.warning(f"host {endpoint} is down: {failure.sentence}")
        down.failures += 1
        down.step = min(FIRST_RETRY * 2 ** min(down.failures - 1, 16), most)
        down.retry_at = self._now() + down.step

    def _now(self) -> float:
        return float(self._world.clock.now())


def sum_up(failures: Sequence[tuple[Endpoint, LoginFailed]]) -> LoginFailed:
    """Why an opening failed. That one of several places is starting up counts more than that others are dead."""
    if len(failures) == 1:
        return failures[0][1]
    states = {failure.sqlstate for _, failure in failures}
    state = sqlstate.CANNOT_CONNECT_NOW if sqlstate.CANNOT_CONNECT_NOW in states else sqlstate.CONNECTION_FAILURE
    told = [f"{endpoint}: {failure.sentence[:MAX_WORDS]}" for endpoint, failure in failures[:MAX_TOLD]]
    told += [f"and {len(failures) - MAX_TOLD} more"] if len(failures) > MAX_TOLD else []
    return LoginFailed(state, f"connect failed on every host: {'; '.join(told)}")


def _list_of(database: Database) -> tuple[tuple[str, ...], int]:
    return database.hosts, database.port


def _is_staying(database: Database) -> bool:
    """With one place until it fails; also where no host is named: the usual folders are guesses, not a choice."""
    return database.load_balance_hosts is LoadBalance.DISABLE or not database.hosts


def _likeness(endpoint: Endpoint, chosen: Endpoint) -> int:
    return (endpoint == chosen) + (endpoint.host == chosen.host)


def _flatten(groups: Iterable[Sequence[T]]) -> list[T]:
    return [each for group in groups for each in group]


def _rotate(row: Sequence[T], by: int) -> list[T]:
    by %= len(row)
    return [*row[by:], *row[:by]]
