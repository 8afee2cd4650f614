"""
What may be said now and then, however often it happens.

Theory. A stranger decides how often some things happen, and so how much of the disk their lines take. Such a line is
said the first time and then once in `period` seconds at most; those left out are counted, and the count is said by
whoever looks regularly (`take_left_out`). So nothing is hidden, and nobody can fill a log.
"""

from collections.abc import Callable
from typing import Final

PERIOD: Final = 10.0  # seconds


class Seldom:
    """One kind of line. `now` is a clock."""

    __slots__ = ("_left_out", "_next", "_now", "_period")

    def __init__(self, now: Callable[[], float], period: float = PERIOD) -> None:
        self._now = now
        self._period = period
        self._next = now()
        self._left_out = 0

    def is_time(self) -> bool:
        """May it be said now? If not, it is counted."""
        now = self._now()
        if now < self._next:
            self._left_out += 1
            return False
        self._next = now + self._period
        return True

    def take_left_out(self) -> int:
        """How many were left out, when it is time to say so; 0 when it is not, or there are none."""
        if not self._left_out or self._now() < self._next:
            return 0
        count, self._left_out = self._left_out, 0
        self._next = self._now() + self._period
        return count
