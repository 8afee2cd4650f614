"""SIGHUP: new limits at once, nothing at all from a file with mistakes, and nobody dropped who need not be."""

import time

import pytest

from tests.live.stand import Stand, wait_until
from tests.live.upstream import PASSWORD
from tests.live.wire import SYNC, bind, error, execute, parse, query, rows, sqlstate

pytestmark = pytest.mark.live


@pytest.fixture(name="stand")
def _stand(upstream):
    databases = {"first": "dbname=postgres pool_size=1", "second": "dbname=postgres"}
    with Stand(upstream, databases=databases) as stand:
        yield stand


def naps(stand, count):
    """`count` clients that sleep at the same time; how long it takes them."""
    lines = [stand.raw(database="first") for _ in range(count)]
    start = time.monotonic()
    for line in lines:
        line.send(query("select pg_sleep(0.4)"))
    for line in lines:
        assert sqlstate(line.read_until()) == ""
        line.close()
    return time.monotonic() - start


@pytest.mark.solitary
def test_a_larger_pool_is_in_force_at_once_and_a_smaller_one_as_servers_come_back(stand, admin):
    with stand.raw(database="first") as line:
        line.ask("begin; select 1")
        pid = line.value("select pg_backend_pid()")
        stand.databases["first"] = "dbname=postgres pool_size=4"
        assert "databases: changed first (pool_size '1' -> '4')" in stand.reload()
        assert line.value("select pg_backend_pid()") == pid
        assert naps(stand, 3) < 0.8
        stand.databases["first"] = "dbname=postgres pool_size=1"
        stand.reload()
        count = "select count(*) from pg_stat_activity where usename='app'"
        wait_until(lambda: admin.execute(count).fetchone() == (1,), "only the linked server is left", 3)
        assert line.value("select pg_backend_pid()") == pid
        line.ask("commit")
        assert naps(stand, 2) > 0.75


def test_waiting_clients_profit_from_a_larger_pool(stand):
    with stand.raw(database="first") as holder, stand.raw(database="first") as waiting:
        holder.ask("begin; select 1")
        waiting.send(query("select 'served'"))
        stand.wait_pools("first", cl_waiting=1)
        stand.databases["first"] = "dbname=postgres pool_size=2"
        stand.reload()
        assert rows(waiting.read_until()) == [("served",)]


def test_a_file_with_mistakes_changes_nothing_and_the_log_says_where(stand):
    with stand.raw(database="first") as line:
        pid = line.value("select pg_backend_pid()")
        stand.databases["first"] = "dbname=postgres pool_size=many"
        stand.databases["third"] = "dbname=postgres"
        stand.settings["default_pool_size"] = "-3"
        stand.settings["no_such_setting"] = "1"
        assert "reload failed, nothing has changed" in stand.reload()
        for text in ("pool_size", "default_pool_size", "no_such_setting"):
            stand.wait_log(rf"{stand.file}:\d+: .*{text}")
        assert line.value("select pg_backend_pid()") == pid
        with stand.call() as newcomer:
            assert sqlstate(newcomer.login("app", "third")) == "3D000"


def test_a_user_list_with_mistakes_changes_nothing(stand):
    stand.write()
    stand.user_list.write_text('"app" "x\nbroken\n')
    stand.mark()
    stand.signal(1)
    stand.wait_log(rf"{stand.user_list}:1")
    stand.wait_log("reload failed, nothing has changed")
    with stand.raw(database="first") as line:
        assert rows(line.ask("select 1")) == [("1",)]


def test_a_new_user_can_log_in_and_a_removed_one_cannot(stand):
    del stand.secrets["other"]
    stand.reload()
    with stand.call() as line:
        assert sqlstate(line.login("other", "first")) == "28000"
    stand.secrets["other"] = PASSWORD
    stand.reload()
    with stand.raw("other", database="first") as line:
        assert rows(line.ask("select current_user")) == [("other",)]


