"""
A socket you can await: for conversations only.

Theory. Login, opening a server and the console are conversations: one side speaks, the other answers,
somebody waits. `Inbox` is the asyncio protocol behind them. It collects bytes and lets one coroutine at
a time await whole messages. Streams (queries and rows) never pass here: when the conversation ends,
`hand_over_to` gives the socket to the next phase and with it the bytes nobody has read yet.

Two bounds. A message longer than the reader's `limit` is an error before its body is read. And when more
than `HIGH_WATER` unread bytes lie here the transport is told to stop reading: a peer that talks while
nobody listens costs us one buffer and no more. Of a stranger not even that is kept (`most`): the loop reads
up to 256 kB at once, and there may be thousands of them.
"""

import asyncio
import contextlib
from collections.abc import Callable
from struct import Struct
from typing import cast

from protocol.errors import ProtocolError
from protocol.proxy_header import is_header

HIGH_WATER = 65536

_LENGTH = Struct("!I").unpack_from
_HEADER = Struct("!BI").unpack_from


class PeerGone(Exception):
    """The other side closed the connection, or it broke."""


class Inbox(asyncio.Protocol):
    """One connection in its conversational phase. `on_connect` is called with the inbox once the socket stands."""

    __slots__ = ("_choked", "_gone", "_is_lost", "_on_connect", "_paused", "_unread", "_wake", "most", "transport")

    transport: asyncio.Transport

    def __init__(self, on_connect: Callable[["Inbox"], object] | None = None) -> None:
        self._on_connect = on_connect
        self._unread = bytearray()
        self._wake: asyncio.Future[None] | None = None
        self._gone: Exception | None = None
        self._is_lost = False  # the socket is closed; `_gone` alone may mean that the peer said its last word
        self._paused = False
        self._choked = False
        self.most: int | None = None  # bytes that may lie unread; None: HIGH_WATER and a read

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._on_connect is not None:
            self._on_connect(self)

    def data_received(self, data: bytes) -> None:
        if self.most is not None and len(self._unread) + len(data) > self.most:
            self._refuse_more(self.most)
            return
        self._unread += data
        if len(self._unread) > HIGH_WATER and not self._paused:
            self._paused = True
            self.transport.pause_reading()
        self._rouse()

    def _refuse_more(self, most: int) -> None:
        """What lies here is of no use any more; whoever waits for it, or comes to, hears why."""
        self._unread.clear()
        self._gone = ProtocolError(f"more than {most} bytes before the login is over")
        self.transport.pause_reading()
        self._rouse()

    def pause_writing(self) -> None:
        self._choked = True

    def resume_writing(self) -> None:
        self._choked = False
        self._rouse()

    def eof_received(self) -> bool:
        self._gone = PeerGone("the peer closed the connection")
        self._rouse()
        return self.transport.get_extra_info("ssl_object") is None  # we close, after our last words; TLS has no halves

    def connection_lost(self, error: Exception | None) -> None:
        self._gone = PeerGone(str(error) if error else "the connection is closed")
        self._is_lost = True
        self._rouse()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    # What a conversation calls.

    async def wait_startup_packet(self, limit: int) -> bytes:
        """The untyped first packet without its length: at least 4 bytes (docs: Message Formats, StartupMessage)."""
        (length,) = _LENGTH(await self._wait_bytes(4))
        if is_header(self._unread):
            raise ProtocolError("a PROXY header from somebody who is not in proxy_protocol_from")
        if not 8 <= length <= limit:
            raise ProtocolError(f"invalid length of startup packet: {length}")
        await self._wait_bytes(length)
        return self._take(length)[4:]

    async def wait_first(self) -> int:
        """The first byte, which stays where it is."""
        return (await self._wait_bytes(1))[0]

    async def wait_message(self, limit: int) -> tuple[int, bytes]:
        """The next message as (type byte, body). ProtocolError when its length is below 4 or above `limit`."""
        kind, length = _HEADER(await self._wait_bytes(5))
        if not 4 <= length <= limit:
            raise ProtocolError(f"invalid message length {length} of a message of type {chr(kind)!r}")
        await self._wait_bytes(length + 1)
        return kind, self._take(length + 1)[5:]

    async def wait_byte(self) -> bytes:
        """One bare byte: the answer to an SSLRequest or GSSENCRequest."""
        await self._wait_bytes(1)
        return self._take(1)

    async def wait_closed(self) -> None:
        """Until the peer is gone; what it still says is thrown away."""
        while self._gone is None:
            await self._wait_more()
            self._unread.clear()

    async def wait_gone(self) -> None:
        """Until the peer is gone; what it says meanwhile is kept, up to HIGH_WATER, for those who read later."""
        while self._gone is None:
            await self._wait_roused()

    async def wait_writable(self) -> None:
        """Until the peer has read most of what was written. PeerGone when it leaves instead."""
        while self._choked:
            if self._gone is not None:
                raise self._gone
            await self._wait_roused()

    async def _wait_bytes(self, count: int) -> bytearray:
        while len(self._unread) < count:
            if self._gone is not None:
                raise self._gone
            await self._wait_more()
        return self._unread

    async def _wait_more(self) -> None:
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        await self._wait_roused()

    async def _wait_roused(self) -> None:
        wake = self._wake = asyncio.get_running_loop().create_future()
        try:
            await wake
        finally:
            if self._wake is wake:  # else we were cancelled, and somebody else waits by now
                self._wake = None

    def _take(self, count: int) -> bytes:
        taken = bytes(self._unread[:count])
        del self._unread[:count]
        return taken

    def take_all(self) -> bytes:
        """What nobody has read."""
        return self._take(len(self._unread))

    @property
    def is_alive(self) -> bool:
        return self._gone is None

    @property
    def has_unread(self) -> bool:
        return bool(self._unread)

    def write(self, data: bytes) -> None:
        """Send. To a peer that is gone this does nothing; one that only fell silent hears it."""
        if not self._is_lost and not self.transport.is_closing():
            self.transport.write(data)

    def close(self) -> None:
        self.transport.close()

    async def wait_heard(self, seconds: float) -> None:
        """Our last words are written: give the peer so long to read them and go.

        Closing a socket on which something unread lies resets the connection, and a reset takes our last words back.
        """
        if self._gone is None and self.transport.can_write_eof():
            self.transport.write_eof()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.wait_closed()

    def hand_over_to(self, phase: asyncio.Protocol) -> None:
        """The conversation is over: `phase` has the socket from here, and first the bytes nobody has read."""
        unread, self._unread = bytes(self._unread), bytearray()
        self.transport.set_protocol(phase)
        phase.connection_made(self.transport)
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        if unread:
            phase.data_received(unread)
        if self._gone is not None:
            phase.connection_lost(self._gone)
            self.transport.close()  # an end of file alone leaves our half open
