"""Stand-ins for the world: what the second ring of tests gives the proxy instead of clocks and sockets."""

from datetime import UTC, datetime, timedelta

from proxy.clock import Clock


class FakeClock(Clock):
    """A clock that stands still until told: `advance` moves both its answers by so many seconds."""

    __slots__ = ("_now", "_wall")

    def __init__(self, now: float = 1000.0, wall: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) -> None:
        self._now = now
        self._wall = wall

    def now(self) -> float:
        return self._now

    def wall(self) -> datetime:
        return self._wall

    def advance(self, seconds: float) -> None:
        assert seconds >= 0, "time does not run backwards"
        self._now += seconds
        self._wall += timedelta(seconds=seconds)
