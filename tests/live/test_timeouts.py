"""Every timeout: it strikes, it says so with PostgreSQL's SQLSTATE, and it strikes nobody else."""

import re
import time

import pytest

from tests.live.stand import Stand, wait_until
from tests.live.upstream import PASSWORD
from tests.live.wire import error, query, rows, sqlstate, startup

pytestmark = pytest.mark.live

LATE = 2.5  # seconds after which a timeout of half a second is no longer kept


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    users = {
        "hasty": "query_timeout=0.5",
        "lingerer": "transaction_timeout=0.5",
        "dreamer": "idle_transaction_timeout=0.5",
        "sleeper": "client_idle_timeout=0.5",
        "impatient": "query_wait_timeout=0.5 pool_size=1",
    }
    databases = {
        "postgres": "",
        "short": "dbname=template1 server_lifetime=0.5",
        "crowded": "dbname=postgres pool_size=1",
        "once": "dbname=template1 server_lifetime=0 pool_size=1",
    }
    settings = {
        "client_login_timeout": 0.6,
        "tcp_defer_accept": 0,  # else the kernel would keep the silent ones from us
        "server_idle_timeout": 1,
        "server_check_delay": 0.3,
        "server_connect_timeout": 0.6,
    }
    with Stand(upstream, settings, databases=databases, users=users) as stand:
        yield stand


def last_words(line):
    """What a client hears when its time is over: the error, and how long it took."""
    start = time.monotonic()
    messages = line.read_to_end()
    assert time.monotonic() - start < LATE
    return error(messages)


def test_query_timeout(stand, admin):
    with stand.raw("hasty") as line, stand.raw("app") as other:
        other.send(query("select pg_sleep(1.2)"))
        line.send(query("select pg_sleep(30)"))
        words = last_words(line)
        assert (words["S"], words["C"], words["M"]) == ("FATAL", "57014", "query timeout")
        assert re.match(r"The statement has been running for \d\.\d s; query_timeout is 0\.5 s\.", words["D"])
        assert sqlstate(other.read_until()) == ""
    running = "select count(*) from pg_stat_activity where usename='hasty' and state='active'"
    wait_until(lambda: admin.execute(running).fetchone() == (0,), "the query is cancelled in PostgreSQL too")


def test_query_timeout_strikes_those_who_wait_too(stand):
    with stand.raw("hasty", "crowded") as holder, stand.raw("hasty", "crowded") as line:
        holder.ask("begin; select 1")
        line.send(query("select 1"))
        words = last_words(line)
        assert (words["S"], words["C"], words["M"]) == ("FATAL", "57014", "query_timeout")
        assert re.match(r"The statement has waited for \d\.\d s; query_timeout is 0\.5 s\. The one server", words["D"])
        assert sqlstate(holder.ask("commit")) == ""


def test_transaction_timeout(stand):
    with stand.raw("lingerer") as line:
        line.ask("begin; select 1")
        line.ask("select 1")
        line.send(query("select pg_sleep(30)"))
        words = last_words(line)
        assert (words["S"], words["C"], words["M"]) == ("FATAL", "25P04", "transaction timeout")
        assert re.match(
            r"The transaction has been open for \d\.\d s, and its last statement has been running", words["D"]
        )
    with stand.raw("lingerer") as line:
        for _ in range(15):
            assert sqlstate(line.ask("select pg_sleep(0.05)")) == ""


def test_idle_transaction_timeout(stand, admin):
    with stand.raw("dreamer") as line:
        line.ask("begin; create table public.dream (n int)")
        words = last_words(line)
        assert (words["S"], words["C"], words["M"]) == ("FATAL", "25P03", "idle transaction timeout")
        assert re.match(
            r"The client has done nothing for \d\.\d s in a transaction that is open for \d\.\d s", words["D"]
        )
    with stand.raw("dreamer") as line:
        assert line.value("select to_regclass('public.dream')") is None
        line.ask("begin; select 1")
        assert sqlstate(line.ask("select pg_sleep(1.2)")) == "", "working is not idling"


