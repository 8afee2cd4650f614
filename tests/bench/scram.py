"""
Logins with a password: the verifier that the poolers keep, and a client that costs next to nothing.

Theory. The server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677) needs a few HMACs when it has a verifier, however many
iterations that has; it is the client who derives a key anew with each login. With the usual 4096 iterations clients on
the same machine would take most of it and hide what differs, so this verifier has one iteration: the poolers do as much
as ever. The bytes are written here by hand, as in wire.py, and not taken from `protocol/`.
"""

import hashlib
import hmac
from base64 import b64decode, b64encode
from pathlib import Path
from struct import Struct

from tests.bench.crowd import Client
from tests.bench.wire import ERROR, build_message

PASSWORD = "of the bench"
SALT = b"sixteen bytes..."
MECHANISM = b"SCRAM-SHA-256\0"
BARE_FIRST = "n=,r=of+no+consequence"  # the client's first message without its header; a nonce is for real secrets
NO_BINDING = "n,,"
AUTHENTICATION = ord("R")
SASL, SASL_CONTINUE = 10, 11

_HEAD = Struct("!cII")
_LENGTH = Struct("!I")


def add_scram(folder: Path) -> str:
    """For a pooler's file: everybody logs in with the password."""
    return write_verifier(folder, iterations=1)


def write_verifier(folder: Path, iterations: int) -> str:
    """Put a verifier into the user list; the setting that asks for the password."""
    (folder / "userlist.txt").write_text(f'"postgres" "{build_verifier(PASSWORD, iterations)}"\n')
    return "auth_type = scram-sha-256\n"


def build_verifier(password: str, iterations: int) -> str:
    """As PostgreSQL keeps it: SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), SALT, iterations)
    stored = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
    parts = [b64encode(part).decode() for part in (SALT, stored, _hmac(salted, b"Server Key"))]
    return f"SCRAM-SHA-256${iterations}:{parts[0]}${parts[1]}:{parts[2]}"


def build_proof(password: str, server_first: str) -> str:
    """The client's last message, after the server's first one."""
    fields = dict(field.split("=", 1) for field in server_first.split(","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), b64decode(fields["s"]), int(fields["i"]))
    key = _hmac(salted, b"Client Key")
    bare_final = f"c={b64encode(NO_BINDING.encode()).decode()},r={fields['r']}"
    signature = _hmac(hashlib.sha256(key).digest(), f"{BARE_FIRST},{server_first},{bare_final}".encode())
    proof = bytes(one ^ other for one, other in zip(key, signature, strict=True))
    return f"{bare_final},p={b64encode(proof).decode()}"


def _hmac(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")


class ScramClient(Client):
    """A client that is asked for the password. It believes whatever the server signs."""

    __slots__ = ("_is_proven",)

    def data_received(self, data: bytes) -> None:
        """Each of the two questions comes alone and whole: it is short, and the next one waits for us."""
        if getattr(self, "_is_proven", False) or data[0] == ERROR:
            return super().data_received(data)
        _, length, code = _HEAD.unpack_from(data)
        if data[0] != AUTHENTICATION or len(data) != 1 + length or code not in (SASL, SASL_CONTINUE):
            return self.fail(f"no question for a password: {data[:40]!r}")
        self._is_proven = code == SASL_CONTINUE
        return self.transport.write(build_answer(code, data[9:]))


def build_answer(code: int, body: bytes) -> bytes:
    """PasswordMessage for AuthenticationSASL or AuthenticationSASLContinue with this body."""
    if code == SASL:
        first = (NO_BINDING + BARE_FIRST).encode()
        return build_message(b"p", MECHANISM + _LENGTH.pack(len(first)) + first)
    return build_message(b"p", build_proof(PASSWORD, body.decode()).encode())
