"""The tables of moves: complete, and every life has an end."""

import enum

import pytest

from proxy.states import (
    CLIENT_MOVES,
    CLOSED,
    GONE,
    IDLE,
    LINKED,
    MOVES,
    OPENING,
    ClientState,
    ServerState,
    forget,
    move,
)


def reach(moves, start):
    found, new = set(), {start}
    while new:
        found |= new
        new = set().union(*(moves[state] for state in new)) - found
    return found


class Pool:
    def __init__(self):
        self.places = tuple({} for _ in range(CLOSED))


class Server:
    def __init__(self):
        self.pool, self.state = Pool(), OPENING
        self.pool.places[OPENING][self] = None


@pytest.mark.parametrize(("states", "moves"), [(ServerState, MOVES), (ClientState, CLIENT_MOVES)])
def test_every_state_has_its_moves(states: type[enum.IntEnum], moves):
    assert set(states) == set(moves)


@pytest.mark.parametrize("state", ServerState)
def test_every_server_can_be_closed(state):
    assert CLOSED in reach(MOVES, state)


@pytest.mark.parametrize("state", ServerState)
def test_every_state_of_a_server_can_come_to_pass(state):
    assert state in reach(MOVES, OPENING)


@pytest.mark.parametrize("state", ClientState)
def test_every_client_can_leave(state):
    assert GONE in reach(CLIENT_MOVES, state)


def test_the_end_is_the_end():
    assert not MOVES[CLOSED]
    assert not CLIENT_MOVES[GONE]


def test_a_move_leaves_the_old_place_and_enters_the_new_one():
    server = Server()
    move(server, IDLE)
    assert [len(place) for place in server.pool.places] == [0, 1, 0, 0, 0, 0, 0]
    move(server, LINKED)
    forget(server)
    assert not any(server.pool.places)


def test_a_move_that_is_not_in_the_table_is_refused_and_changes_nothing():
    server = Server()
    move(server, IDLE)
    with pytest.raises(AssertionError, match="IDLE -> OPENING"):
        move(server, OPENING)
    assert server in server.pool.places[IDLE]
