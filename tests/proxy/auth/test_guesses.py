"""Guessing takes time, and honest clients do not pay for it. Each attack is one that works without the delay."""

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from protocol import sqlstate
from protocol.errors import ProtocolError, Refused
from proxy.auth.guesses import (
    ADDRESS_FREE,
    ADDRESS_MOST,
    CAPACITY,
    FIRST,
    MEMORY,
    PAIR_FREE,
    PAIR_MOST,
    Attempt,
    Guesses,
    neighbourhood,
)
from proxy.auth.oauth import TokenRefused, TokenWanted
from proxy.config.kinds import AuthType
from proxy.config.settings import Settings
from proxy.inbox import Inbox, PeerGone
from proxy.log import Address
from tests.fakes import FakeClock, FakeLog, FakeLoop
from tests.proxy.auth.wire import alone

HOME, ELSEWHERE = ("10.0.0.7", 1), ("10.0.0.8", 1)


class Town:
    """A loop whose time moves when told, and attempts to log in. `heard` is what each attempt has come to."""

    def __init__(self, **settings: Any) -> None:
        self.clock = FakeClock()
        self.loop = FakeLoop(self.clock)  # type: ignore[abstract]
        self.log = FakeLog()
        self.settings = Settings(**{"auth_type": AuthType.SCRAM, **settings})
        self.guesses = Guesses(SimpleNamespace(clock=self.clock, settings=self.settings, log=self.log))
        self.heard: list[str] = []
        self.asked = 0
        self.refusal = Refused(sqlstate.INVALID_PASSWORD, "no")

    def begin(self, *, right: bool = False, address: tuple[str, int] = HOME, user: str = "anna") -> Inbox:
        """Somebody tries; what he says is right or wrong. He is answered when his time has come."""
        inbox = alone()
        with self.loop.running():
            self.loop.create_task(self._try(inbox, right, address, user))
            self.loop.turn()
        return inbox

    async def _try(self, inbox: Inbox, right: bool, address: tuple[str, int], user: str) -> None:
        try:
            async with self.guesses.attempt(address, user, inbox):
                self.asked += 1
                await self._answer(inbox)
                if not right:
                    raise self.refusal
        except Refused as no:
            self.heard.append(no.sqlstate)
        except PeerGone:
            self.heard.append("gone")
        else:
            self.heard.append("welcome")

    async def _answer(self, inbox: Inbox) -> None:
        pass

    def pass_time(self, seconds: float) -> None:
        with self.loop.running():
            for _ in range(10):
                self.clock.advance(seconds / 10)
                self.loop.turn()

    def fail(self, times: int, **who: Any) -> None:
        """So many failures, each after its wait."""
        for _ in range(times):
            before = len(self.heard)
            self.begin(**who)
            while len(self.heard) == before:
                self.pass_time(0.5)

    def measure(self, **who: Any) -> float:
        """How long a right password takes."""
        began, before = self.clock.now(), len(self.heard)
        self.begin(right=True, **who)
        while len(self.heard) == before:
            self.pass_time(0.01)
        assert self.heard[-1] == "welcome"
        return self.clock.now() - began


@pytest.mark.parametrize(("kind", "is_guess"), [(TokenRefused, True), (TokenWanted, False), (Refused, False)])
def test_a_bad_token_is_a_guess_and_a_question_for_one_is_none(kind: type[Refused], is_guess: bool) -> None:
    town = Town(auth_type=AuthType.OAUTH)
    town.refusal = kind(sqlstate.INVALID_AUTHORIZATION, "no")
    for _ in range(PAIR_FREE + 1):
        town.begin()
    town.begin()
    assert town.asked == (PAIR_FREE + 1 if is_guess else PAIR_FREE + 2)


@pytest.fixture(name="town")
def _town() -> Town:
    return Town()


def test_the_first_failures_cost_nothing(town: Town) -> None:
    for _ in range(PAIR_FREE):
        town.begin()
    assert town.heard == ["28P01"] * PAIR_FREE
    assert town.guesses.delayed == 0


def test_then_each_attempt_waits_twice_as_long_up_to_the_setting(town: Town) -> None:
    town.fail(PAIR_FREE + 1)
    waits = []
    for _ in range(8):
        began = town.clock.now()
        before = len(town.heard)
        town.begin()
        while len(town.heard) == before:
            town.pass_time(0.05)
        waits.append(round(town.clock.now() - began, 1))
    assert waits == pytest.approx([FIRST, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0], abs=0.06)


def test_a_dictionary_takes_ages(town: Town) -> None:
    began = town.clock.now()
    town.fail(60)
    assert town.clock.now() - began > 50 * 5


def test_the_wait_is_before_the_question_and_so_tells_nothing_about_the_answer(town: Town) -> None:
    town.fail(PAIR_FREE + 3)
    asked = town.asked
    town.begin(right=True)
    assert town.asked == asked, "it is not even asked yet"
    town.pass_time(2.0)
    assert town.heard[-1] == "welcome"


