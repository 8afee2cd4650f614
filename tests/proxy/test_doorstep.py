"""Who has said nothing yet costs little, is told when it takes too long, and is let in by the first bytes."""

import asyncio
import socket
from dataclasses import replace

import pytest

from protocol.startup import build_gss_request, build_ssl_request, build_startup
from proxy.client import Client
from proxy.doorstep import FIRST_BYTES, Doorstep
from proxy.inbox import Inbox
from proxy.janitor import Janitor
from proxy.log import UNIX, Address
from proxy.strangers import TOO_MANY
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

    def is_closing(self):
        return self.is_closed

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


# What has been said before there is a transport.


class Early:
    """A caller whose bytes are there when he is accepted; what he hears before there is a transport."""

    def __init__(self, proxy, *said, address=("10.0.0.7", 51234)):
        self.ours, self.his = socket.socketpair()
        for each in said:
            self.his.sendall(each)
        self.step = Doorstep(proxy, address)

    def arrive(self):
        self.step.overhear(self.ours)
        self.his.setblocking(False)
        try:
            return self.his.recv(100)
        except BlockingIOError:
            return b""

    def connect(self):
        """The event loop makes a transport of him, which has what he said since."""
        door = Door.__new__(Door)
        super(Door, door).__init__()
        door.phase, door.is_closed = self.step, False
        self.step.connection_made(door)
        return door

    def close(self):
        self.ours.close()
        self.his.close()


def meet_early(tmp_path, scene, *said, **more):
    async def main():
        settings = more.pop("settings", {})
        proxy = a_proxy(tmp_path, **settings)
        find_pool(proxy).welcome = PARAMETERS
        early = Early(proxy, *said, **more)
        try:
            return await scene(proxy, early)
        finally:
            early.close()

    return play(main())


@pytest.mark.parametrize("request_for", [build_ssl_request(), build_gss_request()], ids=["tls", "gss"])
def test_encryption_is_declined_before_there_is_a_transport(tmp_path, request_for):
    async def scene(proxy, early):
        assert early.arrive() == b"N"
        door = early.connect()
        assert list(proxy.doorsteps) == [early.step]
        early.step.data_received(HELLO)
        await turns()
        return door.written

    assert meet_early(tmp_path, scene, request_for).startswith(b"R\0\0\0\x08\0\0\0\0")


def test_it_counts_among_the_requests_that_are_declined(tmp_path):
    async def scene(proxy, early):
        assert early.arrive() == b"N"
        door = early.connect()
        for _ in range(2):
            door.phase.data_received(build_ssl_request())
            await turns()
        return door.written

    heard = meet_early(tmp_path, scene, build_ssl_request())
    assert heard[:1] == b"N"
    assert refusal(heard[1:])[0] == "08P01"


def test_what_comes_behind_it_in_one_breath_ends_the_login(tmp_path):
    async def scene(proxy, early):
        assert early.arrive() == b""
        door = early.connect()
        await turns()
        return door.written

    assert "unencrypted data" in refusal(meet_early(tmp_path, scene, build_ssl_request() + HELLO))[1]


def test_where_tls_is_offered_the_request_is_a_conversations(tmp_path):
    async def scene(proxy, early):
        proxy.tls = replace(proxy.tls, for_clients=object())
        assert early.arrive() == b""
        door = early.connect()
        return type(door.phase)

    assert meet_early(tmp_path, scene, build_ssl_request()) is Inbox


def test_a_packet_that_is_there_already_is_answered_when_there_is_a_transport(tmp_path):
    async def scene(proxy, early):
        first = Door(proxy)
        first.phase.data_received(HELLO)
        await turns()
        assert early.arrive() == b""
        door = early.connect()
        assert type(door.phase) is Client
        assert not proxy.doorsteps
        return first.written[:60] == door.written[:60]

    assert meet_early(tmp_path, scene, HELLO)


@pytest.mark.parametrize("size", [1, 4, 8, len(HELLO) - 1])
def test_so_is_the_rest_of_one_that_is_half_there(tmp_path, size):
    async def scene(proxy, early):
        assert early.arrive() == b""
        door = early.connect()
        await turns()
        door.phase.data_received(HELLO[size:])
        await turns()
        return door.written

    assert meet_early(tmp_path, scene, HELLO[:size]).startswith(b"R\0\0\0\x08\0\0\0\0")


def test_no_more_is_read_than_a_first_packet_may_need(tmp_path):
    async def scene(proxy, early):
        early.arrive()
        return len(early.ours.recv(FIRST_BYTES, socket.MSG_DONTWAIT))

    assert meet_early(tmp_path, scene, b"x" * (FIRST_BYTES + 7)) == 7


@pytest.mark.parametrize(
    "more",
    [{"address": Address.of_unix(6432, 1, 1)}, {"settings": {"tcp_defer_accept": 0}}],
    ids=[UNIX, "no tcp_defer_accept"],
)
def test_nothing_is_read_where_the_kernel_does_not_wait_for_it(tmp_path, more):
    async def scene(proxy, early):
        early.arrive()
        return early.ours.recv(100, socket.MSG_DONTWAIT)

    assert meet_early(tmp_path, scene, HELLO, **more) == HELLO


def test_who_has_said_nothing_yet_is_waited_for(tmp_path):
    async def scene(proxy, early):
        assert early.arrive() == b""
        early.connect()
        return list(proxy.doorsteps) == [early.step]

    assert meet_early(tmp_path, scene)


def test_a_socket_that_is_broken_already_is_left_to_the_event_loop(tmp_path):
    async def scene(proxy, early):
        early.ours.close()
        early.step.overhear(early.ours)
        early.connect()
        return list(proxy.doorsteps) == [early.step]

    assert meet_early(tmp_path, scene)


def test_who_is_one_too_many_is_not_listened_to(tmp_path):
    async def scene(proxy, early):
        proxy.strangers._find_victim = lambda: early.step
        early.arrive()
        Door(proxy)
        door = early.connect()
        return door.written, proxy.strangers.dropped, len(proxy.strangers)

    heard, dropped, left = meet_early(tmp_path, scene, HELLO, settings={"max_half_open": 1})
    assert (heard, dropped, left) == (TOO_MANY, 1, 1)


def test_a_reload_between_the_request_and_the_packet_counts(tmp_path):
    """TLS is required by now: who was told there is none hears it, and no password is asked for."""

    async def scene(proxy, early):
        assert early.arrive() == b"N"
        door = early.connect()
        mode = type(proxy.settings.client_tls_sslmode)("require")
        proxy.settings = replace(proxy.settings, client_tls_sslmode=mode)
        proxy.config = replace(proxy.config, settings=proxy.settings)
        door.phase.data_received(HELLO)
        await turns()
        return door.written

    assert refusal(meet_early(tmp_path, scene, build_ssl_request())) == ("28000", "SSL required")
