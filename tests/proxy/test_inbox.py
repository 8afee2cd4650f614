"""A socket one can await: whole messages, bounds, and the end."""

import asyncio

import pytest

from protocol.errors import ProtocolError
from proxy.inbox import HIGH_WATER, Inbox, PeerGone
from tests.fakes import FakeClock, FakeLoop, FakeTransport
from tests.proxy.auth.wire import alone, play

MESSAGE = b"Q\0\0\0\x09abcd\0"


class Stream(asyncio.Protocol):
    def __init__(self):
        self.heard, self.lost = b"", 0

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.heard += data

    def connection_lost(self, error):
        self.lost += 1


def test_a_message_is_whole_wherever_it_is_cut():
    async def main(cut):
        inbox = alone(MESSAGE[:cut])
        reading = asyncio.ensure_future(inbox.wait_message(100))
        await asyncio.sleep(0)
        inbox.data_received(MESSAGE[cut:] + b"more")
        return await reading

    for cut in range(len(MESSAGE)):
        assert play(main(cut)) == (ord("Q"), b"abcd\0")


@pytest.mark.parametrize("length", [0, 3, 101, 0x80000000, 0xFFFFFFFF])
def test_an_absurd_length_is_refused_before_the_body_is_read(length):
    with pytest.raises(ProtocolError, match="invalid message length"):
        play(alone(b"Q" + length.to_bytes(4, "big")).wait_message(100))


@pytest.mark.parametrize("length", [0, 7, 101, 0xFFFFFFFF])
def test_so_is_that_of_a_first_packet(length):
    with pytest.raises(ProtocolError, match="invalid length of startup packet"):
        play(alone(length.to_bytes(4, "big")).wait_startup_packet(100))


def test_of_a_stranger_nothing_is_kept_that_is_too_much():
    async def main():
        inbox = alone(b"")
        inbox.most = len(MESSAGE)
        inbox.data_received(MESSAGE)
        inbox.data_received(b"x")
        assert not inbox.has_unread
        with pytest.raises(ProtocolError, match="more than 10 bytes before the login is over"):
            await inbox.wait_message(100)

    play(main())


def test_what_was_said_before_the_end_is_still_heard_and_then_the_end():
    async def main():
        inbox = alone(MESSAGE)
        inbox.eof_received()
        assert (await inbox.wait_message(100))[1] == b"abcd\0"
        with pytest.raises(PeerGone):
            await inbox.wait_message(100)

    play(main())


def test_an_end_in_the_middle_of_a_message_wakes_who_waits():
    async def main():
        inbox = alone(MESSAGE[:3])
        reading = asyncio.ensure_future(inbox.wait_message(100))
        await asyncio.sleep(0)
        inbox.connection_lost(ConnectionResetError("reset"))
        with pytest.raises(PeerGone, match="reset"):
            await reading

    play(main())


def test_a_peer_that_talks_while_nobody_listens_is_held():
    loop = FakeLoop(FakeClock())
    transport = FakeTransport(loop)
    inbox = transport.start(Inbox())
    transport.peer_sends(b"x" * (HIGH_WATER + 1))
    assert not transport.reads
    inbox.hand_over_to(Stream())
    assert transport.reads


def test_the_next_phase_gets_the_socket_and_what_nobody_has_read():
    loop = FakeLoop(FakeClock())
    transport = FakeTransport(loop)
    inbox, stream = transport.start(Inbox()), Stream()
    transport.peer_sends(b"unread")
    inbox.hand_over_to(stream)
    transport.peer_sends(b" and new")
    assert stream.heard == b"unread and new"
    assert not inbox.has_unread


def test_a_socket_whose_peer_has_gone_is_closed_when_it_is_handed_over():
    loop = FakeLoop(FakeClock())
    transport = FakeTransport(loop)
    inbox, stream = transport.start(Inbox()), Stream()
    transport.peer_hangs_up()
    assert not transport.is_closing()
    inbox.hand_over_to(stream)
    assert stream.lost == 1
    assert transport.is_closing()


def test_writing_to_a_peer_that_has_gone_does_nothing():
    inbox = alone()
    inbox.connection_lost(None)
    inbox.write(b"hello")
    assert not inbox.is_alive
