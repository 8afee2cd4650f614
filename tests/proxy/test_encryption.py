"""Who may speak in plain, who is answered S and who N, and what nobody gets away with. No socket: no handshake here."""

import asyncio

import pytest

from protocol.frontend import build_query
from protocol.startup import build_cancel_request, build_gss_request, build_ssl_request, build_startup
from proxy import encryption
from proxy.config.settings import assign
from proxy.doorstep import Doorstep
from proxy.handshake import HandshakeFailed
from proxy.log import Address
from proxy.tls import Contexts
from proxy.visit import Visit
from tests.proxy.auth.wire import alone, play, wired
from tests.proxy.test_doorstep import Door, turns
from tests.proxy.test_login import HELLO, PARAMETERS, a_proxy, find_pool, meet, refusal

SSL, GSS = build_ssl_request(), build_gss_request()


class Connection:
    """What is known of a handshake that went well."""

    def __init__(self, alpn="postgresql"):
        self.alpn = alpn

    def selected_alpn_protocol(self):
        return self.alpn

    def version(self):
        return "TLSv1.3"

    def cipher(self):
        return ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)

    def getpeercert(self):
        return {}


@pytest.fixture(name="shaken")
def _shaken(monkeypatch):
    """Handshakes that went well, each as (how many bytes lay unread, was it direct)."""
    found = []
    connection = Connection()

    async def encrypt(inbox, context, *, is_direct=False):
        found.append((len(inbox.take_all()), is_direct))
        wired(inbox).get_extra_info = lambda name, default=None: connection if name == "ssl_object" else default

    monkeypatch.setattr(encryption, "encrypt", encrypt)
    return {"shaken": found, "connection": connection}


def offering(path, mode="require", **settings):
    """A proxy with TLS of which nothing has to be built."""
    proxy = a_proxy(path, **settings)
    proxy.tls = Contexts(for_clients=object())
    proxy.settings = assign(proxy.settings, "client_tls_sslmode", mode)
    find_pool(proxy).welcome = PARAMETERS
    return proxy


def converse(proxy, *said, address=("10.0.0.7", 51234)):
    """Each of the words after the answer to the one before; all that was heard."""

    async def main():
        inbox = alone(said[0])
        wired(inbox).set_protocol = lambda phase: None
        talk = Visit(proxy, inbox, Address(*address))
        meeting = asyncio.ensure_future(talk.run())
        await turns(5)
        for words in said[1:]:
            inbox.data_received(words)
            await turns(5)
        inbox.eof_received()
        await meeting
        return wired(inbox).written

    return play(main())


@pytest.mark.parametrize("mode", ["allow", "prefer", "require", "verify-ca", "verify-full"])
def test_an_ssl_request_is_answered_s_and_the_login_goes_on_encrypted(tmp_path, shaken, mode):
    proxy = offering(tmp_path, mode)
    assert converse(proxy, SSL, HELLO).startswith(b"SR\0\0\0\x08\0\0\0\0")
    assert shaken["shaken"] == [(0, False)]
    assert "login attempt: db=shop user=anna tls=TLSv1.3/TLS_AES_256_GCM_SHA384 replication=no" in proxy.log.text


@pytest.mark.parametrize("mode", ["allow", "prefer"])
def test_plain_is_taken_where_tls_is_a_choice(tmp_path, mode):
    assert converse(offering(tmp_path, mode), HELLO).startswith(b"R\0\0\0\x08\0\0\0\0")


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_plain_is_refused_where_tls_is_required_whatever_was_declined_before(tmp_path, mode):
    proxy = offering(tmp_path, mode, auth_type="plain")
    assert refusal(converse(proxy, HELLO)) == ("28000", "SSL required")
    assert refusal(converse(proxy, GSS, HELLO)[1:]) == ("28000", "SSL required")
    assert "login attempt" not in proxy.log.text


def test_over_a_unix_socket_nothing_is_offered_and_nothing_required(tmp_path):
    heard = converse(offering(tmp_path), SSL, HELLO, address=("unix", 6432))
    assert heard.startswith(b"NR\0\0\0\x08\0\0\0\0")


def test_a_cancel_request_may_come_in_plain(tmp_path):
    assert converse(offering(tmp_path), build_cancel_request(b"12345678")) == b""


def test_what_lies_behind_an_ssl_request_ends_the_login_before_any_handshake(tmp_path, shaken):
    heard = converse(offering(tmp_path), SSL + HELLO + build_query("select 1"))
    assert refusal(heard) == ("08P01", "received unencrypted data after SSL request")
    assert not shaken["shaken"]


def test_gssapi_is_declined_before_tls_and_inside_it(tmp_path, shaken):
    assert converse(offering(tmp_path), GSS, SSL, HELLO).startswith(b"NSR")
    assert converse(offering(tmp_path), SSL, GSS, HELLO).startswith(b"SNR")


