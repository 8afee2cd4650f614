"""A few threads for work that waits: how many, for how long, and what a stuck one costs."""

import asyncio
import threading
import time

import pytest

from proxy.auth.crew import Crew, NoAnswer
from tests.proxy.auth.wire import play


def test_work_is_done_aside_and_its_result_or_error_comes_back() -> None:
    async def scene() -> None:
        crew = Crew("test")
        assert await crew.run(threading.get_ident) != threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            await crew.run(lambda: 1 // 0)
        with pytest.raises(TimeoutError):  # of the work itself, as a socket's
            await crew.run(_time_out)

    play(scene())


def _time_out() -> None:
    raise TimeoutError


def test_no_more_are_at_work_than_there_are_threads() -> None:
    async def scene() -> int:
        crew, lock, at_work, most = Crew("test", threads=3), threading.Lock(), 0, 0

        def work() -> None:
            nonlocal at_work, most
            with lock:
                at_work += 1
                most = max(most, at_work)
            time.sleep(0.002)
            with lock:
                at_work -= 1

        await asyncio.gather(*(crew.run(work) for _ in range(30)))
        return most

    assert 1 < play(scene()) <= 3


def test_stuck_work_is_given_up_and_holds_its_thread_and_no_other() -> None:
    async def scene() -> None:
        crew, stuck = Crew("test", threads=2, patience=0.05), threading.Event()
        with pytest.raises(NoAnswer, match=r"no answer within 0\.05 s"):
            await crew.run(stuck.wait)
        assert await crew.run(lambda: 5) == 5  # by the other one
        both = [crew.run(stuck.wait), crew.run(lambda: 6)]
        assert [type(each) for each in await asyncio.gather(*both, return_exceptions=True)] == [NoAnswer, NoAnswer]
        stuck.set()
        for _ in range(100):
            await asyncio.sleep(0.001)
        assert await crew.run(lambda: 7) == 7  # both are free again

    play(scene())


def test_a_caller_that_leaves_does_not_free_the_thread_before_its_time() -> None:
    async def scene() -> None:
        crew, stuck = Crew("test", threads=1), threading.Event()
        first = asyncio.ensure_future(crew.run(stuck.wait))
        await asyncio.sleep(0)
        first.cancel()
        second = asyncio.ensure_future(crew.run(lambda: 8))
        await asyncio.sleep(0.01)
        assert not second.done()
        stuck.set()
        assert await second == 8

    play(scene())


def test_a_thread_that_hangs_does_not_keep_the_process() -> None:
    async def scene() -> None:
        task = asyncio.ensure_future(Crew("hangs").run(threading.Event().wait))
        await asyncio.sleep(0.01)
        assert [thread.daemon for thread in threading.enumerate() if thread.name == "hangs"] == [True]
        task.cancel()

    play(scene())
