"""What a client does to its session follows it from server to server, or keeps it on one: never is it a neighbour's."""

import random
import signal
import threading
import time
from contextlib import ExitStack, suppress

import psycopg
import pytest

from tests.live.stand import Stand, wait_until
from tests.live.wire import query

pytestmark = pytest.mark.live

ENOUGH = 500  # times that fifty tenants have looked


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    with upstream.connect() as admin:
        for role in ("clerk", "auditor"):
            admin.execute(f"create role {role}")
        admin.execute("grant clerk to app")
        admin.execute("drop schema if exists spare cascade; drop schema if exists evil cascade")
        admin.execute("create schema spare; create schema evil; grant usage on schema spare, evil to public")
        admin.execute(
            "create function evil.current_setting(text, boolean) returns text language sql as $$ select 'gotcha' $$"
        )
    databases = {
        "postgres": "pool_size=2",
        "one": "dbname=postgres pool_size=1",
        "statement": "dbname=postgres pool_size=2 pool_mode=statement",
    }
    with Stand(upstream, {"server_round_robin": 1}, databases=databases) as stand:
        yield stand


@pytest.fixture(name="alice")
def _alice(stand):
    with stand.connect() as client:
        yield client


@pytest.fixture(name="bob")
def _bob(stand):
    with stand.connect() as client:
        yield client


def value(client, text, *more):
    return client.execute(text, *more).fetchone()[0]


def pid(client):
    return value(client, "select pg_backend_pid()")


def pids(client, count=6):
    return {pid(client) for _ in range(count)}


def show(client, name):
    """A custom parameter that nobody has set here is empty, or unknown."""
    return value(client, f"select pg_catalog.current_setting('{name}', true)") or ""


def warm(*clients):
    """Both servers are open, and idle."""
    with ExitStack() as stack:
        for client in clients:
            stack.enter_context(client.transaction())
            client.execute("select 1")


def check_everywhere(client, name, expected):
    """On both servers."""
    seen = set()
    for _ in range(6):
        row = client.execute(f"select pg_backend_pid(), pg_catalog.current_setting('{name}', true)").fetchone()
        assert (row[1] or "") == expected
        seen.add(row[0])
    return seen


# What is replayed.


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("set statement_timeout = 54321", "statement_timeout", "54321ms"),
        ("set work_mem = '7MB'", "work_mem", "7MB"),
        ("set search_path = spare, public", "search_path", "spare, public"),
        ("set search_path = ''", "search_path", '""'),
        ("select set_config('search_path', '', false)", "search_path", ""),
        ("set myapp.tenant = 'it''s 7 ü'", "myapp.tenant", "it's 7 ü"),
        ("select set_config('myapp.tenant', E'a\\nb\\\\', false)", "myapp.tenant", "a\nb\\"),
        ("set session characteristics as transaction read only", "default_transaction_read_only", "on"),
        ("set time zone 'Asia/Tokyo'", "timezone", "Asia/Tokyo"),
        ("set role clerk", "role", "clerk"),
        ("do $$ begin perform set_config('lock_timeout', '3s', false); end $$", "lock_timeout", "3s"),
        ("do $$ begin perform set_config('my.own', 'x', false); end $$", "my.own", "x"),
    ],
)  # fmt: skip
def test_what_one_transaction_sets_is_there_in_the_next_on_either_server_and_not_at_a_neighbours(
    alice, bob, text, name, said
):
    warm(alice, bob)
    theirs = show(bob, name)
    alice.execute(text)
    assert len(check_everywhere(alice, name, said)) == 2
    assert len(check_everywhere(bob, name, theirs) | pids(bob)) == 2
    assert len(check_everywhere(alice, name, said)) == 2


