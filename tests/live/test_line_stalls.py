"""Lines whose head does not come to an end: a lock in its way, or a client that does not read. The others go on."""

import time
from contextlib import ExitStack, contextmanager

import pytest

from tests.live.stand import Stand, wait_until
from tests.live.together import Together, earn_trust, send_together, wait_running
from tests.live.wire import SYNC, bind, cancel_request, error, execute, fields, kinds, parse, query, rows, sqlstate

pytestmark = pytest.mark.live

STALL = 1.5  # seconds
LOCKED = "select word, {} from line_locked"
OTHER = "select word, {} from line_other"
FREE = "select word, {} from line_free"
WIDE = "select repeat('x', {})"
MEGABYTE = 1_000_000
ROOM = 30 * MEGABYTE
CROWD = 8


@pytest.fixture(scope="module", autouse=True)
def _tables(upstream):
    with upstream.connect() as admin:
        for table in ("line_locked", "line_other", "line_free"):
            admin.execute(f"drop table if exists {table}; create table {table} as select 'here'::text as word")
            admin.execute(f"grant all on {table} to app; alter table {table} owner to app")


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    databases = {"lines": "dbname=postgres pool_size=4 pipeline_depth=16 pipeline_servers=1"}
    with Stand(upstream, {"pipeline_stall_ms": int(STALL * 1000)}, databases=databases) as stand:
        yield stand


@contextmanager
def made_ready(stand):
    """Clients whose next reads stand in one line, since somebody else has a server already."""
    with ExitStack() as stack:
        clients = [stack.enter_context(stand.raw(database="lines")) for _ in range(CROWD)]
        holder = stack.enter_context(stand.raw(database="lines"))
        earn_trust(stand, clients, LOCKED.format(0), OTHER.format(0), FREE.format(0), WIDE.format(0))
        holder.ask("begin; select 1")
        yield clients


@pytest.fixture(name="clients")
def _clients(stand):
    with made_ready(stand) as clients:
        yield clients


@pytest.fixture(name="locker")
def _locker(upstream):
    """Somebody who changes the table, past the proxy."""
    with upstream.connect("app", autocommit=False) as locker:
        yield locker


def stand_behind(stand, admin, head, others):
    """`head` waits for the lock, and so do `others`, behind it."""
    with Together(stand):
        head.send(query(LOCKED.format(1)))
        time.sleep(0.05)  # its bytes are there first
        for n, other in enumerate(others):
            other.send(query(FREE.format(n)))
    return wait_running(admin, "select word, 1 from line_locked")


@pytest.mark.parametrize("text", ["alter table line_locked add column more{} int", "lock table line_locked"])
def test_those_behind_a_lock_are_answered_while_it_is_held_and_the_head_when_it_is_not(
    stand, admin, locker, clients, text
):
    head, *others = clients
    locker.execute(text.format(time.time_ns()))
    start = time.monotonic()
    stand_behind(stand, admin, head, others)
    for n, other in enumerate(others):
        assert rows(other.read_until()) == [("here", str(n))]
    assert time.monotonic() - start > STALL / 2, "they stood behind it"
    wait_running(admin, "select word, 1 from line_locked")  # still, or by itself again, if it was in a group
    locker.rollback()
    assert rows(head.read_until()) == [("here", "1")]


def test_who_wants_an_end_behind_a_lock_is_answered_so_and_what_he_asks_next_is_not_hit(stand, admin, locker, clients):
    head, second, *others = clients
    locker.execute("lock table line_locked")
    stand_behind(stand, admin, head, [second, *others])
    with stand.call() as asking:
        asking.send(cancel_request(second.key))
        assert sqlstate(second.read_until()) == "57014"
        assert asking.read_to_end() == []
    assert rows(second.ask(FREE.format(7))) == [("here", "7")]
    for n, other in enumerate(others, 1):
        assert rows(other.read_until()) == [("here", str(n))]
    locker.rollback()
    assert rows(head.read_until()) == [("here", "1")]


def test_who_comes_when_the_head_is_stuck_goes_elsewhere_at_once(stand, admin, locker, clients):
    head, behind, *others = clients
    locker.execute("lock table line_locked")
    start = time.monotonic()
    stand_behind(stand, admin, head, [behind])
    time.sleep(0.1)
    for n, other in enumerate(others * 3):
        assert rows(other.ask(FREE.format(n))) == [("here", str(n))]
    assert time.monotonic() - start < STALL, "they did not wait for a rescue"
    assert rows(behind.read_until()) == [("here", "0")]
    locker.rollback()
    assert rows(head.read_until()) == [("here", "1")]


def test_heads_may_be_stuck_one_after_the_other_and_nobody_is_lost(stand, admin, locker, clients):
    """All want what is locked, and there are four servers: one is somebody's. When the lock goes, all are answered."""
    locker.execute("lock table line_locked")
    send_together(stand, clients, [query(LOCKED.format(n)) for n in range(CROWD)])
    time.sleep(3 * STALL)
    locker.rollback()
    for n, client in enumerate(clients):
        assert rows(client.read_until()) == [("here", str(n))]


