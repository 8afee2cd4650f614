"""
A look at how long an answer takes and how large it is: before its kind is trusted in a line, and for SHOW STATEMENTS.

Theory. It is an envoy (envoys.py): it stands in the ledger for its client, for what that has asked of a server of its
own, and hands everything on. What it has seen is noted of the shape (shapes.py) when the answer is whole. An answer is
seen a turn of the loop late; when many are busy that is longer than PostgreSQL takes, and is not its fault (`lag`).

A `Probe` is about one query or round. A `Trace` is about whatever a client has sent at once (tracking.py): several
units, each with its ReadyForQuery, and several statements in each; these share the time and the bytes of their unit
evenly. It waited for a server if its client began to wait after the last answer.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

from protocol.backend import ErrorFields
from proxy.envoys import Envoy
from proxy.states import GONE

Counts = Mapping[Any, int]
"""How often each shape is run."""


class Probe(Envoy):
    """Of one request, `data`."""

    __slots__ = ("_has_failed", "_size", "data", "shape")

    def __init__(self, client: Any, shape: Any, data: bytes) -> None:
        super().__init__(client)
        self.shape = shape
        self._size = 0
        self.data = data  # what it is about
        self._has_failed = False

    def is_about(self, data: bytes) -> bool:
        return self.data is data

    def deliver(self, data: bytes) -> None:
        self._size += len(data)
        super().deliver(data)

    def failed(self, error: ErrorFields) -> bytes | None:
        self._has_failed = True
        return super().failed(error)

    def answered(self, server: Any) -> None:
        self._note()  # (its last bytes come a moment later, and are few)
        super().answered(server)

    def finish(self, server: Any, data: bytes) -> None:
        client = self.client
        if client.state is GONE:
            return
        self._size += len(data)
        self._note()
        client.finish(server, data)

    def _note(self) -> None:
        """Its answer is whole."""
        client, shape = self.client, self.shape
        if self._has_failed:
            shape.errors += 1
        else:
            shape.note(self._find_time(), self._size)
        if client.waiting_since > client.ready_at:
            shape.waited += client.request_at - client.waiting_since

    def _find_time(self) -> float:
        """Seconds that the server took."""
        client, lines = self.client, self.client.pool.lines
        elapsed = float(client.pool.now() - client.request_at)
        return max(elapsed - lines.lag, 0.0) if lines is not None else elapsed


class Trace(Probe):
    """Of all that a client sends at once."""

    __slots__ = ("due",)

    def __init__(self, client: Any, data: bytes, *due: Counts) -> None:
        super().__init__(client, None, data)
        self.due: deque[Counts] = deque(due)  # not `units`: by those one knows a group (chores.is_for)

    def is_about(self, data: bytes) -> bool:
        return True  # what waited goes together with what came behind it

    def _note(self) -> None:
        client = self.client
        counts = self.due.popleft() if self.due else {}
        self._note_all(counts, self._find_time())
        if client.waiting_since > client.ready_at:
            for shape in counts:
                shape.waited += (client.request_at - client.waiting_since) / len(counts)
        self._size, self._has_failed = 0, False

    def _note_all(self, counts: Counts, seconds: float) -> None:
        total = sum(counts.values())
        for shape, count in counts.items():
            if self._has_failed:
                shape.errors += count
            elif total == 1:
                shape.note(seconds, self._size)
            else:
                shape.note_all(count, seconds / total, self._size * count // total)
