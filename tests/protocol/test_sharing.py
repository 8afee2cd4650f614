"""Which texts may share a line: what is read as PostgreSQL reads it, and what an attacker would try."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.sharing import (
    CALLS,
    FIT,
    HARMLESS,
    MAX_LENGTH,
    MAX_TEXT,
    SEVERAL,
    UNREAD,
    WRITES,
    fold,
    is_readable,
    judge,
)
from protocol.statements import Kind, classify
from protocol.tokens import LITERAL, NUMBER, WORD, tokens


def verdict(text, vouched=()):
    return judge(fold(text if isinstance(text, bytes) else text.encode()), vouched)


# What may share.


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1",
        "SELECT 1;",
        "  select\n1\t; ",
        "SELECT abalance FROM pgbench_accounts WHERE aid = $1",
        "SELECT $1::int + $22",
        "SELECT * FROM t WHERE name = 'it''s; delete from t'",
        "SELECT * FROM t WHERE name = 'pg_sleep(1) -- /* $$ \"'",
        "SELECT E'abc', N'd', B'01', X'1f', U&'d!0061' UESCAPE '!'",
        "SELECT 'a'\n'b'",
        "VALUES (1, 'x'), (2, 'y')",
        "TABLE t",
        "(SELECT 1) UNION ALL (SELECT 2) ORDER BY (1) LIMIT (1)",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "WITH x AS NOT MATERIALIZED (SELECT 1) SELECT * FROM x",
        "SELECT count(*), sum(a), lower(b) FROM t GROUP BY (b) HAVING (count(*) > 1)",
        "SELECT sum(a) FILTER (WHERE a > 0) OVER (PARTITION BY (b) ORDER BY (c)) FROM t",
        "SELECT a FROM t WHERE b IN (1, 2) AND EXISTS (SELECT 1) AND c = ANY (ARRAY[1, 2]) AND NOT (d)",
        "SELECT a::numeric(10, 2), b::character varying(5), cast(c AS varchar(3)), d[1:2], d[1] FROM t",
        "SELECT s.t.c, t.* FROM s.t JOIN (SELECT 1 AS a) u USING (a)",
        "SELECT substring(a FROM 1 FOR 3), extract(year FROM d), .5, 1., 1e3, -1.5e-3",
        "SELECT update_time, for_sale, intolerance, nextval FROM t",
        "SELECT a FROM t WHERE b = 'x' AND c BETWEEN 1 AND (2) AND d LIKE ('a%')",
        "SELECT CASE WHEN (a) THEN (b) ELSE (c) END FROM ONLY (t)",
    ],
)
def test_a_single_statement_that_only_reads_is_fit(text):
    assert verdict(text) is FIT


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_each_harmless_function_is_fit_and_could_be_the_name_of_a_shape(name):
    text = f"SELECT {name.decode()}(a) FROM t"
    assert fold(text.encode()) == text
    assert verdict(text) is FIT
    assert verdict(text.upper()) is FIT


@pytest.mark.parametrize("name", ["my_rates", "txid_current", "random"])
def test_who_vouches_for_a_function_has_it_shared_but_not_in_another_schema(name):
    assert verdict(f"SELECT {name}(1)") is CALLS
    assert verdict(f"SELECT {name}(1)", [name.encode()]) is FIT
    assert verdict(f"SELECT s.{name}(1)", [name.encode()]) is CALLS


# What may not.

LOCKING = ["FOR UPDATE", "FOR SHARE", "FOR NO KEY UPDATE", "FOR KEY SHARE", "for\nupdate of t", "FOR UPDATE NOWAIT"]


@pytest.mark.parametrize("lock", LOCKING)
@pytest.mark.parametrize("text", ["SELECT a FROM t {}", "SELECT * FROM (SELECT a FROM t {}) x", "TABLE t {}"])
def test_what_locks_rows_is_none(text, lock):
    assert verdict(text.format(lock)) is WRITES


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO t VALUES (1)",
        "UPDATE t SET a = 1",
        "DELETE FROM t",
        "MERGE INTO t USING u ON (t.a = u.a) WHEN MATCHED THEN DELETE",
        "TRUNCATE t",
        "CREATE TABLE t (a int)",
        "SELECT 1 INTO t",
        "SELECT * INTO TEMP t FROM u",
        "SELECT a FROM (SELECT 1 INTO t) x",
        "WITH x AS (INSERT INTO t VALUES (1) RETURNING a) SELECT * FROM x",
        "WITH x AS (UPDATE t SET a = 1 RETURNING a) SELECT * FROM x",
        "WITH x AS MATERIALIZED (DELETE FROM t RETURNING a) SELECT * FROM x",
        "WITH x AS (SELECT 1), y AS (MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE) SELECT 1",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
        "BEGIN",
        "COMMIT",
        "SET work_mem = 1",
        "RESET ALL",
        "DISCARD ALL",
        "LISTEN a",
        "PREPARE a AS SELECT 1",
        "EXECUTE a",
        "DECLARE c CURSOR FOR SELECT 1",
        "FETCH 1 FROM c",
        "COPY t TO STDOUT",
        "COPY (SELECT 1) TO STDOUT",
        "EXPLAIN ANALYZE DELETE FROM t",
        "EXPLAIN SELECT 1",
        "CALL p()",
        "DO 'begin end'",
        "LOCK t",
        "VACUUM t",
        "LOAD 'x'",
        "FROBNICATE 1",
    ],
)
def test_what_is_no_read_is_none(text):
    assert verdict(text) in (WRITES, UNREAD)


@pytest.mark.parametrize(
    "text", ["", ";", " ; ; ", "SELECT 1; SELECT 2", "SELECT 1;; SELECT 2;", "SELECT 1; DELETE FROM t"]
)
def test_what_is_not_one_statement_is_none(text):
    assert verdict(text) is SEVERAL


@pytest.mark.parametrize("text", ["SHOW all", "SHOW search_path", "SHOW TRANSACTION ISOLATION LEVEL"])
def test_show_speaks_of_the_session(text):
    assert verdict(text) is UNREAD


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1 -- comment",
        "SELECT 1 /* comment */",
        "SELECT /* it's */ 1 /* it's */",
        "SELECT 1 -- it's\n + 1 -- it's",
        "SELECT 'a' -- it's\n'b', pg_sleep(1) --'",
        'SELECT "a"',
        'SELECT "it\'s", pg_sleep(1), "it\'s"',
        "SELECT U&\"d!0061\" UESCAPE '!'",
        "SELECT $$a$$",
        "SELECT $a$it's$a$, pg_sleep(1), $a$it's$a$",
        "SELECT $1$$it's$$, pg_sleep(1), $$it's$$",
        "SELECT a$1, b$",
        r"SELECT E'a\'b', pg_sleep(1), E'\''",
        r"SELECT 'a\'",
        "SELECT 'a",
        "SELECT 'a''",
        "SELECT (1",
        "SELECT 1)",
        "SELECT 1\0; DELETE FROM t",
        "SELECT " + "a, " * MAX_LENGTH + "b",
    ],
)
def test_what_is_not_certain_is_not_understood(text):
    assert verdict(text) in (UNREAD, SEVERAL)


@pytest.mark.parametrize(
    "call",
    [
        "pg_sleep(1)",
        "PG_SLEEP (1)",
        "pg_sleep\n\t(1)",
        "pg_catalog.pg_sleep(1)",
        "pg_catalog . lower ('A')",
        "s.lower('A')",
        "d.s.lower('A')",
        "_evil(1)",
        "__(1)",
        "étude(1)",
        "lower5('A')",
        "lower1x('A')",
        "md5('a')",
        "lower_('A')",
        "nextval('s')",
        "pg_advisory_lock(1)",
        "set_config('a', 'b', false)",
        "current_setting('a')",
        "pg_notify('a', 'b')",
        "txid_current()",
        "dblink_exec('DELETE FROM t')",
        "query_to_xml('DELETE FROM t', true, true, '')",
        "lo_unlink(1)",
        "pg_terminate_backend(1)",
        "setseed(0.5)",
        "lastval()",
        "nextval(0)",
        "a.b.c(1)",
        "(lower)(1) + f(1)",
        "ARRAY[f(1)]",
        "lower(f(1))",
        "1+f(1)",
        "'a'||f(1)",
        "OPERATOR(pg_catalog.+)",
        # Key words that PostgreSQL takes for a function's name; is() is pgTAP's, and writes.
        "is(1, 2)",
        "isnull(1)",
        "by(1)",
        "over(1)",
        "filter(1)",
        "rows(1)",
        "set(1)",
        "sets(1)",
        "within(1, 2)",
        "partition(1)",
        "materialized(1)",
        "varying(1)",
        "similar(1)",
    ],
)
def test_a_call_of_what_is_not_known_to_be_harmless_is_found_wherever_it_stands(call):
    for text in (f"SELECT {call}", f"SELECT a FROM t WHERE b = {call}", f"WITH x AS (SELECT {call}) SELECT 1"):
        assert verdict(text) is CALLS, text
    assert verdict(f"SELECT * FROM {call}") is CALLS


@pytest.mark.parametrize(
    "call",
    [
        "(2::float8).pg_sleep",
        "('s'::regclass).nextval",
        "(1::bigint) . pg_advisory_lock",
        "$1.pg_sleep",
        "a[1].pg_sleep",
        "(ARRAY[1.5])[1].pg_sleep",
        "(SELECT 1.5::float8).pg_sleep",
        "(t).f",
    ],
)
def test_a_value_a_dot_and_a_name_is_a_call_too(call):
    """Seen on PostgreSQL 18: it sleeps, advances the sequence, takes the lock of the session."""
    assert verdict(f"SELECT {call} FROM t") is CALLS


@pytest.mark.parametrize(
    "word",
    [
        "current_user", "CURRENT_USER", "session_user", "user", "current_role", "current_catalog", "current_schema",
        "system_user", "pg_temp.t", "pg_temp_3.t", "PG_TEMP_12.t",
    ],
)  # fmt: skip
def test_what_asks_about_the_session_without_a_call_is_found(word):
    assert verdict(f"SELECT * FROM t WHERE a = {word}") is CALLS


@pytest.mark.parametrize(
    "view", ["pg_prepared_statements", "pg_cursors", "pg_settings", "pg_locks", "pg_stat_activity"]
)
def test_views_that_show_a_session_are_not_read_in_anothers(view):
    assert verdict(f"SELECT * FROM {view}") is CALLS
    assert verdict(f"TABLE pg_catalog.{view}") is CALLS


@pytest.mark.parametrize(
    "text",
    [
        "SELECT a FROM t LIMIT 1e5for update",
        "SELECT a FROM t LIMIT 0x1for update",
        "SELECT 1e5into t",
        "SELECT 1into t",
        "SELECT a FROM t WHERE b=1for update",
        "SELECT a FROM t WHERE b=1.5e5for share",
        "SELECT a FROM t WHERE b=$1for update",
        "SELECT a FROM t WHERE b=$1e5for update",
    ],
)
def test_a_number_ends_where_a_word_begins_to_some_servers(text):
    """PostgreSQL until 14 reads `1e5for` as a number and FOR."""
    assert verdict(text) in (UNREAD, WRITES)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("UTF8", True),
        ("utf-8", True),
        ("LATIN1", True),
        ("SQL_ASCII", True),
        ("SJIS", False),
        ("GBK", False),
        ("BIG5", False),
        ("", False),
    ],
)
def test_encodings_in_which_half_a_character_may_be_a_quote_are_not_read(encoding, expected):
    assert is_readable(encoding) is expected


# Shapes.


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT 1", "SELECT 9"),
        ("SELECT 12", "SELECT 7"),
        ("SELECT 12345", "SELECT 123456"),
        ("SELECT 'a'", "SELECT 'some; text -- /* \" $$'"),
        ("SELECT ''", "SELECT '12'"),
        ("SELECT $1", "SELECT $12"),
        ("SELECT 1.5", "SELECT 12.25"),
    ],
)
def test_texts_that_differ_in_their_values_have_one_shape(one, other):
    assert fold(one.encode()) == fold(other.encode()) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [("SELECT 1", "SELECT -1"), ("SELECT a", "SELECT b"), ("SELECT 1", "SELECT '1'"), ("SELECT 1", "SELECT  1")],
)
def test_texts_that_differ_in_more_have_others(one, other):
    assert fold(one.encode()) != fold(other.encode())


NUMBERS = st.integers(0, 10**6).map(str)
STRINGS = st.text(st.characters(codec="utf-8", exclude_characters="\\\0"), max_size=12).map(
    lambda text: "'" + text.replace("'", "''") + "'"
)
PIECES = [
    "SELECT ", "a", " FROM t WHERE b = ", ", ", "(", ")", "lower", "count", "+", " AND ", " IN ", "::int", ".", "; ",
    " FOR UPDATE", " INTO ", "--", "/*", "*/", '"', "'", "$", "$1", "$$", "\\", "\n", "e", "E", "U&", "pg_sleep", " ",
    "f", "s.", "[", "]", "x", "_", "é", "0", "1", "9", "-", "current_user", "for update", "delete from t",
]  # fmt: skip


@given(st.lists(st.sampled_from(["SELECT ", " , ", "a = ", "lower("]), min_size=1, max_size=5), st.data())
def test_whatever_the_values_are_the_shape_is_one_and_so_is_the_verdict(words, data):
    def build():
        return "".join(word + data.draw(STRINGS) + "," + data.draw(NUMBERS) for word in words).encode()

    one, other = build(), build()
    shapes = {re.sub(r"('\?')+", "'?'", shape or "") for shape in (fold(one), fold(other))}
    assert all(shapes)  # neither quotes nor digits in a value make a text unreadable
    assert len({re.sub("0+", "0", shape) for shape in shapes}) == 1


@given(st.lists(st.one_of(st.sampled_from(PIECES), NUMBERS, STRINGS), max_size=14).map("".join))
def test_what_is_fit_by_its_shape_is_so_by_its_own_tokens(text):
    """The shape was judged; the text is what runs. Read by the whole grammar, it must say the same."""
    raw = text.encode()
    if verdict(raw) is not FIT:
        return
    statement = classify(raw)
    assert statement.is_single, text
    assert statement.kind is Kind.READ, text
    before, kind = b"", 0
    for match in tokens(raw):
        token = match[match.lastindex].lower()
        if token == b"(" and kind == WORD:
            assert not re.search(rb"[0-9]|^(f|x|e|s|u|pg_sleep|current_user|a|t|b|int)$", before), text
        if token == b"(":
            assert kind != LITERAL or before[:1] in b"'eEuU$", text
        if token == b".":
            assert kind == WORD, text
        before, kind = token, match.lastindex
    kinds = [match.lastindex for match in tokens(raw)]
    shape_kinds = [match.lastindex for match in tokens(fold(raw).encode("latin-1"))]
    assert [each for each in kinds if each != NUMBER] == [each for each in shape_kinds if each != NUMBER], text


@given(st.binary(max_size=60))
def test_no_bytes_make_it_raise(data):
    verdict(data)
    verdict(b"SELECT " + data)
    judge(data.decode("latin-1"))


def test_a_shape_costs_little_however_odd_the_text():
    """It is looked for each time that a statement without a name is run."""
    assert fold(b"SELECT '" + b"x" * (MAX_TEXT - 9) + b"'") == "SELECT '?'"
    assert fold(b"SELECT '" + b"x" * (MAX_TEXT - 8) + b"'") is None
    start = time.process_time()
    for text in (b"'" * 1_000_000, b"1a" * 500_000, b"$1" * 500_000, b"0" * 1_000_000, b"$1,$2," * 150_000):
        verdict(b"SELECT " + text)
    for text in (b"'" * MAX_TEXT, b"$1," * (MAX_TEXT // 3), b"1a" * (MAX_TEXT // 2), b"$" * MAX_TEXT):
        verdict(text)
    assert time.process_time() - start < 0.2