def test_who_is_written_into_the_user_list_can_log_in_without_a_reload(stand):
    with stand.call() as line:
        assert sqlstate(line.login("newcomer", "first")) == "28000"
    with stand.user_list.open("a") as file:
        file.write('"newcomer" "x"\n')
    stand.wait_log(f"{stand.user_list} has changed: .* 1 added, 0 removed")
    with stand.call() as line:
        assert sqlstate(line.login("newcomer", "first")) != "28000", "he is ours now; PostgreSQL does not know him"
    stand.mark()
    stand.user_list.unlink()
    stand.wait_log("No such file")
    with stand.raw("other", database="first") as line:
        assert rows(line.ask("select 1")) == [("1",)]


def test_a_changed_password_and_a_changed_place_retire_the_servers(stand, upstream, admin):
    with stand.raw(database="first") as line, stand.raw(database="second") as other:
        pid, others = line.value("select pg_backend_pid()"), other.value("select pg_backend_pid()")
        stand.databases["first"] = "dbname=template1 pool_size=1"
        assert "servers replaced: first" in stand.reload()
        assert rows(line.ask("select current_database(), pg_backend_pid() = " + pid)) == [("template1", "f")]
        assert other.value("select pg_backend_pid()") == others
        line.ask("begin; select 1")
        pid = line.value("select pg_backend_pid()")
        stand.databases["first"] = f"dbname=postgres user=app password='{PASSWORD.replace(chr(39), chr(39) * 2)}'"
        stand.reload()
        assert line.value("select pg_backend_pid()") == pid, "a transaction may end"
        line.ask("commit")
        assert rows(line.ask("select current_database()")) == [("postgres",)]
    gone = "select count(*) from pg_stat_activity where pid = %s"
    wait_until(lambda: admin.execute(gone, [pid]).fetchone() == (0,), "the old server is closed")


def test_a_database_that_is_removed_takes_its_clients_along_and_nobody_else(stand):
    with stand.raw(database="first") as line, stand.raw(database="second") as other:
        line.ask("select 1")
        del stand.databases["first"]
        stand.reload()
        words = error(line.read_to_end())
        assert words["S"] == "FATAL"
        assert "removed" in words["M"]
        assert rows(other.ask("select 'fine'")) == [("fine",)]
        with stand.call() as newcomer:
            assert sqlstate(newcomer.login("app", "first")) == "3D000"


def test_a_reload_that_changes_nothing_says_so(stand):
    assert "reloaded: nothing changed" in stand.reload()


def test_settings_that_need_a_restart_are_named(stand):
    stand.settings["listen_backlog"] = 7
    stand.reload()
    stand.wait_log("listen_backlog.*needs a restart")


def test_reloads_in_quick_succession_under_load(stand):
    with stand.raw(database="second") as line:
        for number in range(30):
            stand.settings["default_pool_size"] = number % 5 + 1
            stand.write()
            stand.signal(1)
            assert rows(line.ask(f"select {number}")) == [(str(number),)]


def test_what_a_session_has_set_stays_with_it_when_servers_become_shared(stand):
    stand.databases["first"] = "dbname=postgres pool_size=1 pool_mode=session"
    stand.reload()
    with stand.raw("postgres", "first") as one, stand.raw("postgres", "first") as two:
        one.ask("set role app; set statement_timeout = 77000")
        stand.databases["first"] = "dbname=postgres pool_size=1"
        stand.reload()
        two.send(query("select current_user, current_setting('statement_timeout')"))
        one.ask("select 1")
        assert rows(two.read_until()) == [("postgres", "0")]


