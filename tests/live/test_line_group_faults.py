"""
What befalls a group: effects that no text shows, locks, DDL, its server's end. It succeeds as a whole, or never was.

Theory. A view that calls a function which inserts is a read by its text. So the rows that it leaves tell how often each
answered query has really been executed.
"""

import threading
import time
from contextlib import ExitStack

import pytest

from tests.live.stand import Stand, wait_until
from tests.live.together import crowd, earn_trust, send_together, wait_running
from tests.live.wire import SYNC, bind, cancel_request, error, execute, kinds, parse, query, rows, sqlstate

pytestmark = pytest.mark.live

CROWD = 12
STALL = 0.2  # seconds; the default
NOTED = "select n, {} from line_group_noting"
FREE = "select word, {} from line_group_free"
LOCKED = "select word, {} from line_group_locked"
DIVIDED = "select 10 / ({} - 1000), 'divided'"
BUSY = "select count(*) from pg_stat_activity where usename = 'app' and state <> 'idle' and pid <> pg_backend_pid()"


@pytest.fixture(scope="module", autouse=True)
def _tables(upstream):
    with upstream.connect() as admin:
        admin.execute("drop view if exists line_group_noting; drop table if exists line_group_notes")
        admin.execute("create table line_group_notes (n int)")
        admin.execute(
            "create or replace function line_group_note_down() returns int language sql volatile security definer as "
            "'insert into line_group_notes values (1) returning n'"
        )
        admin.execute("create view line_group_noting as select line_group_note_down() as n")
        admin.execute("grant select on line_group_noting to app")
        for table in ("line_group_free", "line_group_locked"):
            admin.execute(f"drop table if exists {table}; create table {table} as select 'here'::text as word")
            admin.execute(f"alter table {table} owner to app")
        admin.execute(
            "drop table if exists line_group_written; create table line_group_written (who int primary key, n int)"
        )
        admin.execute("grant all on line_group_written to app")
        admin.execute(f"insert into line_group_written select n, 0 from generate_series(0, {CROWD - 1}) n")


@pytest.fixture(name="stand")
def _stand(upstream):
    """For each its own: whoever has stood still has to show for longer that he is fast."""
    databases = {"lines": "dbname=postgres pool_size=6 pipeline_depth=16 pipeline_servers=1"}
    settings = {"pipeline_max_ms": 50, "pipeline_stall_ms": int(STALL * 1000)}
    with Stand(upstream, settings, databases=databases) as stand:
        yield stand


@pytest.fixture(name="clients")
def _clients(stand):
    with crowd(stand, CROWD, *(text.format(1) for text in (NOTED, FREE, LOCKED, DIVIDED))) as clients:
        yield clients


@pytest.fixture(name="locker")
def _locker(upstream):
    with upstream.connect("app", autocommit=False) as locker:
        yield locker


def count_notes(admin):
    return admin.execute("select count(*) from line_group_notes").fetchone()[0]


def hear_rows(clients):
    return [rows(client.read_until()) for client in clients]


def wait_idle(admin):
    """Nothing goes on behind the clients' backs (but for the holder's transaction)."""
    wait_until(lambda: admin.execute(BUSY).fetchone()[0] == 1, "all servers are idle", 10)


def test_an_effect_that_no_text_shows_happens_once_for_each_answer(stand, admin, clients):
    before = count_notes(admin)
    for n in range(20):
        send_together(stand, clients, [query(NOTED.format(n))] * CROWD)
        assert hear_rows(clients) == [[("1", str(n))]] * CROWD
    assert count_notes(admin) - before == 20 * CROWD


@pytest.mark.parametrize("at", [0, 3, 5, 6, 11])
def test_also_where_a_neighbour_fails(stand, admin, clients, at):
    before = count_notes(admin)
    parts = [query(NOTED.format(7))] * CROWD
    parts[at] = query(DIVIDED.format(1000))
    send_together(stand, clients, parts)
    heard = [client.read_until() for client in clients]
    assert sqlstate(heard.pop(at)) == "22012"
    assert [rows(each) for each in heard] == [[("1", "7")]] * (CROWD - 1)
    assert count_notes(admin) - before == CROWD - 1


@pytest.mark.parametrize("at", [0, 3, 5])
def test_also_where_a_neighbour_waits_for_a_lock_and_his_group_is_left(stand, admin, locker, clients, at):
    """Those in his group, before and behind him. (The group behind it runs for nobody too: it must have no effects.)"""
    before = count_notes(admin)
    locker.execute("lock table line_group_locked")
    parts = [query(NOTED.format(7))] * 6 + [query(FREE.format(7))] * 6
    parts[at] = query(LOCKED.format(7))
    send_together(stand, clients, parts)
    stuck, others = clients[at], [client for client in clients if client is not clients[at]]
    start = time.monotonic()
    hear_rows(others)
    spent = time.monotonic() - start
    assert spent < 4 * STALL
    locker.rollback()
    assert rows(stuck.read_until()) == [("here", "7")]
    wait_idle(admin)
    assert count_notes(admin) - before == 5


