"""Framing: the same verdicts however the stream is cut, and never a header unverified."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import framing
from protocol.errors import ProtocolError

DULL = framing.flags("Dd")
NO_LIMIT = 0x7FFFFFFF


def message(kind: str, body: bytes) -> bytes:
    return kind.encode() + (len(body) + 4).to_bytes(4, "big") + body


def interesting(data: bytes, dull: bytes = DULL) -> list[tuple[str, int]]:
    """Every message worth a look, the plain way: (kind, start)."""
    found, pos = [], 0
    while pos + 5 <= len(data):
        kind, length = data[pos], int.from_bytes(data[pos + 1 : pos + 5], "big")
        if not dull[kind]:
            found.append((chr(kind), pos))
        pos += length + 1
    return found


def scanned(data: bytes) -> list[tuple[str, int]]:
    found, pos = [], 0
    while True:
        kind, start, pos = framing.scan(data, pos, DULL, NO_LIMIT)
        if not kind:
            return found
        found.append((chr(kind), start))


def test_the_first_message_worth_a_look_is_returned_with_its_bounds():
    data = message("D", b"row") + message("Z", b"I") + b"more"
    assert framing.scan(data, 0, DULL, NO_LIMIT) == (ord("Z"), 8, 14)


def test_data_that_ends_in_a_long_row_tells_where_the_next_message_will_begin():
    data = message("D", b"x" * 100)[:40]
    assert framing.scan(data, 0, DULL, NO_LIMIT) == (0, 105, 105)


def test_a_cut_header_is_left_for_later():
    data = message("D", b"row") + b"Z\0\0"
    assert framing.scan(data, 0, DULL, NO_LIMIT) == (0, 8, 8)


@pytest.mark.parametrize("length", [0, 1, 3, 0x80000000, 0xFFFFFFFF, 1001])
def test_an_absurd_length_is_an_error_and_never_a_step_backwards(length):
    with pytest.raises(ProtocolError, match=f"length {length} "):
        framing.scan(b"D" + length.to_bytes(4, "big") + b"x" * 50, 0, DULL, 1000)


def test_a_run_of_equal_rows_ends_at_the_first_header_that_differs():
    rows = message("D", b"12345678") * 500
    data = rows + message("C", b"1234567\0") + rows + message("Z", b"I")
    assert scanned(data) == [("C", len(rows)), ("Z", 2 * len(rows) + 13)]


def test_rows_full_of_bytes_that_look_like_messages_are_only_rows():
    row = message("D", message("Z", b"I") * 3)
    data = row * 300 + message("Z", b"I")
    assert scanned(data) == [("Z", 300 * len(row))]


def test_a_run_is_not_taken_for_longer_than_the_data():
    rows = message("D", b"12345678") * 64
    for cut in range(len(rows) - 30, len(rows)):
        kind, start, end = framing.scan(rows[:cut], 0, DULL, NO_LIMIT)
        assert kind == 0
        assert start == end == (cut + 12 if cut % 13 >= 5 else cut) // 13 * 13


def test_an_absurd_length_inside_a_run_is_still_found():
    row = message("D", b"12345678")
    bad = b"D\xff\xff\xff\xff" + b"12345678"
    with pytest.raises(ProtocolError):
        framing.scan(row * 100 + bad + row * 100, 0, DULL, NO_LIMIT)


@given(
    st.lists(
        st.tuples(st.sampled_from("DDDDDdTZ"), st.sampled_from([0, 1, 8, 8, 8, 8, 9, 300]), st.integers(1, 60)),
        max_size=20,
    )
)
def test_scanning_agrees_with_walking(runs):
    data = b"".join(message(kind, b"\x44" * size) * count for kind, size, count in runs)
    assert scanned(data) == interesting(data)


def test_scanning_agrees_with_walking_on_many_mixed_streams():
    chance = random.Random(7)
    for _ in range(200):
        sizes = chance.choices([0, 3, 4, 4, 4, 4, 250], k=80)
        data = b"".join(message(chance.choice("DDDDDDDDZ"), chance.randbytes(size)) for size in sizes)
        assert scanned(data) == interesting(data)
