"""Logging in with a token: a bare socket, a real libpq 18, an issuer whose keys change, one that does not answer."""

import base64
import contextlib
import http.server
import json
import ssl
import threading
import time
from collections.abc import Iterator
from struct import pack
from typing import Any

import psycopg
import pytest

from tests.certificates import Authority, Pair
from tests.extras import give_up, need
from tests.live import libpq
from tests.live.stand import Stand, wait_until
from tests.live.tls import certificates, opened
from tests.live.upstream import PASSWORD
from tests.live.wire import Message, Raw, error, message, rows, sqlstate, startup

need("jwt", "cryptography", "aiohttp")

from tests.proxy.auth import issuer  # noqa: E402
from tests.proxy.auth.issuer import SIGNED, forged, jwk_set, public_jwk, token  # noqa: E402

pytestmark = pytest.mark.live

FAILED = 'OAuth bearer authentication failed for user "anna"'
QUOTED = PASSWORD.replace("'", "''")
HOME = {
    "home": f"dbname=postgres user=app password='{QUOTED}'",
    "bare": "dbname=postgres",
}


SETTINGS = {
    "auth_type": "oauth",
    "auth_file": "",
    "auth_failure_delay": 0,
    "oauth_issuer": issuer.ISSUER,
    "oauth_audience": "pgshuttle",
    "oauth_scope": "openid db",
}


class Issuer:
    """A server of HTTP with a JWK set, which counts who asks."""

    def __init__(self) -> None:
        self.status, self.headers, self.body = 200, dict[str, str](), jwk_set(public_jwk("2048", "one"))
        self.asked, self.patience = 0, 0.0
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                time.sleep(issuer.patience)
                self.send_response(issuer.status)
                for name, value in issuer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(issuer.body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}/keys"

    def speak_tls(self, pair: Pair) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert, pair.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.address = self.address.replace("http:", "https:")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(name="keys")
def _keys() -> Iterator[Issuer]:
    keys = Issuer()
    yield keys
    keys.close()


@pytest.fixture(name="stand")
def _stand(upstream, keys) -> Iterator[Stand]:
    with Stand(upstream, SETTINGS | {"oauth_jwks": keys.address}, databases=HOME) as stand:
        yield stand


def show(line: Raw, auth: str, user: str = "anna", database: str = "home") -> list[Message]:
    """Log in with this `auth`; all that is said, up to the end or to ReadyForQuery."""
    line.send(startup(user, database))
    asked = line.read()
    assert asked == Message("R", pack("!I", 10) + b"OAUTHBEARER\0\0"), asked
    first = f"n,,\x01auth={auth}\x01\x01".encode()
    line.send(message("p", b"OAUTHBEARER\0" + pack("!I", len(first)) + first))
    found = [line.read()]
    if found[0].body[:4] == pack("!I", 11):
        line.send(message("p", b"\x01"))
        return [*found, *line.read_to_end()]
    return found if found[0].kind == "E" else [*found, *line.read_until("ZE")]


def log_in(stand: Stand, shown: Any, **more: str) -> str:
    """The error's text, or nothing."""
    with stand.call() as line:
        messages = show(line, f"Bearer {shown.reveal()}", **more)
        if not error(messages):
            assert rows(line.ask("select current_user")) == [("app",)]
        return error(messages).get("M", "")


def test_a_bare_socket_logs_in_with_a_token(stand):
    assert log_in(stand, token()) == ""


def test_each_algorithm_of_a_public_key_is_believed(stand, keys):
    """By a process that has given up the right to read its own libraries, so all must be loaded by then."""
    keys.body = jwk_set(*(public_jwk(kind, kind) for kind, _ in SIGNED))
    for kind, algorithm in SIGNED:
        assert log_in(stand, token(kind, algorithm, kind)) == ""
        assert log_in(stand, token(kind, algorithm, kind, number=1)) == FAILED


def test_each_lie_is_told_in_vain_and_the_log_says_why(stand):
    thief = {**issuer.CLAIMS, "exp": 4102444800}
    lies = {
        "it has expired": token(exp=-100),
        "it is of another issuer": token(iss="https://evil.example.com"),
        "it is made for somebody else": token(aud="shop"),
        "it lacks the scope db": token(scope="openid"),
        'it is of "bert"': token(sub="bert"),
        "its signature is wrong": token(number=1),
        "it is not signed with a public key": forged({"alg": "none", "kid": "one"}, thief),
        "it is no JWT": token(header={"crit": ["exp"]}),
    }
    for why, shown in lies.items():
        stand.mark()
        assert log_in(stand, shown) == FAILED
        assert why in stand.wait_log("pooler error")
        stand.wait_log("login failed: db=home user=anna")
    confused = forged({"alg": "HS256", "kid": "one"}, thief, issuer.public_pem("2048"))
    assert log_in(stand, confused) == FAILED
    assert not [shown for shown in (*lies.values(), confused) if shown.reveal().split(".")[1] in stand.log]


def test_a_client_without_a_token_hears_where_they_are_had_and_is_no_failed_login(stand):
    with stand.call() as line:
        said = show(line, "")
    assert json.loads(said[0].body[4:]) == {
        "status": "invalid_token",
        "openid-configuration": f"{issuer.ISSUER}/.well-known/openid-configuration",
        "scope": "openid db",
    }
    assert sqlstate(said) == "28000"
    stand.wait_log("closing because")
    assert "login failed" not in stand.log


def test_a_database_without_a_password_says_what_is_needed(stand):
    with stand.call() as line:
        refusal = error(show(line, f"Bearer {token().reveal()}", database="bare"))
    assert refusal["M"] == 'PostgreSQL asks user "anna" for a password, by SCRAM-SHA-256, which we do not have'
    assert "password= of the database" in refusal["H"]


