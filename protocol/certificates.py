"""
What a connection over TLS can be bound to: the hash of its server's certificate, tls-server-end-point of RFC 5929.

Theory. The hash is taken over the whole certificate, with the hash function its issuer has signed it with; MD5 and
SHA-1 are too weak for that, so SHA-256 stands in for them. Which function it is says the `signatureAlgorithm` of the
certificate (RFC 5280 section 4.1), an OBJECT IDENTIFIER; for RSASSA-PSS it is one of the parameters behind it.

A signature without a hash function of its own (Ed25519, Ed448) has no such binding: RFC 5929 leaves it undefined, and
so do we. libpq and PostgreSQL, which select and offer it all the same, then fail to log in.

Only as much of DER is read as leads there: five headers, whose lengths must lie within what is around them. A
certificate is of the peer's making. What cannot be read has no binding.
"""

import hashlib
from typing import Final

SEQUENCE: Final = 0x30
OBJECT_IDENTIFIER: Final = 0x06
FIRST_TAGGED: Final = 0xA0  # [0], constructed


def find_end_point(certificate: bytes) -> bytes | None:
    """The channel binding data of a server that shows `certificate` (DER). None: there is none that is defined."""
    try:
        name = _find_hash(certificate)
    except ValueError:
        return None
    return hashlib.new(name, certificate).digest() if name in hashlib.algorithms_available else None


def _find_hash(certificate: bytes) -> str:
    """Of hashlib; empty: undefined. ValueError: this is no certificate."""
    fields, _ = _read(certificate, SEQUENCE)  # tbsCertificate, signatureAlgorithm, signature
    algorithm, _ = _read(_skip(fields), SEQUENCE)
    identifier, parameters = _read(algorithm, OBJECT_IDENTIFIER)
    if identifier != _RSASSA_PSS:
        return _BY_SIGNATURE.get(identifier, "")
    parameters, _ = _read(parameters, SEQUENCE)
    if not parameters.startswith(bytes([FIRST_TAGGED])):
        return "sha256"  # RFC 4055: the default is SHA-1
    tagged, _ = _read(parameters, FIRST_TAGGED)
    algorithm, _ = _read(tagged, SEQUENCE)
    return _BY_HASH.get(_read(algorithm, OBJECT_IDENTIFIER)[0], "")


def _read(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """(the contents of the value that `data` begins with, what lies behind it). ValueError: it is no such value."""
    if data[:1] != bytes([tag]):
        raise ValueError("another value than expected")
    start, end = _measure(data)
    return data[start:end], data[end:]


def _skip(data: bytes) -> bytes:
    """What lies behind the first value."""
    return data[_measure(data)[1] :]


def _measure(data: bytes) -> tuple[int, int]:
    """Where the contents of the first value begin and end (X.690 section 8.1.3, definite form)."""
    if len(data) < 2:
        raise ValueError("cut off")
    start, length = 2, data[1]
    if length >= 0x80:
        start += length - 0x80
        length = int.from_bytes(data[2:start], "big")
        if not 3 <= start <= 6:  # up to four bytes of length; 0x80 alone is the indefinite form, not in DER
            raise ValueError("a length that makes no sense")
    if start + length > len(data):
        raise ValueError("cut off")
    return start, start + length


def _encode(dotted: str) -> bytes:
    """The contents of an OBJECT IDENTIFIER (X.690 section 8.19)."""
    first, second, *rest = map(int, dotted.split("."))
    return bytes([40 * first + second]) + b"".join(map(_encode_number, rest))


def _encode_number(number: int) -> bytes:
    digits = [number & 0x7F]
    while number := number >> 7:
        digits.append(number & 0x7F | 0x80)
    return bytes(reversed(digits))


_RSASSA_PSS: Final = _encode("1.2.840.113549.1.1.10")

_BY_SIGNATURE: Final = {
    _encode(dotted): name
    for dotted, name in {
        "1.2.840.113549.1.1.4": "sha256",  # RSA with MD5
        "1.2.840.113549.1.1.5": "sha256",  # RSA with SHA-1
        "1.2.840.113549.1.1.11": "sha256",
        "1.2.840.113549.1.1.12": "sha384",
        "1.2.840.113549.1.1.13": "sha512",
        "1.2.840.113549.1.1.14": "sha224",
        "1.2.840.113549.1.1.15": "sha512_224",
        "1.2.840.113549.1.1.16": "sha512_256",
        "2.16.840.1.101.3.4.3.13": "sha3_224",  # RSA with SHA-3
        "2.16.840.1.101.3.4.3.14": "sha3_256",
        "2.16.840.1.101.3.4.3.15": "sha3_384",
        "2.16.840.1.101.3.4.3.16": "sha3_512",
        "1.2.840.10045.4.1": "sha256",  # ECDSA with SHA-1
        "1.2.840.10045.4.3.1": "sha224",
        "1.2.840.10045.4.3.2": "sha256",
        "1.2.840.10045.4.3.3": "sha384",
        "1.2.840.10045.4.3.4": "sha512",
        "2.16.840.1.101.3.4.3.9": "sha3_224",  # ECDSA with SHA-3
        "2.16.840.1.101.3.4.3.10": "sha3_256",
        "2.16.840.1.101.3.4.3.11": "sha3_384",
        "2.16.840.1.101.3.4.3.12": "sha3_512",
        "1.2.840.10040.4.3": "sha256",  # DSA with SHA-1
        "2.16.840.1.101.3.4.3.1": "sha224",
        "2.16.840.1.101.3.4.3.2": "sha256",
        "2.16.840.1.101.3.4.3.3": "sha384",
        "2.16.840.1.101.3.4.3.4": "sha512",
    }.items()
}

_BY_HASH: Final = {
    _encode(dotted): name
    for dotted, name in {
        "1.2.840.113549.2.5": "sha256",  # MD5
        "1.3.14.3.2.26": "sha256",  # SHA-1
        "2.16.840.1.101.3.4.2.1": "sha256",
        "2.16.840.1.101.3.4.2.2": "sha384",
        "2.16.840.1.101.3.4.2.3": "sha512",
        "2.16.840.1.101.3.4.2.4": "sha224",
        "2.16.840.1.101.3.4.2.5": "sha512_224",
        "2.16.840.1.101.3.4.2.6": "sha512_256",
        "2.16.840.1.101.3.4.2.7": "sha3_224",
        "2.16.840.1.101.3.4.2.8": "sha3_256",
        "2.16.840.1.101.3.4.2.9": "sha3_384",
        "2.16.840.1.101.3.4.2.10": "sha3_512",
    }.items()
}