def test_a_value_set_in_a_transaction_counts_from_its_commit_on(alice, bob):
    warm(alice, bob)
    with alice.transaction():
        alice.execute("set work_mem = '9MB'")
        assert show(alice, "work_mem") == "9MB"
        assert show(bob, "work_mem") == "4MB"
    check_everywhere(alice, "work_mem", "9MB")
    check_everywhere(bob, "work_mem", "4MB")


def test_what_is_local_or_rolled_back_leaves_no_trace(alice, bob):
    warm(alice, bob)
    with alice.transaction():
        alice.execute("set local work_mem = '9MB'")
    with alice.transaction(force_rollback=True):
        alice.execute("set lock_timeout = 999; set my.thing = 1; select set_config('my.other', 'x', false)")
    for name, said in (("work_mem", "4MB"), ("lock_timeout", "0"), ("my.thing", ""), ("my.other", "")):
        for client in (alice, bob):
            for _ in range(4):
                assert show(client, name) == said


def test_savepoints_are_respected(alice):
    with alice.transaction():
        alice.execute("set work_mem = '9MB'")
        with alice.transaction(force_rollback=True):
            alice.execute("set work_mem = '11MB'")
        with alice.transaction():
            alice.execute("set lock_timeout = '2s'")
    check_everywhere(alice, "work_mem", "9MB")
    check_everywhere(alice, "lock_timeout", "2s")


def test_a_set_that_the_server_rejects_is_not_remembered(alice):
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        alice.execute("set work_mem = 'much'")
    check_everywhere(alice, "work_mem", "4MB")


def test_a_role_follows_its_client_with_its_rights(stand, admin):
    with stand.connect() as alice, stand.connect() as bob:
        warm(alice, bob)
        alice.execute("set role clerk; set work_mem = '6MB'")
        for _ in range(4):
            assert value(alice, "select current_user::text") == "clerk"
            assert value(bob, "select current_user::text") == "app"
        alice.execute("reset role")
        for _ in range(4):
            assert value(alice, "select current_user::text") == "app"
        assert show(alice, "work_mem") == "6MB"


def test_a_session_authorization_follows_its_client(stand):
    with stand.connect("postgres") as alice, stand.connect("postgres") as bob:
        warm(alice, bob)
        alice.execute("set session authorization app; set role clerk")
        for _ in range(4):
            assert alice.execute("select session_user::text, current_user::text").fetchone() == ("app", "clerk")
            assert bob.execute("select session_user::text, current_user::text").fetchone() == ("postgres", "postgres")
        alice.execute("reset session authorization")
        for _ in range(4):
            assert alice.execute("select session_user::text, current_user::text").fetchone() == ("postgres", "postgres")


def test_reset_goes_back_to_what_the_server_has(alice, bob):
    warm(alice, bob)
    alice.execute("set work_mem = '9MB'")
    alice.execute("set my.x = 1")
    check_everywhere(alice, "work_mem", "9MB")
    alice.execute("reset work_mem")
    check_everywhere(alice, "work_mem", "4MB")
    check_everywhere(alice, "my.x", "1")
    alice.execute("reset all")
    check_everywhere(alice, "my.x", "")


def test_discard_all_makes_everything_as_at_login(alice, bob):
    warm(alice, bob)
    alice.execute("set work_mem = '9MB'; set role clerk; create temp table t (a int); select pg_advisory_lock(5)")
    assert len(pids(alice)) == 1
    alice.execute("discard all")
    assert len(pids(alice) | pids(alice)) == 2
    check_everywhere(alice, "work_mem", "4MB")
    check_everywhere(alice, "role", "none")


def test_a_hostile_search_path_does_not_fool_the_question(alice, bob):
    warm(alice, bob)
    alice.execute("set search_path = evil, pg_catalog; set work_mem = '9MB'")
    check_everywhere(alice, "work_mem", "9MB")
    alice.execute("reset search_path")
    check_everywhere(alice, "work_mem", "9MB")
    check_everywhere(bob, "work_mem", "4MB")