def test_a_key_that_is_new_is_found_and_the_issuer_is_asked_seldom(stand, keys):
    assert log_in(stand, token()) == ""
    for _ in range(20):
        assert log_in(stand, token(name="no such key")) == FAILED
    assert keys.asked == 1
    keys.body = jwk_set(public_jwk("P-256", "two"))
    assert log_in(stand, token("P-256", "ES256", "two")) == FAILED  # asked a moment ago
    wait_until(lambda: log_in(stand, token("P-256", "ES256", "two")) == "", "the new key is known", 20)
    assert log_in(stand, token()) == FAILED
    assert keys.asked == 2


def test_a_storm_of_logins_asks_the_issuer_once(stand, keys):
    keys.patience = 0.3
    first = f"n,,\x01auth=Bearer {token().reveal()}\x01\x01".encode()
    with contextlib.ExitStack() as callers:
        lines = [callers.enter_context(stand.call()) for _ in range(50)]
        for line in lines:
            line.send(startup("anna", "home"), message("p", b"OAUTHBEARER\0" + pack("!I", len(first)) + first))
        assert [line.read_until("ZE")[-1].kind for line in lines] == ["Z"] * 50
    assert keys.asked == 1


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        ({"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}}, "HTTP 302"),
        ({"status": 503}, "HTTP 503"),
        ({"body": b"<html>"}, "no JWK set"),
        ({"body": b"x" * 300_000}, "longer than 262144 bytes"),
        (
            {"body": base64.b64decode("H4sIAAAAAAACA8tIzcnJBwCGphA2BQAAAA=="), "headers": {"Content-Encoding": "gzip"}},
            "no JWK set",
        ),
        ({"patience": 6.0}, "no answer within 5 s"),
    ],
)
def test_an_issuer_in_trouble_lets_nobody_in_and_holds_nobody_up(stand, keys, trouble, why):
    for name, value in trouble.items():
        setattr(keys, name, value)
    assert log_in(stand, token()) == FAILED
    assert why in stand.wait_log("the keys stay as they were")
    started = time.monotonic()
    assert log_in(stand, token()) == FAILED
    assert time.monotonic() - started < 2


def test_a_line_of_the_hba_file_asks_for_tokens_and_a_map_says_who_may_be_whom(stand, keys):
    rules, maps = stand.folder / "hba.conf", stand.folder / "ident.conf"
    options = f"issuer={issuer.ISSUER} jwks={keys.address} audience=pgshuttle scope=db user_claim=email map=people"
    rules.write_text(f"host home all 127.0.0.1/32 oauth {options}\n")
    maps.write_text("people /^(.*)@example[.]com$ \\1\n")
    stand.settings |= {"auth_type": "hba", "auth_hba_file": rules, "auth_ident_file": maps}
    stand.settings |= {"oauth_issuer": "", "oauth_jwks": "", "oauth_audience": "", "oauth_scope": ""}
    assert "reloaded" in stand.reload()
    assert log_in(stand, token(email="anna@example.com")) == ""
    assert log_in(stand, token(email="anna@example.com"), user="bert").startswith("OAuth bearer authentication failed")
    assert log_in(stand, token(email="anna@example.org")) == FAILED
    assert log_in(stand, token(email="anna")) == FAILED
    stand.wait_log('it is of "anna", rule .*hba.conf:1')


def test_keys_come_by_https_from_an_issuer_whose_certificate_is_right(upstream, keys, monkeypatch):
    with certificates() as folder:
        authority = Authority(folder)
        keys.speak_tls(opened(authority.issue("localhost", sans="IP:127.0.0.1")))
        said = SETTINGS | {"oauth_jwks": keys.address}
        with Stand(upstream, said, databases=HOME) as stand:
            assert log_in(stand, token()) == FAILED
            assert "certificate verify failed" in stand.wait_log("the keys stay as they were")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.cert))
        with Stand(upstream, said, databases=HOME) as stand:
            assert log_in(stand, token()) == ""


# A real libpq.


def with_libpq(stand: Stand, **more: Any) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host="127.0.0.1",
        port=stand.port,
        user="anna",
        dbname="home",
        oauth_issuer=issuer.ISSUER,
        oauth_client_id="psql",
        connect_timeout=10,
        **more,
    )


@pytest.fixture
def a_new_libpq() -> None:
    if libpq.find() is None:
        give_up("psycopg's libpq is older than 18")


@pytest.mark.usefixtures("a_new_libpq")
def test_libpq_asks_where_tokens_are_had_and_comes_back_with_one(stand):
    heard = []

    def give(place: str, scope: str) -> str:
        heard.append((place, scope))
        return token().reveal()

    with libpq.tokens(give), with_libpq(stand) as connection:
        assert connection.execute("select current_user").fetchone() == ("app",)
    assert heard == [(f"{issuer.ISSUER}/.well-known/openid-configuration", "openid db")]


@pytest.mark.usefixtures("a_new_libpq")
def test_libpq_hears_that_its_token_does_not_do(stand):
    with libpq.tokens(lambda *_: token(exp=-100).reveal()), pytest.raises(psycopg.OperationalError, match=FAILED):
        with_libpq(stand)


@pytest.mark.usefixtures("a_new_libpq")
def test_libpq_does_not_show_its_token_to_a_proxy_of_another_issuer(stand):
    with libpq.tokens(lambda *_: token().reveal()), pytest.raises(psycopg.OperationalError, match="issuer"):
        psycopg.connect(
            host="127.0.0.1",
            port=stand.port,
            user="anna",
            dbname="home",
            oauth_issuer="https://other.example.com",
            oauth_client_id="psql",
        )
