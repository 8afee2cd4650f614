"""What no driver sends: each gets the right error, alone; nobody else notices, and the proxy lives."""

import random
import time
from contextlib import suppress
from struct import pack

import pytest

from tests.live.stand import Stand
from tests.live.wire import (
    GSS_REQUEST,
    SSL_REQUEST,
    error,
    kinds,
    message,
    query,
    rows,
    sqlstate,
    startup,
)

pytestmark = pytest.mark.live

MEGABYTE = 1_000_000


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    # Without tcp_defer_accept the silent ones reach us too.
    settings = {"max_packet_size": 5 * MEGABYTE, "client_login_timeout": 2, "tcp_defer_accept": 0}
    databases = {"postgres": "pool_size=2", "session": "dbname=postgres pool_mode=session pool_size=2"}
    with Stand(upstream, settings, databases=databases) as stand:
        yield stand


@pytest.fixture(autouse=True)
def _nobody_else_notices(stand):
    """Somebody works all the while; and the proxy's memory stays where it was."""
    with stand.raw() as neighbour:
        before = stand.rss
        neighbour.ask("begin; select 1")
        yield
        assert rows(neighbour.ask("select 'undisturbed'")) == [("undisturbed",)]
        assert neighbour.ask("commit")[-1].body == b"I"
        assert stand.rss - before < 30 * MEGABYTE
    with stand.raw() as newcomer:
        assert rows(newcomer.ask("select 'welcome'")) == [("welcome",)]


def refused(stand, *parts):
    """What is answered to these bytes from a stranger."""
    with stand.call() as line:
        line.send(*parts)
        return line.read_to_end()


BAD_STARTUPS = {
    "oversized": pack("!II", 100_000, 3 << 16) + b"x" * 20_000,
    "a length of four gigabytes": pack("!II", 0xFFFFFFFF, 3 << 16),
    "a negative length": pack("!iI", -5, 3 << 16),
    "a length of zero": pack("!II", 0, 3 << 16),
    "a length of four": pack("!I", 4),
    "no user": pack("!II", 9, 3 << 16) + b"\0",
    "an empty user": startup(""),
    "a name without its value": pack("!II", 14, 3 << 16) + b"user\0\0",
    "no end": pack("!II", 19, 3 << 16) + b"user\0app\0xx",
    "a user that is no UTF-8": startup("app").replace(b"app", b"\xff\xfe\xfd"),
    "protocol 2": startup("app", protocol=2 << 16),
    "protocol 4": startup("app", protocol=4 << 16),
    "a web browser": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
    "a password before startup": message("p", b"secret\0"),
    "a query before startup": query("select 1"),
    "a user of 10,000 characters": startup("u" * 9_900),
    "a database of 9,000 characters": startup("app", "d" * 9_000),
    "too many encryption requests": SSL_REQUEST,
}


@pytest.mark.parametrize("name", BAD_STARTUPS)
def test_a_bad_startup_packet(stand, name):
    if name == "too many encryption requests":
        with stand.call() as line:
            for _ in range(2):
                line.send(SSL_REQUEST)
                assert line.read_byte() == b"N"
            line.send(SSL_REQUEST)
            answer = line.read_to_end()
    else:
        answer = refused(stand, BAD_STARTUPS[name])
    words = error(answer)
    assert kinds(answer) == "E"
    assert words["S"] == "FATAL"
    assert words["C"] in ("08P01", "0A000", "28000", "3D000", "22021")
    assert "Traceback" not in str(words)
    assert len(str(words)) < 2000


@pytest.mark.parametrize("request_", [SSL_REQUEST, GSS_REQUEST], ids=["ssl", "gss"])
def test_an_encryption_request_is_declined_and_the_login_goes_on(stand, request_):
    with stand.call() as line:
        line.send(request_)
        assert line.read_byte() == b"N"
        assert line.login("app", "postgres")[-1].kind == "Z"
        assert rows(line.ask("select 1")) == [("1",)]


@pytest.mark.parametrize("request_", [SSL_REQUEST, GSS_REQUEST], ids=["ssl", "gss"])
def test_plaintext_behind_an_encryption_request_ends_the_login(stand, request_):
    answer = refused(stand, request_, startup("app", "postgres"))
    assert "R" not in kinds(answer)
    assert sqlstate(answer) == "08P01"
    assert "unencrypted data" in error(answer)["M"]


def test_half_open_logins_time_out_and_cost_little(stand):
    before, lines = stand.rss, [stand.call() for _ in range(200)]
    for number, line in enumerate(lines):
        line.send(startup("app", "postgres")[: number % 20])
    start = time.monotonic()
    for line in lines:
        assert "client_login_timeout" in error(line.read_to_end())["M"]
        line.close()
    assert time.monotonic() - start < 5
    assert stand.rss - before < 30 * MEGABYTE


def test_a_login_one_byte_at_a_time_has_the_same_time_as_any(stand):
    with stand.call() as line:
        start = time.monotonic()
        with suppress(OSError):
            for byte in startup("app", "postgres", application_name="x" * 100):
                line.send(bytes([byte]))
                time.sleep(0.05)
        assert time.monotonic() - start < 5, "client_login_timeout is 2"