@pytest.mark.parametrize("after", ["", "pool_mode=session server_reset_query=''"])
def test_a_server_that_is_being_cleaned_is_reset_as_it_was_owed_and_serves_the_next_soon(stand, after):
    stand.databases["first"] = "dbname=postgres pool_size=1 pool_mode=session"
    stand.reload()
    with stand.raw("postgres", "first") as one:
        pid = one.value("select pg_backend_pid()")
        one.ask("set role app; set work_mem = '7MB'; create temp table mine (a int)")
        one.send(query("select pg_sleep(2)"))
        stand.wait_pools("first", cl_active=1)
        one.leave()
    stand.wait_pools("first", cl_active=0, sv_idle=0)
    stand.databases["first"] = f"dbname=postgres pool_size=1 {after}"
    stand.reload()
    with stand.raw("postgres", "first") as two:
        start = time.monotonic()
        seen = "select current_user, current_setting('work_mem'), to_regclass('pg_temp.mine')"
        assert rows(two.ask(seen)) == [("postgres", "4MB", None)]
        assert two.value("select pg_backend_pid()") == pid
        assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"session_state": "leak"}, {"session_state": "track"}),
        ({"session_state": "leak"}, {"session_state": "reset"}),
        ({"session_state": "leak"}, {"pool_mode": "session"}),
        ({"pool_mode": "session", "server_reset_query": ""}, {}),
    ],
)
@pytest.mark.parametrize("is_inside", [False, True], ids=["idle", "in a transaction"])
def test_what_was_left_on_servers_while_nobody_looked_is_gone_when_somebody_does(stand, before, after, is_inside):
    stand.databases["first"] = "dbname=postgres pool_size=1"
    original = dict(stand.settings)
    stand.settings.update(before)
    stand.reload()
    with stand.raw("postgres", "first") as one, stand.raw("postgres", "first") as two:
        one.ask("set role app; set work_mem = '7MB'; create temp table mine (a int)")
        if is_inside:
            one.ask("begin; select 1")
        elif "pool_mode" in before:
            one.leave()
        stand.settings = {**original, **after}
        stand.reload()
        if is_inside:
            one.ask("commit")
            if "pool_mode" in after:
                one.leave()  # its session, by now
        seen = "select current_user, current_setting('work_mem'), to_regclass('pg_temp.mine')"
        assert rows(two.ask(seen)) == [("postgres", "4MB", None)]


ACTS = {
    "set": "set work_mem = '7MB'",
    "set role": "set role app",
    "set_config": "do $$ begin perform set_config('work_mem', '9MB', false) ; end $$",
    "temporary table": "create temp table mine (a int)",
    "advisory lock": "select pg_advisory_lock(77)",
    "cursor": "declare c cursor with hold for select 1",
    "listen": "listen news",
    "prepare": "prepare mine as select 4",
}
SEEN = (
    "select current_user, current_setting('work_mem'), to_regclass('pg_temp.mine'),"
    " (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()),"
    " (select count(*) from pg_cursors where is_holdable), (select count(*) from pg_listening_channels()),"
    " (select count(*) from pg_prepared_statements where name not like 'PGSHUTTLE%')"
)
CLEAN = ("postgres", "4MB", None, "0", "0", "0", "0")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"pool_mode": "session"}, {}),
        ({"pool_mode": "session"}, {"pool_mode": "statement"}),
        ({"session_state": "audit"}, {}),
        ({"session_state": "leak"}, {}),
        ({"pool_mode": "session"}, {"session_state": "reset"}),
    ],
)
def test_a_request_that_waits_through_a_reload_leaves_nothing_to_others(stand, before, after):
    """Neither in the queue nor under PAUSE."""
    original = {**stand.settings, "admin_users": "postgres"}
    stand.databases["first"] = "dbname=postgres pool_size=2"
    for number, act in enumerate([*ACTS.values(), None]):
        stand.settings = {**original, **before}
        stand.reload()
        with (
            stand.raw("postgres", "first") as one,
            stand.raw("postgres", "first") as two,
            stand.raw("postgres", "pgbouncer") as admin,
        ):
            admin.ask("PAUSE first")
            one.send(query(act) if act else parse("select 4", "mine") + SYNC)
            stand.wait_pools("first", cl_waiting=1)
            stand.settings = {**original, **after}
            stand.reload()
            admin.ask("RESUME first")
            assert sqlstate(one.read_until()) == ""
            assert rows(two.ask(SEEN)) == [CLEAN], f"{number}: {act}"
            admin.ask("RECONNECT first")


