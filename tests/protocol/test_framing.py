"""Framing: the same verdicts however the stream is cut, and never a header unverified."""

import random
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
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


@pytest.mark.parametrize("at", [1, 3, 64, 65, 300, 498])
@pytest.mark.parametrize("inside", [message("Z", b"I"), message("D", b"1"), b""])
def test_a_run_that_ends_as_it_began_may_be_broken_in_between(at, inside):
    """One row is longer by what another message takes, so all behind it stand where they would in a run."""
    row = message("D", b"1234567890123456789012345678")
    odd = message("D", b"x" * (len(row) - 5 - len(inside))) + inside
    data = row * at + odd + row * (500 - at) + message("Z", b"T")
    assert scanned(data) == interesting(data)


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


# The four ways of getting on, each by a stream that keeps it busy: name, then the sizes of the bodies.
WAYS = {
    "gallop": [12],
    "match": [12, 3, 30, 7, 7, 45],
    "match of longer rows": [150, 140, 163, 155],
    "walk": [300, 12, 900, 64, 5],
    "walk, match and gallop in turn": [12] * 300 + [12, 3] * 40 + [70, 700] * 40 + [1015, 0],
    "plain": [1200, 5000, 1200, 1300],
}


def walked(data: bytes, limit: int) -> list[tuple[int, int, int]] | str:
    """Every verdict of one scan after the other, the plain way; or what is wrong."""
    found, pos = [], 0
    while pos + 5 <= len(data):
        kind, length = data[pos], int.from_bytes(data[pos + 1 : pos + 5], "big")
        if not 4 <= length <= limit:
            return f"length {length}"
        if kind == 0:
            return "type 0"
        if not DULL[kind]:
            found.append((kind, pos, pos + length + 1))
        pos += length + 1
    return [*found, (0, pos, pos)]


def scanned_in_pieces(pieces: list[bytes], limit: int) -> list[tuple[int, int, int]] | str:
    """The same by `scan`, as a stream that comes in pieces: what stands before the next message is thrown away."""
    found: list[tuple[int, int, int]] = []
    data, base, pos = b"", 0, 0  # what is kept, where in the stream it begins, where in it the next message begins
    for piece in pieces:
        data += piece
        if pos > len(data):
            continue
        data, base, pos = data[pos:], base + pos, 0
        kind = 1
        while kind:
            try:
                kind, start, pos = framing.scan(data, pos, DULL, limit)
            except ProtocolError as error:
                return "type 0" if "type 0" in str(error) else f"length {str(error).split()[3]}"
            if kind:
                found.append((kind, base + start, base + pos))
            if pos > len(data):
                break
    return [*found, (0, base + pos, base + pos)]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(bounds)]


@pytest.mark.parametrize("kind", "Dd")
@pytest.mark.parametrize("way", WAYS)
def test_no_header_goes_unverified_whichever_way_the_scan_has_got_there(kind, way):
    sizes = (WAYS[way] * 400)[:400]
    rows = [message(kind, b"\x44" * size) for size in sizes]
    data = b"".join(rows)
    assert walked(data, NO_LIMIT) == scanned_in_pieces([data], NO_LIMIT) == [(0, len(data), len(data))]
    for number in (0, 1, 7, 8, 9, 39, 40, 41, 71, 72, 73, 140, 399):
        start = sum(map(len, rows[:number]))
        for place in range(5):
            for byte in (0, 1, data[start + place] ^ 1, ord("Z"), 0xFF):
                broken = data[: start + place] + bytes([byte]) + data[start + place + 1 :]
                assert scanned_in_pieces([broken], NO_LIMIT) == walked(broken, NO_LIMIT)


@pytest.mark.parametrize("way", WAYS)
def test_a_row_longer_than_allowed_is_refused_whichever_way_the_scan_has_got_there(way):
    sizes = (WAYS[way] * 400)[:400]
    data = b"".join(message("D", bytes(size)) for size in sizes)
    for limit in {*(size + 3 for size in sizes), max(sizes) + 4}:
        assert scanned_in_pieces([data], limit) == walked(data, limit)


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_may_end_anywhere_whichever_way_the_scan_has_got_there(way):
    rows = [message("D", b"D\0\0\0\x05" * (size // 5 + 1)) for size in (WAYS[way] * 400)[:400]]
    data = b"".join(rows)
    for number in (7, 8, 9, 39, 40, 41, 71, 72, 73, 104, 105, 399):
        start = sum(map(len, rows[:number]))
        for end in range(start, start + min(len(rows[number]), 180) + 6):
            assert scanned_in_pieces([data[:end]], NO_LIMIT) == walked(data[:end], NO_LIMIT)


@pytest.mark.parametrize("kind", "Dd")
def test_one_match_takes_no_more_messages_than_its_memory_allows(kind):
    data = message(kind, b"123456") * 3 * framing.MATCH_MOST
    assert framing._match(data, 0, ord(kind), 11) == framing.MATCH_MOST * 11


@pytest.mark.parametrize("kind", "Dd")
def test_a_match_knows_every_length_near_the_mean_and_no_other_header(kind):
    for mean in range(4, framing.TINY):
        for length in range(4, 300):
            data = message(kind, b"\x44" * (length - 4)) + b"rest"
            end = framing._match(data, 0, ord(kind), mean)
            assert end in (0, length + 1)
            assert end or abs(length - mean) >= framing.REACH - framing.BAND or not 5 <= length < framing.TINY


sizes = st.one_of(
    st.integers(0, 80),
    st.sampled_from([0, 6, 7, 8, 63, 64, 65, 1018, 1019, 1020, 1021, 5000]),
)
contents = st.sampled_from([b"\0", b"D", b"D\0\0\0\x05", b"d\0\0\0\x0b", b"Z\0\0\0\5I", b"\0\0\0\4", b"\xff"])


@st.composite
def streams(draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    """Runs of equal rows and mixtures of a few lengths, whose rows are full of headers; rarely something else."""
    pieces: list[bytes] = []
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from("DDDDddZTN"))
        lengths = draw(st.lists(sizes, min_size=1, max_size=6))
        filling = draw(contents) * 5000
        rows = [message(kind, filling[:size]) for size in lengths]
        pieces += rows * draw(st.sampled_from([1, 1, 3, 20, 100, 300]))
    if draw(st.integers(0, 3)) == 0:
        place = draw(st.integers(0, len(pieces) - 1))
        pieces[place] = draw(st.binary(max_size=12))
    return b"".join(pieces)


@settings(deadline=None)  # streams of very different sizes
@given(streams(), st.lists(st.integers(0, 1 << 20), max_size=6), st.sampled_from([NO_LIMIT, 1024, 1023, 300, 30]))
def test_scanning_agrees_with_walking_wherever_the_stream_is_cut(data, places, limit):
    pieces = cut(data, places)
    assert scanned_in_pieces(pieces, limit) == walked(data, limit)


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
