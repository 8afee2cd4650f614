"""The account that the proxy runs as, at its own console."""

import os
import socket
from typing import Any

import pytest

from proxy.auth import owner
from proxy.auth.owner import find_uid, is_owner
from proxy.log import UNIX


class Door:
    """An inbox as far as this is concerned."""

    def __init__(self, connected: Any) -> None:
        self.transport = self
        self._connected = connected

    def get_extra_info(self, name: str) -> Any:
        assert name == "socket"
        return self._connected


@pytest.fixture(name="door")
def _door():
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        yield Door(ours)


@pytest.mark.parametrize("user", ["pgbouncer", "pgshuttle"])
def test_our_own_account_under_the_consoles_name_is_the_owner(door, user):
    assert find_uid(door) == os.geteuid()
    assert is_owner(door, user, (UNIX, 0))


def test_nobody_else_is(door, monkeypatch):
    assert not is_owner(door, "postgres", (UNIX, 0))
    assert not is_owner(door, "pgbouncer", ("127.0.0.1", 5))
    monkeypatch.setattr(owner.os, "geteuid", lambda: os.getuid() + 1)
    assert not is_owner(door, "pgbouncer", (UNIX, 0))


def test_who_cannot_be_told_is_nobody():
    assert find_uid(Door(None)) is None
    assert not is_owner(Door(None), "pgbouncer", (UNIX, 0))
    with socket.socket(socket.AF_INET) as tcp:
        assert not is_owner(Door(tcp), "pgbouncer", (UNIX, 0))
