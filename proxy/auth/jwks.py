"""
An issuer's public keys: where they come from, how long they hold, and what is done when a token names another.

Theory. A JWK set is a file, or is fetched from the issuer. Keys change without notice, so a token that names a key we
do not have is a reason to look again: once for all who ask at that time, and not more often than every PAUSE seconds,
since anybody can name keys that do not exist. Keys also vanish, when one has been stolen; so those we have are fresh
for a while only, and are asked for anew by the first login after that. If the issuer does not answer, the old ones do
for LONGEST, and then nobody gets in.

Of a key only the public numbers are taken, and with it come the algorithms it may be used with, which its type says and
never the token: a public key cannot be mistaken for a password of HMAC here, since no such algorithm is in any list.
Keys that we cannot use are passed over, as RFC 7517 wants it.

What is fetched is bounded in size and time, does not follow the issuer elsewhere, and is believed for the certificate's
sake: https, checked against the system's authorities (the environment's SSL_CERT_FILE names others).
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from proxy.auth.extras import library, wait_loaded
from proxy.clock import Clock
from proxy.config.files import read_bytes
from proxy.log import Voice
from proxy.tasks import Tasks

MAX_SIZE: Final = 256 * 1024  # bytes of a set
MAX_KEYS: Final = 100
FETCH_TIME: Final = 5.0  # seconds
FRESH: Final = 300.0  # seconds a set is not asked for again without a reason
LONGEST: Final = 3600.0  # seconds an old one does while there is no newer
PAUSE: Final = 10.0  # seconds between two looks, however they end
RSA_BITS: Final = range(2048, 8193)  # less is broken, more would cost each login milliseconds

_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_ALGORITHMS: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("RSA", ""): _RSA,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
_PUBLIC: Final = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y"), "OKP": ("kty", "crv", "x")}

Reader = Callable[[], Awaitable[bytes]]


class NoKeys(Exception):
    """There are no keys that a token could be checked with: the sentence says why."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, its name in the set, and what it may be used with."""

    name: str
    public: Any
    algorithms: tuple[str, ...]


def parse_keys(text: bytes) -> tuple[Key, ...]:
    """The usable keys of a JWK set. ValueError: it is none, or none of its keys is."""
    try:
        entries = json.loads(text)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("it is no JWK set: an object with a list of keys") from None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ValueError(f"its keys are no list of at most {MAX_KEYS}")
    found = tuple(key for entry in entries if (key := _parse_key(entry)) is not None)
    if not found:
        raise ValueError("none of its keys can check a signature: RSA of 2048 bits and more, P-256 to P-521, Ed25519")
    return found


def _parse_key(entry: Any) -> Key | None:
    jwt = library("jwt")
    kind, curve = (entry.get("kty"), entry.get("crv", "")) if isinstance(entry, dict) else (None, None)
    if not isinstance(kind, str) or not isinstance(curve, str) or not _may_sign(entry):
        return None
    allowed = _ALGORITHMS.get((kind, "" if kind == "RSA" else curve), ())
    algorithms = tuple(each for each in allowed if entry.get("alg", each) == each)
    if not algorithms:
        return None
    try:
        public = jwt.PyJWK({name: entry[name] for name in _PUBLIC[kind]}, algorithms[0]).key
    except (jwt.PyJWTError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if kind == "RSA" and public.key_size not in RSA_BITS:
        return None
    return Key(str(entry.get("kid", "")), public, algorithms)


def _may_sign(entry: Mapping[str, Any]) -> bool:
    uses = entry.get("key_ops", ["verify"])
    return entry.get("use", "sig") == "sig" and isinstance(uses, list) and "verify" in uses


class KeySet:
    """The keys behind one address."""

    def __init__(self, source: str, clock: Clock, tasks: Tasks, log: Voice, read: Reader | None = None) -> None:
        self.source = source
        self._clock = clock
        self._tasks = tasks
        self._log = log
        self._read = read or reader_of(source)
        self._keys: tuple[Key, ...] = ()
        self._read_at = float("-inf")
        self._asked_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def find(self, name: str | None, algorithm: str) -> Key | None:
        """The key of that name, for that algorithm; without a name the only one there is. NoKeys: there are none."""
        key = self._pick(name, algorithm)
        if key is None or self._age > FRESH:
            await self._look()
            key = self._pick(name, algorithm)
        if self._age > LONGEST:
            raise NoKeys(f"the keys of {self.source} cannot be had")
        return key

    def _pick(self, name: str | None, algorithm: str) -> Key | None:
        suitable = [key for key in self._keys if algorithm in key.algorithms and name in (None, key.name)]
        return suitable[0] if suitable and (name is not None or len(suitable) == 1) else None

    @property
    def _age(self) -> float:
        return self._clock.now() - self._read_at

    async def _look(self) -> None:
        """Read the set again, unless that was done just now; those who come meanwhile wait for the same answer."""
        if self._asking is None:
            if self._clock.now() - self._asked_at < PAUSE:
                return
            self._asked_at = self._clock.now()
            self._asking = self._tasks.start(self._take(), name="keys of an issuer")
        await asyncio.shield(self._asking)

    async def _take(self) -> None:
        try:
            async with asyncio.timeout(FETCH_TIME):
                self._keys = parse_keys(await self._read())
            self._read_at = self._clock.now()
        except TimeoutError:
            self._log.error(f"{self.source}: no answer within {FETCH_TIME:g} s, the keys stay as they were")
        except (OSError, ValueError) as error:
            self._log.error(f"{self.source}: {error or type(error).__name__}: the keys stay as they were")
        finally:
            self._asking = None


def reader_of(source: str) -> Reader:
    """How the set at `source`, a file or an address, is read."""
    return (lambda: _fetch(source)) if "://" in source else (lambda: asyncio.to_thread(read_bytes, source, MAX_SIZE))


async def _fetch(address: str) -> bytes:
    """OSError: it cannot be had; ValueError: it is no such thing as we want."""
    await wait_loaded(["aiohttp"])
    aiohttp = library("aiohttp")
    timeout = aiohttp.ClientTimeout(total=FETCH_TIME)
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers, auto_decompress=False) as session,
            session.get(address, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise ValueError(f"the answer is HTTP {answer.status}, and none but 200 will do")
            return await _gather(answer.content)
    except aiohttp.ClientError as error:
        raise OSError(str(error)) from None


async def _gather(content: Any) -> bytes:
    body = bytearray()
    async for chunk in content.iter_chunked(65536):
        body += chunk
        if len(body) > MAX_SIZE:
            raise ValueError(f"the answer is longer than {MAX_SIZE} bytes")
    return bytes(body)
