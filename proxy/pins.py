"""
Why a client keeps its server: what it has there cannot be had elsewhere.

Theory. A pin is a fact with a reason, a moment and the statement that was seen before it: enough to find it in an
application. A client may have several; the oldest is shown. Where an inspection can see what pins (`FACTS`) the pin
goes when that is gone; the others last as long as the client.

`PinBook` counts for one pool: what was pinned, how often, how many clients are now. An application does the same thing
all day, so the log hears of each reason once per application, up to MAX_SIGHTS of them.
"""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from protocol.fingerprints import fingerprint
from protocol.inspection import Fact

MAX_STATEMENT = 200  # characters of a statement that are shown
MAX_SIGHTS = 500  # (application, reason) remembered per pool
MAX_READ = 1024  # bytes of a text that are read for its fingerprint


class PinReason(enum.Enum):
    """The words of SHOW CLIENTS and SHOW PINS."""

    TEMP = "temporary object"
    CURSOR = "cursor with hold"
    LOCK = "advisory lock"
    LISTEN = "listen"
    STATEMENT = "prepared statement"  # by PREPARE, where it is not one of those that are shared
    LIBRARY = "library"
    FUNCTION = "function"  # one of pin_functions
    VALUE = "parameter"  # with a value that cannot be replayed, or too many of them
    NAME = "parameter name"  # too many, or too long or odd, to be asked for: nobody knows what to replay
    UNKNOWN = "unknown state"  # its server could not tell what the session is like


FACTS: Final[Mapping[Fact, PinReason]] = {
    Fact.TEMP: PinReason.TEMP,
    Fact.CURSORS: PinReason.CURSOR,
    Fact.LOCKS: PinReason.LOCK,
    Fact.CHANNELS: PinReason.LISTEN,
    Fact.STATEMENTS: PinReason.STATEMENT,
}


@dataclass(frozen=True, slots=True)
class Pin:
    """`since` is of the clock that measures spans; `statement` has no values in it."""

    since: float
    statement: str


Pins = dict[PinReason, Pin]


@dataclass(slots=True)
class Count:
    """Of one reason."""

    total: int = 0
    now: int = 0


@dataclass(slots=True)
class PinBook:
    """Of one pool."""

    counts: dict[PinReason, Count] = field(default_factory=lambda: {reason: Count() for reason in PinReason})
    _sights: set[tuple[str, PinReason]] = field(default_factory=set)

    def enter(self, client: Any, pins: Pins, reason: PinReason, text: bytes) -> None:
        """`client` is pinned, if it was not yet."""
        if reason in pins:
            return
        pin = pins[reason] = Pin(client.pool.now(), describe(text))
        count = self.counts[reason]
        count.total += 1
        count.now += 1
        application = client.followed.get("application_name", "")
        if (application, reason) not in self._sights and len(self._sights) < MAX_SIGHTS:
            self._sights.add((application, reason))
            client.pool.world.log.for_socket(client.tag).log(
                f"pinned to its server: {reason.value} (application {application!r}, by: {pin.statement})"
            )

    def strike(self, pins: Pins, reasons: Iterable[PinReason]) -> None:
        """They are gone."""
        for reason in reasons:
            if pins.pop(reason, None) is not None:
                self.counts[reason].now -= 1


def describe(text: bytes) -> str:
    """A statement without its values."""
    words = fingerprint(text[:MAX_READ]).decode("utf-8", "replace")
    return words if len(words) <= MAX_STATEMENT else words[: MAX_STATEMENT - 3] + "..."
