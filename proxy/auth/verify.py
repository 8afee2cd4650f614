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

The client is not yet anyone: each message has a bound, and all other kinds of message end the login.
AuthenticationOk is left to the caller, who sends it with the welcome in one write; what belongs right in
front of it is returned.
"""

import enum
import secrets
from collections.abc import Sequence
from typing import Final

from protocol import codes, sqlstate
from protocol.backend import (
    build_authentication_cleartext,
    build_authentication_md5,
    build_sasl,
    build_sasl_continue,
    build_sasl_final,
)
from protocol.errors import Refused
from protocol.frontend import parse_password, parse_sasl_initial, parse_sasl_response
from protocol.passwords import (
    MAX_STORED_LENGTH,
    Md5,
    Plain,
    ScramVerifier,
    Secret,
    Stored,
    is_md5_password,
    is_md5_response,
    is_plain_password,
    is_scram_password,
    md5_stored,
)
from protocol.scram import MAX_MESSAGE_LENGTH, ScramServer, WrongPassword, offered_with
from proxy.auth.binding import find_own_end_point
from proxy.auth.keys import KeyKeeper
from proxy.inbox import Inbox

MAX_PASSWORD_MESSAGE: Final = MAX_STORED_LENGTH + 5  # its length, and the zero byte at its end
MAX_SASL_MESSAGE: Final = MAX_MESSAGE_LENGTH + 64  # its length, and the mechanism's name


class AuthMethod(enum.Enum):
    """How a client is asked who it is; the values are those of `auth_type`."""

    TRUST = "trust"  # not at all, but the user must be known
    ANY = "any"  # not at all
    PLAIN = "plain"
    MD5 = "md5"
    SCRAM = "scram-sha-256"


async def verify_client(
    inbox: Inbox,
    user: str,
    method: AuthMethod,
    stored: Sequence[Stored],
    keeper: KeyKeeper,
    *,
    strangers_meet_scram: bool = False,
) -> bytes:
    """
    Let the client prove that it is `user`, whose secrets are `stored` (none: unknown). Returns the bytes to send
    in front of AuthenticationOk. `strangers_meet_scram` is Users.mostly_scram, and matters under md5 only.

    Refused: 28P01 for a wrong password or unknown user, 28000 for an unknown user under trust and for a client that is
    bound to another certificate or believes that it cannot be bound, 08P01 for a message of another kind. ProtocolError
    for a malformed one. PeerGone when the client leaves, as psql does to ask its user.
    """
    if method is AuthMethod.ANY:
        return b""
    if method is AuthMethod.TRUST:
        return _trust(user, stored)
    usable = [each for each in stored if each != Plain(Secret(""))]
    if method is AuthMethod.PLAIN:
        return await _ask_cleartext(inbox, user, usable, keeper)
    if method is AuthMethod.SCRAM or _meets_scram(usable, strangers_meet_scram):
        return await _ask_scram(inbox, user, usable, keeper)
    return await _ask_md5(inbox, user, usable)


def _trust(user: str, stored: Sequence[Stored]) -> bytes:
    if not stored:
        raise Refused(sqlstate.INVALID_AUTHORIZATION, f'"trust" authentication failed for user "{user}"')
    return b""


def _meets_scram(usable: Sequence[Stored], strangers_meet_scram: bool) -> bool:
    """Under md5: is this user asked by SCRAM?"""
    if not usable:
        return strangers_meet_scram
    return any(isinstance(each, ScramVerifier) for each in usable)


async def _ask_cleartext(inbox: Inbox, user: str, usable: Sequence[Stored], keeper: KeyKeeper) -> bytes:
    inbox.write(build_authentication_cleartext())
    password = Secret.decode(parse_password(await _wait_answer(inbox, "password", MAX_PASSWORD_MESSAGE)))
    if not password or not await _is_right(password, user, usable, keeper):
        raise _wrong_password(user)
    return b""


async def _is_right(password: Secret, user: str, usable: Sequence[Stored], keeper: KeyKeeper) -> bool:
    for each in usable:
        if isinstance(each, Plain) and is_plain_password(each, password):
            return True
        if isinstance(each, Md5) and is_md5_password(each, user, password):
            return True
    for verifier in _verifiers_among(usable) or [keeper.mock(user)]:
        salted = await keeper.salted(password, verifier.salt, verifier.iterations)
        if is_scram_password(verifier, salted):
            return True
    return False


async def _ask_md5(inbox: Inbox, user: str, usable: Sequence[Stored]) -> bytes:
    salt = secrets.token_bytes(4)
    inbox.write(build_authentication_md5(salt))
    response = parse_password(await _wait_answer(inbox, "password", MAX_PASSWORD_MESSAGE))
    forms = [each for each in usable if isinstance(each, Md5)]
    forms += [md5_stored(each.secret, user) for each in usable if isinstance(each, Plain)]
    if not any(is_md5_response(each, salt, response) for each in forms or [_mock_md5()]):
        raise _wrong_password(user)
    return b""


def _mock_md5() -> Md5:
    return Md5(secrets.token_hex(16))


async def _ask_scram(inbox: Inbox, user: str, usable: Sequence[Stored], keeper: KeyKeeper) -> bytes:
    binding = find_own_end_point(inbox.transport)
    offered = offered_with(binding)
    inbox.write(build_sasl(offered))
    initial = parse_sasl_initial(await _wait_answer(inbox, "SASL", MAX_SASL_MESSAGE))
    if initial.mechanism not in offered or initial.data is None:
        raise Refused(sqlstate.PROTOCOL_VIOLATION, "client selected an invalid SASL authentication mechanism")
    verifiers = await _gather_verifiers(user, usable, keeper)
    server = ScramServer(*verifiers, mechanism=initial.mechanism, channel_binding=binding)
    inbox.write(build_sasl_continue(server.first(initial.data)))
    answer = parse_sasl_response(await _wait_answer(inbox, "SASL", MAX_SASL_MESSAGE))
    try:
        return build_sasl_final(server.final(answer))
    except WrongPassword:
        raise _wrong_password(user) from None


async def _gather_verifiers(user: str, usable: Sequence[Stored], keeper: KeyKeeper) -> Sequence[ScramVerifier]:
    """
    All that one exchange can check. It names one salt, that of the first verifier; a verifier with another one cannot
    be tried, while plain secrets are salted to suit. The mock comes last, when there is nothing else.
    """
    verifiers = _verifiers_among(usable)
    like = verifiers[0] if verifiers else keeper.mock(user)
    suitable = [each for each in verifiers if (each.salt, each.iterations) == (like.salt, like.iterations)]
    suitable += [await keeper.verifier_for(user, each.secret, like) for each in usable if isinstance(each, Plain)]
    return suitable or [like]


def _verifiers_among(usable: Sequence[Stored]) -> list[ScramVerifier]:
    return [each for each in usable if isinstance(each, ScramVerifier)]


async def _wait_answer(inbox: Inbox, what: str, limit: int) -> bytes:
    kind, body = await inbox.wait_message(limit)
    if kind != codes.PASSWORD:
        raise Refused(sqlstate.PROTOCOL_VIOLATION, f"expected {what} response, got message type {chr(kind)!r}")
    return body


def _wrong_password(user: str) -> Refused:
    return Refused(sqlstate.INVALID_PASSWORD, f'password authentication failed for user "{user}"')
