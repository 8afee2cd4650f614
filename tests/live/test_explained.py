"""What those who wait are told, as a driver shows it; who is named, and to whom; what an operator sees of the same."""

import re
import time
from contextlib import contextmanager
from types import SimpleNamespace

import psycopg
import pytest

from tests.live.stand import Stand, wait_until
from tests.live.upstream import PASSWORD
from tests.live.wire import SYNC, ask, error, fields, kinds, query, rows, sqlstate

pytestmark = pytest.mark.live

SAID = ("severity", "sqlstate", "message_primary", "message_detail", "message_hint")
FIRST = "No server connection available in postgres backend, client being queued"


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    databases = {
        "one": "dbname=postgres pool_size=1",
        "common": f"dbname=postgres pool_size=1 user=app password='{PASSWORD.replace(chr(39), chr(39) * 2)}'",
        "capped": "dbname=postgres max_db_connections=1",
        "session": "dbname=postgres pool_mode=session pool_size=1",
    }
    settings = {
        "query_wait_notify": 0.3,
        "query_wait_timeout": 1.5,
        "server_login_retry": 1,
        "server_check_delay": 60,
        "pool_mode": "transaction",
        "stats_users": "other",
    }
    with Stand(upstream, settings, databases=databases) as stand:
        yield stand


@contextmanager
def holding(stand, **where):
    """Somebody who calls himself billing has the only server."""
    with stand.connect(**{"dbname": "one", "application_name": "billing", **where}) as holder:
        holder.execute("begin")
        holder.execute("select 'a secret of mine'")
        yield holder
        holder.execute("rollback")


def wait_told(connection):
    """The one notice that somebody hears who asks for a server, then the error that ends his waiting."""
    notices = []
    connection.add_notice_handler(
        lambda diag: notices.append(SimpleNamespace(**{name: getattr(diag, name) for name in SAID}))
    )
    with pytest.raises(psycopg.Error) as caught:
        connection.execute("select 1")
    (notice,) = notices
    return notice, caught.value.diag


def test_a_driver_shows_who_is_in_the_way_and_what_can_be_done(stand):
    stand.mark()
    with holding(stand), stand.connect(dbname="one") as waiting:
        notice, diag = wait_told(waiting)
    assert (notice.severity, notice.sqlstate, notice.message_primary) == ("NOTICE", "00000", FIRST)
    who = (
        r"The one server of pool one/app is busy: 1 idle in a transaction; the longest belongs to"
        r' application "billing" \(user app at 127\.0\.0\.1:\d+\), for \d\.\d s, idle in transaction for \d\.\d s\.'
        r" You are number 1 of 1 in the queue\."
    )
    assert re.fullmatch(who, notice.message_detail), notice.message_detail
    assert "idle_transaction_timeout" in notice.message_hint
    assert (diag.severity, diag.sqlstate, diag.message_primary) == ("FATAL", "53300", "query_wait_timeout")
    assert 'application "billing"' in diag.message_detail
    assert diag.message_hint == notice.message_hint
    line = stand.wait_log("pooler error: query_wait_timeout")
    assert re.search(r"query_wait_timeout: waited for 1\.\d s: The one server .* application \"billing\"", line)
    warning = stand.wait_log("WARNING one/app: 1 client waits for a server")
    assert 'application "billing" (user app at 127.0.0.1:' in warning
    assert "secret" not in notice.message_detail + diag.message_detail + stand.log


def test_everybody_knows_his_place(stand):
    with holding(stand), stand.raw(database="one") as first, stand.raw(database="one") as second:
        for line in (first, second):
            line.send(query("select 1"))
            time.sleep(0.05)
        heard = [fields(line.read_until("N")[-1].body)["D"] for line in (first, second)]
    assert " You are number 1 of " in heard[0]
    assert heard[1].endswith(" You are number 2 of 2 in the queue.")


def test_whoever_is_somebody_else_hears_numbers_only(stand):
    with holding(stand, dbname="common"), stand.connect("other", dbname="common") as waiting:
        notice, diag = wait_told(waiting)
    for words in (notice.message_detail, diag.message_detail):
        assert re.search(r"the longest has been held by another user for \d\.\d s\.", words), words
        assert "billing" not in words
        assert "127.0.0.1" not in words
    assert 'application "billing" (user app at' in stand.wait_log("common/app: 1 client waits")