def test_a_replay_that_fails_ends_the_client_in_the_servers_words_and_nothing_runs(stand, admin):
    with stand.connect() as bob, stand.connect() as alice:
        warm(alice, bob)
        alice.execute("set role clerk")
        admin.execute("revoke clerk from app")
        try:
            check_everywhere(bob, "role", "none")
            with pytest.raises(psycopg.Error) as refused:
                check_everywhere(alice, "role", "clerk")
            assert refused.value.sqlstate == "42501"
            assert "role" in refused.value.diag.message_hint
        finally:
            admin.execute("grant clerk to app")
        assert value(bob, "select current_user::text") == "app"


@pytest.mark.parametrize("turns", [0, 1])
def test_a_role_is_the_one_that_has_the_name_now_on_every_server(stand, turns):
    as_admin = {"user": "postgres", "autocommit": True}
    with stand.connect(**as_admin) as admin, stand.connect(**as_admin) as alice, stand.connect(**as_admin) as bob:
        warm(alice, bob)
        admin.execute("create role page")
        try:
            alice.execute("set role page")
            check_everywhere(alice, "role", "page")
            admin.execute("alter role page rename to knight; create role page")  # one server forgets alice's
            for _ in range(turns):
                value(alice, "select 1")
            bob.execute("set role page")
            assert {value(bob, "select current_user::text") for _ in range(4)} == {"page"}
        finally:
            admin.execute("drop role if exists knight, page")


def test_a_tiny_timeout_of_a_neighbour_strikes_nobody_else(alice, bob):
    warm(alice, bob)
    alice.execute("set statement_timeout = 1")
    for _ in range(30):
        value(bob, "select 1 from pg_sleep(0.003)")
        with suppress(psycopg.errors.QueryCanceled):
            value(alice, "select 1")


# What keeps a client on its server.


@pytest.mark.parametrize(
    ("makes", "ends"),
    [
        ("create temp table t (a int)", "drop table t"),
        ("create temp view v as select 1", "drop view v"),
        ("select 1 as a into temp t", "drop table t"),
        ("create table pg_temp.t (a int)", "discard temp"),
        ("select pg_advisory_lock(7)", "select pg_advisory_unlock(7)"),
        ("select pg_try_advisory_lock_shared(1, 2)", "select pg_advisory_unlock_all()"),
        ("begin; declare c cursor with hold for select 1; commit", "close c"),
        ("do $$ begin create temp table t (a int); end $$", "do $$ begin drop table t; end $$"),
    ],
)
def test_what_cannot_be_replayed_keeps_its_client_there_until_it_is_gone(alice, bob, makes, ends):
    warm(alice, bob)
    alice.execute(makes)
    assert len(pids(alice)) == 1
    assert len(pids(bob)) == 1
    alice.execute(ends)
    assert len(pids(alice) | pids(alice)) == 2


@pytest.mark.parametrize(
    "text",
    [
        "begin; create temp table t (a int) on commit drop; commit",
        "begin; create temp table t (a int); rollback",
        "begin; select pg_advisory_xact_lock(7); commit",
        "begin; declare c cursor with hold for select 1; rollback",
    ],
)
def test_what_is_gone_with_its_transaction_keeps_nobody(alice, bob, text):
    warm(alice, bob)
    alice.execute(text)
    assert len(pids(alice)) == 2


def test_a_lock_that_was_tried_in_vain_keeps_nobody(stand, alice, bob, admin):
    warm(alice, bob)
    admin.execute("select pg_advisory_lock(99)")
    assert value(alice, "select pg_try_advisory_lock(99)") is False
    assert len(pids(alice)) == 2
    admin.execute("select pg_advisory_unlock(99)")


