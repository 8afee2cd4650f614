"""Cancelling: it reaches the query it means, or nothing, whoever asks and whenever."""

import random
import threading
import time
from contextlib import ExitStack

import psycopg
import pytest

from tests.live.stand import Stand, wait_until
from tests.live.wire import SYNC, Gone, ask, cancel_request, kinds, query, rows, sqlstate

pytestmark = pytest.mark.live

ROUNDS = 60
NAP = "select pg_sleep(30)"


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    databases = {"one": "dbname=postgres pool_size=1", "two": "dbname=postgres pool_size=2", "*": ""}
    with Stand(upstream, databases=databases) as stand:
        yield stand


@pytest.fixture(autouse=True)
def _nothing_sleeps_on(admin):
    yield
    running = "select count(*) from pg_stat_activity where query like '%pg_sleep(30)' and state = 'active'"
    wait_until(lambda: admin.execute(running).fetchone() == (0,), "no query sleeps on in PostgreSQL", 5)


def cancel(stand, key):
    """Ask, and wait until the proxy hangs up. Nothing may be said."""
    with stand.call() as line:
        line.send(cancel_request(key))
        assert line.read_to_end() == []


def is_running(admin, text=NAP):
    where = "select count(*) from pg_stat_activity where query = %s and state = 'active'"
    return admin.execute(where, [text]).fetchone()[0]


def test_a_running_query_is_cancelled_by_its_clients_key(stand, admin):
    with stand.raw() as line:
        line.send(query(NAP))
        wait_until(lambda: is_running(admin), "the query runs")
        cancel(stand, line.key)
        answer = line.read_until()
        assert kinds(answer) == "TEZ"
        assert sqlstate(answer) == "57014"
        assert rows(line.ask("select 'alive'")) == [("alive",)]


@pytest.mark.parametrize("asked", [query(NAP), ask(NAP) + SYNC])
def test_so_is_one_that_is_measured(upstream, admin, asked):
    with Stand(upstream, {"track_statements": 1}) as stand, stand.raw() as line:
        line.send(asked)
        wait_until(lambda: is_running(admin), "the query runs")
        cancel(stand, line.key)
        assert sqlstate(line.read_until()) == "57014"


@pytest.mark.solitary
def test_so_is_the_first_one_of_a_transaction(stand, admin):
    """PostgreSQL says nothing of the BEGIN before it has something to say about the query."""
    with stand.raw() as line:
        line.ask("begin")
        line.send(query(NAP))
        wait_until(lambda: is_running(admin), "it runs")
        cancel(stand, line.key)
        answer = line.read_until()
        assert (sqlstate(answer), answer[-1].body) == ("57014", b"E")
        assert kinds(line.ask("rollback")) == "CZ"


def test_a_query_in_the_queue_is_taken_out_of_it(stand, admin):
    with stand.raw(database="one") as holder, stand.raw(database="one") as line:
        holder.ask("begin; select 1")
        line.send(query("select 'must not run'"))
        stand.wait_pools("one", cl_waiting=1)
        start = time.monotonic()
        cancel(stand, line.key)
        answer = line.read_until()
        assert time.monotonic() - start < 1
        assert kinds(answer) == "EZ"
        assert sqlstate(answer) == "57014"
        holder.ask("commit")
        assert rows(line.ask("select 'next'")) == [("next",)]