def test_many_at_once_gain_nothing(town: Town) -> None:
    town.fail(PAIR_FREE + 8)
    town.heard.clear()
    asked = town.asked
    for _ in range(500):
        town.begin()
    assert town.asked == asked
    assert not town.heard, "a flood that is refused at once comes back at once"
    town.pass_time(6.0)
    assert town.heard.count("53300") == 500 - PAIR_MOST
    assert town.asked == asked + PAIR_MOST
    assert town.guesses.refused == 500 - PAIR_MOST


class Patient(Town):
    """Where everybody is asked at once, and answers when told."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def _answer(self, inbox: Inbox) -> None:
        await self.gate.wait()


def test_nor_when_all_have_been_asked_before_the_first_has_failed() -> None:
    town = Patient()
    for _ in range(200):
        town.begin()
    town.begin(right=True)
    assert town.asked == 201
    with town.loop.running():
        town.gate.set()
        town.loop.turn()
    assert town.heard == ["28P01"] * (PAIR_FREE + 1), "nobody learns more until he has waited"
    town.pass_time(6.0)
    assert town.heard.count("53300") == 201 - PAIR_FREE - 1 - PAIR_MOST


def test_a_right_password_from_elsewhere_is_never_delayed(town: Town) -> None:
    town.fail(30)
    for _ in range(50):
        town.begin()
    assert town.measure(address=ELSEWHERE) == pytest.approx(0, abs=0.02)


def test_a_success_wipes_out_the_failures_of_its_pair(town: Town) -> None:
    town.fail(PAIR_FREE + 2)
    assert town.measure() >= 0.4
    assert town.measure() == pytest.approx(0, abs=0.02)


def test_trying_many_users_counts_for_the_address(town: Town) -> None:
    for number in range(ADDRESS_FREE + 6):
        town.fail(1, user=f"user{number}")
    assert town.measure(user="a user never seen") >= 4
    assert town.measure(user="a user never seen", address=ELSEWHERE) == pytest.approx(0, abs=0.02)


def test_who_has_logged_in_before_does_not_pay_for_what_others_do_at_his_address(town: Town) -> None:
    town.measure(user="honest")
    for number in range(ADDRESS_FREE + 6):
        town.fail(1, user=f"user{number}")
    assert town.measure(user="honest") == pytest.approx(0, abs=0.02)


def test_an_account_of_his_own_gives_an_attacker_no_more_guesses(town: Town) -> None:
    for number in range(ADDRESS_FREE + 6):
        town.fail(1, user=f"user{number}")
        town.measure(user="mallory")
    assert town.measure(user="a user never seen") >= 4


def test_an_application_with_a_wrong_password_does_not_slow_down_its_neighbours(town: Town) -> None:
    town.fail(ADDRESS_FREE * 3, user="misconfigured")
    assert town.measure(user="a user never seen") == pytest.approx(0, abs=0.02)


def test_all_is_forgotten_after_a_while(town: Town) -> None:
    town.fail(PAIR_FREE + 5)
    town.clock.advance(MEMORY + 1)
    assert town.measure() == pytest.approx(0, abs=0.02)
    assert list(town.guesses.report()) == []


def test_who_leaves_while_he_waits_holds_nothing(town: Town) -> None:
    town.fail(PAIR_FREE + 8)
    inbox = town.begin()
    ((_, _, near, _), (_, _, own, _)) = town.guesses.report()
    assert (near.waiting, own.waiting) == (1, 1)
    with town.loop.running():
        inbox.eof_received()
        town.loop.turn()
    assert (near.waiting, own.waiting) == (0, 0)


def test_who_says_all_at_once_and_closes_his_half_is_not_heard_sooner(town: Town) -> None:
    town.fail(PAIR_FREE + 5)
    asked, town.heard = town.asked, []
    for right in (False, True):
        inbox = alone()
        inbox.eof_received()
        with town.loop.running():
            town.loop.create_task(town._try(inbox, right, HOME, "anna"))
            town.loop.turn()
    assert town.heard == ["gone", "gone"]
    assert town.asked == asked


def test_who_leaves_before_he_hears_that_he_was_wrong_has_failed_all_the_same() -> None:
    town = Patient()
    callers = [town.begin() for _ in range(30)]
    with town.loop.running():
        town.gate.set()
        town.loop.turn()
        for inbox in callers:
            inbox.eof_received()
        town.loop.turn()
    assert town.guesses.failed == 30


def test_memory_is_bounded(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CAPACITY <= 10_000
    monkeypatch.setattr("proxy.auth.guesses.CAPACITY", 100)
    for number in range(150):
        town.begin(address=(f"10.0.0.{number}", 1))
    assert len(town.guesses.pairs) == len(town.guesses.addresses) == 100


def test_the_delay_is_told_when_it_begins_and_when_it_is_full(town: Town) -> None:
    town.fail(PAIR_FREE + 12)
    assert town.log.lines == [
        f"WARNING logins user=anna from 10.0.0.7 are delayed by 0.2 s: {PAIR_FREE + 1} have failed",
        f"WARNING logins user=anna from 10.0.0.7 are delayed by 5.0 s: {PAIR_FREE + 6} have failed",
    ]


def test_the_whole_address_waits_in_no_longer_a_line_than_this(town: Town) -> None:
    for number in range(ADDRESS_FREE + 10):
        town.fail(1, user=f"user{number}")
    town.heard.clear()
    for number in range(300):
        town.begin(user=f"other{number}")
    town.pass_time(6.0)
    assert town.heard.count("53300") == 300 - ADDRESS_MOST


def test_it_can_be_turned_off_and_is_where_nothing_is_asked() -> None:
    for town in (Town(auth_failure_delay=None), Town(auth_type=AuthType.TRUST), Town(auth_type=AuthType.ANY)):
        for _ in range(100):
            town.begin()
        assert town.heard == ["28P01"] * 100
        assert town.guesses.delayed == 0


def test_a_login_that_waits_is_still_in_time() -> None:
    assert Town(auth_failure_delay=30.0, client_login_timeout=20.0).guesses.longest == 5.0
    assert Town(auth_failure_delay=30.0, client_login_timeout=None).guesses.longest == 30.0


@pytest.mark.parametrize("error", [Refused(sqlstate.INVALID_AUTHORIZATION, "no"), ProtocolError("what?")])
def test_only_a_wrong_password_counts(town: Town, error: Exception) -> None:
    async def attempt() -> None:
        with suppress(Refused, ProtocolError):
            async with town.guesses.attempt(HOME, "anna", alone()):
                raise error

    with town.loop.running():
        for _ in range(20):
            town.loop.create_task(attempt())
        town.loop.turn()
    assert town.guesses.failed == 0


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        (("10.0.0.7", 1), ("10.0.0.7", 2), True),
        (("10.0.0.7", 1), ("10.0.0.8", 1), False),
        (("2001:db8::1", 1), ("2001:db8::ffff:1", 1), True),
        (("2001:db8::1", 1), ("2001:db8:0:1::1", 1), False),
        (("fe80::1%eth0", 1), ("fe80::2%eth0", 1), True),
        (Address.of_unix(6432, 10, 1000), Address.of_unix(6432, 11, 1000), True),
        (Address.of_unix(6432, 10, 1000), Address.of_unix(6432, 10, 1001), False),
        (("::ffff:10.0.0.7", 1), ("::ffff:10.0.0.8", 1), False),
        (("::ffff:10.0.0.7", 1), ("10.0.0.7", 2), True),
    ],
)
def test_who_counts_as_one(one: tuple[str, int], other: tuple[str, int], are_one: bool) -> None:
    assert (neighbourhood(one) == neighbourhood(other)) is are_one


def test_a_question_that_is_put_at_once_waits_where_an_attempt_would(town: Town) -> None:
    guesses = town.guesses
    assert guesses.begin(HOME, "anna") == Attempt((HOME[0], "anna"), 0)
    town.fail(PAIR_FREE)
    assert guesses.begin(HOME, "anna") == Attempt((HOME[0], "anna"), PAIR_FREE)
    town.fail(1)
    assert guesses.begin(HOME, "anna") is None
    assert guesses.begin(HOME, "bob") is not None
    assert guesses.begin(("10.9.9.9", 1), "anna") is not None
    town.pass_time(MEMORY + 1)
    assert guesses.begin(HOME, "anna") == Attempt((HOME[0], "anna"), 0)


def test_of_an_address_where_many_have_failed_only_those_who_are_known_are_asked_at_once(town: Town) -> None:
    assert town.guesses.end_well(Attempt((HOME[0], "anna"), 0))
    for number in range(ADDRESS_FREE + 1):
        town.fail(1, user=f"user{number}")
    assert town.guesses.begin(HOME, "bob") is None
    assert town.guesses.begin(HOME, "anna") is not None


def test_a_right_answer_ends_well_unless_others_have_failed_meanwhile(town: Town) -> None:
    guesses = town.guesses
    first = guesses.begin(HOME, "anna")
    assert first is not None
    assert guesses.end_well(first)
    record = guesses.pairs.find((HOME[0], "anna"), 0.0)
    assert record is not None
    assert record.is_known
    town.fail(PAIR_FREE)
    second = guesses.begin(HOME, "anna")
    assert second is not None
    town.fail(1)
    assert not guesses.end_well(second)
    assert record.failures == PAIR_FREE + 1, "and is not forgotten for that"


def test_who_is_right_again_is_forgotten_last(town: Town) -> None:
    for user in ("anna", "bob", "anna"):
        attempt = town.guesses.begin(HOME, user)
        assert attempt is not None
        assert town.guesses.end_well(attempt)
    assert [user for _, user in town.guesses.pairs._records] == ["bob", "anna"]
