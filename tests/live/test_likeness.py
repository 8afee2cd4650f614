"""Random sessions of six clients on two servers hear what PostgreSQL itself would have said, message by message."""

import os

import pytest

from tests.live.likeness import SERVERS, Worlds
from tests.live.stand import Stand

pytestmark = [pytest.mark.live, pytest.mark.slow]

SEEDS = range(int(os.environ.get("PGSHUTTLE_LIKENESS_SEEDS", "8")))
STEPS = 150
DIRECT, PROXIED = "earth", "mirror"
GROUND = "drop table if exists public.ground; create table public.ground(a int); grant all on public.ground to public"


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    with upstream.connect() as admin:
        for role in ("squire", "herald"):
            admin.execute(f"create role {role}")
        for database in (DIRECT, PROXIED):
            admin.execute(f"create database {database}")
            with upstream.connect(dbname=database) as there:
                there.execute("create schema spare; grant all on schema spare, public to public")
    with Stand(upstream, {"default_pool_size": SERVERS}) as stand:
        yield stand


@pytest.mark.parametrize("seed", SEEDS)
def test_a_script_hears_the_same_in_both_worlds(stand, seed):
    upstream = stand.upstream
    for database in (DIRECT, PROXIED):
        with upstream.connect(dbname=database) as there:
            there.execute(GROUND)
    worlds = Worlds(seed, (upstream.port, DIRECT), (stand.port, PROXIED), upstream.secrets["postgres"])
    try:
        worlds.run(STEPS)
    finally:
        worlds.close()
