"""
TLS towards servers: asked for and begun before anything else is said.

Theory. A connection that stands, and on which nobody has said anything, is encrypted here or stays as it is; then the
login begins, and need not know. `server_tls_sslmode` decides, in PgBouncer's meaning of the words:

    disable         nothing is asked
    allow, prefer   TLS if the server has it, else without
    require         TLS or nothing; whose certificate it is nobody asks
    verify-ca       the same, and the certificate is of an authority that we believe
    verify-full     the same, and for the host that the entry of the database names, whichever of its addresses it is

TLS that was begun and fails ends the connection in every mode: whoever can spoil a handshake shall not be rewarded with
a login in plain. A Unix socket stays as it is.

What comes before the handshake may be anybody's. So there is one byte and nothing behind it, or the connection ends:
what somebody has put in front must never pass for the server's own words (CVE-2021-23222). An error in place of that
byte is not repeated, for the same reason (CVE-2024-10977).

`server_tls_negotiation = direct` asks nothing: TLS from the first byte, as PostgreSQL 17 and later take it, and a
server that does not agree on the protocol by its name (ALPN) is another one than we mean.

A cancel request takes the same way as the connection it is for: what was encrypted never travels in plain.
"""

import asyncio
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from protocol.startup import build_ssl_request
from proxy.config.entries import Database
from proxy.config.kinds import WEAK_MODES, TlsNegotiation
from proxy.config.settings import Settings
from proxy.handshake import ALPN
from proxy.inbox import Inbox, PeerGone
from proxy.states import Closing
from proxy.tls import Contexts

GOODBYE: Final = 5.0  # seconds a server has to answer the end of TLS
YES, NO, ERROR = b"S", b"N", b"E"
HUNG_UP: Final = "the server hung up before it said a word; it may be starting or shutting down"
"""Of one that was asked for TLS: by then there is none that could have failed."""


class TlsFailed(ConnectionError):
    """There is no TLS with this server, and without it we do not go on."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """How connections to a server are encrypted. `is_needed`: or not made at all."""

    context: ssl.SSLContext
    is_needed: bool = True
    is_direct: bool = False

    @property
    def must_bind(self) -> bool:
        """Is it SCRAM's binding alone that tells somebody in between? With `prefer` he could do without TLS."""
        return self.is_needed and not self.context.check_hostname

    async def begin(self, inbox: Inbox, host: str) -> bool:
        """
        Encrypt what is said on `inbox` from here on. False: the server does not, and it `is_needed` not.

        `host` is what the certificate must be for, where that matters. TlsFailed; PeerGone: before it has begun.
        Whatever ends this early ends the connection: not a word can follow.
        """
        try:
            return await self._begin(inbox, host)
        except BaseException:
            inbox.transport.abort()
            inbox.connection_lost(None)  # where a handshake has failed nobody else tells it
            raise

    async def _begin(self, inbox: Inbox, host: str) -> bool:
        if not self.is_direct and not await self._ask(inbox):
            return False
        await self._shake_hands(inbox, host)
        if self.is_direct and inbox.transport.get_extra_info("ssl_object").selected_alpn_protocol() != ALPN:
            raise TlsFailed("direct TLS was not agreed upon (ALPN): is this PostgreSQL 17 or later?")
        return True

    async def _ask(self, inbox: Inbox) -> bool:
        inbox.write(build_ssl_request())
        try:
            answer = await inbox.wait_byte()
        except PeerGone:
            raise PeerGone(HUNG_UP) from None
        if answer == ERROR:
            raise TlsFailed("the server answered with an error when it was asked for SSL")
        if answer not in (YES, NO):
            raise TlsFailed("bad sslreq answer")
        if inbox.has_unread:
            raise TlsFailed("received unencrypted data after SSL response")
        if answer == NO and self.is_needed:
            raise TlsFailed("server refused SSL")
        return answer == YES

    async def _shake_hands(self, inbox: Inbox, host: str) -> None:
        try:
            encrypted = await asyncio.get_running_loop().start_tls(
                inbox.transport, inbox, self.context, server_hostname=host, ssl_shutdown_timeout=GOODBYE
            )
        except OSError as error:
            raise TlsFailed(self._explain(error)) from None
        if encrypted is None:
            raise TlsFailed("the server hung up")
        inbox.transport = encrypted

    def _explain(self, error: OSError) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"certificate verify failed: {error.verify_message}"
        reason = error.reason if isinstance(error, ssl.SSLError) else str(error)
        words = (reason or "the server hung up").lower().replace("_", " ")
        return f"{words} (direct TLS is for PostgreSQL 17 and later)" if self.is_direct else words

    def as_is(self) -> "ServerTls":
        """The way of whatever belongs to a connection that is encrypted."""
        return replace(self, is_needed=True)


def find_tls(contexts: Contexts, settings: Settings, database: Database) -> ServerTls | None:
    """For the servers of `database` behind TCP. None: they are not even asked."""
    if contexts.for_servers is None:
        return None
    is_direct = (database.server_tls_negotiation or settings.server_tls_negotiation) is TlsNegotiation.DIRECT
    is_needed = settings.server_tls_sslmode not in WEAK_MODES
    return ServerTls(contexts.for_servers, is_needed, is_direct)


def retire_all(pools: Iterable[Any]) -> None:
    """TLS is another one from here on: the servers that were reached by TCP leave at their next release."""
    for pool in pools:
        endpoints = [server.endpoint for place in pool.places for server in place]
        if any(endpoint is not None and endpoint.path is None for endpoint in endpoints):
            pool.failure = None
            pool.retire_servers(Closing.STALE)


def end_writing(transport: Any) -> None:
    """We say no more, and the server is to hang up. TLS has no half to close: its own goodbye is that word."""
    if transport.can_write_eof():
        transport.write_eof()
    else:
        transport.close()
