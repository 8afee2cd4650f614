"""What is shown of a text tells no value, whatever the text is."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.sketches import MAX_SHOWN, MAX_SKETCHED, UNCERTAIN, outline, sketch


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"SELECT * FROM t1 WHERE id = 42", "select * from t# where id = ?"),
        (b"select 'geheim', E'gehe\\'im', $x$geheim$x$, U&'geheim' /* geheim */ -- geheim", "select ?, ?, ?, ?"),
        (b'select "Name7"', 'select "Name#"'),
        (b"set app.token = geheim", "set app.token = ?"),
        (b"SET SESSION x TO geheim, geheim", "set session x to ?"),
        (b"begin; set local x to geheim; select 1", "begin; set local x to ?; select ?"),
        (b"update t set a = b", "update t set a = b"),
        (b"set role postgres", "set role postgres"),
        (b"create user u password 'geheim'", "create user u password ?"),
        (b"select 'geheim", "select ?"),
        (b'select "a\nb\x00"', 'select "a?b?"'),
        ("select 'ä' from \"tä\"".encode(), 'select ? from "tä"'),
        (b"select 1;", "select ?"),
        (b"", ""),
    ],
)
def test_sketches(text, expected):
    assert sketch(text) == expected


def test_what_a_setting_decides_is_not_shown():
    assert sketch(b"select 'a\\', geheim, 'b'") == UNCERTAIN
    assert sketch(b"select 'c:\\dir'") == "select ?", "read in either way it is the same"


@pytest.mark.parametrize("encoding", ["SJIS", "Shift_JIS_2004", "gb18030", "BIG5", "mskanji"])
def test_half_a_character_may_look_like_a_backslash(encoding):
    text = b"select E'\x95\\', geheim, E' '"
    assert sketch(text, encoding) == UNCERTAIN
    assert sketch(b"select E'a', 1", encoding) == "select ?, ?", "ASCII is ASCII everywhere"
    assert "geheim" in sketch(b"select E'\xe9', geheim", "LATIN1"), "there it is a name"


def test_a_long_text_is_cut_and_what_is_cut_open_is_not_shown():
    assert sketch(b"select '" + b"geheim " * MAX_SKETCHED) == "select ?..."
    shown = sketch(b"select " + b"a, " * 2_000)
    assert len(shown) == MAX_SHOWN + 3
    assert shown.endswith("...")


SECRET = "zzgeheimzz"
QUOTED = st.sampled_from(
    ["'{}'", "E'{}'", "$${}$$", "$a${}$a$", "/*{}*/ 1", "b'{}'", "N'{}'", "U&'{}'", "'x''{}'", "'{}"]
)
PIECES = st.sampled_from(["select", "from t", "(", ")", ",", "''", '"n"', "$1", "1", "-", "--x\n", "\\", "::text", ";"])


@given(st.lists(PIECES, max_size=6), QUOTED)
def test_no_literal_is_ever_in_a_sketch(before, quoted):
    """The secret stands where a literal or a comment is, if it is certain that it is one; else nothing is shown."""
    text = " ".join([*before, quoted.format(SECRET)])
    assert SECRET not in sketch(text.encode())


@given(st.binary(max_size=300), st.sampled_from(["", "UTF8", "SJIS"]))
def test_it_never_fails(data, encoding):
    assert len(sketch(data, encoding)) <= MAX_SHOWN + 3
    outline(data)


def test_an_outline_is_alike_where_only_values_and_comments_differ():
    one = b"select \"a\" from t where b = 'x' and c = 12 /* trace=1 */"
    assert outline(one) == outline(b"select \"a\" from t where b = 'yy' and c = 3 /* trace=22 */")
    assert outline(one) != outline(b"select \"b\" from t where b = 'x' and c = 12 /* trace=1 */")


@pytest.mark.parametrize("piece", [b"/*", b"'", b"--", b"/**", b"*/", b"$$", b'"', b"(1,", b"\\'"])
def test_no_text_takes_long(piece):
    text = piece * (MAX_SKETCHED // len(piece))
    began = time.process_time()
    sketch(text)
    outline(text)
    assert time.process_time() - began < 0.2
