"""
What time it is, asked in one place so that tests may answer.

Theory. Two questions, two answers. `now` measures spans: ages, waits, deadlines; it never jumps. `wall` tells
people when something happened; it jumps when somebody sets the clock, so nothing is ever computed from it.
Everything in the proxy that asks for the time is given a `Clock`; tests give it one that moves when told.
"""

import time
from collections.abc import Callable
from datetime import datetime


class Clock:
    """The machine's clock."""

    __slots__ = ()

    now: Callable[[], float] = staticmethod(time.monotonic)
    """Seconds since some fixed moment in the past; only differences mean anything. (No frame: it is asked often.)"""

    def wall(self) -> datetime:
        """The date and time of day, with the local time zone."""
        return datetime.now().astimezone()


def span(seconds: float) -> str:
    """A span as people read it: tenths only where they matter."""
    return f"{max(seconds, 0.0):.1f} s" if seconds < 10 else f"{seconds:.0f} s"
