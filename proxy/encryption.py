"""
From a stranger's first bytes to its first packet that means something, in plain or encrypted.

Theory. A client asks for TLS with an SSLRequest, which is answered S or N, or begins with TLS at once (libpq's
sslnegotiation=direct), which is known by its first byte: no length of a startup packet begins like that. Over a Unix
socket nobody is offered any, as PgBouncer and PostgreSQL do; GSSAPI encryption is always declined.

What is sent behind an SSLRequest without waiting for its answer cannot be told from bytes that somebody in the middle
has slipped in, so it ends the login: nothing that came before the handshake is there after it (CVE-2021-23222 and its
kin). Who begins with TLS must name the protocol he means (ALPN), else a browser could be led to talk to us.

Where TLS is required who says his name in plain is refused before anything is asked of him, so no password is sent.
A cancel request needs none: it carries no secret but its key, and libpq before 17 cannot do otherwise.
"""

import ssl
from typing import Any

from protocol import sqlstate
from protocol.codes import MAX_STARTUP_LENGTH, TLS_HANDSHAKE
from protocol.errors import ProtocolError, Refused
from protocol.startup import CancelRequest, SslRequest, Startup, SuccessionRequest, build_packet, parse_startup
from proxy.config.kinds import WEAK_MODES
from proxy.handshake import ALPN, encrypt
from proxy.inbox import Inbox
from proxy.log import UNIX
from proxy.tls import is_encrypted

MAX_ENCRYPTION_REQUESTS = 2  # one for TLS, one for GSSAPI

Meaning = Startup | CancelRequest | SuccessionRequest


def find_offer(proxy: Any, address: tuple[str, int]) -> ssl.SSLContext | None:
    """The TLS that somebody from `address` may have."""
    context: ssl.SSLContext | None = None if address[0] == UNIX else proxy.tls.for_clients
    return context


async def wait_request(inbox: Inbox, proxy: Any, address: tuple[str, int], declined: int = 0) -> tuple[Meaning, bytes]:
    """The first packet that means something, and its bytes. `declined`: requests for encryption before we came."""
    offer = find_offer(proxy, address)
    if offer is not None and not declined and await inbox.wait_first() == TLS_HANDSHAKE:
        await _begin_directly(inbox, offer)
    for left in reversed(range(MAX_ENCRYPTION_REQUESTS + 1 - declined)):
        body = await inbox.wait_startup_packet(MAX_STARTUP_LENGTH)
        request = parse_startup(body)
        if isinstance(request, Meaning):
            _check_encrypted(inbox, proxy, address, request)
            return request, build_packet(body)
        if left:
            await _answer(inbox, offer, is_for_tls=isinstance(request, SslRequest))
    raise ProtocolError("too many requests for encryption")


async def _begin_directly(inbox: Inbox, offer: ssl.SSLContext) -> None:
    await encrypt(inbox, offer, is_direct=True)
    if inbox.transport.get_extra_info("ssl_object").selected_alpn_protocol() != ALPN:
        raise ProtocolError("received direct SSL connection request without ALPN protocol negotiation extension")


async def _answer(inbox: Inbox, offer: ssl.SSLContext | None, *, is_for_tls: bool) -> None:
    """Somebody asks for encryption."""
    if inbox.has_unread:
        what = "SSL" if is_for_tls else "GSSAPI encryption"
        raise ProtocolError(f"received unencrypted data after {what} request")
    if is_for_tls and is_encrypted(inbox.transport):
        raise ProtocolError("SSL req inside SSL")
    if is_for_tls and offer is not None:
        inbox.write(b"S")
        await encrypt(inbox, offer)
    else:
        inbox.write(b"N")


def _check_encrypted(inbox: Inbox, proxy: Any, address: tuple[str, int], request: Meaning) -> None:
    must_be = isinstance(request, Startup) and address[0] != UNIX and needs_tls(proxy)
    if must_be and not is_encrypted(inbox.transport):
        mode = proxy.settings.client_tls_sslmode
        raise Refused(
            sqlstate.INVALID_AUTHORIZATION,
            "SSL required",
            detail=f"The pooler takes no connection without TLS (client_tls_sslmode is {mode}).",
            hint="Connect with sslmode=require, or better verify-full.",
        )


def needs_tls(proxy: Any) -> bool:
    """Must everybody who does not come over a Unix socket speak TLS?"""
    return proxy.settings.client_tls_sslmode not in WEAK_MODES
