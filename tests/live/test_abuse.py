"""
Floods from outside: 2,000 connections that never log in, and wrong passwords without end.

Theory. What must hold is counted and not timed: how much processor the flood costs the proxy beside what the queries
of its clients cost, how many guesses are heard, who is thrown out. The latency of those queries is printed.
"""

import ast
import contextlib
import resource
import subprocess
import sys
import time

import psycopg
import pytest

from tests.live.stand import ROOT, Stand, wait_until
from tests.live.upstream import PASSWORD
from tests.live.wire import Raw, error, scram_secret, sqlstate

pytestmark = pytest.mark.live

HALF_OPEN = 1000  # of each kind
QUERIES = 1500


def many_files():
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))


def stand_for(upstream, **settings):
    """Where each wrong password costs a PBKDF2: plain words, held against a SCRAM verifier."""
    quoted = PASSWORD.replace("'", "''")
    return Stand(
        upstream,
        {"auth_type": "plain", "max_client_conn": 100, "client_login_timeout": 300, **settings},
        databases={"postgres": f"user=app password='{quoted}'"},
        secrets={"app": scram_secret(PASSWORD), "other": "swordfish", "postgres": "root"},
        limits=many_files,
    )


@contextlib.contextmanager
def flood(stand, kind, count, seconds):
    """While it lasts; the last line says what became of it."""
    command = [sys.executable, "-m", "tests.live.flood", str(stand.port), kind, str(count), str(seconds)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def measure(lines):
    """p50 and p99 of queries, in seconds, and how long all took."""
    spans = []
    began = time.monotonic()
    for number in range(QUERIES):
        line = lines[number % len(lines)]
        before = time.perf_counter()
        assert line.value("select 1") == "1"
        spans.append(time.perf_counter() - before)
        time.sleep(0.001)
    spans.sort()
    return spans[len(spans) // 2], spans[len(spans) * 99 // 100], time.monotonic() - began


def counts_of(stand):
    with stand.connect("postgres", "pgbouncer", password="root", cursor_factory=psycopg.ClientCursor) as console:
        return dict(console.execute("SHOW LISTS").fetchall())


def test_two_thousand_half_open_and_a_flood_of_guesses_cost_the_queries_nothing(upstream):
    with stand_for(upstream, max_half_open=5000) as stand, contextlib.ExitStack() as stack:
        lines = [stack.enter_context(Raw(stand.port)) for _ in range(4)]
        for line in lines:
            assert line.login("app", "postgres", PASSWORD)[-1].kind == "Z"
        measure(lines)
        before, rss = stand.cpu, stand.rss
        p50, p99, _ = measure(lines)
        quiet = stand.cpu - before
        for kind in ("silent", "asking"):
            stack.enter_context(flood(stand, kind, HALF_OPEN, 120))
        wait_until(lambda: counts_of(stand)["half_open"] >= 2 * HALF_OPEN, "2000 are half open")
        per_one = (stand.rss - rss) / (2 * HALF_OPEN)
        stack.enter_context(flood(stand, "guessing", 200, 120))
        time.sleep(3)
        before, counts = stand.cpu, counts_of(stand)
        flooded50, flooded99, seconds = measure(lines)
        cost = stand.cpu - before - quiet
        after = counts_of(stand)
        print(
            f"\np50 {p50 * 1e3:.2f} -> {flooded50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} -> {flooded99 * 1e3:.2f} ms; "
            f"the flood costs {cost / seconds:.1%} of a processor, {per_one / 1024:.1f} kB per half-open connection; "
            f"guesses heard: {after['failed_logins'] - counts['failed_logins']} in {seconds:.1f} s, "
            f"refused unheard: {after['refused_logins'] - counts['refused_logins']}"
        )
        assert after["half_open"] >= 2 * HALF_OPEN
        assert cost < 0.25 * seconds
        assert per_one < 30_000
        assert after["failed_logins"] - counts["failed_logins"] <= 10 * (seconds / 5 + 1)
        assert after["used_clients"] == counts["used_clients"]


def test_the_oldest_half_open_give_way_and_an_honest_login_gets_in(upstream):
    with stand_for(upstream, max_half_open=200) as stand, flood(stand, "silent", 1000, 60), Raw(stand.port) as first:
        assert counts_of(stand)["half_open"] <= 200
        first.send(b"\0")
        with stand.connect(dbname="postgres") as client:
            assert client.execute("select 1").fetchone() == (1,)
        assert counts_of(stand)["half_open_dropped"] >= 800
        assert len([line for line in stand.log.splitlines() if "(max_half_open)" in line]) <= 5
        with flood(stand, "silent", 250, 60):
            assert sqlstate(first.read_to_end()) == "53300"


def test_max_client_conn_cannot_be_used_up_by_those_who_do_not_log_in(upstream):
    with stand_for(upstream, max_client_conn=10) as stand, flood(stand, "asking", 90, 60):
        with stand.connect(dbname="postgres") as client:
            assert client.execute("select 1").fetchone() == (1,)
        assert counts_of(stand)["half_open"] >= 90


def test_a_guesser_slows_himself_down_and_nobody_else(upstream):
    with stand_for(upstream, auth_failure_delay=1, proxy_protocol_from="192.0.2.0/24") as stand:
        guesser = subprocess.run(
            [sys.executable, "-m", "tests.live.flood", str(stand.port), "guessing", "20", "4"],
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        heard = ast.literal_eval(guesser.stdout.splitlines()[-1])
        assert heard["28P01"] <= 60, "10 a second at most, where thousands were possible"
        began = time.monotonic()
        with Raw(stand.port) as line:
            assert sqlstate(line.login("other", "postgres", "swordfish")) == "", "another user, who is not delayed"
        assert time.monotonic() - began < 0.9
        with Raw(stand.port) as line:
            found = line.login("app", "postgres", PASSWORD)
            assert not error(found), "the right password: it waits and is let in"
        stand.wait_log(r"logins user=app from 127.0.0.1 are delayed by 0.2 s: 4 have failed")
        with stand.connect("postgres", "pgbouncer", password="root", cursor_factory=psycopg.ClientCursor) as console:
            assert console.execute("SHOW LOGINS").fetchall()[0][:2] == ("127.0.0.1", "")
