"""
Ports that stay free until they are used.

Theory. Between the moment a free port is found and the moment a proxy or a PostgreSQL listens on it, somebody else may
take it: another test that asks the same question, or any connection that goes out and is given it by the kernel. So
ports are taken below those the kernel gives away by itself, and each process of tests has a stretch of its own there:
it holds the stretch's name, an abstract Unix socket, which is free again when the process ends, however it ends. Within
its stretch a process goes round, so a port that has just been in use comes back late.
"""

import functools
import itertools
import socket
from collections.abc import Iterator
from typing import Final

HOST: Final = "127.0.0.1"
FIRST: Final = 20_000
STRETCH: Final = 500
STRETCHES: Final = 25  # to 32500; where Linux begins to give ports away is 32768


def find_free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that no test is told of again for a while."""
    return next(port for port in itertools.islice(_go_round(), STRETCH) if _is_free(port))


@functools.cache
def _go_round() -> Iterator[int]:
    first = FIRST + _claim() * STRETCH
    return itertools.cycle(range(first, first + STRETCH))


def _claim() -> int:
    """The number of a stretch that no other process has."""
    for number in range(STRETCHES):
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0pgshuttle-test-ports-{number}")
        except OSError:
            name.close()
        else:
            name.detach()  # held to the end of the process
            return number
    raise AssertionError(f"more than {STRETCHES} processes of tests at once")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
