"""Names and their addresses, on a clock that moves when told and with a name server that says what it is told."""

import asyncio
import socket
import threading
from dataclasses import replace

import pytest

from proxy.resolver import (
    BRIEFLY,
    FORGET,
    MAX_ADDRESSES,
    MAX_NAMES,
    MAX_THREADS,
    PATIENCE,
    LookupFailed,
    Resolver,
    ask_system,
)
from proxy.tasks import Tasks
from tests.fakes import FakeWorld

NO_SUCH_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
NO_ANSWER = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


class Hosts(FakeWorld):
    """`says` is what the name server says from here on: addresses, an error, or None: nothing, ever."""

    def __init__(self, says="1.1.1.1"):
        super().__init__()
        self.says = says
        self.asked = []
        self.used = set()  # names of hosts that servers are connected to
        self.gone = []
        self.resolver = Resolver(Tasks(self.log), self, self.look_up)
        self.answers = []

    async def look_up(self, name):
        self.asked.append(name)
        answer = self.loop.create_future()
        self.answers.append(answer)
        if self.says is not None:
            self.answer(self.says)
        return await answer

    def answer(self, says):
        """The oldest question is answered."""
        answer = self.answers.pop(0)
        if isinstance(says, Exception):
            answer.set_exception(says)
        else:
            answer.set_result(says.split())

    def hosts_in_use(self):
        return self.used

    def addresses_gone(self, host, gone):
        self.gone.append((host, *sorted(gone)))

    # What tests do.

    def begin(self, name="db"):
        """Somebody asks; what comes of it is in the task."""
        with self.loop.running():
            task = self.loop.create_task(self.resolver.find(name))
            self.loop.turn()
        return task

    def find(self, name="db"):
        task = self.begin(name)
        assert task.done(), "still waiting"
        try:
            return " ".join(task.result())
        except LookupFailed as failure:
            return f"failed: {failure}"

    def later(self, seconds):
        with self.loop.running():
            self.advance(seconds)

    def sweep(self, seconds=0.0):
        self.later(seconds)
        with self.loop.running():
            self.resolver.sweep()
            self.loop.turn()


def test_an_answer_is_kept_for_dns_max_ttl():
    world = Hosts("1.1.1.1 1.1.1.2")
    assert world.find() == "1.1.1.1 1.1.1.2"
    world.later(14.9)
    world.says = "1.1.1.3"
    assert world.find() == "1.1.1.1 1.1.1.2"
    world.later(0.2)
    assert world.find() == "1.1.1.3"
    assert world.asked == ["db", "db"]


def test_that_there_is_no_such_name_is_kept_for_dns_nxdomain_ttl():
    world = Hosts(NO_SUCH_NAME)
    assert world.find() == world.find() == "failed: db: Name or service not known"
    assert world.asked == ["db"]
    world.later(15.1)
    world.says = "1.1.1.1"
    assert world.find() == "1.1.1.1"
    assert "WARNING DNS lookup failed: db: Name or service not known" in world.log.text
    assert "DNS lookup works again: db = 1.1.1.1" in world.log.text


@pytest.mark.parametrize("error", [UnicodeError("label too long"), OSError("no"), ""])
def test_whatever_goes_wrong_is_a_name_that_leads_nowhere(error):
    assert Hosts(error).find().startswith("failed: db: ")


def test_a_storm_is_one_lookup():
    world = Hosts(None)
    waiting = [world.begin() for _ in range(100)]
    assert (world.asked, world.resolver.pending) == (["db"], 1)
    world.answer("1.1.1.1")
    with world.loop.running():
        world.loop.turn()
    assert {task.result() for task in waiting} == {("1.1.1.1",)}
    assert world.resolver.pending == 0


def test_somebody_who_gives_up_does_not_take_the_lookup_from_the_others():
    world = Hosts(None)
    first, second = world.begin(), world.begin()
    with world.loop.running():
        first.cancel()
        world.loop.turn()
        world.answer("1.1.1.1")
        world.loop.turn()
    assert first.cancelled()
    assert second.result() == ("1.1.1.1",)


