"""What a client offers to speak, read from its first message, however that is cut. Only Python's ssl writes it here."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ProtocolError
from protocol.hello import MAX_HELLO, parse_offered


def hello_of(*offered, name="db.example.com"):
    """The hello of a real client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if offered:
        context.set_alpn_protocols(list(offered))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def in_records(hello, size):
    """The same message in records of `size` bytes."""
    body = hello[5:]
    pieces = [body[pos : pos + size] for pos in range(0, len(body), size)]
    return b"".join(hello[:3] + len(piece).to_bytes(2) + piece for piece in pieces)


@pytest.mark.parametrize("offered", [(), ("postgresql",), ("h2", "http/1.1"), ("h2", "postgresql")])
def test_the_names_are_those_that_were_offered_in_their_order(offered):
    assert parse_offered(hello_of(*offered)) == tuple(name.encode() for name in offered)


def test_a_hello_that_is_not_whole_is_not_judged():
    whole = hello_of("h2")
    assert [parse_offered(whole[:count]) for count in range(len(whole))] == [None] * len(whole)
    assert parse_offered(whole + b"more") == (b"h2",)


@pytest.mark.parametrize("size", [1, 3, 4, 100])
def test_a_hello_may_lie_in_several_records(size):
    assert parse_offered(in_records(hello_of("h2"), size)) == (b"h2",)


@pytest.mark.parametrize(
    "stream",
    [b"GET / HTTP/1.1\r\n", b"\x15\x03\x01\0\2\2\x28", b"\x16\x03\x01\0\4\2\0\0\0", b"\x16\x03\x01\0\4\1\0\0\0"],
)
def test_what_is_no_hello_offers_nothing(stream):
    assert parse_offered(stream) == ()


def test_lengths_that_are_not_true_offer_nothing():
    whole = bytearray(hello_of("h2"))
    at = whole.index(b"\0\x10\0\x05\0\x03\x02h2")
    whole[at + 5] = 200
    assert parse_offered(bytes(whole)) == ()


@pytest.mark.parametrize("record", [b"\x16\x03\x01\0\1\xff", b"\x16\x03\x01\0\0"], ids=["long", "empty"])
def test_one_that_never_ends_is_refused_and_not_let_past(record):
    stream = b"\x16\x03\x01\0\1\1" + record * MAX_HELLO
    assert parse_offered(stream[: MAX_HELLO - 1]) is None
    with pytest.raises(ProtocolError, match="too long"):
        parse_offered(stream)


@given(st.binary(max_size=600))
def test_anything_may_be_thrown_at_it(stream):
    for data in (stream, b"\x16\x03\x01" + len(stream).to_bytes(2) + stream, b"\x16\x03\x01\x02\0\1\0" + stream):
        offered = parse_offered(data)
        assert offered is None or all(isinstance(name, bytes) for name in offered)
