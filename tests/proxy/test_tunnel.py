"""Tunnels: what goes in comes out, nobody runs ahead of a slow peer, and neither end outlives the other."""

import pytest

from protocol.frontend import TERMINATE_MESSAGE
from protocol.replication import Replication
from proxy.states import Closing
from proxy.tunnel import CANCEL_AFTER, FLUSH_TIME, GOODBYE, Stage, Tunnel
from tests.fakes import FakeTransport, FakeWorld

KEY = b"k" * 36


class World(FakeWorld):
    """With an open tunnel: `client` and `server` are the sockets at its ends."""

    def __init__(self, *, is_slow=False, can_half_close=True):
        super().__init__()
        self.clients_left, self.closed = [], []
        with self.loop.running():
            self.tunnel = Tunnel(self.pool, "copier", Replication.PHYSICAL, KEY, ("10.0.0.7", 51234))
        self.client = FakeTransport(self.loop, is_slow=is_slow)
        self.server = FakeTransport(self.loop, is_slow=is_slow)
        self.client.can_half_close = self.server.can_half_close = can_half_close
        self.client.start(self.tunnel.near)
        self.server.start(self.tunnel.far)
        self.tunnel.stage = Stage.OPEN

    def tunnel_left(self, tunnel):
        self.clients_left.append(tunnel)

    def tunnel_closed(self, tunnel):
        self.closed.append(tunnel)

    def issue_cancel(self, server):
        self.cancels.append(server)

    def does(self, act, *more):
        with self.loop.running():
            act(*more)
            self.loop.turn()

    def waits(self, seconds):
        with self.loop.running():
            self.advance(seconds)

    def check_closed(self):
        assert self.client.is_lost
        assert self.server.is_lost
        assert self.tunnel.stage is Stage.CLOSED
        assert self.clients_left == self.closed == [self.tunnel], "each is told once"
        self.waits(FLUSH_TIME + GOODBYE)
        assert not self.cancels


def test_bytes_go_through_as_they_are_both_ways():
    world = World()
    world.client.peer_sends(b"Q\0\0\0")
    world.client.peer_sends(b"\x05")
    world.server.peer_sends(b"no message at all")
    assert world.server.written == [b"Q\0\0\0", b"\x05"]
    assert world.client.written == [b"no message at all"]
    assert (world.pool.stats.received, world.pool.stats.sent) == (5, 17)


@pytest.mark.parametrize("source", ["client", "server"])
def test_whoever_sends_faster_than_the_other_reads_is_read_no_more(source):
    world = World(is_slow=True)
    source, sink = (world.client, world.server) if source == "client" else (world.server, world.client)
    chunks = 0
    while source.reads:
        source.peer_sends(b"x" * 10_000)
        chunks += 1
    assert chunks < 10
    sink.peer_reads(20_000)
    assert not source.reads, "not for every drop"
    assert len(sink.peer_reads()) + 20_000 == chunks * 10_000
    assert source.reads


def test_a_client_that_leaves_takes_its_server_along():
    world = World()
    world.client.peer_sends(b"the last of it" + TERMINATE_MESSAGE)
    world.does(world.client.peer_hangs_up)
    assert bytes(world.server.arrived).endswith(TERMINATE_MESSAGE)
    assert world.server.has_written_eof
    assert world.tunnel.stage is Stage.CLOSING
    world.does(world.server.peer_hangs_up)
    world.check_closed()
    assert world.log.text.count("client close request") == 2


def test_one_that_vanishes_too_and_what_postgresql_still_says_is_thrown_away():
    world = World(is_slow=True)
    while world.server.reads:
        world.server.peer_sends(b"x" * 50_000)
    world.does(world.client.peer_breaks)
    assert world.server.reads, "or its hanging up would not be heard"
    sent = len(world.client.written)
    world.does(world.server.peer_sends, b"more")
    assert len(world.client.written) == sent
    world.does(world.server.peer_hangs_up)
    world.check_closed()
    assert "client unexpected eof" in world.log.text


def test_the_last_bytes_of_postgresql_reach_even_a_slow_client():
    world = World(is_slow=True)
    world.server.peer_sends(b"FATAL: terminating")
    world.does(world.server.peer_hangs_up)
    assert not world.client.is_lost
    assert world.closed == [world.tunnel], "it does not count any more"
    assert bytes(world.client.peer_reads()) == b"FATAL: terminating"
    world.does(world.loop.turn)
    assert "server conn crashed?" in world.log.text
    world.check_closed()


def test_a_client_that_never_reads_them_is_cut_off():
    world = World(is_slow=True)
    world.server.peer_sends(b"FATAL: terminating")
    world.does(world.server.peer_hangs_up)
    world.waits(FLUSH_TIME)
    assert world.client.was_aborted
    world.check_closed()


def test_a_server_that_crashes_ends_the_tunnel():
    world = World()
    world.does(world.server.peer_breaks)
    world.check_closed()


def test_postgresql_that_does_not_notice_is_cancelled_and_then_cut_off():
    world = World()
    world.does(world.client.peer_hangs_up)
    world.waits(CANCEL_AFTER / 2)
    assert not world.cancels
    world.waits(CANCEL_AFTER / 2)
    assert world.cancels == [world.tunnel.far]
    assert world.tunnel.stage is Stage.CLOSING, "it counts until it is gone"
    world.waits(GOODBYE)
    assert world.server.was_aborted
    world.cancels.clear()
    world.check_closed()


def test_where_one_half_cannot_be_closed_both_are():
    world = World(can_half_close=False)  # as with TLS
    world.does(world.client.peer_hangs_up)
    world.check_closed()


@pytest.mark.parametrize("why", [Closing.ADMIN, Closing.SHUTDOWN, Closing.DATABASE_GONE])
def test_an_operator_ends_it_without_a_word_of_ours_in_the_stream(why):
    world = World()
    world.server.peer_sends(b"half a mess")
    world.does(world.tunnel.close, why)
    world.does(world.tunnel.close, why)
    assert bytes(world.client.arrived) == b"half a mess"
    world.does(world.server.peer_hangs_up)
    world.check_closed()
    assert world.log.text.count(f"closing because: {why.value}") == 2


def test_its_end_is_not_logged_where_that_is_not_wanted():
    world = World()
    world.settings = type(world.settings)(log_disconnections=False)
    world.does(world.tunnel.close, Closing.ADMIN)
    assert "closing" not in world.log.text


def test_a_cancel_request_goes_to_its_server_while_there_is_one():
    world = World()
    assert world.tunnel.cancel_waiting()
    assert world.cancels == [world.tunnel.far]
    world.does(world.tunnel.close, Closing.ADMIN)
    assert world.tunnel.cancel_waiting()
    assert len(world.cancels) == 1


def test_one_that_is_not_open_yet_is_marked():
    world = World()
    world.tunnel.stage = Stage.OPENING
    world.tunnel.close(Closing.ADMIN)
    world.tunnel.close(Closing.SHUTDOWN)
    assert world.tunnel.doom.result() is Closing.ADMIN
    assert not world.client.is_closing()
    world.tunnel.forget()
    world.tunnel.forget()
    assert world.closed == [world.tunnel]


def test_it_is_known_by_both_its_ends():
    world = World()
    world.tunnel.far.address = ("10.0.0.1", 5432)
    world.tunnel.far.parameters["application_name"] = "standby"
    assert repr(world.tunnel).endswith(": shop/copier@10.0.0.7:51234")
    assert repr(world.tunnel.far).endswith(": shop/web@10.0.0.1:5432")
    assert world.tunnel.application_name == "standby"
