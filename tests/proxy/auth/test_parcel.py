"""A proof travels to the process that takes over as it is, and nothing else is taken for one."""

import json

import pytest

from protocol.passwords import LearntKeys, Md5, Plain, ScramKeys, Secret
from proxy.auth.lookup import Question
from proxy.auth.parcel import pack_proof, unpack_proof
from proxy.auth.proofs import Proof

KEYS = ScramKeys(b"c" * 32, b"\xff" * 32, b"\0" * 32)
VERIFIER = KEYS.verifier(b"salt", 4096)
LEARNT = LearntKeys(KEYS, b"salt", 4096)
QUESTION = Question("shop", "guard", "SELECT 1")
PLAIN, HASHED = Plain(Secret("md5 of sorts")), Md5("0" * 32)


@pytest.mark.parametrize(
    "proof",
    [
        Proof(VERIFIER, LEARNT, None),
        Proof(VERIFIER, LEARNT, QUESTION),
        Proof(PLAIN, PLAIN.secret, QUESTION),
        Proof(HASHED, HASHED, QUESTION),
        Proof(VERIFIER, VERIFIER, QUESTION),
        Proof(None, None, QUESTION),
    ],
)
def test_it_arrives_as_it_was(proof):
    assert unpack_proof(json.loads(json.dumps(pack_proof(proof)))) == proof


def test_what_the_file_says_does_not_travel():
    assert pack_proof(None) is None
    assert pack_proof(Proof(PLAIN, PLAIN.secret, None)) is None
    assert pack_proof(Proof(HASHED, HASHED, None)) is None
    assert unpack_proof(None) is None


@pytest.mark.parametrize(
    "spoiled",
    [
        {"keys": [*["AAAA"] * 3, "c2FsdA==", 4096]},
        {"keys": ["?"]},
        {"keys": []},
        {"stored": ["hash", "SCRAM-SHA-256$x"]},
        {"stored": 7},
        {"source": ["a"]},
    ],
)
def test_what_makes_no_sense_is_no_proof(spoiled):
    body = {**(pack_proof(Proof(VERIFIER, LEARNT, QUESTION)) or {}), **spoiled}
    with pytest.raises((KeyError, TypeError, ValueError)):
        unpack_proof(body)
