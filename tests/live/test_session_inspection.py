"""Whatever a session is in, it can be asked what it is like, and its server goes on to the next client."""

import time
from contextlib import suppress

import psycopg
import pytest

from tests.live.stand import Stand

pytestmark = pytest.mark.live

BORN = "porter_born"  # a role whose logins are another at once
SAFE = "set session characteristics as transaction isolation level serializable, read only, deferrable"


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    with upstream.connect() as admin:
        admin.execute(f"create role butler; create role {BORN} login password 'x'; grant butler to app, {BORN}")
        admin.execute(f"alter role {BORN} set role = butler")
        admin.execute("create database manor")
        admin.execute("alter database manor set my.house = 'x'")
    secrets = {**upstream.secrets, BORN: "x"}
    settings = {"default_pool_size": 1, "query_wait_timeout": 10}
    with Stand(upstream, settings, secrets=secrets) as stand:
        yield stand


def value(client, text):
    return client.execute(text).fetchone()[0]


def insist(client, text):
    """The same of a client whose own timeout may strike that too."""
    for _ in range(50):
        with suppress(psycopg.errors.QueryCanceled):
            return value(client, text)
    raise AssertionError(text)


@pytest.mark.parametrize(
    ("text", "look", "said", "theirs"),
    [
        ("set my.house = ''", "select current_setting('my.house')", "", "x"),
        ("select set_config('my.house', '', false)", "select current_setting('my.house')", "", "x"),
        ("set role none", "select current_user::text", BORN, "butler"),
        (f"set role {BORN}", "select current_user::text", BORN, "butler"),
        ("do $$ begin set role none; end $$", "select current_user::text", BORN, "butler"),
    ],
)
def test_what_means_nothing_is_something_where_a_login_has_another(stand, text, look, said, theirs):
    with stand.connect(BORN, "manor") as alice, stand.connect(BORN, "manor") as bob:
        alice.execute(text)
        for _ in range(2):
            assert value(bob, look) == theirs
            assert value(alice, look) == said


@pytest.mark.parametrize(
    ("user", "texts", "look", "said"),
    [
        ("app", ["set statement_timeout = 1", "do $$ begin end $$"], "show statement_timeout", "1ms"),
        ("postgres", ["set dynamic_library_path = x; set role butler"], "select current_user::text", "butler"),
        (
            "postgres",
            ["set session authorization app; set role butler", "do $$ begin end $$"],
            "select current_user::text",
            "butler",
        ),
        ("app", ["set dynamic_library_path = x", "set work_mem = '9MB'"], "show work_mem", "9MB"),
        ("app", [SAFE], "show default_transaction_deferrable", "on"),
        ("app", [SAFE + "; set work_mem = '9MB'"], "show work_mem", "9MB"),
    ],
)
def test_what_is_in_the_way_of_the_question_keeps_no_server(stand, upstream, user, texts, look, said):
    with upstream.connect("app") as writer, stand.connect(user) as alice, stand.connect(user) as bob:
        writer.execute("begin isolation level serializable; select pg_current_xact_id()")
        theirs = value(bob, look)
        assert theirs != said
        for text in texts:
            with suppress(psycopg.errors.QueryCanceled, psycopg.errors.InsufficientPrivilege):
                alice.execute(text)
        began = time.monotonic()
        assert value(bob, look) == theirs
        assert time.monotonic() - began < 5
        bob.execute("set lock_timeout = 999")
        assert value(bob, "select 1") == 1
        writer.execute("rollback")
        assert insist(alice, look) == said
        assert value(bob, look) == theirs


COUNT = "select count(*) from generate_series(1, {}) n where current_setting('app.k' || n, true) = n::text"


def many(count, words, between):
    return between.join(words.format(number) for number in range(1, count + 1))


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (90, many(90, "set app.k{0} = {0}", ";")),
        (60, "select " + many(60, "set_config('app.k{0}', '{0}', false)", ",")),
        (45, "do $$ begin " + many(45, "perform set_config('app.k{0}', '{0}', false);", "") + " end $$"),
        (1, "do $$ begin " + " " * 9000 + "perform set_config('app.k1', '1', false); end $$"),
    ],
)
def test_many_parameters_of_ones_own_follow_their_client(stand, count, text):
    with stand.connect() as alice, stand.connect() as bob:
        alice.execute(text)
        for _ in range(2):
            assert value(bob, COUNT.format(count)) == 0
            assert value(alice, COUNT.format(count)) == count


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("app.k400", many(400, "set app.k{0} = {0}", ";")),
        ("app.k400", "do $$ begin " + many(400, "perform set_config('app.k{0}', '400', false);", "") + " end $$"),
        ("app." + "k" * 62, "set app." + "k" * 62 + " = '400'"),
        ("app.\u00fc", "set app.\u00fc = '400'"),
        ("app.\u00fc", "do $$ begin set app.\u00fc = '400'; end $$"),
    ],
)
def test_where_a_parameter_cannot_be_asked_for_its_client_keeps_it_and_its_server(stand, name, text):
    look = f"select current_setting('{name}', true)"
    with stand.connect() as alice:
        alice.execute(text)
        for _ in range(2):
            assert value(alice, look) == "400"
    with stand.connect() as bob:
        assert not value(bob, look)


def test_an_idle_server_is_not_ended_by_what_somebody_has_set_for_idle_sessions(stand):
    with stand.connect(options="-c idle_session_timeout=100ms") as alice, stand.connect() as bob:
        pid = value(bob, "select pg_backend_pid()")
        for text in ("select 1", "set idle_session_timeout = '100ms'", "begin; set idle_session_timeout = 100; commit"):
            alice.execute(text)
            assert value(alice, "select 1") == 1
            time.sleep(0.3)
            assert value(bob, "select pg_backend_pid()") == pid
            assert value(alice, "show idle_session_timeout") == "0"


def test_a_set_that_was_refused_harms_nobody(stand):
    with stand.connect() as alice, stand.connect() as bob:
        for text in ("set lo_compat_privileges = on", "begin; set lo_compat_privileges = on", 'set "my.a b" = 1'):
            with suppress(psycopg.Error):
                alice.execute(text)
            alice.execute("rollback")
            for client in (bob, alice, bob):
                assert value(client, "show lo_compat_privileges") == "off"
