"""Signals: how the proxy pauses, resumes and ends, and what those who are connected notice of it."""

import signal
import time

import pytest

from tests.live.stand import Stand, is_listening, wait_until
from tests.live.wire import error, query, rows

pytestmark = pytest.mark.live


@pytest.fixture(name="stand")
def _stand(upstream):
    with Stand(upstream) as stand:
        yield stand


def count(admin):
    return admin.execute("select count(*) from pg_stat_activity where usename='app'").fetchone()[0]


def test_term_waits_for_the_clients_to_leave(stand, admin):
    with stand.raw() as line, stand.raw() as idle:
        line.ask("begin; select 1")
        stand.signal(signal.SIGTERM)
        wait_until(lambda: not is_listening(stand.port), "it takes nobody new")
        assert rows(line.ask("select 'served'")) == [("served",)]
        line.ask("commit")
        assert rows(line.ask("select 'still'")) == [("still",)]
        assert rows(idle.ask("select 'served too'")) == [("served too",)]
        line.leave()
        time.sleep(0.2)
        assert stand.is_running
        idle.leave()
        assert stand.wait_end() == 0
    assert count(admin) == 0


def test_term_without_clients_ends_at_once(stand):
    start = time.monotonic()
    stand.signal(signal.SIGTERM)
    assert stand.wait_end() == 0
    assert time.monotonic() - start < 2


def test_int_waits_for_transactions_and_then_tells_the_clients(stand, admin):
    with stand.raw() as line, stand.raw() as idle:
        line.ask("begin; select 1")
        idle.ask("select 1")
        stand.signal(signal.SIGINT)
        assert rows(line.ask("select 'in the transaction'")) == [("in the transaction",)]
        assert stand.is_running
        line.ask("commit")
        for each in (line, idle):
            words = error(each.read_to_end())
            assert (words["S"], words["C"]) == ("FATAL", "57P01")
            assert "shutting down" in words["M"]
        assert stand.wait_end() == 0
    assert count(admin) == 0


def test_while_it_waits_for_servers_who_asks_for_one_is_sent_away_at_once(stand):
    with stand.raw() as line, stand.raw() as other:
        line.ask("begin; select 1")
        stand.signal(signal.SIGINT)
        stand.wait_log("shutting down: wait for servers")
        other.send(query("select 1"))
        words = error(other.read_to_end())
        assert (words["S"], words["C"], words["M"]) == ("FATAL", "57P01", "server shutting down")
        assert stand.wait_log("closing because: server shutting down")
        assert stand.is_running


def test_somebody_who_listens_does_not_keep_it_from_sending_others_away(stand):
    with stand.raw() as listening, stand.raw() as line, stand.raw() as other:
        listening.ask("listen news")
        line.ask("begin; select 1")
        stand.signal(signal.SIGINT)
        stand.wait_log("shutting down: wait for servers")
        other.send(query("select 1"))
        assert error(other.read_to_end())["M"] == "server shutting down"
        line.ask("commit")
        for each in (listening, line):
            assert error(each.read_to_end())["M"] == "pooler is shutting down"
        assert stand.wait_end() == 0
        assert "stumbled" not in stand.log


def test_a_second_signal_is_immediate(stand):
    with stand.raw() as line:
        line.ask("begin; select 1")
        stand.signal(signal.SIGINT)
        stand.wait_log("shutting down: wait for servers")
        stand.signal(signal.SIGINT)
        assert stand.wait_end() == 0
        assert error(line.read_to_end())["C"] == "57P01"


def test_a_transaction_that_nobody_ends_holds_up_the_end_for_shutdown_timeout_and_no_longer(upstream, admin):
    with Stand(upstream, {"shutdown_timeout": 1}) as stand, stand.raw() as line, stand.raw() as idle:
        line.ask("begin; select 1")
        start = time.monotonic()
        stand.signal(signal.SIGINT)
        assert stand.wait_end() == 0
        assert 1 <= time.monotonic() - start < 5
        for each in (line, idle):
            words = error(each.read_to_end())
            assert (words["S"], words["C"], words["M"]) == ("FATAL", "57P01", "pooler is shutting down")
        stand.wait_log(r"shutdown_timeout \(1 s\) is over, fast exit: The one server of pool")
    wait_until(lambda: count(admin) == 0, "it is rolled back", 5)


def test_quit_ends_at_once_and_says_so(stand, admin):
    with stand.raw() as line, stand.raw() as waiting:
        line.send(query("select pg_sleep(30)"))
        waiting.ask("begin; select 1")
        start = time.monotonic()
        stand.signal(signal.SIGQUIT)
        assert stand.wait_end() == 0
        assert time.monotonic() - start < 3
        for each in (line, waiting):
            words = error(each.read_to_end())
            assert (words["S"], words["C"]) == ("FATAL", "57P01")
    wait_until(lambda: count(admin) == 0, "PostgreSQL has nobody of ours left", 5)


def test_usr1_pauses_and_usr2_resumes_and_nobody_is_dropped(stand, admin):
    with stand.raw() as line, stand.raw() as other:
        line.ask("begin; select 1")
        other.ask("select 1")
        stand.signal(signal.SIGUSR1)
        stand.wait_log("got SIGUSR1")
        assert rows(line.ask("select 'may end'")) == [("may end",)]
        line.ask("commit")
        wait_until(lambda: count(admin) == 0, "all servers are closed")
        for each in (line, other):
            each.send(query("select 'resumed'"))
        time.sleep(0.3)
        assert count(admin) == 0
        stand.signal(signal.SIGUSR2)
        for each in (line, other):
            assert rows(each.read_until()) == [("resumed",)]


def test_a_pause_outlives_postgresqls_restart(stand, upstream):
    with stand.raw() as line:
        line.ask("select 1")
        stand.signal(signal.SIGUSR1)
        stand.wait_log("got SIGUSR1")
        line.send(query("select 'after'"))
        upstream.restart()
        stand.signal(signal.SIGUSR2)
        assert rows(line.read_until()) == [("after",)]


def test_newcomers_may_log_in_during_a_pause_once_the_pool_is_known(stand):
    with stand.raw() as line:
        line.ask("select 1")
    stand.signal(signal.SIGUSR1)
    stand.wait_log("got SIGUSR1")
    with stand.raw() as line:
        line.send(query("select 'resumed'"))
        stand.signal(signal.SIGUSR2)
        assert rows(line.read_until()) == [("resumed",)]
