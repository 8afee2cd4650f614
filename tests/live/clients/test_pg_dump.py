"""pg_dump and pg_restore through the proxy: the copy is equal to the original, dumped while others are at work."""

import os
import subprocess
import threading

import pytest

from tests.live.clients.fleet import CLIENTS, SECONDS, find_postgresql_program, together

pytestmark = pytest.mark.live

SCHEMA = """
    create schema store;
    create type store.size as enum ('small', 'large');
    create table store.box (id int generated always as identity primary key, size store.size, words text[], note text);
    create table "Odd name" (a numeric(10, 2) default 1.5, b bytea, c timestamptz);
    create view store.large as select id from store.box where size = 'large';
    create function store.count() returns bigint language sql as 'select count(*) from store.box';
    create index on store.box (size) where note is not null;
    comment on table store.box is 'with a comment; and a semicolon';
    insert into store.box (size, words, note)
        select (array['small', 'large']::store.size[])[1 + n % 2], array['ü', n::text, null], repeat('x', n % 500)
        from generate_series(1, 3000) n;
    insert into "Odd name" select n, int4send(n), '2024-02-29 12:00Z' from generate_series(1, 100) n;
    select setval(pg_get_serial_sequence('store.box', 'id'), 5000);
"""
TOTAL = """
    select (select md5(string_agg(box::text, '' order by id)) from store.box),
           (select md5(string_agg(o::text, '' order by a)) from "Odd name" o),
           store.count(), (select count(*) from store.large), nextval(pg_get_serial_sequence('store.box', 'id'))
"""


@pytest.fixture(scope="module", autouse=True)
def _content(fleet):
    run(fleet, "psql", "-q", script=SCHEMA)


def run(fleet, name, *options, script=None):
    done = subprocess.run(
        [find_postgresql_program(name), *map(os.fspath, options)],
        input=script,
        env=fleet.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS * 2,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def clear(owner):
    owner.execute('drop schema store cascade; drop table "Odd name"')


@pytest.mark.parametrize("form", ["plain", "custom", "directory", "tar"])
def test_a_dump_restored_is_equal(fleet, owner, tmp_path, form):
    before = owner.execute(TOTAL).fetchone()
    file = tmp_path / "dump"
    run(fleet, "pg_dump", f"--format={form}", "--file", file)
    clear(owner)
    if form == "plain":
        run(fleet, "psql", "-q", "--set=ON_ERROR_STOP=1", "--output=/dev/null", "-f", file)
    else:
        run(fleet, "pg_restore", "--exit-on-error", f"--dbname={fleet.database}", file)
    after = owner.execute(TOTAL).fetchone()
    assert after[:4] == before[:4]
    assert after[4] >= before[4]


@pytest.mark.parametrize("options", [("--inserts", "--rows-per-insert=50"), ("--no-sync", "--schema=store")])
def test_a_dump_in_one_transaction_of_psql(fleet, owner, tmp_path, options):
    """Without its schema the connection of pg_dump has an empty search_path; the next client must not have it."""
    file = tmp_path / "dump.sql"
    run(fleet, "pg_dump", "--file", file, "--clean", "--if-exists", *options)
    before = owner.execute(TOTAL).fetchone()
    run(fleet, "psql", "-q", "--single-transaction", "--set=ON_ERROR_STOP=1", "--output=/dev/null", "-f", file)
    assert owner.execute(TOTAL).fetchone()[:4] == before[:4]
    shown = [run(fleet, "psql", "-Atc", "show search_path; show statement_timeout") for _ in range(4)]
    assert shown == ['"$user", public\n0\n'] * 4


def test_a_dump_while_nineteen_work(fleet, tmp_path):
    done = threading.Event()

    def one(number):
        if number == 0:
            try:
                for turn in range(2):
                    run(fleet, "pg_dump", "--format=custom", "--file", tmp_path / f"dump{turn}")
            finally:
                done.set()
            return len(run(fleet, "pg_restore", "--list", tmp_path / "dump1"))
        query = f"select {number}, current_setting('search_path')"
        while not done.is_set():
            assert run(fleet, "psql", "-Atc", query) == f'{number}|"$user", public\n'
        return 0

    assert together(one, 4)[0] > 0


def test_twenty_dumps_of_one_table(fleet):
    dumps = together(lambda _: run(fleet, "pg_dump", "--table=store.box", "--data-only", "--restrict-key=key"))
    assert len(dumps) == CLIENTS
    assert len(set(dumps)) == 1
    assert dumps[0].count("\n") > 3000
