"""
OAUTHBEARER, the server's role: RFC 7628, as PostgreSQL 18 and its libpq speak it.

Theory. The client sends one message, and if that is good the login is over without another word:

    client                                           server
    n,,^Aauth=Bearer TOKEN^A^A               ->
                                             <-      AuthenticationOk
    or, when there is no token yet or it is not good:
    n,,^Aauth=^A^A                           ->
                                             <-      {"status": "invalid_token", "scope": ...,
                                                      "openid-configuration": ...}
    ^A                                       ->
                                             <-      an error

(^A is the byte 1.) The second way is no accident: it is how a client learns where tokens are had. libpq goes it first,
fetches a token there, and comes back on a new connection; so an empty `auth` is a question and no failed login.

What the token says is not our business here: to this file it is a Secret. Everything is bounded before it is looked
at, no pattern runs back, and no error repeats what was sent, for that may be part of a token.
"""

import json
import re
from typing import Final

from protocol.errors import ProtocolError
from protocol.passwords import Secret

MECHANISM: Final = "OAUTHBEARER"
MAX_MESSAGE_LENGTH: Final = 65_535  # PostgreSQL's own bound of such a message
MAX_PAIRS: Final = 32  # RFC 7628 knows three keys, and wants others overlooked
DUMMY: Final = b"\x01"  # the client's answer to bad news
WELL_KNOWN: Final = "/.well-known/"

_PAIR = re.compile(rb"([A-Za-z]+)=([\x20-\x7e\t\r\n]*)")
_BEARER = re.compile(rb"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)


def parse_client_first(message: bytes) -> Secret | None:
    """
    The token that the client shows; an empty one asks where tokens are had, None is something that cannot be a token.

    ProtocolError: the message is none of OAUTHBEARER, or wants what we do not offer.
    """
    if len(message) > MAX_MESSAGE_LENGTH:
        raise _malformed(f"it is longer than {MAX_MESSAGE_LENGTH} bytes")
    header, separator, rest = message.partition(DUMMY)
    _check_header(header, is_whole=bool(separator))
    return _parse_auth(_find_auth(rest))


def _check_header(header: bytes, *, is_whole: bool) -> None:
    """gs2-header of RFC 5801: there is no channel binding, and nobody acts for another."""
    if header.startswith(b"p="):
        raise _malformed("channel binding is not offered with OAUTHBEARER")
    if header[:3] in (b"n,a", b"y,a"):
        raise _malformed("an authorization identity is not supported: the startup packet names the user")
    if header not in (b"n,,", b"y,,") or not is_whole:
        raise _malformed("it does not begin with n,, and the byte 1")


def _find_auth(rest: bytes) -> bytes:
    """The value of `auth` among the pairs, each of which ends with ^A, as does the list of them."""
    pairs = rest.split(DUMMY, MAX_PAIRS + 2)
    if len(pairs) > MAX_PAIRS + 2:
        raise _malformed(f"it has more than {MAX_PAIRS} keys")
    if pairs[-2:] != [b"", b""]:
        raise _malformed("it does not end with two bytes 1")
    found = list(map(_PAIR.fullmatch, pairs[:-2]))
    if not all(found):
        raise _malformed("not all of it is key=value")
    values = [match[2] for match in found if match and match[1] == b"auth"]
    if len(values) != 1:
        raise _malformed("it needs auth once")
    return values[0]


def _parse_auth(value: bytes) -> Secret | None:
    if not value:
        return Secret("")
    bearer = _BEARER.fullmatch(value)
    return Secret(bearer[1].decode("ascii")) if bearer else None


def check_dummy(message: bytes) -> None:
    """All that a client may say to bad news. ProtocolError."""
    if message != DUMMY:
        raise _malformed("the answer to a failure must be the byte 1 and nothing else")


def build_failure(issuer: str, scope: str) -> bytes:
    """The bad news: which scope is wanted, and where the document lies that says how tokens are had."""
    place = issuer if WELL_KNOWN in issuer else f"{issuer}{WELL_KNOWN}openid-configuration"
    return json.dumps({"status": "invalid_token", "openid-configuration": place, "scope": scope}).encode("ascii")


def _malformed(why: str) -> ProtocolError:
    return ProtocolError(f"malformed OAUTHBEARER message: {why}")
