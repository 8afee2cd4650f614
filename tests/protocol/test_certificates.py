"""Which hash binds a connection to a certificate: those that `openssl` makes, and bytes that only look like one."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.certificates import find_end_point
from tests.certificates import run

KEYS = {"rsa": ("RSA", "rsa_keygen_bits:2048"), "ec": ("EC", "ec_paramgen_curve:P-256"), "ed25519": ("ED25519",)}
PSS = ("-sigopt", "rsa_padding_mode:pss")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("certificates")


def sign_itself(folder, kind, digest, options=()):
    """In DER. The key of a kind is made once, since RSA takes its time."""
    key = folder / f"{kind}.key"
    if not key.exists():
        algorithm, *options_of_key = KEYS[kind]
        run("genpkey", "-algorithm", algorithm, *(["-pkeyopt", *options_of_key] if options_of_key else []), "-out", key)
    hashed = [digest] if digest else []
    return run("req", "-x509", "-new", *hashed, *options, "-subj", "/CN=localhost", "-key", key, "-outform", "DER")


@pytest.mark.parametrize(
    ("kind", "digest", "options", "expected"),
    [
        ("rsa", "-sha256", (), "sha256"),
        ("rsa", "-sha384", (), "sha384"),
        ("rsa", "-sha512", (), "sha512"),
        ("rsa", "-sha224", (), "sha224"),
        ("rsa", "-sha1", (), "sha256"),
        ("rsa", "-md5", (), "sha256"),
        ("rsa", "-sha3-256", (), "sha3_256"),
        ("rsa", "-sha256", PSS, "sha256"),
        ("rsa", "-sha384", PSS, "sha384"),
        ("rsa", "-sha512", PSS, "sha512"),
        ("rsa", "-sha1", PSS, "sha256"),
        ("ec", "-sha256", (), "sha256"),
        ("ec", "-sha384", (), "sha384"),
        ("ec", "-sha512", (), "sha512"),
        ("ec", "-sha1", (), "sha256"),
    ],
)
def test_the_hash_is_the_one_the_certificate_is_signed_with(folder, kind, digest, options, expected):
    certificate = sign_itself(folder, kind, digest, options)
    assert find_end_point(certificate) == hashlib.new(expected, certificate).digest()


def test_a_signature_without_a_hash_of_its_own_binds_nothing(folder):
    assert find_end_point(sign_itself(folder, "ed25519", "")) is None


def certificate(algorithm: bytes, *, fields: bytes = b"\x30\x00") -> bytes:
    return sequence(fields + sequence(algorithm) + b"\x03\x01\x00")


def sequence(contents: bytes) -> bytes:
    return b"\x30" + length(contents) + contents


def length(contents: bytes) -> bytes:
    size = len(contents)
    return bytes([size]) if size < 128 else b"\x84" + size.to_bytes(4, "big")


SHA256_WITH_RSA = bytes.fromhex("06092a864886f70d01010b") + b"\x05\x00"
RSASSA_PSS = bytes.fromhex("06092a864886f70d01010a")


def test_the_least_that_counts_as_one_is_read():
    least = certificate(SHA256_WITH_RSA)
    assert find_end_point(least) == hashlib.sha256(least).digest()
    long = certificate(SHA256_WITH_RSA, fields=sequence(b"x" * 70000))
    assert find_end_point(long) == hashlib.sha256(long).digest()
    salted = certificate(RSASSA_PSS + sequence(b""))  # RFC 4055: unsaid is SHA-1
    assert find_end_point(salted) == hashlib.sha256(salted).digest()


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"\x30",
        b"\x31\x00",
        b"\x30\x80\x00\x00",
        b"\x30\x85\x00\x00\x00\x00\x00",
        b"\x30\xff" + b"\xff" * 200,
        b"\x30\x84\xff\xff\xff\xff",
        b"\x30\x02\x30\x01",
        sequence(b""),
        sequence(b"\x30\x00"),
        certificate(b""),
        certificate(b"\x06\x00"),
        certificate(b"\x06\x05\x2a"),
        certificate(RSASSA_PSS),
        certificate(RSASSA_PSS + sequence(b"\xa0\x02\x30\x00")),
        certificate(RSASSA_PSS + sequence(b"\xa0\x05\x30\x00")),
        certificate(SHA256_WITH_RSA)[:-8],
    ],
)
def test_what_is_no_certificate_binds_nothing(nonsense):
    assert find_end_point(nonsense) is None


@given(st.binary(max_size=300) | st.builds(certificate, st.binary(max_size=60)))
def test_whatever_it_is_it_is_hashed_or_not_and_no_more(noise):
    found = find_end_point(noise)
    assert found is None or len(found) in (28, 32, 48, 64)
