"""
A client shows a bearer token (SASL mechanism OAUTHBEARER, auth_type or HBA method `oauth`).

Theory. A token is a password for as long as it is valid: who reads it can use it. So it is not even asked for over a
connection that others could read, unless the operator says so. What is wrong with a token is told to our log alone; the
client hears PostgreSQL's one sentence, after the detour through the JSON that says where tokens are had.

A client without a token asks for that JSON on purpose, and comes back with one: `TokenWanted`, which is no failed login
and must not be counted as one.

To PostgreSQL nobody here has a password, so the database's entry must name one (user= and password=).
"""

import ipaddress
from typing import Final

from protocol import sqlstate
from protocol.backend import build_sasl, build_sasl_continue
from protocol.errors import Refused
from protocol.frontend import parse_sasl_initial, parse_sasl_response
from protocol.oauth import MAX_MESSAGE_LENGTH, MECHANISM, build_failure, check_dummy, parse_client_first
from protocol.passwords import Secret
from proxy.auth.jwks import KeySet
from proxy.auth.tokens import BadToken, MayBe, check_token
from proxy.auth.verify import wait_answer
from proxy.config.outside import OauthRules
from proxy.inbox import Inbox
from proxy.log import UNIX, unmapped
from proxy.tls import is_encrypted

MAX_MESSAGE: Final = MAX_MESSAGE_LENGTH + 64  # its length, and the mechanism's name


class TokenRefused(Refused):
    """The client has shown a token, and it does not do. As good as a wrong password to whoever counts guesses."""


class TokenWanted(Refused):
    """The client has asked where tokens are had, and has been told: it will come back with one."""


async def verify_bearer(
    inbox: Inbox, user: str, rules: OauthRules, keys: KeySet, host: str, may_be: MayBe | None = None
) -> None:
    """
    Let the client prove that it is `user`. `host` is where it comes from; `may_be` says whom the issuer may call what
    for that, by default by the very name.

    Refused: 28000, for whatever reason; the reason is its `note`. ProtocolError, PeerGone: as of `verify_client`.
    """
    if not rules.allow_plain and not is_private(inbox, host):
        raise Refused(
            sqlstate.INVALID_AUTHORIZATION,
            "SSL required",
            detail="A token that travels without TLS can be used by whoever reads it on its way.",
            hint="Connect with sslmode=verify-full, or have oauth_allow_plain set.",
        )
    token = parse_client_first(await _wait_first(inbox))
    why = await _judge(token, rules, keys, may_be or user.__eq__)
    if why is None:
        return
    inbox.write(build_sasl_continue(build_failure(rules.issuer, " ".join(rules.scope))))
    check_dummy(await _wait_data(inbox))
    raise _refusal(user, why, is_question=token is not None and not token)


async def _judge(token: Secret | None, rules: OauthRules, keys: KeySet, may_be: MayBe) -> str | None:
    """Why `token` does not let its bearer in; None when it does."""
    if not token:
        return "no token: the client has been told where they are had" if token is not None else "it is no bearer token"
    try:
        await check_token(token, rules, keys, may_be)
    except BadToken as bad:
        return str(bad)
    return None


def _refusal(user: str, why: str, *, is_question: bool) -> Refused:
    kind = TokenWanted if is_question else TokenRefused
    return kind(sqlstate.INVALID_AUTHORIZATION, f'OAuth bearer authentication failed for user "{user}"', note=why)


async def _wait_first(inbox: Inbox) -> bytes:
    inbox.write(build_sasl([MECHANISM]))
    initial = parse_sasl_initial(await _wait_data(inbox))
    if initial.mechanism != MECHANISM:
        raise Refused(sqlstate.PROTOCOL_VIOLATION, "client selected an invalid SASL authentication mechanism")
    if initial.data is not None:
        return initial.data
    inbox.write(build_sasl_continue(b""))
    return await _wait_data(inbox)


async def _wait_data(inbox: Inbox) -> bytes:
    return parse_sasl_response(await wait_answer(inbox, "SASL", MAX_MESSAGE))


def is_private(inbox: Inbox, host: str) -> bool:
    """Can nobody else read what this client sends? It speaks TLS, or does not leave this machine, as the socket says
    too: `host` may be what a balancer says of it."""
    if host == UNIX or is_encrypted(inbox.transport):
        return True
    peer = inbox.transport.get_extra_info("peername")
    return _is_loopback(host) and (not isinstance(peer, tuple) or _is_loopback(unmapped(str(peer[0]))))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
