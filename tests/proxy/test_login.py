"""A client's first words to us: what is taken, what is refused and in which words. Strangers talk here."""

import asyncio
import random
import socket

import pytest

from protocol import codes
from protocol.backend import (
    READY_IDLE_MESSAGE,
    build_backend_key,
    build_notice,
    build_parameter_status,
    build_sasl,
    parse_error,
)
from protocol.frontend import build_password, build_query
from protocol.startup import build_cancel_request, build_gss_request, build_ssl_request, build_startup
from proxy.auth.users import NOBODY, read_users
from proxy.config.ini import read
from proxy.failing import LoginFailed
from proxy.log import Address
from proxy.login import greet
from proxy.main import Proxy
from proxy.visit import Visit
from tests.fakes import WELCOME, FakeClock, FakeLog, FakeWorld
from tests.proxy.auth.wire import alone, play, wired

PARAMETERS = {"TimeZone": "UTC", "application_name": "", "server_version": "18.0"}
HELLO = build_startup({"user": "anna", "database": "shop"})
HERE = ("10.0.0.7", 51234)


def a_proxy(path, text="", **settings):
    lines = {"auth_type": "trust", "listen_addr": "", "unix_socket_dir": "", **settings}
    main = "\n".join(f"{name} = {value}" for name, value in lines.items())
    file = path / "proxy.ini"
    file.write_text(f"[databases]\nshop = host=127.0.0.1 port=1\n{text}\n[proxy]\n{main}\n")
    users = path / "users.txt"
    users.write_text('"anna" "secret"\n')
    file.write_text(file.read_text() + f"auth_file = {users}\n")
    return Proxy(read(str(file)), read_users(str(users)), FakeLog(), FakeClock())


def visit(proxy, said, *, warm=True, patience=0.001):
    """Everything the visitor hears. He says it all at once and hangs up if it takes longer than his `patience`."""

    async def main():
        inbox = alone(said)
        meeting = asyncio.ensure_future(meet(proxy, inbox, warm))
        await asyncio.wait([meeting], timeout=patience)
        inbox.eof_received()
        await meeting
        return wired(inbox).written

    return play(main())


def find_pool(proxy):
    return proxy.pools.find(proxy.config.find_database("shop"), "anna")


async def meet(proxy, inbox, warm=True, address=HERE):
    if warm:
        find_pool(proxy).welcome = PARAMETERS
    wired(inbox).set_protocol = lambda phase: None
    wired(inbox).get_write_buffer_size = lambda: 0
    wired(inbox).is_closing = lambda: False
    talk = Visit(proxy, inbox, address)
    try:
        await talk.serve()
    finally:
        talk.finish()


def refusal(heard):
    """The one error in it, which must be the last word."""
    assert heard[:1] == b"E", heard
    assert 1 + int.from_bytes(heard[1:5], "big") == len(heard), heard
    error = parse_error(heard[5:])
    assert error.severity == "FATAL"
    assert "Traceback" not in error.message
    return error.sqlstate, error.message


def test_a_welcome_has_the_servers_parameters_a_key_of_ours_and_is_one_write(tmp_path):
    proxy = a_proxy(tmp_path)
    heard = visit(proxy, HELLO)
    assert heard.startswith(b"R\0\0\0\x08\0\0\0\0")
    assert build_parameter_status("server_version", "18.0") in heard
    assert heard.endswith(READY_IDLE_MESSAGE)
    assert heard[-len(READY_IDLE_MESSAGE) - 13 :].startswith(b"K\0\0\0\x0c")


def test_a_client_is_told_the_values_it_asked_for(tmp_path):
    said = build_startup({"user": "anna", "database": "shop", "timezone": "CET", "application_name": "caf\u00e9"})
    proxy = a_proxy(tmp_path)
    find_pool(proxy).learnt.spell({"TimeZone": "CET"}, {"TimeZone": "Cet"})
    heard = visit(proxy, said)
    assert build_parameter_status("TimeZone", "Cet") in heard
    assert build_parameter_status("application_name", "caf\\xc3\\xa9") in heard


