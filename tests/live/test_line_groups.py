"""
Units that travel together share one transaction: each client hears, byte for byte, what PostgreSQL tells him alone.

Theory. The same is said at the same time by a crowd through the proxy, where it is one transaction, and by one client
to PostgreSQL itself. That it was one is shown by two in the crowd that ask `now()`, and hear the same.
"""

import pytest

from proxy.shapes import ALONE_AT_FIRST
from tests.live.stand import Stand
from tests.live.together import ask_together, crowd, send_together, wait_running
from tests.live.wire import (
    SYNC,
    Raw,
    bind,
    describe,
    execute,
    kinds,
    message,
    parse,
    query,
)

pytestmark = pytest.mark.live

CROWD = 12
HALF = range(CROWD // 2)  # that many are a group
NOW = "select now()"
LONG_NAME = "a" * 70
WORDS = "line_group_words"
TEXTS = [
    "select",
    "select;",
    "select 1 where false",
    f"select from {WORDS} where false",
    f"select from {WORDS}",
    "values (1, 'a'), (2, null)",
    f"table {WORDS}",
    f"with a as (select n from {WORDS}) select count(*), sum(n) from a",
    "select null, null::int, ''",
    "select 1::smallint, 2::bigint, 1.50::numeric(9,2), 1e100::float, true, 'x'::char(5), 'y'::varchar(7)",
    "select array[1, null, 3], array['a', null], array[]::int[], '{{1,2},{3,4}}'::int[]",
    "select date '2020-02-29', timestamptz '2020-01-01 00:00+00', interval '1 day 2 hours', time '01:02'",
    "select '{\"a\": [1, null]}'::json, 'ab'::bytea, '0101'::bit(4), '10.0.0.0/8'::cidr",
    "select row(1, 'a', null), repeat('x', 3000)",
    "select " + ", ".join(["1"] * 100),
    f"select 1 as {LONG_NAME}, 2",
    f"select n, word from {WORDS} order by n desc limit 2",
    f"select n from {WORDS} where n > 1000",
    "select 'ä€😀'",
    "select 1 ;  ",
    f"select a.n, b.word from {WORDS} a left join {WORDS} b on a.n = b.n + 1 order by a.n",
    f"select word from {WORDS} union all select 'more' order by 1",
    "select word as noticed from line_group_noticing",
]
FAILING = [
    ("select 1/1", "select 1/0"),
    ("select '1'::int", "select 'a'::int"),
    ("select '2020-01-01'::date", "select '2020-13-01'::date"),
    (
        f"select n / 1, word from {WORDS} where n > 0 order by n",
        f"select n / 0, word from {WORDS} where n > 0 order by n",
    ),
    (f"select 10 / (n - 10) from {WORDS} order by n", f"select 10 / (n - 3) from {WORDS} order by n"),
    ("select 1 limit 1", "select 1 limit -1"),
    (f"select (select n from {WORDS} where n < 2)", f"select (select n from {WORDS} where n < 9)"),
]
WIDE = [
    "select " + ", ".join(["1"] * 400),
    "select repeat('x', 7000)",
    f"select word from {WORDS}, generate_series(1, 200)",
]
NEVER = [
    "select no_such_column",
    "select $1",
    "selec 1",
    "select 1 from no_such_table",
    "select 'a",
    "select 1;;",
    ";",
    "",
]


@pytest.fixture(scope="module", autouse=True)
def _tables(upstream):
    with upstream.connect() as admin:
        admin.execute(f"drop table if exists {WORDS} cascade")
        admin.execute(f"create table {WORDS} as select n, 'word ' || n as word from generate_series(1, 5) n")
        admin.execute(
            "create or replace function line_group_note() returns int language plpgsql volatile as "
            "'begin raise notice ''noted''; return 1; end'"
        )
        admin.execute(f"create view line_group_noticing as select word, line_group_note() from {WORDS} limit 2")
        admin.execute(f"grant all on {WORDS}, line_group_noticing to app; alter table {WORDS} owner to app")


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    databases = {"lines": "dbname=postgres pool_size=3 pipeline_depth=16 pipeline_servers=1"}
    with Stand(upstream, {"pipeline_max_ms": 50}, databases=databases) as stand:
        yield stand


@pytest.fixture(name="clients")
def _clients(stand):
    with crowd(stand, CROWD, NOW) as clients:
        yield clients


@pytest.fixture(name="direct")
def _direct(upstream):
    """PostgreSQL itself."""
    with Raw(upstream.port) as line:
        assert line.login("app", "postgres", upstream.secrets["app"])[-1].kind == "Z"
        yield line


def hear(client):
    """The bytes of an answer."""
    return b"".join(message(each.kind, each.body) for each in client.read_until())


def hear_direct(direct, parts):
    heard = []
    for part in parts:
        direct.send(part)
        heard.append(hear(direct))
    return heard


def ask_as_groups(stand, clients, parts):
    """What each hears. Some of the crowd see to it that either half has been in one transaction."""
    assert len(parts) == 2 * len(HALF) - 4
    middle = len(parts) // 2
    asked = [query(NOW), *parts[:middle], query(NOW), query(NOW), *parts[middle:], query(NOW)]
    send_together(stand, clients, asked)
    heard = [hear(client) for client in clients]
    first, second = heard[: len(HALF)], heard[len(HALF) :]
    assert [first[0], second[0]] == [first[-1], second[-1]], "one transaction each"
    return first[1:-1] + second[1:-1]


def chunks(of):
    """As many as are asked at once; each stands at several places."""
    return [[of[(start + n) % len(of)] for n in range(CROWD - 4)] for start in range(0, len(of), 3)]


def learn(stand, clients, parts):
    """Each of these has shown that it is fast and small."""
    for part in parts:
        for _ in range(2):
            ask_together(stand, clients[:3], [part] * 3)


def test_simple_queries(stand, clients, direct):
    parts = [query(text) for text in TEXTS]
    learn(stand, clients, parts)
    for some in chunks(parts):
        for part, one, other in zip(some, ask_as_groups(stand, clients, some), hear_direct(direct, some), strict=True):
            assert one == other, part


@pytest.mark.parametrize("at", [0, 1, CROWD - 1])
def test_a_notice_is_heard_by_him_whose_it_is_wherever_he_stands(stand, upstream, clients, direct, at):
    """PostgreSQL sends a notice at once: so it comes before anything else that answers the group, if he is the first,
    and the rest a moment later, since the table is locked for as long."""
    plain, noticed = query("select 1 as a"), query(f"select n as {LONG_NAME} from {WORDS}")
    learn(stand, clients, [plain, noticed])
    parts = [plain] * at + [noticed] + [plain] * (CROWD - 1 - at)
    expected = hear_direct(direct, parts)
    assert b"will be truncated" in expected[at]
    with upstream.connect() as admin, upstream.connect("app", autocommit=False) as locker:
        for _ in range(5):
            locker.execute(f"lock table {WORDS}")
            send_together(stand, clients, parts)
            wait_running(admin, "select n as")
            locker.rollback()
            assert [hear(client) for client in clients] == expected


@pytest.mark.parametrize("at", [0, 5, 11])
def test_who_fails_hears_his_own_error_and_the_others_their_answers(stand, clients, direct, at):
    neighbours = [query(f"select {n}, 'neighbour'") for n in range(CROWD)]
    learn(stand, clients, neighbours[:1])
    for good, bad in FAILING:
        learn(stand, clients, [query(good)])
        parts = list(neighbours)
        parts[at] = query(bad)
        send_together(stand, clients, parts)
        heard = [hear(client) for client in clients]
        assert heard == hear_direct(direct, parts), bad


def test_what_is_never_trusted(stand, clients, direct):
    for text in NEVER:
        parts = [query(NEVER[0])] * 3 + [query(text)] * 3
        send_together(stand, clients[:6], parts)
        assert [hear(client) for client in clients[:6]] == hear_direct(direct, parts)


def rounds_of(text, *values, name=""):
    """As drivers send them."""
    ends = (execute() + SYNC, describe() + execute() + SYNC, describe() + execute(max_rows=1) + SYNC)
    return [bind(*values, statement=name) + end for end in ends]


def test_rounds(stand, clients, direct):
    """Of unnamed statements, and of named ones that are at the server or must be brought; and some are suspended."""
    named = f"select n, word from {WORDS} where n < $1::int order by n"
    parts = []
    for client in (*clients, direct):
        client.send(parse(named, "by_name") + SYNC)
        assert kinds(client.read_until()) == "1Z"
    for text in [*TEXTS[:10], *TEXTS[-6:]]:
        parts += [parse(text) + each for each in rounds_of(text)]
    for limit in (0, 2, 99):
        parts += rounds_of(named, limit, name="by_name")
    learn(stand, clients, parts)
    for some in chunks(parts):
        for part, one, other in zip(some, ask_as_groups(stand, clients, some), hear_direct(direct, some), strict=True):
            assert one == other, part


def test_a_round_that_fails(stand, clients, direct):
    text = f"select 10 / (n - $1::int) from {WORDS} order by n"  # (not by planning: that depends on what came before)
    for client in (*clients, direct):
        client.send(parse(text, "divided") + SYNC)
        assert kinds(client.read_until()) == "1Z"
    parts = [bind(n, statement="divided") + describe() + execute() + SYNC for n in range(10, CROWD + 10)]
    learn(stand, clients, parts[:1])
    for at, bad in [(0, 1), (5, 3), (CROWD - 1, "a")]:
        some = list(parts)
        some[at] = bind(bad, statement="divided") + describe() + execute() + SYNC
        send_together(stand, clients, some)
        assert [hear(client) for client in clients] == hear_direct(direct, some)
        for _ in range(ALONE_AT_FIRST // CROWD + 1):  # that kind goes by itself for so long
            ask_together(stand, clients, parts)


def test_wide_answers_beside_narrow_ones(stand, clients, direct):
    narrow = [query(f"select {n}, 'narrow'") for n in range(CROWD)]
    for text in WIDE:
        learn(stand, clients, [query(text), narrow[0]])
        for at in (0, 5, CROWD - 1):
            parts = list(narrow)
            parts[at] = query(text)
            send_together(stand, clients, parts)
            assert [hear(client) for client in clients] == hear_direct(direct, parts)
