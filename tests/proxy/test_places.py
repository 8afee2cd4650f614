"""Which places are tried, in which order, and for how long; how a place gets down and is back."""

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.entries import Database
from proxy.config.kinds import LoadBalance
from proxy.failing import LoginFailed
from proxy.places import BRIEFLY, FIRST_RETRY, MAX_PLACES, MAX_TOLD, MAX_WORDS, Endpoint, PlaceFailed, Places, sum_up
from proxy.resolver import LookupFailed
from tests.fakes import FakeClock, FakeLog, FakeLoop
from tests.proxy.auth.wire import play

A, B, C = (Endpoint(f"10.0.0.{number}", 5432) for number in (1, 2, 3))
REFUSED = PlaceFailed("08006", "connect failed: refused")
MOST = 15.0


class Pool:
    """Only somebody whose turn it is."""


class World:
    """`names` is what names lead to; None for those that lead nowhere."""

    def __init__(self, **names):
        self.clock, self.log = FakeClock(), FakeLog()
        self.resolver = self
        self.names = names
        self.begun = []
        self.doubted = []
        self.places = Places(self)
        self.pool = Pool()

    def find_hosts(self, database):
        return database.hosts or ("/var/run/postgresql", "/tmp")

    def begin(self, name):
        self.begun.append(name)

    def doubt(self, name):
        self.doubted.append(name)

    async def find(self, name):
        assert name in self.begun, "all names are looked up at once, and only then waited for"
        if self.names[name] is None:
            raise LookupFailed(f"{name}: no such name")
        return self.names[name].split()

    def order(self, hosts, balance=LoadBalance.ROUND_ROBIN, pool=None):
        database = Database(name="shop", hosts=tuple(hosts.split(",")), load_balance_hosts=balance)
        places = play(self.places.find(pool or self.pool, database))
        return [place.endpoint.where for place in places]

    def firsts(self, hosts, times, **more):
        return " ".join(self.order(hosts, **more)[0] for _ in range(times))


@pytest.mark.parametrize(
    ("host", "where", "is_named"),
    [
        ("/run/pg", "/run/pg/.s.PGSQL.5433", False),
        ("@pg", "@pg/.s.PGSQL.5433", False),
        ("10.0.0.1", "10.0.0.1", False),
        ("::1", "::1", False),
        ("fe80::1%eth0", "fe80::1%eth0", False),
        ("db1.example.com", "db1.example.com", True),
        ("10.1", "10.1", True),  # the system's resolver knows what it means
    ],
)
def test_what_a_host_may_be(host, where, is_named):
    endpoint = Endpoint(host, 5433)
    assert (endpoint.where, endpoint.is_named) == (where, is_named)
    assert endpoint.path == (where.replace("@", "\0") if "PGSQL" in where else None)


@pytest.mark.parametrize("kind", ["/", "@"])
def test_unix_sockets_are_connected_to_with_a_path_and_with_an_abstract_name(kind, tmp_path):
    host = f"@pgshuttle{tmp_path}" if kind == "@" else str(tmp_path)

    async def main():
        endpoint = Endpoint(host, 5433)
        with socket.socket(socket.AF_UNIX) as listening:
            with pytest.raises(OSError, match=r"No such file|refused"):
                await endpoint.connect(asyncio.get_running_loop())
            listening.bind(endpoint.path)
            listening.listen()
            inbox = await endpoint.connect(asyncio.get_running_loop())
            inbox.write(b"hello")
            with listening.accept()[0] as accepted:
                assert accepted.recv(10) == b"hello"
            inbox.close()
            await inbox.wait_closed()

    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_how_a_place_is_called():
    assert [str(each) for each in (A, Endpoint("::1", 1), Endpoint("@pg", 1), Endpoint("db", 1, "10.0.0.7"))] == [
        "10.0.0.1:5432",
        "[::1]:1",
        "@pg/.s.PGSQL.1",
        "db:1 (10.0.0.7)",
    ]


# The order.


def test_each_server_of_a_pool_begins_at_the_next_host_whatever_other_pools_do():
    world, other = World(), Pool()
    assert world.order("10.0.0.1,10.0.0.2,10.0.0.3") == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    world.order("10.0.0.1,10.0.0.2,10.0.0.3", pool=other)
    assert world.order("10.0.0.1,10.0.0.2,10.0.0.3") == ["10.0.0.2", "10.0.0.3", "10.0.0.1"]
    assert world.order("10.0.0.1,10.0.0.2,10.0.0.3", pool=other) == ["10.0.0.2", "10.0.0.3", "10.0.0.1"]


