"""The bricks: read back as written, never beyond the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.body import (
    Body,
    build_bytes,
    build_count,
    build_int16,
    build_int32,
    build_message,
    build_string,
    build_uint32,
    build_value,
    check_empty,
)
from protocol.errors import ProtocolError


def test_a_message_is_type_length_and_body():
    assert build_message(ord("Q"), b"abc\0") == b"Q\0\0\0\x08abc\0"
    assert build_message(ord("S")) == b"S\0\0\0\x04"


def test_bricks_are_read_in_the_order_they_were_written():
    data = bytes([7]) + build_count(65535) + build_int16(-2) + build_int32(-3) + build_uint32(2**32 - 1)
    body = Body(data + build_string("é") + build_value(b"v") + build_value(None) + b"rest", "Test")
    assert [body.take_byte(), body.take_count(), body.take_int16(), body.take_int32()] == [7, 65535, -2, -3]
    assert [body.take_uint32(), body.take_string(), body.take_value()] == [2**32 - 1, "é".encode(), b"v"]
    assert body.take_value() is None
    assert body.take_rest() == b"rest"
    body.check_end()


def test_lists_of_codes_and_oids():
    body = Body(b"\0\x02\0\0\0\x01" + b"\0\x01\xff\xff\xff\xff", "Test")
    assert body.take_counts() == (0, 1)
    assert body.take_oids() == (2**32 - 1,)


@pytest.mark.parametrize("take", ["byte", "count", "int16", "int32", "uint32", "string", "value", "counts", "oids"])
def test_nothing_can_be_taken_from_an_empty_body(take):
    with pytest.raises(ProtocolError, match="Test: "):
        getattr(Body(b"", "Test"), "take_" + take)()


@pytest.mark.parametrize(
    ("take", "data"),
    [
        ("value", b"\xff\xff\xff\xfe"),
        ("value", b"\x7f\xff\xff\xffab"),
        ("string", b"no end"),
        ("counts", b"\xff\xff\0\0"),
        ("oids", b"\0\x02\0\0\0\x01"),
    ],
)
def test_lying_lengths_and_counts_are_errors(take, data):
    with pytest.raises(ProtocolError):
        getattr(Body(data, "Test"), "take_" + take)()


def test_left_over_bytes_are_an_error():
    with pytest.raises(ProtocolError, match="Sync: 1 bytes too many"):
        check_empty(b"x", "Sync")
    check_empty(b"", "Sync")


def test_a_zero_byte_cannot_be_smuggled_into_a_string():
    for text in ("a\0b", b"a\0b"):
        with pytest.raises(ValueError, match="zero byte"):
            build_string(text)


@pytest.mark.parametrize("count", [-1, 65536])
def test_a_count_must_fit(count):
    with pytest.raises(ValueError, match="does not fit"):
        build_count(count)


@given(st.binary())
def test_bytes_survive_as_text(raw):
    assert build_bytes(raw.decode("utf-8", "surrogateescape")) == raw


@given(st.lists(st.one_of(st.none(), st.binary(max_size=20))))
def test_values_survive(values):
    body = Body(b"".join(map(build_value, values)), "Test")
    assert [body.take_value() for _ in values] == values
    body.check_end()
