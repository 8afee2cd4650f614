"""Whoever is solitary is alone, and gets in although there is always somebody inside."""

import fcntl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.hall import Hall

SECONDS = 30.0


@pytest.fixture(name="halls")
def _halls(tmp_path: Path) -> Iterator[list[Hall]]:
    """One hall, as three workers hold it."""
    with ExitStack() as stack:
        yield [stack.enter_context(closing(Hall(tmp_path))) for _ in range(3)]


def begin(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def end(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()


def wait_shut(folder: Path) -> None:
    """Until somebody keeps the gate."""
    with (folder / "gate").open("w") as gate:
        try:
            while True:
                fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(gate, fcntl.LOCK_UN)
        except BlockingIOError:
            return


def test_ordinary_ones_are_in_it_together(halls: list[Hall]) -> None:
    for hall in halls:
        hall.enter()
    for hall in halls:
        hall.leave()
    halls[0].enter_alone()


def test_a_solitary_one_waits_for_those_inside_and_goes_before_those_who_come_later(
    halls: list[Hall], tmp_path: Path
) -> None:
    inside, solitary, late = halls
    entered = []

    def go_alone() -> None:
        solitary.enter_alone()
        entered.append("solitary")

    def go() -> None:
        late.enter()
        entered.append("late")

    inside.enter()
    first = begin(go_alone)
    wait_shut(tmp_path)
    second = begin(go)
    assert entered == []
    inside.leave()
    end(first)
    assert entered == ["solitary"]
    solitary.leave()
    end(second)
    assert entered == ["solitary", "late"]


def test_solitary_ones_of_one_worker_stay_in_it(halls: list[Hall]) -> None:
    for _ in range(2):
        halls[0].enter_alone()
        assert halls[0].is_alone
    halls[0].leave()
    assert not halls[0].is_alone
    halls[1].enter()


def test_two_solitary_ones_are_not_in_it_together(halls: list[Hall]) -> None:
    entered = []
    halls[0].enter_alone()
    other = begin(lambda: (halls[1].enter_alone(), entered.append("other"))[0])
    assert entered == []
    halls[0].leave()
    end(other)
    assert entered == ["other"]
