"""
Lines in every weather: random programs of people who share servers, and the laws after each step.

Ten thousand short ones each time, since most of what can go wrong needs few steps and much chance; fewer long ones
with everything else that people do in between; and a state machine that hypothesis drives, which finds the shortest
way to what it finds. `HYPOTHESIS_PROFILE=hunt pytest tests/proxy/test_line_storms.py` looks much longer.
"""

import random
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from proxy.states import CLOSED, GONE, Closing, PoolState
from tests.fakes import IS_HUNT
from tests.lined_ward import MIXED, RELOADS, SHARED, LinedWard, line_storm

PROGRAMS = 10_000 * (100 if IS_HUNT else 1)
PARTS = 40  # so that a part takes about a second
STEPS = 15
LONG_ONES = 40 * (100 if IS_HUNT else 1)
GROUPS = [1, 2, 3, 32]
EXAMPLES, MOVES = (5_000, 60) if IS_HUNT else (40, 40)


ODDITIES: tuple[dict[str, Any], ...] = (
    {"server_lifetime": 3.0, "server_check_delay": 0.0},
    {"server_round_robin": True},
    {"server_reset_query_always": True},
    {"pipeline_stall_ms": 1},
    {"pipeline_max_ms": 1},
    {"deferred_begin": True},
)


def weather(chance: random.Random) -> dict[str, Any]:
    odd = {name: value for each in ODDITIES if chance.random() < 0.25 for name, value in each.items()}
    return odd | {
        "people": chance.randint(2, 6),
        "pool_size": chance.choice([1, 2, 3]),
        "session_state": chance.choice(["leak", "track"]),
        "pipeline_depth": chance.choice([2, 3, 16, 64]),
        "pipeline_servers": chance.choice([0, 1, 2]),
        "pipeline_group": chance.choice(GROUPS),
        "max_prepared_statements": chance.choice([1, 3, 200]),
    }


@pytest.fixture(autouse=True)
def _is_crowd(request, monkeypatch):
    """Where tests are numbered, in every other one answers go out together, at the end of a turn (outbox.py)."""
    number = getattr(request.node, "callspec", None)
    if number is not None and sum(number.params.values()) % 2:
        monkeypatch.setattr("proxy.pool.AT_WORK", 0)


