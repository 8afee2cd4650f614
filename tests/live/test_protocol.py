"""All that the protocol offers, as bytes: simple and extended queries, batches, errors in them, portals, calls."""

from struct import pack

import psycopg
import pytest

from tests.live.stand import Stand
from tests.live.wire import (
    FLUSH,
    SYNC,
    ask,
    bind,
    describe,
    execute,
    kinds,
    message,
    parse,
    query,
    rows,
    sqlstate,
)

pytestmark = pytest.mark.live

BY_ZERO = "select 1/count(*) from generate_series(1, $1::int) as n where n > 1"  # with 1; fails when run, not before
INT4PL = 177  # the OID of int4pl(int4, int4)


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    databases = {
        "postgres": "pool_size=2",
        "one": "dbname=postgres pool_size=1",
        "session": "dbname=postgres pool_mode=session pool_size=2",
    }
    with Stand(upstream, databases=databases) as stand:
        yield stand


@pytest.fixture(name="line", params=["postgres", "session"])
def _line(stand, request):
    with stand.raw(database=request.param) as line:
        yield line


def test_a_simple_query_with_several_statements(line):
    answer = line.ask("select 1; select 'two' as word, null as nothing; select 3 where false")
    assert kinds(answer) == "TDCTDCTCZ"
    assert rows(answer) == [("1",), ("two", None)]


def test_an_empty_query(line):
    assert kinds(line.ask("")) == "IZ"
    assert kinds(line.ask(" -- nothing\n")) == "IZ"
    line.send(ask(""), SYNC)
    assert kinds(line.read_until()) == "12nIZ"


def test_an_error_ends_the_simple_query_and_not_the_connection(line):
    answer = line.ask("select 1; select 1/0; select 2")
    assert kinds(answer) == "TDCEZ"
    assert sqlstate(answer) == "22012"
    assert rows(line.ask("select 'alive'")) == [("alive",)]


def test_an_extended_query(line):
    line.send(ask("select $1::int + $2::int", 20, 22), SYNC)
    answer = line.read_until()
    assert kinds(answer) == "12TDCZ"
    assert rows(answer) == [("42",)]


def test_pipelined_simple_queries_are_answered_in_order(line):
    line.send(*(query(f"select {n}, repeat('x', {n * 37 % 5000})") for n in range(200)))
    assert [rows(line.read_until())[0][0] for _ in range(200)] == [str(n) for n in range(200)]


def test_pipelined_batches_each_with_its_sync(line):
    line.send(*(ask("select $1::int", n) + SYNC for n in range(100)))
    assert [rows(line.read_until()) for _ in range(100)] == [[(str(n),)] for n in range(100)]


def test_an_error_in_a_batch_is_skipped_to_its_own_sync_and_no_further(line):
    line.send(
        ask("select 1"),
        ask(BY_ZERO, 1),
        ask("select 3"),
        SYNC,
        ask("select 4"),
        SYNC,
        query("select 5"),
    )
    first, second, third = line.read_until(), line.read_until(), line.read_until()
    assert kinds(first) == "12TDC12TEZ"
    assert rows(second) == [("4",)]
    assert rows(third) == [("5",)]


def test_a_simple_query_in_the_middle_of_a_failed_batch_is_skipped(line):
    line.send(ask(BY_ZERO, 1), query("select 'skipped'"), SYNC, query("select 'heard'"))
    assert kinds(line.read_until()) == "12TEZ"
    assert rows(line.read_until()) == [("heard",)]


def test_a_sync_that_comes_long_after_the_error(line):
    line.send(ask(BY_ZERO, 1), FLUSH)
    assert kinds(line.read_until("E")) == "12TE"
    line.send(ask("select 'skipped'"))
    line.send(SYNC)
    assert kinds(line.read_until()) == "Z"
    assert rows(line.ask("select 'heard'")) == [("heard",)]


def test_flush_without_sync_brings_the_answers_and_keeps_the_server(stand):
    with stand.raw(database="one") as line, stand.raw(database="one") as other:
        line.send(ask("select pg_backend_pid()"), FLUSH)
        answer = line.read_until("C")
        assert kinds(answer) == "12TDC"
        other.send(query("select pg_backend_pid()"))
        other.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            other.read()
        line.send(ask("select pg_backend_pid()"), FLUSH)
        assert rows(line.read_until("C")) == rows(answer)
        line.send(SYNC)
        assert kinds(line.read_until()) == "Z"
        other.socket.settimeout(10)
        assert rows(other.read_until()) == rows(answer), "the pool has one server only"


