"""
Derived keys: the only place where passwords are hashed slowly, and never on the event loop.

Theory. SCRAM hides a password behind PBKDF2: 1 to 2 ms of processor for 4096 iterations, a hundred times what
all the rest of a login costs. `KeyKeeper` runs it in a few threads (OpenSSL lets go of the interpreter's lock
meanwhile) and keeps the results, so that a pool of fifty servers with one password derives once, and a
client that logs in again costs nothing.

Everything is bounded. Results: the `capacity` used last; a flood of wrong passwords can push good results out
and so cost time, but never memory. Work: a thread takes a job only when it is free, so those that wait are
waiting coroutines, which end with their connection, not a queue that nobody can shorten. Equal questions at
the same time are one job. And priority: the threads are nicer than the event loop, so however many wrong passwords come
in plain words, hashing them takes only what queries leave.

A result is found by a keyed hash of what was asked, with a key made at start: the password itself is not kept.
(The result is worth as much to a thief, but only for this salt.)

`mock` gives an unknown user the verifier he does not have. Verifiers made of a plain secret use the mock's
salt, so that a user looks the same before he exists and after. `mock_key` outlives the process (mock_key.py).
"""

import asyncio
import contextlib
import hashlib
import os
import secrets
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from protocol.passwords import (
    Plain,
    ScramKeys,
    ScramVerifier,
    Secret,
    Stored,
    derive_salted_password,
    encode_text,
)
from protocol.scram import mock_verifier

ITERATIONS: Final = 4096  # PostgreSQL's scram_iterations, and what RFC 7677 asks for at least
CAPACITY: Final = 10_000  # results; about 250 bytes each
THREADS: Final = 2
NICE: Final = 10  # of its threads
MAX_MOCKS: Final = 1_000  # users who do not exist, remembered
MAX_NAME: Final = 200  # characters of such a name; PostgreSQL's are shorter

Verifiers = Mapping[ScramVerifier, Stored]
"""Each with the stored secret that it is made of."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """All that could be checked for somebody who had these secrets; see verifiers.py."""

    stored: tuple[Stored, ...]
    iterations: int  # of verifiers of our own making, then
    verifiers: Verifiers


class KeyKeeper:
    """Derives and remembers. `iterations` are for verifiers of our own making; it may be set at any time."""

    def __init__(
        self,
        iterations: int = ITERATIONS,
        *,
        mock_key: bytes | None = None,
        capacity: int = CAPACITY,
        threads: int = THREADS,
    ) -> None:
        self.iterations = iterations
        self._mock_key = mock_key or secrets.token_bytes(32)
        self._mocks: dict[tuple[str, int], ScramVerifier] = {}
        self._name_key = secrets.token_bytes(32)
        self._capacity = capacity
        self._known: OrderedDict[bytes, bytes] = OrderedDict()
        self.gathered: OrderedDict[str, Gathered] = OrderedDict()  # by user
        self._asked: dict[bytes, asyncio.Future[None]] = {}
        self._free_threads = asyncio.Semaphore(threads)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="keys", initializer=_be_nice)

    async def salted(self, password: Secret, salt: bytes, iterations: int) -> bytes:
        """SaltedPassword (RFC 5802), 32 bytes: from memory, or from a thread."""
        name = self._name(password, salt, iterations)
        while name in self._asked:
            await asyncio.shield(self._asked[name])  # then it is known, or who asked was cancelled and we ask
        if name not in self._known:
            return await self._derive(name, password, salt, iterations)
        self._known.move_to_end(name)
        return self._known[name]

    async def verifier_for(self, user: str, password: Secret, like: ScramVerifier | None = None) -> ScramVerifier:
        """The verifier of a plain secret, with salt and iterations of `like`, by default of the user's mock."""
        like = like or self.mock(user)
        salted = await self.salted(password, like.salt, like.iterations)
        return ScramKeys.from_salted_password(salted).verifier(like.salt, like.iterations)

    def recall_verifier(self, password: Secret, like: ScramVerifier) -> ScramVerifier | None:
        """The same from memory; None: it must be derived first."""
        salted = self._known.get(self._name(password, like.salt, like.iterations))
        if salted is None:
            return None
        return ScramKeys.from_salted_password(salted).verifier(like.salt, like.iterations)

    def keep_gathered(self, user: str, gathered: Gathered) -> None:
        self.gathered[user] = gathered
        if len(self.gathered) > self._capacity:
            self.gathered.popitem(last=False)

    def mock(self, user: str, number: int = 0) -> ScramVerifier:
        """A verifier that no password fits; the same each time for the same user. One may have several (turns.py).

        It is remembered, with what its signatures need (passwords.py): else an unknown user is answered some
        microseconds later than one who exists, each time he comes.
        """
        name = f"{user}\0{number}" if number else user  # nobody's name has a zero byte in it
        key = name, self.iterations
        mock = self._mocks.get(key)
        if mock is None:
            mock = mock_verifier(name, self._mock_key, self.iterations)
            if len(self._mocks) >= MAX_MOCKS:
                self._mocks.clear()
            if len(name) <= MAX_NAME:
                self._mocks[key] = mock
        return mock

    def draw(self, user: str) -> float:
        """Chance, from 0 up to 1; the same each time for the same user."""
        drawn = hashlib.blake2b(encode_text(user), key=self._mock_key[:64], digest_size=4, person=b"draw").digest()
        return int.from_bytes(drawn) / 2**32

    async def warm(self, users: Iterable[tuple[str, tuple[Stored, ...]]]) -> None:
        """Make the verifiers of all plain secrets now, 1 to 2 ms each: then no first login is slower than a mock."""
        for number, (user, stored) in enumerate(users):
            if number % 50 == 49:
                await asyncio.sleep(0)  # what is known already takes 20 us and does not wait by itself
            like = next((each for each in stored if isinstance(each, ScramVerifier)), None)
            for each in stored:
                if isinstance(each, Plain) and each.secret:
                    await self.verifier_for(user, each.secret, like)

    def close(self) -> None:
        """No more jobs. Those that run end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def __len__(self) -> int:
        return len(self._known)

    async def _derive(self, name: bytes, password: Secret, salt: bytes, iterations: int) -> bytes:
        loop = asyncio.get_running_loop()
        answered = self._asked[name] = loop.create_future()
        try:
            await self._free_threads.acquire()
            try:
                job = loop.run_in_executor(self._threads, derive_salted_password, password, salt, iterations)
            except RuntimeError:  # closed: those who wait behind us must hear it too
                self._free_threads.release()
                raise
            job.add_done_callback(lambda job: self._learn(name, job))
            return await asyncio.shield(job)  # a thread cannot be cancelled: it is free when it is done, not before
        finally:
            del self._asked[name]
            answered.set_result(None)

    def _learn(self, name: bytes, job: asyncio.Future[bytes]) -> None:
        self._free_threads.release()
        if job.cancelled() or job.exception() is not None:
            return
        self._known[name] = job.result()
        if len(self._known) > self._capacity:
            self._known.popitem(last=False)

    def _name(self, password: Secret, salt: bytes, iterations: int) -> bytes:
        asked = b"%d:%d:%b%b" % (iterations, len(salt), salt, password.encode())
        return hashlib.blake2b(asked, key=self._name_key, digest_size=32).digest()


def _be_nice() -> None:
    """This thread has time. On Linux each has a priority of its own; elsewhere the whole process would be meant."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, max(NICE, os.getpriority(os.PRIO_PROCESS, thread)))