def test_psycopg_cancels_through_the_proxy(stand, admin):
    with stand.connect() as connection:
        timer = threading.Timer(0.3, connection.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute(NAP)
        timer.join()
        assert connection.execute("select 'alive'").fetchone() == ("alive",)


@pytest.mark.parametrize("key", [b"\0" * 8, b"\xff" * 8, b"12345678", b"x" * 36, b"x" * 256])
def test_an_unknown_key_does_nothing(stand, admin, key):
    waiting = "select pg_advisory_xact_lock(77), 'through'"
    with stand.raw() as line:
        admin.execute("select pg_advisory_lock(77)")
        line.send(query(waiting))
        wait_until(lambda: is_running(admin, waiting), "the query runs")
        cancel(stand, key)
        admin.execute("select pg_advisory_unlock(77)")
        assert rows(line.read_until()) == [("", "through")]


def test_every_byte_of_the_key_counts(stand, admin):
    with stand.raw() as line:
        line.send(query("select pg_sleep(0.3), 'through'"))
        for place in range(8):
            cancel(stand, bytes(byte ^ (place == n) for n, byte in enumerate(line.key)))
        assert rows(line.read_until()) == [("", "through")]


def test_the_key_of_a_client_without_a_query_does_nothing(stand):
    with stand.raw(database="one") as idle, stand.raw(database="one") as busy:
        assert rows(idle.ask("select 1")) == [("1",)]
        busy.send(query("select pg_sleep(0.3), 'through'"))
        for _ in range(5):
            cancel(stand, idle.key)
        assert rows(busy.read_until()) == [("", "through")]
        assert rows(idle.ask("select 'alive'")) == [("alive",)]


def test_the_key_of_a_client_that_has_left_does_nothing(stand):
    with stand.raw(database="one") as gone:
        gone.ask("select 1")
        gone.leave()
    with stand.raw(database="one") as busy:
        busy.send(query("select pg_sleep(0.2), 'through'"))
        cancel(stand, gone.key)
        assert rows(busy.read_until()) == [("", "through")]


def test_keys_are_ours_and_differ(stand, admin):
    with ExitStack() as stack:
        lines = [stack.enter_context(stand.raw()) for _ in range(50)]
        assert len({line.key for line in lines}) == 50
        pids = {pid for (pid,) in admin.execute("select pid from pg_stat_activity")}
        assert not {int.from_bytes(line.key[:4], "big") for line in lines} & pids


def test_a_client_that_disappears_has_its_query_cancelled(stand, admin):
    line = stand.raw(database="one")
    line.send(query(NAP))
    wait_until(lambda: is_running(admin), "the query runs")
    line.close()
    wait_until(lambda: not is_running(admin), "it is cancelled", 3)
    with stand.raw(database="one") as other:
        assert rows(other.ask("select 'next'")) == [("next",)]


def test_a_cancelled_query_leaves_its_transaction_failed_and_its_own(stand, admin):
    with stand.raw(database="one") as line:
        line.ask("begin; select 1")
        line.send(query(NAP))
        wait_until(lambda: is_running(admin), "the query runs")
        cancel(stand, line.key)
        assert sqlstate(line.read_until()) == "57014"
        assert sqlstate(line.ask("select 1")) == "25P02"
        assert sqlstate(line.ask("rollback")) == ""


def test_cancels_never_hit_the_query_of_another(stand):
    """
    Two servers, a canceller that fires at random moments at one client, which moves from server to server, and three
    neighbours. Nobody but the target may ever hear 57014.
    """
    over = threading.Event()
    heard, mistakes, cancelled = [0] * 3, [], [0]

    def rounds():
        """A busy machine takes more of them to show as much."""
        for number in range(ROUNDS * 20):
            if number >= ROUNDS and min(heard) > ROUNDS and cancelled[0]:
                return
            yield number

    def neighbour(number):
        with stand.raw(database="two") as line:
            while not over.is_set():
                token = f"{number}-{random.random()}"
                answer = line.ask(f"select '{token}', pg_sleep({random.choice([0, 0.001, 0.004])})")
                if sqlstate(answer) or rows(answer)[0][0] != token:
                    mistakes.append(answer)
                heard[number] += 1

    crowd = [threading.Thread(target=neighbour, args=(number,)) for number in range(3)]
    for each in crowd:
        each.start()
    try:
        with stand.raw(database="two") as target:
            for _ in rounds():
                target.send(query(f"select pg_sleep({random.choice([0, 0.002, 0.02])})"))
                time.sleep(random.random() * 0.01)
                caller = stand.call()
                caller.send(cancel_request(target.key))
                answer = target.read_until()
                assert sqlstate(answer) in ("", "57014")
                cancelled[0] += sqlstate(answer) == "57014"
                caller.close()
    finally:
        over.set()
        for each in crowd:
            each.join()
    assert mistakes == []
    assert min(heard) > ROUNDS
    assert cancelled[0] > 0


def test_clients_that_vanish_never_have_the_next_ones_query_cancelled(stand):
    for number in range(ROUNDS):
        line = stand.raw(database="one")
        line.send(query(f"select pg_sleep({number % 4 * 0.002}) /* {number} */"))
        time.sleep(number % 5 * 0.001)
        line.close()
        with stand.raw(database="one") as other:
            try:
                assert rows(other.ask("select pg_sleep(0.003), 'mine'")) == [("", "mine")]
            except Gone:
                pytest.fail("the next client lost its connection")
