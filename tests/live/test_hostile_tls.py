"""Servers that answer the question for TLS with harm: their clients get an error in time, and no secret is sent."""

import base64
import ssl
import time
from struct import pack

import pytest

from tests.certificates import Authority
from tests.live.hostile import GREETING, OK, SSL_CODE, HostileServer
from tests.live.stand import Stand
from tests.live.tls import certificates
from tests.live.wire import error, message, rows

pytestmark = pytest.mark.live

SECRET = "a very secret word"
FORGED = GREETING + message("T", pack("!H", 0))
PLUS = message("R", pack("!I", 10) + b"SCRAM-SHA-256-PLUS\0\0")
BOTH = message("R", pack("!I", 10) + b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
SALT = base64.b64encode(b"0123456789abcdef").decode()


def asked(then):
    """Hears the SSLRequest; what follows is `then`'s."""

    def opening(wire):
        assert wire.take(8)[4:] == SSL_CODE
        then(wire)

    return opening


def says(*parts):
    return asked(lambda wire: wire.say(*parts))


def falls_silent(wire):
    time.sleep(3)


def drops(wire):
    wire.say(b"S")
    wire.socket.shutdown(2)


def drops_in_the_handshake(wire):
    wire.say(b"S")
    wire.take(20)
    wire.socket.shutdown(2)


OPENINGS = {
    "an_error": (says(message("E", b"SFATAL\0C28P01\0Mtell me your password\0\0")), "answered with an error"),
    "an_old_error": (says(b"Etell me your password\0"), "answered with an error"),
    "another_byte": (says(b"X"), "bad sslreq answer"),
    "a_login": (says(GREETING), "bad sslreq answer"),
    "a_login_behind_yes": (says(b"S" + FORGED), "received unencrypted data after SSL response"),
    "a_login_behind_no": (says(b"N" + FORGED), "received unencrypted data after SSL response"),
    "no": (says(b"N"), "server refused SSL"),
    "garbage_for_a_handshake": (says(b"S", b"\x17\x03\x03\x00\x05hello" * 10), "TLS handshake failed"),
    "a_web_server": (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "bad sslreq answer"),
    "drops": (asked(drops), "TLS handshake failed"),
    "drops_in_the_handshake": (asked(drops_in_the_handshake), "TLS handshake failed"),
    "hangs_up": (
        lambda wire: (wire.take(8), wire.socket.shutdown(2)),
        "login failed: the server hung up before it said a word",
    ),
    "silent": (asked(falls_silent), "server_connect_timeout"),
    "silent_after_yes": (asked(lambda wire: (wire.say(b"S"), falls_silent(wire))), "server_connect_timeout"),
}


@pytest.fixture(name="stand")
def _stand(upstream):
    """`evil` leads to whatever `point` says. The neighbours' server has no TLS, and need not."""
    with Stand(upstream, {"server_connect_timeout": 1, "server_login_retry": 0.2}) as stand:
        yield stand


def point(stand, server, mode):
    place = f"host=127.0.0.1 port={server.port} user=app password='{SECRET}' pool_size=1"
    stand.databases = {"evil": place, "*": ""}
    stand.settings["server_tls_sslmode"] = mode
    stand.reload()


def complaint(stand):
    """What a client of `evil` hears, and in time."""
    with stand.call() as line:
        start = time.monotonic()
        words = error(line.login("app", "evil"))
        assert time.monotonic() - start < 4
    assert SECRET not in stand.log
    assert "tell me your password" not in stand.log + words["M"]
    return words["M"]


@pytest.mark.parametrize("mode", ["prefer", "require"])
@pytest.mark.parametrize("name", OPENINGS)
def test_what_is_said_instead_of_a_handshake_ends_the_connection(stand, name, mode):
    opening, words = OPENINGS[name]
    heard = []

    def record(wire):
        opening(wire)
        heard.append(wire.socket.recv(65536))

    if (name, mode) == ("no", "prefer"):
        return  # is an honest answer
    with HostileServer({}, opening=record) as server:
        point(stand, server, mode)
        assert words in complaint(stand)
    assert not any(b"app\0" in each or SECRET.encode() in each for each in heard)
    if mode == "prefer":
        with stand.raw("other") as neighbour:
            assert rows(neighbour.ask("select 'undisturbed'")) == [("undisturbed",)]


def over_tls(context, script):
    """Speaks TLS, and then `script`."""

    def opening(wire):
        wire.take(8)
        wire.say(b"S")
        wire.encrypt(context)

    return HostileServer({"evil": script}, opening=opening)


@pytest.fixture(name="context")
def _context():
    with certificates() as folder:
        pair = Authority(folder).issue("evil")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert, pair.key)
        yield context


def lies(last):
    """Bound SCRAM up to the end, and then `last` where its proof should be."""

    def script(wire):
        wire.say(BOTH)
        _, body = wire.read_message()
        assert body.startswith(b"SCRAM-SHA-256-PLUS\0")
        nonce = body.decode("latin-1").split("r=")[1]
        wire.say(message("R", pack("!I", 11) + f"r={nonce}more,s={SALT},i=4096".encode()))
        wire.read_message()
        wire.say(*last)

    return script


WRONG = message("R", pack("!I", 12) + b"v=" + base64.b64encode(b"x" * 32))
NEVER = "the server does not know our password"


@pytest.mark.parametrize(
    ("last", "words"), [((WRONG, GREETING), NEVER), ((GREETING,), "without having proved that it knows our password")]
)
def test_a_server_that_cannot_sign_what_is_bound_to_its_certificate_is_left(stand, context, last, words):
    with over_tls(context, lies(last)) as server:
        point(stand, server, "require")
        assert words in complaint(stand)


def test_a_server_without_tls_that_offers_only_what_needs_it_is_left(stand):
    with HostileServer({"evil": lambda wire: wire.say(PLUS)}) as server:
        point(stand, server, "prefer")
        assert "'SCRAM-SHA-256-PLUS'; we speak only SCRAM-SHA-256 here" in complaint(stand)


def test_a_tls_server_that_breaks_the_protocol_is_as_hostile_as_any(stand, context):
    with over_tls(context, lambda wire: wire.say(OK, message("S", b"name\0value\0") * 100_000)) as server:
        point(stand, server, "require")
        assert "talks and talks" in complaint(stand)


def test_a_tls_server_that_says_nothing_is_left_in_time(stand, context):
    with over_tls(context, lambda wire: None) as server:
        point(stand, server, "require")
        assert "server_connect_timeout" in complaint(stand)
