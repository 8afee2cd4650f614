"""Logging in by LDAP: against a real OpenLDAP, with and without a search, over TLS, and while it is away."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.extras import need, need_program
from tests.live.stand import Stand, find_slowest, wait_until
from tests.live.upstream import PASSWORD
from tests.live.wire import error, sqlstate

need("ldap")
need_program("slapd", "slapd")

from tests.live.directory import BASE, PASSWORDS, SEARCHER, SEARCHER_PASSWORD, Directory  # noqa: E402

pytestmark = pytest.mark.live

QUOTED = PASSWORD.replace("'", "''")
HOME = {
    "home": f"dbname=postgres user=app password='{QUOTED}'",
    "own": "dbname=postgres",
}


@pytest.fixture(scope="module", name="directory")
def _directory() -> Iterator[Directory]:
    with Directory() as directory:
        yield directory


def simple(directory: Directory) -> str:
    return f'ldapserver=127.0.0.1 ldapport={directory.port} ldapprefix="uid=" ldapsuffix=",ou=people,{BASE}"'


def searching(directory: Directory, **more: str) -> str:
    said = {"ldapserver": "127.0.0.1", "ldapport": str(directory.port), "ldapbasedn": BASE} | more
    said |= {"ldapbinddn": SEARCHER, "ldapbindpasswd": SEARCHER_PASSWORD}
    return ", ".join(f'{name}="{value}"' for name, value in said.items() if value)


def a_stand(upstream: Any, options: str, **settings: object) -> Stand:
    said = {"auth_type": "ldap", "auth_file": "", "auth_ldap_options": options, "admin_users": "anna"} | settings
    said |= {"auth_failure_delay": 0}
    return Stand(upstream, said, databases=HOME)


@pytest.fixture(scope="module", params=["simple", "search"], name="stand")
def _stand(request, upstream, directory) -> Iterator[Stand]:
    with a_stand(upstream, {"simple": simple, "search": searching}[request.param](directory)) as stand:
        yield stand


def log_in(stand: Stand, user: str, password: str, database: str = "home", seconds: float = 15.0) -> str:
    """The SQLSTATE of the refusal, or nothing."""
    with stand.call(seconds) as line:
        return sqlstate(line.login(user, database, password))


@pytest.mark.parametrize("user", ["anna", "bert", "o,b=+x", "star*"])
def test_the_directorys_yes_is_ours(stand, user):
    assert log_in(stand, user, PASSWORDS[user]) == ""
    assert log_in(stand, user, PASSWORDS[user] + "x") == "28P01"


def test_psycopg_logs_in_and_an_administrator_is_one(stand):
    with stand.connect("anna", "home", password=PASSWORDS["anna"]) as connection:
        assert connection.execute("select current_user").fetchone() == ("app",)
    with stand.connect("anna", "pgshuttle", password=PASSWORDS["anna"]) as connection:
        shown = {row[0]: row[1] for row in connection.execute("SHOW CONFIG").fetchall()}
    assert SEARCHER_PASSWORD not in shown["auth_ldap_options"]


def test_an_empty_password_is_no_bind_of_nobody(stand, directory):
    """RFC 4513 section 5.1.2: a bind without a password succeeds, as nobody. It must not come to one."""
    before = directory.log.count("carl")  # of whom no other test speaks, so that nothing of theirs comes late
    for user in ("carl", "", "nobody", "*"):
        with stand.call() as line:
            messages = line.login(user or "x", "home", "")
            assert sqlstate(messages) == "28P01"
    assert directory.log.count("carl") == before
    assert log_in(stand, "carl", "said") == "28P01"
    wait_until(lambda: directory.log.count("carl") > before, "whoever says a password is asked about")


@pytest.mark.parametrize(
    "user",
    [
        "*",
        "ann*",
        "anna)(uid=*",
        "*)(|(uid=*",
        "anna)(objectClass=*))(&(uid=x",
        "\\2a",
        "anna\\29",
        "anna,ou=people",
        "anna,ou=people,dc=example,dc=com",
        "anna+sn=anna",
        "#616e6e61",
        "uid=anna",
        "x" * 63,
        "\u00e4",
    ],
)
def test_a_name_is_one_value_whatever_it_is(stand, user):
    """Injection: with any password of the directory none of these names lets anybody in."""
    for word in ("swordfish", "starry", SEARCHER_PASSWORD):
        assert log_in(stand, user, word) == "28P01"


def test_a_wrong_password_and_an_unknown_user_look_the_same(stand):
    stand.mark()
    with stand.call() as one, stand.call() as other:
        wrong, unknown = one.login("anna", "home", "very secret"), other.login("stranger", "home", "very secret")
    assert error(wrong) == {key: value.replace("stranger", "anna") for key, value in error(unknown).items()}
    assert error(wrong)["M"] == 'password authentication failed for user "anna"'
    stand.wait_log("login failed: db=home user=stranger")
    assert not [word for word in ("very secret", SEARCHER_PASSWORD, *PASSWORDS.values()) if word in stand.log]


def test_a_user_with_two_entries_is_nobody(upstream, directory):
    with a_stand(upstream, searching(directory)) as stand:
        assert log_in(stand, "twin", "one") == log_in(stand, "twin", "two") == "28P01"
        stand.wait_log("several entries")
    with a_stand(upstream, searching(directory, ldapbasedn=f"ou=people,{BASE}")) as stand:
        assert log_in(stand, "twin", "one") == ""


@pytest.mark.parametrize(
    "way",
    [
        {"ldapsearchattribute": "mail"},
        {"ldapsearchfilter": "(&(objectClass=person)(|(uid=$username)(mail=$username)))"},
    ],
)
def test_users_are_found_by_another_attribute_or_by_a_filter(upstream, directory, way):
    with a_stand(upstream, searching(directory, **way)) as stand:
        assert log_in(stand, "anna@example.com", "swordfish") == ""
        assert log_in(stand, "*@example.com", "swordfish") == "28P01"


def test_a_url_says_it_all(upstream, directory):
    url = f"ldap://127.0.0.1:{directory.port}/{BASE}?uid?sub"
    options = f'ldapurl="{url}" ldapbinddn="{SEARCHER}" ldapbindpasswd="{SEARCHER_PASSWORD}"'
    with a_stand(upstream, options) as stand:
        assert log_in(stand, "anna", "swordfish") == ""


@pytest.mark.parametrize("way", ["ldaps", "starttls"])
def test_over_tls_the_directorys_certificate_must_be_right(upstream, directory, monkeypatch, way):
    said = {"ldapscheme": "ldaps", "ldapport": str(directory.tls_port)} if way == "ldaps" else {"ldaptls": "1"}
    with a_stand(upstream, searching(directory, **said)) as stand:
        assert log_in(stand, "anna", "swordfish") == "28000"
    monkeypatch.setenv("LDAPTLS_CACERT", str(directory.authority))
    with a_stand(upstream, searching(directory, **said)) as stand:
        assert log_in(stand, "anna", "swordfish") == ""


def test_a_wrong_password_of_the_searcher_is_nobodys_wrong_password(upstream, directory):
    options = searching(directory).replace(SEARCHER_PASSWORD, "something else")
    with a_stand(upstream, options) as stand:
        with stand.call() as line:
            refusal = error(line.login("anna", "home", "swordfish"))
        assert (refusal["C"], refusal["M"]) == ("28000", 'LDAP authentication failed for user "anna"')
        assert "Invalid credentials" in stand.wait_log("pooler error")
        assert "something else" not in stand.log


def test_the_next_server_is_asked_when_one_is_away(upstream, directory):
    options = simple(directory).replace("ldapserver=127.0.0.1", 'ldapserver="127.0.0.2 127.0.0.1"')
    with a_stand(upstream, options) as stand:
        assert log_in(stand, "anna", "swordfish") == ""


def test_while_the_directory_is_away_nobody_gets_in_and_afterwards_all_do(upstream):
    with Directory() as directory, a_stand(upstream, simple(directory)) as stand:
        assert log_in(stand, "anna", "swordfish") == ""
        directory.stop()
        assert log_in(stand, "anna", "swordfish") == "28000"
        directory.start()
        assert log_in(stand, "anna", "swordfish") == ""


def test_a_directory_that_is_silent_holds_up_logins_and_no_query(upstream):
    """It takes connections and says nothing: libldap waits, in a thread, without the interpreter's lock."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as silent:
        options = f'ldapserver=127.0.0.1 ldapport={silent.getsockname()[1]} ldapprefix="uid="'
        with a_stand(upstream, options) as stand:
            stand.settings["auth_type"] = "any"
            stand.reload()
            with stand.raw("anna", "home") as inside:
                stand.settings["auth_type"] = "ldap"
                stand.reload()
                said: list[str] = []

                def call() -> None:
                    said.append(log_in(stand, "bert", "x", seconds=60.0))

                callers = [threading.Thread(target=call) for _ in range(12)]  # more than there are threads
                for caller in callers:
                    caller.start()
                assert find_slowest(inside, seconds=4.0) < 2.0  # an answer is waited for 5 s
                for caller in callers:
                    caller.join(60)
            assert said == ["28000"] * 12


