"""With nothing but a SCRAM verifier: the key that a client shows when it logs in opens servers in its name."""

import contextlib

import psycopg
import pytest

from tests.live.stand import Stand, wait_until
from tests.live.upstream import PASSWORD
from tests.live.wire import scram_secret

pytestmark = pytest.mark.live


@pytest.fixture
def verifier(admin):
    """What PostgreSQL itself keeps of the password of `app`."""

    def read():
        (text,) = admin.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'").fetchone()
        return text

    yield read
    admin.execute(f"ALTER ROLE app PASSWORD '{PASSWORD.replace(chr(39), chr(39) * 2)}'")


def a_stand(upstream, verifier, auth_type="scram-sha-256", **settings):
    return Stand(
        upstream,
        {"auth_type": auth_type, "server_login_retry": 1, "auth_failure_delay": 0, **settings},
        secrets={"app": verifier, "x": "x"},
    )


def ask(stand, password=PASSWORD, user="app"):
    with stand.connect(user, password=password) as client:
        return client.execute("SELECT session_user").fetchone()[0]


def lose_servers(admin):
    admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
    gone = "SELECT FROM pg_stat_activity WHERE usename = 'app'"
    wait_until(lambda: not admin.execute(gone).fetchall(), "they have gone")


@pytest.mark.parametrize("auth_type", ["scram-sha-256", "md5", "plain"])
def test_a_verifier_is_enough_and_its_key_opens_servers_again_and_again(upstream, admin, verifier, auth_type):
    with a_stand(upstream, verifier(), auth_type) as stand:
        with stand.connect() as one, stand.connect() as two:
            for client in (one, two):
                client.execute("BEGIN")
            assert (
                one.execute("SELECT pg_backend_pid()").fetchone() != two.execute("SELECT pg_backend_pid()").fetchone()
            )
        lose_servers(admin)
        assert ask(stand) == "app"
        assert PASSWORD not in stand.log
        assert "SCRAM-SHA-256$" not in stand.log


def test_a_client_that_stays_needs_no_new_login_when_servers_are_lost(upstream, admin, verifier):
    with a_stand(upstream, verifier()) as stand, stand.connect() as client:
        lose_servers(admin)
        assert client.execute("SELECT session_user").fetchone() == ("app",)


def test_min_pool_size_waits_for_the_first_login_and_the_log_says_so(upstream, verifier):
    with Stand(
        upstream, {"auth_type": "scram-sha-256"}, databases={"postgres": "min_pool_size=2"}, secrets={"app": verifier()}
    ) as stand:
        assert "min_pool_size of postgres is not kept before the first login of app: of these auth_file" in stand.log
        with stand.connect() as client:
            count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'"
            wait_until(lambda: client.execute(count).fetchone()[0] >= 2, "it is kept from then on")


def test_another_salt_is_said_to_be_another_salt(upstream, verifier):
    with a_stand(upstream, scram_secret(PASSWORD)) as stand:
        with pytest.raises(psycopg.OperationalError, match="a proof of its password with another salt"):
            ask(stand)
        stand.wait_log("server login failed: FATAL PostgreSQL asks user .app. for a proof of its password with another")


def test_other_iterations_are_said_to_be_others(upstream, admin, verifier):
    ours = verifier()
    salt = ours.split("$")[1].split(":")[1]
    admin.execute(f"ALTER ROLE app PASSWORD '{ours.replace('$4096:', '$5000:')}'")
    with a_stand(upstream, ours) as stand:
        with pytest.raises(psycopg.OperationalError, match="with 5000 iterations instead of 4096"):
            ask(stand)
        assert salt not in stand.log


def test_a_changed_verifier_makes_the_old_key_worth_nothing(upstream, admin, verifier):
    old = verifier()
    with a_stand(upstream, old) as stand, stand.connect() as client:
        admin.execute("ALTER ROLE app PASSWORD 'second'")
        stand.secrets["app"] = verifier()
        stand.reload()
        lose_servers(admin)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            ask(stand)
        assert ask(stand, "second") == "app"
        assert client.execute("SELECT session_user").fetchone() == ("app",)


def test_without_a_key_the_log_says_that_it_comes_with_a_login(upstream, admin, verifier):
    with (
        a_stand(upstream, verifier(), "trust") as stand,
        pytest.raises(psycopg.OperationalError, match="only a SCRAM verifier: its keys come with a client's login"),
    ):
        ask(stand)


def test_while_verifiers_are_rotated_both_passwords_are_right_at_the_second_try_at_the_latest(
    upstream, admin, verifier
):
    old = verifier()
    admin.execute("ALTER ROLE app PASSWORD 'second'")
    new = verifier()
    with a_stand(upstream, new) as stand:
        stand.user_list.write_text(f'"app" "{old}"\n"app" "{new}"\n')
        stand.write = lambda: None
        stand.reload()

        def try_twice(password):
            with contextlib.suppress(psycopg.OperationalError):
                return ask(stand, password)
            return ask(stand, password)

        assert try_twice("second") == "app"
        for _ in range(3):
            assert try_twice(PASSWORD) == "app"  # on servers that are there
            assert try_twice("second") == "app"
        lose_servers(admin)
        assert try_twice("second") == "app"
        lose_servers(admin)
        assert try_twice(PASSWORD) == "app"  # servers are opened with what PostgreSQL has taken before
        for _ in range(2):
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                ask(stand, "neither")


def test_of_several_plain_secrets_the_one_that_postgresql_knows_is_found(upstream, admin, verifier):
    admin.execute("ALTER ROLE app PASSWORD 'second'")
    with a_stand(upstream, "second") as stand:
        stand.user_list.write_text(f'"app" "second"\n"app" "{PASSWORD}"\n')
        stand.write = lambda: None
        stand.reload()
        assert ask(stand, PASSWORD) == "app"
        lose_servers(admin)
        assert ask(stand, "second") == "app"


def test_a_process_that_takes_over_can_open_servers_for_those_who_come_over(upstream, admin, verifier, tmp_path):
    folder = tmp_path
    folder.chmod(0o777)
    for parent in folder.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    with a_stand(upstream, verifier(), unix_socket_dir=folder, auth_user="") as stand, stand.connect() as client:
        assert client.execute("SELECT session_user").fetchone() == ("app",)
        stand.succeed()
        stand.wait_log("(1 client|1 of 1|clients? )", 10)
        wait_until(lambda: stand.elders[0].poll() is not None, "the old process has ended")
        lose_servers(admin)
        assert client.execute("SELECT session_user").fetchone() == ("app",)
        assert "SCRAM-SHA-256$" not in stand.log
