"""
Several processes behind one address: how a cancel request that reached the wrong one gets to the right one.

Theory. A CancelRequest comes on a connection of its own, so a load balancer, or the kernel with `so_reuseport`, may
give it to another process than the one that serves its client. Each process has a number, `peer_id`, and writes it into
the keys it gives out, in PgBouncer's form, so both may stand side by side: bytes 1 and 2 of the key are the number, low
byte first, and the two lowest bits of the last byte count down the hops, at most three, lest a request goes round for
ever between two files that contradict each other. Everything else in a key is random: 45 bits of the 8 bytes that
protocol 3.0 has, 269 of the 36 of 3.2. Whoever guesses a number has guessed nothing.

A request is forwarded over a connection made for it, without TLS, and never more than `pool_size` at a time to one
peer. Its asker is kept until the peer has hung up, and so until the query has been canceled.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from protocol.startup import build_cancel_request
from proxy.config.entries import Peer
from proxy.inbox import PeerGone
from proxy.places import Endpoint

HOPS = 3  # the mask of the counter, and what it begins with
MAX_WAITING = 1000  # requests for one peer; whoever knows its number can send some
SENT = "successfully sent cancel request"
TIMED_OUT = "cancel_wait_timeout"
UNKNOWN = "failed cancel request"
NO_PEER = "could not find peer to forward request to"
TOO_FAR = "failed to forward cancel request because its TTL was exhausted"
UNREACHABLE = "could not reach peer to forward request to"


def stamp(key: bytes, number: int) -> bytes:
    """The random `key`, made one of the process `number`."""
    return key[:1] + number.to_bytes(2, "little") + key[3:-1] + bytes([key[-1] | HOPS])


def number_in(key: bytes) -> int:
    """Whose key it is, if it is anybody's of ours."""
    return int.from_bytes(key[1:3], "little")


def as_given_out(key: bytes) -> bytes:
    """The key as its client has it, however many hops it has made."""
    return key[:-1] + bytes([key[-1] | HOPS])


class _Line:
    """What is under way to one peer, and who waits for a place."""

    __slots__ = ("connecting", "sending", "waiting")

    def __init__(self) -> None:
        self.connecting = 0
        self.sending = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    @property
    def busy(self) -> int:
        return self.connecting + self.sending

    def wake(self) -> None:
        """A place is free."""
        while self.waiting:
            first = self.waiting.popleft()
            if not first.done():
                first.set_result(None)
                return


class Peers:
    """The other processes, as the configuration in force says. `proxy` has `config`, `settings` and `log`."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy
        self._lines: dict[int, _Line] = {}

    @property
    def own_number(self) -> int | None:
        number: int | None = self._proxy.settings.peer_id
        return number

    def pools(self) -> Iterator[tuple[int, int, int, int, int]]:
        """Of each peer: its number, requests being forwarded and waiting, connections that forward and that connect."""
        for number in sorted(self._proxy.config.peers):
            if number != self.own_number:
                line = self._lines.get(number) or _Line()
                yield number, line.busy, len(line.waiting), line.sending, line.connecting

    async def forward(self, key: bytes) -> str:
        """A request whose client is not here. What became of it, for the log; the asker learns nothing."""
        number = number_in(key)
        if self.own_number is None or number == self.own_number:
            return UNKNOWN
        peer: Peer | None = self._proxy.config.peers.get(number)
        if peer is None:
            self._proxy.log.debug(f"cancel request for unknown peer {number}")
            return NO_PEER
        if not key[-1] & HOPS:
            return TOO_FAR
        return await self._forward(peer, key[:-1] + bytes([key[-1] - 1]))

    async def _forward(self, peer: Peer, key: bytes) -> str:
        self._proxy.log.debug(f"forwarding cancellation request to peer {peer.number}")
        try:
            async with asyncio.timeout(self._proxy.settings.cancel_wait_timeout), self._place(peer) as line:
                await self._send(peer, key, line)
        except TimeoutError:
            return TIMED_OUT
        except (OSError, UnicodeError, PeerGone) as error:
            self._proxy.log.warning(f"cannot forward a cancel request to peer {peer.number}: {error}")
            return UNREACHABLE
        return SENT

    @asynccontextmanager
    async def _place(self, peer: Peer) -> AsyncIterator[_Line]:
        """One of the `pool_size` connections that may lead there at a time. PeerGone: too many wait for one."""
        line = self._lines.setdefault(peer.number, _Line())
        size = peer.pool_size if peer.pool_size is not None else self._proxy.settings.default_pool_size
        while size and line.busy >= size:
            if len(line.waiting) >= MAX_WAITING:
                raise PeerGone("too many requests wait for it")
            turn = asyncio.get_running_loop().create_future()
            line.waiting.append(turn)
            try:
                await turn
            except BaseException:
                if turn in line.waiting:
                    line.waiting.remove(turn)
                elif not turn.cancelled():
                    line.wake()  # we were called and will not come
                raise
        try:
            yield line
        finally:
            line.wake()
            if not line.busy and not line.waiting:
                self._lines.pop(peer.number, None)

    async def _send(self, peer: Peer, key: bytes, line: _Line) -> None:
        """Returns when the peer has hung up, as it does when it has done what is to be done."""
        line.connecting += 1
        try:
            inbox = await Endpoint(peer.host, peer.port).connect(asyncio.get_running_loop())
        finally:
            line.connecting -= 1
        line.sending += 1
        try:
            inbox.write(build_cancel_request(key))
            await inbox.wait_closed()
        finally:
            line.sending -= 1
            inbox.close()
