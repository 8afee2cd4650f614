"""An issuer of tokens for tests: its keys, its JWK set, and tokens that are right but for what a test says."""

import base64
import hmac
import json
import time
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from protocol.passwords import Secret

ISSUER = "https://id.example.com/realm"
SIGNED = [
    *(("2048", algorithm) for algorithm in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
    ("P-256", "ES256"),
    ("P-384", "ES384"),
    ("P-521", "ES512"),
    ("Ed25519", "EdDSA"),
]
TIMES = ("exp", "nbf", "iat")
CLAIMS: dict[str, Any] = {"iss": ISSUER, "aud": "pgshuttle", "sub": "anna", "scope": "openid db"}


@cache
def private_key(kind: str, number: int = 0) -> Any:
    """RSA, its bits; or a curve by its name in JWKs. `number` tells several apart."""
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind.startswith("P-"):
        return ec.generate_private_key({"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}[kind]())
    return rsa.generate_private_key(65537, int(kind))


def public_jwk(kind: str, name: str, number: int = 0, **more: Any) -> dict[str, Any]:
    algorithm = {"Ed25519": "EdDSA", "P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}.get(kind, "RS256")
    public = private_key(kind, number).public_key()
    jwk = jwt.get_algorithm_by_name(algorithm).to_jwk(public, as_dict=True)
    return {name: value for name, value in jwk.items() if name != "key_ops"} | {"kid": name} | more


def jwk_set(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def token(
    kind: str = "2048",
    algorithm: str = "RS256",
    name: str | None = "one",
    number: int = 0,
    header: dict[str, Any] | None = None,
    **claims: Any,
) -> Secret:
    """A token of today that anna may use, but for these: times are from now on; a claim that is None is left out."""
    said = {**CLAIMS, "exp": 600, "iat": 0, **claims}
    said = {
        key: time.time() + value if key in TIMES and isinstance(value, int) else value for key, value in said.items()
    }
    said = {key: value for key, value in said.items() if value is not None}
    headers = {**({"kid": name} if name is not None else {}), **(header or {})}
    return Secret(jwt.encode(said, private_key(kind, number), algorithm=algorithm, headers=headers))


def forged(header: dict[str, Any], claims: dict[str, Any], key: bytes = b"") -> Secret:
    """Whatever a thief writes himself, signed by HMAC with `key`, or not at all."""
    body = b".".join(_encode(json.dumps(part).encode()) for part in (header, claims))
    signature = hmac.digest(key, body, "sha256") if key else b""
    return Secret((body + b"." + _encode(signature)).decode())


def public_pem(kind: str) -> bytes:
    public = private_key(kind).public_key()
    return bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def _encode(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")
