"""Lines whose clients differ: each unit runs under its own client's parameters, schema and statements."""

import random

import pytest

from tests.live.stand import Stand
from tests.live.together import ask_together, earn_trust
from tests.live.wire import SYNC, bind, execute, parse, query, rows, sqlstate

pytestmark = pytest.mark.live

ZONES = {"Asia/Tokyo": "+09:00", "America/Lima": "-05:00", "Asia/Kolkata": "+05:30", "UTC": "+00:00"}
HOUR = "select to_char('2020-01-01 00:00+00'::timestamptz, 'TZH:TZM'), {}"
CROWD = 12


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    with upstream.connect() as admin:
        admin.execute(
            "drop table if exists line_secret, line_twice; create table line_secret as select 'hidden' as word"
        )
        admin.execute("create table line_twice as select 'for all' as word; grant all on line_twice to public")
        admin.execute("drop schema if exists line_own cascade; create schema line_own authorization app")
        admin.execute(
            "create table line_own.line_twice as select 'his own' as word; grant all on line_own.line_twice to app"
        )
        admin.execute("grant select on line_secret to app; grant other to app")
        admin.execute(
            "drop sequence if exists line_count cascade; create sequence line_count; grant all on line_count to app"
        )
        admin.execute("create view line_next as select nextval('line_count') as n; grant select on line_next to app")
    databases = {"lines": "dbname=postgres pool_size=3 pipeline_depth=16 pipeline_servers=1"}
    with Stand(upstream, databases=databases) as stand:
        yield stand


def test_each_has_its_own_time_zone_also_beside_statements_that_must_be_brought(stand):
    zones = [*ZONES] * (CROWD // 4)
    clients = [stand.raw(database="lines", TimeZone=zone) for zone in zones]
    earn_trust(stand, clients, HOUR.format(0), "select 0")
    for number in range(40):
        text = HOUR.format(number)
        named = [random.random() < 0.5 for _ in clients]
        for client, is_named in zip(clients, named, strict=True):
            if is_named:
                client.send(parse(text, f"s{number}") + SYNC)
                client.read_until()
        round_ = bind(statement=f"s{number}") + execute() + SYNC
        answers = ask_together(stand, clients, [round_ if is_named else query(text) for is_named in named])
        assert [rows(answer) for answer in answers] == [[(ZONES[zone], str(number))] for zone in zones]
    for client in clients:
        client.leave()


def read_rounds(stand, clients, text, count=30):
    """The first value of each answer, or its SQLSTATE, by client."""
    seen = [set() for _ in clients]
    for _ in range(count):
        for client_seen, answer in zip(seen, ask_together(stand, clients, [query(text)] * len(clients)), strict=True):
            client_seen.add(sqlstate(answer) or rows(answer)[0][0])
    return seen


@pytest.fixture(name="clients")
def _clients(stand):
    clients = [stand.raw(database="lines") for _ in range(6)]
    yield clients
    for client in clients:
        client.leave()


def test_a_role_is_its_clients_own(stand, clients):
    for client in clients[:2]:
        client.ask("set role other")
    earn_trust(stand, clients[2:], "select word from line_secret")
    assert read_rounds(stand, clients, "select word from line_secret") == [{"42501"}] * 2 + [{"hidden"}] * 4


def test_a_temporary_table_is_its_clients_own(stand, clients):
    clients[0].ask("create temporary table line_twice as select 'temporary' as word")
    earn_trust(stand, clients, "select word from line_twice")
    assert read_rounds(stand, clients, "select word from line_twice") == [{"temporary"}] + [{"for all"}] * 5


def test_a_schema_is_its_clients_own(stand, clients):
    for client in clients[:3]:
        client.ask("set search_path to line_own, public")
    earn_trust(stand, clients, "select word from line_twice")
    assert read_rounds(stand, clients, "select word from line_twice") == [{"his own"}] * 3 + [{"for all"}] * 3


def test_a_snapshot_is_its_transactions_own(stand, clients, admin):
    earn_trust(stand, clients, "select count(*) from line_twice")
    clients[0].ask("begin isolation level repeatable read; select 1")
    assert clients[0].value("select count(*) from line_twice") == "1"
    admin.execute("insert into line_twice values ('another')")
    assert read_rounds(stand, clients, "select count(*) from line_twice", 10) == [{"1"}] + [{"2"}] * 5
    clients[0].ask("commit")
    admin.execute("delete from line_twice where word = 'another'")


def test_each_read_is_run_once(stand, clients):
    """Nobody can see that this view counts; and while nothing goes wrong it counts right."""
    seen = read_rounds(stand, clients, "select n from line_next", 50)
    assert set.union(*seen) == {str(n) for n in range(1, 301)}