def test_a_pinned_client_that_leaves_leaves_nothing(stand):
    with stand.connect(dbname="one") as bob:
        with stand.connect(dbname="one") as alice:
            alice.execute("create temp table left_behind (a int); set work_mem = '9MB'; select pg_advisory_lock(3)")
            alice.execute("set my.secret = 'x'")
        assert value(bob, "select to_regclass('left_behind')") is None
        assert show(bob, "work_mem") == "4MB"
        assert not show(bob, "my.secret")
        assert value(bob, "select pg_try_advisory_lock(3)") is True


def test_a_client_that_vanishes_behind_a_set_leaves_nothing(stand):
    with stand.connect(dbname="one") as bob:
        for _ in range(30):
            alice = stand.raw(database="one")
            alice.send(b"Q" + (38).to_bytes(4, "big") + b"set my.secret = 'mine'; select 1;\0")
            alice.close()
            assert not show(bob, "my.secret")


def test_what_is_pipelined_behind_a_set_runs_under_it_and_is_answered_in_order(stand):
    with stand.connect(dbname="one") as alice, stand.connect(dbname="one") as bob, alice.pipeline() as pipe:
        for number in range(50):
            alice.execute(f"set my.number = '{number}'")
            pipe.sync()
            cursor = alice.execute("select current_setting('my.number')")
            pipe.sync()
            if number % 10 == 0:
                assert cursor.fetchone()[0] == str(number)
                assert not show(bob, "my.number")


def test_a_block_that_takes_a_role_takes_it_for_its_client_alone(alice, bob):
    warm(alice, bob)
    alice.execute("do $$ begin execute 'set role clerk'; end $$")
    for _ in range(4):
        assert value(alice, "select current_user::text") == "clerk"
        assert value(bob, "select current_user::text") == "app"
    alice.execute("do $$ begin execute 'reset role'; end $$")
    for _ in range(4):
        assert value(alice, "select current_user::text") == "app"


def test_what_a_procedure_sets_without_a_word_about_it_is_nobodys(stand, admin, alice, bob):
    """Nobody can list it, so it is put back: better lost than a neighbour's."""
    admin.execute(
        "create or replace procedure enter() language plpgsql as"
        " $$ begin perform set_config('hidden.tenant', 'seven', false); end $$"
    )
    warm(alice, bob)
    alice.execute("set work_mem = '9MB'")
    alice.execute("call enter()")
    for _ in range(4):
        assert show(bob, "hidden.tenant") == ""
        assert show(alice, "work_mem") == "9MB"


def test_a_long_value_keeps_its_client_whatever_sets_it(alice, bob):
    warm(alice, bob)
    alice.execute("do $$ begin perform set_config('my.long', repeat('x', 3000), false); end $$")
    assert len(pids(alice)) == 1
    alice.execute("do $$ begin end $$")
    assert show(alice, "my.long") == "x" * 3000
    alice.execute("set my.long = 'short'")
    assert len(pids(alice) | pids(alice)) == 2
    assert show(bob, "my.long") == ""


def test_a_value_in_another_encoding_stays_what_it_is(stand):
    with stand.connect(client_encoding="LATIN1") as alice, stand.connect() as bob:
        warm(alice, bob)
        alice.execute("set my.city = 'Z\u00fcrich'")
        for _ in range(4):
            assert show(alice, "my.city") == "Z\u00fcrich"
            assert show(bob, "my.city") == ""


def test_one_who_may_only_read_can_be_asked(alice, bob):
    warm(alice, bob)
    alice.execute("set default_transaction_read_only = on; set default_transaction_isolation = 'serializable'")
    alice.execute("set row_security = off")
    check_everywhere(alice, "default_transaction_read_only", "on")
    check_everywhere(alice, "row_security", "off")
    check_everywhere(bob, "row_security", "on")


