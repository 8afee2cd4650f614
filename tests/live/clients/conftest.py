"""What the tests of drivers share: each module has a database and a proxy of its own."""

import signal
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.live.clients.fleet import SECONDS, Fleet, launch
from tests.live.upstream import Upstream


@pytest.fixture(scope="module", name="fleet")
def _fleet(upstream: Upstream, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    with launch(upstream, request.module.__name__.rpartition(".")[2].removeprefix("test_")) as fleet:
        yield fleet


@pytest.fixture(autouse=True)
def _patience() -> Iterator[None]:
    """A client that waits for an answer for ever ends its own test, not the whole run."""

    def give_up(*_: object) -> None:
        raise TimeoutError("a client waits for ever")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(int(SECONDS * 3))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def owner(fleet: Fleet) -> Iterator[psycopg.Connection[Any]]:
    """One more client, which never prepares: for what a test needs before and after."""
    with psycopg.connect(**fleet.libpq(), autocommit=True, prepare_threshold=None) as connection:
        yield connection