def test_a_name_has_one_turn_among_the_hosts_and_its_addresses_have_turns_among_themselves():
    world = World(db="1.1.1.1 1.1.1.2", other="2.2.2.1")
    assert world.firsts("db,other", 5) == "1.1.1.1 2.2.2.1 1.1.1.2 2.2.2.1 1.1.1.1"
    assert world.firsts("db", 3, pool=Pool()) == "1.1.1.1 1.1.1.2 1.1.1.1"


def test_a_host_named_twice_has_two_turns_and_is_tried_once():
    world = World()
    hosts = "10.0.0.1,10.0.0.1,10.0.0.2"
    assert world.order(hosts) == ["10.0.0.1", "10.0.0.2"]
    assert world.firsts(hosts, 5) == "10.0.0.1 10.0.0.2 10.0.0.1 10.0.0.1 10.0.0.2"


def test_a_name_that_leads_nowhere_is_a_place_that_fails():
    world = World(db=None)
    places = play(world.places.find(world.pool, Database(name="shop", hosts=("db", "10.0.0.1"))))
    assert [(place.endpoint.where, str(place.failure)) for place in places] == [
        ("db", "db: no such name"),
        ("10.0.0.1", "None"),
    ]


def test_unbalanced_all_pools_stay_with_one_place_and_go_on_from_it_when_it_fails():
    world, hosts = World(), "10.0.0.1,10.0.0.2,10.0.0.3"
    database = Database(name="shop", hosts=tuple(hosts.split(",")), load_balance_hosts=LoadBalance.DISABLE)
    assert world.firsts(hosts, 3, balance=LoadBalance.DISABLE) == "10.0.0.1 10.0.0.1 10.0.0.1"
    world.places.worked(B, database)
    assert world.order(hosts, LoadBalance.DISABLE, Pool()) == ["10.0.0.2", "10.0.0.3", "10.0.0.1"]
    world.places.failed(B, REFUSED, MOST)
    assert world.order(hosts, LoadBalance.DISABLE) == ["10.0.0.3", "10.0.0.1", "10.0.0.2"]
    world.places.worked(C, database)
    world.places.worked(B, database)  # an opening that had begun before
    assert world.log.text.count("no longer at") == 2


def test_unbalanced_a_name_that_has_moved_is_still_the_host_to_stay_with():
    world, database = (
        World(db="1.1.1.1"),
        Database(name="shop", hosts=("10.0.0.1", "db"), load_balance_hosts=LoadBalance.DISABLE),
    )
    world.places.worked(Endpoint("db", 5432, "1.1.1.1"), database)
    world.names["db"] = "1.1.1.3 1.1.1.4"
    assert world.order("10.0.0.1,db", LoadBalance.DISABLE) == ["1.1.1.3", "1.1.1.4", "10.0.0.1"]


def test_where_no_host_is_named_the_folder_that_works_is_kept():
    world, database = World(), Database(name="shop")
    places = play(world.places.find(world.pool, database))
    world.places.failed(places[0].endpoint, REFUSED, MOST)
    world.places.worked(places[1].endpoint, database)
    world.clock.advance(60)
    for _ in range(3):
        places = play(world.places.find(world.pool, database))
        assert [place.endpoint.host for place in places] == ["/tmp", "/var/run/postgresql"]


@given(
    hosts=st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "/run", "db", "nowhere"]), min_size=1, max_size=6),
    failing=st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "1.1.1.1", "1.1.1.2"]), max_size=6),
    balance=st.sampled_from(LoadBalance),
    turns=st.integers(1, 5),
)
def test_whatever_has_happened_every_place_is_tried_once_and_those_that_are_down_last(hosts, failing, balance, turns):
    world = World(db="1.1.1.1 1.1.1.2", nowhere=None)
    database = Database(name="shop", hosts=tuple(hosts), load_balance_hosts=balance)
    for where in failing:
        host = "db" if where.startswith("1.1.") else where
        endpoint = Endpoint(host, 5432, where if host == "db" else "")
        world.places.failed(endpoint, REFUSED, MOST)
        world.places.worked(Endpoint(hosts[-1], 5432), database)
    for _ in range(turns):
        found = [place.endpoint for place in play(world.places.find(world.pool, database))]
        wanted = {address for host in hosts for address in (["1.1.1.1", "1.1.1.2"] if host == "db" else [host])}
        assert sorted(each.address or each.host for each in found) == sorted(wanted)
        down = [world.places.is_down(each) for each in found]
        assert down == sorted(down)