def test_nobody_waits_for_ever_and_while_it_lasts_nobody_else_waits_at_all():
    world = Hosts(None)
    first = world.begin()
    world.later(PATIENCE + 0.1)
    with pytest.raises(LookupFailed, match="db: the resolver does not answer"):
        first.result()
    assert world.find() == "failed: db: the resolver does not answer"
    assert world.asked == ["db"]
    world.answer("1.1.1.1")
    assert world.find() == "1.1.1.1"


# When the name server fails.


def test_the_last_answer_is_used_on_while_the_name_server_fails_and_the_log_says_so_once():
    world = Hosts("1.1.1.1")
    world.find()
    world.says = NO_ANSWER
    for _ in range(5):
        world.later(16)
        assert world.find() == "1.1.1.1"
    assert world.log.text.count("WARNING DNS lookup failed: db: Temporary failure in name resolution") == 1
    assert "still used: 1.1.1.1" in world.log.text
    world.later(16)
    world.says = "1.1.1.1"
    world.find()
    assert world.log.text.count("DNS lookup works again: db = 1.1.1.1") == 1
    assert not world.gone


def test_nobody_waits_long_for_a_new_answer_where_an_old_one_is_at_hand():
    world = Hosts("1.1.1.1")
    world.find()
    world.says = None
    world.later(16)
    somebody = world.begin()
    assert not somebody.done()
    world.later(BRIEFLY + 0.1)
    assert somebody.result() == ("1.1.1.1",)
    world.answer(NO_ANSWER)
    world.find()
    world.later(16)
    assert world.find() == "1.1.1.1", "it is known to fail: nobody waits"


def test_where_the_last_answer_was_bad_nobody_waits_long_for_a_better_one():
    world = Hosts(NO_SUCH_NAME)
    world.find()
    world.says = None
    world.later(16)
    somebody = world.begin()
    world.later(BRIEFLY + 0.1)
    with pytest.raises(LookupFailed, match="Name or service not known"):
        somebody.result()


def test_that_a_name_is_gone_is_an_answer_and_takes_the_addresses_away():
    world = Hosts("1.1.1.1")
    world.find()
    world.says = NO_SUCH_NAME
    world.later(16)
    assert world.find() == "failed: db: Name or service not known"
    assert not world.gone, "those who are connected stay: nothing better is known"
    world.says = "1.1.1.2"
    world.later(16)
    assert world.find() == "1.1.1.2"
    assert world.gone == [("db", "1.1.1.1")]


# When a host moves.


def test_names_in_use_are_looked_up_again_though_nobody_asks_and_a_lost_address_is_told():
    world = Hosts("1.1.1.1 1.1.1.2")
    world.used = {"db"}
    world.find()
    world.sweep(14)
    assert world.asked == ["db"]
    world.says = "1.1.1.2 1.1.1.3"
    world.sweep(2)
    assert world.asked == ["db", "db"]
    assert world.gone == [("db", "1.1.1.1")]
    assert "DNS: db = 1.1.1.2, 1.1.1.3, no longer 1.1.1.1" in world.log.text


def test_names_nobody_uses_rest_and_are_forgotten():
    world = Hosts()
    world.find()
    world.sweep(60)
    assert world.asked == ["db"]
    world.sweep(FORGET)
    assert len(world.resolver) == 0


def test_a_new_address_or_another_order_is_no_loss():
    world = Hosts("1.1.1.1 1.1.1.2")
    world.used = {"db"}
    world.find()
    world.says = "1.1.1.2 1.1.1.1"
    world.sweep(16)
    assert world.find() == "1.1.1.1 1.1.1.2"
    world.says = "1.1.1.3 1.1.1.2 1.1.1.1"
    world.sweep(16)
    assert not world.gone
    assert world.find() == "1.1.1.3 1.1.1.2 1.1.1.1"


