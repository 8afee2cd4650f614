"""
A balancer's connection, before it is anybody's: first it says for whom it speaks (PROXY protocol).

Theory. Whoever is in `proxy_protocol_from` must begin with such a header, and only he may: anybody else who sends one
claims to be somebody he is not. From here on the address in it is the connection's, for the rules of who may log in,
the log, the console and every limit that goes by address; the balancer's own stays beside it (`Address.via`).

The header is read from the bare socket and to the byte, before there is a transport: so whatever follows, a TLS
handshake perhaps, finds the socket as if nothing had been there. Meanwhile the connection stands among
`proxy.doorsteps`: like all who have said nothing yet it costs one small object, is counted, and may not stay long.

A header that names no address (a health check, or a client of the balancer's own machine) leaves the balancer's. Over a
Unix socket that would make the clients the balancer's account, with its rights, so there only the balancer may speak
for itself. The account we run as is no balancer: it reaches our Unix socket as ever, for the console and for -R.
"""

import asyncio
import os
import socket
from typing import Any

from protocol.errors import ProtocolError
from protocol.proxy_header import ProxyHeader, count_missing, parse_header
from proxy.doorstep import Doorstep
from proxy.inbox import Inbox
from proxy.log import UNIX, Address
from proxy.tasks import drive
from proxy.visit import Visit


def receive(proxy: Any, connected: socket.socket, address: Address) -> None:
    """Somebody has come: who must say first for whom is heard, all others stand on the doorstep at once."""
    if is_balancer(proxy, address):
        Introduction(proxy, connected, address)
    else:
        _let_in(proxy, connected, address)


def _let_in(proxy: Any, connected: socket.socket, address: Address) -> None:
    door = Doorstep(proxy, address)
    door.overhear(connected)
    try:
        drive(asyncio.get_running_loop().connect_accepted_socket(lambda: door, connected))
    except OSError:
        connected.close()


def is_balancer(proxy: Any, address: Address) -> bool:
    """Must whoever connects from there say first for whom he does?"""
    networks = proxy.settings.proxy_protocol_from
    if not networks or not networks.covers(address.host):
        return False
    return address.host != UNIX or address.uid != os.geteuid()


class Introduction:
    """One connection of a balancer, between being accepted and the end of its header."""

    __slots__ = ("_loop", "_proxy", "_said", "address", "arrived_at", "socket")

    has_begun = False  # to log in

    def __init__(self, proxy: Any, connected: socket.socket, address: Address) -> None:
        self._proxy = proxy
        self._loop = asyncio.get_running_loop()
        self._said = b""
        self.socket = connected
        self.address = address
        self.arrived_at: float = proxy.clock.now()
        proxy.doorsteps[self] = None
        proxy.strangers.check()
        connected.setblocking(False)
        self._loop.add_reader(connected.fileno(), self._read)

    def _read(self) -> None:
        try:
            address = self._take()
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, EOFError):
            self._leave()
            self.socket.close()
            self._proxy.check_drained()
        except ProtocolError as error:
            self._turn_away(error)
        else:
            self._leave()
            _let_in(self._proxy, self.socket, address)

    def _take(self) -> Address:
        """Of the client, when the header is whole; not a byte more has been read."""
        while missing := count_missing(self._said):
            data = self.socket.recv(missing)
            if not data:
                raise EOFError
            self._said += data
        return name_client(parse_header(self._said), self.address)

    def _turn_away(self, error: ProtocolError) -> None:
        self._leave()
        self._proxy.tasks.start(self._refuse(error), name="PROXY header")

    async def _refuse(self, error: ProtocolError) -> None:
        try:
            _, inbox = await self._loop.connect_accepted_socket(Inbox, self.socket)
        except OSError:
            self.socket.close()
            return
        await Visit(self._proxy, inbox, self.address, self.arrived_at).turn_away(error)

    def expire(self) -> None:
        """It has been silent for too long."""
        self._turn_away(ProtocolError("PROXY header: it has not come in time (client_login_timeout)"))

    def drop(self) -> None:
        """There are too many like it."""
        self._leave()
        self.socket.close()

    def _leave(self) -> None:
        self._loop.remove_reader(self.socket.fileno())
        self._proxy.doorsteps.pop(self, None)


def name_client(header: ProxyHeader, balancer: Address) -> Address:
    """The address of whoever is behind the balancer. ProtocolError when that must be known and is not said."""
    if header.source is not None:
        return Address.behind(balancer, *header.source)
    if header.is_local:
        return balancer
    if balancer.host == UNIX:
        raise ProtocolError("PROXY header: it names no address, and on a Unix socket it must")
    return Address.behind(balancer, *balancer)
