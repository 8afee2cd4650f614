"""
A client logs in to us: how it is asked, and whether we believe it.

Theory. `verify_client` is one conversation: a question by the configured method, one or two answers, a verdict.
The method says how we ask; the stored secret says how we can check. As in PgBouncer:

    method          stored: plain         md5                 SCRAM verifier       unknown user
    trust, any      nothing is asked
    plain           compare               md5 it, compare     PBKDF2, compare      PBKDF2, never right
    md5             md5 exchange          md5 exchange        SCRAM exchange       the exchange most users have
    scram-sha-256   verifier made of it   mock, never right   SCRAM exchange       mock, never right

A SCRAM exchange over TLS can be bound to our certificate (SCRAM-SHA-256-PLUS), and is if the client can too.

Nobody learns from us who exists. A user who is unknown, who has no usable secret or whose secret is of the
wrong kind goes through the exchange to its end, and hears the very words of a wrong password. Time tells
nothing either: a wrong cleartext password costs one PBKDF2 for everybody, a SCRAM exchange none for anybody
once the verifiers of plain secrets are made (KeyKeeper.warm).

A password that is wrong may be newer than what we know: `Claim.renew` asks once more where there is somebody to ask,
whoever it is that claims to be somebody. A password or its md5 is then held against what came of it; under SCRAM the
client has been told the old salt, so it is refused, and its next try meets the new one.

The client is not yet anyone: each message has a bound, and all other kinds of message end the login.
AuthenticationOk is left to the caller, who sends it with the welcome in one write; what belongs right in
front of it is returned.
"""

import enum
import secrets
from typing import Final

from protocol import codes, sqlstate
from protocol.backend import (
    build_authentication_cleartext,
    build_authentication_md5,
)
from protocol.errors import Refused
from protocol.frontend import parse_password
from protocol.passwords import (
    MAX_STORED_LENGTH,
    LearntKeys,
    Md5,
    Plain,
    ScramKeys,
    ScramVerifier,
    Secret,
    is_md5_password,
    is_md5_response,
    is_plain_password,
    is_scram_password,
    md5_stored,
)
from protocol.scram import WrongPassword
from proxy.auth.binding import find_own_end_point
from proxy.auth.claim import Claim
from proxy.auth.exchange import MAX_SASL_MESSAGE, Exchange
from proxy.auth.keys import KeyKeeper
from proxy.auth.verifiers import verifiers_among, wait_verifiers
from proxy.inbox import Inbox

MAX_PASSWORD_MESSAGE: Final = MAX_STORED_LENGTH + 5  # its length, and the zero byte at its end


class AuthMethod(enum.Enum):
    """How a client is asked who it is; the values are those of `auth_type`."""

    TRUST = "trust"  # not at all, but the user must be known
    ANY = "any"  # not at all
    PLAIN = "plain"
    MD5 = "md5"
    SCRAM = "scram-sha-256"


async def verify_client(
    inbox: Inbox, claim: Claim, method: AuthMethod, keeper: KeyKeeper, begun: Exchange | None = None
) -> bytes:
    """
    Let the client prove that it is who it claims to be. Returns the bytes to send in front of AuthenticationOk; what
    it has shown of its password is in `claim` then. `begun` is its SCRAM exchange, if it has been asked already.

    Refused: 28P01 for a wrong password or unknown user, 28000 for an unknown user under trust and for a client that is
    bound to another certificate or believes that it cannot be bound, 08P01 for a message of another kind. ProtocolError
    for a malformed one. PeerGone when the client leaves, as psql does to ask its user.
    """
    if method is AuthMethod.ANY:
        return b""
    if method is AuthMethod.TRUST:
        return _trust(claim)
    if method is AuthMethod.PLAIN:
        return await _ask_cleartext(inbox, claim, keeper)
    if meets_scram(method, claim):
        return await _ask_scram(inbox, claim, keeper, begun)
    return await _ask_md5(inbox, claim)


def _trust(claim: Claim) -> bytes:
    if not claim.stored:
        raise Refused(sqlstate.INVALID_AUTHORIZATION, f'"trust" authentication failed for user "{claim.user}"')
    return b""


