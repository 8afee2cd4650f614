"""OAUTHBEARER's bytes: what RFC 7628 and libpq 18 say, what liars say, and that no error repeats a token."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ProtocolError
from protocol.oauth import MAX_MESSAGE_LENGTH, MAX_PAIRS, build_failure, check_dummy, parse_client_first
from protocol.passwords import Secret

TOKEN = "eyJhbGciOi.eyJpc3Mi._-~+/Q=="
GOOD = b"n,,\x01auth=Bearer " + TOKEN.encode() + b"\x01\x01"


def test_the_token_of_libpq_is_found_and_does_not_show() -> None:
    token = parse_client_first(GOOD)
    assert token == Secret(TOKEN)
    assert repr(token) == "***"


@pytest.mark.parametrize(
    "message",
    [
        b"n,,\x01host=db.example.com\x01port=5432\x01auth=Bearer " + TOKEN.encode() + b"\x01\x01",  # the RFC's own
        b"y,,\x01auth=bEARER   " + TOKEN.encode() + b"\x01\x01",
        b"n,,\x01what=ever \t\r\n\x01auth=Bearer " + TOKEN.encode() + b"\x01\x01",
    ],
)
def test_other_keys_and_other_spellings_are_no_hindrance(message: bytes) -> None:
    assert parse_client_first(message) == Secret(TOKEN)


def test_an_empty_auth_asks_where_tokens_are_had() -> None:
    assert parse_client_first(b"n,,\x01auth=\x01\x01") == Secret("")


@pytest.mark.parametrize(
    "auth", [b"Basic am9lOnB3", b"Bearer", b"Bearer ", b"Bearer a b", b"Bearer =", b"Bearer a=b", b" "]
)
def test_what_can_be_no_token_is_none_and_no_violation(auth: bytes) -> None:
    assert parse_client_first(b"n,,\x01auth=" + auth + b"\x01\x01") is None


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "begin"),
        (b"\x01", "begin"),
        (b"n,,", "begin"),
        (b"x,,\x01auth=\x01\x01", "begin"),
        (b"n,b,\x01auth=\x01\x01", "begin"),
        (b"p=tls-server-end-point,,\x01auth=\x01\x01", "channel binding"),
        (b"n,a=root,\x01auth=\x01\x01", "authorization identity"),
        (b"n,,\x01auth=", "end"),
        (b"n,,\x01auth=\x01", "end"),
        (b"n,,\x01auth=\x01\x01more", "end"),
        (b"n,,\x01auth=\x01\x01\x01", "key=value"),
        (b"n,,\x01\x01", "auth once"),
        (b"n,,\x01host=a\x01\x01", "auth once"),
        (b"n,,\x01auth=\x01auth=\x01\x01", "auth once"),
        (b"n,,\x01AUTH=\x01\x01", "auth once"),
        (b"n,,\x01auth\x01\x01", "key=value"),
        (b"n,,\x01=x\x01auth=\x01\x01", "key=value"),
        (b"n,,\x01a1=x\x01auth=\x01\x01", "key=value"),
        (b"n,,\x01auth=Bearer \x00\x01\x01", "key=value"),
        (b"n,,\x01auth=Bearer \xff\x01\x01", "key=value"),
        (b"n,,\x01" + b"a=b\x01" * (MAX_PAIRS + 1) + b"auth=\x01\x01", "more than"),
        (b"n,,\x01auth=Bearer " + b"a" * MAX_MESSAGE_LENGTH + b"\x01\x01", "longer than"),
    ],
)
def test_a_message_of_another_shape_is_refused_with_the_reason(message: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        parse_client_first(message)


def complaint_about(message: bytes) -> str:
    try:
        parse_client_first(message)
    except ProtocolError as error:
        return str(error)
    return ""


@given(st.binary(max_size=200), st.integers(0, 40))
def test_whatever_is_said_it_is_a_token_or_our_error_and_never_repeated(said: bytes, cut: int) -> None:
    for message in (said, GOOD[:cut] + said, GOOD[:cut] + said + GOOD[cut:]):
        assert TOKEN[:8] not in complaint_about(message)


@pytest.mark.parametrize("filler", [b"a" * 65_000, b"=" * 65_000, b" " * 65_000, b"a=" * 32_500])
def test_the_longest_message_is_read_in_one_pass(filler: bytes) -> None:
    """A pattern that ran back would need hours for the last two."""
    token = parse_client_first(b"n,,\x01auth=Bearer x" + filler + b"\x01\x01")
    assert (token is not None) == (filler[:1] in b"a=" and filler[1:2] == filler[:1])


def test_bad_news_is_json_whatever_the_settings_say() -> None:
    said = json.loads(build_failure('https://id.example.com/"}\n', "openid \\ é"))
    assert said == {
        "status": "invalid_token",
        "openid-configuration": 'https://id.example.com/"}\n/.well-known/openid-configuration',
        "scope": "openid \\ é",
    }


def test_an_issuer_that_names_its_document_is_left_as_it_is() -> None:
    issuer = "https://id.example.com/.well-known/oauth-authorization-server/alt"
    assert json.loads(build_failure(issuer, "db"))["openid-configuration"] == issuer


def test_only_the_byte_one_answers_bad_news() -> None:
    check_dummy(b"\x01")
    for other in (b"", b"\x01\x01", b"x", GOOD):
        with pytest.raises(ProtocolError):
            check_dummy(other)
