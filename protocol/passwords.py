"""
Stored secrets: what we keep of a password, and how a password is held against it.

Theory. PostgreSQL and PgBouncer store a password in one of three forms, told apart by how the text
begins: `md5` and 32 hex digits; `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`; anything else is
the password itself. `parse_stored` makes a `Plain`, an `Md5` or a `ScramVerifier` of such a text.

Two rules run through this file. A secret never shows: `repr` and `str` of everything here are safe to
log, and only `Secret.reveal` and `Secret.encode` give the password away. And the one slow step, PBKDF2
(1 to 2 ms per 4096 iterations), stands alone in `derive_salted_password`: it is pure and lets go of the
interpreter's lock, so that the proxy can run it in a thread; all other steps take microseconds.

Passwords are bytes to PostgreSQL and text to SASLprep. We hold text in which bytes that are not UTF-8
survive as lone surrogates, so that both views are exact.
"""

import base64
import binascii
import hashlib
import hmac
import re
import stringprep
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

MAX_STORED_LENGTH: Final = 65_530  # bytes of a password or stored secret; PgBouncer's bound, made for IAM tokens
MAX_ITERATIONS: Final = 10_000_000  # some seconds of a thread per login; more can only be a typing mistake or an attack
MAX_SALT_LENGTH: Final = 1024  # PostgreSQL makes 16
KEY_LENGTH: Final = 32  # SHA-256

_BLOCK: Final = 64  # bytes, of SHA-256
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))
_MD5 = re.compile(r"md5[0-9a-f]{32}")
_SCRAM_PREFIX = "SCRAM-SHA-256$"
_SCRAM = re.compile(r"SCRAM-SHA-256\$([0-9]{1,10}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")


class BadSecret(ValueError):
    """A stored secret that is none: the sentence says why, without the secret."""


class Secret:
    """A password that does not show: `repr`, `str` and formatting give `***`; equality takes constant time."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    @classmethod
    def decode(cls, raw: bytes) -> "Secret":
        """The secret that is these bytes; what is not UTF-8 among them survives."""
        return cls(raw.decode("utf-8", "surrogateescape"))

    def reveal(self) -> str:
        """The password."""
        return self._text

    def encode(self) -> bytes:
        """The password as it goes over the wire."""
        return encode_text(self._text)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.encode(), other.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled")


@dataclass(frozen=True, slots=True)
class Plain:
    """A password kept as it is. An empty one lets nobody in."""

    secret: Secret


@dataclass(frozen=True, slots=True, repr=False)
class Md5:
    """A password kept as md5(password + user): `digits` are 32 hex digits, without the `md5` in front."""

    digits: str

    def __repr__(self) -> str:
        return "Md5(***)"


class Signer:
    """HMAC-SHA-256 (RFC 2104) with one key of at most a block. What only the key decides is done once: of a signature
    under a key that is known already that is more than half."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = key.ljust(_BLOCK, b"\0")
        self._inner = hashlib.sha256(block.translate(_INNER))
        self._outer = hashlib.sha256(block.translate(_OUTER))

    def sign(self, text: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text)
        outer.update(inner.digest())
        return outer.digest()


@dataclass(frozen=True, slots=True, repr=False)
class ScramVerifier:
    """What a SCRAM server keeps (RFC 5802 section 3): enough to check a proof, not enough to make one."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes
    _signers: tuple[Signer, Signer] | None = field(default=None, init=False, compare=False)

    @property
    def signers(self) -> tuple[Signer, Signer]:
        """With the stored key, and with the server's; made for the first proof."""
        signers = self._signers
        if signers is None:
            signers = Signer(self.stored_key), Signer(self.server_key)
            object.__setattr__(self, "_signers", signers)
        return signers

    def __repr__(self) -> str:
        return f"ScramVerifier(iterations={self.iterations}, ***)"


Stored: TypeAlias = Plain | Md5 | ScramVerifier


@dataclass(frozen=True, slots=True, repr=False)
class ScramKeys:
    """The three keys of RFC 5802 section 3: with `client_key` one can log in, with `server_key` pose as the server."""

    client_key: bytes
    server_key: bytes
    stored_key: bytes

    @classmethod
    def from_salted_password(cls, salted: bytes) -> "ScramKeys":
        """The keys of a salted password (see `derive_salted_password`). Three hashes: microseconds."""
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        return cls(client_key, server_key, hashlib.sha256(client_key).digest())

    def verifier(self, salt: bytes, iterations: int) -> ScramVerifier:
        """What a server would store of these keys."""
        return ScramVerifier(iterations, salt, self.stored_key, self.server_key)

    def __repr__(self) -> str:
        return "ScramKeys(***)"


@dataclass(frozen=True, slots=True, repr=False)
class LearntKeys:
    """What a client has shown us while it proved that it knows the password of a verifier: enough to log in as that
    client wherever the verifier is this very one, with the same salt and iterations, and nowhere else."""

    keys: ScramKeys
    salt: bytes
    iterations: int

    def __repr__(self) -> str:
        return "LearntKeys(***)"


