"""Lines whose clients differ: each unit runs under its own client's parameters, schema and statements."""

import random

import pytest

from tests.live.stand import Stand
from tests.live.together import ask_together, earn_trust
from tests.live.wire import SYNC, bind, execute, parse, query, rows

pytestmark = pytest.mark.live

ZONES = {"Asia/Tokyo": "+09:00", "America/Lima": "-05:00", "Asia/Kolkata": "+05:30", "UTC": "+00:00"}
HOUR = "select to_char('2020-01-01 00:00+00'::timestamptz, 'TZH:TZM'), {}"
CROWD = 12


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    databases = {"lines": "dbname=postgres pool_size=2 pipeline_depth=16 pipeline_servers=1"}
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
