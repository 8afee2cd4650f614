"""
SCRAM-SHA-256, both roles: RFC 5802 (the exchange), RFC 7677 (the hash), and PostgreSQL's docs, "SASL Authentication".

Theory. Four messages:

    client                                      server
    n,,n=USER,r=CNONCE              ->
                                    <-          r=CNONCE+SNONCE,s=SALT,i=ITERATIONS
    c=GS2HEADER,r=NONCES,p=PROOF    ->
                                    <-          v=SIGNATURE

Both sides sign the same text, the first three messages without the proof, and so prove to each other that
they know keys of the password while saying neither. `ScramClient` logs us in to PostgreSQL, `ScramServer`
lets a client log in to us. Each is used once, in the order of its methods, and does no I/O.

Neither trusts the other side. Everything that is read has a bound, base64 is strict, an extension that must
be understood (`m=`) is refused, and a nonce must be the one agreed upon. (A pooler once wrote past its
buffer because a server's nonce was long, another because a client's iterations were.)

The user name in the exchange is ignored, as PostgreSQL does: the startup packet has named the user.
`channel_binding` is the seam for SCRAM-SHA-256-PLUS: the binding data of tls-server-end-point, or None.
"""

import hashlib
import hmac
import re
import secrets
from base64 import b64encode
from dataclasses import dataclass
from typing import Final

from protocol.errors import ProtocolError
from protocol.passwords import KEY_LENGTH, MAX_SALT_LENGTH, ScramKeys, ScramVerifier, encode_text, parse_base64

MECHANISM: Final = "SCRAM-SHA-256"
MAX_MESSAGE_LENGTH: Final = 4096
MAX_CLIENT_NONCE: Final = 256  # bytes; libpq sends 24
MAX_SERVER_NONCE: Final = 512  # bytes, ours included; PostgreSQL sends 48
MAX_SERVER_ITERATIONS: Final = 1_000_000  # about 0.3 s of a thread, the most a hostile server may cost us

_NONCE = rb"[\x21-\x2b\x2d-\x7e]+"  # RFC 5802: printable ASCII without the comma
_BASE64 = rb"[A-Za-z0-9+/=]+"
_CLIENT_FIRST = re.compile(rb"((?:n|y|(p)=[^,]*),([^,]*),)((m=)?.*)", re.DOTALL)
_CLIENT_FIRST_BARE = re.compile(rb"n=[^,]*,r=(" + _NONCE + rb")(,.*)?", re.DOTALL)
_SERVER_FIRST = re.compile(rb"r=(" + _NONCE + rb"),s=(" + _BASE64 + rb"),i=([0-9]{1,10})(,.*)?", re.DOTALL)
_CLIENT_FINAL = re.compile(rb"(c=(" + _BASE64 + rb"),r=(" + _NONCE + rb")(?:,.*)?),p=(" + _BASE64 + rb")", re.DOTALL)
_SERVER_FINAL = re.compile(rb"(?:v=(" + _BASE64 + rb")|e=([\x20-\x2b\x2d-\x7e]{1,200}))(,.*)?", re.DOTALL)


class WrongPassword(Exception):
    """The client does not know the password."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the server asks us to salt our password with."""

    salt: bytes
    iterations: int


class ScramClient:
    """The client's role: `first`, `challenge`, `proof`, `check_final`. All raise ProtocolError on a bad server."""

    def __init__(self, *, user: str = "", nonce: str | None = None, channel_binding: bytes | None = None) -> None:
        self._nonce = (nonce or _new_nonce()).encode()
        self._header, self._bound = _gs2(channel_binding)
        name = user.replace("=", "=3D").replace(",", "=2C")
        self._first_bare = b"n=" + encode_text(name) + b",r=" + self._nonce

    def first(self) -> bytes:
        """client-first-message."""
        return self._header + self._first_bare

    def challenge(self, server_first: bytes) -> Challenge:
        """Read server-first-message."""
        match = _read(_SERVER_FIRST, server_first, "first message of the server")
        nonces, iterations = match[1], int(match[3])
        if not nonces.startswith(self._nonce) or len(nonces) == len(self._nonce):
            raise ProtocolError("the server's SCRAM nonce does not continue ours: someone may sit in between")
        if len(nonces) > MAX_SERVER_NONCE:
            raise ProtocolError(f"the server's SCRAM nonce is longer than {MAX_SERVER_NONCE} bytes")
        if not 1 <= iterations <= MAX_SERVER_ITERATIONS:
            raise ProtocolError(
                f"the server asks for {iterations} SCRAM iterations; 1 to {MAX_SERVER_ITERATIONS} are allowed"
            )
        self._without_proof = b"c=" + self._bound + b",r=" + nonces
        self._signed = b",".join((self._first_bare, server_first, self._without_proof))
        return Challenge(_parse_salt(match[2]), iterations)

    def proof(self, keys: ScramKeys) -> bytes:
        """client-final-message, made with the keys of our password under the challenge."""
        self._server_signature = _sign(keys.server_key, self._signed)
        proof = _xor(keys.client_key, _sign(keys.stored_key, self._signed))
        return self._without_proof + b",p=" + b64encode(proof)

    def check_final(self, server_final: bytes) -> None:
        """Read server-final-message; ProtocolError unless the server has proved that it knows our password's keys."""
        match = _read(_SERVER_FINAL, server_final, "last message of the server")
        if match[2] is not None:
            raise ProtocolError(f"the server ends the SCRAM exchange: {match[2].decode('ascii')}")
        signature = parse_base64(match[1]) or b""
        if not hmac.compare_digest(signature, self._server_signature):
            raise ProtocolError("the server does not know our password: it is not the server we mean to talk to")


