"""
Two clients on one server, side by side with two connections of their own: the same script, the same answers.

Theory. Whatever one does to its session must not be the other's, and must still be its own. So a script is a list of
(who, what) that is said in turn, first past the proxy, each on a connection of its own, then through a proxy with one
server, and every answer must be the same. A text is a simple query; `named` is a statement with a name, parsed and run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from struct import pack
from typing import Any

import pytest

from tests.live.stand import Stand
from tests.live.upstream import PASSWORD, Upstream
from tests.live.wire import SYNC, Message, Raw, bind, describe, execute, fields, message, parse, query, rows

pytestmark = pytest.mark.live

Step = tuple[str, str | bytes | tuple[bytes, int]]

SCHEMAS = """
drop schema if exists spare cascade; drop schema if exists evil cascade; drop table if exists ev, t;
create schema spare; create schema evil; grant all on schema spare, evil to public;
create table ev (at timestamptz); insert into ev values ('2020-01-01 00:00+00');
create table t (a int); insert into t values (1);
create table spare.t (a text, b text); insert into spare.t values ('s', 'p');
grant all on ev, t, spare.t to public;
"""
ONE_SERVER = {"default_pool_size": 1, "query_wait_timeout": 5, "log_connections": 0, "log_disconnections": 0}


def named(name: str, text: str) -> bytes:
    return parse(text, name) + bind(statement=name) + describe() + execute() + SYNC


def again(name: str, *values: object) -> bytes:
    return bind(*values, statement=name) + describe() + execute() + SYNC


def together(*texts: str) -> tuple[bytes, int]:
    """Several queries in one write; how many answers there will be."""
    return b"".join(map(query, texts)), len(texts)


def tell(each: Message) -> object:
    """What must be the same: not where an error stands in PostgreSQL's source, nor which table a column is of."""
    if each.kind == "E":
        said = fields(each.body)
        return "E", said.get("S"), said.get("C"), said.get("M")
    if each.kind == "D":
        return "D", rows([each])[0]
    return each.kind if each.kind in "Ttn" else (each.kind, each.body)


def say(line: Raw, what: str | bytes | tuple[bytes, int]) -> list[Any]:
    data, count = what if isinstance(what, tuple) else (query(what) if isinstance(what, str) else what, 1)
    line.send(data)
    told = [each for _ in range(count) for each in line.read_until()]
    return [tell(each) for each in told if each.kind not in "SAN"]


def play(script: list[Step], lines: dict[str, Raw]) -> list[tuple[str, object, list[object]]]:
    return [(who, what, say(lines[who], what)) for who, what in script]


@contextmanager
def lines_of(script: list[Step], port: int, parameters: dict[str, dict[str, str]]) -> Iterator[dict[str, Raw]]:
    lines = {who: Raw(port) for who in sorted({who for who, _ in script})}
    try:
        for who, line in lines.items():
            line.login("app", "postgres", PASSWORD, **parameters.get(who, {}))
        yield lines
    finally:
        for line in lines.values():
            line.close()


def check(upstream: Upstream, settings: dict[str, Any], script: list[Step], **parameters: dict[str, str]) -> None:
    found = []
    with Stand(upstream, {**ONE_SERVER, **settings}) as stand:
        for port in (upstream.port, stand.port):
            with upstream.connect() as owner:
                owner.execute(SCHEMAS)
            with lines_of(script, port, parameters) as lines:
                found.append(play(script, lines))
    ought, told = found
    for right, heard in zip(ought, told, strict=True):
        assert heard == right


# One text, and what its literals are.

LITERALS = {
    "TimeZone": ("'Asia/Tokyo'", "select count(*) from ev where at >= '2020-01-01 05:00'"),
    "DateStyle": ("'ISO, DMY'", "select '03/04/2021'::date"),
    "a date that is none": ("", "select '25/12/2020'::date"),
    "IntervalStyle": ("sql_standard", "select '-1 2:03:04'::interval"),
    "standard_conforming_strings": ("off", r"select 'a\\b'"),
    "array_nulls": ("off", "select '{null}'::text[]"),
    "transform_null_equals": ("on", "select count(*) from t where null = null"),
    "client_encoding": ("latin1", "select length('é')"),
    "xmloption": ("document", "select 1"),
}


