"""Servers that die: in use, idle, one or all. Clients hear the server's own words; those who are idle, nothing."""

import threading
import time

import psycopg
import pytest

from tests.live.stand import Stand, wait_until
from tests.live.wire import Gone, error, kinds, query, rows, sqlstate

pytestmark = pytest.mark.live


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    databases = {
        "postgres": "pool_size=3",
        "one": "dbname=postgres pool_size=1",
        "session": "dbname=postgres pool_mode=session pool_size=3",
        "warm": "dbname=postgres pool_size=2 min_pool_size=2",
    }
    with Stand(upstream, {"server_login_retry": 1}, databases=databases) as stand:
        yield stand


def terminate(admin, pid):
    admin.execute("select pg_terminate_backend(%s, 5000)", [pid])


def test_a_client_whose_server_is_terminated_hears_the_servers_own_words(stand, admin):
    with stand.raw(database="one") as line, stand.raw(database="one") as other:
        line.ask("begin; select 1")
        pid = line.value("select pg_backend_pid()")
        line.send(query("select pg_sleep(30)"))
        time.sleep(0.1)
        terminate(admin, pid)
        words = error(line.read_to_end())
        assert (words["S"], words["C"]) == ("FATAL", "57P01")
        assert words["M"] == "terminating connection due to administrator command"
        assert rows(other.ask("select 'fine'")) == [("fine",)]


def test_psycopg_sees_an_admin_shutdown(stand, admin):
    with stand.connect() as connection:
        connection.execute("begin")
        terminate(admin, connection.execute("select pg_backend_pid()").fetchone()[0])
        with pytest.raises(psycopg.errors.AdminShutdown):
            connection.execute("select 1")


def test_a_client_idle_in_a_transaction_hears_it_too(stand, admin):
    with stand.raw(database="one") as line:
        line.ask("begin; select 1")
        terminate(admin, line.value("select pg_backend_pid()"))
        assert sqlstate(line.read_to_end()) == "57P01"


def test_idle_servers_that_die_are_logged_and_their_clients_notice_nothing(stand, admin):
    with stand.raw(database="one") as line:
        for _ in range(5):
            pid = line.value("select pg_backend_pid()")
            stand.mark()
            terminate(admin, pid)
            assert line.value("select pg_backend_pid()") != str(pid)
        stand.wait_log(r"terminating connection due to administrator command \(57P01\)")


def test_an_idle_server_is_replaced_where_a_minimum_is_kept(stand, admin):
    with stand.raw(database="warm") as line:
        pid = line.value("select pg_backend_pid()")
        wait_until(lambda: stand.log.count("warm/app@") >= 2, "two servers are open")
        stand.mark()
        terminate(admin, pid)
        stand.wait_log("warm/app@.* new connection to server")


def test_in_session_mode_the_session_ends_with_its_server(stand, admin):
    with stand.raw(database="session") as line, stand.raw(database="session") as other:
        assert rows(other.ask("select 'fine'")) == [("fine",)]
        terminate(admin, line.value("select pg_backend_pid()"))
        assert sqlstate(line.read_to_end()) == "57P01"
        assert rows(other.ask("select 'fine'")) == [("fine",)]


def test_a_storm_of_terminations_never_closes_a_client_without_a_word(stand, admin):
    over = threading.Event()
    silent, wrong = [], []

    def enter():
        line = stand.call()
        greeting = line.login("app", "postgres")
        wrong.extend([sqlstate(greeting) or "silence"] if kinds(greeting)[-1:] != "Z" else [])
        return line

    def ask_on(number):
        line = enter()
        try:
            while not over.is_set():
                heard = []
                try:
                    line.send(query(f"select {number}"))
                    heard.append(line.read())
                    while heard[-1].kind not in "ZE":
                        heard.append(line.read())
                except (Gone, OSError):
                    silent.append(heard)
                if not heard or heard[-1].kind == "E":
                    wrong.extend([sqlstate(heard)] if heard else [])
                    line.close()
                    line = enter()
                elif rows(heard) != [(str(number),)]:
                    wrong.append(heard)
        finally:
            line.close()

    crowd = [threading.Thread(target=ask_on, args=(number,)) for number in range(6)]
    for each in crowd:
        each.start()
    struck = 0
    for _ in range(40):
        found = admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'")
        struck += len(found.fetchall())
        time.sleep(0.04)
    over.set()
    for each in crowd:
        each.join()
    assert struck > 40, "there was a storm"
    assert wrong, "and somebody was hit by it"
    assert silent == []
    assert set(wrong) <= {"57P01"}


def test_a_backend_killed_outright(stand, upstream):
    """PostgreSQL then restarts all its backends: the victim's client is told, the idle ones go on."""
    with stand.raw(database="one") as line, stand.raw(database="session") as bystander, stand.raw() as idle:
        idle.ask("select 1")
        bystander.ask("begin; select 1")
        line.ask("begin; select 1")
        pid = int(line.value("select pg_backend_pid()"))
        line.send(query("select pg_sleep(30)"))
        upstream.kill(pid)
        words = error(line.read_to_end())
        assert words["S"] == "FATAL"
        assert words["C"] == "08006"
        assert "server conn crashed?" in words["M"]
        assert sqlstate(bystander.read_to_end()) in ("57P02", "08006")
        assert rows(idle.ask("select 'alive'")) == [("alive",)]


def test_postgresql_restarts_and_idle_clients_notice_nothing(stand, upstream):
    with stand.raw() as idle, stand.raw("other") as never_asked, stand.raw(database="one") as busy:
        idle.ask("select 1")
        busy.ask("begin; select 1")
        upstream.restart()
        assert sqlstate(busy.read_to_end()) == "57P01"
        assert rows(idle.ask("select 'alive'")) == [("alive",)]
        assert rows(never_asked.ask("select 'alive'")) == [("alive",)]


def test_while_postgresql_is_away_clients_wait_and_newcomers_hear_why(stand, upstream):
    with stand.raw() as waiting:
        waiting.ask("select 1")
        upstream.stop()
        try:
            cpu = stand.cpu
            waiting.send(query("select 'back'"))
            with stand.call() as newcomer:
                messages = newcomer.login("hasty", "postgres")  # of whom no server is known yet
                assert kinds(messages) == "E"
                assert sqlstate(messages) == "08006"
                assert "connect failed" in error(messages)["M"]
            time.sleep(1.5)
            assert stand.cpu - cpu < 0.5, "it tries again, but not all the time"
        finally:
            upstream.start()
        start = time.monotonic()
        assert rows(waiting.read_until()) == [("back",)]
        assert time.monotonic() - start < 3
    with stand.raw("hasty") as newcomer:
        assert rows(newcomer.ask("select 1")) == [("1",)]
