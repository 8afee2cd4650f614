"""A client with a token, or without: the conversation, message by message, and what the log has of it."""

import asyncio
import json
from typing import Any

import pytest

from protocol import codes
from protocol.backend import build_authentication, build_sasl, parse_authentication
from protocol.errors import ProtocolError, Refused
from protocol.frontend import build_query, build_sasl_initial, build_sasl_response
from protocol.passwords import Secret
from proxy.auth.oauth import TokenWanted, is_private, verify_bearer
from proxy.config.outside import OauthRules
from proxy.inbox import PeerGone
from proxy.log import UNIX
from tests.extras import need
from tests.proxy.auth.wire import alone, joined, play, wired

need("jwt", "cryptography")

from tests.proxy.auth.issuer import ISSUER, token  # noqa: E402
from tests.proxy.auth.test_tokens import Gone, Keys, rules  # noqa: E402

FAILED = '28000 OAuth bearer authentication failed for user "anna"'
ASKED = build_sasl(["OAUTHBEARER"])


def first(shown: Secret | str) -> bytes:
    text = shown if isinstance(shown, str) else f"Bearer {shown.reveal()}"
    return build_sasl_initial("OAUTHBEARER", f"n,,\x01auth={text}\x01\x01".encode())


DUMMY = build_sasl_response(b"\x01")


def converse(*said: bytes, user: str = "anna", host: str = "127.0.0.1", keys: Any = None, **more: Any) -> tuple:
    """(the refusal or nothing, what we sent)."""

    async def scene() -> tuple[str, bytes, Any]:
        inbox = alone(b"".join(said))
        try:
            await verify_bearer(inbox, user, rules(**more), keys or Keys(), host)
        except Refused as no:
            return f"{no.sqlstate} {no.sentence}", wired(inbox).written, no
        return "", wired(inbox).written, None

    return play(scene())


def test_a_good_token_is_all_it_takes() -> None:
    assert converse(first(token())) == ("", ASKED, None)


def test_a_client_without_a_token_hears_where_they_are_had_and_that_is_no_failed_login() -> None:
    heard, sent, refusal = converse(first(""), DUMMY)
    assert heard == FAILED
    assert isinstance(refusal, TokenWanted)
    code, data = parse_authentication(sent[len(ASKED) + 5 :])
    assert code == codes.AUTH_SASL_CONTINUE
    assert json.loads(data) == {
        "status": "invalid_token",
        "openid-configuration": f"{ISSUER}/.well-known/openid-configuration",
        "scope": "db",
    }


@pytest.mark.parametrize(
    "shown", [token(sub="bert"), token(exp=-100), token(number=1), Secret("e30"), "Basic e30", "Bearer"]
)
def test_whatever_is_wrong_the_client_hears_the_same(shown: Any) -> None:
    heard, sent, refusal = converse(first(shown), DUMMY)
    reference = converse(first(""), DUMMY)
    assert (heard, sent) == reference[:2]
    assert not isinstance(refusal, TokenWanted)
    assert refusal.note
    assert not refusal.detail
    assert not refusal.hint


def test_the_token_is_not_in_what_the_log_hears() -> None:
    shown = token(exp=-100)
    _, _, refusal = converse(first(shown), DUMMY)
    assert refusal.note == "it has expired"
    assert shown.reveal() not in repr(refusal)


def test_keys_that_cannot_be_had_let_nobody_in() -> None:
    heard, _, refusal = converse(first(token()), DUMMY, keys=Gone())
    assert heard == FAILED
    assert "cannot be had" in refusal.note


def test_a_client_that_sends_no_initial_response_is_asked_for_it() -> None:
    body = f"n,,\x01auth=Bearer {token().reveal()}\x01\x01".encode()
    heard, sent, _ = converse(build_sasl_initial("OAUTHBEARER", None), build_sasl_response(body))
    assert heard == ""
    assert sent == ASKED + build_authentication(codes.AUTH_SASL_CONTINUE)


@pytest.mark.parametrize("answer", [b"", b"\x01\x01", b"n,,\x01auth=\x01\x01"])
def test_bad_news_has_one_answer(answer: bytes) -> None:
    with pytest.raises(ProtocolError, match="malformed OAUTHBEARER message"):
        converse(first(""), build_sasl_response(answer))


def test_a_second_token_on_the_same_connection_is_not_looked_at() -> None:
    with pytest.raises(ProtocolError):
        converse(first(""), build_sasl_response(f"n,,\x01auth=Bearer {token().reveal()}\x01\x01".encode()))


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "OAUTHBEARER-PLUS", "oauthbearer", ""])
def test_a_mechanism_we_did_not_offer_is_refused(mechanism: str) -> None:
    heard, _, _ = converse(build_sasl_initial(mechanism, b"n,,\x01auth=\x01\x01"))
    assert heard == "08P01 client selected an invalid SASL authentication mechanism"


def test_another_message_ends_the_login() -> None:
    assert converse(build_query("SELECT 1"))[0] == "08P01 expected SASL response, got message type 'Q'"
    assert converse(first(""), build_query("SELECT 1"))[0] == "08P01 expected SASL response, got message type 'Q'"


def test_a_message_without_end_is_not_waited_for() -> None:
    with pytest.raises(ProtocolError, match="invalid message length"):
        converse(b"p\x00\x02\x00\x00")


@pytest.mark.parametrize("host", ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "0.0.0.0", "db.example.com"])
def test_over_a_line_that_others_read_no_token_is_asked_for(host: str) -> None:
    heard, sent, refusal = converse(first(token()), host=host)
    assert (heard, sent) == ("28000 SSL required", b"")
    assert "oauth_allow_plain" in refusal.hint
    assert converse(first(token()), host=host, oauth_allow_plain=True)[0] == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", UNIX])
def test_this_machine_is_no_such_line(host: str) -> None:
    assert converse(first(token()), host=host)[0] == ""


def test_but_not_because_a_balancer_says_so() -> None:
    inbox = alone()
    peer = ("192.0.2.1", 5432)
    wired(inbox).get_extra_info = lambda name, default=None: {"peername": peer}.get(name)  # type: ignore[method-assign]
    assert not is_private(inbox, "127.0.0.1")


def test_nor_is_one_with_tls() -> None:
    inbox = alone()
    assert not is_private(inbox, "192.0.2.1")
    wired(inbox).get_extra_info = lambda name, default=None: {"ssl_object": object()}.get(name)  # type: ignore[method-assign]
    assert is_private(inbox, "192.0.2.1")


def test_a_client_that_leaves_to_fetch_a_token_is_gone() -> None:
    async def scene() -> None:
        us, client = joined()
        client.write(first(""))
        client.close()
        said: OauthRules = rules()
        with pytest.raises(PeerGone):
            await asyncio.wait_for(verify_bearer(us, "anna", said, Keys(), "127.0.0.1"), 1)  # type: ignore[arg-type]

    play(scene())