def test_the_users_own_password_opens_his_servers(upstream, directory, admin):
    """As in PgBouncer: where PostgreSQL knows the same users by the same passwords, no password is written anywhere."""
    admin.execute("drop role if exists anna")
    admin.execute("create role anna login password 'swordfish'")
    try:
        with a_stand(upstream, simple(directory)) as stand, stand.call() as line:
            line.login("anna", "own", "swordfish")
            assert line.value("select current_user") == "anna"
    finally:
        admin.execute("drop role anna")


def test_a_line_of_the_hba_file_asks_a_directory_of_its_own(upstream, directory):
    search = searching(directory).replace(", ldap", " ldap")
    lines = [f"host all anna 127.0.0.1/32 ldap {simple(directory)}", f"host all bert 127.0.0.1/32 ldap {search}"]
    with a_stand(upstream, simple(directory)) as stand:
        rules = stand.folder / "hba.conf"
        rules.write_text("\n".join([*lines, "host all all all reject"]) + "\n")
        stand.settings |= {"auth_type": "hba", "auth_hba_file": rules, "auth_ldap_options": ""}
        assert "reloaded" in stand.reload()
        assert log_in(stand, "anna", "swordfish") == log_in(stand, "bert", PASSWORDS["bert"]) == ""
        assert log_in(stand, "anna", "wrong") == log_in(stand, "bert", "swordfish") == "28P01"
        stand.wait_log("Invalid credentials, rule .*hba.conf:2")
        assert log_in(stand, "star*", "starry") == "28000"
        with stand.connect("anna", "pgshuttle", password="swordfish") as connection:
            assert SEARCHER_PASSWORD not in str(connection.execute("SHOW HBA").fetchall())
        assert SEARCHER_PASSWORD not in stand.log


def test_options_that_make_no_sense_are_no_file(upstream, directory):
    with a_stand(upstream, simple(directory)) as stand:
        stand.settings["auth_ldap_options"] = "ldapserver=127.0.0.1 ldapbindpasswd=hush"
        assert "reload failed" in stand.reload()
        stand.wait_log("ldapbinddn and ldapbindpasswd belong together")
        assert "hush" not in stand.log
        assert log_in(stand, "anna", "swordfish") == ""


def test_psycopg_hears_the_words_of_every_other_method(stand):
    with pytest.raises(psycopg.OperationalError, match='password authentication failed for user "anna"'):
        stand.connect("anna", "home", password="wrong")


def test_the_directory_decides_which_spellings_are_one_name(stand):
    """Its matching rules say that case and outer blanks mean nothing in a uid; PostgreSQL believes it too."""
    assert log_in(stand, "ANNA", "swordfish") == log_in(stand, " anna", "swordfish") == ""
    assert log_in(stand, "ANNA", "SWORDFISH") == "28P01"