@pytest.mark.parametrize("name", LITERALS)
@pytest.mark.parametrize("depth", [1, 16])
def test_the_same_text_means_something_else_to_somebody_with_other_parameters(upstream, name, depth):
    value, text = LITERALS[name]
    setting = f"set {name} = {value}" if value else "set datestyle = 'ISO, DMY'"
    script: list[Step] = [
        ("a", setting), ("a", named("s", text)), ("b", named("s", text)), ("a", again("s")), ("b", again("s")),
        ("c", named("z", text)), ("a", named("s2", text)), ("b", again("s")),
    ]  # fmt: skip
    check(upstream, {"pipeline_depth": depth}, script)


def test_and_so_it_does_if_they_came_with_them(upstream):
    text = LITERALS["TimeZone"][1]
    script: list[Step] = [("a", named("s", text)), ("b", named("s", text)), ("a", again("s")), ("b", again("s"))]
    check(upstream, {}, script, a={"TimeZone": "Asia/Tokyo"}, b={"TimeZone": "UTC"})


@pytest.mark.parametrize("servers", [1, 2])
def test_who_changes_them_between_leaves_no_other_meaning_to_others(upstream, servers):
    """What is made anew for it on a server that lacks it is good for itself alone."""
    text = LITERALS["TimeZone"][1]
    settings = {"default_pool_size": servers, "server_round_robin": 1, "max_prepared_statements": 1}
    script: list[Step] = [
        ("a", "set timezone = 'Asia/Tokyo'"), ("a", named("s", text)), ("b", named("x", "select 1")),
        ("b", named("y", "select 2")), ("a", "set timezone = 'UTC'"), ("a", "select 1"), ("b", "select 1"),
        ("b", "set timezone = 'Asia/Tokyo'"), ("b", named("s", text)), ("b", again("s")), ("c", named("s", text)),
        ("b", again("s")), ("c", again("s")),
    ]  # fmt: skip
    check(upstream, settings, script)


def test_a_literal_that_means_the_moment_is_read_anew_for_everybody(upstream):
    with Stand(upstream, ONE_SERVER) as stand, stand.raw() as one, stand.raw() as other:
        text = "select 'now'::timestamptz"
        first, second = (say(each, named("s", text)) for each in (one, other))
        assert rows_of(first) != rows_of(second)
        assert rows_of(say(one, again("s"))) == rows_of(first), "but not for who has it"


def rows_of(told: list[Any]) -> list[Any]:
    return [each for each in told if each[0] == "D"]


# What one does to its session by ways that are easily overlooked.