def test_a_name_whose_host_cannot_be_reached_is_looked_up_again_at_once_but_not_all_the_time():
    world = Hosts()
    world.find()
    world.later(1)
    world.resolver.doubt("db")
    world.says = "1.1.1.2"
    assert world.find() == "1.1.1.2"
    world.resolver.doubt("db")
    world.later(0.5)
    assert world.find() == "1.1.1.2"
    assert world.asked == ["db"] * 2
    world.resolver.doubt("never heard of")
    assert len(world.resolver) == 1


def test_a_lookup_that_hangs_holds_up_no_more_than_its_share():
    world = Hosts(None)
    hanging = [world.begin(f"hangs{number}") for number in range(MAX_THREADS + 1)]
    assert len(world.asked) == MAX_THREADS
    assert world.resolver.pending == MAX_THREADS + 1
    world.answer("1.1.1.1")
    with world.loop.running():
        world.loop.turn()
    assert len(world.asked) == MAX_THREADS + 1
    assert hanging[0].result() == ("1.1.1.1",)


def test_with_a_ttl_of_nothing_each_asker_gets_a_new_answer_and_names_in_use_are_asked_once_a_second():
    world = Hosts()
    world.settings = replace(world.settings, dns_max_ttl=0.0)
    world.used = {"db"}
    world.find()
    world.find()
    assert len(world.asked) == 2
    for _ in range(10):
        world.sweep(0.3)
    assert len(world.asked) == 4


# What is shown, and bounds.


def test_what_is_known_can_be_shown():
    world = Hosts("1.1.1.1 ::1")
    world.find("db")
    world.later(4.5)
    world.says = NO_SUCH_NAME
    world.find("a")
    world.says = None
    world.begin("zzz")
    assert list(world.resolver.known()) == [("a", 15, []), ("db", 11, ["1.1.1.1", "::1"]), ("zzz", 0, [])]
    assert (len(world.resolver), world.resolver.pending) == (3, 1)


def test_names_and_addresses_are_bounded():
    world = Hosts(" ".join(f"10.0.{number}.1" for number in range(200)))
    for number in range(MAX_NAMES + 10):
        world.clock.advance(0.001)
        world.find(f"db{number}")
    assert len(world.resolver) == MAX_NAMES
    assert len(world.find().split()) == MAX_ADDRESSES


def ask(name):
    return asyncio.run(ask_system(name))


def test_the_system_is_asked_and_says_what_it_does_not_know():
    assert set(ask("localhost")) <= {"127.0.0.1", "::1"}
    with pytest.raises(UnicodeError):
        ask("x" * 70 + ".example")
    with pytest.raises(OSError, match="known"):
        ask("not a name")


def test_a_machine_without_a_thread_to_spare_is_a_lookup_that_failed(monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", start)
    with pytest.raises(OSError, match="can't start new thread"):
        ask("localhost")


def test_an_answer_that_comes_when_nobody_is_there_any_more_is_lost(monkeypatch):
    async def main():
        asking = asyncio.ensure_future(ask_system("db"))
        await asyncio.sleep(0)
        asking.cancel()
        told.set()
        for thread in threading.enumerate():
            if thread.name == "look up db":
                thread.join(5)
        await asyncio.sleep(0)
        assert asking.cancelled()

    def look_up(*question, **more):
        assert told.wait(5)
        return [(2, 1, 6, "", ("1.1.1.1", 0))]

    told = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", look_up)
    asyncio.run(main())


def test_it_sweeps_by_itself_and_survives_a_stumble(monkeypatch):
    async def main():
        world, swept = FakeWorld(), asyncio.Event()
        resolver = Resolver(Tasks(world.log), world)
        stumbles = [ZeroDivisionError("oops")]

        def sweep():
            if stumbles:
                raise stumbles.pop()
            swept.set()

        monkeypatch.setattr(resolver, "sweep", sweep)
        task = asyncio.ensure_future(resolver.run())
        await asyncio.wait_for(swept.wait(), 5)
        task.cancel()
        assert "the resolver stumbled and goes on: ZeroDivisionError: oops" in world.log.text

    monkeypatch.setattr("proxy.resolver.TICK", 0)
    asyncio.run(main())
