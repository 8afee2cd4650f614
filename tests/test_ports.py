"""A free port is free, is not one that the kernel gives away by itself, and is nobody else's meanwhile."""

import socket
import subprocess
import sys
from pathlib import Path

from tests.ports import HOST, STRETCH, find_free_port

ROOT = Path(__file__).parent.parent


def given_away() -> range:
    first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    return range(int(first), int(last) + 1)


def test_one_can_listen_there_and_nobody_is_given_it_by_chance() -> None:
    port = find_free_port()
    socket.create_server((HOST, port)).close()
    assert port not in given_away()


def test_none_comes_twice_in_a_while() -> None:
    assert len({find_free_port() for _ in range(STRETCH // 10)}) == STRETCH // 10


def test_one_that_is_taken_is_passed_over() -> None:
    with socket.create_server((HOST, find_free_port())) as taken:
        assert taken.getsockname()[1] not in {find_free_port() for _ in range(STRETCH)}


def test_processes_at_the_same_time_have_none_in_common() -> None:
    program = "from tests.ports import *; print(*(find_free_port() for _ in range(STRETCH)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    theirs = set(map(int, done.stdout.split()))
    assert theirs
    assert not theirs & {find_free_port() for _ in range(STRETCH)}
