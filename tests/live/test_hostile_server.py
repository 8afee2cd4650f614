"""Servers that break the protocol, by malice or by accident: their clients get an error, everybody else gets served."""

import base64
import time
from struct import pack

import pytest

from tests.live.hostile import ANSWER, GREETING, KEY, OK, READY, ROW, SASL, HostileServer
from tests.live.stand import Stand
from tests.live.wire import error, message, query, rows

pytestmark = pytest.mark.live

SALT = base64.b64encode(b"0123456789abcdef").decode()
ERROR = message("E", b"SERROR\0VERROR\0C22012\0Mdivision by zero\0\0")


def scram(wire, answer):
    """SCRAM up to the challenge, which `answer` makes of the client's nonce."""
    wire.say(SASL)
    _, body = wire.read_message()
    nonce = body.decode("latin-1").split("r=")[1]
    wire.say(message("R", pack("!I", 11) + answer(nonce).encode()))
    return nonce


def last_word(word):
    """SCRAM to the end, with a wrong last word."""

    def script(wire):
        scram(wire, lambda nonce: f"r={nonce}more,s={SALT},i=4096")
        wire.read_message()
        wire.say(message("R", pack("!I", 12) + word), GREETING)

    return script


def says(*parts):
    return lambda wire: wire.say(*parts)


