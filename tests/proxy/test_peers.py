"""Cancel requests that reached the wrong process: whose they are, how they go on, how many at a time."""

import asyncio
import secrets
from types import SimpleNamespace

import pytest

from protocol.startup import CancelRequest, parse_startup
from proxy import peers as module
from proxy.config.entries import Peer
from proxy.config.settings import Settings
from proxy.peers import NO_PEER, SENT, TIMED_OUT, TOO_FAR, UNKNOWN, UNREACHABLE, Peers, as_given_out, number_in, stamp
from tests.fakes import FakeLog


def a_key(number, length=8, hops=3):
    key = stamp(secrets.token_bytes(length), number)
    return key[:-1] + bytes([key[-1] & ~3 | hops])


class Other:
    """The peers' doors: each connection is kept open until told."""

    def __init__(self, monkeypatch):
        self.lines, self.refuses, self.is_silent = [], False, False
        monkeypatch.setattr(module, "Endpoint", self.endpoint)

    def endpoint(self, host, port):
        return SimpleNamespace(connect=lambda loop: self.connect(host, port))

    async def connect(self, host, port):
        if self.refuses:
            raise ConnectionRefusedError("connection refused")
        if self.is_silent:
            await asyncio.sleep(60)
        line = SimpleNamespace(place=(host, port), written=b"", gone=asyncio.get_running_loop().create_future())
        line.write = lambda data: setattr(line, "written", data)
        line.wait_closed = lambda: line.gone
        line.close = lambda: None
        self.lines.append(line)
        return line

    def key(self):
        request = parse_startup(self.lines[-1].written[4:])
        assert isinstance(request, CancelRequest)
        return request.key


@pytest.fixture(name="other")
def _other(monkeypatch):
    return Other(monkeypatch)


def a_proxy(own=1, peers=(2,), **said):
    entries = {number: Peer(number=number, host="10.0.0.2", port=6433, **said) for number in peers}
    settings = Settings(peer_id=own, cancel_wait_timeout=0.05)
    return SimpleNamespace(config=SimpleNamespace(peers=entries), settings=settings, log=FakeLog())


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


# Keys.


@pytest.mark.parametrize("length", [8, 36])
@pytest.mark.parametrize("number", [1, 255, 256, 16383])
def test_a_key_carries_the_number_in_pgbouncers_place_and_the_rest_stays_random(number, length):
    raw = secrets.token_bytes(length)
    key = stamp(raw, number)
    assert (key[1], key[2]) == (number & 0xFF, number >> 8), "as pgbouncer: low byte first"
    assert key[-1] & 3 == 3, "three hops to go"
    assert number_in(key) == number
    assert (key[0], key[3:-1], key[-1] >> 2) == (raw[0], raw[3:-1], raw[-1] >> 2)


def test_however_often_a_key_was_forwarded_it_is_the_one_that_was_given_out():
    key = a_key(7)
    assert {as_given_out(a_key_with(key, hops)) for hops in range(4)} == {key}


def a_key_with(key, hops):
    return key[:-1] + bytes([key[-1] & ~3 | hops])


# Fates.


def test_a_request_goes_to_the_peer_it_names_with_one_hop_less(other):
    async def main():
        key = a_key(2, hops=3)
        task = asyncio.ensure_future(Peers(a_proxy()).forward(key))
        await turns()
        assert not task.done(), "until the peer has hung up"
        assert other.lines[0].place == ("10.0.0.2", 6433)
        assert other.key() == a_key_with(key, 2)
        other.lines[0].gone.set_result(None)
        return await task

    assert asyncio.run(main()) == SENT


@pytest.mark.parametrize(
    ("own", "number", "hops", "fate"),
    [
        (None, 2, 3, UNKNOWN),  # we have no number, so we have no peers
        (1, 1, 3, UNKNOWN),  # ours, and nobody here has it
        (1, 3, 3, NO_PEER),
        (1, 2, 0, TOO_FAR),
    ],
)
def test_what_is_nobodys_is_dropped(other, own, number, hops, fate):
    proxy = a_proxy(own)
    assert asyncio.run(Peers(proxy).forward(a_key(number, hops=hops))) == fate
    assert not other.lines
    assert [line for line in proxy.log.lines if line == "DEBUG cancel request for unknown peer 3"] == (
        ["DEBUG cancel request for unknown peer 3"] if fate is NO_PEER else []
    )


