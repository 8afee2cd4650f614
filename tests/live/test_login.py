"""Logging in: every auth_type with every kind of stored secret, and what those hear who may not."""

import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from proxy.outbox import AT_THE_DOOR as CROWD
from tests.live.stand import Stand
from tests.live.upstream import PASSWORD
from tests.live.wire import error, kinds, md5_secret, message, rows, scram_secret, sqlstate, startup

pytestmark = pytest.mark.live

SECRETS = {"plain": PASSWORD, "md5": md5_secret("md5", PASSWORD), "scram": scram_secret(PASSWORD)}
WORKS = {
    "trust": {"plain", "md5", "scram"},
    "any": {"plain", "md5", "scram"},
    "plain": {"plain", "md5", "scram"},
    "md5": {"plain", "md5", "scram"},
    "scram-sha-256": {"plain", "scram"},
}


@pytest.fixture(scope="module")
def doors(upstream):
    """One proxy for each auth_type; the stored secret's kind is a user's name. PostgreSQL knows them all as app."""
    stands = {
        method: Stand(
            upstream,
            {"auth_type": method},
            databases={"home": f"dbname=postgres user=app password='{PASSWORD.replace(chr(39), chr(39) * 2)}'"},
            secrets=SECRETS,
        )
        for method in WORKS
    }
    for stand in stands.values():
        stand.start()
    yield stands
    for stand in stands.values():
        stand.finish()


@pytest.mark.parametrize("stored", SECRETS)
@pytest.mark.parametrize("method", WORKS)
def test_psycopg_logs_in_with(doors, method, stored):
    stand = doors[method]
    if stored in WORKS[method]:
        with stand.connect(stored, "home") as connection:
            assert connection.execute("select current_user").fetchone() == ("app",)
    else:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            stand.connect(stored, "home")


@pytest.mark.parametrize("stored", SECRETS)
@pytest.mark.parametrize("method", WORKS)
def test_a_bare_socket_logs_in_with(doors, method, stored):
    with doors[method].call() as line:
        messages = line.login(stored, "home", PASSWORD)
        if stored in WORKS[method]:
            assert messages[-1].kind == "Z"
            assert line.value("select current_user") == "app"
        else:
            assert sqlstate(messages) == "28P01"


@pytest.mark.parametrize("user", ["plain", "md5", "scram", "stranger", "x" * 127, "'; drop table"])
@pytest.mark.parametrize("method", ["plain", "md5", "scram-sha-256"])
def test_a_wrong_password_and_an_unknown_user_look_the_same(doors, method, user):
    with doors[method].call() as line, doors[method].call() as other:
        messages = line.login(user, "home", "wrong")
        reference = other.login("scram" if method != "plain" else "plain", "home", "wrong")
        if method == "md5":  # whoever is stored as plain or md5 is asked by md5; strangers as most users are
            assert kinds(messages) in ("RE", "RRE")
        else:
            assert kinds(messages) == kinds(reference)
        assert sqlstate(messages) == sqlstate(reference) == "28P01"
        assert error(messages)["S"] == "FATAL"
        assert error(messages)["M"] == f'password authentication failed for user "{user}"'


def test_a_name_that_postgresql_cuts_is_one_here_as_well(upstream, admin):
    """PostgreSQL cuts it when the role is made and when it logs in, so whoever chose it never sees."""
    name = "one_of_those_names_that_are_generated_" + 62 * "x"
    admin.execute(f"create role {name} login password '{PASSWORD.replace(chr(39), 2 * chr(39))}'")
    try:
        settings = {"auth_type": "scram-sha-256"}
        with Stand(upstream, settings, secrets={name: PASSWORD}) as stand, stand.call() as line:
            assert line.login(name, "postgres", PASSWORD)[-1].kind == "Z"
            assert line.value("select current_user") == name[:63]
    finally:
        admin.execute(f"drop role {name}")


def test_whether_a_database_exists_is_told_only_to_those_who_know_a_password(doors):
    stand = doors["scram-sha-256"]
    with stand.call() as line:
        assert sqlstate(line.login("plain", "nowhere", "wrong")) == "28P01"
    with stand.call() as line:
        assert sqlstate(line.login("plain", "nowhere", PASSWORD)) == "3D000"


def test_trust_knows_its_users(doors):
    with doors["trust"].call() as line:
        assert sqlstate(line.login("stranger", "home")) == "28000"
    with doors["any"].call() as line:
        assert line.login("stranger", "home")[-1].kind == "Z"


def test_a_wrong_password_is_logged_once_and_without_the_password(doors):
    stand = doors["scram-sha-256"]
    stand.mark()
    with stand.call() as line:
        line.login("plain", "home", "very secret")
    stand.wait_log("login failed: db=home user=plain")
    assert "very secret" not in stand.log
    assert PASSWORD not in stand.log


def test_logins_in_a_crowd_end_as_all_others(upstream):
    """Where many are at the door answers go out at the end of a turn: also to somebody who is alone in it."""
    settings = {"auth_type": "scram-sha-256", "tcp_defer_accept": 0}
    databases = {"home": f"dbname=postgres user=app password='{PASSWORD.replace(chr(39), chr(39) * 2)}'"}
    with Stand(upstream, settings, databases=databases, secrets=SECRETS) as stand:
        silent = [stand.call() for _ in range(2 * CROWD)]
        with ThreadPoolExecutor(20) as guests:
            answers = list(guests.map(lambda _: log_in_and_ask(stand), range(100)))
        assert answers == [("app",)] * 100
        with stand.call() as line:
            assert sqlstate(line.login("scram", "home", "wrong")) == "28P01"
        for line in silent:
            line.close()


def log_in_and_ask(stand):
    with stand.connect("scram", "home") as connection:
        return connection.execute("select current_user").fetchone()


@pytest.mark.solitary
def test_a_hundred_wrong_passwords_do_not_slow_those_inside(doors):
    stand = doors["plain"]
    with stand.call() as inside:
        inside.login("plain", "home", PASSWORD)
        callers = [stand.call() for _ in range(100)]
        for line in callers:
            line.send(startup("stranger", "home"), message("p", b"wrong\0"))
        slowest = 0.0
        for _ in range(20):
            start = time.monotonic()
            assert rows(inside.ask("select 1")) == [("1",)]
            slowest = max(slowest, time.monotonic() - start)
        assert slowest < 0.25
        for line in callers:
            assert sqlstate(line.read_to_end()) in {"28P01", "53300"}, "heard, or refused unheard (auth_failure_delay)"
            line.close()
