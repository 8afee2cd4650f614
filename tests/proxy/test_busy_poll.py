"""Staying awake: when it is done, how long, that it is given up where it finds nothing, and that nobody is kept up."""

import asyncio
import os
import time
from types import SimpleNamespace

import pytest
import uvloop

from proxy import busy_poll
from proxy.busy_poll import MOST_LEFT_OUT, BusyPoll, Pace, set_limit
from proxy.outbox import Crowd, Outbox, Wire
from tests.play import Play, another_client, another_server, client, server

LIMIT = 50  # nanoseconds, by our clock


class Awake:
    """A busy poll in an event loop that goes round when it is told to."""

    def __init__(self, monkeypatch):
        self.poll, self.now, self.put_off = BusyPoll(), 0, []
        self.poll.limit = LIMIT
        loop = SimpleNamespace(call_soon=self.put_off.append)
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.now)
        self.begin(self.poll.of_servers)
        self.now = LIMIT  # since then nobody of another pool has been told anything

    def begin(self, pace, at_work="shop"):
        self.poll.begin(pace, at_work)

    def turns(self):
        """How often the event loop goes round, ten nanoseconds each, until there is nothing to do."""
        count = 0
        while self.put_off:
            count, self.now = count + 1, self.now + 10
            self.put_off.pop()()
            assert len(self.put_off) <= 1
        return count

    def tell(self, pace):
        """Nobody answers."""
        self.begin(pace)
        return self.turns()


@pytest.fixture
def awake(monkeypatch):
    return Awake(monkeypatch)


def test_it_stays_awake_as_long_as_it_may_and_then_sleeps(awake):
    assert awake.tell(awake.poll.of_servers) == LIMIT // 10 + 1
    assert not awake.put_off


def test_what_it_was_awake_is_counted(awake):
    assert awake.poll.spent == 0
    awake.begin(awake.poll.of_servers)
    awake.now += 20
    awake.begin(awake.poll.of_clients)  # the answer has come, and something else is waited for
    awake.turns()
    assert awake.poll.spent == 20 + LIMIT + 10, "from the first look to the one that was too late"
    awake.now += 1_000
    awake.begin(awake.poll.of_servers)
    awake.turns()
    assert awake.poll.spent == 80 + LIMIT + 10, "and the time between does not count"


def test_what_is_said_meanwhile_prolongs_it_and_is_not_put_off_twice(awake):
    poll = awake.poll
    awake.begin(poll.of_servers)
    awake.now += 30
    awake.begin(poll.of_clients)
    assert len(awake.put_off) == 1
    assert awake.turns() == LIMIT // 10 + 1


def test_what_finds_nothing_is_done_the_more_seldom(awake):
    awoke = [bool(awake.tell(awake.poll.of_servers)) for _ in range(4 * MOST_LEFT_OUT)]
    gaps = list(map(len, "".join("1" if each else "0" for each in awoke).split("1")[1:-1]))
    assert gaps == [min(2**power - 1, MOST_LEFT_OUT) for power in range(1, len(gaps) + 1)]
    assert gaps[-1] == MOST_LEFT_OUT


def test_and_what_finds_something_always(awake):
    """A server has answered when its client is told."""
    poll = awake.poll
    for _ in range(20):
        awake.tell(poll.of_servers)
    while not awake.put_off:
        awake.begin(poll.of_servers)
    awake.begin(poll.of_clients)
    awake.turns()
    for _ in range(9):
        awake.begin(poll.of_servers)
        assert awake.put_off
        awake.begin(poll.of_clients)
        awake.turns()


def test_a_server_that_says_more_is_no_client_that_answers(awake):
    poll = awake.poll
    awake.tell(poll.of_clients)
    awake.begin(poll.of_clients)
    awake.begin(poll.of_clients)  # left out the first time, and awake now
    awake.begin(poll.of_clients)
    assert poll.of_clients.to_leave_out == 1


def test_a_client_that_thinks_for_long_says_nothing_about_its_server(awake):
    poll = awake.poll
    for _ in range(20):
        awake.begin(poll.of_servers)
        assert awake.put_off
        awake.begin(poll.of_clients)
        awake.turns()
    assert poll.of_clients.to_leave_out > 4
    assert not poll.of_servers.to_leave_out


