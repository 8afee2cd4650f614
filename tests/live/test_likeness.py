"""Random sessions of six clients on two servers hear what PostgreSQL itself would have said, message by message."""

import os

import pytest

from tests.live.likeness import SERVERS, Worlds
from tests.live.stand import Stand

pytestmark = [pytest.mark.live, pytest.mark.slow]

SEEDS = range(int(os.environ.get("PGSHUTTLE_LIKENESS_SEEDS", "8")))
STEPS = 150
OTHERWISE = (
    {"server_reset_query": "RESET ALL", "server_reset_query_always": 1},
    {"max_prepared_statements": 1, "server_round_robin": 1, "track_statements": 1},
    {"pipeline_depth": 16, "deferred_begin": 0, "server_lifetime": 0},
)
DIRECT, PROXIED = "earth", "mirror"
GROUND = "drop table if exists public.ground; create table public.ground(a int); grant all on public.ground to public"


@pytest.fixture(scope="module", name="worlds")
def _worlds(upstream):
    with upstream.connect() as admin:
        for role in ("squire", "herald"):
            admin.execute(f"create role {role}")
        for database in (DIRECT, PROXIED):
            admin.execute(f"create database {database}")
            with upstream.connect(dbname=database) as there:
                there.execute("create schema spare; grant all on schema spare, public to public")
    return upstream


@pytest.fixture(scope="module", name="stand")
def _stand(worlds):
    with Stand(worlds, {"default_pool_size": SERVERS}) as stand:
        yield stand


@pytest.mark.parametrize("seed", SEEDS)
def test_a_script_hears_the_same_in_both_worlds(stand, seed):
    play(stand, seed)


@pytest.mark.parametrize("settings", OTHERWISE)
def test_so_it_does_where_other_things_are_set(worlds, settings):
    with Stand(worlds, {"default_pool_size": SERVERS, **settings}) as stand:
        for seed in SEEDS[: max(len(SEEDS) // 4, 1)]:
            play(stand, 1000 + seed)


def play(stand: Stand, seed: int) -> None:
    upstream = stand.upstream
    for database in (DIRECT, PROXIED):
        with upstream.connect(dbname=database) as there:
            there.execute(GROUND)
    worlds = Worlds(seed, (upstream.port, DIRECT), (stand.port, PROXIED), upstream.secrets["postgres"])
    try:
        worlds.run(STEPS)
    finally:
        worlds.close()
