"""
What several are told in one turn of the event loop goes out together, at its end.

Theory. Who waits for an answer sleeps, and a write that wakes a process on another processor costs several times as
much as one to a process that is awake; where processors are few it takes ours besides, in the middle of our work. Many
clients are often few processes (a pool of connections, a load maker). Told one by one they sleep and are woken once
for each answer. Told together, the first answer wakes them and the others find them awake, and the work on the answers
is not interrupted by sending them. Measured on two processors: 2,000 logins at once take a sixth less, short queries
of 64 clients come through by an eighth more.

With few there is nothing to gain, and an answer goes out at once: its receiver works on it while we go on.

What one client is told stays in order. An answer waits no longer than for what else has come in with it: it is out
before anybody is heard again. Whoever says something to a client in another way, closes it or looks whether it has
read everything lets those that wait go first (`sing`); who is cut off has heard why, and is told nothing more.

The event loop is asked for once: up to CPython 3.11 each `get_running_loop` is a system call (has the process forked?).
"""

import asyncio
from collections.abc import Callable, Sized
from typing import Final

AT_THE_DOOR: Final = 32  # so many that log in are a crowd
AT_WORK: Final = 8  # and so many servers that work for the clients of a pool


class Chorus:
    """Of those who are told by one and the same: `audience`, which is a crowd when there are `crowd` of them."""

    __slots__ = ("_audience", "_call_soon", "_crowd", "answers")

    def __init__(self, audience: Sized, crowd: int) -> None:
        self._audience = audience
        self._crowd = crowd
        self._call_soon: Callable[[Callable[[], None]], object] | None = None
        self.answers: list[tuple[asyncio.Transport, bytes]] = []  # those that wait, in order

    def say(self, transport: asyncio.Transport, answer: bytes) -> None:
        """Now, or with those of the others at the end of this turn."""
        if not self.answers:
            if len(self._audience) < self._crowd:
                transport.write(answer)
                return
            if self._call_soon is None:
                self._call_soon = asyncio.get_running_loop().call_soon
            self._call_soon(self.sing)
        self.answers.append((transport, answer))

    def sing(self) -> None:
        """All that wait go out."""
        answers, self.answers = self.answers, []
        for transport, answer in answers:
            if not transport.is_closing():
                transport.write(answer)