def test_the_console_says_who_is_pinned_and_why(stand, alice):
    alice.execute("select pg_advisory_lock(4711)")
    alice.execute("select 1")  # answered only when it is known what the one before has left
    with stand.connect("postgres", "pgbouncer") as console:
        found = console.execute("show clients")
        names = [column.name for column in found.description]
        rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        reasons = [row["pin_reason"] for row in rows if row["pinned"] == 1]
        assert len(reasons) == 1
        assert reasons[0].startswith("advisory lock since 2")
        assert reasons[0].endswith("by: select pg_advisory_lock(?)")
        pins = console.execute("show pins").fetchall()
        assert any(row[2] == "advisory lock" and row[3] == 1 for row in pins)
    alice.execute("select pg_advisory_unlock(4711)")


def test_in_statement_mode_a_set_follows_too(stand):
    with stand.connect(dbname="statement") as alice, stand.connect(dbname="statement") as bob:
        alice.execute("set work_mem = '9MB'")
        for _ in range(4):
            assert show(alice, "work_mem") == "9MB"
            assert show(bob, "work_mem") == "4MB"


def test_a_drivers_reset_brings_back_what_its_client_came_with(stand, bob):
    with stand.connect(options="-c work_mem=9MB -c timezone=Asia/Tokyo", application_name="driver") as alice:
        warm(alice, bob)
        for _ in range(3):
            alice.execute("set work_mem = '11MB'; set timezone = 'CET'; set my.x = 1")
            alice.execute("select pg_advisory_unlock_all(); close all; unlisten *; reset all;")
            assert show(bob, "work_mem") == "4MB"
            check_everywhere(alice, "work_mem", "9MB")
            check_everywhere(alice, "timezone", "Asia/Tokyo")
            check_everywhere(alice, "application_name", "driver")
            check_everywhere(alice, "my.x", "")


# Other ways to treat sessions.


@pytest.mark.parametrize(("mode", "theirs"), [("track", "4MB"), ("reset", "4MB"), ("leak", "9MB")])
def test_what_a_neighbour_meets_in_each_mode(upstream, mode, theirs):
    settings = {"session_state": mode, "default_pool_size": 1}
    with Stand(upstream, settings) as stand, stand.connect() as alice, stand.connect() as bob:
        alice.execute("set work_mem = '9MB'" + ("; select pg_advisory_lock(12)" if mode == "reset" else ""))
        assert show(bob, "work_mem") == theirs
        assert show(alice, "work_mem") == ("4MB" if mode == "reset" else "9MB")
        assert value(bob, "select count(*) from pg_locks where locktype = 'advisory'") == 0


def test_listen_may_pin(upstream):
    settings = {"listen_mode": "pin", "default_pool_size": 2, "server_round_robin": 1}
    with Stand(upstream, settings) as stand, stand.connect() as alice, stand.connect() as bob:
        warm(alice, bob)
        alice.execute("listen news")
        assert len(pids(alice)) == 1
        bob.execute("notify news, 'x'")
        assert [each.payload for each in alice.notifies(timeout=5, stop_after=1)] == ["x"]
        alice.execute("unlisten news")
        assert len(pids(alice) | pids(alice)) == 2


def test_functions_that_are_named_pin(upstream):
    settings = {"pin_functions": "pg_backend_pid", "default_pool_size": 2, "server_round_robin": 1}
    with Stand(upstream, settings) as stand, stand.connect() as alice, stand.connect() as bob:
        warm(alice, bob)
        assert len(pids(alice)) == 1


def test_an_audit_counts_and_changes_nothing(upstream):
    with Stand(upstream, {"session_state": "audit", "default_pool_size": 2}) as stand:
        with stand.connect(application_name="shop") as alice:
            alice.execute("set my.x = 'secret'; create temp table t (a int)")
            assert show(alice, "my.x") == "secret"
            with stand.connect("postgres", "pgbouncer") as console:
                rows = console.execute("show audit").fetchall()
        assert [row[1:6] for row in rows] == [
            ("app", "shop", "set", "replayed", 1),
            ("app", "shop", "temporary object", "pinned", 1),
        ]
        stand.mark()
        stand.signal(signal.SIGINT)
        stand.wait_end()
        assert "audit: postgres/app application 'shop': set 1 times" in stand.fresh_log
        assert "secret" not in stand.fresh_log