# What it says instead of letting us in.
AT_LOGIN = {
    "absurd_length": says(b"R" + pack("!I", 0xFFFFFFFF)),
    "tiny_length": says(b"R" + pack("!I", 1) + b"xxxx"),
    "long_message": says(b"R" + pack("!I", 50_000_000), b"x" * 1_000_000),
    "error_without_fields": says(message("E", b"\0")),
    "error_of_nothing": says(message("E", b"")),
    "error_without_end": says(message("E", b"SFATAL\0Mno end")),
    "error_of_garbage": says(message("E", b"\xff\xfe\xfd" * 100)),
    "wrong_nonce": lambda wire: scram(wire, lambda nonce: f"r=somebody else's,s={SALT},i=4096"),
    "same_nonce": lambda wire: scram(wire, lambda nonce: f"r={nonce},s={SALT},i=4096"),
    "a_million_iterations": lambda wire: scram(wire, lambda nonce: f"r={nonce}more,s={SALT},i=100000000"),
    "no_iterations": lambda wire: scram(wire, lambda nonce: f"r={nonce}more,s={SALT},i=0"),
    "bad_salt": lambda wire: scram(wire, lambda nonce: f"r={nonce}more,s=!!!,i=4096"),
    "long_nonce": lambda wire: scram(wire, lambda nonce: f"r={nonce}{'x' * 60_000},s={SALT},i=4096"),
    "wrong_proof": last_word(b"v=" + base64.b64encode(b"x" * 32)),
    "no_proof": lambda wire: (scram(wire, lambda nonce: f"r={nonce}more,s={SALT},i=4096"), wire.say(GREETING)),
    "scram_of_another_kind": says(message("R", pack("!I", 10) + b"SCRAM-SHA-1\0\0")),
    "kerberos": says(message("R", pack("!I", 2))),
    "unknown_request": says(message("R", pack("!I", 4711))),
    "empty_request": says(message("R", b"")),
    "a_row": says(ROW),
    "talks_for_ever": says(OK, message("S", b"name\0value\0") * 100_000),
    "ready_at_once": says(READY),
    "web_server": says(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
    "hangs_up": lambda wire: wire.socket.shutdown(2),
    "hangs_up_halfway": lambda wire: (wire.say(OK + KEY[:5]), wire.socket.shutdown(2)),
    "silent": lambda wire: None,
}


def on_query(*parts):
    """Lets us in, and answers the first query with this."""

    def script(wire):
        wire.say(GREETING)
        wire.wait_query()
        wire.say(*parts)

    return script


# What it says to a client's query.
AT_WORK = {
    "work_absurd_length": on_query(b"D" + pack("!I", 0xFFFFFFF0) + b"x" * 1000),
    "work_tiny_length": on_query(b"D" + pack("!I", 3) + b"x" * 1000),
    "work_unknown_type": on_query(message("*", b"?")),
    "work_second_login": on_query(OK),
    "work_parse_complete": on_query(message("1"), ANSWER),
    "work_bad_ready": on_query(ROW, message("Z", b"Q")),
    "work_long_ready": on_query(ROW, message("Z", b"I" * 100)),
    "work_huge_ready": on_query(ROW, b"Z" + pack("!I", 1_000_000) + b"I" * 100_000),
    "work_bad_parameter": on_query(message("S", b"no value")),
    "work_garbage": on_query(b"\x16\x03\x01" * 1000),
    "work_hangs_up": lambda wire: (wire.say(GREETING), wire.wait_query(), wire.socket.shutdown(2)),
}


# What it says when nobody has asked; the client idles.
def unasked(*parts):
    def script(wire):
        wire.say(GREETING)
        wire.wait_query()
        wire.say(ANSWER)
        time.sleep(0.2)
        wire.say(*parts)

    return script


UNASKED = {
    "unasked_answer": unasked(ANSWER),
    "unasked_ready": unasked(READY),
    "unasked_row": unasked(ROW),
    "unasked_copy": unasked(message("G", b"\0\0\0")),
    "unasked_error": unasked(ERROR),
    "unasked_garbage": unasked(b"\0" * 100),
}


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    scripts = AT_LOGIN | AT_WORK | UNASKED | {"second_answer": on_query(ANSWER, ANSWER), "good": _good}
    with HostileServer(scripts) as server:
        place = f"host=127.0.0.1 port={server.port} user=app password=secret pool_size=1"
        settings = {"server_connect_timeout": 1, "server_login_retry": 0.2}
        databases = dict.fromkeys(scripts, place) | {"*": ""}
        with Stand(upstream, settings, databases=databases) as stand:
            yield stand


def _good(wire):
    wire.say(GREETING)
    while True:
        wire.wait_query()
        wire.say(ANSWER)


@pytest.fixture(autouse=True)
def _nobody_else_notices(stand):
    before = stand.rss
    with stand.raw("other") as neighbour:
        neighbour.ask("begin; select 1")
        yield
        assert rows(neighbour.ask("select 'undisturbed'")) == [("undisturbed",)]
    assert stand.rss - before < 30_000_000


def test_the_fake_server_is_a_good_one_when_it_wants_to(stand):
    with stand.raw(database="good") as line:
        assert rows(line.ask("select 1")) == [("1",)]


@pytest.mark.parametrize("name", AT_LOGIN)
def test_at_login(stand, name):
    with stand.call() as line:
        start = time.monotonic()
        words = error(line.login("app", name))
        assert time.monotonic() - start < 4
        assert words["S"] == "FATAL"
        assert len(words["C"]) == 5
        assert words["M"]
        assert len(str(words)) < 2000
    assert "secret" not in stand.log


@pytest.mark.parametrize("name", AT_WORK)
def test_in_answer_to_a_query(stand, name):
    with stand.raw(database=name) as line:
        line.send(query("select 1"))
        words = error(line.read_to_end())
        assert words["S"] == "FATAL"
        assert words["C"] in ("08P01", "08006")
        assert len(str(words)) < 2000


@pytest.mark.parametrize("name", UNASKED)
def test_what_nobody_asked_for_reaches_nobody(stand, name):
    with stand.raw(database=name) as line:
        assert rows(line.ask("select 1")) == [("1",)]
        time.sleep(0.4)
        line.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            line.read()
        line.socket.settimeout(10)
        assert rows(line.ask("select 1")) == [("1",)], "on another connection"


def test_a_second_answer_never_reaches_the_next_client(stand):
    with stand.raw(database="second_answer") as one, stand.raw(database="second_answer") as two:
        one.send(query("select 1"))
        two.send(query("select 1"))
        for line in (one, two):
            heard = line.read_until("ZE")
            assert rows(heard) in ([("1",)], [])
