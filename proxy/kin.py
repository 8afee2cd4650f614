"""
The process before us and the one after us, while they are there: what each must tell the others.

Theory. During a take-over clients of one database are served by two processes, rarely by more in a row. A cancel
request comes in at the newest one, whoever has its client; and who changes the schema changes it for all. Both are
told along the row and never back, so nothing goes in circles. Who asks to cancel is kept until that has been done, also
by another process: what its program sends next is not what is hit.

Nothing of this is said before READY (`is_agreed`): a key is a secret, and the heir may not be who it says it is; and
while it has no clients none of it concerns it.
"""

import asyncio
from typing import Any

from proxy.courier import Broken, Frame, Kind, number_in


class Kin:
    """`elder` is an Inheritance, `heir` a Takeover; each speaks by its `send`."""

    __slots__ = ("_last", "_proxy", "_questions", "elder", "heir")

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy
        self._last = 0
        self._questions: dict[int, _Question] = {}  # cancel requests that others may serve
        self.elder: Any = None
        self.heir: Any = None

    @property
    def holds_us(self) -> bool:
        """Must we stay though we have no clients? The elder one would take our place; the heir may just have begun."""
        return self.elder is not None or (self.heir is not None and not self.heir.is_settled)

    async def cancel(self, key: bytes, asker: Any = None) -> bool:
        """A cancel request for nobody here, from `asker` if that is one of the two: has anybody served it?"""
        others = self._others(asker)
        if not others:
            return False
        number = self._last = self._last + 1
        question = self._questions[number] = _Question(others)
        try:
            self._tell(Kind.CANCEL, {"key": key.hex(), "question": number}, asker)
            async with asyncio.timeout(self._proxy.settings.cancel_wait_timeout):
                return await question.answer
        except TimeoutError:
            return False
        finally:
            del self._questions[number]

    def lose(self, relative: Any) -> None:
        """One of the two is gone, and will not answer what it was asked."""
        self.elder = None if self.elder is relative else self.elder
        self.heir = None if self.heir is relative else self.heir
        for question in self._questions.values():
            question.hear(relative, has_served=False)

    def schema_changed(self, pool: Any) -> None:
        self._tell(Kind.SCHEMA, {"database": pool.database}, None)

    def leave(self) -> None:
        """We are told to end: an older process need not take our place, and a newer one may have just asked for it."""
        if self.heir is not None:
            self.heir.bequeath()
        if self.elder is not None and self.elder.is_agreed:
            self.elder.send(Kind.LEAVING, {"has_heir": False})

    def finish(self) -> None:
        """We end now."""
        if self.heir is not None:
            self.heir.finish()

    def hear(self, frame: Frame, speaker: Any) -> None:
        """One of the two tells us that. Broken when it is nothing of the kind."""
        if frame.kind is Kind.CANCEL:
            key, number = _key_in(frame), number_in(frame.body, "question")
            self._proxy.tasks.start(self._serve(key, number, speaker), name="cancel for kin")
        elif frame.kind is Kind.CANCELED:
            question = self._questions.get(number_in(frame.body, "question"))
            if question is not None:
                question.hear(speaker, has_served=bool(frame.body.get("has_served")))
        elif frame.kind is Kind.SCHEMA:
            for pool in self._proxy.pools.of_database(str(frame.body.get("database")))[:1]:
                self._proxy.pools.schema_changed(pool)
            self._tell(frame.kind, frame.body, speaker)
        else:
            raise Broken(f"a message out of turn: {frame.kind.name}")

    async def _serve(self, key: bytes, number: int, speaker: Any) -> None:
        is_here = self._proxy.cancels.find(key) is not None
        if is_here:
            await self._proxy.cancels.serve(key)
        has_served = is_here or await self.cancel(key, speaker)
        speaker.send(Kind.CANCELED, {"question": number, "has_served": has_served})

    def _others(self, speaker: Any) -> list[Any]:
        kin = [each for each in (self.elder, self.heir) if each is not None and each is not speaker]
        return [each for each in kin if each.is_agreed]

    def _tell(self, kind: Kind, body: dict[str, Any], speaker: Any) -> None:
        for each in self._others(speaker):
            each.send(kind, body)


class _Question:
    """Who serves this? Answered by the first who has, or by the last of those who have not."""

    __slots__ = ("_asked", "answer")

    def __init__(self, asked: list[Any]) -> None:
        self._asked = asked
        self.answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def hear(self, speaker: Any, *, has_served: bool) -> None:
        self._asked = [each for each in self._asked if each is not speaker]
        if not self.answer.done() and (has_served or not self._asked):
            self.answer.set_result(has_served)


def _key_in(frame: Frame) -> bytes:
    try:
        return bytes.fromhex(str(frame.body.get("key")))
    except ValueError:
        raise Broken("a cancel request without a key") from None
