"""TLS towards a server over a real pair of sockets, on both event loops: what it may answer, and what ends it."""

import asyncio
import contextlib
import socket
import ssl
from types import SimpleNamespace

import pytest

from proxy.config.entries import Database
from proxy.config.kinds import SslMode, TlsNegotiation
from proxy.config.settings import defaults
from proxy.inbox import Inbox, PeerGone
from proxy.places import Endpoint
from proxy.pool import Pool
from proxy.server_tls import ServerTls, TlsFailed, end_writing, find_tls, retire_all
from proxy.states import Closing
from proxy.tls import Contexts, build_contexts, describe
from tests.fakes import FakeTransport, FakeWorld
from tests.proxy.test_tls import settings_of

SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"


@pytest.fixture(scope="module", name="theirs")
def _theirs(authority):
    """The server's side; it knows the protocol by name, as PostgreSQL 17 does."""
    pair = authority.issue("db", sans="DNS:db")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    context.set_alpn_protocols(["postgresql"])
    return context


def ours(authority, mode="verify-full"):
    return build_contexts(settings_of(server_tls_sslmode=mode, server_tls_ca_file=str(authority.cert))).for_servers


async def meet(serve):
    """An inbox of ours, and what becomes of `serve`, which has the other end of its socket in a thread."""
    near, far = socket.socketpair()
    far.settimeout(5)
    inbox = Inbox()
    await asyncio.get_running_loop().connect_accepted_socket(lambda: inbox, near)

    def work():
        try:
            return serve(far)
        finally:
            far.close()

    return inbox, asyncio.ensure_future(asyncio.to_thread(work))


def answers(*parts):
    """A server that hears an SSLRequest and says this, and then listens until we go."""

    def serve(far):
        assert far.recv(8) == SSL_REQUEST
        for part in parts:
            far.sendall(part)
        heard = b""
        with contextlib.suppress(OSError):
            while data := far.recv(65536):
                heard += data
        return heard

    return serve


def encrypts(context, *, asked=True):
    """A server that speaks TLS: it hears four bytes and says four."""

    def serve(far):
        if asked:
            assert far.recv(8) == SSL_REQUEST
            far.sendall(b"S")
        try:
            with context.wrap_socket(far, server_side=True) as wrapped:
                heard = wrapped.recv(4)
                wrapped.sendall(b"pong")
                wrapped.recv(1)
                return heard
        except OSError as error:
            return error

    return serve


@pytest.mark.parametrize("is_direct", [False, True])
def test_what_is_said_after_the_handshake_is_encrypted(run, authority, theirs, is_direct):
    async def main():
        inbox, serving = await meet(encrypts(theirs, asked=not is_direct))
        assert await ServerTls(ours(authority), is_direct=is_direct).begin(inbox, "db") is True
        assert describe(inbox.transport).startswith("TLSv1.3/")
        inbox.write(b"ping")
        assert [await inbox.wait_byte() for _ in "pong"] == [b"p", b"o", b"n", b"g"]
        inbox.close()
        await inbox.wait_closed()
        assert await serving == b"ping"

    run(main())


def test_a_server_that_does_not_is_fine_where_it_need_not_and_nothing_else_has_been_said(run, authority):
    async def main():
        inbox, serving = await meet(answers(b"N"))
        assert await ServerTls(ours(authority), is_needed=False).begin(inbox, "db") is False
        inbox.write(b"startup")
        inbox.close()
        assert await serving == b"startup"

    run(main())


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((b"N",), "server refused SSL"),
        ((b"E\0\0\0\x05x",), "answered with an error"),
        ((b"?",), "bad sslreq answer"),
        ((b"R\0\0\0\x08\0\0\0\0",), "bad sslreq answer"),
        ((b"SZ",), "received unencrypted data after SSL response"),
        ((b"S" + b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I",), "received unencrypted data after SSL response"),
        ((b"NZ",), "received unencrypted data after SSL response"),
    ],
)
def test_any_other_answer_ends_it_and_no_word_of_ours_follows(run, authority, parts, words):
    async def main():
        inbox, serving = await meet(answers(*parts))
        with pytest.raises(TlsFailed, match=words):
            await ServerTls(ours(authority)).begin(inbox, "db")
        inbox.close()
        assert await serving == b""

    run(main())


def test_whoever_hangs_up_when_asked_is_told_from_one_whose_tls_fails(run, authority):
    async def main():
        inbox, _ = await meet(lambda far: far.recv(8))
        with pytest.raises(PeerGone, match="hung up before it said a word; it may be starting or shutting down"):
            await ServerTls(ours(authority)).begin(inbox, "db")
        inbox.close()

    run(main())


def hangs_up(far):
    far.recv(8)
    far.sendall(b"S")
    far.recv(10)


@pytest.mark.parametrize(
    "serve", [hangs_up, answers(b"S", b"R\0\0\0\x08\0\0\0\0" * 100), answers(b"S", b"\x16\x03\x01\xff\xff")]
)
@pytest.mark.parametrize("is_needed", [False, True])
def test_a_handshake_that_fails_is_never_followed_by_words_in_plain(run, authority, serve, is_needed):
    """The garbage may come together with the S, or behind it: it ends the connection either way."""

    async def main():
        inbox, serving = await meet(serve)
        if serve is not hangs_up:
            asyncio.get_running_loop().call_later(0.2, inbox.transport.abort)
        with pytest.raises(TlsFailed):
            await ServerTls(ours(authority, "prefer"), is_needed=is_needed).begin(inbox, "db")
        inbox.write(b"never")
        inbox.close()
        await inbox.wait_closed()
        assert b"never" not in (await serving or b"")

    run(main())


