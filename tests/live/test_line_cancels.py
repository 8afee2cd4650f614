"""Cancels of units in a line: the one that is meant, and no other, whoever runs when it arrives."""

import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.live.stand import Stand, wait_until
from tests.live.together import (
    READ_GATE,
    Shut,
    build_gate,
    crowd,
    find_running,
    line_up,
    send_together,
    wait_running,
)
from tests.live.wire import cancel_request, kinds, query, rows, sqlstate

pytestmark = pytest.mark.live

STALL = 20_000  # milliseconds: nobody is rescued here


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    common = "dbname=postgres pool_size=3 pipeline_depth=16 pipeline_servers=1"
    databases = {"lines": common, "ungrouped": f"{common} pipeline_group=1"}
    with upstream.connect() as admin:
        build_gate(admin)
    with Stand(upstream, {"pipeline_stall_ms": STALL}, databases=databases) as stand:
        yield stand


@pytest.fixture(name="database", params=["lines", "ungrouped"])
def _database(request):
    """In one of them the units of a line share a transaction, in the other each has its own."""
    return request.param


@pytest.fixture(name="clients")
def _clients(stand, database):
    with crowd(stand, 3, READ_GATE.format("trust"), database=database) as clients:
        yield clients


def cancel(stand, client):
    with stand.call() as line:
        line.send(cancel_request(client.key))
        assert line.read_to_end() == []


def is_answered(client):
    answer = client.read_until()
    return kinds(answer) == "TDCZ" and rows(answer)[0][1] == "t"


def test_the_one_that_runs_is_cancelled_and_those_behind_it_are_not(stand, admin, clients):
    with Shut(admin):
        head, *others = line_up(stand, admin, clients)
        cancel(stand, head)
        assert sqlstate(head.read_until()) == "57014"
        wait_running(admin, "select 'client")
    assert all(map(is_answered, others))
    assert rows(head.ask("select 'alive'")) == [("alive",)]


def test_one_that_waits_behind_others_is_cancelled_when_it_is_its_turn(stand, admin, clients):
    with Shut(admin):
        head, second, third = line_up(stand, admin, clients)
        with stand.call() as asking:
            asking.send(cancel_request(third.key))
            cancel(stand, head)
            assert sqlstate(head.read_until()) == "57014"
            cancel(stand, second)
            assert sqlstate(second.read_until()) == "57014"
            assert sqlstate(third.read_until()) == "57014"
    assert [rows(client.ask("select 'alive'")) for client in clients] == [[("alive",)]] * 3


@pytest.mark.parametrize("database", ["ungrouped"], indirect=True)
def test_a_late_cancel_that_hits_the_next_one_is_not_heard_by_him_though_his_answer_has_begun(stand, admin, clients):
    with Shut(admin):
        head, *others = line_up(stand, admin, clients)
        (pid,) = find_running(admin, "select 'client")
        cancel(stand, head)
        assert sqlstate(head.read_until()) == "57014"
        (text,) = admin.execute("select query from pg_stat_activity where pid = %s", [pid]).fetchone()
        wait_until(lambda: find_running(admin, "select 'client") == [pid], "the next one runs")
        admin.execute("select pg_cancel_backend(%s)", [pid])  # as one that comes late
        wait_until(
            lambda: admin.execute("select query <> %s from pg_stat_activity where pid = %s", [text, pid]).fetchone()[0],
            "the one after that runs",
        )
    assert all(map(is_answered, others))


@pytest.mark.parametrize("database", ["ungrouped"], indirect=True)  # of a group each runs on a server of his own
def test_whoever_is_hit_again_and_again_has_his_answer_in_the_end(stand, admin, clients):
    with Shut(admin):
        head, *others = line_up(stand, admin, clients)
        (pid,) = find_running(admin, "select 'client")
        cancel(stand, head)
        assert sqlstate(head.read_until()) == "57014"
        for _ in range(12):
            if find_running(admin, "select 'client") == [pid]:
                admin.execute("select pg_cancel_backend(%s)", [pid])
            admin.execute("select pg_sleep(0.02)")
    assert all(map(is_answered, others))


def test_one_that_has_not_been_sent_is_answered_at_once(stand, database, clients):
    """Both servers are busy, and the line waits for one."""
    holders = [stand.raw(database=database) for _ in range(2)]
    for holder in holders:
        holder.ask("begin; select 1")
    send_together(stand, clients, [query(READ_GATE.format(f"client {n}")) for n in range(3)])
    cancel(stand, clients[1])
    answer = clients[1].read_until()
    assert (kinds(answer), sqlstate(answer)) == ("EZ", "57014")
    for holder in holders:
        holder.ask("commit")
        holder.leave()
    assert is_answered(clients[0])
    assert is_answered(clients[2])


def test_psycopg_cancels_its_read_in_a_line_and_no_other(stand, admin, database, clients):
    with stand.connect(dbname=database) as connection, ThreadPoolExecutor() as threads, Shut(admin):
        line_up(stand, admin, clients)
        reading = threads.submit(connection.execute, READ_GATE.format("client of psycopg"))
        time.sleep(0.1)
        cancelling = threads.submit(connection.cancel_safe)
        time.sleep(0.1)
        for client in clients:
            cancel(stand, client)
        with pytest.raises(psycopg.errors.QueryCanceled):
            reading.result(10)
        cancelling.result(10)
        assert connection.execute("select 'alive'").fetchone() == ("alive",)
    assert [sqlstate(client.read_until()) for client in clients] == ["57014"] * 3
