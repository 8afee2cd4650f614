"""Several proxies behind one address: a cancel request finds its query, whichever of them it reaches."""

import signal
import subprocess
import threading
import time

import psycopg
import pytest

from tests.live.stand import Stand, wait_until
from tests.live.wire import PROTOCOL, cancel_request, kinds, query, sqlstate, startup

pytestmark = pytest.mark.live

NAP = "select pg_sleep(30)"
ROUNDS = 16


@pytest.fixture(name="two")
def _two(upstream):
    """Two proxies, each on a port of its own, each with the other as its peer."""
    first, second = Stand(upstream, {"peer_id": 1, "verbose": 1}), Stand(upstream, {"peer_id": 2, "verbose": 1})
    for stand in (first, second):
        stand.peers = {"1": f"host=127.0.0.1 port={first.port}", "2": f"host=127.0.0.1 port={second.port}"}
    with first, second:
        yield first, second


def is_running(admin):
    where = "select count(*) from pg_stat_activity where query = %s and state = 'active'"
    return admin.execute(where, [NAP]).fetchone()[0]


def ask_to_cancel(stand, key):
    with stand.call() as line:
        line.send(cancel_request(key))
        assert line.read_to_end() == []


@pytest.mark.parametrize("protocol", [PROTOCOL, PROTOCOL + 2], ids=["3.0", "3.2"])
def test_a_cancel_at_the_wrong_one_reaches_the_right_one(two, admin, protocol):
    first, second = two
    with first.call() as line:
        line.send(startup("app", "postgres", protocol=protocol))
        welcome = line.read_until()
        key = next(each.body for each in welcome if each.kind == "K")
        assert len(key) == (8 if protocol == PROTOCOL else 36)
        assert key[1:3] == b"\1\0", "peer 1, low byte first"
        assert key[-1] & 3 == 3
        line.send(query(NAP))
        wait_until(lambda: is_running(admin), "the query runs")
        ask_to_cancel(second, key)
        answer = line.read_until()
        assert kinds(answer) == "TEZ"
        assert sqlstate(answer) == "57014"
    assert "forwarding cancellation request to peer 1" in second.log
    for stand, database in ((first, "postgres"), (second, "(nodb)")):
        end = stand.wait_log("closing because: successfully sent cancel request")
        assert f"{database}/(nouser)@127.0.0.1:" in end


def test_a_cancel_for_a_peer_nobody_knows_is_dropped_with_a_debug_line(two, admin):
    first, second = two
    with first.raw() as line:
        line.send(query(NAP))
        wait_until(lambda: is_running(admin), "the query runs")
        stranger = line.key[:1] + b"\x09\x00" + line.key[3:]
        ask_to_cancel(second, stranger)
        second.wait_log("DEBUG cancel request for unknown peer 9")
        ask_to_cancel(second, line.key[:-1] + bytes([line.key[-1] & ~3]))
        second.wait_log("its TTL was exhausted")
        assert is_running(admin)
        ask_to_cancel(first, line.key)
        assert sqlstate(line.read_until()) == "57014"


def test_two_files_that_contradict_each_other_do_not_send_a_request_round_for_ever(two):
    first, second = two
    for stand, other in ((first, second), (second, first)):
        stand.peers["3"] = f"host=127.0.0.1 port={other.port}"
        assert "peers: added 3" in stand.reload()
    with first.raw() as line:
        ask_to_cancel(first, line.key[:1] + b"\x03\x00" + line.key[3:])
    lines = (first.log + second.log).splitlines()
    assert len([each for each in lines if "forwarding cancellation request to peer 3" in each]) == 3
    assert len([each for each in lines if "TTL was exhausted" in each]) == 1


def test_a_peer_that_is_not_there_costs_a_warning_and_nobody_waits(two):
    first, second = two
    second.finish()
    with first.raw() as line:
        start = time.monotonic()
        ask_to_cancel(first, line.key[:1] + b"\x02\x00" + line.key[3:])
        assert time.monotonic() - start < 5
    first.wait_log("WARNING cannot forward a cancel request to peer 2: ")


def test_a_number_may_come_with_a_reload_and_old_keys_go_on(two, admin):
    first, second = two
    first.settings["peer_id"] = 0
    first.reload()
    with first.raw() as old:
        first.settings["peer_id"] = 1
        assert "peer_id '0' -> '1'" in first.reload()
        with first.raw() as new:
            for line, door in ((new, second), (old, first), (new, first)):
                line.send(query(NAP))
                wait_until(lambda: is_running(admin), "the query runs")
                ask_to_cancel(door, line.key)
                assert sqlstate(line.read_until()) == "57014"


@pytest.fixture(name="sharers")
def _sharers(upstream):
    """Two proxies on one port (so_reuseport). They find each other by their Unix sockets."""
    first = Stand(upstream, {"so_reuseport": 1, "peer_id": 1})
    second = Stand(upstream, {"so_reuseport": 1, "peer_id": 2})
    second.port = first.port
    for stand in (first, second):
        stand.folder.chmod(0o777)
        stand.settings["unix_socket_dir"] = stand.folder
        stand.peers = {
            str(number): f"host={each.folder} port={first.port}" for number, each in enumerate((first, second), 1)
        }
    with first, second:
        yield first, second


def forwarded(stands):
    return sum(each.log.count("@unix(") for each in stands)


def test_on_a_shared_port_every_cancel_of_a_driver_works_wherever_it_arrives(sharers, admin):
    first, _ = sharers
    failures = []

    def nap(connection):
        try:
            connection.execute(NAP)
        except psycopg.errors.QueryCanceled:
            return
        failures.append("not canceled")

    for _ in range(ROUNDS):
        with first.connect() as connection:
            sleeper = threading.Thread(target=nap, args=(connection,))
            sleeper.start()
            wait_until(lambda: is_running(admin), "the query runs")
            connection.cancel()
            sleeper.join(5)
            assert not sleeper.is_alive(), "the cancel went astray"
            assert connection.execute("select 'alive'").fetchone() == ("alive",), "and hit nothing else"
    assert not failures
    assert forwarded(sharers), "in so many rounds some reached the wrong one"


def test_on_a_shared_port_ctrl_c_in_psql_works(sharers, upstream, admin):
    psql = upstream.program("psql")
    if psql is None:
        pytest.skip("no psql here")
    first, _ = sharers
    seen = forwarded(sharers)
    for _ in range(ROUNDS):
        command = [psql, "-X", "-h", "127.0.0.1", "-p", str(first.port), "-U", "app", "-c", NAP, "postgres"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wait_until(lambda: is_running(admin), "the query runs")
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=10)
        assert "canceling statement due to user request" in said
        if forwarded(sharers) > seen:
            return
    pytest.fail("no cancel reached the wrong proxy: nothing was tried")


def test_the_asker_waits_until_the_query_is_canceled_so_the_next_one_is_safe(two, admin):
    """libpq returns from a cancel when the proxy hangs up; what it sends then must not be hit."""
    first, second = two
    with first.raw() as line:
        for number in range(ROUNDS):
            line.send(query(NAP))
            wait_until(lambda: is_running(admin), "the query runs")
            ask_to_cancel((first, second)[number % 2], line.key)
            line.send(query(f"select {number}"))
            assert sqlstate(line.read_until()) == "57014"
            assert kinds(line.read_until()) == "TDCZ"
