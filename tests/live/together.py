"""
Clients whose reads stand in one line, and a gate in their way.

Theory. What arrives in one turn of the proxy's loop travels together. So the proxy is stopped while a test sends, and
goes on when all has been said (`Together`). A text stands in a line only after it has shown that it is fast and small
(`earn_trust`). The view `line_gate` is passed at once, until somebody holds GATE: then whoever reads it waits, in the
middle of its execution. No text tells that, as no text tells that a table is locked.
"""

import signal
from collections.abc import Sequence
from typing import Any, Self

import psycopg

from tests.live.stand import Stand, wait_until
from tests.live.wire import Message, Raw, error, query

GATE = 4711  # an advisory lock
READ_GATE = "select '{}', is_open from line_gate"
_ACTIVE = "select pid from pg_stat_activity where state = 'active' and query like %s order by query_start"


def build_gate(admin: psycopg.Connection[Any]) -> None:
    gate = f"create or replace view line_gate as select pg_advisory_xact_lock_shared({GATE}) is not null as is_open"
    admin.execute(f"{gate}; grant select on line_gate to public")


class Shut:
    """Nobody passes the gate meanwhile."""

    def __init__(self, admin: psycopg.Connection[Any]) -> None:
        self._admin = admin

    def __enter__(self) -> Self:
        self._admin.execute(f"select pg_advisory_lock({GATE})")
        return self

    def __exit__(self, *_: object) -> None:
        self._admin.execute(f"select pg_advisory_unlock({GATE})")


class Together:
    """The proxy sleeps in here: what is sent meanwhile is found in one turn of its loop."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand

    def __enter__(self) -> None:
        self._stand.signal(signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        self._stand.signal(signal.SIGCONT)


def send_together(stand: Stand, clients: Sequence[Raw], parts: Sequence[bytes]) -> None:
    with Together(stand):
        for client, part in zip(clients, parts, strict=True):
            client.send(part)


def ask_together(stand: Stand, clients: Sequence[Raw], parts: Sequence[bytes]) -> list[list[Message]]:
    send_together(stand, clients, parts)
    return [client.read_until() for client in clients]


def earn_trust(stand: Stand, clients: Sequence[Raw], *texts: str) -> None:
    """Their shapes have shown that they are fast and small."""
    for text in texts:
        for _ in range(4):
            answers = ask_together(stand, clients, [query(text)] * len(clients))
            assert not any(map(error, answers)), error(answers[0])


def find_running(admin: psycopg.Connection[Any], text: str) -> list[int]:
    """The backends that run what begins with `text`, the longest first."""
    return [pid for (pid,) in admin.execute(_ACTIVE, [text + "%"]).fetchall()]


def wait_running(admin: psycopg.Connection[Any], text: str, count: int = 1) -> list[int]:
    wait_until(lambda: len(find_running(admin, text)) == count, f"{count} backends run {text}", 10)
    return find_running(admin, text)
