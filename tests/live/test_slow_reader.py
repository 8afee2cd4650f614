"""Flow control: whoever does not read, or sends faster than PostgreSQL reads, costs a bounded amount, slows nobody."""

import threading
import time
from contextlib import suppress

import pytest

from tests.live.stand import Stand
from tests.live.wire import Gone, copy_data, kinds, query, rows

pytestmark = pytest.mark.live

MEGABYTE = 1_000_000
SIZE = 200  # MB
ROOM = 40 * MEGABYTE  # what a slow reader may cost: buffers of sockets and streams, and what the allocator keeps
BIG = f"select repeat('x', {MEGABYTE}) from generate_series(1, {SIZE})"
SMALL_ROWS = "select n, 'a small row' from generate_series(1, 3000000) as n"


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    with Stand(upstream, databases={"postgres": "pool_size=2"}) as stand:
        with stand.raw() as line:
            line.ask("select repeat('x', 10000000)")
        yield stand


def watch(stand, seconds):
    """The most memory the proxy has meanwhile, and the slowest answer a neighbour gets."""
    most, slowest = 0, 0.0
    end = time.monotonic() + seconds
    with stand.raw() as neighbour:
        while time.monotonic() < end:
            start = time.monotonic()
            assert rows(neighbour.ask("select 'quick'")) == [("quick",)]
            slowest = max(slowest, time.monotonic() - start)
            most = max(most, stand.rss)
            time.sleep(0.02)
    return most, slowest


@pytest.mark.solitary
@pytest.mark.parametrize("text", [BIG, SMALL_ROWS], ids=["long rows", "small rows"])
def test_a_client_that_does_not_read_pauses_its_server_and_nobody_else(stand, text):
    before = stand.rss
    with stand.raw() as slow:
        slow.send(query(text))
        most, slowest = watch(stand, 1.5)
        assert most - before < ROOM
        assert slowest < 0.5
        cpu = stand.cpu
        time.sleep(0.5)
        assert stand.cpu - cpu < 0.2, "waiting costs nothing"


def test_all_two_hundred_megabytes_arrive_when_it_reads_at_last(stand):
    before, total = stand.rss, 0
    with stand.raw() as slow:
        slow.send(query(BIG))
        time.sleep(0.3)
        tail = b""
        while not tail.endswith(b"Z\0\0\0\5I"):
            data = slow.socket.recv(1 << 20)
            total += len(data)
            tail = (tail + data)[-6:]
    assert total > SIZE * MEGABYTE
    assert stand.rss - before < ROOM


def test_a_client_that_sends_faster_than_postgresql_reads(stand, admin):
    """COPY in, with a lock in the way: PostgreSQL reads nothing until it is gone."""
    admin.execute("drop table if exists flood; create table flood (word text); grant all on flood to app")
    before = stand.rss
    sent = [0]

    def pour(line):
        block = copy_data(b"x" * 99_999 + b"\n") * 10
        try:
            while sent[0] < 100 * MEGABYTE:
                line.send(block)
                sent[0] += len(block)
        except (Gone, OSError):
            pass

    with stand.raw(seconds=60) as line, stand.raw() as blocker:
        line.send(query("copy flood from program 'false'"))
        line.read_until()
        blocker.ask("begin; select 1")
        line.send(query("copy flood from stdin"))
        assert kinds(line.read_until("G")) == "G"
        admin.execute("select pg_sleep(0)")
        pourer = threading.Thread(target=pour, args=(line,))
        pourer.start()
        most = 0
        while pourer.is_alive():
            most = max(most, stand.rss)
            time.sleep(0.02)
        pourer.join()
        line.send(b"c\0\0\0\4")
        assert kinds(line.read_until()) == "CZ"
    assert sent[0] >= 100 * MEGABYTE
    assert most - before < ROOM


@pytest.mark.solitary
def test_a_flood_of_requests_whose_answers_nobody_reads_is_bounded(stand):
    before = stand.rss
    with stand.raw() as slow:
        slow.socket.settimeout(1.0)
        batch = query("select repeat('x', 10000)") * 100
        sent = 0
        with suppress(TimeoutError):
            while sent < 100 * MEGABYTE:
                sent += slow.socket.send(batch)
        assert sent < 100 * MEGABYTE
        most, slowest = watch(stand, 0.5)
        assert most - before < ROOM
        assert slowest < 0.5
