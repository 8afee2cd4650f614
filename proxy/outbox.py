"""
What is written to several in one turn of the event loop goes out together, at its end.

Theory. Who waits for an answer sleeps, and a write that wakes a process on another processor costs several times as
much as one to a process that is awake; where processors are few it takes ours besides, in the middle of our work. Many
clients are often few processes (a pool of connections, a load maker). Told one by one they sleep and are woken once
for each answer. Told together, the first answer wakes them and the others find them awake, and the work on the answers
is not interrupted by sending them. With one system call for all of them (ring.py) that is certain; without it they are
written one right behind another, which is nearly as good for clients and no worse for servers.

With few there is nothing to gain, and what is written goes out at once: its receiver works on it while we go on.

What one peer is told stays in order, by construction: `Wire` stands in front of the transport, and whatever is written
there, or asked that depends on it (has it read all? close it), finds its own bytes written first. A letter waits for
what else has come in with it, and one that is begun only then (by what was planned for the end of the turn) for one
look at the sockets more. None is longer than `LONGEST`: a flood does not gather here, and flow control is not late.

The event loop is asked for once: up to CPython 3.11 each `get_running_loop` is a system call (has the process forked?).
"""

import asyncio
from collections.abc import Callable, Collection
from itertools import islice
from operator import attrgetter, methodcaller
from typing import Any, Final, cast

from proxy.busy_poll import BusyPoll, Pace
from proxy.ring import LONGEST, Ring, open_ring

try:
    from uvloop.loop import TCPTransport, UnixTransport  # type: ignore[attr-defined]  # its stub does not name them
except ImportError:  # on plain asyncio each has a system call of his own
    _IN_PLAIN: tuple[type, ...] = ()
else:
    _IN_PLAIN = (TCPTransport, UnixTransport)  # what is written there is what goes out

AT_THE_DOOR: Final = 32  # so many that log in are a crowd
AT_WORK: Final = 8  # and so many servers that work for the clients of a pool
FEWEST: Final = 3  # a system call for all pays from so many on
UNKNOWN: Final = -2
NONE: Final = -1

_socket_of = attrgetter("socket")
_transport_of = attrgetter("transport")
_is_closing = methodcaller("is_closing")
_find_unsent = methodcaller("get_write_buffer_size")


class Outbox:
    """Of one process. `ring`: by which many letters go out at once; None: one after another."""

    __slots__ = ("_call_soon", "_warn", "busy_poll", "letters", "ring")

    def __init__(self, ring: Ring | None = None, warn: Callable[[str], object] = print) -> None:
        self.ring = ring
        self._warn = warn
        self.letters: dict[Wire, bytes] = {}  # what waits for the end of this turn, in order
        self.busy_poll = BusyPoll()
        self._call_soon: Callable[[Callable[[], None]], object] | None = None

    def open(self) -> str:
        """Have a ring. Empty, or why there is none."""
        ring = open_ring() if _IN_PLAIN else "uvloop is missing"
        self.ring = ring if isinstance(ring, Ring) else None
        return ring if isinstance(ring, str) else ""

    def begin(self) -> None:
        """Something is about to wait here."""
        if self._call_soon is None:
            self._call_soon = asyncio.get_running_loop().call_soon
        self._call_soon(self.send)

    def write_all(self, told: list[tuple[Any, bytes]]) -> None:
        """To each client what it is told, now."""
        if len(told) < FEWEST:
            for client, data in told:
                client.transport.write(data)
            return
        for client, data in told:
            client.transport.put(data)
        self.send()

    def send(self) -> None:
        """All letters go out."""
        letters = self.letters
        try:
            while letters:  # (what is written may bring about more)
                for wire in self._send_at_once():
                    wire.send_own()
        finally:
            if letters:  # one has failed, and is not among them any more
                self.begin()

    def _send_at_once(self) -> list["Wire"]:
        """Of the first letters as many as possible. Who has a letter still, or the rest of it."""
        letters, ring = self.letters, self.ring
        if ring is None or len(letters) < FEWEST:
            return list(letters)
        first = list(islice(letters, ring.room))
        ready = _find_ready(first)
        self._strike_out(ready, self._send_through(ring, ready))
        return [wire for wire in first if wire in letters] if letters else []

    def _send_through(self, ring: Ring, wires: list["Wire"]) -> list[int]:
        """How much of his letter each has taken; empty: all has been taken."""
        try:
            taken = ring.send(list(map(_socket_of, wires)), list(map(self.letters.__getitem__, wires)))
        except OSError:  # nobody knows what they have heard, and nothing is said twice
            taken = []
            for wire in wires:
                wire.transport.abort()
        if ring.is_broken:
            self.ring = None
            self._warn("io_uring: it failed; from here on each peer has a system call of his own")
        return taken

    def _strike_out(self, wires: list["Wire"], taken: list[int]) -> None:
        letters = self.letters
        if not taken and len(wires) == len(letters):
            letters.clear()
            return
        for number, wire in enumerate(wires):
            rest = letters[wire][max(taken[number], 0) :] if taken else b""
            if rest:
                letters[wire] = rest
            else:
                del letters[wire]


