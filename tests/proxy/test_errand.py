"""An errand: one question to a server of a pool, and the server is as free afterwards as before."""

import pytest

from protocol.frontend import build_query
from protocol.ledger import ONE_QUERY
from proxy.errand import MAX_ANSWER, PATIENCE, TICK, Errand
from proxy.failing import LoginFailed
from proxy.states import IDLE, TESTING, PoolState
from tests.fakes import FakeWorld, check_world
from tests.play import said

ASKED = build_query("SELECT 1")


def ask(server, answer):
    server.ledger.expect(ONE_QUERY, answer)
    server.transport.write(ASKED)


class Trip:
    def __init__(self, servers=1):
        self.world = FakeWorld(pool_size=1)
        with self.world.loop.running():
            self.servers = [self.world.new_server() for _ in range(servers)]
            self.errand = Errand(self.world.pool, ask, user="guard")
            self.task = self.world.loop.create_task(self.errand.wait())
        self.turn()

    def turn(self, seconds=0.0):
        self.world.run_tasks(seconds)
        return self

    def answer(self, data):
        self.world.answer(self.servers[0], data)
        return self


def test_the_answer_is_kept_and_the_server_given_back():
    trip = Trip()
    assert bytes(trip.servers[0].transport.arrived) == ASKED
    assert trip.servers[0].state is TESTING
    assert trip.servers[0].deadline == trip.world.clock.now() + PATIENCE
    answer = trip.answer(said("T D C Z:I")).task.result()
    assert answer.data == said("T D C Z:I")
    assert not answer.is_cut
    assert trip.servers[0].state is IDLE
    check_world(trip.world)


def test_an_error_is_kept_too():
    answer = Trip().answer(said("ERROR:no_such_thing Z:I")).task.result()
    assert answer.error.message == "no such thing"


def test_an_endless_answer_is_cut():
    trip = Trip()
    row = said("D") * 1000
    for _ in range(2 + MAX_ANSWER // len(row)):
        trip.answer(row)
    answer = trip.answer(said("C Z:I")).task.result()
    assert answer.is_cut
    assert len(answer.data) <= MAX_ANSWER


def test_a_server_that_is_lost_has_no_answer():
    trip = Trip()
    with trip.world.loop.running():
        trip.servers[0].transport.peer_breaks()
    assert trip.turn().turn(TICK).task.result() is None


def test_who_waits_stands_in_the_queue_with_a_name_for_the_log():
    trip = Trip(servers=0)
    assert list(trip.world.pool.waiting) == [trip.errand]
    assert "shop/guard" in str(trip.errand.tag)
    trip.task.cancel()
    trip.turn()
    assert not trip.world.pool.waiting


def test_a_pool_that_ends_sends_it_away():
    trip = Trip(servers=0)
    trip.world.pool.state = PoolState.DYING
    with pytest.raises(LoginFailed):
        trip.turn(TICK).task.result()