def test_a_portal_is_read_a_few_rows_at_a_time(line):
    line.send(parse("select * from generate_series(1, 7)"), bind(), execute(max_rows=3), FLUSH)
    assert kinds(line.read_until("s")) == "12DDDs"
    line.send(execute(max_rows=3), FLUSH)
    answer = line.read_until("s")
    assert rows(answer) == [("4",), ("5",), ("6",)]
    line.send(execute(max_rows=3), SYNC)
    assert kinds(line.read_until()) == "DCZ"


def test_two_named_portals_in_one_transaction(line):
    line.ask("begin; select 1")
    text = "select * from generate_series($1::int, 100)"
    line.send(parse(text), bind(1, portal="a"), bind(50, portal="b"), SYNC)
    assert kinds(line.read_until()) == "122Z"
    line.send(execute("a", 2), execute("b", 2), execute("a", 2), SYNC)
    answer = line.read_until()
    assert [row for (row,) in rows(answer)] == ["1", "2", "50", "51", "3", "4"]
    line.send(message("C", b"Pa\0"), execute("a", 1), SYNC)
    answer = line.read_until()
    assert kinds(answer) == "3EZ"
    assert sqlstate(answer) == "34000"
    line.ask("rollback")


def test_a_function_call(line):
    arguments = pack("!I", 4) + pack("!i", 40) + pack("!I", 4) + pack("!i", 2)
    line.send(message("F", pack("!IHHH", INT4PL, 1, 1, 2) + arguments + pack("!H", 1)))
    answer = line.read_until()
    assert kinds(answer) == "VZ"
    assert answer[0].body == pack("!Ii", 4, 42)
    line.send(message("F", pack("!IHHH", 1, 1, 1, 2) + arguments + pack("!H", 1)))
    answer = line.read_until()
    assert kinds(answer) == "EZ"
    assert rows(line.ask("select 'alive'")) == [("alive",)]


def test_describe_tells_types_and_rows(line):
    line.send(parse("select $1::int8 as big"), describe("S"), SYNC)
    answer = line.read_until()
    assert kinds(answer) == "1tTZ"
    assert b"big" in answer[2].body
    line.send(parse("create temporary table x ()"), describe("S"), SYNC)
    assert kinds(line.read_until()) == "1tnZ"


def test_notices_reach_who_caused_them(line):
    answer = line.ask("do $$ begin raise notice 'look %', 42; end $$")
    assert any(each.kind == "N" and b"look 42" in each.body for each in answer)


def test_bytes_that_trickle_in_one_by_one(line):
    for byte in query("select 1") + ask("select $1::text", "two") + SYNC:
        line.send(bytes([byte]))
    assert rows(line.read_until()) == [("1",)]
    assert rows(line.read_until()) == [("two",)]


def test_a_statement_of_many_megabytes_and_an_answer_of_many_megabytes(line):
    text = "x" * 20_000_000
    answer = line.ask(f"select length('{text}'), '{text}'")
    assert [len(value) for value in rows(answer)[0]] == [len("20000000"), 20_000_000]


def test_a_named_statement_passes_in_session_mode(stand):
    with stand.raw(database="session") as line:
        line.send(parse("select $1::int * 2", name="mine"), SYNC)
        assert kinds(line.read_until()) == "1Z"
        for n in (1, 21):
            line.send(bind(n, statement="mine"), execute(), SYNC)
            assert rows(line.read_until()) == [(str(n * 2),)]
    with stand.connect(dbname="session", prepare_threshold=0) as connection:
        for n in range(10):
            assert connection.execute("select %s::int", [n]).fetchone() == (n,)


def test_psycopg_pipelines_and_server_side_cursors(stand):
    with stand.connect() as connection:
        with connection.pipeline():
            cursors = [connection.execute("select %s::int", [n]) for n in range(50)]
        assert [cursor.fetchone() for cursor in cursors] == [(n,) for n in range(50)]
        with connection.transaction(), connection.cursor("stream") as cursor:
            cursor.execute("select * from generate_series(1, 1000)")
            assert len(cursor.fetchmany(10)) == 10
            assert len(cursor.fetchall()) == 990
        with connection.pipeline(), pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("select 1/%s::int", [0]).fetchone()
        assert connection.execute("select 1").fetchone() == (1,)


def test_a_batch_of_many_thousand_requests_with_one_sync_at_its_end_is_answered(stand):
    """As drivers do for many rows at once."""
    rounds = 7_000
    with stand.raw() as line:
        line.send(ask("select pg_sleep(0.5)"), parse("select 1"), (bind() + execute()) * rounds)
        line.send((bind() + execute()) * rounds, SYNC)
        assert kinds(line.read_until()) == "12TDC1" + "2DC" * 2 * rounds + "Z"
