"""
A plain connection becomes an encrypted one, while it is still a conversation.

Theory. The event loop does it (`start_tls`, uvloop's or asyncio's): it puts itself between the socket and our
protocols, which see a transport like the one before, with plain bytes in it. So whatever comes after the login, the
stream above all, does not know whether it is encrypted.

A client that begins with TLS (no SSLRequest in front) has sent us the first bytes of its handshake before we could
know. They are fed to the loop's side of the handshake when that stands and before it reads from the socket, so nothing
that comes later can overtake them.

Three things are put right by `Connection`, which stands between the loop and OpenSSL. A client that offers to speak
other protocols than ours is refused (protocol/hello.py says why). When a handshake fails the loops throw away the alert
that would tell the other side why: it is kept, and sent over a copy of the descriptor, so a client reads "certificate
required" and not only that we hung up. And they read with buffers of 256 kB, where OpenSSL never gives more than one
record: memory of that size is mapped and unmapped by the kernel for each message.
"""

import asyncio
import contextlib
import os
import ssl
from typing import Any, Final

from protocol.errors import ProtocolError
from protocol.hello import NO_APPLICATION_PROTOCOL, parse_offered
from proxy.inbox import Inbox, PeerGone

ALPN: Final = "postgresql"  # what PostgreSQL 17 and later call their protocol
MAX_PIECES: Final = 64  # in which a hello may come: each is looked at from its beginning
RECORD: Final = 1 << 14  # bytes of plain text that OpenSSL gives at once, at the most (RFC 8446, 5.1)
SHUTDOWN_TIME: Final = 10.0  # seconds for the last bytes, and for the other side's goodbye, when we close


class HandshakeFailed(Exception):
    """There is no TLS with this peer; the sentence says why, and the connection is closed."""


class Connection(ssl.SSLObject):
    """Our side of TLS. When its handshake fails, the error has an `alert` for the other side."""

    _sslobj: Any  # OpenSSL's
    _incoming: ssl.MemoryBIO
    _outgoing: ssl.MemoryBIO
    _hello: bytes | None  # of a client, as far as it has come; None when it has been judged
    _pieces: int

    @classmethod
    def _create(cls, incoming: Any, outgoing: Any, *args: Any, **kwargs: Any) -> "Connection":
        connection: Connection = super()._create(incoming, outgoing, *args, **kwargs)  # type: ignore[misc]
        connection._incoming, connection._outgoing = incoming, outgoing
        connection._pieces = 0
        connection._hello = b"" if connection.server_side else None
        return connection

    def do_handshake(self) -> None:
        if self._hello is not None:
            self._judge_hello(self._hello)
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            error.alert = self._outgoing.read()  # type: ignore[attr-defined]
            raise

    def _judge_hello(self, known: bytes) -> None:
        """What comes is only looked at: OpenSSL, which gets it next, reads all there is until the hello is whole."""
        came = self._incoming.read()
        self._incoming.write(came)
        self._pieces += 1
        try:
            offered = parse_offered(known + came)
        except ProtocolError as error:
            raise _fail(str(error)) from None
        if offered is None and self._pieces > MAX_PIECES:
            raise _fail("the first message of TLS comes in too many pieces")
        if offered and ALPN.encode() not in offered:
            raise _fail("no application protocol", NO_APPLICATION_PROTOCOL)
        self._hello = known + came if offered is None else None

    def read(self, length: int = 1024, buffer: Any = None) -> Any:
        """60 us a message without the bound, 20 with it, 18 past the method that this is instead of."""
        if buffer is None and length > RECORD:
            return self._sslobj.read(RECORD)
        return super().read(length, buffer)


def _fail(why: str, alert: bytes = b"") -> ssl.SSLError:
    error = ssl.SSLError(ssl.SSL_ERROR_SSL, why)
    error.alert = alert  # type: ignore[attr-defined]
    return error


async def encrypt(inbox: Inbox, context: ssl.SSLContext, *, is_direct: bool = False) -> None:
    """TLS from here on, with us as its server. `is_direct`: what lies unread is its beginning. HandshakeFailed."""
    assert is_direct or not inbox.has_unread, "received unencrypted data before the handshake"
    copy = _copy(inbox.transport)
    try:
        transport = await _start(inbox, context, is_direct=is_direct)
    except ssl.SSLError as error:
        if copy is not None:
            with contextlib.suppress(OSError):  # it takes no more: then it does not hear it
                os.write(copy, getattr(error, "alert", b""))
        raise HandshakeFailed(_reason_of(error)) from error
    except OSError as error:
        raise HandshakeFailed(error.strerror or str(error) or "the peer closed the connection") from error
    finally:
        if copy is not None:
            os.close(copy)
    if transport is None or transport.get_extra_info("ssl_object") is None:
        raise PeerGone("the connection is closed")
    inbox.transport = transport


async def _start(inbox: Inbox, context: ssl.SSLContext, *, is_direct: bool) -> asyncio.Transport | None:
    loop, plain = asyncio.get_running_loop(), inbox.transport
    starting = loop.start_tls(plain, inbox, context, server_side=True, ssl_shutdown_timeout=SHUTDOWN_TIME)
    if not is_direct:
        return await starting
    task = asyncio.ensure_future(starting)
    try:
        await asyncio.sleep(0)  # its first step is done: it has taken the socket over and reads when its turn comes
        loop.call_soon(_feed, plain, inbox.take_all())
        return await task
    finally:
        task.cancel()


def _feed(plain: asyncio.Transport, data: bytes) -> None:
    """Bytes that were read before the loop's side of TLS stood there."""
    side: Any = plain.get_protocol()
    while data and not plain.is_closing():
        buffer = side.get_buffer(len(data))
        count = min(len(buffer), len(data))
        memoryview(buffer)[:count] = data[:count]
        side.buffer_updated(count)
        data = data[count:]


def _copy(transport: asyncio.Transport) -> int | None:
    """Another descriptor, for last words when the transport is gone. None: there is none left, or it is gone."""
    try:
        return os.dup(transport.get_extra_info("socket").fileno())
    except OSError:
        return None


def _reason_of(error: ssl.SSLError) -> str:
    """In OpenSSL's words, and what is wrong with a certificate."""
    reason = (getattr(error, "reason", None) or str(error)).lower().replace("_", " ")
    detail = getattr(error, "verify_message", "")
    return f"{reason}: {detail}" if detail else reason
