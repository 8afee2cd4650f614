"""
What lies here since clients do not read what lines have for them.

Theory. A client with a server of its own that does not read has that server held at once. In a line others would suffer
for it, so there up to `MAX_BUFFERED` of its answer is kept for it first. That is not much for one, but each may have
left it unread and be in no line any more; so together they have `MAX_TOGETHER`, and beyond that a line's server is held
for one as if it were his own. Those behind him are rescued (stuck.py).
"""

from typing import Any
from weakref import WeakSet

from proxy.states import GONE

MAX_BUFFERED = 1_048_576  # bytes one client may leave unread of its answer before those behind it must wait
MAX_TOGETHER = 16_777_216  # bytes that all of a pool's may


class Unread:
    """Of one pool."""

    def __init__(self) -> None:
        self._slow: WeakSet[Any] = WeakSet()

    def is_too_much(self, client: Any) -> bool:
        """More has come for `client`, whose socket takes nothing for now. Must its server wait?"""
        self._slow.add(client)
        return _find_size(client) > MAX_BUFFERED or self._count() > MAX_TOGETHER

    def _count(self) -> int:
        """Bytes; who reads again is forgotten."""
        for client in list(self._slow):
            if not client.is_choked or client.state is GONE:
                self._slow.discard(client)
        return sum(map(_find_size, self._slow))


def _find_size(client: Any) -> int:
    return int(client.transport.get_write_buffer_size())
