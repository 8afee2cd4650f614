"""Derived keys: off the loop, once per question, bounded, and no trace of the password."""

import asyncio
import os
import sys
import threading
from collections.abc import Iterator

import pytest

from protocol.passwords import Md5, Plain, Secret, derive_salted_password, is_scram_password, parse_stored
from proxy.auth import keys
from proxy.auth.keys import NICE, KeyKeeper
from tests.proxy.auth.wire import play

JOE = Secret("swordfish")


class Derivation:
    """Stands in for PBKDF2: notes where and how often it runs, and stops there while the gate is shut."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, password: Secret, salt: bytes, iterations: int) -> bytes:
        self.threads.append(threading.current_thread().name)
        assert self.gate.wait(5)
        return derive_salted_password(password, salt, iterations)


@pytest.fixture
def derivation(monkeypatch: pytest.MonkeyPatch) -> Iterator[Derivation]:
    stand_in = Derivation()
    monkeypatch.setattr(keys, "derive_salted_password", stand_in)
    yield stand_in
    stand_in.gate.set()


def test_a_key_is_derived_in_a_thread_and_then_remembered(derivation: Derivation) -> None:
    async def ask() -> None:
        keeper = KeyKeeper()
        first = await keeper.salted(JOE, b"salt", 2)
        assert first == await keeper.salted(JOE, b"salt", 2) == derive_salted_password(JOE, b"salt", 2)
        keeper.close()

    play(ask())
    assert [name.split("_")[0] for name in derivation.threads] == ["keys"]


def test_another_password_salt_or_count_is_another_question(derivation: Derivation) -> None:
    async def ask() -> None:
        keeper = KeyKeeper()
        questions = [(JOE, b"salt", 2), (Secret("x"), b"salt", 2), (JOE, b"s", 2), (JOE, b"salt", 3)]
        answers = [await keeper.salted(*each) for each in questions]
        answers.append(await keeper.salted(Secret("fish"), b"saltsword", 2))
        assert len(set(answers)) == 5
        keeper.close()

    play(ask())


def test_equal_questions_at_the_same_time_are_one_job(derivation: Derivation) -> None:
    async def ask() -> None:
        keeper = KeyKeeper()
        answers = await asyncio.gather(*(keeper.salted(JOE, b"salt", 2) for _ in range(10)))
        assert len(set(answers)) == 1
        keeper.close()

    play(ask())
    assert len(derivation.threads) == 1


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_who_waits_gets_an_answer_even_if_the_one_who_asked_is_gone(derivation: Derivation) -> None:
    async def ask() -> None:
        keeper = KeyKeeper()
        derivation.gate.clear()
        first, second = (asyncio.ensure_future(keeper.salted(JOE, b"salt", 2)) for _ in range(2))
        await turns()
        first.cancel()
        await turns()
        derivation.gate.set()
        assert await second == derive_salted_password(JOE, b"salt", 2)
        assert first.cancelled()
        keeper.close()

    play(ask())


def test_a_flood_that_leaves_again_queues_no_more_work_than_there_are_threads(derivation: Derivation) -> None:
    async def flood() -> None:
        keeper = KeyKeeper(threads=2)
        derivation.gate.clear()
        for number in range(50):
            wrong = asyncio.ensure_future(keeper.salted(Secret(str(number)), b"salt", 2))
            await turns(5)
            wrong.cancel()
            await turns(5)
        derivation.gate.set()
        assert await keeper.salted(JOE, b"salt", 2)
        keeper.close()

    play(flood())
    assert len(derivation.threads) == 3


def test_only_so_many_keys_are_remembered_and_those_used_last_stay(derivation: Derivation) -> None:
    async def ask() -> None:
        keeper = KeyKeeper(capacity=3)
        await keeper.salted(JOE, b"salt", 2)
        for number in range(10):
            await keeper.salted(Secret(str(number)), b"salt", 2)
            await keeper.salted(JOE, b"salt", 2)
            assert len(keeper) <= 3
        keeper.close()

    play(ask())
    assert len(derivation.threads) == 11


def test_a_verifier_of_a_plain_secret_fits_it_and_stays_the_same() -> None:
    async def ask() -> None:
        keeper = KeyKeeper(iterations=2)
        verifier = await keeper.verifier_for("joe", JOE)
        assert verifier == await keeper.verifier_for("joe", JOE)
        assert is_scram_password(verifier, derive_salted_password(JOE, verifier.salt, 2))
        other = await keeper.verifier_for("jim", JOE)
        assert other.salt != verifier.salt
        assert (await keeper.verifier_for("joe", JOE, like=other)) == other
        keeper.close()

    play(ask())


def test_a_user_has_the_same_salt_before_he_exists_and_after() -> None:
    async def ask() -> None:
        keeper = KeyKeeper(iterations=2, mock_key=b"key")
        assert keeper.mock("joe").salt == (await keeper.verifier_for("joe", JOE)).salt
        assert keeper.mock("joe") == KeyKeeper(iterations=2, mock_key=b"key").mock("joe")
        assert keeper.mock("joe").salt != KeyKeeper(iterations=2).mock("joe").salt
        keeper.close()

    play(ask())


def test_a_mock_is_made_once_and_few_are_remembered(monkeypatch):
    monkeypatch.setattr("proxy.auth.keys.MAX_MOCKS", 2)
    keeper = KeyKeeper(iterations=2, mock_key=b"key")
    joe = keeper.mock("joe")
    assert keeper.mock("joe") is joe
    assert keeper.mock("joe", 1) != joe
    assert keeper.mock("ann") != joe
    assert len(keeper._mocks) == 1, "those before are forgotten"
    assert keeper.mock("joe") == joe
    keeper.mock("x" * 1000)
    keeper.iterations = 3
    assert keeper.mock("joe").iterations == 3
    assert not any(len(name) > 200 for name, _ in keeper._mocks)


def test_warm_keys_are_derived_before_anybody_asks(derivation: Derivation) -> None:
    scram = parse_stored("SCRAM-SHA-256$2:c2FsdA==$" + "A" * 43 + "=:" + "A" * 43 + "=")

    async def warm() -> None:
        keeper = KeyKeeper(iterations=2)
        users = {"joe": (Plain(JOE),), "jim": (Md5("0" * 32), scram), "ann": (Plain(Secret("")),)}
        await keeper.warm(users.items())
        assert len(derivation.threads) == 1
        await keeper.verifier_for("joe", JOE)
        assert len(derivation.threads) == 1
        keeper.close()

    play(warm())


def test_a_keeper_that_is_closed_derives_no_more() -> None:
    async def ask() -> None:
        keeper = KeyKeeper(threads=1)
        keeper.close()
        for _ in range(3):
            with pytest.raises(RuntimeError):
                await keeper.salted(JOE, b"salt", 2)

    play(ask())


def test_nothing_in_a_keeper_holds_the_password() -> None:
    async def ask() -> None:
        keeper = KeyKeeper()
        await keeper.salted(JOE, b"salt", 2)
        assert b"swordfish" not in repr(vars(keeper)).encode()
        keeper.close()

    play(ask())


@pytest.mark.skipif(sys.platform != "linux", reason="only there a thread has a priority of its own")
def test_hashing_takes_only_what_the_event_loop_leaves() -> None:
    keeper = KeyKeeper(2)
    try:
        found = [keeper._threads.submit(os.getpriority, os.PRIO_PROCESS, 0).result() for _ in range(4)]
    finally:
        keeper.close()
    assert found == [max(NICE, os.getpriority(os.PRIO_PROCESS, 0))] * 4
