"""The queue in front of the servers: its order, what those in it hear, and servers that are there before anybody."""

import time
from contextlib import ExitStack

import pytest

from tests.live.stand import Stand
from tests.live.wire import TERMINATE, fields, query, rows, sqlstate

pytestmark = pytest.mark.live


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    databases = {"one": "dbname=postgres pool_size=1"}
    with Stand(upstream, {"query_wait_notify": 0.3}, databases=databases) as stand:
        yield stand


def test_first_come_first_served(stand, admin):
    admin.execute("drop table if exists arrivals; create table arrivals (n serial, who int)")
    admin.execute("grant all on arrivals, arrivals_n_seq to app")
    with ExitStack() as stack:
        holder = stack.enter_context(stand.raw(database="one"))
        holder.ask("begin; select 1")
        crowd = [stack.enter_context(stand.raw(database="one")) for _ in range(30)]
        for number, line in enumerate(crowd):
            line.send(query(f"insert into arrivals (who) values ({number})"))
            stand.wait_pools("one", cl_waiting=number + 1)
        holder.ask("commit")
        for line in crowd:
            line.read_until()
    assert [who for (who,) in admin.execute("select who from arrivals order by n")] == list(range(30))


def test_one_who_gives_up_in_the_queue_is_passed_over(stand):
    with ExitStack() as stack:
        holder, one, two, three = (stack.enter_context(stand.raw(database="one")) for _ in range(4))
        holder.ask("begin; select 1")
        for number, line in enumerate((one, two, three)):
            line.send(query("select 'served'"))
            stand.wait_pools("one", cl_waiting=number + 1)
        one.close()
        two.send(TERMINATE)
        stand.wait_pools("one", cl_waiting=1)
        holder.ask("commit")
        assert rows(three.read_until()) == [("served",)]
        assert rows(holder.ask("select 'free'")) == [("free",)]


def test_who_waits_long_gets_one_notice(stand):
    with stand.raw(database="one") as holder, stand.raw(database="one") as waiting:
        holder.ask("begin; select 1")
        waiting.send(query("select 1"))
        answer = waiting.read_until("N")
        time.sleep(0.5)  # for another one
        holder.ask("commit")
        answer += waiting.read_until()
    notices = [fields(each.body) for each in answer if each.kind == "N"]
    assert [notice["S"] for notice in notices] == ["NOTICE"]
    assert "queued" in notices[0]["M"]
    assert sqlstate(answer) == ""


def test_a_waiting_client_may_go_on_sending(stand):
    """More than we want to hold: reading pauses, and nothing is lost."""
    with stand.raw(database="one") as holder, stand.raw(database="one") as waiting:
        holder.ask("begin; select 1")
        text = "x" * 200_000
        waiting.socket.setblocking(False)
        pending = query(f"select length('{text}')") + query("select 'second'")
        sent = waiting.socket.send(pending)
        holder.ask("commit")
        waiting.socket.settimeout(15)
        waiting.send(pending[sent:])
        assert rows(waiting.read_until()) == [("200000",)]
        assert rows(waiting.read_until()) == [("second",)]


def test_min_pool_size_servers_are_there_before_the_first_client(upstream, admin):
    databases = {"warm": "dbname=template1 min_pool_size=3 user=app password='" + _quoted(upstream) + "'"}
    count = "select count(*) from pg_stat_activity where datname='template1' and usename='app'"
    assert admin.execute(count).fetchone() == (0,)
    with Stand(upstream, databases=databases) as stand:
        assert admin.execute(count).fetchone() == (3,)
        lines = stand.log.splitlines()
        ready = next(n for n, line in enumerate(lines) if "warm/app: 3 of 3 server connections open" in line)
        listening = next(n for n, line in enumerate(lines) if "listening on" in line)
        assert ready < listening
        with stand.raw(database="warm") as line:
            pid = line.value("select pg_backend_pid()")
            assert admin.execute(count).fetchone() == (3,)
        admin.execute("select pg_terminate_backend(%s)", [pid])
        stand.wait_log("terminating connection due to administrator command")
        deadline = time.monotonic() + 5
        while admin.execute(count).fetchone() != (3,) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert admin.execute(count).fetchone() == (3,), "the minimum is kept"


def test_a_start_without_postgresql_says_why_and_serves_later(upstream, tmp_path):
    databases = {"warm": "dbname=nowhere min_pool_size=2 user=app password='" + _quoted(upstream) + "'", "*": ""}
    with Stand(upstream, databases=databases) as stand:
        stand.wait_log(r'warm/app: 0 of 2 server connections.*database "nowhere" does not exist')
        with stand.call() as line:
            messages = line.login("app", "warm")
            assert sqlstate(messages) == "3D000"
        with stand.raw() as line:
            assert rows(line.ask("select 1")) == [("1",)]


def _quoted(upstream):
    return upstream.secrets["app"].replace("'", "''")
