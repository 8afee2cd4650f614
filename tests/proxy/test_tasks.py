"""Background work: held while it runs, heard when it fails."""

import asyncio
import gc

import pytest

from proxy.log import Log
from proxy.tasks import TRACEBACK_LINES, Tasks, drive
from tests.fakes import FakeLog


@pytest.fixture
def path(tmp_path):
    return tmp_path / "proxy.log"


@pytest.fixture
def tasks(path):
    log = Log(str(path), quiet=True)
    yield Tasks(log)
    log.close()


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_task_gives_its_result_to_whoever_awaits_it(tasks):
    async def answer():
        return 42

    async def main():
        return await tasks.start(answer(), name="answer")

    assert asyncio.run(main()) == 42


def test_a_task_nobody_holds_lives_until_it_is_done_and_is_then_forgotten(tasks):
    seen = []

    async def main():
        gate = asyncio.Event()

        async def wait():
            await gate.wait()
            seen.append("done")

        tasks.start(wait(), name="wait")
        await turns()
        gc.collect()
        assert len(tasks) == 1
        gate.set()
        await turns()
        assert len(tasks) == 0

    asyncio.run(main())
    assert seen == ["done"]


def test_a_failure_is_logged_at_once_with_name_and_traceback(tasks, path):
    async def janitor():
        raise ValueError("a broken broom")

    async def main():
        kept = tasks.start(janitor(), name="janitor")
        await turns()
        text = path.read_text()
        assert "ERROR task janitor failed: ValueError: a broken broom" in text
        assert 'raise ValueError("a broken broom")' in text
        return kept

    asyncio.run(main())


def test_a_failure_is_also_raised_to_whoever_awaits(tasks):
    async def fail():
        raise ValueError("heard twice")

    async def main():
        with pytest.raises(ValueError, match="heard twice"):
            await tasks.start(fail(), name="fail")

    asyncio.run(main())


def test_an_endless_traceback_is_cut_at_its_far_end(tasks, path):
    def deeper(depth):
        if depth == 0:
            raise KeyError("bottom\nof the well")
        other(depth - 1)

    def other(depth):
        deeper(depth)

    async def main():
        async def sink():
            deeper(100)

        tasks.start(sink(), name="sink")
        await turns()

    asyncio.run(main())
    lines = path.read_text().splitlines()
    assert len(lines) == 1 + TRACEBACK_LINES
    assert "KeyError" in lines[-1]


def test_a_cancelled_task_is_no_failure(tasks, path):
    async def main():
        task = tasks.start(asyncio.sleep(60), name="sleep")
        await turns()
        task.cancel()
        await turns()
        assert len(tasks) == 0

    asyncio.run(main())
    assert path.read_text() == ""


def test_cancel_all_ends_those_that_start_others_while_ending_and_spares_the_asker(tasks, path):
    ended = []

    async def main():
        async def successor():
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("successor")

        async def stubborn():
            try:
                await asyncio.sleep(60)
            finally:
                tasks.start(successor(), name="successor")
                await turns()
                ended.append("stubborn")

        async def asker():
            tasks.start(stubborn(), name="stubborn")
            await turns()
            await tasks.cancel_all()
            ended.append("asker")

        await tasks.start(asker(), name="asker")

    asyncio.run(main())
    assert sorted(ended) == ["asker", "stubborn", "successor"]
    assert len(tasks) == 0
    assert path.read_text() == ""


def test_a_failure_while_being_cancelled_is_logged_and_stops_nothing(tasks, path):
    async def main():
        async def sore_loser():
            try:
                await asyncio.sleep(60)
            finally:
                raise RuntimeError("not like this")

        tasks.start(sore_loser(), name="loser")
        await turns()
        await tasks.cancel_all()

    asyncio.run(main())
    assert "task loser failed: RuntimeError: not like this" in path.read_text()


def test_a_callback_that_raises_is_logged_by_the_loops_handler(tasks, path):
    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(tasks.on_loop_error)
        loop.call_soon(lambda: 1 // 0)
        await turns()
        loop.call_exception_handler({"message": "something without an exception"})

    asyncio.run(main())
    text = path.read_text()
    assert "ZeroDivisionError" in text
    assert "ERROR something without an exception" in text


def test_a_coroutine_that_only_waits_for_futures_needs_no_task():
    done = []

    async def work(futures):
        for future in futures:
            done.append(await future)

    async def main():
        futures = [asyncio.get_running_loop().create_future() for _ in range(2)]
        drive(work(futures))
        for number, future in enumerate(futures):
            assert len(done) == number
            future.set_result(number)
            await asyncio.sleep(0)
        assert done == [0, 1]

    asyncio.run(main())


def test_what_a_driven_coroutine_raises_reaches_the_loop():
    heard = []

    async def work(future):
        try:
            await future
        except OSError as error:
            raise ValueError("no") from error

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: heard.append(context["exception"]))
        future = loop.create_future()
        drive(work(future))
        future.set_exception(OSError("broken"))
        await asyncio.sleep(0)

    asyncio.run(main())
    assert isinstance(heard[0], ValueError)
    assert isinstance(heard[0].__cause__, OSError)


@pytest.mark.parametrize("is_coroutine", [False, True])
def test_what_is_repeated_goes_on_though_it_stumbles(is_coroutine):
    done, log = [], FakeLog()

    def work():
        done.append(len(done))
        if len(done) == 1:
            raise ZeroDivisionError("oops")

    async def work_slowly():
        await asyncio.sleep(0)
        work()

    async def main():
        task = asyncio.ensure_future(Tasks(log).repeat(0, work_slowly if is_coroutine else work, "the sweeper"))
        while len(done) < 3:
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(main())
    assert log.text.count("the sweeper stumbled and goes on: ZeroDivisionError: oops") == 1
