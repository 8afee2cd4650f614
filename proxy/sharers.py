"""
Whose parameters let them share servers.

Theory. A text is only understood where a quote is a quote, so clients with odd settings of that have servers of their
own for ever. Others have parameters that may not travel in front of a unit (`dispatch.may_travel`): a value that no
server has taken before, or one whose SET might fail or be struck. They would stand in line first, and then go alone
after all, at each of their queries. So that is remembered: for a moment, since by and by there are servers that have
these parameters, and no longer than until a new value is proven.

It is remembered by identity: clients that agree share one object (`Pool.intern`).
"""

from typing import Any

from protocol.parameters import ParameterSet
from protocol.sharing import is_readable
from proxy import dispatch

MAX_SETS = 1_000  # sets of parameters known to be good for lines, or not
ALONE = 1.0  # seconds in which clients whose parameters did not travel do not try again


class Sharers:
    """Of one pool."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._known: dict[int, tuple[ParameterSet, bool]] = {}
        self._alone: dict[int, tuple[ParameterSet, float]] = {}  # until when

    def may_share(self, followed: ParameterSet) -> bool:
        """May clients with these parameters?"""
        known = self._known.get(id(followed))
        if known is None:
            if len(self._known) >= MAX_SETS:
                self._known.clear()
            is_standard = followed.get("standard_conforming_strings") == "on"
            known = followed, is_standard and is_readable(followed.get("client_encoding", ""))
            self._known[id(followed)] = known
        return known[1] and not (self._alone and self._is_alone(followed))

    def _is_alone(self, followed: ParameterSet) -> bool:
        return id(followed) in self._alone and self._alone[id(followed)][1] > self._pool.now()

    def note_alone(self, followed: ParameterSet, values: ParameterSet) -> None:
        """To bring a server to `followed` takes these, and that did not travel. If it is for what its clients want, and
        not for what that server was left with, they need not try each time."""
        base = self._pool.learnt.base
        own = {name: value for name, value in values.items() if base.get(name) != value}
        if not dispatch.are_certain(own, self._pool):
            if len(self._alone) >= MAX_SETS:
                self._alone.clear()
            self._alone[id(followed)] = followed, self._pool.now() + ALONE

    def hear_proven(self) -> None:
        """A server has taken a value that none took before."""
        self._alone.clear()