def test_after_three_hops_a_request_is_at_its_end(other):
    """Two files that each say that the other is peer 3."""

    async def main():
        key, fates = a_key(3), []
        proxy = a_proxy(1, (3,))
        for _ in range(4):
            task = asyncio.ensure_future(Peers(proxy).forward(key))
            await turns()
            if not task.done():
                key = other.key()
                other.lines[-1].gone.set_result(None)
            fates.append(await task)
        return fates

    assert asyncio.run(main()) == [SENT, SENT, SENT, TOO_FAR]


def test_a_peer_that_is_not_there_is_a_warning(other):
    other.refuses = True
    proxy = a_proxy()
    assert asyncio.run(Peers(proxy).forward(a_key(2))) == UNREACHABLE
    assert "WARNING cannot forward a cancel request to peer 2: connection refused" in proxy.log.lines


def test_a_peer_that_says_nothing_costs_cancel_wait_timeout_and_no_more(other):
    async def main():
        proxy = a_proxy()
        peers = Peers(proxy)
        assert await peers.forward(a_key(2)) == TIMED_OUT  # it takes the request and does not hang up
        other.is_silent = True
        assert await peers.forward(a_key(2)) == TIMED_OUT  # it does not even answer the door
        return list(peers.pools())

    assert asyncio.run(main()) == [(2, 0, 0, 0, 0)]


# How many at a time.


def test_no_more_than_pool_size_are_under_way_to_one_peer_and_the_others_wait_their_turn(other):
    async def main():
        proxy = a_proxy(peers=(1, 2, 3), pool_size=2)
        proxy.settings = Settings(peer_id=1, cancel_wait_timeout=5.0)
        peers = Peers(proxy)
        tasks = [asyncio.ensure_future(peers.forward(a_key(2))) for _ in range(4)]
        await turns()
        assert len(other.lines) == 2
        assert list(peers.pools()) == [(2, 2, 2, 2, 0), (3, 0, 0, 0, 0)], "our own entry is no pool"
        for at in range(4):
            other.lines[at].gone.set_result(None)
            await turns()
        assert [await task for task in tasks] == [SENT] * 4
        return list(peers.pools())

    assert asyncio.run(main()) == [(2, 0, 0, 0, 0), (3, 0, 0, 0, 0)]


def test_one_that_gives_up_in_the_queue_leaves_its_turn_to_the_next(other):
    async def main():
        proxy = a_proxy(pool_size=1)
        proxy.settings = Settings(peer_id=1, cancel_wait_timeout=5.0)
        peers = Peers(proxy)
        first, second, third = (asyncio.ensure_future(peers.forward(a_key(2))) for _ in range(3))
        await turns()
        other.lines[0].gone.set_result(None)
        await asyncio.sleep(0)  # the second has been called
        second.cancel()
        await turns()
        assert await first == SENT
        other.lines[-1].gone.set_result(None)
        assert await third == SENT

    asyncio.run(main())


def test_the_queue_is_bounded(other, monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 3)

    async def main():
        proxy = a_proxy(pool_size=1)
        peers = Peers(proxy)
        tasks = [asyncio.ensure_future(peers.forward(a_key(2))) for _ in range(6)]
        await turns()
        refused = [task.result() for task in tasks if task.done()]
        await asyncio.gather(*tasks)
        return refused

    assert asyncio.run(main()) == [UNREACHABLE] * 2


def test_zero_is_no_limit(other):
    async def main():
        peers = Peers(a_proxy(pool_size=0))
        tasks = [asyncio.ensure_future(peers.forward(a_key(2))) for _ in range(50)]
        await turns()
        assert len(other.lines) == 50
        await asyncio.gather(*tasks)

    asyncio.run(main())
