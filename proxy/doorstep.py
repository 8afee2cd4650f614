"""
The doorstep: a connection that has said nothing yet, or nothing that needs a conversation.

Theory. What a flood of half-open connections costs is what is set up for each of them, so here that is little: one
small object, no task and no timer. The first bytes decide. A startup packet that we know, and to which nothing has to
be asked, is answered in this very call (express.py); one whose sender must prove by SCRAM who he is, and need not wait
for it, is answered with the question, and so are his answers (asking.py); a request for encryption, which libpq sends
first, is declined here where we have none; anything else begins a conversation (visit.py). Who is not in after
`client_login_timeout` is told so: the janitor looks at the front of `proxy.doorsteps`, where the oldest stand.

Where the kernel keeps a caller until he has said something (tcp_defer_accept) his first bytes are here before he is.
So they are read from the bare socket, and a request for encryption is declined at once: he goes on while the event
loop still makes a transport of him, and there is a turn of the loop less in every login.
"""

import asyncio
import socket
from typing import Any

from protocol.startup import build_gss_request, build_ssl_request
from proxy.asking import Asked, admit, ask, challenge
from proxy.encryption import MAX_ENCRYPTION_REQUESTS, find_offer
from proxy.inbox import Inbox
from proxy.log import UNIX
from proxy.outbox import Wire, lay_wire
from proxy.strangers import TOO_MANY
from proxy.visit import Visit

FIRST_BYTES = 4096  # read from the bare socket; what is more comes later

_FOR_TLS = build_ssl_request()
_ENCRYPTION = frozenset({_FOR_TLS, build_gss_request()})
_DECLINED = b"N"


class Doorstep(asyncio.Protocol):
    """One connection between being accepted and being a client, or a conversation."""

    __slots__ = ("_asked", "_declined", "_proxy", "_said", "address", "arrived_at", "transport")

    transport: Wire

    def __init__(self, proxy: Any, address: tuple[str, int]) -> None:
        self._proxy = proxy
        self.address = address
        self.arrived_at: float = proxy.clock.now()
        self._declined = 0  # requests for encryption
        self._asked: Asked | None = None  # what it is to prove
        self._said = b""  # before there was a transport

    def overhear(self, connected: socket.socket) -> None:
        """What it has said already, if the kernel has waited for that. A socket that fails here does so again."""
        if self.address[0] == UNIX or not self._proxy.settings.tcp_defer_accept:
            return
        try:
            said = connected.recv(FIRST_BYTES, socket.MSG_DONTWAIT)
            if said in _ENCRYPTION and self._is_declined(said):
                connected.send(_DECLINED, socket.MSG_DONTWAIT)
                self._declined = 1
            else:
                self._said = said
        except OSError:
            return

    @property
    def has_begun(self) -> bool:
        """Has it said who it is?"""
        return self._asked is not None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = lay_wire(transport, self._proxy.crowd)
        self._proxy.doorsteps[self] = None
        self._proxy.strangers.check()
        if self._said and self in self._proxy.doorsteps:
            self.data_received(self._said)

    def data_received(self, data: bytes) -> None:
        if self._asked is not None:
            self._hear(self._asked, data)
        elif data in _ENCRYPTION and self._declined < MAX_ENCRYPTION_REQUESTS and self._is_declined(data):
            self._declined += 1
            self.transport.write(_DECLINED)
        elif self._proxy.express.admit(data, self):
            self._leave()
        else:
            self._asked = ask(self._proxy, data, self)
            if self._asked is None:
                self._converse(data)

    def _hear(self, asked: Asked, data: bytes) -> None:
        """What it answers to our question."""
        if not asked.exchange.is_open:
            if not challenge(self._proxy, asked, data, self):
                self._converse(data)
        elif admit(self._proxy, asked, data, self):
            self._leave()
        else:
            self._converse(data)

    def _is_declined(self, request: bytes) -> bool:
        """Where TLS is asked for, and offered, it is a conversation."""
        return request != _FOR_TLS or find_offer(self._proxy, self.address) is None

    def connection_lost(self, error: Exception | None) -> None:
        """A port scan, or a health check: not worth a line in the log, unless it has said who it is."""
        if self._asked is not None:
            self._converse(b"").connection_lost(error)
        self._leave()
        self._proxy.check_drained()

    # What the janitor calls.

    def expire(self) -> None:
        """It has taken too long: the conversation begins, and is over at once."""
        self._converse(b"")

    # What the crowd of strangers calls.

    def drop(self) -> None:
        """There are too many like it."""
        self._leave()
        self.transport.write(TOO_MANY)
        self.transport.close()

    def _converse(self, data: bytes) -> Inbox:
        self._leave()
        inbox = Inbox()
        self.transport.set_protocol(inbox)
        inbox.connection_made(self.transport.transport)
        visit = Visit(self._proxy, inbox, self.address, self.arrived_at, self._declined, self._asked)
        self._proxy.tasks.start(visit.run(), name="login")
        if data:
            inbox.data_received(data)
        return inbox

    def _leave(self) -> None:
        self._proxy.doorsteps.pop(self, None)
