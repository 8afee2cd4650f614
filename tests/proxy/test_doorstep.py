"""Who has said nothing yet costs little, is told when it takes too long, and is let in by the first bytes."""

import asyncio

import pytest

from protocol.startup import build_gss_request, build_ssl_request, build_startup
from proxy.doorstep import Doorstep
from proxy.janitor import Janitor
from tests.proxy.auth.wire import Wire, play
from tests.proxy.test_login import HELLO, PARAMETERS, a_proxy, find_pool, refusal


class Door(Wire):
    """A transport that hands on its phases."""

    def __init__(self, proxy, address=("10.0.0.7", 51234)):
        super().__init__()
        self.phase = Doorstep(proxy, address)
        self.is_closed = False
        self.phase.connection_made(self)

    def set_protocol(self, phase):
        self.phase = phase

    def close(self):
        self.is_closed = True

    def get_write_buffer_size(self):
        return 0


async def turns(count=20):
    for _ in range(count):
        await asyncio.sleep(0)


def test_the_first_bytes_begin_a_conversation(tmp_path):
    async def main():
        proxy = a_proxy(tmp_path)
        find_pool(proxy).welcome = PARAMETERS
        door = Door(proxy)
        assert list(proxy.doorsteps) == [door.phase]
        door.phase.data_received(HELLO)
        assert not proxy.doorsteps
        await turns()
        return door.written

    assert play(main()).startswith(b"R\0\0\0\x08\0\0\0\0")


def test_the_first_bytes_may_be_less_than_a_packet(tmp_path):
    async def main():
        proxy = a_proxy(tmp_path)
        find_pool(proxy).welcome = PARAMETERS
        door = Door(proxy)
        for byte in HELLO:
            door.phase.data_received(bytes([byte]))
            await turns(2)
        await turns()
        return door.written

    assert play(main()).startswith(b"R\0\0\0\x08\0\0\0\0")


@pytest.mark.parametrize("request_for", [build_ssl_request(), build_gss_request()], ids=["tls", "gss"])
def test_requests_for_encryption_are_declined_on_the_doorstep(tmp_path, request_for):
    async def main():
        proxy = a_proxy(tmp_path)
        find_pool(proxy).welcome = PARAMETERS
        door = Door(proxy)
        door.phase.data_received(request_for)
        assert door.written == b"N"
        assert list(proxy.doorsteps) == [door.phase]
        door.phase.data_received(HELLO)
        await turns()
        return door.written

    assert play(main()).startswith(b"NR\0\0\0\x08\0\0\0\0")


def test_encryption_is_asked_for_twice_at_the_most(tmp_path):
    async def main():
        door = Door(a_proxy(tmp_path))
        for _ in range(3):
            door.phase.data_received(build_ssl_request())
            await turns()
        return door.written

    heard = play(main())
    assert heard[:2] == b"NN"
    assert refusal(heard[2:])[0] == "08P01"


def test_what_comes_behind_a_request_for_encryption_ends_the_login(tmp_path):
    async def main():
        door = Door(a_proxy(tmp_path))
        door.phase.data_received(build_ssl_request() + HELLO)
        await turns()
        return door.written

    assert "unencrypted data" in refusal(play(main()))[1]


def test_who_says_nothing_for_too_long_is_told_and_who_came_later_is_not(tmp_path):
    async def main():
        proxy = a_proxy(tmp_path, client_login_timeout=10)
        silent = Door(proxy)
        proxy.clock.advance(6)
        later = Door(proxy)
        janitor = Janitor(proxy)
        janitor.sweep()
        assert len(proxy.doorsteps) == 2
        proxy.clock.advance(5)
        janitor.sweep()
        await asyncio.sleep(0.01)
        assert list(proxy.doorsteps) == [later.phase]
        assert not later.written
        return silent.written, silent.is_closed

    heard, is_closed = play(main())
    assert refusal(heard) == ("57014", "client_login_timeout")
    assert is_closed


def test_the_time_on_the_doorstep_is_part_of_the_login(tmp_path):
    async def main():
        proxy = a_proxy(tmp_path, auth_type="plain", client_login_timeout=10)
        door = Door(proxy)
        proxy.clock.advance(9.99)
        door.phase.data_received(build_startup({"user": "anna", "database": "shop"}))
        await asyncio.sleep(0.05)
        return door.written

    assert play(main()).count(b"\0Mclient_login_timeout\0")


def test_who_leaves_without_a_word_leaves_nothing_behind(tmp_path):
    async def main():
        proxy = a_proxy(tmp_path)
        door = Door(proxy)
        door.phase.connection_lost(None)
        assert not proxy.doorsteps
        assert not len(proxy.tasks)
        assert not proxy.log.lines

    play(main())
