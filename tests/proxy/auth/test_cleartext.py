"""A password as it is: asked for, held as a secret, and never empty."""

import pytest

from protocol.backend import build_authentication_cleartext
from protocol.errors import ProtocolError, Refused
from protocol.frontend import build_password, build_query
from protocol.passwords import Secret
from proxy.auth.cleartext import cannot_ask, wait_password
from proxy.auth.verify import wrong_password
from tests.proxy.auth.wire import alone, play, wired


def answer(*said: bytes) -> Secret:
    async def scene() -> Secret:
        inbox = alone(b"".join(said))
        password = await wait_password(inbox, "anna")
        assert wired(inbox).written == build_authentication_cleartext()
        return password

    return play(scene())


def test_the_password_is_asked_for_and_does_not_show() -> None:
    password = answer(build_password("swordfish"))
    assert password == Secret("swordfish")
    assert "swordfish" not in repr(password)


def test_bytes_that_are_not_utf8_are_a_password_too() -> None:
    assert answer(build_password(b"gr\xfcn")).encode() == b"gr\xfcn"


def test_an_empty_password_is_refused_before_anybody_is_asked() -> None:
    with pytest.raises(Refused) as refused:
        answer(build_password(""))
    assert (refused.value.sqlstate, refused.value.sentence) == (
        "28P01",
        'password authentication failed for user "anna"',
    )


def test_another_message_is_none() -> None:
    with pytest.raises(Refused, match="expected password response"):
        answer(build_query("SELECT 1"))
    with pytest.raises(ProtocolError):
        answer(b"p\xff\xff\xff\xff")
    with pytest.raises(ProtocolError):
        answer(b"p\x00\x00\x00\x08a\0b\0")


def test_what_went_wrong_is_for_the_log() -> None:
    assert wrong_password("anna", "unknown").note == "unknown"
    assert "unknown" not in wrong_password("anna", "unknown").sentence
    assert cannot_ask("anna", "LDAP", "timed out").sqlstate == "28000"
