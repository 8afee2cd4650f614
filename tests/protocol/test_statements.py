"""What kind of statement a text is; and that nothing in quotes, comments or parentheses fools it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import statements
from protocol.statements import Kind, Statement, classify, kind_of, split
from protocol.tokens import STANDARD

KINDS = [
    (Kind.READ, b"select 1"),
    (Kind.READ, b"SELECT * FROM t WHERE a = 'FOR UPDATE'"),
    (Kind.READ, b'select "into" from t'),
    (Kind.READ, b"select update, share from t"),  # not reserved: columns
    (Kind.READ, b"select substring(a for 3) from t"),
    (Kind.READ, b"values (1), (2)"),
    (Kind.READ, b"table t"),
    (Kind.READ, b"(select 1) union (select 2)"),
    (Kind.READ, b"( /* a */ ( select 1))"),
    (Kind.READ, b"with x as (select 1) select * from x"),
    (Kind.READ, b"-- hello\n select 1 /* bye */"),
    (Kind.READ, b"/* a /* b */ c */ select 1"),
    (Kind.READ, b"select $1::int"),
    (Kind.READ, b"select $$; begin$$"),
    (Kind.WRITE, b"select * from t for update"),
    (Kind.WRITE, b"select * from t FOR\nNO KEY UPDATE skip locked"),
    (Kind.WRITE, b"select * from t for -- c\n share"),
    (Kind.WRITE, b"(select * from t for key share)"),
    (Kind.WRITE, b"insert into t values (1)"),
    (Kind.WRITE, b"UPDATE t SET a = 1"),
    (Kind.WRITE, b"delete from t"),
    (Kind.WRITE, b"merge into t using s on true when matched then delete"),
    (Kind.WRITE, b"truncate t"),
    (Kind.WRITE, b"refresh materialized view v"),
    (Kind.WRITE, b"with x as (insert into t values (1) returning *) select * from x"),
    (Kind.WRITE, b"with x as (select 1) update t set a = 1"),
    (Kind.DDL, b"select 1 into t"),
    (Kind.DDL, b"create table t (a int)"),
    (Kind.DDL, b"create table t (atomic int)"),
    (Kind.DDL, b"create function f() returns int language sql as 'select 1; select 2'"),
    (Kind.DDL, b"create rule r as on insert to t do (select 1; select 2)"),
    (Kind.DDL, b"alter table t add b int"),
    (Kind.DDL, b"drop table t"),
    (Kind.DDL, b"grant select on t to u"),
    (Kind.DDL, b"comment on table t is 'x'"),
    (Kind.DDL, b"security label on table t is 'x'"),
    (Kind.BEGIN, b"begin"),
    (Kind.BEGIN, b"BEGIN ISOLATION LEVEL SERIALIZABLE"),
    (Kind.BEGIN, b"start transaction read only"),
    (Kind.COMMIT, b"commit"),
    (Kind.COMMIT, b"end work"),
    (Kind.COMMIT, b"commit and chain"),
    (Kind.ROLLBACK, b"rollback"),
    (Kind.ROLLBACK, b"abort"),
    (Kind.SAVEPOINT, b"savepoint a"),
    (Kind.SAVEPOINT, b"release savepoint a"),
    (Kind.SAVEPOINT, b"rollback to a"),
    (Kind.SAVEPOINT, b"rollback work to savepoint a"),
    (Kind.SET, b"set a = 1"),
    (Kind.SET, b"set session a = 1"),
    (Kind.SET, b"set role r"),
    (Kind.SET, b"set local.a = 1"),
    (Kind.SET, b"set session characteristics as transaction read only"),
    (Kind.SET_LOCAL, b"set local a = 1"),
    (Kind.SET_LOCAL, b'set local "a" = 1'),
    (Kind.SET_LOCAL, b"set transaction read only"),
    (Kind.SET_LOCAL, b"set constraints all deferred"),
    (Kind.RESET, b"reset all"),
    (Kind.DISCARD, b"discard all"),
    (Kind.LISTEN, b"listen c"),
    (Kind.UNLISTEN, b"unlisten *"),
    (Kind.NOTIFY, b"notify c, 'x'"),
    (Kind.PREPARE, b"prepare p as select 1"),
    (Kind.PREPARE, b"prepare transaction as select 1"),
    (Kind.PREPARE, b"prepare transaction (int) as select 1"),
    (Kind.UTILITY, b"prepare transaction 'x'"),
    (Kind.UTILITY, b"commit prepared 'x'"),
    (Kind.UTILITY, b"rollback prepared 'x'"),
    (Kind.EXECUTE, b"execute p(1)"),
    (Kind.DEALLOCATE, b"deallocate all"),
    (Kind.COPY, b"copy t from stdin"),
    (Kind.DECLARE, b"declare c cursor for select 1"),
    (Kind.FETCH, b"fetch all from c"),
    (Kind.FETCH, b"move c"),
    (Kind.CLOSE, b"close c"),
    (Kind.LOCK, b"lock table t"),
    (Kind.SHOW, b"show all"),
    (Kind.EXPLAIN, b"explain analyze select 1"),
    (Kind.CALL, b"call p()"),
    (Kind.DO, b"do $$begin; commit; end$$"),
    (Kind.LOAD, b"load 'x'"),
    (Kind.VACUUM, b"vacuum full t"),
    (Kind.VACUUM, b"analyze"),
    (Kind.VACUUM, b"checkpoint"),
    (Kind.UNKNOWN, b"frobnicate t"),
    (Kind.UNKNOWN, b"start_replication slot s"),
    (Kind.UNKNOWN, b"start"),
    (Kind.UNKNOWN, b"'begin'"),
    (Kind.UNKNOWN, b'"select" 1'),
    (Kind.UNKNOWN, b"1"),
    (Kind.UNKNOWN, b"empty"),
    (Kind.UNKNOWN, b"select1"),
]


@pytest.mark.parametrize(("kind", "text"), KINDS)
def test_single_statements(kind, text):
    for around in (b"%s", b"%s;", b"  ;\n;%s ; -- x\n ;", b"/* b */ %s /* e */"):
        statement = classify(around % text)
        assert (statement.kind, statement.is_single, statement.kinds) == (kind, True, {kind})


@pytest.mark.parametrize("text", [b"", b" ", b";", b" ;; \n", b"-- select 1", b"/* begin */", b"/* /* */ */;"])
def test_nothing_is_empty(text):
    assert classify(text) == Statement(Kind.EMPTY, False, False, frozenset({Kind.EMPTY}))


def test_several_statements_share_a_kind_or_have_none():
    same = classify(b"select 1; select 2")
    assert (same.kind, same.is_single, same.kinds) == (Kind.READ, False, {Kind.READ})
    mixed = classify(b"set a = 1; select 2;")
    assert (mixed.kind, mixed.is_single, mixed.kinds) == (Kind.UNKNOWN, False, {Kind.SET, Kind.READ})


@pytest.mark.parametrize(
    "text",
    [
        b"begin",
        b"select 1; BEGIN",
        b"start transaction; select 1",
        b"commit and chain",
        b"ROLLBACK WORK AND CHAIN;",
        b"select 'a;b'; /* ; */ begin",
        b"select E'\\';'; begin",
        b"create function f() begin atomic select 1; select 2; end; begin",
        b"(" * 2000 + b"; begin",  # odd: assumed
    ],
)
def test_texts_that_open_a_transaction(text):
    assert classify(text).starts_transaction


@pytest.mark.parametrize(
    "text",
    [
        b"select 1",
        b"commit and no chain",
        b"commit",
        b"select ';begin;'",
        b"select $a$;begin;$a$",
        b'select ";begin;"',
        b"select 1 --;begin\n",
        b"/*;begin;*/ select 1",
        b"do $$ begin end $$",
        b"set transaction read only",
        b"create function f() begin atomic select 1; select 2; end",
    ],
)
def test_texts_that_do_not(text):
    assert not classify(text).starts_transaction


def test_backslashes_count_when_the_server_says_so():
    text = b"select 'a\\'; begin; select 'b'"
    assert classify(text).kinds == {Kind.READ, Kind.BEGIN}
    text = b"select 'a\\'; begin; select '"
    assert classify(text, standard_conforming_strings=False).kinds == {Kind.READ}


@pytest.mark.parametrize(
    "text",
    [
        b"select 'a",
        b'select "a',
        b"select $$a",
        b"select /* a",
        b"select )",
        b"select (",
        b"(;",
        b"(",
        b"select \\",
        b"select {fn x}",
        b"create function f() begin atomic select 1; end",
    ],
)
def test_what_is_not_understood_is_unknown_and_not_single(text):
    statement = classify(text)
    assert (statement.kind, statement.is_single) == (Kind.UNKNOWN, False)


def test_the_pieces_of_a_text():
    text = b" ; (select 1) ;set a = ';' -- ;\n;; begin"
    pieces = list(split(text, STANDARD))
    assert [text[piece.start : piece.end] for piece in pieces] == [b"(select 1) ", b"set a = ';' -- ;\n", b"begin"]
    assert [piece.head for piece in pieces] == [(b"select", b"1", b")"), (b"set", b"a", b"=", b"'"), (b"begin",)]
    assert [kind_of(piece) for piece in pieces] == [Kind.READ, Kind.SET, Kind.BEGIN]


def test_too_many_statements_are_not_counted_out(monkeypatch):
    monkeypatch.setattr(statements, "MAX_STEPS", 10)
    assert classify(b"select 1;" * 10).kind is Kind.READ
    assert classify(b"select 1;" * 11).kind is Kind.UNKNOWN
    assert not classify(b"select 1;" * 11).starts_transaction
    assert classify(b"select 1;" * 11 + b"begin").starts_transaction


PIECES = [
    b"select 1",
    b"begin",
    b";",
    b"'",
    b'"',
    b"$$",
    b"$a$",
    b"--",
    b"\n",
    b"/*",
    b"*/",
    b"(",
    b")",
    b"\\",
    b"E'",
    b" for update",
]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join) | st.binary(max_size=60), st.booleans())
def test_any_bytes_are_some_statement(text, standard):
    statement = classify(text, standard_conforming_strings=standard)
    assert statement.kind in statement.kinds or statement.kind is Kind.UNKNOWN
    if statement.is_single:
        assert statement.kinds == {statement.kind}


@given(st.lists(st.sampled_from([text for _, text in KINDS]), min_size=2, max_size=5))
def test_a_text_is_the_sum_of_its_statements(texts):
    alone = [classify(text) for text in texts]
    together = classify(b";".join(texts))
    assert together.kinds == {statement.kind for statement in alone}
    assert together.starts_transaction == any(statement.starts_transaction for statement in alone)
    assert not together.is_single


TRAPS = [
    b";",
    b"a;",
    b"(",
    b"()",
    b"(1,",
    b"(a ",
    b"/*",
    b"/**/",
    b"'",
    b"E'\\'",
    b"$a$",
    b"$a",
    b"for ",
    b"-\n",
    b"e'a'\n",
    b"1 ",
    b"a ",
]


@pytest.mark.parametrize("trap", TRAPS)
def test_a_long_text_takes_no_longer_than_its_length(trap):
    text = b"select E'' " + trap * (400_000 // len(trap))
    began = time.process_time()
    classify(text)
    assert time.process_time() - began < 2  # about 0.05 s; a trap would take minutes
