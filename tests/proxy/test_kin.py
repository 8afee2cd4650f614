"""Along a row of processes everybody is told once, and nothing goes in circles."""

import asyncio
from types import SimpleNamespace

import pytest

from proxy.courier import Broken, Frame, Kind
from proxy.kin import Kin


class Relative:
    def __init__(self):
        self.heard = []
        self.has_finished = self.has_everything = False
        self.is_agreed = True

    def send(self, kind, body=None):
        self.heard.append((kind, body))

    def finish(self):
        self.has_finished = True

    def bequeath(self):
        self.has_everything = True


class Cancels:
    def __init__(self, *keys):
        self.keys = keys
        self.served = []

    def find(self, key):
        return key if key in self.keys else None

    async def serve(self, key):
        self.served.append(key)


class Tasks:
    def start(self, coroutine, *, name):
        return asyncio.get_running_loop().create_task(coroutine)


class Pools:
    def __init__(self):
        self.changed = []

    def of_database(self, name):
        return [f"{name}/1", f"{name}/2"]

    def schema_changed(self, pool):
        self.changed.append(pool)


def in_the_middle(*keys, patience=5.0):
    settings = SimpleNamespace(cancel_wait_timeout=patience)
    kin = Kin(SimpleNamespace(cancels=Cancels(*keys), pools=Pools(), tasks=Tasks(), settings=settings))
    kin.elder, kin.heir = Relative(), Relative()
    return kin, kin._proxy


KEY = b"\0\1\xff"
CANCEL = Frame(Kind.CANCEL, {"key": "0001ff", "question": 7}, [])


def canceled(number, *, has_served):
    return Frame(Kind.CANCELED, {"question": number, "has_served": has_served}, [])


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("answers", "is_served"), [((True,), True), ((False, True), True), ((False, False), False)])
def test_a_cancel_for_nobody_here_is_asked_of_both_and_waited_for(answers, is_served):
    async def main():
        kin, _ = in_the_middle()
        asking = asyncio.ensure_future(kin.cancel(KEY))
        await settle()
        assert kin.elder.heard == kin.heir.heard == [(Kind.CANCEL, {"key": "0001ff", "question": 1})]
        for answer, speaker in zip(answers, (kin.elder, kin.heir), strict=False):
            assert not asking.done()
            kin.hear(canceled(1, has_served=answer), speaker)
            await settle()
        assert await asking is is_served
        kin.hear(canceled(1, has_served=True), kin.heir)  # too late

    asyncio.run(main())


def test_the_only_one_that_is_asked_and_says_no_is_believed_at_once():
    async def main():
        kin, _ = in_the_middle(patience=None)
        asking = asyncio.ensure_future(kin.cancel(KEY, kin.heir))
        await settle()
        kin.hear(canceled(1, has_served=False), kin.elder)
        return await asyncio.wait_for(asking, 10)

    assert asyncio.run(main()) is False


@pytest.mark.parametrize("is_settled", [False, True])
def test_we_stay_for_an_heir_that_has_just_begun(is_settled):
    async def main():
        kin, _ = in_the_middle()
        kin.elder = None
        kin.heir.is_settled = is_settled
        return kin.holds_us

    assert asyncio.run(main()) is not is_settled


def test_without_an_answer_the_asker_is_not_kept_for_ever():
    async def main():
        kin, _ = in_the_middle(patience=0.01)
        assert not await kin.cancel(KEY)
        assert not kin._questions

    asyncio.run(main())


@pytest.mark.parametrize("other", [True, False])
def test_who_is_lost_will_not_answer_and_the_asker_does_not_wait_for_that(other):
    async def main():
        kin, _ = in_the_middle(patience=None)
        asking = asyncio.ensure_future(kin.cancel(KEY))
        await settle()
        heir = kin.heir
        kin.lose(kin.elder)
        assert (kin.elder, kin.heir) == (None, heir)
        await settle()
        assert not asking.done(), "the other one may have it"
        if other:
            kin.hear(canceled(1, has_served=True), heir)
        else:
            kin.lose(heir)
        return await asyncio.wait_for(asking, 10)

    assert asyncio.run(main()) is other


def test_one_that_came_from_one_side_goes_on_to_the_other_and_its_answer_comes_back():
    async def main():
        kin, proxy = in_the_middle()
        kin.hear(CANCEL, kin.heir)
        await settle()
        assert (kin.elder.heard, kin.heir.heard) == ([(Kind.CANCEL, {"key": "0001ff", "question": 1})], [])
        kin.hear(canceled(1, has_served=True), kin.elder)
        await settle()
        assert kin.heir.heard == [(Kind.CANCELED, {"question": 7, "has_served": True})]
        assert not proxy.cancels.served

    asyncio.run(main())


def test_one_for_a_client_here_goes_no_further():
    async def main():
        kin, proxy = in_the_middle(KEY)
        kin.hear(CANCEL, kin.elder)
        await settle()
        assert proxy.cancels.served == [KEY]
        assert kin.elder.heard == [(Kind.CANCELED, {"question": 7, "has_served": True})]
        assert kin.heir.heard == []

    asyncio.run(main())


def test_at_the_end_of_the_row_nobody_has_it():
    async def main():
        kin, _ = in_the_middle()
        kin.elder = None
        kin.hear(CANCEL, kin.heir)
        await settle()
        assert kin.heir.heard == [(Kind.CANCELED, {"question": 7, "has_served": False})]

    asyncio.run(main())


def test_a_changed_schema_is_changed_here_once_and_told_onwards():
    kin, proxy = in_the_middle()
    kin.hear(Frame(Kind.SCHEMA, {"database": "shop"}, []), kin.elder)
    assert proxy.pools.changed == ["shop/1"]
    assert (kin.elder.heard, kin.heir.heard) == ([], [(Kind.SCHEMA, {"database": "shop"})])


@pytest.mark.parametrize(
    "frame", [Frame(Kind.CANCEL, {"key": "nonsense"}, []), Frame(Kind.CANCELED, {}, []), Frame(Kind.PULSE, {}, [])]
)
def test_nonsense_is_not_passed_on(frame):
    kin, _ = in_the_middle()
    with pytest.raises(Broken):
        kin.hear(frame, kin.elder)
    assert kin.heir.heard == []


def test_who_ends_tells_the_one_before_and_the_one_after():
    kin, _ = in_the_middle()
    kin.leave()
    assert kin.elder.heard == [(Kind.LEAVING, {"has_heir": False})]
    assert kin.heir.has_everything
    kin.finish()
    assert kin.heir.has_finished


def test_who_has_not_said_ready_is_told_nothing_nor_asked():
    async def main():
        kin, _ = in_the_middle()
        kin.elder.is_agreed = kin.heir.is_agreed = False
        assert not await kin.cancel(KEY)
        kin.schema_changed(SimpleNamespace(database="shop"))
        kin.leave()
        assert kin.elder.heard == kin.heir.heard == []
        assert kin.heir.has_everything

    asyncio.run(main())


def test_without_kin_there_is_nobody_to_tell():
    kin = Kin(SimpleNamespace())
    assert not asyncio.run(kin.cancel(b"key"))
    kin.leave()
    kin.finish()
