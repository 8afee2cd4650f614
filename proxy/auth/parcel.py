"""
A proof on its way to the process that takes over: to what JSON can say, and back.

Theory. A client that moves to a new process brings its session along, but it will not log in again, and so would never
show its key there. Where servers can only be opened with what clients have shown, or with what auth_query has found,
the old process says what that is: with the client, so after both sides have proven who they are, over the socket
that carries the client itself. What is in the file the new process reads for itself.

What comes is trusted as little as all that comes that way: it is looked at, and without it the pool waits for the next
login.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final

from protocol.passwords import (
    KEY_LENGTH,
    LearntKeys,
    Md5,
    Plain,
    ScramKeys,
    ScramVerifier,
    Secret,
    Stored,
    build_verifier,
    parse_stored,
)
from proxy.auth.claim import Password
from proxy.auth.lookup import Question
from proxy.auth.proofs import Proof

Body = dict[str, Any]


def pack_proof(proof: Proof | None) -> Body | None:
    """None: the new process has no need of it."""
    if proof is None or (proof.source is None and not isinstance(proof.password, LearntKeys)):
        return None
    source = proof.source
    return {
        "stored": None if proof.stored is None else _pack_stored(proof.stored),
        "keys": _pack_keys(proof.password) if isinstance(proof.password, LearntKeys) else None,
        "source": [source.database, source.user, source.query] if isinstance(source, Question) else None,
    }


def unpack_proof(body: Any) -> Proof | None:
    """None, KeyError, TypeError, ValueError: there is nothing that can be used."""
    if body is None:
        return None
    stored = None if body["stored"] is None else _unpack_stored(body["stored"])
    password = _unpack_keys(body["keys"]) if body["keys"] is not None else _take(stored)
    source = None if body["source"] is None else Question(*map(str, body["source"]))
    return Proof(stored, password, source)


def _take(stored: Stored | None) -> Password:
    return stored.secret if isinstance(stored, Plain) else stored


def _pack_keys(learnt: LearntKeys) -> list[Any]:
    keys = learnt.keys
    parts = (keys.client_key, keys.server_key, keys.stored_key, learnt.salt)
    return [*(b64encode(part).decode() for part in parts), learnt.iterations]


def _unpack_keys(packed: Any) -> LearntKeys:
    *parts, iterations = packed
    client_key, server_key, stored_key, salt = (b64decode(part, validate=True) for part in parts)
    if not all(len(key) == KEY_LENGTH for key in (client_key, server_key, stored_key)):
        raise ValueError("a key of another length")
    return LearntKeys(ScramKeys(client_key, server_key, stored_key), salt, int(iterations))


def _pack_stored(stored: Stored) -> list[str]:
    kind, text = _PACKED[type(stored)]
    return [kind, text(stored)]


def _unpack_stored(packed: Any) -> Stored:
    kind, text = map(str, packed)
    return Plain(Secret(text)) if kind == "plain" else parse_stored(text)


_PACKED: Final[Mapping[type, tuple[str, Callable[[Any], str]]]] = {
    Plain: ("plain", lambda stored: stored.secret.reveal()),
    Md5: ("hash", lambda stored: f"md5{stored.digits}"),
    ScramVerifier: ("hash", build_verifier),
}
