"""Two inboxes back to back: what one writes the other reads, on the next turn of the loop, without a socket."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from protocol.errors import Refused
from protocol.passwords import Secret
from proxy.auth.keys import KeyKeeper
from proxy.inbox import Inbox

T = TypeVar("T")


class Wire(asyncio.Transport):
    """One end of the line. `written` is all that was ever sent from here."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.far: Inbox | None = None

    def show(self, name: str, value: Any) -> None:
        """From here on get_extra_info has that."""
        self._extra = {**getattr(self, "_extra", {}), name: value}

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return False

    def write(self, data: Any) -> None:
        self.written += bytes(data)
        if self.far is not None:
            asyncio.get_running_loop().call_soon(self.far.data_received, bytes(data))

    def close(self) -> None:
        if self.far is not None:
            asyncio.get_running_loop().call_soon(self.far.eof_received)

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def wired(inbox: Inbox) -> Wire:
    """The fake transport of an inbox."""
    assert isinstance(inbox.transport, Wire)
    return inbox.transport


def joined() -> tuple[Inbox, Inbox]:
    """Two inboxes, each reading what the other writes."""
    left, right = alone(), alone()
    wired(left).far, wired(right).far = right, left
    return left, right


def alone(said: bytes = b"") -> Inbox:
    """An inbox to which a peer has said all this; its answers are in `wired(inbox).written`."""
    inbox = Inbox()
    inbox.connection_made(Wire())
    if said:
        inbox.data_received(said)
    return inbox


def play(conversation: Coroutine[Any, Any, T]) -> T:
    """Run to the end; five seconds are a failure, not a wait."""
    return asyncio.run(asyncio.wait_for(conversation, 5))


def hear_of(asking: Coroutine[Any, Any, Secret], password: str) -> tuple[str, str]:
    """What a client hears that gives `password` where somebody else is asked, and what the log; nothing when it is
    let in."""

    async def scene() -> tuple[str, str]:
        try:
            assert await asking == Secret(password)
        except Refused as no:
            return f"{no.sqlstate} {no.sentence}", no.note
        return "", ""

    return play(scene())


def a_keeper() -> KeyKeeper:
    """With few iterations: these tests are about who is believed, not about how long it takes."""
    return KeyKeeper(iterations=2, mock_key=b"k" * 32)
