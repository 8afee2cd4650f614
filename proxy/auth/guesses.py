"""
Guessing takes time: whoever has failed to log in waits before he may try again.

Theory. Each failure is remembered twice: of this address and this user, and of the address alone, for those who try
many users. The first few are free, since people mistype; then each next attempt waits, twice as long each time, up to
`auth_failure_delay`, and `MEMORY` after the last failure all is forgotten. The wait comes before the question, so it
tells nothing about the answer; it holds one small task and no thread, no server and no place of `max_client_conn`.

Many attempts at once gain nothing. Only so many of one pair, or of one address, are heard in the time of one delay (the
others wait as long, and are refused unheard: a flood that is refused at once comes back at once), and an answer that
has come while others failed waits too before anybody learns whether it was right.

Nobody is locked out. What an attacker does counts for his address alone: a right password from elsewhere never waits.
Behind a shared address, whoever has logged in before is not held to what others there do wrong as other users, and an
application with a wrong password in its file counts a few times for the address and no more: the rest is its own. A
success wipes out the failures of its pair; not those of the address, or one account of his own would give an attacker
as many guesses as he likes. Of IPv6 a /64 is one address, on a Unix socket it is the account.

A token that does not do counts like a wrong password; to ask where tokens are had, as libpq does first, counts nothing.

Memory is bounded: of pairs and of addresses the `CAPACITY` seen last, about 400 bytes each.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Hashable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_network
from typing import Any, Final, Generic, NamedTuple, TypeVar

from protocol import sqlstate
from protocol.errors import Refused
from proxy.auth.oauth import TokenRefused
from proxy.clock import span
from proxy.config.kinds import AuthType
from proxy.inbox import Inbox, PeerGone
from proxy.log import UNIX, as_address

FIRST: Final = 0.25  # seconds; doubles with every failure
MEMORY: Final = 600.0  # seconds after the last failure
CAPACITY: Final = 10_000

_UNASKED: Final = frozenset({AuthType.TRUST, AuthType.ANY})

K = TypeVar("K", bound=Hashable)
Pair = tuple[str, str]  # an address and a user


@dataclass(slots=True)
class Record:
    """What is remembered of one pair or address."""

    failures: int = 0
    failed_at: float = 0.0
    waiting: int = 0  # attempts that wait at the moment
    is_known: bool = False  # has logged in

    def find_delay(self, free: int, longest: float) -> float:
        over = self.failures - free
        return min(FIRST * 2.0 ** min(over - 1, 30), longest) if over > 0 else 0.0


class Attempt(NamedTuple):
    """A question that has been put, and how many had failed before."""

    pair: Pair
    before: int


class Ledger(Generic[K]):
    """Records of one kind. `free` failures cost nothing; `most` attempts wait at a time."""

    def __init__(self, free: int, most: int) -> None:
        self.free = free
        self.most = most
        self._records: OrderedDict[K, Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def find(self, key: K, now: float) -> Record | None:
        """What is known, unless it is too long ago."""
        record = self._records.get(key)
        if record is not None and record.failures and now - record.failed_at > MEMORY:
            record.failures = 0
        return record

    def is_clean(self, key: K) -> bool:
        """Has it not failed since it was right last?"""
        record = self._records.get(key)
        return record is None or not record.failures

    def recall(self, key: K) -> bool:
        """Has it been right before, and not wrong since? Then it is the last in line to be forgotten."""
        record = self._records.get(key)
        if record is None or record.failures or not record.is_known:
            return False
        self._records.move_to_end(key)
        return True

    def open(self, key: K, now: float) -> Record:
        """The same, made if there is none; the last in line to be forgotten."""
        record = self.find(key, now)
        if record is None:
            record = self._records[key] = Record()
            if len(self._records) > CAPACITY:
                self._records.popitem(last=False)
        else:
            self._records.move_to_end(key)
        return record

    def failing(self, now: float) -> Iterator[tuple[K, Record]]:
        for key in list(self._records):
            record = self.find(key, now)
            if record is not None and record.failures:
                yield key, record


PAIR_FREE, PAIR_MOST = 3, 10
ADDRESS_FREE, ADDRESS_MOST = 20, 100


class Guesses:
    """One per proxy."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy
        self.pairs: Ledger[Pair] = Ledger(PAIR_FREE, PAIR_MOST)
        self.addresses: Ledger[str] = Ledger(ADDRESS_FREE, ADDRESS_MOST)
        self.failed = self.delayed = self.refused = 0  # so far

    @asynccontextmanager
    async def attempt(
        self, address: tuple[str, int], user: str, inbox: Inbox, begun: Attempt | None = None
    ) -> AsyncIterator[None]:
        """
        Around the questions to somebody who says he is `user`. Refused: too many there wait for their turn. `begun`: he
        has been asked already, and did not have to wait for that.
        """
        if self._proxy.settings.auth_type in _UNASKED:
            yield
            return
        pair = (neighbourhood(address), user)
        if begun is None:
            await self._wait(pair, self._find_delay(pair), inbox)
        before = self._count(pair) if begun is None else begun.before
        try:
            yield
        except Refused as no:
            if no.sqlstate == sqlstate.INVALID_PASSWORD or isinstance(no, TokenRefused):
                delay = self._find_delay_for_others(pair, before)
                self._fail(pair)
                await self._wait(pair, delay, inbox)
            raise
        await self._wait(pair, self._find_delay_for_others(pair, before), inbox)
        self._succeed(pair)

    def begin(self, address: tuple[str, int], user: str) -> Attempt | None:
        """The same for a question that is put at once; None: it must wait. One that ends badly goes to `attempt`."""
        pair = (neighbourhood(address), user)
        if self.pairs.is_clean(pair) and self.addresses.is_clean(pair[0]):
            return Attempt(pair, 0)
        return None if self._find_delay(pair) else Attempt(pair, self._count(pair))

    def end_well(self, attempt: Attempt) -> bool:
        """The answer was right. False: before anybody learns that it must wait, in `attempt`."""
        if self.pairs.recall(attempt.pair):
            return True
        if self._find_delay_for_others(attempt.pair, attempt.before):
            return False
        self._succeed(attempt.pair)
        return True

    @property
    def longest(self) -> float | None:
        """The longest delay. A login that has to wait must still be in time."""
        settings = self._proxy.settings
        delay: float | None = settings.auth_failure_delay
        limit: float | None = settings.client_login_timeout
        return delay if delay is None or limit is None else min(delay, limit / 4)

    def _find_delay(self, pair: Pair) -> float:
        now, longest = self._proxy.clock.now(), self.longest or 0.0
        own, near = self.pairs.find(pair, now), self.addresses.find(pair[0], now)
        delay = own.find_delay(self.pairs.free, longest) if own is not None else 0.0
        if near is not None and not (own is not None and own.is_known and not own.failures):
            delay = max(delay, near.find_delay(self.addresses.free, longest))
        return delay

    def _count(self, pair: Pair) -> int:
        record = self.pairs.find(pair, self._proxy.clock.now())
        return record.failures if record is not None else 0

    def _find_delay_for_others(self, pair: Pair, before: int) -> float:
        """How long an answer waits because others have failed since it was asked for."""
        return self._find_delay(pair) if self._count(pair) > before else 0.0

    async def _wait(self, pair: Pair, delay: float, inbox: Inbox) -> None:
        """Refused: too many like it wait. PeerGone: it has left meanwhile.

        Who has only closed his half is gone too: or whoever says all at once, his guess included, would not wait.
        """
        if not delay:
            return
        now = self._proxy.clock.now()
        own, near = self.pairs.open(pair, now), self.addresses.open(pair[0], now)
        is_heard = own.waiting < self.pairs.most and near.waiting < self.addresses.most
        self.delayed += is_heard
        self.refused += not is_heard
        own.waiting += is_heard
        near.waiting += is_heard
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await inbox.wait_gone()
                raise PeerGone("the client left while its login waited")
        finally:
            own.waiting -= is_heard
            near.waiting -= is_heard
        if not is_heard:
            raise Refused(
                sqlstate.TOO_MANY_CONNECTIONS,
                "too many logins from your address wait after failed ones (auth_failure_delay)",
                hint=f"Try again in {span(delay)}, one at a time.",
            )

    def _fail(self, pair: Pair) -> None:
        self.failed += 1
        now = self._proxy.clock.now()
        own, near = self.pairs.open(pair, now), self.addresses.open(pair[0], now)
        self._note(own, self.pairs.free, f"user={pair[1]} from {pair[0]}")
        if own.failures <= self.pairs.free:
            self._note(near, self.addresses.free, f"from {pair[0]}")

    def _note(self, record: Record, free: int, who: str) -> None:
        record.failures += 1
        record.failed_at = self._proxy.clock.now()
        self._tell(record, free, who)

    def _tell(self, record: Record, free: int, who: str) -> None:
        """When it begins, and when it is as long as it gets."""
        longest = self.longest or 0.0
        delay = record.find_delay(free, longest)
        was = Record(record.failures - 1).find_delay(free, longest)
        if delay and (not was or was < delay == longest):
            self._proxy.log.warning(f"logins {who} are delayed by {span(delay)}: {record.failures} have failed")

    def _succeed(self, pair: Pair) -> None:
        record = self.pairs.open(pair, self._proxy.clock.now())
        record.failures = 0
        record.is_known = True

    def report(self) -> Iterator[tuple[str, str, Record, float]]:
        """Who has failed and is not forgotten: address, user ("" for all of the address), record, delay."""
        now, longest = self._proxy.clock.now(), self.longest or 0.0
        for address, record in self.addresses.failing(now):
            yield address, "", record, record.find_delay(self.addresses.free, longest)
        for (address, user), record in self.pairs.failing(now):
            yield address, user, record, record.find_delay(self.pairs.free, longest)


def neighbourhood(address: tuple[str, int]) -> str:
    """
    Who counts as one: an IPv4 address by itself, of IPv6 a /64, which is what one customer gets at the least. A socket
    for both tells IPv4 as ::ffff:10.0.0.7: these are no neighbours.
    """
    host = address[0]
    if host == UNIX:
        return f"{UNIX} uid={as_address(address).uid}"
    if ":" not in host:
        return host
    ip = IPv6Address(host.partition("%")[0])
    return str(ip.ipv4_mapped or ip_network((ip, 64), strict=False))
