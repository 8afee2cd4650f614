"""
What one pool has learnt about the sessions of its clients, and may forget at any time.

Theory. All of this is bounded, and none of it is needed: what is forgotten is asked once more. The spelling of a
startup parameter (`utf-8` is UTF8) is asked of a server once, and then known for every client that says the same; the
names of custom parameters that were ever seen are asked for where a text does not say which it sets.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from protocol.parameters import spelling
from proxy.audit import Audit
from proxy.pins import PinBook

MAX_SPELLED = 1000
MAX_CUSTOMS = 30


@dataclass(slots=True)
class Learnt:
    """Of one pool."""

    spelled: dict[tuple[str, str], str] = field(default_factory=dict)  # (key, value as said) -> as a server says it
    base: dict[str, str] = field(default_factory=dict)  # what `connect_query` sets on every server
    customs: dict[str, None] = field(default_factory=dict)  # names with a dot, in the order they were seen
    pins: PinBook = field(default_factory=PinBook)
    audit: Audit = field(default_factory=Audit)
    _followed: dict[str, str] = field(default_factory=dict)
    _reported: dict[str, str] = field(default_factory=dict)

    def spell(self, wishes: Mapping[str, str], answers: Mapping[str, str]) -> None:
        if len(self.spelled) >= MAX_SPELLED:
            self.spelled.clear()
        self.spelled.update({(key, wishes[key]): value for key, value in answers.items()})

    def meet(self, names: Iterable[str]) -> None:
        """Custom ones among these are remembered."""
        for name in names:
            if "." in name and len(self.customs) < MAX_CUSTOMS:
                self.customs[name] = None

    def spell_followed(self, pool: Any) -> Mapping[str, str]:
        """From lower case to the keys of what is followed; that never changes."""
        if not self._followed:
            self._followed = spelling(pool.world.followed)
        return self._followed

    def name_reported(self, server: Any) -> Mapping[str, str]:
        """From lower case to the names a server reports; made anew when a server reports more or fewer."""
        if len(self._reported) != len(server.parameters):
            self._reported = spelling(server.parameters)
        return self._reported