# Nobody meets what is somebody else's.


def test_fifty_tenants_on_two_servers_never_meet(stand):
    wrong, done, begun = [], [0], time.monotonic()

    def is_over():
        """A busy machine takes longer to show as much."""
        spent = time.monotonic() - begun
        return bool(wrong) or (spent > 4 and (done[0] > ENOUGH or spent > 30))

    def work(number):
        rng = random.Random(number)
        with stand.connect() as client:
            client.execute(f"set myapp.tenant = 'tenant {number}'")
            while not is_over():
                seen = show(client, "myapp.tenant")
                if seen != f"tenant {number}":
                    wrong.append((number, seen))
                if rng.random() < 0.05:
                    client.execute(f"set statement_timeout = {number + 5}000")
                    if show(client, "statement_timeout") != value(client, f"select '{number + 5}s'") and number < 55:
                        wrong.append((number, show(client, "statement_timeout")))
                done[0] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert done[0] > ENOUGH


def test_clients_that_vanish_at_any_moment_leave_nothing_to_anybody(stand):
    wrong, end = [], time.monotonic() + 3

    def vanish(number):
        rng = random.Random(number)
        texts = (
            "set my.secret = 'mine'",
            "set role clerk",
            "create temp table t_left (a int)",
            "select pg_advisory_lock(77)",
            "begin; set my.secret = 'mine'; commit",
            "do $$ begin perform set_config('my.secret', 'x', false); end $$",
        )
        while time.monotonic() < end:
            line = stand.raw()
            for _ in range(rng.randint(1, 4)):
                line.send(query(rng.choice(texts)))
                if rng.random() < 0.5:
                    line.read_until()
            time.sleep(rng.random() / 300)
            line.close()

    def look():
        with stand.connect() as client:
            while time.monotonic() < end:
                row = client.execute(
                    "select coalesce(current_setting('my.secret', true), ''), current_user::text,"
                    " to_regclass('t_left') is null, exists (select from pg_locks where locktype = 'advisory'"
                    " and pid = pg_backend_pid())"
                ).fetchone()
                if row != ("", "app", True, False):
                    wrong.append(row)

    threads = [threading.Thread(target=vanish, args=(number,)) for number in range(4)]
    threads += [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_client_that_sets_something_each_time_does_not_keep_the_others_waiting(stand):
    stop = threading.Event()

    def set_always():
        with stand.connect(dbname="one") as alice:
            number = 0
            while not stop.is_set():
                number += 1
                alice.execute(f"set my.number = '{number}'")

    thread = threading.Thread(target=set_always)
    thread.start()
    try:
        with stand.connect(dbname="one") as bob:
            began = time.monotonic()
            for _ in range(50):
                assert not show(bob, "my.number")
            assert time.monotonic() - began < 5
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("begin", ["begin", ""])
def test_what_was_set_for_a_transaction_is_nobodys_parameter(stand, begin):
    """PostgreSQL goes on listing it as the session's (pg_settings.source) once a SET TRANSACTION has named it."""
    with stand.connect(dbname="one") as alice:
        for text in (begin, "set transaction isolation level repeatable read", begin and "commit"):
            if text:
                alice.execute(text)
        alice.execute("do $$ begin null; end $$")  # whatever it may have set, nobody knows: so all is listed
        assert value(alice, "select 1") == 1
    for _ in range(2):
        with stand.connect(dbname="one") as bob:
            assert value(bob, "select 2") == 2


def test_a_server_is_not_leaked_by_anything_above(stand):
    def count():
        with stand.connect("postgres", "pgbouncer") as console:
            rows = console.execute("show pools").fetchall()
        return [row for row in rows if row[0] != "pgbouncer" and row[2] + row[3] > 0]

    wait_until(lambda: not count(), "all clients have left")
