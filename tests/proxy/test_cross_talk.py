"""
The heart: whatever happens in whatever order, nobody hears a byte that is not his, and no server is lost.

Many clients, few servers, a scripted PostgreSQL behind each and a chooser who moves bytes along every wire in pieces of
any size, breaks lines, kills servers, sends cancels (`tests/ward.py`). After every step the LAWs are asserted and what
each client has heard is compared with what a PostgreSQL of its own would have said.
`HYPOTHESIS_PROFILE=hunt pytest tests/proxy/test_cross_talk.py` looks much longer.
"""

import random

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from protocol.frontend import SYNC_MESSAGE, build_query
from proxy.config.kinds import PoolMode
from proxy.states import CLOSED, CLOSING
from tests.fakes import IS_HUNT
from tests.named import EVERYTHING, SPEECHES, check_names
from tests.play import Play, client, released, server, stays_linked, to_client
from tests.ward import PROGRAMS, Ward, storm

SEEDS = range(3000 if IS_HUNT else 8)
WORLDS = {
    "two servers": {"pool_size": 2},
    "one server": {"pool_size": 1},
    "session mode": {"pool_mode": PoolMode.SESSION, "pool_size": 4},
    "reset after each": {"server_reset_query_always": True},
    "short lives": {"server_lifetime": 3.0, "server_check_delay": 0.0},
    "round robin": {"server_round_robin": True, "pool_size": 3},
}
NAMED_WORLDS = {
    "two servers": {"max_prepared_statements": 2},
    "one server, one statement": {"max_prepared_statements": 1, "pool_size": 1},
    "round robin": {"max_prepared_statements": 4, "server_round_robin": True, "pool_size": 3},
    "room for all": {"max_prepared_statements": 200},
    "deferred": {"max_prepared_statements": 3, "deferred_begin": True},
    "short lives": {"max_prepared_statements": 3, "server_lifetime": 3.0, "server_check_delay": 0.0},
}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_no_storm_crosses_data_or_loses_a_server(seed, world):
    storm(random.Random(seed), 200, **WORLDS[world])


@given(st.randoms(use_true_random=False), st.sampled_from(sorted(WORLDS)))
@hypothesis_settings(max_examples=3000 if IS_HUNT else 10, suppress_health_check=list(HealthCheck))
def test_no_storm_that_hypothesis_finds_does_either(chance, world):
    storm(chance, 40, **WORLDS[world])


@pytest.mark.parametrize("world", NAMED_WORLDS)
@pytest.mark.parametrize("seed", range(len(SEEDS) // 2))
def test_no_storm_of_names_gives_anybody_another_answer_than_postgresql(seed, world):
    storm(random.Random(seed), 120, SPEECHES, check_names, **NAMED_WORLDS[world])


@given(st.randoms(use_true_random=False), st.sampled_from(sorted(NAMED_WORLDS)))
@hypothesis_settings(max_examples=3000 if IS_HUNT else 10, suppress_health_check=list(HealthCheck))
def test_nor_does_one_of_names_and_everything_else(chance, world):
    storm(chance, 60, EVERYTHING, check_names, **NAMED_WORLDS[world])


def test_a_ready_for_query_that_comes_late_after_a_failed_copy_pays_nobody_elses_debt():
    """A trigger fails the COPY before PostgreSQL has read the Sync behind it: it answers one Sync more than usual."""
    play = Play() >> client("P B E S") >> server("1 2 G") >> client("d:row c S")
    play >> server("ERROR:trigger Z:I")  # for which of the two Syncs?
    assert play.client.server is None
    assert play.server.state in (CLOSING, CLOSED)


def test_a_late_ready_for_query_is_known_by_coming_where_none_is_due():
    play = Play() >> client("P B E S") >> server("1 2 G") >> client("d:row c S Q:next")
    play >> server("ERROR:trigger Z:I") >> server("Z:I") << stays_linked
    play >> server("C Z:I") << to_client("1 2 G ERROR:trigger Z:I Z:I C Z:I") << released


def test_an_answer_behind_a_failed_copy_ends_the_doubt():
    play = Play() >> client("P B E S") >> server("1 2 G") >> client("d:row c S Q:next")
    play >> server("ERROR:bad_row Z:I") << stays_linked >> server("C") >> server("Z:I") << released
    play << to_client("1 2 G ERROR:bad_row Z:I C Z:I")


@pytest.mark.parametrize("programs", [PROGRAMS, SPEECHES], ids=["anything", "names"])
def test_every_client_of_a_crowd_hears_all_of_its_own_and_nothing_else(programs):
    ward = Ward(random.Random(1), pool_size=4, query_wait_notify=None, max_prepared_statements=3)
    ward.programs = programs
    with ward.loop.running():
        people = [ward.join() for _ in range(200)]
        for person in people:
            for _ in range(5):
                ward.say(person)
            person.outgoing += SYNC_MESSAGE + build_query("rollback")  # nobody keeps a server from the others
    ward.finish()
    assert sum(len(person.heard) for person in people) > 50_000
