"""
What the clients of a pool do that sharing servers would change: the first question of every migration.

Theory. With session_state = audit a pool runs in session mode and only counts, by application and by what was said:
how often, the first statement, and what transaction mode would do about it (`Would`). Texts are all that is looked at,
so the answer errs on one side: a table dropped with its transaction counts as one that would keep its client.

It is shown by SHOW AUDIT and written to the log at the end.
"""

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from protocol.acts import What
from protocol.effects import Reading
from proxy.config.kinds import ListenMode
from proxy.pins import describe

MAX_ENTRIES = 1000


class Would(enum.Enum):
    """What transaction mode would do about it."""

    REPLAYED = "replayed"  # on every server the client comes to
    PINNED = "pinned"  # the client would keep its server, until what was made is gone
    SHARED = "shared"  # one connection listens for all
    PREPARED = "prepared"  # under one name for all clients
    ASKED = "asked"  # nobody can tell; the server would be asked afterwards


_WOULD: Final[Mapping[What, Would]] = {
    **dict.fromkeys((What.SETTING, What.RESET, What.DISCARD), Would.REPLAYED),
    **dict.fromkeys((What.TEMP, What.HOLD, What.LOCK, What.LOAD, What.FUNCTION), Would.PINNED),
    What.LISTEN: Would.SHARED,
    What.PREPARE: Would.PREPARED,
    What.UNCLEAR: Would.ASKED,
}
_WORDS: Final[Mapping[What, str]] = {
    What.SETTING: "set",
    What.RESET: "reset",
    What.DISCARD: "discard",
    What.TEMP: "temporary object",
    What.HOLD: "cursor with hold",
    What.LOCK: "advisory lock",
    What.LOAD: "library",
    What.FUNCTION: "function",
    What.LISTEN: "listen",
    What.PREPARE: "prepare",
    What.UNCLEAR: "unclear",
}


@dataclass(slots=True)
class Entry:
    """One thing one application does. `statement` is the first that was seen, without its values."""

    would: Would
    statement: str
    count: int = 0


class Audit:
    """Of one pool."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str, str], Entry] = {}

    def note(self, client: Any, reading: Reading, text: bytes) -> None:
        """A text whose acts last."""
        for what in sorted(reading.whats & _WOULD.keys(), key=lambda what: what.name):
            would = _WOULD[what]
            if what is What.LISTEN and client.pool.limits.listen_mode is ListenMode.PIN:
                would = Would.PINNED
            self.count(client, _WORDS[what], would, text)

    def count(self, client: Any, word: str, would: Would, text: bytes) -> None:
        key = (client.user, client.followed.get("application_name", ""), word)
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= MAX_ENTRIES:
                return
            entry = self._entries[key] = Entry(would, describe(text))
        entry.count += 1

    def __iter__(self) -> Iterator[tuple[str, str, str, Entry]]:
        """(user, application, what, how), in order."""
        for (user, application, word), entry in sorted(self._entries.items(), key=lambda item: item[0]):
            yield user, application, word, entry


def build_report(pools: list[Any]) -> Iterator[str]:
    """A line for the log for each thing each application has done."""
    for pool in pools:
        for user, application, word, entry in pool.learnt.audit:
            yield (
                f"audit: {pool.database}/{user} application {application!r}: {word} {entry.count} times, "
                f"in transaction mode it would be {entry.would.value}; first by: {entry.statement}"
            )
