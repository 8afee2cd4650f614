"""Startup parameters tried on: one round trip for the first who says it, none for the next, nothing left behind."""

import pytest

from protocol.backend import build_data_row
from protocol.errors import Refused
from protocol.frontend import build_query
from proxy.errand import TICK
from proxy.failing import LoginFailed
from proxy.fitting import wait_spelled
from proxy.states import IDLE, TESTING, Closing, PoolState
from tests.fakes import FakeWorld, check_world
from tests.play import said

CET = {"TimeZone": "cet"}
ASKED = build_query("SELECT pg_catalog.set_config(E'TimeZone',E'cet',true)")
SPELLED = said("T") + build_data_row(["CET"]) + said("C Z:I")


class Visit:
    """One visitor with wishes, in a pool with one server or none."""

    def __init__(self, wishes=CET, *, servers=1, world=None, **limits):
        self.world = world or FakeWorld(**{"pool_size": 1, **limits})
        self.pool, loop = self.world.pool, self.world.loop
        with loop.running():
            self.servers = [self.world.new_server() for _ in range(servers if world is None else 0)]
        self.base = self.pool.intern(dict(self.world.pool.welcome))
        self.task = loop.create_task(wait_spelled(self.pool, wishes, self.base))
        self.turn()

    def turn(self, seconds=0.0):
        self.world.run_tasks(seconds)
        return self

    def answer(self, data):
        self.world.answer(self.server, data)
        return self

    @property
    def server(self):
        return self.servers[0]

    @property
    def heard(self):
        return bytes(self.server.transport.arrived)


def test_a_value_is_asked_once_and_spelled_for_everybody_after():
    visit = Visit()
    assert visit.heard == ASKED
    assert visit.server.state is TESTING
    visit.answer(SPELLED)
    assert visit.task.result() == {"TimeZone": "CET"}
    assert visit.server.state is IDLE
    assert visit.server.followed == visit.base
    again = Visit(world=visit.world)
    assert again.task.result() == {"TimeZone": "CET"}
    assert visit.heard == ASKED
    check_world(visit.world)


@pytest.mark.parametrize("wishes", [{}, {"application_name": "app"}, {"TimeZone": "UTC"}])
def test_what_every_server_takes_is_not_asked(wishes):
    visit = Visit(wishes)
    assert visit.task.result() == wishes
    assert not visit.heard


def test_an_answer_may_come_in_pieces():
    visit = Visit()
    for byte in SPELLED:
        visit.answer(bytes([byte]))
    assert visit.task.result() == {"TimeZone": "CET"}


def test_a_refusal_is_in_the_servers_words():
    visit = Visit().answer(said("ERROR:no_such_zone Z:I"))
    with pytest.raises(Refused, match="no such zone") as refused:
        visit.task.result()
    assert refused.value.sqlstate == "22012"
    assert visit.server.state is IDLE


def test_a_timeout_of_somebody_elses_is_not_the_visitors():
    visit = Visit().answer(said("ERROR:x Z:I").replace(b"22012", b"57014")).answer(SPELLED)
    assert visit.task.result() == {"TimeZone": "CET"}


def test_a_server_that_talks_nonsense_is_not_asked_for_ever():
    visit = Visit()
    for _ in range(3):
        visit.answer(said("C Z:I"))
    with pytest.raises(LoginFailed):
        visit.task.result()


def test_who_finds_no_server_waits_for_one():
    visit = Visit(servers=0)
    assert list(visit.pool.waiting)
    visit.servers = [visit.world.finish_opening()]
    assert visit.turn().heard == ASKED
    assert visit.answer(SPELLED).task.result() == {"TimeZone": "CET"}
    assert not visit.pool.waiting


def test_who_finds_no_server_because_none_can_be_opened_hears_why():
    visit = Visit(servers=0)
    with visit.world.loop.running():
        visit.world.openings[0].pool.server_closed(visit.world.openings[0])
        visit.world.obstacle = object()
        visit.pool.opening_failed(LoginFailed("28P01", "wrong password"))
    for server in list(visit.world.openings):
        visit.pool.places[0].pop(server, None)
    visit.turn(TICK)
    with pytest.raises(LoginFailed, match="wrong password"):
        visit.task.result()


def test_who_waits_for_too_long_is_refused():
    visit = Visit(servers=0)
    next(iter(visit.pool.waiting)).close(Closing.QUERY_WAIT_TIMEOUT)
    with pytest.raises(Refused, match="query_wait_timeout"):
        visit.turn().task.result()
    assert not visit.pool.waiting


def test_who_waits_in_a_pool_that_ends_is_told():
    visit = Visit(servers=0)
    visit.pool.state = PoolState.DYING
    with pytest.raises(LoginFailed):
        visit.turn(TICK).task.result()


def test_a_visitor_that_leaves_while_it_waits_is_taken_out_of_the_queue():
    visit = Visit(servers=0)
    visit.task.cancel()
    visit.turn()
    assert visit.task.cancelled()
    assert not visit.pool.waiting


def test_a_visitor_that_leaves_while_a_server_is_asked_leaves_it_as_it_was():
    visit = Visit()
    visit.task.cancel()
    visit.turn().answer(SPELLED)
    assert visit.server.state is IDLE
    check_world(visit.world)


def test_a_server_that_is_lost_on_the_way_is_replaced_by_another():
    visit = Visit()
    visit.server.ready_at += 1.0  # it has been of use before
    with visit.world.loop.running():
        visit.server.transport.peer_breaks()
    visit.turn(TICK)
    visit.servers = [visit.world.finish_opening()]
    assert visit.turn(TICK).heard == ASKED
    assert visit.answer(SPELLED).task.result() == {"TimeZone": "CET"}
