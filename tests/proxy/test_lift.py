"""A socket is taken from the event loop, and the connection does not notice; on uvloop and on asyncio's own loop."""

import asyncio
import socket

import pytest
import uvloop

from proxy.lift import lift


class Ear(asyncio.Protocol):
    def __init__(self):
        self.heard = b""

    def data_received(self, data):
        self.heard += data


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"], name="run")
def _run(request):
    def run(test):
        async def main():
            with socket.create_server(("127.0.0.1", 0)) as door, socket.create_connection(door.getsockname()) as peer:
                connected, _ = door.accept()
                connected.setblocking(False)
                loop = asyncio.get_running_loop()
                transport, ear = await loop.connect_accepted_socket(Ear, connected)
                await asyncio.wait_for(test(transport, ear, peer), 10)

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main())

    return run


async def hear(ear, text):
    while ear.heard != text:
        await asyncio.sleep(0.001)


def test_what_comes_once_reading_is_paused_stays_for_whoever_reads_next(run):
    async def test(transport, ear, peer):
        peer.send(b"one")
        await hear(ear, b"one")
        transport.pause_reading()
        peer.send(b"two")
        await asyncio.sleep(0.02)
        with lift(transport) as lifted:
            peer.send(b"three")
            await asyncio.sleep(0.02)
            assert lifted.recv(100) == b"twothree"
            lifted.send(b"answer")
            assert peer.recv(100) == b"answer"
        assert ear.heard == b"one"
        assert peer.recv(100) == b"", "the last descriptor closes the connection, and no other"

    run(test)


def test_a_copy_leaves_the_transport_as_it_was(run):
    async def test(transport, ear, peer):
        transport.pause_reading()
        lift(transport, keep=True).close()
        peer.send(b"one")
        transport.resume_reading()
        await hear(ear, b"one")
        transport.write(b"answer")
        await asyncio.sleep(0.01)
        assert peer.recv(100) == b"answer"
        transport.close()

    run(test)


def test_nothing_that_was_written_is_left_behind(run):
    async def test(transport, ear, peer):
        transport.write(b"x" * 20_000_000)
        with pytest.raises(AssertionError, match="still owed something"):
            lift(transport)
        transport.abort()

    run(test)


@pytest.mark.parametrize("pause_after", range(1, 40, 3))
def test_no_byte_is_lost_or_doubled_wherever_the_stream_is_cut(run, pause_after):
    """The peer never stops talking; what the first reader heard and what the second one hears is all of it, once."""

    async def test(transport, ear, peer):
        peer.setblocking(False)
        loop = asyncio.get_running_loop()
        said = b"".join(b"%06d." % number for number in range(20_000))
        talking = asyncio.ensure_future(loop.sock_sendall(peer, said))
        while len(ear.heard) < pause_after * 1000:
            await asyncio.sleep(0)
        transport.pause_reading()
        before = len(ear.heard)
        await asyncio.sleep(0.001)
        with lift(transport) as lifted:
            lifted.setblocking(False)
            rest = b""
            while len(ear.heard) + len(rest) < len(said):
                rest += await loop.sock_recv(lifted, 65536)
            await talking
        assert len(ear.heard) == before, "nothing is heard once reading is paused"
        assert ear.heard + rest == said

    run(test)
