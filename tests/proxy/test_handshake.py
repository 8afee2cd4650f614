"""A handshake over a real pair of sockets, on both event loops; everything that stands around it is fake."""

import asyncio
import socket
import ssl

import pytest

from proxy.handshake import MAX_PIECES, HandshakeFailed, encrypt
from proxy.inbox import Inbox, PeerGone
from proxy.tls import build_contexts, describe, is_encrypted
from tests.live.tls import client_context, settings_of
from tests.proxy.test_tls import settings_of as settings_with


@pytest.fixture(scope="module", name="pair")
def _pair(authority):
    return authority.issue("pooler", sans="DNS:localhost")


@pytest.fixture(name="context")
def _context(pair):
    return build_contexts(settings_with(**settings_of(pair))).for_clients


async def meet():
    """An inbox of ours, and the other end of its socket."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    inbox = Inbox()
    await asyncio.get_running_loop().connect_accepted_socket(lambda: inbox, ours)
    return inbox, theirs


def shake(theirs, context=None):
    """The client's side, in a thread."""
    return (context or client_context()).wrap_socket(theirs, server_hostname="localhost")


def test_what_is_said_after_the_handshake_is_read_in_plain_and_written_encrypted(run, context):
    async def main():
        inbox, theirs = await meet()
        shaking = asyncio.to_thread(shake, theirs)
        side, _ = await asyncio.gather(shaking, encrypt(inbox, context))
        assert is_encrypted(inbox.transport)
        assert describe(inbox.transport) == "TLSv1.3/TLS_AES_256_GCM_SHA384"
        await asyncio.to_thread(side.sendall, b"Q\0\0\0\x05x")
        assert await inbox.wait_message(100) == (ord("Q"), b"x")
        inbox.write(b"answer")
        heard = await asyncio.to_thread(side.recv, 100)
        inbox.close()
        side.close()
        return heard

    assert run(main()) == b"answer"


@pytest.mark.parametrize("size", [1, 100, 100_000])
def test_bytes_that_came_before_the_loop_took_over_are_the_beginning_of_a_direct_handshake(run, context, size):
    async def main():
        inbox, theirs = await meet()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        side = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            side.do_handshake()
        hello = outgoing.read()
        theirs.sendall(hello[:size])
        assert await inbox.wait_first() == 0x16
        theirs.sendall(hello[size:])
        handshake = asyncio.ensure_future(encrypt(inbox, context, is_direct=True))
        incoming.write(await asyncio.to_thread(theirs.recv, 1 << 16))
        side.do_handshake()
        side.write(b"\x07")
        theirs.sendall(outgoing.read())
        await handshake
        seven = await inbox.wait_byte()
        inbox.close()
        theirs.close()
        return seven

    assert run(main()) == b"\x07"


def test_garbage_is_a_reason_and_the_socket_is_closed(run, context):
    async def main():
        inbox, theirs = await meet()
        theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(HandshakeFailed, match="http request"):
            await encrypt(inbox, context)
        await asyncio.sleep(0.01)
        with theirs:
            return await asyncio.to_thread(theirs.recv, 100)

    assert run(main())[:1] in (b"", b"\x15"), "an alert at the most"


def test_nothing_that_came_before_the_handshake_may_be_there_after_it(run, context):
    async def main():
        inbox, theirs = await meet()
        with theirs:
            theirs.sendall(b"slipped in")
            await inbox.wait_first()
            with pytest.raises(AssertionError, match="unencrypted"):
                await encrypt(inbox, context)
            inbox.close()

    run(main())


def test_a_client_is_told_by_an_alert_why_its_handshake_failed(run, pair, authority):
    async def main():
        context = build_contexts(settings_with(**settings_of(pair, authority, "verify-full"))).for_clients
        inbox, theirs = await meet()
        shaking = asyncio.ensure_future(asyncio.to_thread(shake, theirs))
        with pytest.raises(HandshakeFailed, match="peer did not return a certificate"):
            await encrypt(inbox, context)
        side = await shaking
        with pytest.raises(ssl.SSLError, match="certificate required"):
            await asyncio.to_thread(side.recv, 1)
        side.close()

    run(main())


def test_who_offers_other_protocols_is_refused_with_an_alert(run, context):
    async def main():
        inbox, theirs = await meet()
        shaking = asyncio.ensure_future(asyncio.to_thread(shake, theirs, client_context(alpn=("h2",))))
        with pytest.raises(HandshakeFailed, match="no application protocol"):
            await encrypt(inbox, context)
        with pytest.raises(ssl.SSLError, match="no application protocol"):
            await shaking

    run(main())


HELLO = b"\x16\x03\x01\x3f\xff\1\0\x3f\xfb"  # the beginning of one of 16 kB
IMPOSSIBLE = {
    "too long": [b"\x16\x03\x01\0\1\1" + b"\x16\x03\x01\0\1\xff" * 3000],
    "too many pieces": [HELLO, *[b"\3"] * (MAX_PIECES + 5)],
}


@pytest.mark.parametrize("why", IMPOSSIBLE)
def test_a_hello_that_nobody_would_send_is_refused_and_not_let_past(run, context, why):
    async def main():
        inbox, theirs = await meet()
        shaking = asyncio.ensure_future(encrypt(inbox, context))
        for piece in IMPOSSIBLE[why]:
            await asyncio.sleep(0.002)
            if not shaking.done():
                theirs.sendall(piece)
        with theirs, pytest.raises(HandshakeFailed, match=why):
            await shaking

    run(main())


def test_who_hangs_up_in_the_middle_is_gone(run, context):
    async def main():
        inbox, theirs = await meet()
        theirs.sendall(b"\x16\x03\x01")
        theirs.close()
        with pytest.raises((HandshakeFailed, PeerGone)):
            await encrypt(inbox, context)

    run(main())


@pytest.mark.parametrize("is_direct", [False, True])
def test_a_handshake_that_takes_too_long_can_be_given_up(run, context, is_direct):
    async def main():
        inbox, theirs = await meet()
        with theirs:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await encrypt(inbox, context, is_direct=is_direct)
            return await asyncio.to_thread(theirs.recv, 1)

    assert run(main()) == b""


def test_the_end_of_an_encrypted_peer_is_noticed_and_nothing_is_warned_about(run, context, caplog):
    async def main():
        inbox, theirs = await meet()
        side, _ = await asyncio.gather(asyncio.to_thread(shake, theirs), encrypt(inbox, context))
        await asyncio.to_thread(side.shutdown, socket.SHUT_WR)
        await inbox.wait_gone()
        side.close()
        inbox.close()
        await asyncio.sleep(0.01)

    run(main())
    assert not caplog.records


def test_the_next_phase_gets_the_encrypted_socket(run, context):
    heard = []

    class Phase(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            heard.append(data)
            self.transport.write(b"welcome")

    async def main():
        inbox, theirs = await meet()
        side, _ = await asyncio.gather(asyncio.to_thread(shake, theirs), encrypt(inbox, context))
        phase = Phase()
        inbox.hand_over_to(phase)
        await asyncio.to_thread(side.sendall, b"hello")
        answer = await asyncio.to_thread(side.recv, 100)
        phase.transport.close()
        side.close()
        return answer

    assert run(main()) == b"welcome"
    assert heard == [b"hello"]
