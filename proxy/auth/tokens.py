"""
A bearer token under examination: is it the issuer's, for us, of today, and whose?

Theory. A token is believed for its signature and for nothing it says about itself. Its header may only name a key of
the issuer's set and an algorithm which that key is for; where it wants to bring a key along (`jwk`, `jku`, `x5c`)
nobody looks, and what it marks as critical ends it. Then its claims are held against the rules: issuer, audience and
expiry must be there and be right, every scope that is wanted must be granted, and the claim that names somebody must
name the user who logs in.

`none` and the HMACs are in no list of algorithms (see jwks.py), so a public key never does as a password.

All that goes wrong is a `BadToken`, whose sentence is for our log: the client hears one sentence whatever it was, and
no sentence has a part of the token in it but the name of its owner. Checking costs 160 us (RS256, ES256) to 700 us
(ES512), much of it Python's own: about what all the rest of a login costs, so it is done on the event loop.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from protocol.passwords import Secret
from proxy.auth.extras import library
from proxy.auth.jwks import Key, KeySet, NoKeys
from proxy.config.outside import OauthRules

LEEWAY: Final = 30.0  # seconds that the issuer's clock may differ from ours
MAX_NAME: Final = 256  # characters of who it is, and of a key's name
ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)


MayBe: TypeAlias = Callable[[str], bool]
"""May he whom the issuer calls so be the user who logs in?"""


class BadToken(Exception):
    """It lets nobody in: why, for our log."""


async def check_token(token: Secret, rules: OauthRules, keys: KeySet, may_be: MayBe) -> None:
    """BadToken: `token` does not show that its bearer is who he says."""
    name, algorithm = read_header(token)
    try:
        key = await keys.find(name, algorithm)
    except NoKeys as sentence:
        raise BadToken(str(sentence)) from None
    if key is None:
        raise BadToken(f"{keys.source} has no key for it")
    check_claims(read_claims(token, key, rules), rules, may_be)


def read_header(token: Secret) -> tuple[str | None, str]:
    """Which key it says it is signed with, and how; nothing of that is believed."""
    jwt = library("jwt")
    try:
        header = jwt.get_unverified_header(token.reveal())
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise BadToken("it is no JWT") from None
    name, algorithm = header.get("kid"), header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise BadToken("it is not signed with a public key")
    if "crit" in header or "b64" in header:
        raise BadToken("its header demands what we do not do")
    if name is not None and (not isinstance(name, str) or len(name) > MAX_NAME):
        raise BadToken("its header names no key")
    return name, algorithm


def read_claims(token: Secret, key: Key, rules: OauthRules) -> Mapping[str, Any]:
    """Its claims, when signature, issuer, audience and times are right."""
    jwt = library("jwt")
    try:
        claims: Mapping[str, Any] = jwt.decode(
            token.reveal(),
            key.public,
            algorithms=list(key.algorithms),
            issuer=rules.issuer,
            audience=list(rules.audience),
            leeway=LEEWAY,
            options={"require": ["exp", "iss", "aud"]},
        )
    except jwt.PyJWTError as error:
        raise BadToken(_EXPLAINED.get(type(error).__name__, "it is not as it should be")) from None
    except (ValueError, TypeError, OverflowError, RecursionError, AttributeError):
        raise BadToken("its claims make no sense") from None
    return claims


def check_claims(claims: Mapping[str, Any], rules: OauthRules, may_be: MayBe) -> None:
    """Does it allow what is wanted, and to somebody who may be this user?"""
    granted = _read_scope(claims)
    if not granted.issuperset(rules.scope):
        raise BadToken(f"it lacks the scope {' '.join(sorted(set(rules.scope) - granted))}")
    identity = claims.get(rules.user_claim)
    if not isinstance(identity, str) or not 0 < len(identity) <= MAX_NAME:
        raise BadToken(f"it has no claim {rules.user_claim} that names somebody")
    if not may_be(identity):
        raise BadToken(f"it is of {json.dumps(identity)}")


def _read_scope(claims: Mapping[str, Any]) -> frozenset[str]:
    """RFC 8693 has `scope`, one text with blanks; others have a list, or call it `scp`."""
    said = claims.get("scope", claims.get("scp", ""))
    words = said.split(" ") if isinstance(said, str) else said if isinstance(said, list) else ()
    return frozenset(word for word in words if isinstance(word, str))


_EXPLAINED: Final = {
    "DecodeError": "it is no JWT",
    "InvalidSignatureError": "its signature is wrong",
    "InvalidAlgorithmError": "it is signed in a way its key is not for",
    "ExpiredSignatureError": "it has expired",
    "ImmatureSignatureError": "it is not valid yet",
    "InvalidIssuerError": "it is of another issuer",
    "InvalidAudienceError": "it is made for somebody else",
    "MissingRequiredClaimError": "it lacks exp, iss or aud",
}
