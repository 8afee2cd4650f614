"""A SET in front of a unit that fails after all: whoever stands behind it is served anew, and never by chance."""

import pytest

from protocol.backend import build_error
from proxy.states import CLOSED, CLOSING, IDLE
from tests.fakes import FakeWorld
from tests.play import asked, said

CET, UTC = b"SET TimeZone=E'CET'", b"SET TimeZone=E'UTC'"


@pytest.fixture(name="world")
def _world():
    """Somebody has a server of his own, so whoever comes now has company; reads are trusted."""
    world = FakeWorld(pool_size=4, pipeline_depth=16, pipeline_servers=1)
    with world.loop.running():
        world.new_server()
        world.new_server()
        world.new_client().transport.peer_sends(asked("Q:begin"))
    world.pool.lines.book.find(b"select 1").is_trusted = True
    world.pool.proven.add(("TimeZone", "CET"))
    return world


def ask(world, *clients):
    """All in one turn."""
    with world.loop.running():
        for client in clients:
            client.transport.peer_sends(asked("Q:select_1"))
        world.loop.turn()


def hear(client):
    heard = bytes(client.transport.arrived)
    client.transport.arrived.clear()
    return heard


def find_line_server(world):
    (line,) = [line for line in world.pool.lines.members if line.server is not None]
    return line.server


def in_zones(world, *zones):
    with world.loop.running():
        return [world.new_client(TimeZone=zone) for zone in zones]


def test_when_a_change_fails_nobody_behind_it_hears_an_answer_made_under_the_wrong_parameters(world):
    clients = in_zones(world, "CET", "UTC", "CET")
    ask(world, *clients)
    server = find_line_server(world)
    failure = build_error("ERROR", "22023", "no such zone")
    world.answer(server, failure + said("Z:I T D:wrong C Z:I C Z:I T D:utc C Z:I C Z:I T D:wrong C Z:I"))
    assert server.state in (CLOSING, CLOSED)
    assert [hear(client) for client in clients] == [b""] * 3


def test_a_cancel_of_another_that_hits_a_change_is_heard_by_nobody(world):
    clients = in_zones(world, "CET", "UTC")
    ask(world, *clients)
    server = find_line_server(world)
    server.client.was_canceled = True
    world.answer(server, build_error("ERROR", "57014", "canceling statement due to user request") + said("Z:I"))
    assert [hear(client) for client in clients] == [b"", b""]
    world.answer(server, said("T D:wrong C Z:I C Z:I T D:utc C Z:I"))
    assert [hear(client) for client in clients] == [b"", b""]
    with world.loop.running():
        world.loop.turn()
        newcomer = world.new_server()
        world.loop.turn()
    assert newcomer.state is not IDLE
    world.answer(newcomer, said("C S:TimeZone=CET Z:I T D:cet C Z:I C S:TimeZone=UTC Z:I T D:utc C Z:I"))
    assert [hear(client) for client in clients] == [said("T D:cet C Z:I"), said("T D:utc C Z:I")]
