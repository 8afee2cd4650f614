"""What all tests share when several workers run them (`make test`): who is alone, and in which order files come."""

import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.hall import Hall

TOO_SLOW = HealthCheck.too_slow
HALL = pytest.StashKey[Hall]()
FOLDER = pytest.StashKey[str]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """In the process that hands out the tests, for each worker."""
    stash = node.config.stash
    if FOLDER not in stash:
        stash[FOLDER] = tempfile.mkdtemp(prefix="pgshuttle-hall-")
        node.config.add_cleanup(lambda: shutil.rmtree(stash[FOLDER]))
    node.workerinput["hall"] = stash[FOLDER]


def pytest_configure(config: pytest.Config) -> None:
    told: dict[str, Any] = getattr(config, "workerinput", {})  # only a worker has it
    if "hall" in told:
        config.stash[HALL] = hall = Hall(Path(told["hall"]))
        config.add_cleanup(hall.close)
        # How long an example takes says nothing where others are at work too.
        settings.register_profile("worker", settings.default, deadline=None, suppress_health_check=[TOO_SLOW])
        settings.load_profile("worker")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    hall = item.config.stash.get(HALL, None)
    if hall is None:
        return (yield)
    hall.enter_alone() if _is_solitary(item) else hall.enter()
    try:
        return (yield)
    finally:
        if not (_is_solitary(item) and nextitem is not None and _is_solitary(nextitem)):
            hall.leave()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """The head of the run, once: the process that hands out the tests does not collect any itself."""
    if node.gateway.id == "gw0" and any(each.startswith("tests/live/") for each in ids):
        from tests.live.upstream import describe  # noqa: PLC0415 - not for those who run no live test

        print(f"\nlive tests run on {describe()}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Workers begin with the solitary tests, while nobody waits for them to begin, then come the live ones, which take
    long, and at last the many short ones, which even out who is ready when.
    """
    if HALL in config.stash:
        items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    if _is_solitary(item):
        return 0
    return 1 if item.get_closest_marker("live") else 2


def _is_solitary(item: pytest.Item) -> bool:
    return item.get_closest_marker("solitary") is not None