class ScramServer:
    """The server's role: `first`, `final`. Both raise ProtocolError on a malformed message.

    Several verifiers, one per password that is right at this time, must share salt and iterations, since the client
    hears only one of each. After `final`, `keys` are those the client has proved to know: PgBouncer uses them to
    log in to PostgreSQL as that client.
    """

    keys: ScramKeys

    def __init__(
        self, *verifiers: ScramVerifier, nonce: str | None = None, channel_binding: bytes | None = None
    ) -> None:
        assert verifiers, "a SCRAM server needs a verifier: see mock_verifier"
        assert len({(each.salt, each.iterations) for each in verifiers}) == 1, "verifiers of different salts"
        self._verifiers = verifiers
        self._nonce = (nonce or _new_nonce()).encode()
        self._channel_binding = channel_binding

    def first(self, client_first: bytes) -> bytes:
        """server-first-message, the answer to `client_first`."""
        header, binding, authzid, bare, extension = _read(
            _CLIENT_FIRST, client_first, "first message of the client"
        ).groups()
        self._check_header(header, binding, authzid, extension)
        self._bound = b64encode(header + (self._channel_binding or b""))
        nonce = _read(_CLIENT_FIRST_BARE, bare, "first message of the client")[1]
        if len(nonce) > MAX_CLIENT_NONCE:
            raise ProtocolError(f"the client's SCRAM nonce is longer than {MAX_CLIENT_NONCE} bytes")
        self._nonces = nonce + self._nonce
        salt, iterations = self._verifiers[0].salt, self._verifiers[0].iterations
        server_first = b"r=%b,s=%b,i=%d" % (self._nonces, b64encode(salt), iterations)
        self._opening = bare + b"," + server_first
        return server_first

    def _check_header(self, header: bytes, binding: bytes | None, authzid: bytes, extension: bytes | None) -> None:
        """RFC 5802 section 7: gs2-header, and no extension that must be understood."""
        if extension:
            raise ProtocolError("the client requires a SCRAM extension that is not supported")
        if authzid:
            raise ProtocolError("the client uses a SCRAM authorization identity, which is not supported")
        if self._channel_binding is None and binding:
            raise ProtocolError("the client requires SCRAM channel binding, which this connection does not offer")
        if self._channel_binding is not None and header != _gs2_header(self._channel_binding):
            raise ProtocolError("the client selected SCRAM-SHA-256-PLUS without tls-server-end-point channel binding")

    def final(self, client_final: bytes) -> bytes:
        """server-final-message, the answer to `client_final`; WrongPassword when the proof is wrong."""
        match = _read(_CLIENT_FINAL, client_final, "last message of the client")
        proof = parse_base64(match[4]) or b""
        if match[2] != self._bound:
            raise ProtocolError("SCRAM channel binding check failed")
        if match[3] != self._nonces:
            raise ProtocolError("the SCRAM nonce of the client's last message is not the one agreed upon")
        if len(proof) != KEY_LENGTH:
            raise ProtocolError(f"malformed SCRAM message: the proof is not base64 of {KEY_LENGTH} bytes")
        signed = self._opening + b"," + match[1]
        self.keys = self._prove(proof, signed)
        return b"v=" + b64encode(_sign(self.keys.server_key, signed))

    def _prove(self, proof: bytes, signed: bytes) -> ScramKeys:
        """The keys under which `proof` is right. All verifiers are tried, so that time tells nothing."""
        found = None
        for verifier in self._verifiers:
            client_key = _xor(proof, _sign(verifier.stored_key, signed))
            stored_key = hashlib.sha256(client_key).digest()
            if hmac.compare_digest(stored_key, verifier.stored_key):
                found = ScramKeys(client_key, verifier.server_key, stored_key)
        if found is None:
            raise WrongPassword
        return found


def mock_verifier(user: str, mock_key: bytes, iterations: int) -> ScramVerifier:
    """A verifier no password fits, the same for each user as long as `mock_key` is: an unknown user looks known."""
    salt, stored_key, server_key = (
        hmac.digest(mock_key, label + encode_text(user), "sha256") for label in (b"salt:", b"stored:", b"server:")
    )
    return ScramVerifier(iterations, salt[:16], stored_key, server_key)


def _read(pattern: re.Pattern[bytes], message: bytes, what: str) -> re.Match[bytes]:
    match = pattern.fullmatch(message) if len(message) <= MAX_MESSAGE_LENGTH else None
    if match is None:
        raise ProtocolError(f"malformed SCRAM message: {what}")
    return match


def _parse_salt(text: bytes) -> bytes:
    salt = parse_base64(text)
    if not salt or len(salt) > MAX_SALT_LENGTH:
        raise ProtocolError(f"the server's SCRAM salt is not base64 of 1 to {MAX_SALT_LENGTH} bytes")
    return salt


def _gs2(channel_binding: bytes | None) -> tuple[bytes, bytes]:
    """Our gs2-header, and the base64 of it and the binding that `c=` repeats."""
    header = _gs2_header(channel_binding)
    return header, b64encode(header + (channel_binding or b""))


def _gs2_header(channel_binding: bytes | None) -> bytes:
    return b"n,," if channel_binding is None else b"p=tls-server-end-point,,"


def _new_nonce() -> str:
    return secrets.token_urlsafe(18)


def _sign(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
