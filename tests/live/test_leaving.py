"""Clients that leave at the worst moment: whoever has the server next sees nothing of them."""

import random
import time

import pytest

from tests.live.stand import Stand, wait_until
from tests.live.wire import FLUSH, SYNC, ask, bind, copy_data, execute, kinds, parse, query, rows

pytestmark = pytest.mark.live

BIG = "select n, repeat('x', 1000) from generate_series(1, 20000) as n"


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    databases = {
        "transaction": "dbname=postgres pool_size=1",
        "session": "dbname=postgres pool_mode=session pool_size=1",
        "statement": "dbname=postgres pool_mode=statement pool_size=1",
        "two": "dbname=postgres pool_size=2",
    }
    with Stand(upstream, databases=databases) as stand, upstream.connect() as admin:
        admin.execute("drop table if exists traces; create table traces (n int)")
        admin.execute("grant all on traces to app")
        yield stand


@pytest.fixture(name="clean", params=["transaction", "session", "statement"])
def _clean(stand, request, admin):
    """The pool's name. Afterwards the pool's one server must be as new."""
    admin.execute("truncate traces")
    yield request.param
    with stand.raw(database=request.param) as line:
        answer = line.ask("select pg_current_xact_id_if_assigned() is null, now() = statement_timestamp(), 'mine'")
        assert kinds(answer) == "TDCZ"
        assert rows(answer) == [("t", "t", "mine")]
        assert answer[-1].body == b"I"
        assert rows(line.ask("select count(*) from traces")) == [("0",)]
        line.send(ask("select 'mine too'"), SYNC)
        assert rows(line.read_until()) == [("mine too",)]
    count = "select count(*) from pg_stat_activity where usename='app' and state <> 'idle'"
    wait_until(lambda: admin.execute(count).fetchone() == (0,), "all servers are idle")


def start(stand, database):
    return stand.raw(database=database)


def test_in_a_transaction(stand, clean):
    if clean == "statement":
        pytest.skip("there are none")
    with start(stand, clean) as line:
        line.ask("begin; insert into traces values (1)")


def test_in_a_failed_transaction(stand, clean):
    if clean == "statement":
        pytest.skip("there are none")
    with start(stand, clean) as line:
        line.ask("begin; insert into traces values (1)")
        line.ask("select 1/0")


def test_with_a_goodbye_in_a_transaction(stand, clean):
    if clean == "statement":
        pytest.skip("there are none")
    line = start(stand, clean)
    line.ask("begin; insert into traces values (1)")
    line.leave()


def test_before_the_answer(stand, clean):
    with start(stand, clean) as line:
        line.send(query("select pg_sleep(0.2)"))
        time.sleep(0.02)


def test_in_the_middle_of_the_answer(stand, clean):
    with start(stand, clean) as line:
        line.send(query(BIG))
        line.socket.recv(10_000)


def test_in_the_middle_of_many_answers(stand, clean):
    with start(stand, clean) as line:
        line.send(*[query("select generate_series(1, 1000)")] * 50)
        line.socket.recv(1000)


def test_in_a_batch_without_its_sync(stand, clean):
    with start(stand, clean) as line:
        line.send(ask("insert into traces values (1)"), FLUSH)
        line.read_until("C")


def test_in_a_failed_batch_without_its_sync(stand, clean):
    with start(stand, clean) as line:
        line.send(ask("select 1/count(*) from generate_series(1, $1::int) as n where n > 1", 1), FLUSH)
        line.read_until("E")


def test_with_a_portal_half_read(stand, clean):
    with start(stand, clean) as line:
        line.send(parse("select generate_series(1, 100000)"), bind(), execute(max_rows=10), FLUSH)
        line.read_until("s")


def test_in_the_middle_of_copy_in(stand, clean):
    with start(stand, clean) as line:
        line.send(query("copy traces from stdin"))
        line.read_until("G")
        line.send(copy_data(b"1\n" * 1000))


def test_in_the_middle_of_copy_data(stand, clean):
    """Half a CopyData message has been passed on: that server can only be closed."""
    with start(stand, clean) as line:
        line.send(query("copy traces from stdin"))
        line.read_until("G")
        line.send(copy_data(b"1\n" * 500_000)[:400_000])
        time.sleep(0.1)


def test_in_the_middle_of_copy_in_by_the_extended_protocol(stand, clean):
    with start(stand, clean) as line:
        line.send(parse("copy traces from stdin"), bind(), execute(), SYNC)
        line.read_until("G")
        line.send(copy_data(b"1\n" * 1000))


def test_in_the_middle_of_copy_out(stand, clean):
    with start(stand, clean) as line:
        line.send(query(f"copy ({BIG}) to stdout"))
        line.socket.recv(10_000)


def test_in_the_middle_of_a_message(stand, clean):
    with start(stand, clean) as line:
        line.send(query("insert into traces values (1)")[:-3])


def test_in_the_middle_of_a_long_message(stand, clean):
    with start(stand, clean) as line:
        line.send(query(f"insert into traces values (1) -- {'x' * 1_000_000}")[:300_000])
        time.sleep(0.1)


def test_while_another_waits_for_that_very_server(stand, clean):
    line, other = start(stand, clean), start(stand, clean)
    with other:
        line.send(query(BIG))
        line.socket.recv(1)
        other.send(query("select 'mine'"))
        line.close()
        assert rows(other.read_until()) == [("mine",)]


def test_at_any_byte_of_a_long_conversation(stand, clean):
    """The conversation is cut at a random byte; the rest is never sent."""
    talk = b"".join(
        [
            query("begin") if clean != "statement" else query("select 1"),
            query("insert into traces values (1)") if clean != "statement" else query("select 2"),
            ask("select $1::int", 3) + FLUSH,
            ask("select generate_series(1, 1000)") + SYNC,
            ask("select 1/count(*) from generate_series(1, $1::int) as n where n > 1", 1) + SYNC,
            query("copy traces from stdin") if clean != "statement" else query("select 3"),
        ]
    )
    random.seed(1)
    for _ in range(40):
        with start(stand, clean) as line:
            line.send(talk[: random.randrange(len(talk))])
            time.sleep(random.choice([0, 0.002]))
        with start(stand, clean) as other:
            assert rows(other.ask("select 'mine'")) == [("mine",)]


def test_clients_that_vanish_in_the_middle_of_a_message_leave_no_more_backends_at_work_than_the_pool_has(stand, admin):
    count = (
        "select count(*) from pg_stat_activity where usename='app' and state='active' and query like '%pg_sleep(20)%'"
    )
    counts = []
    for _ in range(8):
        with start(stand, "two") as line:
            line.send(query("select pg_sleep(20)"), query("x" * 100_000)[:20_000])
            for _ in range(10):
                time.sleep(0.02)
                counts += admin.execute(count).fetchone()
    assert 1 <= max(counts) <= 2
    wait_until(lambda: admin.execute(count).fetchone() == (0,), "no backend goes on with a query nobody wants")
    with start(stand, "two") as line:
        assert rows(line.ask("select 'mine'")) == [("mine",)]


def test_a_goodbye_in_the_middle_of_a_long_statement_gives_the_place_back_before_long(stand):
    line, began = start(stand, "transaction"), time.monotonic()
    line.send(query("select pg_sleep(60)"))
    time.sleep(0.05)
    line.leave()
    with start(stand, "transaction") as other:
        assert rows(other.ask("select 'mine'")) == [("mine",)]
    assert time.monotonic() - began < 14
