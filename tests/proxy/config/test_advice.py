"""What somebody who comes from PgBouncer is told about the file, and that nobody is told what does not concern it."""

from pathlib import Path

import pytest

from proxy.config.advice import (
    DATABASE_RULES,
    RULES,
    USER_RULES,
    Level,
    Remark,
    Secrets,
    advise,
    count_honoured,
    in_order,
)
from proxy.config.entries import DATABASE_KEYS, USER_KEYS
from proxy.config.ini import read
from proxy.config.lines import Mistake, Reader
from proxy.config.settings import SETTINGS

HEAD = "[databases]\na = host=h\n[pgbouncer]\nadmin_users = ann\n"

OAUTH = "auth_type = oauth\noauth_issuer = https://i\noauth_audience = a\noauth_scope = s\noauth_jwks = k"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, mode in (("open.txt", 0o644), ("sealed.txt", 0o640)):
        Path(name).touch()
        Path(name).chmod(mode)


def advice(text: str, secrets: Secrets | None = None, head: str = HEAD) -> list[str]:
    Path("a.ini").write_text(head + text)
    config = read("a.ini")
    return [str(each) for each in in_order(advise(config, Reader().lines("a.ini"), secrets), config.files)]


def test_who_says_nothing_hears_nothing() -> None:
    assert advice("") == []


@pytest.mark.parametrize(
    ("line", "beginning"),
    [
        ("pool_mode = session", "a.ini:5: advice: pool_mode = session keeps a server for each connected client"),
        ("server_reset_query_always = 1", "a.ini:5: advice: server_reset_query_always is not needed"),
        ("ignore_startup_parameters = options", "a.ini:5: advice: ignore_startup_parameters is not needed"),
        ("track_extra_parameters = search_path", "a.ini:5: advice: track_extra_parameters is not needed"),
        ("max_prepared_statements = 0", "a.ini:5: advice: max_prepared_statements = 0 makes a client"),
        ("server_check_query = select 1;", "a.ini:5: advice: server_check_query = <empty>"),
        ("query_wait_timeout = 0", "a.ini:5: advice: query_wait_timeout = 0 lets clients wait for ever"),
        ("auth_type = plain", "a.ini:5: advice: auth_type = plain has passwords travel as they are"),
        ("auth_type = trust\nlisten_addr = *", "a.ini:5: warning: this lets in everybody who can reach listen_addr"),
        ("auth_type = any\nlisten_addr = 10.0.0.1", "a.ini:5: warning: this lets in everybody"),
        ("reserve_pool_size = 5\nreserve_pool_timeout = 0", "a.ini:5: warning: reserve_pool_timeout = 0 means"),
        ("auth_ident_file = maps", "a.ini:5: warning: auth_ident_file is not read"),
        ("auth_file = open.txt", "a.ini:5: warning: every account of this machine may read what auth_file names"),
        ("client_tls_key_file = open.txt", "a.ini:5: warning: every account of this machine may read"),
        ("server_tls_key_file = open.txt", "a.ini:5: warning: every account of this machine may read"),
        ("pipeline_depth = 16\nsession_state = audit", "a.ini:5: warning: pipeline_depth has no effect where"),
        ("pipeline_functions = rates, rates_2024", "a.ini:5: warning: a function with a digit in its name"),
        ("so_reuseport = 1", "a.ini:5: note: each process has its own pools and limits"),
        ("min_pool_size = 5", "a.ini:5: note: min_pool_size is held from the start on"),
        ("server_login_retry = 15", "a.ini:5: note: server_login_retry is the longest pause"),
        ("server_lifetime = 1200", "a.ini:5: note: server_lifetime is cut by up to a tenth"),
        ("[databases]\nb = pool_mode=session", "a.ini:6: advice: b: pool_mode = session keeps"),
        ("[databases]\nb = password=swordfish", "a.ini:6: note: b: password without user"),
        ("[databases]\nb = min_pool_size=5 pool_size=3", "a.ini:6: note: b: min_pool_size is more than pool_size"),
        ("[users]\nann = pool_mode=session", "a.ini:6: advice: ann: pool_mode = session keeps"),
        ("query_timeout = 5\n[users]\nann = query_timeout=0", "a.ini:7: note: ann: query_timeout = 0 means no limit"),
        ("verbose = 1\nverbose = 0", "a.ini:5: note: verbose is said again in a.ini:6: that counts"),
        ("[databases]\na = host=i", "a.ini:2: note: a is said again in a.ini:6: that counts"),
    ],
)
def test_one_thing_is_one_sentence_at_its_line(line: str, beginning: str) -> None:
    (only,) = advice(line + "\n")
    assert only.startswith(beginning)
    assert "swordfish" not in only