def test_tls_inside_tls_is_refused(tmp_path, shaken):
    heard = converse(offering(tmp_path), SSL, SSL)
    assert refusal(heard[1:]) == ("08P01", "SSL req inside SSL")


def test_a_first_byte_of_tls_begins_a_handshake_with_all_that_has_come(tmp_path, shaken):
    assert converse(offering(tmp_path), b"\x16\x03\x01", HELLO).startswith(b"R\0\0\0\x08\0\0\0\0")
    assert shaken["shaken"] == [(3, True)]


@pytest.mark.parametrize("alpn", [None, "http/1.1"])
def test_who_begins_with_tls_must_have_named_the_protocol(tmp_path, shaken, alpn):
    shaken["connection"].alpn = alpn
    state, words = refusal(converse(offering(tmp_path), b"\x16\x03\x01"))
    assert (state, "without ALPN" in words) == ("08P01", True)


def test_tls_after_a_declined_request_must_be_asked_for(tmp_path, shaken):
    assert refusal(converse(offering(tmp_path), GSS, b"\x16\x03\x01\x00" * 3)[1:])[0] == "08P01"
    assert not shaken["shaken"]


def test_without_an_offer_the_first_byte_of_tls_is_a_length_that_cannot_be(tmp_path, shaken):
    proxy = a_proxy(tmp_path)
    assert refusal(converse(proxy, b"\x16\x03\x01\x00" * 3)) == (
        "08P01",
        "invalid length of startup packet: 369295616",
    )
    assert not shaken["shaken"]


def test_an_ssl_request_on_the_doorstep_begins_a_conversation_where_there_is_tls(tmp_path, shaken):
    async def main():
        door = Door(offering(tmp_path))
        door.phase.data_received(SSL)
        assert not isinstance(door.phase, Doorstep)
        await turns()
        heard = door.written
        door.phase.eof_received()
        await turns()
        return heard

    assert play(main()) == b"S"


def test_a_login_that_was_let_in_encrypted_or_by_unix_socket_opens_no_door_for_plain_ones(tmp_path, shaken):
    """Express knows a packet by its bytes alone: where TLS is required no packet may be known."""

    async def main():
        proxy = offering(tmp_path)
        for address in (("10.0.0.7", 1), ("unix", 6432)):
            inbox = alone(SSL if address[0] != "unix" else HELLO)
            wired(inbox).set_protocol = lambda phase: None
            talk = asyncio.ensure_future(Visit(proxy, inbox, Address(*address)).run())
            await turns(5)
            if address[0] != "unix":
                inbox.data_received(HELLO)
            await talk
        assert proxy.client_count == 2
        assert not len(proxy.express)
        door = Door(proxy)
        door.phase.data_received(HELLO)
        await turns()
        return door.written

    assert refusal(play(main())) == ("28000", "SSL required")


def test_a_login_over_tls_is_not_remembered_where_plain_ones_are(tmp_path, shaken):
    proxy = offering(tmp_path, "allow")
    converse(proxy, SSL, HELLO)
    assert not len(proxy.express)
    converse(proxy, HELLO)
    assert len(proxy.express) == 1


def test_a_failed_handshake_is_one_line(tmp_path, monkeypatch):
    async def encrypt(inbox, context, *, is_direct=False):
        raise HandshakeFailed("no shared cipher")

    monkeypatch.setattr(encryption, "encrypt", encrypt)
    proxy = offering(tmp_path)
    assert converse(proxy, SSL) == b"S"
    (line,) = proxy.log.lines
    assert str(line).endswith("(nodb)/(nouser)@10.0.0.7:51234 TLS handshake error: no shared cipher")
    assert str(line).startswith("WARNING")


def test_client_login_timeout_spans_the_handshake(tmp_path, monkeypatch):
    async def encrypt(inbox, context, *, is_direct=False):
        await asyncio.sleep(60)

    monkeypatch.setattr(encryption, "encrypt", encrypt)

    async def main():
        proxy = offering(tmp_path, client_login_timeout=0.01)
        inbox = alone(SSL)
        await meet(proxy, inbox)
        return proxy.log.text

    assert "client_login_timeout" in play(main())


@pytest.mark.parametrize("user", ["anna", "nobody"])
def test_auth_type_cert_without_a_certificate_is_refused_and_the_log_says_why(tmp_path, shaken, user):
    proxy = offering(tmp_path, "verify-full")
    proxy.settings = assign(proxy.settings, "auth_type", "cert")
    state, words = refusal(converse(proxy, SSL, build_startup({"user": user, "database": "shop"}))[1:])
    assert (state, words) == ("28000", f'certificate authentication failed for user "{user}"')
    assert "TLS client certificate required" in proxy.log.text
