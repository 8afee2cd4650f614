"""An issuer's keys: which are usable, when they are asked for again, and that a flood asks once."""

import asyncio
import json
from typing import Any

import pytest

from proxy.auth.extras import library
from proxy.tasks import Tasks
from tests.extras import need
from tests.fakes import FakeClock, FakeLog
from tests.proxy.auth.wire import play

need("jwt", "cryptography")

from proxy.auth.jwks import FRESH, LONGEST, MAX_KEYS, MAX_SIZE, PAUSE, KeySet, NoKeys, parse_keys  # noqa: E402
from tests.proxy.auth.issuer import jwk_set, private_key, public_jwk  # noqa: E402

RSA = public_jwk("2048", "one")


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        (RSA, ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
        (RSA | {"alg": "RS512"}, ("RS512",)),
        (RSA | {"use": "sig", "key_ops": ["verify"]}, ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
        (public_jwk("P-256", "one"), ("ES256",)),
        (public_jwk("P-384", "one"), ("ES384",)),
        (public_jwk("P-521", "one"), ("ES512",)),
        (public_jwk("Ed25519", "one"), ("EdDSA",)),
    ],
)
def test_a_key_comes_with_the_algorithms_its_type_is_for(key: dict[str, Any], algorithms: tuple[str, ...]) -> None:
    (found,) = parse_keys(jwk_set(key))
    assert (found.name, found.algorithms) == ("one", algorithms)


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "one"},  # a password of HMAC
        {"kty": "oct", "k": "c2VjcmV0", "kid": "one", "alg": "HS256"},
        RSA | {"use": "enc"},
        RSA | {"key_ops": ["encrypt"]},
        RSA | {"key_ops": "verify"},
        RSA | {"alg": "HS256"},
        RSA | {"alg": "none"},
        RSA | {"alg": None},
        RSA | {"n": "AQAB"},
        RSA | {"n": 5},
        RSA | {"e": "!"},
        public_jwk("1024", "one"),
        {"kty": "RSA", "kid": "one"},
        {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"},
        public_jwk("P-256", "one") | {"y": "AAAA"},  # not on the curve
        public_jwk("P-256", "one") | {"crv": ["P-256"]},
        {"kty": ["RSA"]},
        {},
        None,
        "key",
        [],
    ],
)
def test_what_cannot_check_a_signature_is_passed_over(key: Any) -> None:
    assert [found.name for found in parse_keys(jwk_set(key, public_jwk("P-256", "two")))] == ["two"]
    with pytest.raises(ValueError, match="none of its keys"):
        parse_keys(jwk_set(key))


def test_of_a_private_key_only_the_public_part_is_taken() -> None:
    whole = library("jwt").get_algorithm_by_name("ES256").to_jwk(private_key("P-256"), as_dict=True)
    assert "d" in whole
    (found,) = parse_keys(jwk_set(whole))
    assert not hasattr(found.public, "private_numbers")


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": 1}', b"\xff", b"[" * 100_000, b'{"keys": []}', b"null"]
)
def test_what_is_no_set_is_refused_with_a_sentence(text: bytes) -> None:
    with pytest.raises(ValueError, match="keys"):
        parse_keys(text)


def test_a_set_has_a_most() -> None:
    with pytest.raises(ValueError, match="at most"):
        parse_keys(json.dumps({"keys": [{}] * (MAX_KEYS + 1)}).encode())


class Issuer:
    """Answers with its keys of the moment, and counts."""

    def __init__(self) -> None:
        self.text: bytes | Exception = jwk_set(RSA)
        self.asked = 0
        self.clock = FakeClock()
        self.log = FakeLog()
        self.keys = KeySet("keys.json", self.clock, Tasks(self.log), self.log, self.read)  # type: ignore[arg-type]

    async def read(self) -> bytes:
        self.asked += 1
        await asyncio.sleep(0)
        if isinstance(self.text, Exception):
            raise self.text
        return self.text

    async def has(self, name: str | None, algorithm: str = "RS256") -> bool:
        return await self.keys.find(name, algorithm) is not None


def test_keys_are_asked_for_once_and_then_known() -> None:
    async def scene() -> None:
        issuer = Issuer()
        assert all([await issuer.has("one") for _ in range(100)])
        assert issuer.asked == 1

    play(scene())


