"""Every limit of the file: reached, kept, and said with the right SQLSTATE."""

import threading
import time
from contextlib import ExitStack

import pytest

from tests.live.stand import Stand, wait_until
from tests.live.wire import error, fields, query, sqlstate

pytestmark = pytest.mark.live


def count_backends(admin, where):
    """Those that somebody has connected to: an autovacuum worker has a database too."""
    clients = f"backend_type = 'client backend' and {where}"
    return admin.execute(f"select count(*) from pg_stat_activity where {clients}").fetchone()[0]


class Sampler:
    """The largest number of backends PostgreSQL has seen meanwhile."""

    def __init__(self, upstream, where):
        self.most = 0
        self._admin = upstream.connect()
        self._where = where
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._over.is_set():
            self.most = max(self.most, count_backends(self._admin, self._where))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()
        self._admin.close()


def send_naps(stack, stand, count, seconds=0.3, **where):
    """`count` clients, each with a query that takes `seconds`."""
    lines = [stack.enter_context(stand.raw(**where)) for _ in range(count)]
    for line in lines:
        line.send(query(f"select pg_sleep({seconds})"))
    return lines


def answered(lines):
    return [sqlstate(line.read_until()) for line in lines]


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    databases = {
        "three": "dbname=postgres pool_size=3",
        "reserve": "dbname=postgres pool_size=1 reserve_pool_size=2",
        "shared": "dbname=template1 pool_size=3 max_db_connections=4",
        "few_clients": "dbname=postgres max_db_client_connections=2",
        "a": "dbname=postgres pool_size=3",
        "b": "dbname=postgres pool_size=3",
    }
    users = {"other": "max_user_connections=4", "sleeper": "max_user_client_connections=2"}
    with Stand(upstream, {"reserve_pool_timeout": 0.5}, databases=databases, users=users) as stand:
        yield stand


def test_pool_size_is_never_exceeded(stand, upstream):
    with ExitStack() as stack, Sampler(upstream, "usename='app'") as sampler:
        assert answered(send_naps(stack, stand, 9, database="three")) == [""] * 9
    assert sampler.most == 3


def test_the_reserve_is_opened_only_after_its_timeout(stand, upstream, admin):
    with ExitStack() as stack, Sampler(upstream, "usename='app' and query like '%sleep%'") as sampler:
        before = count_backends(admin, "usename='app'")
        lines = send_naps(stack, stand, 6, seconds=1.2, database="reserve")
        time.sleep(0.3)
        assert count_backends(admin, "usename='app' and state='active'") == 1
        start = time.monotonic()
        assert answered(lines) == [""] * 6
        assert time.monotonic() - start < 5, "one server alone would have needed seven seconds"
        assert count_backends(admin, "usename='app'") <= before + 3
    assert sampler.most <= 3 + before
    stand.wait_log("WARNING C-0x[0-9a-f]+: reserve/app@.* taking connection from reserve_pool")


def test_max_db_connections_holds_over_all_users(stand, upstream):
    with ExitStack() as stack, Sampler(upstream, "datname='template1'") as sampler:
        lines = send_naps(stack, stand, 4, user="app", database="shared")
        lines += send_naps(stack, stand, 4, user="hasty", database="shared")
        assert answered(lines) == [""] * 8
    assert sampler.most == 4


def test_a_busy_neighbour_makes_room_for_one_who_starves(stand, upstream):
    """Four servers of one user may not keep another user out for good."""
    over = threading.Event()

    def keep_busy():
        with stand.raw(user="app", database="shared") as line:
            while not over.is_set():
                assert sqlstate(line.ask("select pg_sleep(0.02)")) == ""

    crowd = [threading.Thread(target=keep_busy) for _ in range(8)]
    for each in crowd:
        each.start()
    try:
        with stand.raw(user="dreamer", database="shared") as line:
            assert sqlstate(line.ask("select 1")) == ""
    finally:
        over.set()
        for each in crowd:
            each.join()


def test_max_user_connections_holds_over_all_databases(stand, upstream):
    with ExitStack() as stack, Sampler(upstream, "usename='other'") as sampler:
        lines = send_naps(stack, stand, 4, user="other", database="a")
        lines += send_naps(stack, stand, 4, user="other", database="b")
        assert answered(lines) == [""] * 8
    assert sampler.most == 4


def test_max_db_client_connections_refuses_the_third(stand):
    with stand.raw(database="few_clients"), stand.raw(user="hasty", database="few_clients"), stand.call() as third:
        messages = third.login("app", "few_clients")
        assert sqlstate(messages) == "53300"
        assert "max_db_client_connections" in error(messages)["M"]
    wait_until(lambda: _can_log_in(stand, "app", "few_clients"), "a place is free again")


def test_max_user_client_connections_refuses_the_third(stand):
    with stand.raw(user="sleeper", database="a"), stand.raw(user="sleeper", database="b"), stand.call() as third:
        messages = third.login("sleeper", "a")
        assert sqlstate(messages) == "53300"
        assert "max_user_client_connections" in error(messages)["M"]
        with stand.raw(user="app", database="a"):
            pass
    wait_until(lambda: _can_log_in(stand, "sleeper", "a"), "a place is free again")


def _can_log_in(stand, user, database):
    with stand.call() as line:
        return line.login(user, database)[-1].kind == "Z"


def test_max_client_conn_counts_those_who_are_logging_in_and_forgets_those_who_left(upstream):
    with Stand(upstream, {"max_client_conn": 3}) as stand:
        with stand.raw(), stand.raw(), stand.raw(), stand.call() as fourth:
            messages = fourth.login("app", "postgres")
            assert sqlstate(messages) == "53300"
            assert "max_client_conn" in error(messages)["M"]
        for _ in range(10):
            wait_until(lambda: _can_log_in(stand, "app", "postgres"), "a place is free again")
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(stand.raw())


def test_limits_hold_while_servers_die_and_are_replaced(stand, upstream, admin):
    """A server that closes counts until PostgreSQL has really ended it."""
    over = threading.Event()

    def ask_on():
        while not over.is_set():
            with stand.call() as line:
                if line.login("app", "three")[-1].kind == "Z":
                    line.send(query("select pg_sleep(0.05)"))
                    heard.append(next(each for each in iter(line.read, None) if each.kind in "EZ"))

    heard = []
    crowd = [threading.Thread(target=ask_on) for _ in range(8)]
    with Sampler(upstream, "usename='app' and datname='postgres'") as sampler:
        base = count_backends(admin, "usename='app' and datname='postgres'")
        for each in crowd:
            each.start()
        for _ in range(15):
            admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where usename='app' and state='active' limit 2"  # at work, so that its client must hear of it
            )
            time.sleep(0.1)
        over.set()
        for each in crowd:
            each.join()
    assert {each.kind for each in heard} == {"Z", "E"}, "an answer to its end, or the server's last words"
    assert {fields(each.body)["C"] for each in heard if each.kind == "E"} == {"57P01"}
    assert sampler.most <= max(base, 6), "three of this pool, at most three left over from the reserve"