@pytest.mark.parametrize("part", range(PARTS))
def test_no_program_crosses_answers_or_loses_one(part):
    shared = grouped = 0
    for seed in range(part * PROGRAMS // PARTS, (part + 1) * PROGRAMS // PARTS):
        chance = random.Random(seed)
        try:
            ward = line_storm(chance, STEPS, **weather(chance))
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        shared += ward.pool.stats.line_query_count
        grouped += ward.chains
    assert shared > PROGRAMS // PARTS / 2, "most of what is tried has to do with lines"
    assert grouped > PROGRAMS // PARTS / 10, "and some of it with groups"


@pytest.mark.parametrize("seed", range(LONG_ONES))
def test_nor_does_one_in_which_people_do_everything_else_as_well(seed):
    chance = random.Random(1_000_000 + seed)
    line_storm(chance, 100, programs=MIXED, **{**weather(chance), "session_state": "leak"})


class Machine(RuleBasedStateMachine):
    """A ward in the hands of hypothesis. Whoever is meant by a number is counted from the front, in circles."""

    ward: LinedWard

    @initialize(
        chance=st.randoms(use_true_random=False), servers=st.integers(1, 3), people=st.integers(2, 5),
        group=st.sampled_from(GROUPS),
    )  # fmt: skip
    def begin(self, chance: random.Random, servers: int, people: int, group: int) -> None:
        limits: dict[str, Any] = {"pool_size": servers, "pipeline_servers": 0, "pipeline_group": group}
        self.ward = LinedWard(chance, query_wait_timeout=None, query_wait_notify=None, **limits)
        self.ward.begin(people)

    def _do(self, act: Any, *arguments: Any) -> None:
        with self.ward.loop.running():
            act(*arguments)
            self.ward.loop.turn()

    def _person(self, number: int) -> Any:
        living = [person for person in self.ward.people if person.client.state is not GONE]
        return living[number % len(living)] if living else None

    def _server(self, number: int) -> Any:
        open_ones = [each for each in self.ward.postgres.items() if each[0].state is not CLOSED]
        return open_ones[number % len(open_ones)] if open_ones else (None, None)

    @precondition(lambda self: len(self.ward.people) < 12)
    @rule()
    def join(self) -> None:
        self._do(self.ward.join)

    @rule(number=st.integers(0, 5), program=st.sampled_from(SHARED))
    def ask(self, number: int, program: Any) -> None:
        person = self._person(number)
        if person is not None and person.transport.reads and not person.transport.is_closing():
            person.outgoing += program(person, self.ward.chance)
            self._do(self.ward.send, person, len(person.outgoing))

    @rule(number=st.integers(0, 2))
    def serve(self, number: int) -> None:
        server, postgres = self._server(number)
        if server is not None and not postgres.is_dead:
            self._do(self.ward.serve, server, postgres)

    @rule(number=st.integers(0, 2), count=st.integers(1, 80))
    def serve_some(self, number: int, count: int) -> None:
        server, postgres = self._server(number)
        if server is None or postgres.is_dead:
            return
        if server.transport.unsent:
            self._do(self.ward.take, server, postgres, min(count, len(server.transport.unsent)))
        if postgres.out and server.transport.reads:
            self._do(self.ward.deliver, server, postgres, min(count, len(postgres.out)))

    @rule(number=st.integers(0, 2))
    def wake(self, number: int) -> None:
        server, postgres = self._server(number)
        if server is not None and postgres.sleeping:
            self._do(self.ward.wake, postgres)

    @rule(number=st.integers(0, 5))
    def cancel(self, number: int) -> None:
        person = self._person(number)
        if person is not None:
            self._do(self.ward.cancel, person)

    @rule(number=st.integers(0, 3))
    def land(self, number: int) -> None:
        flying = self.ward.cancels_on_their_way
        if flying:
            self._do(self.ward.land, flying[number % len(flying)])

    @rule(number=st.integers(0, 5), is_rude=st.booleans())
    def leave(self, number: int, is_rude: bool) -> None:
        person = self._person(number)
        if person is not None:
            self._do(person.transport.peer_breaks if is_rude else person.transport.peer_hangs_up)

    @rule(number=st.integers(0, 5))
    def read(self, number: int) -> None:
        person = self._person(number)
        if person is not None and person.transport.unsent:
            self._do(person.transport.peer_reads)

    @rule(number=st.integers(0, 2), is_polite=st.booleans())
    def die(self, number: int, is_polite: bool) -> None:
        server, postgres = self._server(number)
        if server is None or postgres.is_dead:
            return
        if is_polite:
            postgres.dies()
            self._do(self.ward.deliver, server, postgres, len(postgres.out)) if server.transport.reads else None
        self._do(self.ward.break_server, server, postgres)

    @rule()
    def open(self) -> None:
        if self.ward.openings:
            self._do(self.ward.finish_opening)

    @rule(limits=st.sampled_from(RELOADS))
    def reload(self, limits: dict[str, Any]) -> None:
        self._do(self.ward.reload, limits)

    @rule()
    def pause_or_resume(self) -> None:
        pool = self.ward.pool
        self._do(pool.unpause if pool.state is PoolState.PAUSED else pool.pause)

    @rule()
    def reconnect(self) -> None:
        self._do(self.ward.pool.retire_servers, Closing.RECONNECT)

    @rule(seconds=st.sampled_from([0.01, 0.3, 3.0]))
    def pass_time(self, seconds: float) -> None:
        self._do(self.ward.pass_time, seconds)

    @invariant()
    def laws_hold(self) -> None:
        if hasattr(self, "ward"):
            self.ward.check()

    def teardown(self) -> None:
        if hasattr(self, "ward"):
            self.ward.finish()


def test_whatever_hypothesis_does_with_a_ward():
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine,
        settings=hypothesis_settings(
            max_examples=EXAMPLES, stateful_step_count=MOVES, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