@pytest.mark.parametrize("kind", ["p", "\0", "z", "R", "\xff", "1", "N"])
@pytest.mark.parametrize("database", ["postgres", "session"])
def test_a_message_that_is_illegal_after_login(stand, kind, database):
    with stand.raw(database=database) as line:
        line.send(kind.encode("latin-1") + pack("!I", 8) + b"abcd")
        answer = line.read_to_end()
        assert kinds(answer) == "E"
        assert (error(answer)["S"], error(answer)["C"]) == ("FATAL", "08P01")


@pytest.mark.parametrize("length", [0, 3, -1, -(2**31), 2**31 - 1, 6 * MEGABYTE])
@pytest.mark.parametrize("kind", ["Q", "P", "d", "B", "X"])
def test_an_absurd_length(stand, kind, length):
    with stand.raw() as line:
        line.send(kind.encode() + pack("!i", length) + b"some bytes")
        answer = line.read_to_end()
        assert kinds(answer) == "E"
        assert (error(answer)["S"], error(answer)["C"]) in (("FATAL", "08P01"), ("FATAL", "53400"))


@pytest.mark.parametrize("inside", ["begin", "select 1", "copy (select 1) to stdout"])
def test_garbage_in_the_middle_of_a_conversation(stand, inside):
    random.seed(7)
    for _ in range(10):
        with stand.raw() as line:
            line.ask(inside)
            line.send(random.randbytes(2000))
            answer = line.read_to_end()
            assert kinds(answer)[-1:] == "E"
            assert error(answer[-1:])["S"] == "FATAL"


def test_garbage_from_the_first_byte_on(stand):
    random.seed(11)
    for size in (1, 3, 4, 7, 8, 100, 5000):
        for _ in range(5):
            with stand.call() as line:
                line.send(random.randbytes(size))
                line.socket.shutdown(1)
                assert kinds(line.read_to_end()) in ("", "E")


def test_copy_data_that_nobody_asked_for_is_ignored_as_postgresql_does(stand):
    with stand.raw() as line:
        line.send(message("d", b"1\n"), message("c"), message("f", b"no\0"))
        assert rows(line.ask("select 'alive'")) == [("alive",)]


def test_messages_that_postgresql_itself_refuses_keep_the_client(stand):
    with stand.raw() as line:
        line.send(message("B", b"\0nothing\0" + pack("!HHH", 0, 0, 0)), message("S"))
        assert sqlstate(line.read_until()) == "26000"
        line.send(message("D", b"X\0"), message("S"))
        assert sqlstate(line.read_until()) == "08P01"
        line.send(message("E", b"no such portal\0" + pack("!I", 0)), message("S"))
        assert sqlstate(line.read_until()) == "34000"
        assert rows(line.ask("select 'alive'")) == [("alive",)]


def test_a_malformed_message_that_postgresql_finds_fatal_is_that_clients_alone(stand):
    with stand.raw() as line:
        line.send(message("P", b"\0no zero byte"), message("S"))
        answer = line.read_until("ZE")
        assert sqlstate(answer) == "08P01"


def test_names_of_ten_thousand_characters(stand):
    name = "n" * 10_000
    with stand.raw() as line:
        line.ask("begin; select 1")
        line.send(message("P", b"\0select 1\0" + pack("!H", 0)))
        line.send(message("B", name.encode() + b"\0\0" + pack("!HHH", 0, 0, 0)), message("S"))
        assert kinds(line.read_until()) == "12Z"
        line.ask("rollback")
        line.ask(f"set application_name = '{name}'")
        assert len(line.value("show application_name")) == 63
        assert sqlstate(line.ask(f"select {name}")) == "42703"
    with stand.call() as line:
        assert line.login("app", "postgres", application_name="x" * 9_000)[-1].kind == "Z"
        assert rows(line.ask("select 1")) == [("1",)]


def test_a_message_larger_than_max_packet_size_is_refused_before_it_is_read(stand):
    with stand.raw() as line:
        line.send(b"Q" + pack("!I", 5 * MEGABYTE + 10) + b"select 1")
        answer = line.read_to_end()
        assert error(answer)["S"] == "FATAL"
    with stand.raw() as line:
        assert rows(line.ask(f"select length('{'x' * 4 * MEGABYTE}')")) == [(str(4 * MEGABYTE),)]


def test_names_with_control_characters_stay_on_one_line_of_the_log(stand):
    stand.mark()
    refused(stand, startup("evil\nFAKE LOG LINE\x1b[31m", "postgres"))
    line = stand.wait_log("FAKE LOG LINE")
    assert "evil" in line
    assert "\x1b" not in stand.fresh_log


def test_every_error_has_left_a_line_in_the_log(stand):
    stand.mark()
    refused(stand, pack("!II", 100_000, 3 << 16))
    stand.wait_log("invalid length of startup packet: 100000")
    with stand.raw() as line:
        line.send(b"Q" + pack("!I", 0))
        line.read_to_end()
    stand.wait_log("pooler error: .*length")
