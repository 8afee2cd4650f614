"""
Where named hosts are: a cache of the addresses behind names.

Theory. The system's resolver is asked and nobody else: /etc/hosts, DNS and whatever else the machine is set up with
count. It tells no TTL, so an answer is good for `dns_max_ttl` and a failure for `dns_nxdomain_ttl`. However many ask
for a name at once, it is looked up once (single flight); and nobody waits longer than PATIENCE for an answer. A lookup
may hang for half a minute, so each has a thread of its own, which holds up neither other lookups nor our end.

Two failures are not the same. "There is no such name" is an answer, and takes the old addresses away. "The name server
does not answer" is none: then the last addresses are used on, and the log says so, once; a database does not move
because DNS is down.

Names that servers are connected to are looked up again when their answer has become old (`sweep`), whether anybody
needs a new server or not. That is how a failover is noticed: an address that is no longer in the answer is reported
(`addresses_gone`), and the servers there leave at their next release. If a host cannot be reached its name is in doubt:
it is looked up again at once, since it may have moved.
"""

import asyncio
import contextlib
import math
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from proxy.tasks import Tasks

PATIENCE = 5.0  # seconds somebody waits for an answer; the lookup itself goes on, and its answer is for the next
BRIEFLY = 1.0  # the same where an old answer is at hand or the last one was bad; where both are so, not at all
TICK = 1.0  # seconds between two looks for answers that have become old, and between two lookups of a name in doubt
MAX_THREADS = 16  # lookups under way
MAX_NAMES = 1000
MAX_ADDRESSES = 64  # of one name
FORGET = 3600.0  # seconds a name is remembered that nobody asks for and no server is connected to

LookUp = Callable[[str], Awaitable[Sequence[str]]]

_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})


class LookupFailed(OSError):
    """A name that leads nowhere; the sentence says which and why."""


async def ask_system(name: str) -> list[str]:
    """All addresses, of both families, in the order in which the system prefers them. OSError, UnicodeError."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()
    try:
        threading.Thread(target=_ask, args=(name, loop, answer), name=f"look up {name}", daemon=True).start()
    except RuntimeError as error:  # no more threads
        raise OSError(str(error)) from error
    return await answer


def _ask(name: str, loop: asyncio.AbstractEventLoop, answer: "asyncio.Future[list[str]]") -> None:
    """In a thread: `answer` is set in `loop`, if that is still there."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        outcome: list[str] | Exception = [str(where[0]) for *_, where in found]
    except Exception as error:
        outcome = error
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_settle, answer, outcome)


def _settle(answer: "asyncio.Future[list[str]]", outcome: list[str] | Exception) -> None:
    if answer.done():
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)


