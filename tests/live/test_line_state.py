"""Lines whose clients differ: each unit runs under its own client's parameters, schema and statements."""

import random
import signal

import pytest

from tests.live.stand import Stand
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


class Together:
    """The proxy sleeps in here: what is sent meanwhile is found in one turn of its loop, and travels together."""

    def __init__(self, stand):
        self.stand = stand

    def __enter__(self):
        self.stand.signal(signal.SIGSTOP)

    def __exit__(self, *_):
        self.stand.signal(signal.SIGCONT)


def ask_together(stand, lines, *parts):
    """`parts` by all of them; the answers."""
    with Together(stand):
        for line, part in zip(lines, parts, strict=True):
            line.send(part)
    return [line.read_until() for line in lines]


def make_crowd(stand, count=CROWD, **parameters):
    return [stand.raw(database="lines", **parameters) for _ in range(count)]


def earn_trust(stand, lines, *texts):
    """Their shapes have shown that they are fast and small."""
    for text in texts:
        for _ in range(4):
            ask_together(stand, lines, *[query(text)] * len(lines))


def test_each_has_its_own_time_zone_also_beside_statements_that_must_be_brought(stand):
    zones = [*ZONES] * (CROWD // 4)
    lines = [stand.raw(database="lines", TimeZone=zone) for zone in zones]
    earn_trust(stand, lines, HOUR.format(0), "select 0")
    for number in range(40):
        text = HOUR.format(number)
        named = [random.random() < 0.5 for _ in lines]
        for line, is_named in zip(lines, named, strict=True):
            if is_named:
                line.send(parse(text, f"s{number}") + SYNC)
                line.read_until()
        round_ = bind(statement=f"s{number}") + execute() + SYNC
        answers = ask_together(stand, lines, *(round_ if is_named else query(text) for is_named in named))
        assert [rows(answer) for answer in answers] == [[(ZONES[zone], str(number))] for zone in zones]
    for line in lines:
        line.close()