@pytest.mark.parametrize(
    ("mode", "host", "words"),
    [
        ("verify-full", "other", "certificate verify failed: Hostname mismatch, certificate is not valid for 'other'"),
        ("verify-full", "10.0.0.1", "certificate verify failed: IP address mismatch"),
        ("verify-ca", "other", ""),
        ("require", "other", ""),
    ],
)
def test_the_certificate_must_be_for_the_host_where_that_is_asked(run, authority, theirs, mode, host, words):
    async def main():
        inbox, serving = await meet(encrypts(theirs))
        if words:
            with pytest.raises(TlsFailed, match=words):
                await ServerTls(ours(authority, mode)).begin(inbox, host)
            with pytest.raises(PeerGone):
                await inbox.wait_byte()
        else:
            assert await ServerTls(ours(authority, mode)).begin(inbox, host)
        inbox.close()
        await serving

    run(main())


def test_direct_tls_with_a_server_that_does_not_name_the_protocol_is_none(run, authority):
    async def main():
        pair = authority.issue("db", sans="DNS:db", stem="nameless")
        nameless = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        nameless.load_cert_chain(pair.cert, pair.key)
        inbox, serving = await meet(encrypts(nameless, asked=False))
        with pytest.raises(TlsFailed, match="ALPN"):
            await ServerTls(ours(authority), is_direct=True).begin(inbox, "db")
        inbox.close()
        await serving

    run(main())


def test_a_handshake_that_is_given_up_in_the_middle_leaves_nothing(run, authority):
    async def main():
        loop, has_begun = asyncio.get_running_loop(), asyncio.Event()

        def serve(far):
            far.recv(8)
            far.sendall(b"S")
            first = far.recv(1)
            loop.call_soon_threadsafe(has_begun.set)
            with contextlib.suppress(OSError):
                while far.recv(65536):
                    pass
            return first

        inbox, serving = await meet(serve)
        beginning = asyncio.ensure_future(ServerTls(ours(authority)).begin(inbox, "db"))
        await has_begun.wait()
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        await inbox.wait_closed()
        assert await serving == b"\x16"

    run(main())


# Who is reached how.

CONTEXTS = build_contexts(defaults())
SHOP = Database(name="shop")


@pytest.mark.parametrize("mode", SslMode)
def test_only_strict_modes_need_it(mode):
    tls = find_tls(CONTEXTS, settings_of(server_tls_sslmode=str(mode)), SHOP)
    assert (tls.is_needed, tls.is_direct) == (mode in (SslMode.REQUIRE, SslMode.VERIFY_CA, SslMode.VERIFY_FULL), False)
    assert tls.as_is().is_needed


@pytest.mark.parametrize("mode", [mode for mode in SslMode if mode is not SslMode.DISABLE])
def test_the_binding_of_scram_must_do_where_tls_is_needed_and_nobody_looks_at_the_name(mode):
    settings = settings_of(server_tls_sslmode=str(mode))
    tls = find_tls(build_contexts(settings), settings, SHOP)
    assert tls.must_bind is (mode in (SslMode.REQUIRE, SslMode.VERIFY_CA))


def test_without_a_context_nobody_is_asked():
    assert find_tls(Contexts(), defaults(), SHOP) is None


@pytest.mark.parametrize("general", TlsNegotiation)
@pytest.mark.parametrize("own", [None, *TlsNegotiation])
def test_how_it_begins_a_database_may_say_for_itself(general, own):
    settings = settings_of(server_tls_sslmode="require", server_tls_negotiation=str(general))
    tls = find_tls(CONTEXTS, settings, Database(name="shop", server_tls_negotiation=own))
    assert tls.is_direct is ((own or general) is TlsNegotiation.DIRECT)


def test_when_tls_changes_the_servers_behind_tcp_are_replaced_and_no_others():
    world = FakeWorld()
    other = Pool("other", "web", world.pool.limits, world)
    servers = []
    for pool, host in ((world.pool, "10.0.0.1"), (other, "/run/pg")):
        server = world.open_server(pool)
        pool.server_opening = server
        world.openings.clear()
        servers.append(server)
        server.endpoint = Endpoint(host, 5432)
    pools = [SimpleNamespace(places=[[server]], failure="x", retired=[]) for server in servers]
    for pool in pools:
        pool.retire_servers = pool.retired.append
    retire_all(pools)
    assert [(pool.failure, pool.retired) for pool in pools] == [(None, [Closing.STALE]), ("x", [])]


def test_the_last_word_is_half_a_close_where_there_are_halves():
    halves, whole = FakeTransport(FakeWorld().loop), FakeTransport(FakeWorld().loop)
    halves.can_half_close = True
    for transport in (halves, whole):
        transport.protocol = SimpleNamespace(connection_lost=lambda error: None)
        end_writing(transport)
    assert (halves.has_written_eof, halves.is_closing()) == (True, False)
    assert (whole.has_written_eof, whole.is_closing()) == (False, True)