class Name:
    """What is known about one name."""

    __slots__ = ("addresses", "asked_at", "error", "is_doubted", "is_gone", "looked_at", "pending", "since", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.addresses: tuple[str, ...] = ()  # of the last good answer
        self.looked_at = -math.inf  # when the last answer came, good or bad
        self.error = ""  # why that was a bad one
        self.is_gone = False  # it said that there is no such name
        self.is_doubted = False  # nobody was met there
        self.asked_at = 0.0  # when somebody wanted it last
        self.pending: asyncio.Task[None] | None = None
        self.since = 0.0  # when the pending lookup began

    @property
    def usable(self) -> tuple[str, ...]:
        """Where it is, as far as anybody knows."""
        return () if self.is_gone else self.addresses

    @property
    def patience(self) -> float:
        """How long a new answer is worth waiting for."""
        if self.error:
            return 0.0 if self.usable else BRIEFLY
        return BRIEFLY if self.usable else PATIENCE


class Resolver:
    """One per proxy. `world` has the clock, the log and the settings, and hears of addresses that are gone."""

    def __init__(self, tasks: Tasks, world: Any, look_up: LookUp | None = None) -> None:
        self._tasks = tasks
        self._world = world
        self._look_up = look_up
        self._names: dict[str, Name] = {}
        self._threads = asyncio.Semaphore(MAX_THREADS)

    def __len__(self) -> int:
        return len(self._names)

    @property
    def pending(self) -> int:
        """Lookups under way."""
        return sum(name.pending is not None for name in self._names.values())

    def known(self) -> Iterator[tuple[str, int, list[str]]]:
        """(name, seconds until it is looked up again, addresses), sorted."""
        for text, name in sorted(self._names.items()):
            left = name.looked_at + self._ttl(name) - self._now()
            yield text, math.ceil(max(left, 0.0)), list(name.usable)

    # For those who need an address.

    def begin(self, text: str) -> Name:
        """Look `text` up unless its answer is known and not old, or on its way. Does not wait."""
        name = self._names.get(text) or self._add(text)
        name.asked_at = self._now()
        if name.looked_at + self._ttl(name) <= self._now():
            self._start(name)
        return name

    def doubt(self, text: str) -> None:
        """A host of that name could not be reached."""
        if text in self._names:
            self._names[text].is_doubted = True

    async def find(self, text: str) -> tuple[str, ...]:
        """The addresses of `text`, the last known ones while the resolver fails. LookupFailed: there are none."""
        name = self.begin(text)
        left = name.since + name.patience - self._now()
        if name.pending is not None and left > 0:
            await asyncio.wait({name.pending}, timeout=left)
        if not name.usable:
            raise LookupFailed(f"{text}: {name.error or 'the resolver does not answer'}")
        return name.usable

    # Looking up.

    async def run(self) -> None:
        """Keep the names in use fresh."""
        await self._tasks.repeat(TICK, self.sweep, "the resolver")

    def sweep(self) -> None:
        """Names whose answer has become old: look up again those in use, forget those nobody wants."""
        now = self._now()
        old = [name for name in self._names.values() if now >= name.looked_at + max(self._ttl(name), TICK)]
        used = self._world.hosts_in_use() if old else ()
        for name in old:
            if name.text in used:
                self._start(name)
            elif now - name.asked_at > FORGET and name.pending is None:
                del self._names[name.text]

    def _add(self, text: str) -> Name:
        if len(self._names) >= MAX_NAMES:
            del self._names[min(self._names.values(), key=lambda name: name.asked_at).text]
        name = self._names[text] = Name(text)
        return name

    def _start(self, name: Name) -> None:
        if name.pending is None:
            name.since = self._now()
            name.pending = self._tasks.start(self._refresh(name), name=f"look up {name.text}")

    async def _refresh(self, name: Name) -> None:
        try:
            async with self._threads:
                found = await (self._look_up or ask_system)(name.text)
            addresses = tuple(dict.fromkeys(found))[:MAX_ADDRESSES]
            if not addresses:
                raise socket.gaierror(socket.EAI_NONAME, "no address")
        except (OSError, UnicodeError) as error:
            self._note_failure(name, error)
        else:
            self._note_answer(name, addresses)
        finally:
            name.pending, name.is_doubted = None, False

    def _note_answer(self, name: Name, addresses: tuple[str, ...]) -> None:
        before, was_failing = name.addresses, name.error
        if set(addresses) != set(before):
            name.addresses = addresses  # else as before: an order that changes with each answer is no news
        name.looked_at, name.error, name.is_gone = self._now(), "", False
        if was_failing:
            self._world.log.log(f"DNS lookup works again: {name.text} = {', '.join(name.addresses)}")
        gone = set(before) - set(addresses)
        if gone:
            self._world.log.log(f"DNS: {name.text} = {', '.join(addresses)}, no longer {', '.join(sorted(gone))}")
            self._world.addresses_gone(name.text, gone)

    def _note_failure(self, name: Name, error: Exception) -> None:
        is_gone = isinstance(error, UnicodeError) or getattr(error, "errno", None) in _NO_SUCH_NAME
        words = str(getattr(error, "strerror", None) or error)
        if words != name.error:
            is_stale = bool(name.addresses) and not is_gone
            used = f"; still used: {', '.join(name.addresses)}" if is_stale else ""
            self._world.log.warning(f"DNS lookup failed: {name.text}: {words}{used}")
        name.looked_at, name.error, name.is_gone = self._now(), words, is_gone

    def _ttl(self, name: Name) -> float:
        """How long its last answer is good for."""
        settings = self._world.settings
        ttl = float(settings.dns_nxdomain_ttl if name.error else settings.dns_max_ttl)
        return min(ttl, TICK) if name.is_doubted else ttl

    def _now(self) -> float:
        return float(self._world.clock.now())