# How they are.


def test_a_place_that_failed_is_last_until_its_back_off_is_over_and_that_doubles():
    world, hosts = World(), "10.0.0.1,10.0.0.2"
    for step in (FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY, 8 * FIRST_RETRY, MOST, MOST):
        world.places.failed(A, REFUSED, MOST)
        world.clock.advance(step - 0.01)
        assert world.firsts(hosts, 2) == "10.0.0.2 10.0.0.2"
        world.clock.advance(0.02)
        assert "10.0.0.1" in world.firsts(hosts, 2)
    assert world.log.text.count("WARNING host 10.0.0.1:5432 is down: connect failed: refused") == 1


def test_when_all_are_down_all_are_tried_all_the_same():
    world = World()
    for each in (A, B):
        world.places.failed(each, REFUSED, MOST)
    assert sorted(world.order("10.0.0.1,10.0.0.2")) == ["10.0.0.1", "10.0.0.2"]


def test_one_opening_looks_whether_a_place_is_back_and_the_others_do_not():
    world = World()
    world.places.failed(A, REFUSED, MOST)
    world.clock.advance(FIRST_RETRY)
    assert not world.places.is_down(A)
    world.places.begin(A)
    assert world.places.is_down(A)
    world.clock.advance(FIRST_RETRY)
    assert not world.places.is_down(A)
    world.places.worked(A)
    world.places.begin(A)
    assert not world.places.is_down(A)
    assert "LOG host 10.0.0.1:5432 is back, after 2s" in world.log.text


def test_a_name_that_leads_somewhere_again_is_back():
    world = World(db="1.1.1.1")
    world.places.failed(Endpoint("db", 5432), PlaceFailed("08006", "server DNS lookup failed: db"), MOST)
    world.order("db")
    assert "host db:5432 is back" in world.log.text


def test_a_name_is_in_doubt_when_nobody_is_met_there():
    world = World()
    world.places.failed(A, REFUSED, MOST)
    world.places.failed(Endpoint("gone", 5432), REFUSED, MOST)  # it had no address at all
    world.places.failed(Endpoint("db", 5432, "1.1.1.1"), REFUSED, MOST)
    assert world.doubted == ["db"]


def test_without_a_retry_time_nothing_is_put_last():
    world = World()
    world.places.failed(A, REFUSED, 0.0)
    assert not world.places.is_down(A)


def test_what_is_remembered_is_bounded():
    world = World()
    for number in range(MAX_PLACES + 10):
        world.places.failed(Endpoint(f"h{number}", 1), REFUSED, MOST)
    assert not world.places.is_down(Endpoint("h9", 1))
    assert world.places.is_down(Endpoint("h10", 1))


def test_the_deadline_is_shared_by_those_that_are_left():
    world = World()
    loop = FakeLoop(world.clock)
    with loop.running():
        now = loop.time()
        assert world.places.find_share(A, now + 15, 3) == now + 5
        assert world.places.find_share(A, now + 15, 1) == now + 15
        assert world.places.find_share(A, None, 2) == now + 15
        assert world.places.find_share(A, None, 1) is None
        world.places.failed(A, REFUSED, MOST)
        assert world.places.find_share(A, now + 15, 3) == now + BRIEFLY
        assert world.places.find_share(A, now + 3, 3) == now + 1
        assert world.places.find_share(A, now + 15, 1) == now + 15


# What those who wait are told.


def test_one_failure_is_told_as_it_is():
    assert sum_up([(A, REFUSED)]) is REFUSED


def test_many_failures_are_one_sentence_of_a_bearable_length():
    failures = [(Endpoint("db", 5432, f"10.0.0.{number}"), LoginFailed("08006", "x" * 5000)) for number in range(200)]
    sentence = sum_up(failures).sentence
    assert sentence.startswith("connect failed on every host: db:5432 (10.0.0.0): xxx")
    assert sentence.endswith("and 190 more")
    assert len(sentence) < (MAX_TOLD + 1) * (MAX_WORDS + 50)