QUOTED = r"select 'x\'', set_config('search_path', 'evil', false) --'"
OVERLOOKED: dict[str, list[Step]] = {
    "a parameter set by a statement that is run by its name": [
        ("a", parse("set search_path = evil", "n") + SYNC), ("a", "execute n"), ("b", "show search_path"),
        ("a", "show search_path"),
    ],
    "the same, explained": [
        ("a", "prepare p as select set_config('work_mem', '5MB', false)"), ("a", "select 1"),
        ("a", "explain (analyze, costs off, timing off, summary off) execute p"), ("b", "show work_mem"),
        ("a", "show work_mem"),
    ],
    "statements that are dropped by one": [
        ("b", named("s", "select 5")),
        ("a", parse("deallocate all", "n") + SYNC),
        ("a", "execute n"),
        ("b", again("s")),
    ],
    "statements that are dropped by a block": [
        ("b", named("s", "select 5")),
        ("a", "do $$ begin execute 'deallocate all'; end $$"),
        ("b", again("s")),
    ],
    "a parameter that only the arguments name": [
        ("a", "prepare p(text, text) as select set_config($1, $2, false)"),
        ("a", "execute p('my.cust', 'x')"),
        ("b", "select coalesce(current_setting('my.cust', true), '')"),
        ("a", "select current_setting('my.cust', true)"),
    ],
    "a lock": [
        ("a", "prepare lk(bigint) as select pg_try_advisory_lock($1)"), ("a", "execute lk(99)"),
        ("a", "select pg_advisory_unlock(99)"), ("b", "select pg_try_advisory_lock(99)"),
        ("b", "select pg_advisory_unlock_all()"),
    ],
    "a temporary table": [
        ("a", parse("create temp table foo as select 42 as secret", "n") + SYNC), ("a", "execute n"),
        ("a", "select * from foo"), ("a", "drop table foo"), ("b", "select * from foo"),
    ],
    "one that search_path makes temporary": [
        ("a", "begin"), ("a", "set local search_path = pg_temp, public"),
        ("a", "create table foo as select 42 as secret"),
        ("a", "commit"), ("a", "select * from foo"), ("a", "drop table foo"), ("b", "select * from foo"),
    ],
    "pg_settings": [
        ("a", "update pg_settings set setting = 'evil, public' where name = 'search_path'"), ("b", "show search_path"),
        ("a", "show search_path"),
    ],
    "pg_settings in a query": [
        ("a", "with u as (select 1) update pg_settings set setting = '5MB' where name = 'work_mem'"),
        ("b", "show work_mem"), ("a", "show work_mem"),
    ],
    "a cursor that says what it is more than once": [
        ("a", "declare c no scroll no scroll no scroll cursor with hold for select 'secret'"), ("a", "fetch c"),
        ("a", "close c"),
        ("b", "fetch c"),
    ],
    "a quote that is none where backslashes count": [

        ("a", together("set standard_conforming_strings = off", QUOTED)),
        ("b", "show search_path"), ("a", "show search_path"),
    ],
    "a letter that ends in a backslash": [
        ("a", "set client_encoding = sjis"),
        ("a", message("Q", b"select length(E'\x95\x5c'), set_config('search_path', 'evil', false) --'\0")),
        ("b", "show search_path"), ("a", "show search_path"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("what", OVERLOOKED)
@pytest.mark.parametrize("depth", [1, 16])
def test_it_is_its_own_and_nobody_elses(upstream, what, depth):
    check(upstream, {"pipeline_depth": depth}, OVERLOOKED[what])


@pytest.mark.parametrize(("name", "value"), [("work_mem", "9MB"), ("my.cust", "x")])
def test_so_is_what_a_function_does_that_is_called_by_its_number(upstream, name, value):
    with upstream.connect() as owner:
        number = int(owner.execute("select 'set_config'::regproc::oid").fetchone()[0])
    arguments = [name.encode(), value.encode(), b"f"]
    body = pack("!IHH", number, 0, 3) + b"".join(pack("!I", len(each)) + each for each in arguments) + pack("!H", 0)
    look = f"select coalesce(current_setting('{name}', true), '')"
    check(upstream, {}, [("a", message("F", body)), ("b", look), ("a", look)])


# A statement that is parsed where names mean something else for a while.

BY_A = "select * from t where a = $1"
PASSING: dict[str, list[Step]] = {
    "set local": [
        ("a", "begin"), ("a", "set local search_path = spare"), ("a", parse(BY_A, "s") + SYNC), ("a", "commit"),
    ],
    "set_config": [
        ("a", "begin"), ("a", "select set_config('search_path', 'spare', true)"), ("a", parse(BY_A, "s") + SYNC),
        ("a", "commit"),
    ],
    "set, and rolled back": [
        ("a", "begin"), ("a", "set search_path = spare"), ("a", parse(BY_A, "s") + SYNC), ("a", "rollback"),
    ],
    "in one breath": [
        ("a", (query("set search_path = spare") + parse(BY_A, "s") + SYNC, 2)), ("a", "reset search_path"),
    ],
    "a savepoint": [
        ("a", "begin"), ("a", "savepoint x"), ("a", "set local search_path = spare"), ("a", "rollback to x"),
        ("a", parse(BY_A, "q") + SYNC), ("a", "set local search_path = spare"), ("a", parse(BY_A, "s") + SYNC),
        ("a", "commit"),
    ],
    "a temporary table of its transaction": [
        ("a", "begin"), ("a", "create temp table t (a text, b text) on commit drop"),
        ("a", parse(BY_A, "s") + SYNC), ("a", "commit"),
    ],
    "a temporary table": [
        ("a", "create temp table t (a text, b text)"), ("a", parse(BY_A, "s") + SYNC), ("a", "discard temp"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("what", PASSING)
def test_a_statement_parsed_there_is_not_that_of_others(upstream, what):
    run = bind(1, statement="s") + execute() + SYNC
    script: list[Step] = [
        *PASSING[what], ("b", parse(BY_A, "s") + SYNC), ("b", run), ("b", run),
        ("c", parse(BY_A, "s") + SYNC), ("c", run),
    ]  # fmt: skip
    check(upstream, {}, script)


def test_tenants_that_say_the_same_share_a_statement(upstream):
    """A schema each, said in each transaction: what one has parsed there the other need not."""
    with Stand(upstream, ONE_SERVER) as stand, stand.raw() as one, stand.raw() as other, stand.raw() as third:
        with upstream.connect() as owner:
            owner.execute(SCHEMAS)
        for line, path in ((one, "spare"), (other, "spare"), (third, "public")):
            for text in ("begin", f"set local search_path = {path}"):
                line.ask(text)
            say(line, named("s", "select * from t"))
            line.ask("commit")
        found = one.ask("select count(*) from pg_prepared_statements where statement = 'select * from t'")
        assert rows(found) == [("2",)]


@pytest.mark.parametrize("last", [SYNC, parse("select 2") + bind() + execute() + SYNC])
def test_a_transaction_that_a_query_in_a_pipeline_leaves_open_is_nobody_elses(upstream, last):
    """PostgreSQL says that it is over, and fails whatever is asked next on that connection."""
    pipeline = parse("insert into t values (7)") + bind() + execute() + query("insert into t values (8)")
    script: list[Step] = [
        ("a", (pipeline + last, 2)),
        ("b", "select 1"),
        ("b", "begin"),
        ("b", "select 2"),
        ("b", "commit"),
    ]
    check(upstream, {}, script)


# Statements that cannot be made any more where they are missing.

UNMADE = (
    ("a", "create table gone (a int)"), ("a", "prepare g as select * from gone"), ("a", named("h", "table gone")),
    ("a", "drop table gone"), ("b", named("x", "select 1")), ("b", named("y", "select 2")),
)  # fmt: skip
FREED: dict[str, list[Step]] = {
    "by name": [("a", "deallocate g"), ("a", "deallocate h"), ("a", "execute g"), ("a", "prepare g as select 5")],
    "by a statement": [("a", named("d", "deallocate g")), ("a", parse("deallocate h") + bind() + execute() + SYNC)],
    "in a transaction": [("a", "begin"), ("a", "deallocate h"), ("a", "deallocate g"), ("a", "commit")],
    "not, since it fails": [("a", "select 1/0; deallocate h"), ("a", "execute h"), ("a", again("h"))],
    "not, since they are given again": [("a", "prepare g as select 1"), ("a", named("h", "select 1"))],
}


@pytest.mark.parametrize("how", FREED)
def test_a_statement_that_cannot_be_made_any_more_can_be_dropped(upstream, how):
    check(upstream, {"max_prepared_statements": 1}, [*UNMADE, *FREED[how], ("b", again("x"))])


def test_who_goes_back_behind_an_unlisten_still_listens(upstream):
    with Stand(upstream, ONE_SERVER) as stand, stand.raw() as one, stand.raw() as other:
        for text in ("listen zz", "begin", "savepoint x", "unlisten zz", "rollback to x", "commit"):
            one.ask(text)
        other.ask("notify zz, 'heard'")
        assert b"heard" in one.read_until("A")[-1].body