@pytest.mark.parametrize(
    "lines",
    [
        "pool_mode = transaction",
        "pool_mode = session\nsession_state = audit",
        "server_reset_query_always = 0",
        "server_reset_query_always = 1\nsession_state = leak",
        "max_prepared_statements = 100",
        "server_check_query = <empty>",
        "server_lifetime = 0",
        f"{OAUTH}\noauth_map = m\nauth_ident_file = maps",
        "auth_file = sealed.txt\nclient_tls_key_file = sealed.txt\nserver_tls_key_file = missing.txt",
        "pool_mode = transaction\npipeline_depth = 16\npipeline_functions = rates, my_rates",
        "auth_type = trust\nlisten_addr = 127.0.0.1, ::1",
        "auth_type = trust\nlisten_addr =",
        "auth_type = md5\nlisten_addr = *",
        "reserve_pool_size = 5\nreserve_pool_timeout = 1",
        "[databases]\nb = user=u password=x min_pool_size=3",
        "[users]\nann = query_timeout=0",
    ],
)
def test_what_is_well_gets_no_sentence(lines: str) -> None:
    assert advice(lines + "\n") == []


def test_what_should_have_been_said() -> None:
    assert advice("", head="[pgbouncer]\nunix_socket_dir =\n") == [
        "a.ini: advice: admin_users is empty: nobody may RELOAD, PAUSE or KILL on the console",
        "a.ini: warning: there is no database: clients can reach the console only",
        "a.ini: warning: neither listen_addr nor unix_socket_dir is set: there is nowhere to listen on without"
        " sockets of systemd",
    ]


def test_the_sorts_of_secrets_are_compared_with_auth_type() -> None:
    assert advice("auth_type = md5\n", Secrets(scram=3))[0].startswith("a.ini:5: advice: all secrets are SCRAM's")
    assert advice("auth_type = md5\n", Secrets(md5=1, scram=3)) == []
    assert advice("auth_type = md5\n", Secrets(plain=1, scram=3)) == []
    one, many = (
        advice("auth_type = scram-sha-256\n", Secrets(md5=1)),
        advice("auth_type=scram-sha-256\n", Secrets(md5=2)),
    )
    assert one == ["a.ini:5: warning: 1 user has an md5 secret and cannot log in: auth_type = md5 serves both"]
    assert many[0].startswith("a.ini:5: warning: 2 users have an md5 secret")


def test_remarks_stand_in_the_order_of_the_files() -> None:
    Path("b.ini").write_text("server_lifetime = 5\n")
    lines = advice("%include b.ini\nmin_pool_size = 1\nso_reuseport = 1\n")
    assert [line.split(": ")[0] for line in lines] == ["a.ini:6", "a.ini:7", "b.ini:1"]


def test_what_is_honoured_is_counted_once() -> None:
    Path("a.ini").write_text(HEAD + "verbose = 1\nverbose = 0\npkt_buf = 5\n")
    assert count_honoured(Reader().lines("a.ini")) == 2


def test_a_remark_is_one_line_whatever_a_name_holds() -> None:
    assert str(Remark(Level.NOTE, Mistake("a.ini", 3, "odd\rname"))) == "a.ini:3: note: odd\\rname"


def test_each_rule_is_about_a_key_there_is() -> None:
    assert {rule.key for rule in RULES} <= set(SETTINGS)
    assert {rule.key for rule in DATABASE_RULES} <= set(DATABASE_KEYS)
    assert {rule.key for rule in USER_RULES} <= set(USER_KEYS)