def test_a_limit_over_several_pools_is_named_and_counted(stand):
    with stand.connect("other", dbname="capped") as waiting, holding(stand, dbname="capped"):
        notice, diag = wait_told(waiting)
    words = 'max_db_connections (1) is reached for database "capped": 0 in this pool, 1 in 1 other pool.'
    assert notice.message_detail.startswith(words)
    assert (diag.sqlstate, diag.message_primary) == ("53300", "query_wait_timeout")
    assert "1 in capped/app" in stand.wait_log("capped/other: 1 client waits")


def test_a_pause_is_told_as_such(stand):
    with stand.connect("postgres", "pgbouncer") as console, stand.connect(dbname="one") as waiting:
        waiting.execute("select 1")
        console.execute("PAUSE one")
        try:
            notice, diag = wait_told(waiting)
        finally:
            console.execute("RESUME one")
    assert notice.message_detail.startswith("The database is paused by an administrator. You are number 1 of 1")
    assert (diag.sqlstate, diag.message_primary) == ("57P03", "query_wait_timeout")
    assert diag.message_hint == "It goes on with RESUME on the console."


def test_logins_that_fail_are_told_with_the_servers_words_and_sqlstate(stand, admin):
    with stand.connect("postgres", "pgbouncer") as console, stand.connect("other", dbname="one") as waiting:
        waiting.execute("select 1")
        admin.execute("alter role other nologin")
        try:
            console.execute("RECONNECT one")
            with pytest.raises(psycopg.Error, match='role "other" is not permitted to log in') as caught:
                waiting.execute("select 1")
            with stand.call() as late:
                refused = error(late.login("other", "one"))
        finally:
            admin.execute("alter role other login")
    diag = caught.value.diag
    said = {"S": diag.severity, "C": diag.sqlstate, "M": diag.message_primary, "D": diag.message_detail}
    for told in (said, refused):
        assert (told["S"], told["C"]) == ("FATAL", "28000")
        assert told["M"].startswith("server login has been failing, cached error: ")
        assert told["D"].startswith("Server logins have been failing for ")


def test_the_console_shows_who_holds_what_and_what_is_waited_for(stand):
    with holding(stand), stand.raw(database="one") as waiting, stand.connect("other", "pgbouncer") as console:
        (row,) = [row for row in show(console, "HOLDERS") if row["database"] == "one"]
        assert (row["user"], row["application_name"], row["addr"]) == ("app", "billing", "127.0.0.1")
        assert (row["state"], row["servers"], row["pinned"], row["query_age"]) == ("idle in transaction", 1, "", None)
        assert 0 < float(row["idle_in_xact"]) <= float(row["xact_age"]) < 10
        waiting.send(query("select 1"))
        seen = []
        wait_until(lambda: seen.extend(find_waited_for(console)) or seen, "somebody waits")
    assert seen == ["all servers of the pool are busy: 1 idle in a transaction"]


def show(console, what):
    with console.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return cursor.execute(f"SHOW {what}").fetchall()


def find_waited_for(console):
    return [row["waiting_for"] for row in show(console, "POOLS") if row["database"] == "one" and row["cl_waiting"]]


def test_a_session_that_keeps_its_server_is_called_that(stand):
    with stand.connect(dbname="session", application_name="report") as holder:
        holder.execute("select 1")
        with stand.connect(dbname="session") as waiting:
            notice, _ = wait_told(waiting)
    assert "1 kept by a session that does nothing" in notice.message_detail
    assert 'application "report"' in notice.message_detail
    assert "session mode" in notice.message_hint


def test_a_login_that_must_ask_a_server_about_its_parameters_waits_like_others(stand):
    with holding(stand), stand.call() as line:
        stand.mark()
        words = error(line.login("app", "one", timezone="Asia/Tokyo"))
    assert (words["S"], words["C"], words["M"]) == ("FATAL", "53300", "query_wait_timeout")
    assert 'application "billing" (user app at' in words["D"]
    assert 'application "billing"' in stand.wait_log("pooler error: query_wait_timeout: waited for")


# Settings that change what clients meet.


def test_simple_queries_are_refused_where_that_is_wanted(upstream):
    with Stand(upstream, {"disable_pqexec": 1}) as stand:
        with stand.raw() as line:
            line.send(ask("select $1", "extended"), SYNC)
            assert rows(line.read_until()) == [("extended",)]
            line.send(query("select 'simple'"))
            words = error(line.read_to_end())
            assert (words["S"], words["C"], words["M"]) == ("FATAL", "0A000", "PQexec disallowed")
        with stand.connect("postgres", "pgbouncer") as console:
            assert console.execute("SHOW VERSION").fetchone()


