"""
What the live tests share: one PostgreSQL for all that one worker runs, and the proxy's log when one of them fails.

Theory. Several workers run the live tests at the same time, a file in one of them from its first test to its last.
Each has its own PostgreSQL, so a test may restart it, count its backends and make what it likes in it, as ever. It
takes its ports from tests/ports.py and its folders from tempfile. It waits for what it wants to see happen, patiently;
where it must show much in a time of its own, it goes on until it has. A test that judges by the clock or by the
processor, closer than by seconds, is marked `solitary`, and then no other runs (tests/hall.py).
"""

import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.live import stand
from tests.live.upstream import Upstream, describe, engine_answers, upstream


def pytest_report_collectionfinish(items: list[pytest.Item]) -> str:
    return f"live tests run on {describe()}" if any(item.get_closest_marker("live") for item in items) else ""


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    if report.failed:
        for each in stand.living:
            report.sections.append((f"log of the proxy on port {each.port}", each.tail))


@pytest.fixture(scope="session", name="upstream")
def _upstream() -> Iterator[Upstream]:
    """PostgreSQL itself. On a build machine (CI=true) an engine must answer, or nobody would notice that it is gone."""
    if os.environ.get("CI") == "true" and not engine_answers():
        pytest.fail("CI=true, and no Docker engine answers")
    with upstream() as database:
        yield database


@pytest.fixture
def admin(upstream: Upstream) -> Iterator[psycopg.Connection[Any]]:
    """PostgreSQL's superuser, past the proxy."""
    with upstream.connect() as connection:
        yield connection