@pytest.mark.parametrize(("mode", "theirs"), [("transaction", None), ("session", "20ms")])
def test_a_timeout_of_idle_connections_is_for_servers_of_ones_own(mode, theirs):
    pool = FakeWorld(pool_mode=mode).pool
    followed, _ = greet(pool, WELCOME, WELCOME, {"idle_session_timeout": "20ms", "work_mem": "8MB"})
    assert followed.get("idle_session_timeout") == theirs
    assert followed["work_mem"] == "8MB"


@pytest.mark.parametrize(
    ("address", "name"),
    [(HERE, "psql - 10.0.0.7:51234"), (Address.of_unix(6432, 4711), "psql - unix(4711@db7):6432")],
)
def test_its_place_may_be_added_to_its_name_in_pgbouncers_form(address, name, tmp_path, monkeypatch):
    async def main():
        inbox = alone(build_startup({"user": "anna", "database": "shop", "application_name": "psql"}))
        await meet(a_proxy(tmp_path, application_name_add_host=1), inbox, address=address)
        return wired(inbox).written

    monkeypatch.setattr(socket, "gethostname", lambda: "db7")
    assert build_parameter_status("application_name", name) in play(main())


def test_encryption_is_declined_and_the_login_goes_on(tmp_path):
    async def main():
        proxy, inbox = a_proxy(tmp_path), alone(build_ssl_request())
        meeting = asyncio.ensure_future(meet(proxy, inbox))
        for words in (build_gss_request(), HELLO):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            inbox.data_received(words)
        await meeting
        return wired(inbox).written

    heard = play(main())
    assert heard.startswith(b"NNR")


@pytest.mark.parametrize("request_", [build_ssl_request(), build_gss_request()])
def test_what_is_sent_behind_a_request_for_encryption_ends_the_login(request_, tmp_path):
    state, words = refusal(visit(a_proxy(tmp_path), request_ + HELLO))
    assert state == "08P01"
    assert "received unencrypted data" in words


@pytest.mark.parametrize(
    ("said", "state", "words"),
    [
        (build_startup({"user": "anna", "database": "nowhere"}), "3D000", "no such database: nowhere"),
        (build_startup({"user": "anna", "database": "shop", "work;mem": "1GB"}), "42704", 'parameter "work;mem'),
        (build_startup({"user": "anna", "database": "shop", "timezone": "\udcfc"}), "22023", "invalid value"),
        (build_startup({"user": "anna", "database": "shop", "timezone": "x" * 2000}), "22023", "invalid value"),
        (
            build_startup({"user": "anna", "database": "shop"} | {f"my.x{number}": "1" for number in range(101)}),
            "53400",
            "more than 100",
        ),
        (
            build_startup({"user": "anna", "database": "shop", "replication": "perhaps"}),
            "22023",
            '"replication": "perh',
        ),
        (build_startup({"user": "stranger", "database": "shop"}), "28000", ""),
        (build_startup({"database": "shop"}), "", "user"),
        (build_startup({"user": "x" * 9000, "database": "shop"}), "", ""),
        (b"\0\0\xff\xff\0\3\0\0", "08P01", "startup packet"),
        (b"\0\0\0\0\0\3\0\0", "08P01", "startup packet"),
        (b"\0\0\0\x08\0\2\0\0", "", ""),
        (build_password("secret"), "08P01", ""),
        (build_query("select 1"), "08P01", ""),
        (b"GET / HTTP/1.1\r\n\r\n", "08P01", ""),
    ],
)
def test_what_we_do_not_serve_is_refused_with_a_sqlstate_and_a_sentence(said, state, words, tmp_path):
    proxy = a_proxy(tmp_path)
    got, sentence = refusal(visit(proxy, said))
    assert got.startswith(state)
    assert len(got) == 5
    assert words in sentence
    assert "pooler error" in proxy.log.text
    assert proxy.visitors == 0


