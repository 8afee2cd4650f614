"""Tables on the wire."""

from protocol import codes
from protocol.backend import parse_data_row, parse_row_description
from proxy.admin.rows import SLICE, Table, build_slices


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
    rows = ((made.append(number) or number,) for number in range(10 * SLICE))
    slices = build_slices(Table("n i", rows), b"")
    whole = next(slices)
    assert len(made) <= 2 * SLICE
    for piece in slices:
        whole += piece
    assert [int(parse_data_row(body)[0] or 0) for kind, body in messages(whole)[1:]] == list(range(10 * SLICE))


def test_a_name_that_is_not_utf8_does_not_break_strict_readers() -> None:
    (piece,) = build_slices(Table("name s", [("k\udce4se",)]), b"")
    assert parse_data_row(messages(piece)[1][1]) == (b"k?se",)
