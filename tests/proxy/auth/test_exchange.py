"""One SCRAM exchange without a wire: a step that fails leaves it as it was, and is taken again."""

import pytest

from protocol.backend import build_sasl
from protocol.errors import ProtocolError, Refused
from protocol.frontend import build_sasl_initial, build_sasl_response
from protocol.passwords import LearntKeys, Plain, ScramKeys, ScramVerifier, Secret, derive_salted_password
from protocol.scram import MECHANISM, MECHANISM_PLUS, ScramClient, WrongPassword
from proxy.auth.claim import Claim
from proxy.auth.exchange import Exchange

SALTED = derive_salted_password(Secret("right"), b"salt", 2)
KEYS = ScramKeys.from_salted_password(SALTED)
VERIFIER = KEYS.verifier(b"salt", 2)


def begun(stored=VERIFIER):
    return Exchange(Claim("ann", (stored,)), verifiers={VERIFIER: stored})


def challenge_of(exchange: Exchange, client: ScramClient) -> bytes:
    return exchange.open(build_sasl_initial(MECHANISM, client.first())[5:])[9:]


def proof_of(client: ScramClient, challenge: bytes, keys: ScramKeys = KEYS) -> bytes:
    client.challenge(challenge)
    return build_sasl_response(client.proof(keys))[5:]


@pytest.mark.parametrize("stored", [VERIFIER, Plain(Secret("right"))], ids=["verifier", "plain"])
def test_question_challenge_proof(stored):
    exchange, client = begun(stored), ScramClient()
    assert exchange.question == build_sasl([MECHANISM])
    assert not exchange.is_open
    proof = proof_of(client, challenge_of(exchange, client))
    assert exchange.is_open
    client.check_final(exchange.close(proof)[9:])
    assert exchange.claim.proven == stored
    shown = exchange.claim.proof
    assert shown == (Secret("right") if isinstance(stored, Plain) else LearntKeys(KEYS, b"salt", 2))


def test_what_can_be_bound_is_offered_so():
    assert Exchange(Claim("ann", ()), b"hash").question == build_sasl([MECHANISM_PLUS, MECHANISM])


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SCRAM-SHA-256",
        b"SCRAM-SHA-256\0",
        b"SCRAM-SHA-256\0\0\0",
        b"SCRAM-SHA-256\0\0\0\0\x09n,,n=,r=",
        b"SCRAM-SHA-256\0\xff\xff\xff\xff",
        build_sasl_initial(MECHANISM, b"n,,n=,r=abc")[5:] + b"x",
        build_sasl_initial(MECHANISM, b"nonsense")[5:],
        build_sasl_initial(MECHANISM_PLUS, b"n,,n=,r=abc")[5:],
    ],
)
def test_a_first_answer_that_fails_changes_nothing(answer):
    exchange, client = begun(), ScramClient()
    for _ in range(2):
        with pytest.raises((Refused, ProtocolError)):
            exchange.open(answer)
        assert not exchange.is_open
    exchange.close(proof_of(client, challenge_of(exchange, client)))


def test_a_proof_that_fails_changes_nothing_and_one_may_be_shown_again():
    exchange, client = begun(), ScramClient()
    challenge = challenge_of(exchange, client)
    wrong = proof_of(client, challenge, ScramKeys.from_salted_password(bytes(32)))
    for _ in range(2):
        with pytest.raises(WrongPassword):
            exchange.close(wrong)
        assert exchange.claim.proven is None
    right = proof_of(client, challenge)
    assert exchange.close(right) == exchange.close(right)
    assert isinstance(exchange.claim.proven, ScramVerifier)


def test_what_makes_no_sense_is_refused_before_anything_is_known_of_the_user():
    exchange = Exchange(Claim("ann", ()))
    with pytest.raises(Refused):
        exchange.check_choice(build_sasl_initial("SCRAM-SHA-1", b"x")[5:])
    exchange.check_choice(build_sasl_initial(MECHANISM, b"x")[5:])