def encode_text(text: str) -> bytes:
    """Text to wire bytes, never raising: lone surrogates become the bytes they stand for, where they stand for any."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


# Stored secrets, text to value and back.


def parse_stored(text: str) -> Stored:
    """The stored form of `text` (see the theory). BadSecret when it is too long or a damaged SCRAM verifier.

    A damaged verifier is refused, not taken for a password: nobody chooses such a password, and the user of that
    line would only ever learn that his is wrong.
    """
    if len(text) > MAX_STORED_LENGTH or len(encode_text(text)) > MAX_STORED_LENGTH:
        raise BadSecret(f"the secret is longer than {MAX_STORED_LENGTH} bytes")
    if _MD5.fullmatch(text):
        return Md5(text[3:])
    if text.startswith(_SCRAM_PREFIX):
        return _parse_verifier(text)
    return Plain(Secret(text))


def _parse_verifier(text: str) -> ScramVerifier:
    match = _SCRAM.fullmatch(text)
    if match is None:
        raise BadSecret("the SCRAM verifier is not of the form SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey")
    iterations = int(match[1])
    if not 1 <= iterations <= MAX_ITERATIONS:
        raise BadSecret(f"the SCRAM verifier has {iterations} iterations; 1 to {MAX_ITERATIONS} are allowed")
    salt, stored_key, server_key = (parse_base64(part.encode()) for part in match.groups()[1:])
    if not salt or len(salt) > MAX_SALT_LENGTH:
        raise BadSecret(f"the salt of the SCRAM verifier is not base64 of 1 to {MAX_SALT_LENGTH} bytes")
    if not (stored_key and server_key and len(stored_key) == len(server_key) == KEY_LENGTH):
        raise BadSecret(f"the keys of the SCRAM verifier are not base64 of {KEY_LENGTH} bytes each")
    return ScramVerifier(iterations, salt, stored_key, server_key)


def build_verifier(verifier: ScramVerifier) -> str:
    """The text PostgreSQL would store: the inverse of `parse_stored`."""
    salt, stored_key, server_key = (
        base64.b64encode(part).decode() for part in (verifier.salt, verifier.stored_key, verifier.server_key)
    )
    return f"{_SCRAM_PREFIX}{verifier.iterations}:{salt}${stored_key}:{server_key}"


def parse_base64(text: bytes) -> bytes | None:
    """Strictly decoded base64, or None: no blanks, right padding, no stray bits, one spelling per value."""
    try:
        value = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return None
    return value if binascii.b2a_base64(value, newline=False) == text else None


# md5: docs "Password Authentication" and "Message Flow", AuthenticationMD5Password.


def md5_stored(password: Secret, user: str) -> Md5:
    """What PostgreSQL stores of a password under password_encryption = md5."""
    return Md5(_md5(password.encode() + encode_text(user)))


def md5_response(stored: Md5, salt: bytes) -> str:
    """What a client answers to AuthenticationMD5Password with this 4-byte salt."""
    return "md5" + _md5(stored.digits.encode() + salt)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()  # not our choice: the protocol's


# Holding a password against a stored secret. Only the last needs the slow step, done before by the caller.


def is_plain_password(stored: Plain, password: Secret) -> bool:
    """Is `password` the stored one? Never for an empty one."""
    return bool(stored.secret) and stored.secret == password


def is_md5_password(stored: Md5, user: str, password: Secret) -> bool:
    """Is `password` the one whose md5 is stored for `user`?"""
    return hmac.compare_digest(stored.digits, md5_stored(password, user).digits)


def is_md5_response(stored: Md5, salt: bytes, response: bytes) -> bool:
    """Is `response` the right answer to AuthenticationMD5Password with `salt`?"""
    return hmac.compare_digest(md5_response(stored, salt).encode(), response)


def is_scram_password(stored: ScramVerifier, salted: bytes) -> bool:
    """Is this the salted password (`derive_salted_password` with the verifier's salt and iterations) of `stored`?"""
    return hmac.compare_digest(stored.stored_key, ScramKeys.from_salted_password(salted).stored_key)


def derive_salted_password(password: Secret, salt: bytes, iterations: int) -> bytes:
    """SaltedPassword of RFC 5802: 32 bytes. SLOW, 1 to 2 ms per 4096 iterations: in a thread, never on the loop."""
    return hashlib.pbkdf2_hmac("sha256", prepare(password), salt, iterations)


def prepare(password: Secret) -> bytes:
    """The password as SCRAM hashes it: SASLprep (RFC 4013), or its raw bytes where SASLprep would refuse it.

    PostgreSQL does the same on both sides, since it cannot know that a password is UTF-8. Like it we map, normalise,
    and then look for forbidden characters in the mapped text, not the normalised one.
    """
    text = password.reveal()
    if text.isascii():
        return text.encode()
    mapped = "".join(_map(char) for char in text)
    if not mapped or not _is_allowed(mapped):
        return password.encode()
    return unicodedata.normalize("NFKC", mapped).encode()


def _map(char: str) -> str:
    if stringprep.in_table_c12(char):
        return " "  # before the next question: U+200B is in both tables, and PostgreSQL makes it a space
    return "" if stringprep.in_table_b1(char) else char


_FORBIDDEN: Final[tuple[Callable[[str], bool], ...]] = (
    stringprep.in_table_a1,  # unassigned in Unicode 3.2
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,  # control characters
    stringprep.in_table_c3,  # private use
    stringprep.in_table_c4,  # non-characters
    stringprep.in_table_c5,  # surrogates: among them our bytes that are not UTF-8
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def _is_allowed(text: str) -> bool:
    """RFC 4013 sections 2.3 to 2.5: no forbidden character, and right-to-left text is so from end to end."""
    chars = set(text)
    if any(table(char) for char in chars for table in _FORBIDDEN):
        return False
    if not any(map(stringprep.in_table_d1, chars)):
        return True
    ends_well = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return ends_well and not any(map(stringprep.in_table_d2, chars))