def test_who_works_in_another_pool_at_the_same_time_is_not_alone(awake):
    poll = awake.poll
    for _ in range(9):
        for pool in ("bank", "shop"):
            awake.begin(poll.of_servers, pool)
            awake.now += LIMIT // 2
    assert not awake.put_off
    awake.now += LIMIT
    awake.begin(poll.of_servers, "shop")
    assert awake.put_off
    awake.begin(poll.of_servers, "bank")
    assert awake.turns() == 1
    assert not poll.of_servers.to_leave_out


A_CLIENT, A_LINE = SimpleNamespace(is_line=False), SimpleNamespace(is_line=True)


@pytest.mark.parametrize(
    ("at_work", "limit", "paced", "ought"),
    [
        ([A_CLIENT], 9, True, 1),
        ([], 9, True, 0),
        ([A_CLIENT, A_CLIENT], 9, True, 0),
        ([A_LINE], 9, True, 0),
        ([None], 9, True, 0),
        ([A_CLIENT], 0, True, 0),
        ([A_CLIENT], 9, False, 0),
    ],
)
def test_only_for_who_is_alone_at_work(at_work, limit, paced, ought, monkeypatch):
    """A line works for many."""
    begun, said, outbox, pace = [], [], Outbox(), Pace()
    monkeypatch.setattr(BusyPoll, "begin", lambda _, *which: begun.append(which))
    outbox.busy_poll.limit = limit
    servers = [SimpleNamespace(client=client) for client in at_work]
    wire = Wire(SimpleNamespace(write=said.append), Crowd(servers, 8, outbox, pace if paced else None))
    wire.write(b"told")
    assert said == [b"told"]
    assert begun == [(pace, servers)] * ought


def test_servers_and_clients_are_waited_for_apart(monkeypatch):
    begun = []
    monkeypatch.setattr(BusyPoll, "begin", lambda _, pace, __: begun.append(pace))
    play = Play(pool_size=2)
    poll = play.world.outbox.busy_poll
    poll.limit = LIMIT
    play >> client("Q:select_1") >> server("T D C Z:I")
    assert begun == [poll.of_servers, poll.of_clients]
    begun.clear()
    play >> client("Q:select_1") >> another_client >> another_server >> client("Q:select_2")
    assert begun == [poll.of_servers]


@pytest.mark.parametrize("factory", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_the_event_loop_goes_round_and_does_what_it_has_to_do(factory):
    async def main():
        poll, rounds = BusyPoll(), 0
        poll.limit = 10**10
        poll._at_work = main
        poll.begin(poll.of_servers, main)
        ours, theirs = os.pipe()
        heard = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(ours, lambda: heard.done() or heard.set_result(os.read(ours, 9)))
        for _ in range(5):
            await asyncio.sleep(0)
        assert poll._is_awake
        os.write(theirs, b"answer")
        async with asyncio.timeout(5):
            assert await heard == b"answer"
            await asyncio.sleep(0.01)
            poll.limit = 1_000_000
            poll.begin(poll.of_servers, main)
            while poll._is_awake:
                rounds += 1
                await asyncio.sleep(0)
        assert rounds
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)
        os.close(theirs)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def a_proxy(microseconds):
    said = []
    settings, log = SimpleNamespace(busy_poll_us=microseconds), SimpleNamespace(log=said.append)
    return SimpleNamespace(settings=settings, outbox=Outbox(), log=log), said


def test_the_setting_is_in_microseconds(monkeypatch):
    monkeypatch.setattr(busy_poll, "find_hindrance", lambda: "")
    proxy, said = a_proxy(150)
    set_limit(proxy)
    assert proxy.outbox.busy_poll.limit == 150_000
    proxy.settings.busy_poll_us = 0
    set_limit(proxy)
    assert proxy.outbox.busy_poll.limit == 0
    assert not said


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not say which processors are ours")
def test_with_one_processor_it_is_left_to_the_others(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    proxy, said = a_proxy(150)
    set_limit(proxy)
    assert proxy.outbox.busy_poll.limit == 0
    assert said == ["busy_poll_us: not here (there is one processor, and others need it)"]
    set_limit(a_proxy(0)[0])
    assert len(said) == 1
