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

SCRAM-SHA-256-PLUS signs the hash of the server's certificate too (`certificates.find_end_point`), so that nobody can
sit in between with a certificate of his own and pass on what both say. Whoever sits there would rather have them speak
without: so the client says in its first message, which is signed, whether it binds (`p`), could but was not
offered it (`y`), or cannot (`n`). A server that did offer it and hears `y` knows that somebody has lied to both.
"""

import hashlib
import hmac
import re
import secrets
from binascii import b2a_base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from protocol import sqlstate
from protocol.errors import ProtocolError, Refused
from protocol.passwords import KEY_LENGTH, MAX_SALT_LENGTH, ScramKeys, ScramVerifier, encode_text, parse_base64

MECHANISM: Final = "SCRAM-SHA-256"
MECHANISM_PLUS: Final = "SCRAM-SHA-256-PLUS"
BINDING_TYPE: Final = b"tls-server-end-point"  # RFC 5929 section 4, the only one PostgreSQL knows
MAX_MESSAGE_LENGTH: Final = 4096
MAX_USUAL_FIRST: Final = 512  # bytes of a first message that is not looked at closely
MAX_CLIENT_NONCE: Final = 256  # bytes; libpq sends 24
MAX_SERVER_NONCE: Final = 512  # bytes, ours included; PostgreSQL sends 48
MAX_SERVER_ITERATIONS: Final = 1_000_000  # about 0.3 s of a thread, the most a hostile server may cost us

_NONCE = rb"[\x21-\x2b\x2d-\x7e]+"  # RFC 5802: printable ASCII without the comma
_BASE64 = rb"[A-Za-z0-9+/=]+"
_CLIENT_FIRST = re.compile(rb"((n|y|p=([A-Za-z0-9.-]{1,64})),([^,]*),)((m=)?.*)", re.DOTALL)
_CLIENT_FIRST_BARE = re.compile(rb"n=[^,]*,r=(" + _NONCE + rb")(,.*)?", re.DOTALL)
_USUAL_FIRST = re.compile(rb"n,,(n=[^,]*,r=([\x21-\x2b\x2d-\x7e]{1,200}))")  # of a client that cannot bind
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


def offered_with(channel_binding: bytes | None) -> tuple[str, ...]:
    """The mechanisms a server has for a connection that can be bound to this, the best one first; None: to nothing."""
    return (MECHANISM,) if channel_binding is None else (MECHANISM_PLUS, MECHANISM)


class ScramClient:
    """
    The client's role: `first`, `challenge`, `proof`, `check_final`. All raise ProtocolError on a bad server.

    `channel_binding` is what the connection can be bound to: None without TLS, or where the certificate has no such
    hash. It is bound if the server offers to.
    """

    def __init__(
        self,
        offered: Sequence[str] = (MECHANISM,),
        *,
        user: str = "",
        nonce: str | None = None,
        channel_binding: bytes | None = None,
    ) -> None:
        self.mechanism = _choose(offered, channel_binding)
        self._nonce = (nonce or _new_nonce()).encode()
        self._header = _gs2_header(self.mechanism, channel_binding)
        bound = channel_binding if self.mechanism == MECHANISM_PLUS else None
        self._bound = _to_base64(self._header + (bound or b""))
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
        return self._without_proof + b",p=" + _to_base64(proof)

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

    `mechanism` is the one the client has selected among those of `offered_with(channel_binding)`.
    """

    keys: ScramKeys

    def __init__(
        self,
        *verifiers: ScramVerifier,
        nonce: str | None = None,
        mechanism: str = MECHANISM,
        channel_binding: bytes | None = None,
    ) -> None:
        assert verifiers, "a SCRAM server needs a verifier: see mock_verifier"
        assert mechanism in offered_with(channel_binding), "not offered"
        like = verifiers[0].salt, verifiers[0].iterations
        alike = len(verifiers) == 1 or all((each.salt, each.iterations) == like for each in verifiers)
        assert alike, "verifiers of different salts"
        self._verifiers = verifiers
        self._nonce = (nonce or _new_nonce()).encode()
        self._is_bound = mechanism == MECHANISM_PLUS
        self._channel_binding = channel_binding

    def first(self, client_first: bytes) -> bytes:
        """server-first-message, the answer to `client_first`."""
        usual = None if self._is_bound else _USUAL_FIRST.match(client_first[:MAX_USUAL_FIRST])
        if usual is not None and len(client_first) == usual.end():
            bare, nonce = usual.groups()
            self._bound = _UNBOUND
        else:
            bare, nonce = self._look_closer(client_first)
        self._nonces = nonce + self._nonce
        salt, iterations = self._verifiers[0].salt, self._verifiers[0].iterations
        server_first = b"r=%b,s=%b,i=%d" % (self._nonces, _to_base64(salt), iterations)
        self._opening = bare + b"," + server_first
        return server_first

    def _look_closer(self, client_first: bytes) -> tuple[bytes, bytes]:
        """All but its header, and its nonce."""
        header, flag, binding_type, authzid, bare, extension = _read(
            _CLIENT_FIRST, client_first, "first message of the client"
        ).groups()
        if extension:
            raise ProtocolError("the client requires a SCRAM extension that is not supported")
        if authzid:
            raise ProtocolError("the client uses a SCRAM authorization identity, which is not supported")
        self._check_binding(flag, binding_type)
        self._bound = _to_base64(header + (self._channel_binding or b"" if self._is_bound else b""))
        nonce = _read(_CLIENT_FIRST_BARE, bare, "first message of the client")[1]
        if len(nonce) > MAX_CLIENT_NONCE:
            raise ProtocolError(f"the client's SCRAM nonce is longer than {MAX_CLIENT_NONCE} bytes")
        return bare, nonce

    def _check_binding(self, flag: bytes, binding_type: bytes | None) -> None:
        """RFC 5802 section 6: the flag must suit the mechanism and what we have offered."""
        if binding_type is None:
            if self._is_bound:
                raise ProtocolError(
                    f"the client selected {MECHANISM_PLUS}, but its message has no channel binding data"
                )
            if flag == b"y" and self._channel_binding is not None:
                raise Refused(
                    sqlstate.INVALID_AUTHORIZATION,
                    "SCRAM channel binding negotiation error",
                    detail="The client supports SCRAM channel binding but thinks the server does not. "
                    "However, this server does: someone may sit in between.",
                )
        elif not self._is_bound:
            raise ProtocolError(f"the client selected {MECHANISM} without channel binding, but its message has some")
        elif binding_type != BINDING_TYPE:
            raise ProtocolError(f'unsupported SCRAM channel-binding type "{binding_type.decode("ascii")}"')

    def final(self, client_final: bytes) -> bytes:
        """server-final-message, the answer to `client_final`; WrongPassword when the proof is wrong."""
        usual = b"c=%b,r=%b,p=" % (self._bound, self._nonces)
        proof = parse_base64(client_final[len(usual) :]) if client_final.startswith(usual) else None
        if proof is not None and len(proof) == KEY_LENGTH:
            without_proof = usual[:-3]
        else:
            without_proof, proof = self._look_closer_at_last(client_final)
        return self._prove(proof, self._opening + b"," + without_proof)

    def _look_closer_at_last(self, client_final: bytes) -> tuple[bytes, bytes]:
        """What is signed of it, and the proof."""
        match = _read(_CLIENT_FINAL, client_final, "last message of the client")
        proof = parse_base64(match[4]) or b""
        if match[2] != self._bound:
            raise self._unbound()
        if match[3] != self._nonces:
            raise ProtocolError("the SCRAM nonce of the client's last message is not the one agreed upon")
        if len(proof) != KEY_LENGTH:
            raise ProtocolError(f"malformed SCRAM message: the proof is not base64 of {KEY_LENGTH} bytes")
        return match[1], proof

    def _unbound(self) -> Exception:
        """The client's last message repeats another header than its first, or is bound to another certificate."""
        if not self._is_bound:
            return ProtocolError("unexpected SCRAM channel-binding attribute in the client's last message")
        return Refused(
            sqlstate.INVALID_AUTHORIZATION,
            "SCRAM channel binding check failed",
            detail="The client has seen another certificate than the one shown here: someone may sit in between.",
        )

    def _prove(self, proof: bytes, signed: bytes) -> bytes:
        """What the one says whose keys make `proof` right. All verifiers are tried, so that time tells nothing."""
        found = None
        for verifier in self._verifiers:
            client_key = _xor(proof, verifier.signers[0].sign(signed))
            if hmac.compare_digest(hashlib.sha256(client_key).digest(), verifier.stored_key):
                found = client_key, verifier
        if found is None:
            raise WrongPassword
        client_key, verifier = found
        self.keys = ScramKeys(client_key, verifier.server_key, verifier.stored_key)
        return b"v=" + _to_base64(verifier.signers[1].sign(signed))


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


def _choose(offered: Sequence[str], channel_binding: bytes | None) -> str:
    for mechanism in offered_with(channel_binding):
        if mechanism in offered:
            return mechanism
    names = ", ".join(offered[:5])[:200]
    spoken = " and ".join(offered_with(channel_binding))
    raise ProtocolError(f"the server offers the SASL mechanisms {names!r}; we speak only {spoken} here")


def _gs2_header(mechanism: str, channel_binding: bytes | None) -> bytes:
    if mechanism == MECHANISM_PLUS:
        return b"p=%b,," % BINDING_TYPE
    return b"n,," if channel_binding is None else b"y,,"


def _new_nonce() -> str:
    return _to_base64(secrets.token_bytes(18)).decode()


_UNBOUND: Final = b2a_base64(b"n,,", newline=False)


def _to_base64(value: bytes) -> bytes:
    return b2a_base64(value, newline=False)


def _sign(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")


def _xor(left: bytes, right: bytes) -> bytes:
    """Of equal length. As numbers: 0.3 us, byte by byte it is 3."""
    return (int.from_bytes(left) ^ int.from_bytes(right)).to_bytes(len(left))