def test_what_nobody_waits_for_any_more_is_in_nobodys_way(stand, admin, locker, upstream, clients):
    """Behind the head somebody reads what another has locked: he moves on, and what he left behind is ended."""
    head, second, third, *_ = clients
    with upstream.connect("app", autocommit=False) as another:
        locker.execute("lock table line_locked")
        another.execute("lock table line_other")
        with Together(stand):
            head.send(query(LOCKED.format(1)))
            time.sleep(0.05)
            second.send(query(OTHER.format(2)))
            time.sleep(0.05)
            third.send(query(FREE.format(3)))
        wait_running(admin, "select word, 1 from line_locked")
        wait_running(admin, "select word, 2 from line_other")
        assert rows(third.read_until()) == [("here", "3")]
        locker.rollback()
        assert rows(head.read_until()) == [("here", "1")]
        for n in range(20):
            start = time.monotonic()
            assert rows(head.ask(FREE.format(n))) == [("here", str(n))]
            assert time.monotonic() - start < STALL / 2
        wait_running(admin, "select word, 2 from line_other")
        another.rollback()
    assert rows(second.read_until()) == [("here", "2")]


def prepare_elsewhere(reader, other):
    """`reader` has a statement, and `other` the only server that knows it."""
    reader.send(parse(LOCKED.format(7), "mine") + SYNC)
    reader.read_until()
    other.ask("begin; select 1")


def test_a_statement_of_ours_may_wait_for_the_lock_too(stand, admin, locker, clients):
    """The line's server lacks a statement; to bring it there takes a lock on the table it reads."""
    reader, *others = clients
    prepare_elsewhere(reader, others.pop())
    locker.execute("lock table line_locked")
    reader.send(bind(statement="mine") + execute() + SYNC)
    wait_running(admin, "select word, 7 from line_locked")
    send_together(stand, others, [query(FREE.format(n)) for n in range(len(others))])
    for n, other in enumerate(others):
        assert rows(other.read_until()) == [("here", str(n))]
    wait_running(admin, "select word, 7 from line_locked")
    locker.rollback()
    assert rows(reader.read_until()) == [("here", "7")]


def test_a_client_that_vanishes_behind_or_before_the_lock_takes_nobody_along(stand, admin, locker, clients):
    head, behind, *others = clients
    locker.execute("lock table line_locked")
    stand_behind(stand, admin, head, [behind, *others])
    behind.close()
    head.close()
    for n, other in enumerate(others, 1):
        assert rows(other.read_until()) == [("here", str(n))]
    wait_until(lambda: not wait_running(admin, "select word, 1 from line_locked", 0), "its read was cancelled")


def test_a_client_that_does_not_read_what_is_suddenly_large_holds_up_nobody(stand, admin, clients):
    slow, *others = clients
    before = stand.rss
    with Together(stand):
        slow.send(query(WIDE.format(64 * MEGABYTE)))
        time.sleep(0.05)
        for n, other in enumerate(others):
            other.send(query(FREE.format(n)))
    for n, other in enumerate(others):
        assert rows(other.read_until()) == [("here", str(n))]
    for n, other in enumerate(others):
        assert rows(other.ask(FREE.format(n))) == [("here", str(n))]
    assert stand.rss - before < ROOM
    assert len(rows(slow.read_until())[0][0]) == 64 * MEGABYTE
    assert stand.rss - before < ROOM


def test_who_waits_for_a_statement_of_ours_has_his_own_timeouts(upstream, admin, locker):
    databases = {"lines": "dbname=postgres pool_size=4 pipeline_depth=16 pipeline_servers=1"}
    settings = {"query_timeout": 2, "pipeline_stall_ms": 500}
    with Stand(upstream, settings, databases=databases) as stand, made_ready(stand) as (reader, *others):
        prepare_elsewhere(reader, others.pop())
        locker.execute("lock table line_locked")
        reader.send(bind(statement="mine") + execute() + SYNC)
        assert error(reader.read_to_end())["M"] == "query timeout"
        locker.rollback()
        for n, other in enumerate(others):
            assert rows(other.ask(FREE.format(n))) == [("here", str(n))]


def test_who_stands_behind_a_lock_or_waits_for_a_place_for_long_is_told_so_before_his_answer(upstream, admin, locker):
    databases = {"lines": "dbname=postgres pool_size=2 pipeline_depth=4 pipeline_servers=1"}
    settings = {"query_wait_notify": 0.5, "pipeline_stall_ms": 30_000, "pipeline_group": 1}  # (all of a group run)
    with Stand(upstream, settings, databases=databases) as stand, made_ready(stand) as (head, *others):
        locker.execute("lock table line_locked")
        stand_behind(stand, admin, head, others)
        notices = [fields(other.read_until("N")[-1].body) for other in others]
        assert [notice["S"] for notice in notices] == ["NOTICE"] * len(others)
        behind, waiting = notices[:3], notices[3:]
        assert all("in line on a server connection" in notice["D"] for notice in behind)
        assert all("who wait for a place in a line" in notice["D"] for notice in waiting)
        time.sleep(1.0)  # for another one
        locker.rollback()
        for n, other in enumerate(others):
            answer = other.read_until()
            assert (kinds(answer), rows(answer)) == ("TDCZ", [("here", str(n))])
        assert rows(head.read_until()) == [("here", "1")]
