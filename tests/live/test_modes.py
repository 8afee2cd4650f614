"""Session, transaction and statement mode: when a client's server is given back, and that a few servers are enough."""

import asyncio
import threading

import psycopg
import pytest

from tests.live.stand import Stand
from tests.live.upstream import LIMIT, LIMITED
from tests.live.wire import query, sqlstate

pytestmark = pytest.mark.live

CLIENTS, TRANSACTIONS = 200, 15


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    databases = {
        "transaction": "dbname=postgres pool_size=2",
        "single": "dbname=postgres pool_size=1",
        "session": "dbname=postgres pool_mode=session pool_size=2",
        "session_single": "dbname=postgres pool_mode=session pool_size=1",
        "statement": "dbname=postgres pool_mode=statement pool_size=2",
        "*": f"pool_size={LIMIT}",
    }
    with Stand(upstream, databases=databases) as stand:
        yield stand


def pid_of(connection):
    return connection.execute("select pg_backend_pid()").fetchone()[0]


def test_in_transaction_mode_two_clients_take_turns_on_one_server(stand):
    with stand.connect(dbname="single") as one, stand.connect(dbname="single") as two:
        assert pid_of(one) == pid_of(two) == pid_of(one)


def test_in_transaction_mode_a_transaction_keeps_its_server(stand):
    with stand.connect(dbname="transaction") as one, stand.connect(dbname="transaction") as two:
        with one.transaction():
            mine = pid_of(one)
            theirs = {pid_of(two) for _ in range(5)}
            assert theirs
            assert mine not in theirs
            assert pid_of(one) == mine
        with two.transaction():
            held = pid_of(two)
            assert pid_of(one) != held


def test_a_failed_transaction_keeps_its_server_until_it_is_rolled_back(stand):
    with stand.raw(database="single") as one, stand.raw(database="single") as two:
        one.ask("begin; select 1")
        one.ask("select 1/0")
        two.send(query("select 1"))
        assert sqlstate(one.ask("select 1")) == "25P02"
        two.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            two.read()
        two.socket.settimeout(10)
        one.ask("rollback")
        assert two.read_until()[-1].kind == "Z"


def test_in_session_mode_a_client_keeps_its_server_until_it_leaves(stand):
    with stand.connect(dbname="session_single") as one:
        mine = pid_of(one)
        one.execute("create temporary table souvenir (n int)")
        one.execute("set work_mem = '7MB'")
        with stand.raw(database="session_single") as two:
            two.send(query("select pg_backend_pid(), to_regclass('souvenir'), current_setting('work_mem')"))
            two.socket.settimeout(0.2)
            with pytest.raises(TimeoutError):
                two.read()
            assert pid_of(one) == mine
            one.close()
            two.socket.settimeout(10)
            answer = two.read_until()
    assert str(mine).encode() in answer[1].body
    assert b"souvenir" not in answer[1].body, "DISCARD ALL must have run"
    assert b"7MB" not in answer[1].body


def test_in_statement_mode_every_statement_may_go_elsewhere_and_a_transaction_is_refused(stand):
    with stand.connect(dbname="statement") as one:
        assert pid_of(one)
        with pytest.raises(
            psycopg.errors.FeatureNotSupported, match="transaction blocks not allowed in statement pooling mode"
        ):
            one.execute("begin")
    with stand.raw(database="statement") as line:
        assert sqlstate(line.ask("select 1")) == ""
        line.send(query("begin"))
        assert sqlstate(line.read_to_end()) == "0A000"
    with stand.connect(dbname="statement") as other:
        assert other.execute("select pg_current_xact_id_if_assigned() is null").fetchone() == (True,)


def test_two_hundred_clients_share_four_servers_and_each_gets_its_own_answers(stand, admin):
    counts = []
    over = threading.Event()

    def watch():
        while not over.is_set():
            counts.append(admin.execute(f"select count(*) from pg_stat_activity where usename='{LIMITED}'").fetchone())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        right = asyncio.run(_run_crowd(stand))
    finally:
        over.set()
        watcher.join()
    assert right == CLIENTS * TRANSACTIONS == 3000
    assert len(counts) > 20
    assert max(counts) == (LIMIT,)
    assert "too many connections" not in stand.log


async def _run_crowd(stand):
    return sum(await asyncio.gather(*(_run_one(stand, number) for number in range(CLIENTS))))


async def _run_one(stand, number):
    """How many of its transactions had the right answers."""
    options = stand.options(LIMITED, prepare_threshold=None)
    right = 0
    async with await psycopg.AsyncConnection.connect(**options) as connection:
        for turn in range(TRANSACTIONS):
            token = f"{number}/{turn}"
            async with connection.transaction():
                cursor = await connection.execute("select %s, pg_backend_pid()", [token])
                first = await cursor.fetchone()
                cursor = await connection.execute("select %s, pg_backend_pid()", [token])
                right += first == await cursor.fetchone() and first[0] == token
    return right
