"""
Staying awake for a moment instead of going to sleep (`busy_poll_us`).

Theory. With few clients most of the time of a transaction is sleep: whoever has said something waits for the answer,
and to be woken costs 20 to 40 us on a virtual machine, of the one who sleeps and of the one who wakes him. So when
something was said, and one transaction is all that is under way, the event loop is given something to do for a few
microseconds: each time round it looks for the answer, and finds it without having slept. That takes processor time
nobody else wants, or so we believe: where more is under way, in this pool or another, or there is only one processor,
it is not done. Whatever else the event loop has to do is done meanwhile, as ever.

It pays where answers are quick. Where they are not it is done the more seldom: after each time in vain twice as many
are left out, until one is not. What servers answer and what clients ask next are two matters, each with a `Pace` of its
own: a client that thinks for seconds says nothing about the time that its queries take.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Final

MOST_LEFT_OUT: Final = 256
_PER_MICROSECOND: Final = 1_000  # nanoseconds


class Pace:
    """How promptly those answer who are told the same kind of things."""

    __slots__ = ("left_out", "to_leave_out")

    def __init__(self) -> None:
        self.left_out = 0
        self.to_leave_out = 0

    def is_left_out(self) -> bool:
        """Is this one of those for which nobody stays awake?"""
        if self.left_out >= self.to_leave_out:
            return False
        self.left_out += 1
        return True

    def slow_down(self) -> None:
        self.left_out, self.to_leave_out = 0, min(2 * self.to_leave_out + 1, MOST_LEFT_OUT)


class BusyPoll:
    """Of one process. `limit`: nanoseconds to stay awake for an answer; 0: not at all. `spent`: those it was awake."""

    __slots__ = (
        "_at_work", "_awaited", "_began", "_call_soon", "_end", "_is_awake", "_since", "limit", "of_clients",
        "of_servers", "spent",
    )  # fmt: skip

    def __init__(self) -> None:
        self.limit = 0
        self.spent = 0
        self.of_clients, self.of_servers = Pace(), Pace()
        self._call_soon: Callable[[Callable[[], None]], object] | None = None
        self._awaited: Pace | None = None  # whose answer we stay awake for
        self._end = 0  # and until when
        self._is_awake = False
        self._began = 0  # and since when
        self._at_work: object = None  # whose one server works, and since when it has been no other pool's
        self._since = 0

    def begin(self, pace: Pace, at_work: object) -> None:
        """Somebody has been told something, and is alone `at_work` in his pool: stay awake for his answer, unless
        somebody of another pool was a moment ago. So what we were awake for has come."""
        now = time.monotonic_ns()
        if at_work is not self._at_work:
            self._at_work, self._since = at_work, now
        elif self._awaited is not None and self._awaited is not pace:
            self._awaited.to_leave_out = 0
        if now < self._since + self.limit or pace.is_left_out():
            self._awaited = None
            return
        self._awaited, self._end = pace, now + self.limit
        if not self._is_awake:
            self._is_awake, self._began = True, now
            if self._call_soon is None:
                self._call_soon = asyncio.get_running_loop().call_soon
            self._call_soon(self._look)

    def _look(self) -> None:
        """Once round, in which the event loop looks for whatever has come."""
        now = time.monotonic_ns()
        if self._awaited is not None and now > self._end:
            self._awaited.slow_down()
            self._awaited = None
        self._is_awake = self._awaited is not None
        if self._is_awake:
            assert self._call_soon is not None
            self._call_soon(self._look)
        else:
            self.spent += now - self._began


def find_hindrance() -> str:
    """Why there is no busy polling here, if so."""
    count = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return "there is one processor, and others need it" if count < 2 else ""


def set_limit(proxy: Any) -> None:
    """As `busy_poll_us` says, if that makes sense."""
    microseconds = proxy.settings.busy_poll_us
    why = find_hindrance() if microseconds else ""
    if why:
        proxy.log.log(f"busy_poll_us: not here ({why})")
    proxy.outbox.busy_poll.limit = 0 if why else microseconds * _PER_MICROSECOND
