"""Same statement, same fingerprint; another statement, another one; never a literal in it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.fingerprints import MAX_TOKENS, fingerprint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", b""),
        (b"  SELECT\n 1 ;", b"select ?;"),
        (b"select * from t where a in (1, 2, 3)", b"select * from t where a in (?)"),
        (b"SELECT * FROM t WHERE a IN (1, -2) -- x", b"select * from t where a in (?)"),
        (b"select * from t where a in ($1,$2)", b"select * from t where a in (?)"),
        (b"insert into t (a, b) values (1, 'x'), (2, 'y')", b"insert into t(a, b) values (?)"),
        (b"insert into t(a,b)values(1,now())", b"insert into t(a, b) values (?, now())"),
        (b"select f(1, a), g(a, 1), h((1), (2))", b"select f(?, a), g(a, ?), h((?))"),
        (b"select 'it''s', E'\\'', $$x$$, x'ff', 1.5e3, .5", b"select ?, ?, ?, ?, ?, ?"),
        (b"select a-1, a - -1, -1, (-1)", b"select a - ?, a - ?, ?, (?)"),
        (b"select a limit -1", b"select a limit ?"),
        (b'select "A b"."C", t.a::int, a[1:2]', b'select "A b"."C", t.a::int, a[?:?]'),
        (b"select count(*) from T", b"select count(*) from t"),
        (b"select a->>'k', b <-> '[1]'", b"select a ->> ?, b <-> ?"),
        (b"/* trace=1 */ select /*+ hint */ 1", b"select ?"),
        (b"select a=1", b"select a = ?"),
        (b"alter role r password 'geheim'", b"alter role r password ?"),
        (b"alter role r password 'geheim", b"alter role r password ?"),
        (b"select 1 /* geheim", b"select ? ?"),
        (b"select $x$ geheim", b"select ?"),
        (b'select "geheim', b"select ?"),
        (b"select \\ 1", b"select \\ ?"),
        (b"commit and chain", b"commit and chain"),
    ],
)
def test_fingerprints(text, expected):
    assert fingerprint(text) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"select a from t", b"select b from t"),
        (b'select "A"', b'select "a"'),
        (b"select f(1)", b"select f(1, a)"),
        (b"select a and b", b"select a or b"),
        (b"select ab", b"select a b"),
        (b"select '--'; x", b"select 1 --; x"),
    ],
)
def test_other_statements_differ(one, other):
    assert fingerprint(one) != fingerprint(other)


def test_backslashes_count_when_the_server_says_so():
    text = b"select 'a\\', secret, 'b'"
    assert fingerprint(text) == b"select ?, secret, ?"
    assert fingerprint(text, standard_conforming_strings=False).startswith(b"select ? b")


@given(st.integers(-1000, 1000), st.text(alphabet="geheim'", max_size=5), st.integers(1, 9))
def test_values_do_not_matter(number, word, count):
    quoted = "'" + word.replace("'", "''") + "'"
    members = ", ".join([str(number)] * count)
    text = f"SELECT a FROM t WHERE b = {number} AND c = {quoted} AND d IN ({members})"
    assert fingerprint(text.encode()) == b"select a from t where b = ? and c = ? and d in (?)"


@given(st.binary(max_size=60))
def test_any_bytes_have_a_fingerprint_and_it_is_not_much_longer(text):
    once = fingerprint(text)
    assert len(once) <= 2 * len(text) + 3


def test_long_lists_count_as_one_and_long_texts_end_early():
    rows = b"insert into t values " + b", ".join([b"(1, 'x')"] * 1000)
    assert fingerprint(rows) == b"insert into t values (?)"
    endless = fingerprint(b"select " + b"a, " * MAX_TOKENS)
    assert endless.endswith(b" ...")
    assert endless == fingerprint(b"select " + b"a, " * 2 * MAX_TOKENS)


TRAPS = [
    b";",
    b"(",
    b"()",
    b"(?,",
    b"1,",
    b"(1,",
    b"/*",
    b"/**/",
    b"'",
    b"E'\\'",
    b"$a$",
    b"- ",
    b"e'a'\n",
    b"a ",
    b"(1),",
]


@pytest.mark.parametrize("trap", TRAPS)
def test_a_long_text_takes_no_longer_than_its_length(trap):
    text = b"select E'' " + trap * (400_000 // len(trap))
    began = time.process_time()
    fingerprint(text)
    assert time.process_time() - began < 2  # about 0.05 s; a trap would take minutes
