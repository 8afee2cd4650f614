"""
Over how many servers lines are spread.

Theory. Where an administrator says so (`pipeline_servers`), over so many. Else it is found by trying, since it depends on
how many cores PostgreSQL has and what the queries do: every `PERIOD` under load the number of queries answered in it is
compared with that of the period before, and the width moves on in the direction that made it grow, by one. That is
climbing a hill by steps; it never stands still for long, and walks around the top once it is there. A step must gain
`GAIN` or it is taken back, so that where all widths are alike the smaller one is kept.
"""

from typing import Final

PERIOD: Final = 2.0  # seconds
GAIN: Final = 1.05
FIRST: Final = 2
WIDEST: Final = 64
IDLE_RATE: Final = 1_000  # queries per second below which nothing can be learnt
REST: Final = 15  # periods after a step that was taken back


class Spread:
    """Of one pool."""

    def __init__(self, now: float) -> None:
        self.width = FIRST
        self._fixed = 0
        self._since = now
        self._count = 0
        self._best = 0.0  # rate at the width before the step under trial; 0: no step is
        self._rest = 0

    def set_limit(self, servers: int) -> None:
        """`servers` of the configuration; 0: find it."""
        self._fixed = servers
        self.width = servers or self.width

    def note(self, now: float, count: int) -> None:
        """So many queries have been answered in all."""
        span = now - self._since
        if self._fixed or span < PERIOD:
            return
        rate, self._since = (count - self._count) / span, now
        self._count = count
        if span > 2 * PERIOD or rate < IDLE_RATE:
            return  # nobody has looked for long, or there is little to do
        self._judge(rate)

    def _judge(self, rate: float) -> None:
        if self._best:
            if rate < self._best * GAIN:
                self.width -= 1
                self._rest = REST
            self._best = 0.0
        elif self._rest:
            self._rest -= 1
        elif self.width < WIDEST:
            self._best = rate
            self.width += 1
