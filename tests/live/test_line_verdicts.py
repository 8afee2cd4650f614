"""
What is never shared, whatever it has shown: each such text runs on a server of its client's own.

Theory. Three clients say the same at a gate that is shut. Those who share wait in one backend, the others in three.
"""

import pytest

from tests.live.stand import Stand
from tests.live.together import Shut, ask_together, build_gate, find_running, send_together, wait_running
from tests.live.wire import SYNC, bind, error, execute, kinds, parse, query

pytestmark = pytest.mark.live

PASSED = "is_open from line_gate"
ROUNDS = 5  # more than a shape needs to be trusted
SHARED = [
    f"select 1, {PASSED}",
    f"select upper('a''b'), coalesce(null, -1.5e3), {PASSED} where 1 in (1, 2) order by 1 limit 3",
    f"with a as (select 1) select (select count(*) from a), {PASSED}",
    f"select current_timestamp > date '2020-01-01', {PASSED}",
]
ALONE = [
    f"select nextval('line_sequence'), {PASSED}",
    f"select \"nextval\"('line_sequence'), {PASSED}",
    f"select pg_catalog.nextval('line_sequence'), {PASSED}",
    f"select nextval /* a comment */ ('line_sequence'), {PASSED}",
    f"select NextVal\n\t('line_sequence'), {PASSED}",
    f"select pg_sleep(0), {PASSED}",
    f"select pg_try_advisory_lock(1) and pg_advisory_unlock(1), {PASSED}",
    f"select pg_try_advisory_xact_lock_shared(1), {PASSED}",
    f"select set_config('line.mark', 'x', true), {PASSED}",
    f"select current_setting('application_name'), {PASSED}",
    f"select pg_backend_pid(), {PASSED}",
    f"select pg_notify('line', 'x'), {PASSED}",
    f"select line_function(), {PASSED}",
    f"select public.line_function(), {PASSED}",
    f"select txid_current() > 0, {PASSED}",
    f"select count(*) from pg_prepared_statements, line_gate where {PASSED.split(maxsplit=1)[0]}",
    f"select n, {PASSED}, line_rows where n = 10 for update of line_rows",
    f"select n, {PASSED}, line_rows where n = 10 for key share of line_rows",
    f"with a as (insert into line_rows values (0) returning n) select n, {PASSED}, a",
    f"select 1, {PASSED}; select 2",
    f"begin; select 1, {PASSED}; commit",
    f"explain analyze select 1, {PASSED}",
    f"copy (select 1, {PASSED}) to stdout",
    f"do 'begin perform {PASSED}; end'",
]


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    with upstream.connect() as admin:
        build_gate(admin)
        admin.execute("drop sequence if exists line_sequence; create sequence line_sequence")
        admin.execute("drop table if exists line_rows; create table line_rows as select n from generate_series(1, 9) n")
        admin.execute("create or replace function line_function() returns int language sql as 'select 1'")
        admin.execute("grant all on line_sequence, line_rows to app")
    databases = {"lines": "dbname=postgres pool_size=6 pipeline_depth=16 pipeline_servers=1"}
    with Stand(upstream, databases=databases) as stand:
        yield stand


@pytest.fixture(name="clients")
def _clients(stand):
    clients, holder = [stand.raw(database="lines") for _ in range(3)], stand.raw(database="lines")
    holder.ask("begin; select 1")
    yield clients
    for client in (*clients, holder):
        client.close()


def count_backends(stand, admin, clients, part, text, expected):
    """How many run `text` at a time, once it has shown that it is fast and small."""
    for _ in range(ROUNDS):
        answers = ask_together(stand, clients, [part] * 3)
        assert not any(map(error, answers)), error(answers[0])
    with Shut(admin):
        send_together(stand, clients, [part] * 3)
        wait_running(admin, text, expected)
        admin.execute("select pg_sleep(0.05)")
        count = len(find_running(admin, text))
    for client in clients:
        assert kinds(client.read_until()).endswith("Z")
    return count


@pytest.mark.parametrize("text", SHARED)
def test_what_only_reads_is_shared(stand, admin, clients, text):
    assert count_backends(stand, admin, clients, query(text), text, 1) == 1


@pytest.mark.parametrize("text", SHARED)
def test_a_round_that_only_reads_is_shared(stand, admin, clients, text):
    part = parse(text) + bind() + execute() + SYNC
    assert count_backends(stand, admin, clients, part, text, 1) == 1


@pytest.mark.parametrize("text", ALONE)
def test_what_does_more_is_not(stand, admin, clients, text):
    assert count_backends(stand, admin, clients, query(text), text, 3) == 3


@pytest.mark.parametrize("text", [text for text in ALONE if ";" not in text])
def test_a_round_that_does_more_is_not(stand, admin, clients, text):
    part = parse(text) + bind() + execute() + SYNC
    assert count_backends(stand, admin, clients, part, text, 3) == 3
