"""
What time it is, asked in one place so that tests may answer.

Theory. Two questions, two answers. `now` measures spans: ages, waits, deadlines; it never jumps. `wall` tells
people when something happened; it jumps when somebody sets the clock, so nothing is ever computed from it.
Everything in the proxy that asks for the time is given a `Clock`; tests give it one that moves when told.
"""

import time
from datetime import datetime


class Clock:
    """The machine's clock."""

    __slots__ = ()

    def now(self) -> float:
        """Seconds since some fixed moment in the past; only differences mean anything."""
        return time.monotonic()

    def wall(self) -> datetime:
        """The date and time of day, with the local time zone."""
        return datetime.now().astimezone()