def test_the_operators_words_are_heard_after_each_login_and_change_with_a_reload(upstream):
    with Stand(upstream, {"login_notify_message": "maintenance at 22:00"}) as stand:
        with stand.call() as line:
            messages = line.login("app", "postgres")
        assert [fields(each.body)["M"] for each in messages if each.kind == "N"] == ["maintenance at 22:00"]
        assert kinds(messages)[-1] == "Z"
        stand.settings["login_notify_message"] = ""
        stand.reload()
        with stand.call() as line:
            assert not [each for each in line.login("app", "postgres") if each.kind == "N"]
        with stand.connect() as connection:
            assert connection.execute("select 1").fetchone() == (1,)


def test_a_pool_nobody_uses_is_forgotten_and_comes_again(upstream):
    with Stand(upstream, {"pool_idle_timeout": 1, "server_idle_timeout": 600}) as stand:
        with stand.connect("postgres", "pgbouncer") as console:
            with stand.raw() as line:
                line.ask("select 1")
                stand.wait_log("registered new auto-database: db=postgres")
                time.sleep(1.6)
                assert "cleaning up" not in stand.log
            stand.wait_log("cleaning up idle pool postgres/app", 4)
            pools = [row[:2] for row in console.execute("SHOW POOLS").fetchall()]
            assert pools == [("pgbouncer", "pgbouncer")]
        with stand.raw() as line:
            assert rows(line.ask("select 1")) == [("1",)]


def test_a_database_that_only_the_star_knows_is_forgotten_after_its_time(upstream):
    settings = {"autodb_idle_timeout": 0.5, "server_idle_timeout": 0.5, "server_check_delay": 60}
    with Stand(upstream, settings, databases={"shop": "dbname=postgres", "*": ""}) as stand:
        for name in ("template1", "shop"):
            with stand.raw(database=name) as line:
                line.ask("select 1")
        stand.wait_log("registered new auto-database: db=template1")
        stand.wait_log("cleaning up idle pool template1/app", 5)
        assert "auto-database: shop" not in stand.log
        assert "idle pool shop" not in stand.log
        with stand.raw(database="template1") as line:
            assert rows(line.ask("select 1")) == [("1",)]


def test_sessions_on_outdated_servers_end_between_transactions_where_that_is_wanted(upstream):
    with (
        Stand(upstream, {"server_fast_close": 1, "pool_mode": "session"}) as stand,
        stand.raw() as resting,
        stand.raw() as working,
        stand.connect("postgres", "pgbouncer") as console,
    ):
        resting.ask("select 1")
        working.ask("begin; select 1")
        console.execute("RECONNECT postgres")
        words = error(resting.read_to_end())
        assert (words["S"], words["C"], words["M"]) == ("FATAL", "57P01", "database configuration changed")
        time.sleep(0.8)
        assert rows(working.ask("select 'still here'")) == [("still here",)]
        working.ask("commit")
        assert error(working.read_to_end())["M"] == "database configuration changed"


def test_a_login_that_waits_for_a_server_that_does_not_answer_says_so(upstream):
    import socket  # noqa: PLC0415

    with socket.create_server(("127.0.0.1", 0)) as mute:
        entry = f"host=127.0.0.1 port={mute.getsockname()[1]} user=app password=x"
        settings = {"client_login_timeout": 0.5, "server_connect_timeout": 10}
        with Stand(upstream, settings, databases={"mute": entry, "*": ""}) as stand, stand.call() as line:
            words = error(line.login("app", "mute"))
            assert (words["S"], words["C"], words["M"]) == ("FATAL", "08006", "client_login_timeout (server down)")
            assert words["D"].startswith("A server connection is being opened, since 0.")
            stand.wait_log(r"pooler error: client_login_timeout \(server down\): A server connection is being opened")


def test_a_login_while_a_pool_is_paused_waits_and_says_why(upstream):
    with Stand(upstream, {"client_login_timeout": 0.5}) as stand, stand.connect("postgres", "pgbouncer") as console:
        console.execute("PAUSE")
        with stand.call() as line:
            words = error(line.login("app", "postgres"))
        assert (words["C"], words["M"]) == ("57P03", "client_login_timeout")
        assert words["D"] == "The database is paused by an administrator."
        console.execute("RESUME")
        with stand.raw() as line:
            assert sqlstate(line.ask("select 1")) == ""
