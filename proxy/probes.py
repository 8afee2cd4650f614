"""
A look at how long an answer takes and how large it is, before its kind is trusted in a line.

Theory. It is an envoy (envoys.py): it stands in the ledger for its client, for one query or round on a server of the
client's own, and hands everything on. What it has seen is noted of the shape (shapes.py) when the answer is whole. An answer is
seen a turn of the loop late; when many are busy that is longer than PostgreSQL takes, and is not its fault (`lag`).
"""

from typing import Any

from protocol.backend import ErrorFields
from proxy.envoys import Envoy
from proxy.states import GONE


class Probe(Envoy):
    """Of one request, `data`."""

    __slots__ = ("_lines", "_shape", "_size", "data", "has_failed")

    def __init__(self, client: Any, shape: Any, data: bytes, lines: Any) -> None:
        super().__init__(client)
        self._lines = lines
        self._shape = shape
        self._size = 0
        self.data = data  # what it is about
        self.has_failed = False

    def deliver(self, data: bytes) -> None:
        self._size += len(data)
        super().deliver(data)

    def failed(self, error: ErrorFields) -> bytes | None:
        self.has_failed = True
        return super().failed(error)

    def answered(self, server: Any) -> None:
        if not self.has_failed:  # (its last bytes come a moment later, and are few)
            self._note()
        super().answered(server)

    def finish(self, server: Any, data: bytes) -> None:
        client = self.client
        if client.state is GONE:
            return
        self._size = len(data)
        self._note()
        client.finish(server, data)

    def _note(self) -> None:
        elapsed = self.client.pool.now() - self.client.request_at
        self._shape.note(max(elapsed - self._lines.lag, 0.0), self._size)
