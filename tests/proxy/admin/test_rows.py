"""Tables on the wire."""

import time
from decimal import Decimal

import pytest

from protocol import codes
from protocol.backend import parse_data_row, parse_row_description
from proxy.admin.rows import BINARY, MAX_SLICE, SLICE, TEXT, Encoder, Table, build_head, build_slices, spread


def messages(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        end = 1 + int.from_bytes(data[1:5], "big")
        found.append((data[0], data[5:end]))
        data = data[end:]
    return found


def test_a_small_table_is_one_piece() -> None:
    (piece,) = build_slices(Table("name s, items i, sum q, mean N, since T", [("a", 1, 2, 3, None)]), b"")
    (head, shape), (kind, row) = messages(piece)
    assert (head, kind) == (codes.ROW_DESCRIPTION, codes.DATA_ROW)
    assert [(column.name, column.type_oid, column.type_size) for column in parse_row_description(shape)] == [
        (b"name", 25, -1), (b"items", 23, 4), (b"sum", 20, 8), (b"mean", 1700, -1), (b"since", 25, -1),
    ]  # fmt: skip
    assert parse_data_row(row) == (b"a", b"1", b"2", b"3", None)


def test_an_empty_table_still_has_a_head_and_a_tail() -> None:
    (piece,) = build_slices(Table("name s", []), b"tail")
    assert piece.endswith(b"tail")
    assert piece[0] == codes.ROW_DESCRIPTION


def test_a_long_table_comes_in_slices_made_one_at_a_time() -> None:
    made = []
    rows = ((made.append(number) or number,) for number in range(10 * MAX_SLICE))
    slices = build_slices(Table("n i", rows), b"")
    whole = next(slices)
    assert len(made) <= 2 * MAX_SLICE
    for piece in slices:
        whole += piece
    assert [int(parse_data_row(body)[0] or 0) for kind, body in messages(whole)[1:]] == list(range(10 * MAX_SLICE))


def test_rows_that_are_dear_make_short_slices() -> None:
    def rows():
        for number in range(100):
            time.sleep(SLICE / 5)
            yield (number,)

    assert len(list(build_slices(Table("n i", rows())))) >= 8


def values(shape: str, formats: list[int], *row: object) -> tuple[bytes | None, ...]:
    ((_, body),) = messages(Encoder(shape, formats).build(row))
    return parse_data_row(body)


def test_binary_is_what_postgresql_sends() -> None:
    row = (7, -2, "é", "now", b"\0\xff", True, False, None)
    assert values("a i, b q, c s, d T, e b, f B, g B, h i", [BINARY], *row) == (
        b"\0\0\0\7", b"\xff" * 7 + b"\xfe", "é".encode(), b"now", b"\0\xff", b"\1", b"\0", None,
    )  # fmt: skip


def test_text_of_every_type() -> None:
    assert values("a i, b q, c N, d N, e b, f B, g B", [], 7, -2, 10**20, "0.5", b"\0\xff", True, False) == (
        b"7", b"-2", b"100000000000000000000", b"0.5", b"\\x00ff", b"t", b"f",
    )  # fmt: skip


NUMBERS = (0, 1, -1, 9999, 10_000, -10_001, 123_456_789_012, 10**24 + 7, "0.000", "12.345", "-0.00012", "98765.4321")


@pytest.mark.parametrize("number", NUMBERS)
def test_a_numeric_in_binary(number: int | str) -> None:
    (raw,) = values("n N", [BINARY], number)
    assert raw is not None
    count, weight, sign, scale, *digits = [int.from_bytes(raw[pos : pos + 2], "big") for pos in range(0, len(raw), 2)]
    assert (count, scale) == (len(digits), len(str(number).partition(".")[2]))
    weight -= 0x10000 if weight > 0x7FFF else 0
    read = sum(Decimal(digit) * Decimal(10_000) ** (weight - place) for place, digit in enumerate(digits))
    assert (-read if sign == 0x4000 else read) == Decimal(number)


def test_a_number_too_large_for_its_type_is_the_largest() -> None:
    assert values("n i, m i", [BINARY], 1 << 40, -(1 << 40)) == (b"\x7f\xff\xff\xff", b"\x80\0\0\0")


def test_each_column_may_have_its_own_format() -> None:
    assert values("a i, b i", [TEXT, BINARY], 1, 2) == (b"1", b"\0\0\0\2")
    ((_, body),) = messages(build_head("a i, b i", [TEXT, BINARY]))
    assert [column.format for column in parse_row_description(body)] == [TEXT, BINARY]
    with pytest.raises(ValueError, match="3 formats for 2 columns"):
        spread([TEXT, TEXT, BINARY], 2)


def test_as_many_rows_as_wanted_and_no_more() -> None:
    rows = iter([(number,) for number in range(50)])
    encoder = Encoder("n i")
    counts = [len(messages(b"".join(encoder.build_slices(rows, most=most)))) for most in (3, 25, 0, 5)]
    assert counts == [3, 25, 22, 0]


def test_a_name_that_is_not_utf8_does_not_break_strict_readers() -> None:
    (piece,) = build_slices(Table("name s", [("k\udce4se",)]), b"")
    assert parse_data_row(messages(piece)[1][1]) == (b"k?se",)
