"""PAM's yes and no: by a fake of its library, whose modules ask as real ones do."""

import ctypes
from typing import Any

import pytest

from protocol.frontend import build_password
from protocol.passwords import Secret
from proxy.auth import pam
from proxy.auth.crew import Crew
from proxy.auth.pam import CannotAsk, Message, NotLetIn, Response, ask_pam, verify_by_pam
from proxy.config.outside import PamRules
from proxy.log import UNIX
from tests.proxy.auth.wire import alone, hear_of

QUESTION, NAME, ERROR, INFO = 1, 2, 3, 4
AUTH_ERROR, EXPIRED, UNKNOWN_MODULE, SYSTEM_ERROR = 7, 13, 28, 4


class FakePam:
    """libpam, with one module. It asks `questions` and believes an answer of `password` to each."""

    def __init__(self, password: bytes = b"swordfish") -> None:
        self.password = password
        self.questions = [QUESTION]
        self.answers: list[bytes | None] = []
        self.started: tuple[bytes, bytes] | None = None
        self.start_code = self.account_code = 0
        self.denial = AUTH_ERROR
        self.items: dict[int, Any] = {}
        self.ended: list[int] = []

    def pam_start(self, service: bytes, user: bytes, conversation: Any, handle: Any) -> int:
        self.started, self.conversation = (service, user), conversation._obj
        return self.start_code

    def pam_set_item(self, handle: Any, item: int, value: Any) -> int:
        self.items[item] = value
        return 0

    def pam_authenticate(self, handle: Any, flags: int) -> int:
        count = len(self.questions)
        held = [Message(style, b"Password: ") for style in self.questions]
        messages = (ctypes.POINTER(Message) * max(count, 1))(*map(ctypes.pointer, held))
        responses = ctypes.POINTER(Response)()
        code = self.conversation.converse(count, messages, ctypes.pointer(responses), None)
        if code:
            return int(code)
        self.answers = [ctypes.cast(responses[index].text, ctypes.c_char_p).value for index in range(count)]
        wanted = [self.password if style == QUESTION else None for style in self.questions]
        return 0 if self.answers == wanted else self.denial

    def pam_acct_mgmt(self, handle: Any, flags: int) -> int:
        return self.account_code

    def pam_strerror(self, handle: Any, code: int) -> bytes:
        return b"error %d" % code

    def pam_end(self, handle: Any, code: int) -> int:
        self.ended.append(code)
        return 0


@pytest.fixture(name="fake")
def _fake(monkeypatch: Any) -> FakePam:
    fake = FakePam()
    monkeypatch.setattr(pam, "_load", lambda: fake)
    return fake


def ask(password: str | bytes = "swordfish", host: str = "10.0.0.7") -> None:
    raw = password.encode() if isinstance(password, str) else password
    ask_pam("pgbouncer", "anna", Secret.decode(raw), host)


def test_the_right_password_is_answered_to_the_question_and_no_other_is_believed(fake: FakePam) -> None:
    ask()
    assert fake.started == (b"pgbouncer", b"anna")
    assert fake.answers == [b"swordfish"]
    assert fake.ended == [0]
    with pytest.raises(NotLetIn, match="PAM says: error 7"):
        ask("wrong")
    assert fake.ended == [0, AUTH_ERROR]


def test_passwords_are_bytes_and_a_long_one_is_not_cut(fake: FakePam) -> None:
    fake.password = b"gr\xfcn" * 10_000
    ask(fake.password)


def test_pam_may_ask_again_and_tell_things_that_nobody_answers(fake: FakePam) -> None:
    fake.questions = [INFO, QUESTION, ERROR, QUESTION]
    ask()
    assert fake.answers == [None, b"swordfish", None, b"swordfish"]


@pytest.mark.parametrize("questions", [[NAME], [QUESTION, NAME], [], [QUESTION] * 33])
def test_what_cannot_be_answered_ends_it(fake: FakePam, questions: list[int]) -> None:
    fake.questions = questions
    with pytest.raises(NotLetIn, match="error 19"):
        ask()
    assert fake.answers == []


def test_the_account_must_be_in_order_too(fake: FakePam) -> None:
    fake.account_code = EXPIRED
    with pytest.raises(NotLetIn, match="error 13"):
        ask()
    assert fake.ended == [EXPIRED]


def test_the_systems_trouble_is_nobodys_wrong_password(fake: FakePam) -> None:
    fake.denial = UNKNOWN_MODULE
    with pytest.raises(CannotAsk):
        ask("wrong")
    fake.denial = SYSTEM_ERROR  # of pam_exec, whose program says no
    with pytest.raises(NotLetIn):
        ask("wrong")
    fake.start_code = 26
    with pytest.raises(CannotAsk):
        ask()


def test_modules_hear_where_the_client_comes_from_and_that_nobody_wants_to_sleep(fake: FakePam) -> None:
    ask()
    assert ctypes.cast(fake.items[pam.ITEM_RHOST], ctypes.c_char_p).value == b"10.0.0.7"
    pam._Delay(fake.items[pam.ITEM_FAIL_DELAY].value)(7, 2_000_000, None)  # returns at once
    fake.items.clear()
    ask(host="")
    assert set(fake.items) == {pam.ITEM_FAIL_DELAY}


def test_without_the_library_nobody_can_be_asked(monkeypatch: Any) -> None:
    monkeypatch.setattr(pam, "LIBPAM", "libpam-of-nowhere.so.0")
    with pytest.raises(CannotAsk, match="libpam-of-nowhere"):
        ask()


def hear(password: str, host: str = "10.0.0.7") -> tuple[str, str]:
    async def ask() -> Secret:
        return await verify_by_pam(alone(build_password(password)), "anna", PamRules("db"), host, Crew("pam"))

    return hear_of(ask(), password)


def test_what_the_client_hears_and_what_the_log(fake: FakePam) -> None:
    assert hear("swordfish", UNIX) == ("", "")
    assert fake.started == (b"db", b"anna")
    wrong = '28P01 password authentication failed for user "anna"'
    assert hear("wrong") == (wrong, "PAM says: error 7")
    assert hear("") == (wrong, "it is empty")
    fake.denial = UNKNOWN_MODULE
    assert hear("wrong") == ('28000 PAM authentication failed for user "anna"', "PAM service db: PAM says: error 28")
