"""Work beside the event loop: the loop goes on, and everything is as before when it is done."""

import asyncio
import gc
import sys
import threading
import time

import pytest

from proxy.aside import SLICE, USUAL, aside


def busy(seconds: float) -> float:
    """Pure Python, which lets nobody else run of its own accord."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return sys.getswitchinterval()


def test_the_interpreter_changes_hands_more_often_meanwhile_and_the_collector_rests() -> None:
    async def main() -> None:
        before = sys.getswitchinterval()
        assert await aside(lambda: (busy(0.01), gc.isenabled())) == (pytest.approx(SLICE), False)
        assert sys.getswitchinterval() == pytest.approx(before) == pytest.approx(USUAL)
        assert gc.isenabled()

    asyncio.run(main())


def test_what_the_work_raises_is_raised_here_and_all_is_as_before() -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await aside(lambda: 1 // 0)
        assert sys.getswitchinterval() == pytest.approx(USUAL)
        assert gc.isenabled()

    asyncio.run(main())


def test_a_disk_that_does_not_answer_keeps_the_collector_from_its_work_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        monkeypatch.setattr("proxy.aside.LONGEST", 0.01)
        answers = threading.Event()
        work = asyncio.ensure_future(aside(answers.wait, 10))
        await asyncio.sleep(0)
        assert not gc.isenabled()
        await asyncio.sleep(0.05)
        assert gc.isenabled()
        answers.set()
        await work

    asyncio.run(main())


def test_the_loop_turns_hundreds_of_times_while_python_works() -> None:
    async def main() -> None:
        turns = 0
        work = asyncio.ensure_future(aside(busy, 0.2))
        while not work.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns > 100

    asyncio.run(main())