def test_who_waits_in_the_queue_takes_what_he_sets_along(stand):
    stand.databases["first"] = "dbname=postgres pool_size=1 pool_mode=session"
    stand.reload()
    with stand.raw("postgres", "first") as first, stand.raw("postgres", "first") as one:
        first.ask("select 1")
        one.send(query("set work_mem = '7MB'"))
        stand.wait_pools("first", cl_waiting=1)
        stand.databases["first"] = "dbname=postgres pool_size=1"
        stand.reload()
        first.leave()
        assert sqlstate(one.read_until()) == ""
        with stand.raw("postgres", "first") as two:
            assert two.value("show work_mem") == "4MB"
            assert one.value("show work_mem") == "7MB"
            assert two.value("show work_mem") == "4MB"


@pytest.mark.parametrize("before", [{"pool_mode": "session"}, {"listen_mode": "pin"}])
def test_a_listen_that_waits_through_a_reload_is_heard(stand, before):
    original = {**stand.settings, "admin_users": "postgres"}
    stand.databases["first"] = "dbname=postgres pool_size=2"
    stand.settings = {**original, **before}
    stand.reload()
    with (
        stand.raw("postgres", "first") as one,
        stand.raw("postgres", "first") as two,
        stand.raw("postgres", "pgbouncer") as admin,
    ):
        admin.ask("PAUSE first")
        one.send(query("listen news"))
        stand.wait_pools("first", cl_waiting=1)
        stand.settings = original
        stand.reload()
        admin.ask("RESUME first")
        assert sqlstate(one.read_until()) == ""
        two.ask("notify news, 'hello'")
        assert one.read_until("A")[-1].body.endswith(b"news\0hello\0")


@pytest.mark.parametrize("is_inside", [False, True], ids=["at rest", "in a transaction"])
def test_prepared_statements_outlive_a_reload_to_session_mode(stand, is_inside):
    stand.databases["first"] = "dbname=postgres pool_size=2"
    stand.reload()
    run = bind(statement="mine") + execute() + SYNC
    with stand.raw("postgres", "first") as one:
        one.send(parse("select 4", "mine") + SYNC)
        assert sqlstate(one.read_until()) == ""
        one.ask('prepare "th""eirs" as select 5')
        if is_inside:
            one.ask("begin; select 1")
        stand.databases["first"] = "dbname=postgres pool_size=2 pool_mode=session"
        stand.reload()
        one.send(run)
        assert rows(one.read_until()) == [("4",)]
        if is_inside:
            one.ask("commit")
        assert rows(one.ask('execute "th""eirs"')) == [("5",)]
        one.send(run)
        assert rows(one.read_until()) == [("4",)]
        names = "select count(*) from pg_prepared_statements where name in ('mine', 'th\"eirs')"
        assert one.value(names) == "2"


def test_a_function_that_is_named_by_a_reload_keeps_who_has_prepared_it_on_his_server(stand):
    stand.databases["second"] = "dbname=postgres pool_size=2"
    stand.settings["server_round_robin"] = 1
    stand.reload()
    run = bind(statement="mine") + execute() + SYNC
    with stand.raw(database="second") as one, stand.raw(database="second") as two:
        one.ask("begin; select 1")
        two.ask("select 1")  # there are two servers
        one.ask("commit")
        one.send(parse("select pg_backend_pid()", "mine") + SYNC)
        one.read_until()
        stand.settings["pin_functions"] = "pg_backend_pid"
        stand.reload()
        seen = set()
        for _ in range(4):
            one.send(run)
            seen.add(rows(one.read_until())[0])
            two.ask("select 1")
            two.ask("select 1")
        assert len(seen) == 1