@pytest.mark.parametrize("stuck", [{0}, {3}, {11}, {0, 1, 2}, {0, 4, 8}], ids=str)
def test_those_beside_a_lock_are_answered_soon_and_the_stuck_when_it_is_gone(stand, admin, locker, clients, stuck):
    locker.execute("lock table line_group_locked")
    parts = [query((LOCKED if n in stuck else FREE).format(n)) for n in range(CROWD)]
    start = time.monotonic()
    send_together(stand, clients, parts)
    for n, client in enumerate(clients):
        if n not in stuck:
            assert rows(client.read_until()) == [("here", str(n))]
    spent = time.monotonic() - start
    assert spent < 4 * STALL
    locker.rollback()
    for n in stuck:
        assert rows(clients[n].read_until()) == [("here", str(n))]
    wait_idle(admin)


def test_the_next_ones_do_not_stand_still_with_a_kind_that_does(stand, admin, locker, clients):
    """It goes by itself, until it has shown again that it is fast."""
    locker.execute("lock table line_group_locked")
    stuck, *others = clients
    with stand.raw(database="lines") as another:
        for n, one in enumerate((stuck, another)):
            start = time.monotonic()
            send_together(stand, [one, *others], [query(LOCKED.format(n)), *[query(FREE.format(n))] * len(others)])
            assert hear_rows(others) == [[("here", str(n))]] * len(others)
            spent = time.monotonic() - start
            assert (spent > STALL / 2) is (n == 0), spent
        locker.rollback()
        assert hear_rows([stuck, another]) == [[("here", "0")], [("here", "1")]]


def test_a_stuck_one_is_cancelled_and_nobody_else(stand, admin, locker, clients):
    locker.execute("lock table line_group_locked")
    send_together(stand, clients, [query(LOCKED.format(0)), *(query(FREE.format(n)) for n in range(1, CROWD))])
    wait_running(admin, "select word, 0 from line_group_locked")
    with stand.call() as asking:
        asking.send(cancel_request(clients[0].key))
        assert asking.read_to_end() == []
    assert sqlstate(clients[0].read_until()) == "57014"
    assert hear_rows(clients[1:]) == [[("here", str(n))] for n in range(1, CROWD)]
    locker.rollback()
    wait_idle(admin)


