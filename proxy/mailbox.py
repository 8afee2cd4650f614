"""
What one client has subscribed to, and what it has not heard yet.

Theory. PostgreSQL tells a backend's client of a notification between two transactions, and never in the middle of a
message. Here the one who hears it is not the one who serves the client, so it may come at any moment: if the client can
hear it now it is written at once, else it waits here, in order, until the client comes to rest. `may_hear` is the only
place that decides.

A client that never reads, or never ends its transaction, must not cost more than `MAX_BYTES`: then the oldest letters
are thrown away, counted, and the client is told before the next one that it has missed some. What it has unsubscribed
from is taken out again, as PostgreSQL would not deliver it either.
"""

from collections import deque
from typing import Any

from protocol import codes, sqlstate
from protocol.backend import build_notice
from proxy.states import RESTING, WAITING

MAX_BYTES = 1_000_000
MAX_LETTERS = 10_000

_PATIENT = (RESTING, WAITING)


class Mailbox:
    """One subscriber of one hub. `channels` and `waits` are the hub's books, by the names of channels."""

    __slots__ = ("channels", "client", "is_held", "letters", "lost", "size", "waits")

    def __init__(self, client: Any) -> None:
        self.client = client
        self.channels: dict[bytes, Any] = {}  # it hears these
        self.waits: dict[Any, None] = {}  # its LISTENs that are not confirmed yet
        self.letters: deque[tuple[bytes, bytes]] = deque()  # (channel, message); for a notice of ours b""
        self.size = 0
        self.lost = 0  # since it was told last
        self.is_held = False  # its client is on its way to another process, or from there

    @property
    def is_used(self) -> bool:
        return bool(self.channels or self.waits)

    @property
    def encoding(self) -> str:
        return str(self.client.followed.get("client_encoding", "UTF8"))

    def may_hear(self) -> bool:
        """Is the client between transactions and messages, and does it read?"""
        client = self.client
        server = client.server
        if client.is_choked or client.begun or self.is_held:
            return False
        if server is None:
            return client.state in _PATIENT
        is_at_rest = server.status == codes.IDLE and server.ledger.is_settled
        return bool(is_at_rest and not client.remain and not client._is_in_message())

    def put(self, channel: bytes, message: bytes) -> list[bytes]:
        """For later. The channels of those that had to make room."""
        self.letters.append((channel, message))
        self.size += len(message)
        lost = []
        while self.size > MAX_BYTES or len(self.letters) > MAX_LETTERS:
            oldest, letter = self.letters.popleft()
            self.size -= len(letter)
            lost.append(oldest)
        self.lost += len(lost)
        return lost

    def take(self) -> bytes:
        """All that waits, for one write."""
        texts = [message for _, message in self.letters]
        if self.lost:
            texts.insert(0, _build_loss(self.lost))
        self.clear()
        self.lost = 0
        return b"".join(texts)

    def clear(self) -> None:
        self.letters.clear()
        self.size = 0

    def drop(self, channel: bytes) -> None:
        """What waits of `channel` is not wanted any more."""
        kept = [letter for letter in self.letters if letter[0] != channel]
        if len(kept) < len(self.letters):
            self.letters = deque(kept)
            self.size = sum(len(message) for _, message in kept)


def _build_loss(count: int) -> bytes:
    return build_notice(
        "WARNING",
        sqlstate.WARNING,
        "some notifications were lost",
        detail=f"{count} were thrown away, the oldest first: more than {MAX_LETTERS} or {MAX_BYTES} bytes waited for"
        " this client to read, or to end its transaction.",
    )
