"""
Over how many servers lines are spread.

Theory. Where an administrator says so (`pipeline_servers`), over so many. Else it is found by trying, since it depends
on how many cores PostgreSQL has and on what the queries do. Under load one step is tried every now and then: the number
of queries answered in a period with it is compared with that of the period before. A step up must gain something
(`GAIN`), and going back must cost that again: else it was not the step, but load that has just begun to come. Then the
next one is tried at once. A step down stays unless it costs something. So where all widths are alike the smallest is
kept, which leaves most servers to those who need one of their own. A trial that fails costs something as well, so the
next one comes the later the more have failed, until load has been low: then it may be another.

Two periods can be compared only if there was load in both, all the time. When there is little to do a trial ends, a
step up as if it had not been, and the first period after that, of which only a part may have been busy, is compared
with nothing.
"""

from typing import Final

PERIOD: Final = 2.0  # seconds
GAIN: Final = 1.05
LOSS: Final = 0.98
FIRST: Final = 1
WIDEST: Final = 64
IDLE_RATE: Final = 1_000  # queries per second below which nothing can be learnt
REST: Final = 5  # periods between two trials, if the last one has brought something
LONGEST_REST: Final = 60  # if many have not


class Spread:
    """Of one pool."""

    def __init__(self, now: float) -> None:
        self.width = FIRST
        self._fixed = 0
        self._since = now
        self._count = 0
        self._best = 0.0  # rate at the width before the step under trial; 0: no step is
        self._rest = 1  # so many periods that nothing is compared with
        self._pause = REST  # and so many will be, behind this trial
        self._step = 1  # the next trial's direction

    def set_limit(self, servers: int) -> None:
        """`servers` of the configuration; 0: find it."""
        self._fixed = servers
        if servers:
            self.width, self._best = servers, 0.0

    def note(self, now: float, count: int) -> None:
        """So many queries have been answered in all."""
        span = now - self._since
        if self._fixed or span < PERIOD:
            return
        rate, self._since = (count - self._count) / span, now
        self._count = count
        if span > 2 * PERIOD or rate < IDLE_RATE:
            self._break_off()  # nobody has looked for long, or there is little to do
        else:
            self._judge(rate)

    def _break_off(self) -> None:
        if self._best and self._step > 0:
            self.width -= 1
        self._best = 0.0
        self._rest, self._pause = min(max(self._rest, 1), REST), REST  # what comes may be another load

    def _judge(self, rate: float) -> None:
        """`rate` is that of the period that is over."""
        if self._best:
            is_good = rate >= self._best * (GAIN if self._step > 0 else LOSS)
            self._best = 0.0
            self._pause = REST if is_good else min(2 * self._pause, LONGEST_REST)
            if not is_good:
                self.width -= self._step
                self._step = -self._step
            elif self._step > 0:
                self._step = -1
                self._try(rate)
                return
            self._rest = self._pause if self._step < 0 else 0
        elif self._rest:
            self._rest -= 1
        else:
            self._step = 1 if self.width == 1 else -1 if self.width == WIDEST else self._step
            self._try(rate)

    def _try(self, rate: float) -> None:
        """One step further than where `rate` was measured."""
        self._best = rate
        self.width += self._step