def meets_scram(method: AuthMethod, claim: Claim) -> bool:
    """Is this user asked by SCRAM? Under md5 that hangs on what is stored."""
    if method is not AuthMethod.MD5:
        return method is AuthMethod.SCRAM
    if not claim.usable:
        return claim.strangers_meet_scram
    return any(isinstance(each, ScramVerifier) for each in claim.usable)


async def _ask_cleartext(inbox: Inbox, claim: Claim, keeper: KeyKeeper) -> bytes:
    inbox.write(build_authentication_cleartext())
    password = Secret.decode(parse_password(await wait_answer(inbox, "password", MAX_PASSWORD_MESSAGE)))
    if not password:
        raise wrong_password(claim.user, "it is empty")
    is_right = await _is_right(password, claim, keeper)
    if not (is_right or (await claim.renew() and await _is_right(password, claim, keeper))):
        raise wrong_password(claim.user, _find_reason(claim))
    return b""


async def _is_right(password: Secret, claim: Claim, keeper: KeyKeeper) -> bool:
    usable = claim.usable
    for each in usable:
        if isinstance(each, Plain) and is_plain_password(each, password):
            claim.prove(each, each.secret)
            return True
        if isinstance(each, Md5) and is_md5_password(each, claim.user, password):
            claim.prove(each, each)
            return True
    for verifier in verifiers_among(usable) or [keeper.mock(claim.user)]:
        salted = await keeper.salted(password, verifier.salt, verifier.iterations)
        if is_scram_password(verifier, salted):
            keys = ScramKeys.from_salted_password(salted)
            claim.prove(verifier, LearntKeys(keys, verifier.salt, verifier.iterations))
            return True
    return False


async def _ask_md5(inbox: Inbox, claim: Claim) -> bytes:
    salt = secrets.token_bytes(4)
    inbox.write(build_authentication_md5(salt))
    response = parse_password(await wait_answer(inbox, "password", MAX_PASSWORD_MESSAGE))
    is_right = _is_right_response(claim, salt, response)
    if not (is_right or (await claim.renew() and _is_right_response(claim, salt, response))):
        raise wrong_password(claim.user, _find_reason(claim))
    return b""


def _is_right_response(claim: Claim, salt: bytes, response: bytes) -> bool:
    for each in claim.usable or [_mock_md5()]:
        if isinstance(each, Md5) and is_md5_response(each, salt, response):
            claim.prove(each, each)
            return True
        if isinstance(each, Plain) and is_md5_response(md5_stored(each.secret, claim.user), salt, response):
            claim.prove(each, each.secret)
            return True
    return False


def _mock_md5() -> Md5:
    return Md5(secrets.token_hex(16))


async def _ask_scram(inbox: Inbox, claim: Claim, keeper: KeyKeeper, begun: Exchange | None) -> bytes:
    exchange = begun or Exchange(claim, find_own_end_point(inbox.transport))
    if begun is None:
        inbox.write(exchange.question)
    if not exchange.is_open:
        answer = await wait_answer(inbox, "SASL", MAX_SASL_MESSAGE)
        exchange.check_choice(answer)
        exchange.verifiers = exchange.verifiers or await wait_verifiers(claim, keeper)
        inbox.write(exchange.open(answer))
    try:
        return exchange.close(await wait_answer(inbox, "SASL", MAX_SASL_MESSAGE))
    except WrongPassword:
        claim.miss()
        await claim.renew()  # for the next try: this one was told the salt of what we had
        raise wrong_password(claim.user, _find_reason(claim)) from None


async def wait_answer(inbox: Inbox, what: str, limit: int) -> bytes:
    """The body of a message of the kind that answers whatever has been asked. Refused (08P01): it is another one."""
    kind, body = await inbox.wait_message(limit)
    if kind != codes.PASSWORD:
        raise Refused(sqlstate.PROTOCOL_VIOLATION, f"expected {what} response, got message type {chr(kind)!r}")
    return body


def _find_reason(claim: Claim) -> str:
    """For our log alone: which of those was it that look the same from outside?"""
    if not claim.stored:
        return claim.why_nobody or "nobody of that name is known"
    return "it is not the stored one" if claim.usable else "the stored one is empty"


def wrong_password(user: str, note: str = "") -> Refused:
    """The words are those of every method; why, is for our log."""
    return Refused(sqlstate.INVALID_PASSWORD, f'password authentication failed for user "{user}"', note=note)
