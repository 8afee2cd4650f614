"""
Prepared statements of many clients on few servers, held against PostgreSQL itself.

Theory. The judge is a connection past the proxy: what is said there is said through the proxy too, message by message,
and the answers must be the same, whole errors with all their fields but for the line of its source code. The proxy has
two servers and takes them in turn, so every transaction is on another one than the last.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from struct import pack
from typing import Any

import asyncpg
import psycopg
import pytest

from tests.live.stand import Stand, wait_until
from tests.live.upstream import PASSWORD, Upstream
from tests.live.wire import (
    COPY_DONE,
    FLUSH,
    SYNC,
    Raw,
    bind,
    copy_data,
    describe,
    error,
    execute,
    kinds,
    message,
    parse,
    query,
    rows,
    sqlstate,
)

pytestmark = pytest.mark.live

TURNS = {"default_pool_size": 2, "server_round_robin": 1, "log_connections": 0, "log_disconnections": 0}
NOT_OURS = frozenset("L")  # of an error: the line in PostgreSQL's source
ABORTED = b"C25P02"  # whether a Parse or a Bind was refused cannot be told from here


def close(name: str, kind: str = "S") -> bytes:
    return message("C", f"{kind}{name}\0".encode())


def run(name: str, *values: object) -> bytes:
    return bind(*values, statement=name) + execute()


@pytest.fixture(name="stand")
def _stand(upstream: Upstream) -> Iterator[Stand]:
    with Stand(upstream, TURNS) as stand:
        warm(stand)
        yield stand


def warm(stand: Stand) -> None:
    """Both servers are open."""
    lines = [stand.raw() for _ in range(2)]
    for line in lines:
        line.ask("begin")
        line.ask("select 1")
    for line in lines:
        line.ask("commit")
        line.leave()


@contextmanager
def direct(upstream: Upstream) -> Iterator[Raw]:
    with Raw(upstream.port) as line:
        line.login("app", "postgres", PASSWORD)
        yield line


def normal(found: list[Any]) -> list[Any]:
    """Without what may differ."""
    told = []
    for each in found:
        if each.kind == "E":
            hidden = NOT_OURS | {"R"} if ABORTED in each.body else NOT_OURS
            fields = [part for part in each.body.split(b"\0") if part[:1].decode("latin-1") not in hidden]
            told.append((each.kind, fields))
        elif each.kind not in "NS":
            told.append((each.kind, each.body))
    return told


def converse(line: Raw, units: list[bytes]) -> list[Any]:
    """Each unit is sent, and its answer read up to as many ReadyForQuery as it has earned."""
    told = []
    for unit in units:
        line.send(unit)
        for _ in range(count_ends(unit)):
            told += normal(line.read_until())
    return told


def check_answers(upstream: Any, stand: Stand, units: list[bytes], times: int = 1) -> None:
    """A client of the proxy hears what PostgreSQL itself answers, and so does the next one."""
    with direct(upstream) as line:
        ought = converse(line, units)
    for _ in range(times):
        with stand.raw() as line:
            assert converse(line, units) == ought


def count_ends(unit: bytes) -> int:
    count = 0
    while unit:
        count += unit[:1] in (b"S", b"Q")
        unit = unit[1 + int.from_bytes(unit[1:5], "big") :]
    return count


ONE = parse("select $1::int + 1 as one", "a")
CONVERSATIONS: dict[str, list[bytes]] = {
    "a statement in many transactions": [ONE + SYNC, *[run("a", 1) + SYNC] * 4, describe("S", "a") + SYNC],
    "with a description of its portal": [ONE + SYNC, *[bind(1, statement="a") + describe() + execute() + SYNC] * 3],
    "a name that was never given": [run("nobody") + SYNC, describe("S", "nobody") + SYNC, close("nobody") + SYNC],
    "a name that is taken": [ONE + SYNC, parse("select 2", "a") + SYNC, ONE + SYNC, run("a", 1) + SYNC],
    "a name that is closed": [ONE + SYNC, close("a") + SYNC, run("a", 1) + SYNC, close("a") + SYNC],
    "the same name for another text": [
        ONE + SYNC,
        close("a") + parse("select 'two' as two", "a") + describe("S", "a") + run("a") + SYNC,
        run("a") + SYNC,
        run("a", 5) + SYNC,
    ],
    "a parse that fails": [
        parse("select nothing from nowhere", "a") + describe("S", "a") + run("a") + SYNC,
        ONE + run("a", 4) + SYNC,
        run("a", 4) + SYNC,
    ],
    "a syntax error": [parse("selec", "a") + SYNC, run("a") + SYNC, parse("selec", "a") + SYNC],
    "an error when it is bound": [ONE + SYNC, run("a", "x") + SYNC, run("a", 1) + SYNC],
    "an error when it runs": [parse("select 1 / $1::int", "a") + SYNC, *[run("a", 0) + SYNC, run("a", 1) + SYNC] * 2],
    "an error in the middle of a batch": [
        ONE + run("a", 1) + run("nobody") + parse("select 7", "b") + close("a") + SYNC,
        run("a", 1) + SYNC,
        run("b") + SYNC,
    ],
    "too few and too many values": [ONE + SYNC, run("a") + SYNC, run("a", 1, 2) + SYNC, run("a", 3) + SYNC],
    "several units in one go": [
        ONE + SYNC + run("a", 1) + SYNC + run("a", 2) + SYNC,
        run("a", "x") + SYNC + run("a", 2) + SYNC + run("nobody") + SYNC + run("a", 3) + SYNC,
    ],
    "units of which one fails, and names in both": [
        parse("selec", "a") + SYNC + ONE + SYNC + run("a", 1) + SYNC,
        close("a") + parse("select nowhere", "a") + SYNC + run("a", 1) + SYNC + ONE + run("a", 1) + SYNC,
    ],
    "a query between them": [ONE + SYNC + query("select 1; select 2") + run("a", 1) + SYNC, query("select 3")],
    "names that may be anything": [
        parse("select 1", 'it"s') + SYNC,
        run('it"s') + SYNC,
        parse("select 2", 'it"s') + SYNC,
        run("PGSHUTTLE_1") + SYNC,
        parse("select 3", "PGSHUTTLE_1") + SYNC,
        run("PGSHUTTLE_1") + SYNC,
        describe("S", "PGSHUTTLE_0") + SYNC,
        run("Ä") + SYNC,
    ],
    "a name that is too long": [
        parse("select 1", "x" * 70) + SYNC,
        run("x" * 80) + SYNC,
        run("x" * 63) + SYNC,
        run("x" * 62) + SYNC,
        close("x" * 64) + SYNC,
        run("x" * 70) + SYNC,
    ],
    "two names for the same": [
        ONE + parse("select $1::int + 1 as one", "b") + SYNC,
        parse("select 1", "b") + SYNC,
        close("a") + SYNC,
        run("b", 1) + SYNC,
    ],
    "other parameter types": [
        message("P", b"a\0select $1\0\0\1\0\0\0\x17") + describe("S", "a") + SYNC,
        message("P", b"b\0select $1\0\0\1\0\0\0\x19") + describe("S", "b") + SYNC,
        run("a", 1) + run("b", "x") + SYNC,
    ],
    "a transaction": [query("begin"), ONE + SYNC, run("a", 1) + SYNC, query("commit"), run("a", 2) + SYNC],
    "a transaction by the extended protocol": [
        parse("begin", "b") + run("b") + SYNC,
        ONE + run("a", 1) + SYNC,
        parse("commit", "c") + run("c") + SYNC,
        run("b") + SYNC,
        run("c") + SYNC,
        run("a", 1) + SYNC,
    ],
    "a statement of a transaction that is rolled back stays": [
        query("begin") + ONE + SYNC,
        query("rollback"),
        run("a", 1) + SYNC,
    ],
    "in a transaction that has failed": [
        parse("rollback", "r") + parse("select 1", "s") + SYNC,
        query("begin"),
        query("select 1/0"),
        ONE + SYNC,
        run("a", 1) + SYNC,
        parse("select 1", "t") + SYNC,
        run("s") + SYNC,
        describe("S", "s") + SYNC,
        run("r") + SYNC,
        run("s") + SYNC,
    ],
    "a transaction that fails unheard": [
        parse("select 1", "s") + SYNC,
        query("begin") + query("select 1/0") + parse("select 1", "t") + SYNC + run("s") + SYNC + query("rollback"),
        run("t") + SYNC,
    ],
    "portals": [
        parse("select generate_series(1, 5)", "a") + SYNC,
        bind(portal="p", statement="a") + execute("p", 2) * 2 + describe("P", "p") + execute("p", 9) + SYNC,
        execute("p") + SYNC,
        bind(portal="p", statement="a") + close("p", "P") + execute("p") + SYNC,
        query("begin") + bind(portal="p", statement="a") + execute("p", 2) + SYNC + execute("p", 2) + SYNC,
        close("a") + execute("p") + SYNC + query("commit"),
    ],
    "the unnamed statement": [
        parse("select 1 as one") + describe("S") + SYNC,
        bind() + execute() + SYNC,
        parse("selec") + SYNC,
        parse("select 2 as two") + SYNC + parse("select 3", "c") + SYNC + bind() + execute() + SYNC,
        close("") + SYNC,
        bind() + execute() + SYNC,
    ],
    "statements without columns": [
        query("create temp table t (a int)") + parse("insert into t values ($1)", "i") + describe("S", "i") + SYNC,
        run("i", 1) + run("i", 2) + SYNC,
        parse("", "empty") + describe("S", "empty") + run("empty") + SYNC,
        query("select a + 0 as a from t; drop table t"),
    ],
    "COPY": [
        query("create temp table t (a text)") + parse("copy t from stdin", "c") + SYNC,
        run("c") + copy_data(b"one\n") + copy_data(b"two\n") + COPY_DONE + SYNC,
        parse("copy t to stdout", "o") + run("o") + SYNC,
        query("drop table t"),
    ],
    "PREPARE and EXECUTE": [
        query("prepare foo (int) as select $1 * 2 as two"),
        query("execute foo(1)"),
        query("execute foo(2); execute foo(3)"),
        query("explain (costs off) execute foo(4)"),
        query("prepare foo as select 1"),
        query("execute bar"),
        query("deallocate bar"),
        query("deallocate foo"),
        query("execute foo(1)"),
        query('prepare "Foo" as select 1; execute "Foo"; deallocate "Foo"; execute "Foo"'),
    ],
    "PREPARE that fails": [
        query("prepare foo as selec"),
        query("prepare foo as select nothing"),
        query("execute foo"),
        query("prepare foo as select 1; select 1/0; prepare bar as select 2"),
        query("select 'ä'; execute foo; selec"),
        query("deallocate föö; prepare föö as selec"),
        query("execute foo"),
        query("execute bar"),
    ],
    "DEALLOCATE ALL": [
        query("prepare foo as select 1"),
        ONE + SYNC,
        query("deallocate all"),
        query("execute foo"),
        run("a", 1) + SYNC,
        ONE + SYNC,
        run("a", 1) + SYNC,
        query("deallocate all; prepare foo as select 2; execute foo") + run("a", 1) + SYNC + query("execute foo"),
    ],
    "DISCARD ALL": [ONE + SYNC, query("discard all"), run("a", 1) + SYNC, query("begin"), query("discard all"),
                    query("rollback"), ONE + SYNC, run("a", 1) + SYNC],
    "names in SQL and in the protocol are the same": [
        ONE + SYNC,
        query("execute a(1)"),
        query("deallocate a"),
        run("a", 1) + SYNC,
        query("prepare a (int) as select $1"),
        bind(5, statement="a") + describe() + execute() + SYNC,
        describe("S", "a") + SYNC,
        close("a") + SYNC,
        query("execute a(1)"),
    ],
    "SQL by the extended protocol": [
        query("prepare foo as select 1 as one"),
        parse("execute foo") + bind() + describe() + execute() + SYNC,
        parse("execute foo", "e") + describe("S", "e") + SYNC,
        bind(statement="e") + describe() + execute() + SYNC,
        parse("deallocate foo", "d") + SYNC,
        run("d") + SYNC,
        run("d") + SYNC,
        ONE + SYNC,
        parse("deallocate all") + bind() + execute() + SYNC,
        run("a", 1) + SYNC,
        parse("discard all", "x") + run("x") + SYNC,
        run("x") + SYNC,
    ],
    "our names in SQL": [
        ONE + SYNC,
        query('execute "PGSHUTTLE_1"(1)'),
        query('deallocate "PGSHUTTLE_1"'),
        query('prepare "PGSHUTTLE_1" as select 5'),
        query('execute "PGSHUTTLE_1"'),
        run("a", 1) + SYNC,
    ],
    "messages that are malformed": [
        message("P", b"a\0select 1\0") + SYNC,
        run("a") + SYNC,
        message("D", b"X\0") + SYNC,
        message("C", b"X\0") + SYNC,
    ],
}  # fmt: skip


@pytest.mark.parametrize("what", CONVERSATIONS)
def test_every_answer_is_postgresqls_own(upstream, stand, what):
    check_answers(upstream, stand, CONVERSATIONS[what], times=2)  # the second finds what the first has left


@pytest.mark.parametrize("what", CONVERSATIONS)
def test_also_where_servers_keep_next_to_nothing_and_everything_comes_in_pieces(upstream, what):
    with direct(upstream) as line:
        ought = converse(line, CONVERSATIONS[what])
    with Stand(upstream, {**TURNS, "max_prepared_statements": 1}) as stand, stand.raw() as line:
        told = []
        for unit in CONVERSATIONS[what]:
            for at in range(0, len(unit), 7):
                line.send(unit[at : at + 7])
            for _ in range(count_ends(unit)):
                told += normal(line.read_until())
        assert told == ought


def test_answers_come_without_a_sync_when_they_are_asked_for(upstream, stand):
    def flushed(line: Raw) -> list[Any]:
        line.send(ONE + describe("S", "a") + FLUSH)
        found = line.read_until("T")
        line.send(bind(1, statement="a") + FLUSH)
        found += line.read_until("2")
        line.send(execute() + FLUSH)
        found += line.read_until("C")
        line.send(close("a") + FLUSH)
        found += line.read_until("3")
        line.send(run("a", 1) + FLUSH)
        found += line.read_until("E")
        line.send(run("a", 1) + FLUSH + SYNC)
        return normal([*found, *line.read_until()])

    with direct(upstream) as line:
        ought = flushed(line)
    for _ in range(2):
        with stand.raw() as line:
            assert flushed(line) == ought


# Sharing.


def prepared_on_servers(stand: Stand) -> list[tuple[int, list[str]]]:
    """Of both servers: process id, texts of what is prepared there, in order."""
    found = {}
    with stand.raw() as one, stand.raw() as two:
        for line in (one, two):
            line.ask("begin")
            answer = line.ask("select pg_backend_pid(), statement from pg_prepared_statements order by prepare_time")
            pid = line.value("select pg_backend_pid()")
            found[int(pid or 0)] = [text or "" for _, text in rows(answer)]
        for line in (one, two):
            line.ask("commit")
    return sorted(found.items())


def test_many_clients_share_one_statement_per_server(stand):
    lines = [stand.raw() for _ in range(20)]
    for number, line in enumerate(lines):
        line.send(parse("select $1::text as shared", f"mine{number}") + SYNC)
        line.read_until()
    for _ in range(3):
        for number, line in enumerate(lines):
            line.send(run(f"mine{number}", f"word{number}") + SYNC)
            assert rows(line.read_until()) == [(f"word{number}",)]
    assert [texts for _, texts in prepared_on_servers(stand)] == [["select $1::text as shared"]] * 2
    for line in lines:
        line.leave()


def test_the_one_not_used_for_longest_goes_when_there_is_no_room(upstream):
    with Stand(upstream, {**TURNS, "default_pool_size": 1, "max_prepared_statements": 2}) as stand:  # noqa: SIM117
        with stand.raw() as line:
            for number in range(5):
                line.send(parse(f"select {number}", f"s{number}") + SYNC)
                line.read_until()
            for number in (3, 0, 1, 4, 2, 2):
                line.send(run(f"s{number}") + SYNC)
                assert rows(line.read_until()) == [(str(number),)]
            assert line.value("select string_agg(statement, ';' order by statement) from pg_prepared_statements") == (
                "select 2;select 4"
            )


def test_a_storm_of_names_on_servers_that_keep_two(upstream):
    """Statements are pushed out all the time; everybody gets its own answers, and no error."""
    failures: list[str] = []

    def use(stand: Stand, who: int) -> None:
        try:
            with stand.raw() as line:
                for number in range(8):
                    line.send(parse(f"select $1::text || '-{number % 5}'", f"n{number}") + SYNC)
                    line.read_until()
                for turn in range(120):
                    number = (turn * 7 + who) % 8
                    line.send(run(f"n{number}", f"w{who}") + SYNC)
                    answer = line.read_until()
                    assert rows(answer) == [(f"w{who}-{number % 5}",)], (error(answer), rows(answer))
        except Exception as failure:
            failures.append(repr(failure))

    with Stand(upstream, {**TURNS, "max_prepared_statements": 2}) as stand:
        threads = [threading.Thread(target=use, args=(stand, who)) for who in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


# Stale statements.


@pytest.fixture(name="table")
def _table(upstream: Upstream) -> Iterator[psycopg.Connection[Any]]:
    """A table, in the hands of somebody past the proxy."""
    with upstream.connect("app") as owner:
        owner.execute(
            "drop table if exists depot; create table depot (a int, b text); insert into depot values (1, 'x')"
        )
        yield owner
        owner.execute("drop table if exists depot")


ALL = "select * from depot"
ALTER = "alter table depot add column c int default 7"


def test_who_parses_anew_after_ddl_gets_what_the_table_is_now(stand, table):
    with stand.raw() as old, stand.raw() as new:
        for _ in range(2):
            old.send(close("a") + parse(ALL, "a") + describe("S", "a") + run("a") + SYNC)
            old.read_until()
        old.ask(ALTER)
        for _ in range(2):
            new.send(close("a") + parse(ALL, "a") + describe("S", "a") + run("a") + SYNC)
            answer = new.read_until()
            assert kinds(answer) == "31tT2DCZ"
            assert rows(answer) == [("1", "x", "7")]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_ddl_in_a_transaction_counts_for_others_when_that_is_over(stand, table, end):
    with stand.raw() as old, stand.raw() as new:
        old.send(parse(ALL, "a") + SYNC)
        old.read_until()
        for text in ("begin", ALTER):
            old.ask(text)
        old.send(parse(ALL, "b") + describe("S", "b") + run("b") + SYNC)
        assert rows(old.read_until()) == [("1", "x", "7")]
        old.ask(end)
        for _ in range(2):
            new.send(close("a") + parse(ALL, "a") + describe("S", "a") + run("a") + SYNC)
            answer = new.read_until()
            assert not error(answer)
            assert rows(answer) == [("1", "x", "7") if end == "commit" else ("1", "x")]


def test_after_ddl_elsewhere_who_describes_the_statement_anew_gets_the_new_columns(stand, table):
    with stand.raw() as line:
        line.send(parse(ALL, "a") + describe("S", "a") + SYNC)
        line.read_until()
        for _ in range(2):
            line.send(run("a") + SYNC)
            line.read_until()
        table.execute(ALTER)
        line.send(run("a") + SYNC)
        assert sqlstate(line.read_until()) == "0A000"
        line.send(describe("S", "a") + SYNC)
        line.read_until()
        for _ in range(4):
            line.send(bind(statement="a") + describe() + execute() + SYNC)
            answer = line.read_until()
            assert kinds(answer) == "2TDCZ"
            assert rows(answer) == [("1", "x", "7")]


@pytest.mark.parametrize("new", ["real", "bigint", "numeric", "text"])
def test_values_keep_their_type_when_the_column_has_another_by_now(upstream, stand, table, new):
    """Drivers that leave types to PostgreSQL send values in the type it has named, in binary."""
    seven = pack("!HHHIIH", 1, 1, 1, 4, 7, 0)  # one value, in binary, of an int

    def use(line: Raw) -> list[Any]:
        line.ask("drop table if exists scale; create table scale (a int)")
        line.send(parse("insert into scale values ($1)", "s") + describe("S", "s") + SYNC)
        told = [normal(line.read_until())]
        for turn in range(6):
            if turn == 2:
                table.execute(f"alter table scale alter a type {new}")
            line.send(message("B", b"\0s\0" + seven) + describe() + execute() + SYNC)
            told.append(normal(line.read_until()))
        return [*told, rows(line.ask("select a::text from scale"))]

    with direct(upstream) as line:
        ought = use(line)
    with stand.raw() as line:
        assert use(line) == ought
    table.execute("drop table scale")


@pytest.mark.parametrize("is_described", [False, True])
def test_nobody_gets_other_columns_than_those_the_statement_had(stand, table, is_described):
    with stand.raw() as line:
        line.send(parse(ALL, "a") + describe("S", "a") + SYNC)
        line.read_until()
        for _ in range(2):
            line.send(run("a") + SYNC)
            assert rows(line.read_until()) == [("1", "x")]
        table.execute(ALTER)
        for _ in range(4):
            line.send(bind(statement="a") + (describe() if is_described else b"") + execute() + SYNC)
            answer = line.read_until()
            assert not rows(answer)
            assert (sqlstate(answer), error(answer)["M"]) == ("0A000", "cached plan must not change result type")
        line.send(close("a") + parse(ALL, "a") + describe("S", "a") + SYNC)
        line.read_until()
        for _ in range(4):
            line.send(run("a") + SYNC)
            assert rows(line.read_until()) == [("1", "x", "7")]


@pytest.mark.parametrize(
    "text",
    [
        "alter table depot add column c int; alter table depot drop column c",
        "drop table depot; create table depot (a int, b text); insert into depot values (1, 'x')",
        "create index on depot (a)",
    ],
)
def test_ddl_elsewhere_that_leaves_the_columns_as_they_were_is_not_noticed(stand, table, text):
    with stand.raw() as line:
        line.send(parse(ALL, "a") + SYNC)
        line.read_until()
        for _ in range(2):
            line.send(run("a") + SYNC)
            line.read_until()
        table.execute(text)
        for _ in range(4):
            line.send(run("a") + SYNC)
            assert rows(line.read_until()) == [("1", "x")]


def test_in_a_transaction_the_error_is_the_honest_one(upstream, table):
    def stale(line: Raw) -> list[Any]:
        table.execute("drop table depot; create table depot (a int)")
        line.send(parse(ALL, "a") + run("a") + SYNC)
        line.read_until()
        line.ask("begin")
        table.execute(ALTER)
        line.send(bind(statement="a") + describe() + execute() + SYNC)
        found = normal(line.read_until())
        line.ask("rollback")
        return found

    with direct(upstream) as line:
        ought = stale(line)
    with Stand(upstream, {**TURNS, "default_pool_size": 1}) as stand, stand.raw() as line:
        assert stale(line) == ought


def test_what_changes_the_table_itself_is_not_run_twice(stand, table):
    text = "insert into depot select * from depot returning *"
    with stand.raw() as line:
        line.send(parse(text, "a") + SYNC)
        line.read_until()
        for _ in range(2):
            line.send(run("a") + SYNC)
            line.read_until()
        before = table.execute("select count(*) from depot").fetchone()
        table.execute(ALTER)
        line.send(bind(statement="a") + describe() + execute() + SYNC)
        assert sqlstate(line.read_until()) == "0A000", "as in PostgreSQL"
        after = table.execute("select count(*) from depot").fetchone()
        assert after == before


def test_asyncpg_is_never_handed_columns_it_does_not_expect(stand, table):
    async def use() -> list[Any]:
        options = {"host": "127.0.0.1", "port": stand.port, "user": "app", "database": "postgres", "password": PASSWORD}
        connection = await asyncpg.connect(**options)
        found = []
        try:
            for turn in range(6):
                if turn == 2:
                    table.execute(ALTER)
                if turn == 4:
                    table.execute("alter table depot drop column b")
                found.append([dict(row) for row in await connection.fetch(ALL)])
        finally:
            await connection.close()
        return found

    old, new, last = [{"a": 1, "b": "x"}], [{"a": 1, "b": "x", "c": 7}], [{"a": 1, "c": 7}]
    assert asyncio.run(use()) == [old, old, new, new, last, last]


def test_psycopg_notices_ddl_as_it_does_without_us(upstream, stand, table):
    def use(connection: psycopg.Connection[Any]) -> list[Any]:
        found: list[Any] = []
        with connection:
            connection.autocommit = True
            for turn in range(6):
                if turn == 3:
                    table.execute(ALTER)
                try:
                    found.append(connection.execute(ALL).fetchall())
                except psycopg.Error as failure:
                    found.append(failure.sqlstate)
        table.execute("alter table depot drop column c")
        return found

    ought = use(upstream.connect("app", prepare_threshold=0))
    assert "0A000" in ought
    assert use(stand.connect(prepare_threshold=0)) == ought


# Pipelines.


def test_a_pipeline_of_libpq_with_errors_in_it(upstream, stand):
    def pipelined(connection: psycopg.Connection[Any]) -> list[object]:
        told: list[object] = []
        with connection:
            connection.autocommit = True
            for _ in range(3):
                try:
                    with connection.pipeline() as pipeline:
                        good = [connection.execute("select %s::int", (number,)) for number in range(5)]
                        pipeline.sync()
                        bad = connection.execute("select 1/%s::int", (0,))
                        connection.execute("select %s::int", (9,))
                        pipeline.sync()
                        connection.execute("select %s::int", (9,))
                        told += [cursor.fetchall() for cursor in good]
                        told.append(bad.fetchall())
                except psycopg.Error as failure:
                    told.append((failure.sqlstate, str(failure)))
        return told

    options = {"prepare_threshold": 0}
    ought = pipelined(upstream.connect("app", **options))
    assert pipelined(stand.connect(**options)) == ought


# The unnamed statement, and who else has one.


def test_the_unnamed_statement_is_never_somebody_elses(stand):
    lines = [stand.raw() for _ in range(10)]
    for number, line in enumerate(lines):
        line.send(parse(f"select {number}") + describe("S") + SYNC)
        line.read_until()
    for _ in range(3):
        for number, line in enumerate(lines):
            line.send(bind() + execute() + SYNC)
            assert rows(line.read_until()) == [(str(number),)]
    lines[0].send(close("") + SYNC)
    lines[0].read_until()
    lines[0].send(bind() + execute() + SYNC)
    assert sqlstate(lines[0].read_until()) == "26000"
    for line in lines:
        line.leave()


def test_it_outlives_the_simple_queries_of_others(stand):
    with stand.raw() as mine, stand.raw() as other:
        mine.send(parse("select 'mine'") + SYNC)
        mine.read_until()
        for _ in range(4):
            other.ask("select 1")
            mine.send(bind() + execute() + SYNC)
            assert rows(mine.read_until()) == [("mine",)]


def test_asyncpg_without_a_cache_binds_in_another_transaction_than_it_parses(stand):
    async def use() -> None:
        options = {"host": "127.0.0.1", "port": stand.port, "user": "app", "database": "postgres", "password": PASSWORD}
        connections = [await asyncpg.connect(statement_cache_size=0, **options) for _ in range(6)]

        async def work(number: int) -> None:
            for turn in range(30):
                assert await connections[number].fetchval("select $1::text", f"{number}.{turn}") == f"{number}.{turn}"
                if turn % 5 == 0:
                    await connections[number].execute("select 1")

        await asyncio.gather(*map(work, range(6)))
        for connection in connections:
            await connection.close()

    asyncio.run(use())


@pytest.mark.parametrize("name", ["", "a"])
def test_a_very_long_statement_runs_and_runs_again(stand, name):
    text = "select length('" + "x" * 3_000_000 + "') + $1::int"
    with stand.raw() as line:
        for _ in range(2):
            line.send(parse(text, name) + bind(1, statement=name) + describe() + execute() + close(name) + SYNC)
            answer = line.read_until()
            assert rows(answer) == [("3000001",)], error(answer)


def test_a_row_longer_than_anything_is_passed_on_by_an_execute_in_sql(stand):
    with stand.raw(seconds=60) as line:
        line.ask("prepare big as select repeat('x', 40000000)")
        (row,) = rows(line.ask("execute big"))
        assert len(row[0] or "") == 40_000_000


# A BEGIN that holds no server.


def test_twenty_clients_may_begin_over_two_servers(stand, admin):
    lines = [stand.raw(seconds=10) for _ in range(20)]
    for line in lines:
        assert kinds(line.ask("begin")) == "CZ"
    held = admin.execute("select count(*) from pg_stat_activity where state like 'idle in transaction%'").fetchone()
    assert held == (0,)
    for number, line in enumerate(lines):
        assert line.value(f"select {number}") == str(number)
        assert kinds(line.ask("commit" if number % 2 else "rollback")) == "CZ"
        line.leave()


@pytest.mark.parametrize("begin", ["begin", "START TRANSACTION ISOLATION LEVEL SERIALIZABLE", "begin read only"])
@pytest.mark.parametrize("end", ["commit", "ROLLBACK", "end", "abort", "/* nothing */ commit"])
def test_the_end_of_nothing_is_answered_as_postgresql_would(upstream, stand, begin, end):
    units = [query(begin), query(end), query(begin), query("show transaction_isolation"), query(end), query("select 1")]
    check_answers(upstream, stand, units)


def test_a_begin_goes_in_front_of_a_batch(upstream, stand):
    units = [
        ONE + SYNC, query("begin"), run("a", 1) + SYNC, run("nobody") + SYNC, run("a", 1) + SYNC, query("commit"),
        query("begin"), parse("select 7") + bind() + describe() + execute() + SYNC, query("begin"), query("rollback"),
    ]  # fmt: skip
    check_answers(upstream, stand, units)


@pytest.mark.parametrize("begin", ["begin", "BEGIN;", "start transaction", "begin read only"])
@pytest.mark.parametrize(
    "text",
    ["select 1/0", "nonsense", "set transaction isolation level serializable", "savepoint a", "begin",
     "commit; select 2", "copy (select 1) to stdout", "show transaction_read_only", "", "vacuum",
     "create database never", "select 1; select 2"],
)  # fmt: skip
def test_what_runs_behind_a_begin_is_answered_as_if_it_had_come_before(upstream, stand, begin, text):
    units = [query(begin), query(text), query("select txid_status(1) is null"), query("rollback")] * 2
    units += [query(begin), parse(text) + bind() + describe() + execute() + SYNC, query("select 3"), query("rollback")]
    check_answers(upstream, stand, units)


def test_nobody_comes_upon_the_statement_or_the_portal_of_our_begin(upstream, stand):
    batches = [
        describe("S"), describe(), execute(), bind() + execute(), b"",
        describe() + parse("select 7") + bind() + execute(),
        parse("select name, statement from pg_cursors") + bind(portal="pp") + execute("pp"),
    ]  # fmt: skip
    units = [unit for batch in batches for unit in (query("begin"), batch + SYNC, query("commit"))]
    check_answers(upstream, stand, units)


def test_who_has_begun_and_waits_can_cancel(stand):
    with stand.raw() as one, stand.raw() as two, stand.raw() as waiting:
        for line in (one, two):
            line.ask("begin")
            line.ask("select 1")
        waiting.ask("begin")
        waiting.send(query("select 2"))
        with stand.connect("postgres", "pgshuttle") as console:
            wait_until(lambda: "waiting" in str(console.execute("show clients").fetchall()), "it waits")
        with stand.call() as canceller:
            canceller.send(b"\0\0\0\x10\x04\xd2\x16\x2e" + waiting.key)
            with pytest.raises(Exception):  # noqa: B017, PT011 - it hangs up, however it likes
                canceller.read()
        answer = waiting.read_until()
        assert (sqlstate(answer), answer[-1].body) == ("57014", b"E")
        for line in (one, two):
            line.ask("commit")
        assert sqlstate(waiting.ask("select 3")) == "25P02"
        assert kinds(waiting.ask("rollback")) == "CZ"
        assert waiting.value("select 4") == "4"


# No statements shared.


def test_where_none_are_shared_a_client_keeps_its_server(upstream):
    with Stand(upstream, {**TURNS, "max_prepared_statements": 0}) as stand:
        warm(stand)
        with stand.raw() as one, stand.raw() as two:
            for number, line in enumerate((one, two)):
                line.send(parse(f"select {number}, pg_backend_pid()", "a") + SYNC)
                line.read_until()
            pids = set()
            for _ in range(3):
                for number, line in enumerate((one, two)):
                    line.send(run("a") + SYNC)
                    ((value, pid),) = rows(line.read_until())
                    assert value == str(number)
                    pids.add((number, pid))
            assert len(pids) == 2
            one.send(close("a") + parse("select 'again'", "a") + run("a") + SYNC)
            assert rows(one.read_until()) == [("again",)]


# Databases.


def test_our_idle_servers_are_not_in_the_way_of_create_and_drop_database(stand, admin):
    admin.execute("alter role app createdb")
    try:
        with stand.raw() as line:
            assert not error(line.ask("create database shelf"))
            with stand.raw(database="shelf") as other:
                assert other.value("select current_database()") == "shelf"
            with pytest.raises(psycopg.OperationalError, match='database "copied" does not exist'):
                stand.connect(dbname="copied")
            assert not error(line.ask("create database copied template shelf"))
            with stand.raw(database="copied") as other:
                assert other.value("select 1") == "1"
            line.send(parse("drop database copied") + bind() + execute() + SYNC)
            assert not error(line.read_until())
            assert not error(line.ask("drop database shelf"))
    finally:
        admin.execute("alter role app nocreatedb")
