"""pgbench: twenty clients, all three ways to ask, reading and writing; its own arithmetic judges the result."""

import re
import subprocess

import pytest

from tests.live.clients.fleet import CLIENTS, SECONDS, find_postgresql_program

pytestmark = pytest.mark.live

MODES = ["simple", "extended", "prepared"]
ROUNDS = 30


def pgbench(fleet, *options, script=None):
    command = [find_postgresql_program("pgbench"), *map(str, options)]
    done = subprocess.run(
        [*command, "-f", "-"] if script else command,
        input=script,
        env=fleet.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS * 2,
    )
    assert done.returncode == 0, done.stderr
    assert script is None or "failed transactions: 0" in done.stdout
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def _tables(fleet):
    pgbench(fleet, "-i", "-s", 2, "--quiet")


def crowd(*options):
    """
    One thread for each client: pgbench prepares with a call that blocks all clients of its thread, also those that
    hold a server. With fewer servers than clients they would wait for each other.
    """
    return ("-n", "-c", CLIENTS, "-j", CLIENTS, "-t", ROUNDS, *options)


@pytest.mark.parametrize("mode", MODES)
def test_reading(fleet, mode):
    out = pgbench(fleet, *crowd("-S", "-M", mode))
    assert f"query mode: {mode}" in out
    assert f"actually processed: {CLIENTS * ROUNDS}/{CLIENTS * ROUNDS}" in out


@pytest.mark.parametrize("mode", MODES)
def test_writing_adds_up(fleet, owner, mode):
    out = pgbench(fleet, *crowd("-M", mode))
    assert f"actually processed: {CLIENTS * ROUNDS}/{CLIENTS * ROUNDS}" in out
    tables = ("pgbench_branches", "bbalance"), ("pgbench_tellers", "tbalance"), ("pgbench_accounts", "abalance")
    sums = {owner.execute(f"select sum({column}) from {table}").fetchone()[0] for table, column in tables}
    assert len(sums) == 1
    assert owner.execute("select sum(delta) from pgbench_history").fetchone()[0] in sums


@pytest.mark.parametrize("mode", MODES)
def test_each_client_sees_its_own_values_in_every_answer(fleet, mode):
    """A wrong answer would be a division by zero. The block is one server's, as its backend confirms."""
    script = r"""
        \set mine random(1, 1000000000)
        select :mine as answer \gset
        select 1 / (:answer = :mine)::int;
        begin;
        select pg_backend_pid() as one, :mine as answer \gset
        select 1 / (pg_backend_pid() = :one and :answer = :mine)::int;
        end;
    """
    pgbench(fleet, *crowd("-M", mode), script=script)


@pytest.mark.parametrize("mode", MODES)
def test_settings_of_each_client(fleet, mode):
    script = r"""
        select set_config('myapp.tenant', 'c:client_id', false);
        select 1 / (current_setting('myapp.tenant') = 'c:client_id')::int;
        select 1 / (current_setting('myapp.tenant') = 'c:client_id')::int;
    """
    pgbench(fleet, *crowd("-M", mode), script=script.replace("'c:client_id'", ":client_id::text"))


@pytest.mark.parametrize("mode", MODES[1:])
def test_pipelines(fleet, mode):
    script = r"""
        \set mine random(1, 1000000)
        \startpipeline
        begin;
        select 1 / (:mine > 0)::int;
        end;
        select pg_advisory_xact_lock(:mine);
        \endpipeline
    """
    pgbench(fleet, *crowd("-M", mode), script=script)


def test_serialization_failures_are_tried_again(fleet):
    script = r"""
        begin isolation level serializable;
        update pgbench_branches set bbalance = bbalance + 1 where bid = 1;
        end;
    """
    out = pgbench(fleet, *crowd("-M", "prepared", "--max-tries=1000"), script=script)
    assert re.search(r"number of transactions actually processed: 600/600", out)