class Crowd:
    """Those who are told by one and the same: `audience`, which is a crowd when there are `least` of them. `pace`:
    how promptly they answer; None: nobody stays awake for that."""

    __slots__ = ("audience", "busy_poll", "least", "letters", "outbox", "pace")

    def __init__(self, audience: Collection[Any], least: int, outbox: Outbox, pace: Pace | None = None) -> None:
        self.audience = audience
        self.least = least
        self.outbox = outbox
        self.pace = pace
        self.busy_poll = outbox.busy_poll
        self.letters = outbox.letters

    def stay_awake(self, pace: Pace) -> None:
        """There is one. But a line works for many, and what is no client's is in no hurry."""
        (server,) = self.audience
        if not getattr(server.client, "is_line", True):
            self.busy_poll.begin(pace, self.audience)


class Wire:
    """A transport, in front of which what is written may wait for the end of the turn. What is not here is as there."""

    __slots__ = ("crowd", "socket", "transport")

    def __init__(self, transport: asyncio.Transport, crowd: Crowd) -> None:
        self.transport = transport
        self.crowd = crowd
        self.socket = UNKNOWN  # the descriptor under it; below 0: what is written there is not what goes out

    def find_socket(self) -> int:
        """Whose that is must be asked each time (`is_closing`); its number once, as that is a system call."""
        if self.socket == UNKNOWN:
            is_plain = isinstance(self.transport, _IN_PLAIN)
            self.socket = self.transport.get_extra_info("socket").fileno() if is_plain else NONE
        return self.socket

    def write(self, data: bytes) -> None:
        """Now, or with what others are told in this turn."""
        crowd = self.crowd
        letters = crowd.letters
        if letters:  # `put`, written out: all that is said comes by here
            letters[self] = data = letters[self] + data if self in letters else data
            if len(data) > LONGEST:
                self.send_own()
        elif len(crowd.audience) < crowd.least or len(data) > LONGEST:
            self.transport.write(data)
            if crowd.busy_poll.limit and len(crowd.audience) == 1 and crowd.pace is not None:
                crowd.stay_awake(crowd.pace)
        else:
            crowd.outbox.begin()
            letters[self] = data

    def put(self, data: bytes) -> None:
        """With what others are told; but what is long goes out at once, and we hear whether it is read."""
        letters = self.crowd.letters
        letters[self] = data = letters[self] + data if self in letters else data
        if len(data) > LONGEST:
            self.send_own()

    def send_own(self) -> None:
        """What waits here goes first."""
        data = self.crowd.letters.pop(self, b"")
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def __getattr__(self, name: str) -> Any:
        if self in self.crowd.letters:
            self.send_own()
        return getattr(self.transport, name)


def lay_wire(transport: asyncio.BaseTransport, crowd: Crowd) -> Any:
    """In front of `transport`, for one of that crowd."""
    return Wire(cast(asyncio.Transport, transport), crowd)


def _find_ready(wires: list[Wire]) -> list[Wire]:
    """Those of them whose socket has taken all that came before."""
    transports = list(map(_transport_of, wires))
    if min(map(_socket_of, wires)) >= 0 and not (
        any(map(_is_closing, transports)) or any(map(_find_unsent, transports))
    ):
        return wires
    return [
        wire
        for wire, transport in zip(wires, transports, strict=True)
        if not (transport.is_closing() or transport.get_write_buffer_size()) and wire.find_socket() >= 0
    ]