def test_a_storm_of_logins_asks_once() -> None:
    async def scene() -> None:
        issuer = Issuer()
        assert all(await asyncio.gather(*(issuer.has("one") for _ in range(1000))))
        assert issuer.asked == 1

    play(scene())


def test_a_new_key_is_found_at_its_first_token() -> None:
    async def scene() -> None:
        issuer = Issuer()
        assert await issuer.has("one")
        issuer.text = jwk_set(RSA, public_jwk("P-256", "two"))
        issuer.clock.advance(PAUSE)
        assert await issuer.has("two", "ES256")
        assert issuer.asked == 2

    play(scene())


def test_names_that_do_not_exist_make_nobody_ask_more_often_than_every_pause() -> None:
    async def scene() -> None:
        issuer = Issuer()
        for number in range(100):
            assert not await issuer.has(f"no {number}")
        assert issuer.asked == 1
        issuer.clock.advance(PAUSE)
        await asyncio.gather(*(issuer.has(f"no {number}") for number in range(100)))
        assert issuer.asked == 2

    play(scene())


def test_a_key_that_is_withdrawn_is_good_until_the_set_is_no_longer_fresh() -> None:
    async def scene() -> None:
        issuer = Issuer()
        assert await issuer.has("one")
        issuer.text = jwk_set(public_jwk("P-256", "two"))
        issuer.clock.advance(FRESH)
        assert await issuer.has("one")
        issuer.clock.advance(1)
        assert not await issuer.has("one")

    play(scene())


@pytest.mark.parametrize("trouble", [OSError("connection refused"), b"<html>", ValueError("the answer is HTTP 503")])
def test_an_issuer_in_trouble_is_lived_without_for_a_while(trouble: Any) -> None:
    async def scene() -> None:
        issuer = Issuer()
        assert await issuer.has("one")
        issuer.text = trouble
        issuer.clock.advance(LONGEST)
        assert await issuer.has("one")
        assert "the keys stay as they were" in issuer.log.text
        issuer.clock.advance(PAUSE)
        with pytest.raises(NoKeys, match=r"keys\.json"):
            await issuer.has("one")
        issuer.text = jwk_set(RSA)
        issuer.clock.advance(PAUSE)
        assert await issuer.has("one")

    play(scene())


def test_an_issuer_that_was_never_reached_lets_nobody_in_and_is_not_hammered() -> None:
    async def scene() -> None:
        issuer = Issuer()
        issuer.text = OSError("no such host")
        for _ in range(10):
            with pytest.raises(NoKeys):
                await issuer.has("one")
        assert issuer.asked == 1

    play(scene())


def test_a_caller_that_leaves_takes_nobody_elses_answer_away() -> None:
    async def scene() -> None:
        issuer = Issuer()
        first = asyncio.ensure_future(issuer.has("one"))
        second = asyncio.ensure_future(issuer.has("one"))
        await asyncio.sleep(0)
        first.cancel()
        assert await second
        assert issuer.asked == 1

    play(scene())


def test_a_token_without_a_name_is_for_the_only_key_there_is() -> None:
    async def scene() -> None:
        issuer = Issuer()
        issuer.text = jwk_set(RSA, public_jwk("P-256", "two"))
        assert await issuer.has(None)
        assert await issuer.has(None, "ES256")
        issuer.text = jwk_set(RSA, public_jwk("2048", "other", number=1))
        issuer.clock.advance(FRESH + 1)
        assert not await issuer.has(None)

    play(scene())


def test_a_file_is_read_and_one_without_end_is_not(tmp_path: Any) -> None:
    async def scene() -> None:
        log, path = FakeLog(), tmp_path / "keys.json"
        path.write_bytes(jwk_set(RSA))
        assert await KeySet(str(path), FakeClock(), Tasks(log), log).find("one", "RS256")  # type: ignore[arg-type]
        path.write_bytes(b" " * (MAX_SIZE + 1))
        for bad in (str(path), str(tmp_path / "none"), str(tmp_path)):
            with pytest.raises(NoKeys):
                await KeySet(bad, FakeClock(), Tasks(log), log).find("one", "RS256")  # type: ignore[arg-type]
            assert bad in log.lines[-1]

    play(scene())