def test_garbage_never_gets_more_than_an_error(tmp_path):
    proxy, chance = a_proxy(tmp_path), random.Random(3)
    for size in range(200):
        heard = visit(proxy, chance.randbytes(size))
        assert heard in (b"", b"N") or heard[:1] == b"E"
    assert proxy.client_count == 0


def test_a_welcome_cut_short_at_every_byte_leaves_nothing_behind(tmp_path):
    proxy = a_proxy(tmp_path)
    for cut in range(len(HELLO)):
        assert visit(proxy, HELLO[:cut]) == b""
    assert proxy.client_count == 0


def test_unknown_users_hear_what_a_wrong_password_hears(tmp_path):
    proxy = a_proxy(tmp_path, auth_type="plain")
    heard = {
        visit(proxy, build_startup({"user": user, "database": "shop"}) + build_password("wrong"), patience=2.0).replace(
            user.encode(), b"USER"
        )
        for user in ("anna", "bert")
    }
    assert len(heard) == 1
    assert b"28P01" in heard.pop()


def test_a_right_password_is_welcome(tmp_path):
    assert visit(a_proxy(tmp_path, auth_type="plain"), HELLO + build_password("secret"), patience=2.0).endswith(
        READY_IDLE_MESSAGE
    )


def test_one_client_too_many_is_refused_and_the_others_stay(tmp_path):
    proxy = a_proxy(tmp_path, max_client_conn=1)

    async def main():
        first, second = alone(HELLO), alone(HELLO)
        await meet(proxy, first)
        await meet(proxy, second)
        return wired(first).written, wired(second).written

    welcome, refused = play(main())
    assert welcome.endswith(READY_IDLE_MESSAGE)
    assert refusal(refused) == ("53300", "no more connections allowed (max_client_conn)")
    assert b"have the limit raised" in refused
    assert "(max_client_conn): 1 are connected" in proxy.log.text, "the number is nobody's business but the operator's"
    assert b"1 are connected" not in refused
    assert proxy.client_count == 1


def test_who_comes_while_no_server_can_be_opened_hears_the_servers_own_words(tmp_path):
    proxy = a_proxy(tmp_path)
    pool = proxy.pools.find(proxy.config.find_database("shop"), "anna")
    pool.opening_failed(LoginFailed("28P01", "password authentication failed for user anna"))
    state, words = refusal(visit(proxy, HELLO, warm=False))
    assert state == "28P01"
    assert "password authentication failed" in words


def test_a_cancel_request_is_answered_by_silence(tmp_path):
    assert visit(a_proxy(tmp_path), build_cancel_request(b"12345678")) == b""


def test_nobody_is_a_user_of_an_empty_file():
    assert NOBODY.secrets_of("anna") == ()
    assert build_backend_key(b"12345678")[0] == codes.BACKEND_KEY_DATA


def test_whoever_has_logged_in_hears_what_the_operator_has_to_say(tmp_path):
    heard = visit(a_proxy(tmp_path, login_notify_message="maintenance at 22:00; no DDL, please"), HELLO)
    notice = build_notice("NOTICE", "00000", "maintenance at 22:00; no DDL, please")
    assert heard.endswith(notice + READY_IDLE_MESSAGE)
    assert b"N\0\0" not in visit(a_proxy(tmp_path), HELLO)


@pytest.mark.parametrize("replication", ["true", "on", "1", "database", ""])
@pytest.mark.parametrize("console", ["pgbouncer", "pgshuttle"])
def test_a_rule_for_replication_opens_no_console(replication, console, tmp_path):
    """Whoever may replicate without a password is no administrator: at the console the rules for its name count."""
    (tmp_path / "hba").write_text("host replication all all trust\nhost all all all scram-sha-256\n")
    proxy = a_proxy(tmp_path, auth_type="hba", auth_hba_file=tmp_path / "hba", admin_users="anna")
    proxy.gate.rulebook = proxy.gate.read(proxy.settings)
    said = {"replication": replication} if replication else {}
    heard = visit(proxy, build_startup({"user": "anna", "database": console, **said}))
    assert heard == build_sasl(["SCRAM-SHA-256"]), "she is asked, and has left"