def test_a_migration_that_locks_several_tables_is_never_the_victim(stand, admin, locker, clients):
    """A group that has read one and waits for the other is in its way: it gives in before PostgreSQL must choose."""
    locker.execute("lock table line_group_locked")
    asked = [FREE.format(1)] * 3 + [LOCKED.format(1)] * 3 + [FREE.format(2)] * 6
    send_together(stand, clients, list(map(query, asked)))
    wait_running(admin, "select word, 1 from line_group_locked")
    start = time.monotonic()
    locker.execute("lock table line_group_free")
    assert time.monotonic() - start < 4 * STALL
    locker.rollback()
    assert hear_rows(clients) == [[("here", "1")]] * 6 + [[("here", "2")]] * 6
    wait_idle(admin)


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_who_has_committed_a_write_sees_it_in_his_next_read(stand, upstream, isolation):
    with upstream.connect() as admin:
        admin.execute(f"alter role app set default_transaction_isolation = '{isolation}'")
    databases = {"lines": "dbname=postgres pool_size=8 pipeline_depth=16 pipeline_servers=1"}
    try:
        with Stand(upstream, {"pipeline_max_ms": 50}, databases=databases) as own:
            failures = []
            threads = [threading.Thread(target=_write_and_read, args=(own, n, failures)) for n in range(CROWD)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert not failures, failures[:3]
    finally:
        with upstream.connect() as admin:
            admin.execute("alter role app reset default_transaction_isolation")


def _write_and_read(stand, who, failures):
    try:
        with stand.raw(database="lines") as client:
            end = time.monotonic() + 4
            count = int(client.value(f"select n from line_group_written where who = {who}"))
            while time.monotonic() < end:
                answer = client.ask(f"update line_group_written set n = n + 1 where who = {who}")
                if error(answer):
                    assert sqlstate(answer) == "40001", error(answer)
                    continue
                count += 1
                for _ in range(5):
                    answer = client.ask(f"select n from line_group_written where who = {who}")
                    assert error(answer) or rows(answer) == [(str(count),)], (rows(answer), count)
                    assert not error(answer) or sqlstate(answer) == "40001"
                    early = client.ask("select clock_timestamp()")
                    assert not error(early), error(early)
                    moment = client.ask("select now()")
                    assert rows(moment)[0][0] >= rows(early)[0][0], (rows(moment), rows(early))
    except Exception as failure:
        failures.append(f"client {who}: {failure!r}")


def test_ddl_under_way(stand, admin, upstream, clients):
    """Columns come and go while named and unnamed rounds and queries run in groups."""
    text = "select *, {} from line_group_free"
    for n, client in enumerate(clients):
        client.send(parse(f"select *, {n % 2} from line_group_free", "mine") + SYNC)
        assert kinds(client.read_until()) == "1Z"
    earn_trust(stand, clients, text.format(0))
    for turn in range(12):
        if turn % 3 == 1:
            admin.execute("alter table line_group_free add column more int default 5")
        if turn % 3 == 2:
            admin.execute("alter table line_group_free drop column more")
        expected = ("here", "5") if turn % 3 == 1 else ("here",)
        send_together(stand, clients, [query(text.format(n)) for n in range(CROWD)])
        assert hear_rows(clients) == [[(*expected, str(n))] for n in range(CROWD)]
        send_together(stand, clients, [bind(statement="mine") + execute() + SYNC] * CROWD)
        for n, client in enumerate(clients):
            answer = client.read_until()
            if not error(answer):
                assert rows(answer) == [(*expected, str(n % 2))]
            else:
                assert "must not change result type" in error(answer)["M"], error(answer)
    wait_idle(admin)


def test_a_table_goes_and_each_hears_so(stand, admin, clients):
    for _ in range(2):
        admin.execute(
            "create table line_group_gone as select 'here'::text as word; alter table line_group_gone owner to app"
        )
        earn_trust(stand, clients, "select word, 1 from line_group_gone")
        admin.execute("drop table line_group_gone")
        send_together(
            stand, clients, [query("select word, 1 from line_group_gone"), query(FREE.format(1))] * (CROWD // 2)
        )
        heard = [client.read_until() for client in clients]
        assert [sqlstate(each) or rows(each) for each in heard] == ["42P01", [("here", "1")]] * (CROWD // 2)


def test_its_server_is_terminated_and_nobody_notices(stand, admin, locker, clients):
    """None of them has heard anything."""
    before = count_notes(admin)
    locker.execute("lock table line_group_locked")
    send_together(
        stand, clients, [query(NOTED.format(7))] * 5 + [query(LOCKED.format(7))] + [query(FREE.format(7))] * 6
    )
    (pid,) = wait_running(admin, "select word, 7 from line_group_locked")
    admin.execute("select pg_terminate_backend(%s)", [pid])
    assert hear_rows(clients[:5] + clients[6:]) == [[("1", "7")]] * 5 + [[("here", "7")]] * 6
    locker.rollback()
    assert rows(clients[5].read_until()) == [("here", "7")]
    assert count_notes(admin) - before == 5
    wait_idle(admin)


def test_its_server_is_killed_outright_and_each_hears_his_answer_or_that_it_crashed(upstream, stand, clients):
    """PostgreSQL ends all its backends then, so who asks again at once may meet one that is about to end, too."""
    admin, locker = upstream.connect(), upstream.connect("app", autocommit=False)
    before = count_notes(admin)
    locker.execute("lock table line_group_locked")
    send_together(
        stand, clients, [query(NOTED.format(7))] * 5 + [query(LOCKED.format(7))] + [query(FREE.format(7))] * 6
    )
    (pid,) = wait_running(admin, "select word, 7 from line_group_locked")
    upstream.kill(pid)
    heard = [client.read_until("ZE") for client in clients]
    answers = [("1", "7")] * 5 + [("here", "7")] * 7
    for messages, answer in zip(heard, answers, strict=True):
        assert rows(messages) == [answer] or sqlstate(messages) == "08006", messages
    admin.close()
    locker.close()
    answered = sum(rows(messages) != [] for messages in heard[:5])
    with upstream.connect() as another, crowd(stand, CROWD, FREE.format(1)) as others:
        assert answered <= count_notes(another) - before <= 5
        send_together(stand, others, [query(FREE.format(8))] * CROWD)
        assert hear_rows(others) == [[("here", "8")]] * CROWD


@pytest.mark.parametrize("name", ["statement_timeout", "transaction_timeout"])
def test_timeouts_of_the_role_hit_him_who_is_late(stand, upstream, name):
    with upstream.connect() as admin, upstream.connect("app", autocommit=False) as locker:
        admin.execute(f"alter role app set {name} = 100")
        try:
            databases = {"lines": "dbname=postgres pool_size=4 pipeline_depth=16 pipeline_servers=1"}
            with Stand(upstream, {"pipeline_max_ms": 50}, databases=databases) as own, ExitStack() as stack:
                clients = [stack.enter_context(own.raw(database="lines")) for _ in range(CROWD)]
                earn_trust(own, clients, FREE.format(1), LOCKED.format(1))
                locker.execute("set statement_timeout = 0; set transaction_timeout = 0; lock table line_group_locked")
                send_together(
                    own, clients, [query(FREE.format(1))] * 3 + [query(LOCKED.format(1))] + [query(FREE.format(1))] * 8
                )
                late = clients.pop(3)
                assert hear_rows(clients) == [[("here", "1")]] * 11
                if name == "statement_timeout":
                    assert sqlstate(late.read_until()) == "57014"
                else:
                    assert sqlstate(late.read_to_end()) == "25P04"
                locker.rollback()
        finally:
            admin.execute(f"alter role app reset {name}")
