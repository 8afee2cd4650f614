"""Tokens: the good ones, and every lie that a token can tell."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.passwords import Secret
from proxy.config.outside import OauthRules, read_oauth
from proxy.config.settings import Settings
from tests.extras import need
from tests.proxy.auth.wire import play

need("jwt", "cryptography")

from proxy.auth.jwks import Key, NoKeys, parse_keys  # noqa: E402
from proxy.auth.tokens import BadToken, MayBe, check_token  # noqa: E402
from tests.proxy.auth import issuer  # noqa: E402
from tests.proxy.auth.issuer import SIGNED, forged, jwk_set, public_jwk, token  # noqa: E402

KINDS = {"2048": "one", "P-256": "two", "P-384": "three", "P-521": "four", "Ed25519": "five"}
SET = jwk_set(*(public_jwk(kind, name) for kind, name in KINDS.items()))


class Keys:
    """A set that never changes."""

    source = "keys.json"

    def __init__(self, text: bytes = SET) -> None:
        self.keys = parse_keys(text)

    async def find(self, name: str | None, algorithm: str) -> Key | None:
        return next((key for key in self.keys if key.name == name and algorithm in key.algorithms), None)


class Gone:
    source = "https://id.example.com/keys"

    async def find(self, name: str | None, algorithm: str) -> Key | None:
        raise NoKeys("the keys of https://id.example.com/keys cannot be had")


def rules(**said: Any) -> OauthRules:
    settings = {
        "oauth_issuer": issuer.ISSUER,
        "oauth_jwks": "keys.json",
        "oauth_audience": ("pgshuttle", "other"),
        "oauth_scope": ("db",),
    }
    return read_oauth(Settings(**{**settings, **said}))


def verdict(shown: Secret, user: str = "anna", keys: Any = None, may_be: MayBe | None = None, **said: Any) -> str:
    """Why it is not believed; empty when it is."""
    why = ""
    try:
        play(check_token(shown, rules(**said), keys or Keys(), may_be or user.__eq__))
    except BadToken as bad:
        why = str(bad)
    assert (shown.reveal()[:20] or "?") not in why, "a part of a token in the log"
    return why


@pytest.mark.parametrize(("kind", "algorithm"), SIGNED)
def test_each_algorithm_of_a_public_key_is_believed(kind: str, algorithm: str) -> None:
    assert verdict(token(kind, algorithm, KINDS[kind])) == ""


@pytest.mark.parametrize(("kind", "algorithm"), SIGNED)
def test_a_signature_of_another_key_is_not(kind: str, algorithm: str) -> None:
    shown = token(kind, algorithm, KINDS[kind], number=1)
    assert verdict(shown) == "its signature is wrong"


@pytest.mark.parametrize(("kind", "algorithm"), SIGNED)
def test_a_changed_claim_breaks_the_signature(kind: str, algorithm: str) -> None:
    head, _, signature = token(kind, algorithm, KINDS[kind]).reveal().split(".")
    _, other, _ = token(kind, algorithm, KINDS[kind], sub="root").reveal().split(".")
    assert verdict(Secret(f"{head}.{other}.{signature}"), "root") == "its signature is wrong"


CLAIMS = {**issuer.CLAIMS, "exp": 4102444800}


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "", "HS256", "HS384", "HS512", "ES256K", None, 1, ["RS256"]]
)
def test_none_and_hmac_are_no_signatures(algorithm: Any) -> None:
    shown = forged({"alg": algorithm, "kid": "one", "typ": "JWT"}, CLAIMS)
    assert verdict(shown) in ("it is not signed with a public key", "it is no JWT")


@pytest.mark.parametrize("key", [issuer.public_pem("2048"), SET, json.dumps(public_jwk("2048", "one")).encode()])
def test_a_public_key_is_no_password_of_hmac(key: bytes) -> None:
    """Algorithm confusion: the thief knows the public key, as everybody does, and signs with it by HMAC."""
    assert verdict(forged({"alg": "HS256", "kid": "one"}, CLAIMS, key)) == "it is not signed with a public key"
    assert verdict(forged({"alg": "RS256", "kid": "one"}, CLAIMS, key)) == "its signature is wrong"


def test_a_key_is_for_its_own_algorithms_only() -> None:
    assert verdict(token("2048", "PS256", "one"), keys=Keys(jwk_set(public_jwk("2048", "one", alg="RS256")))) == (
        "keys.json has no key for it"
    )
    assert verdict(token("P-256", "ES256", "one")) == "keys.json has no key for it"  # that name is of an RSA key


@pytest.mark.parametrize("header", ["jwk", "jku", "x5u", "x5c"])
def test_a_key_that_the_token_brings_along_is_not_looked_at(header: str) -> None:
    own = {"jwk": public_jwk("2048", "one", number=1), "jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/"}
    shown = token(number=1, header={header: own.get(header, ["MIIB"])})
    assert verdict(shown) == "its signature is wrong"


def test_what_a_header_marks_as_critical_ends_it() -> None:
    ended = ("its header demands what we do not do", "it is no JWT")  # by us, or by the library before us
    assert verdict(token(header={"crit": ["exp"], "exp": 1})) in ended
    assert verdict(forged({"alg": "RS256", "kid": "one", "b64": False}, CLAIMS)) in ended


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": -40}, "it has expired"),
        ({"exp": None}, "it lacks exp, iss or aud"),
        ({"exp": "soon"}, "it is no JWT"),
        ({"nbf": 100}, "it is not valid yet"),
        ({"iat": 100}, "it is not valid yet"),
        ({"iss": None}, "it lacks exp, iss or aud"),
        ({"iss": "https://id.example.com"}, "it is of another issuer"),
        ({"iss": issuer.ISSUER + "/"}, "it is of another issuer"),
        ({"aud": None}, "it lacks exp, iss or aud"),
        ({"aud": "shop"}, "it is made for somebody else"),
        ({"aud": ["shop", "pgshuttl"]}, "it is made for somebody else"),
        ({"aud": []}, "it lacks exp, iss or aud"),
        ({"scope": None}, "it lacks the scope db"),
        ({"scope": "dbx openid"}, "it lacks the scope db"),
        ({"scope": {"db": 1}}, "it lacks the scope db"),
        ({"sub": "bert"}, 'it is of "bert"'),
        ({"sub": "Anna"}, 'it is of "Anna"'),
        ({"sub": "anna\n2026 LOG"}, 'it is of "anna\\n2026 LOG"'),
        ({"sub": "a" * 257}, "it has no claim sub that names somebody"),
        ({"sub": ""}, "it has no claim sub that names somebody"),
        ({"sub": None}, "it has no claim sub that names somebody"),
    ],
)
def test_each_claim_is_held_against_the_rules(claims: dict[str, Any], why: str) -> None:
    assert verdict(token(**claims)) == why


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": -10},  # clocks differ
        {"nbf": 10},
        {"aud": ["shop", "pgshuttle"]},
        {"aud": "other"},
        {"scope": ["db"]},
        {"scope": None, "scp": ["openid", "db"]},
        {"scope": None, "scp": "db"},
    ],
)
def test_what_is_near_enough_is_enough(claims: dict[str, Any]) -> None:
    assert verdict(token(**claims)) == ""


def test_all_scopes_are_needed() -> None:
    assert verdict(token(scope="db write"), oauth_scope=("db", "write")) == ""
    assert verdict(token(scope="write"), oauth_scope=("db", "write")) == "it lacks the scope db"


def test_another_claim_may_name_the_user_and_somebody_else_says_whom_it_means() -> None:
    shown, heard = token(sub="4711", email="anna@example.com"), list[str]()
    assert verdict(shown, "anna@example.com", oauth_user_claim="email") == ""
    assert verdict(shown, "anna", oauth_user_claim="email") == 'it is of "anna@example.com"'

    def may_be(identity: str) -> bool:
        heard.append(identity)
        return identity == "anna@example.com"

    assert verdict(shown, may_be=may_be, oauth_user_claim="email") == ""
    assert verdict(shown, may_be=may_be) == 'it is of "4711"'
    assert verdict(token(email=["anna@example.com"]), may_be=may_be, oauth_user_claim="email") != ""
    assert heard == ["anna@example.com", "4711"]


def test_without_keys_nobody_gets_in() -> None:
    assert verdict(token(), keys=Gone()) == "the keys of https://id.example.com/keys cannot be had"


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "a" * 65_000, "." * 65_000, "e30.e30.", "\u00e9.e30.e30"])
def test_what_is_no_jwt_is_none(text: str) -> None:
    assert verdict(Secret(text)) in ("it is no JWT", "it is not signed with a public key")


def test_deep_nesting_is_no_way_to_run_out_of_stack() -> None:
    deep = base64.urlsafe_b64encode(b'{"a":' + b"[" * 30_000).decode()
    assert verdict(Secret(f"{deep}.e30.AAAA")) == "it is no JWT"


@given(st.text("abcdefABCDEF019._-=", max_size=80), st.integers(0, 60))
def test_whatever_is_shown_it_is_a_bad_token_and_nothing_else(said: str, cut: int) -> None:
    good = token().reveal()
    for text in (said, good[:cut] + said + good[cut:], good[: -cut or None] + said):
        if text != good:
            assert verdict(Secret(text)) != ""