def test_client_idle_timeout(stand):
    with stand.raw("sleeper") as line, stand.raw("app") as other:
        words = last_words(line)
        assert (words["S"], words["C"], words["M"]) == ("FATAL", "57P05", "client_idle_timeout")
        assert re.match(r"The client has said nothing for \d\.\d s; client_idle_timeout is 0\.5 s\.", words["D"])
        assert rows(other.ask("select 1")) == [("1",)]
    with stand.raw("sleeper") as line:
        assert sqlstate(line.ask("select pg_sleep(1.2)")) == "", "working is not idling"
        line.ask("begin; select 1")
        time.sleep(1)
        assert sqlstate(line.ask("commit")) == "", "a transaction is another timeout's"


def test_query_wait_timeout(stand):
    with stand.raw("impatient") as holder, stand.raw("impatient") as line:
        holder.ask("begin; select 1")
        line.send(query("select 1"))
        words = last_words(line)
        assert (words["S"], words["M"]) == ("FATAL", "query_wait_timeout")
        assert words["C"].startswith("53")
        assert sqlstate(holder.ask("commit")) == ""


def test_client_login_timeout_ends_half_open_logins(stand):
    silent, half, asked = stand.call(), stand.call(), stand.call()
    half.send(startup("app", "postgres")[:9])
    asked.send(startup("app", "postgres")[:-1])
    for line in (silent, half, asked):
        words = last_words(line)
        assert words["S"] == "FATAL"
        assert "client_login_timeout" in words["M"]
        line.close()


def test_server_idle_timeout_closes_what_nobody_needs(stand, admin):
    count = "select count(*) from pg_stat_activity where usename='app' and datname='postgres'"
    with stand.raw() as line:
        line.ask("select 1")
        assert admin.execute(count).fetchone() >= (1,)
        wait_until(lambda: admin.execute(count).fetchone() == (0,), "idle servers are closed", 4)
        assert rows(line.ask("select 1")) == [("1",)], "and the client notices nothing"
    stand.wait_log("closing because: server idle timeout")


def test_server_lifetime_replaces_servers_between_transactions(stand):
    with stand.raw(database="short") as line:
        first = line.value("select pg_backend_pid()")
        line.ask("begin; select 1")
        held = line.value("select pg_backend_pid()")
        time.sleep(1.2)
        assert line.value("select pg_backend_pid()") == held, "never in a transaction"
        line.ask("commit")
        time.sleep(0.8)
        assert line.value("select pg_backend_pid()") not in (first, held)
    with stand.raw(database="once") as line:
        assert line.value("select pg_backend_pid()")
        wait_until(lambda: "once/app" in stand.log and "server lifetime over" in stand.log, "it is closed")
        assert line.value("select pg_backend_pid()")


def test_a_server_that_was_idle_is_checked_before_it_is_used(stand, admin):
    with stand.raw() as line:
        pid = line.value("select pg_backend_pid()")
        time.sleep(0.5)  # longer than server_check_delay, and far from server_idle_timeout
        assert line.value("select pg_backend_pid()") == pid
        last = "select query from pg_stat_activity where pid = %s"
        assert admin.execute(last, [pid]).fetchone() == ("select pg_backend_pid()",)


def test_server_connect_timeout(upstream):
    """A port where somebody accepts and says nothing."""
    import socket  # noqa: PLC0415

    with socket.create_server(("127.0.0.1", 0)) as mute:
        entry = f"host=127.0.0.1 port={mute.getsockname()[1]} user=app password=x"
        settings = {"server_connect_timeout": 0.5, "server_login_retry": 1}
        with Stand(upstream, settings, databases={"mute": entry, "*": ""}) as stand, stand.call() as line:
            start = time.monotonic()
            messages = line.login("app", "mute", PASSWORD)
            assert 0.4 < time.monotonic() - start < LATE
            assert sqlstate(messages) == "08006"
            assert "connect timeout" in error(messages)["M"]
            with stand.raw() as other:
                assert rows(other.ask("select 1")) == [("1",)]
