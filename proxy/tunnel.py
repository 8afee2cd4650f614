"""
A tunnel: one replication client and the connection to PostgreSQL that is its alone.

Theory. A walsender's session cannot be pooled, so nothing has to be understood of it: whatever comes in at one end goes
out at the other, and no byte is looked at. Each end is a protocol with a socket (`Near` to the client, `Far` to
PostgreSQL); an end whose socket takes no more has the other one stop reading, so a tunnel holds a few hundred kB
at most, whoever is slow.

What cannot be known is where a message ends, so nobody is told anything: a tunnel that must go is closed, after what
was carried so far has been flushed. PostgreSQL ends first: the client gets its last bytes, then the end of the stream.
The client ends first: PostgreSQL gets its last bytes, then the end of the stream, and what it still says is thrown
away. A walsender notices that at once. A statement (over replication=database one may run any) does not, so after a
second it is cancelled, and after five the connection is cut.

A tunnel is counted (`Pools.tunnels`) from the moment it is wanted until PostgreSQL has hung up. The timeouts of clients
and queries do not concern it: a stream has no end, and is idle when nothing is written. PAUSE and the end of
all transactions (SHUTDOWN WAIT_FOR_SERVERS) do not wait for it: it would never leave, and PostgreSQL, when it
is shut down, sends its last WAL through it. KILL, an immediate SHUTDOWN, or its database leaving the file close it.
"""

import asyncio
import enum
from typing import Any, cast

from protocol.frontend import TERMINATE_MESSAGE
from protocol.replication import Replication
from proxy.log import Tag, tag_client, tag_server
from proxy.server_tls import end_writing
from proxy.states import Closing

FLUSH_TIME = 10.0  # seconds a client has to read what PostgreSQL said last
CANCEL_AFTER = 1.0  # seconds PostgreSQL has to notice that the client is gone
GOODBYE = 5.0  # seconds it has to hang up, all in all


class Stage(enum.Enum):
    """The life of a tunnel. It moves downwards only."""

    OPENING = "opening"  # the client waits for a place and for PostgreSQL
    OPEN = "open"  # bytes flow
    CLOSING = "closing"  # the client is gone or going; counted until PostgreSQL has hung up
    CLOSED = "closed"  # in no list


class End(asyncio.Protocol):
    """One of the two sockets: what comes in here goes out at `other`."""

    other: "End"
    transport: asyncio.Transport

    def __init__(self, tunnel: "Tunnel") -> None:
        self.tunnel = tunnel
        self._deadline: asyncio.TimerHandle | None = None
        self.is_choked = False  # its socket takes no more for now

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.other.send(data)

    def send(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def pause_writing(self) -> None:
        self.is_choked = True
        self.other.hold()

    def resume_writing(self) -> None:
        self.is_choked = False
        self.other.let_go()

    def hold(self) -> None:
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def let_go(self) -> None:
        is_suspended = self.tunnel.pool.world.is_suspended and self.tunnel.stage is Stage.OPEN
        if not (is_suspended or self.transport.is_closing()):
            self.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self.ended()

    def ended(self) -> None:
        """The peer has said its last word."""
        raise NotImplementedError

    def cut_off_in(self, seconds: float) -> None:
        self._deadline = asyncio.get_running_loop().call_later(seconds, self.transport.abort)


class Near(End):
    """The client's end."""

    def __init__(self, tunnel: "Tunnel") -> None:
        super().__init__(tunnel)
        self.said_goodbye = False

    def data_received(self, data: bytes) -> None:
        self.tunnel.pool.stats.received += len(data)
        self.said_goodbye = data.endswith(TERMINATE_MESSAGE)  # a guess, for the log
        self.other.send(data)

    def eof_received(self) -> None:
        self.ended()

    def ended(self) -> None:
        self.tunnel.end(Closing.CLIENT_EOF)

    def finish(self) -> None:
        """Close, once it has read what is under way."""
        if not self.transport.is_closing():
            self.transport.close()
            self.cut_off_in(FLUSH_TIME)


class Far(End):
    """PostgreSQL's end. To `approach.py` and `cancel.py` it looks like a server."""

    def __init__(self, tunnel: "Tunnel") -> None:
        super().__init__(tunnel)
        self.pool = tunnel.pool
        self.parameters: dict[str, str] = {}
        self.endpoint: Any = None
        self.tls: Any = None
        self.address: tuple[str, int] = ("", 0)
        self.key = b""
        self.pid = 0
        self.cancels = 0  # cancel requests on their way to it
        self.doomed: Closing | None = None  # somebody's cancel request is lost: of no concern, nobody comes after us
        self.is_over = False  # PostgreSQL has said its last word
        self._nudge: asyncio.TimerHandle | None = None

    @property
    def tag(self) -> Tag:
        """Who we are, for the log."""
        return tag_server(self, self.pool.database, self.pool.user, self.address)

    def __repr__(self) -> str:
        return str(self.tag)

    def data_received(self, data: bytes) -> None:
        self.pool.stats.sent += len(data)
        self.other.send(data)

    def eof_received(self) -> None:
        self.ended()

    def connection_lost(self, error: Exception | None) -> None:
        if self._nudge is not None:
            self._nudge.cancel()
        super().connection_lost(error)
        self.tunnel.forget()

    def ended(self) -> None:
        self.is_over = True
        self.tunnel.end(Closing.CRASHED)
        self.transport.abort()  # a plain close would wait until it has read everything

    def rest(self) -> None:
        """A cancel request has arrived: nothing waits for that here."""

    def see_off(self) -> None:
        """No more will come from the client: have PostgreSQL notice, and hang up."""
        if self.is_over or self.transport.is_closing():
            return
        self.let_go()
        end_writing(self.transport)
        self._nudge = asyncio.get_running_loop().call_later(CANCEL_AFTER, self.pool.world.issue_cancel, self)
        self.cut_off_in(GOODBYE)


class Tunnel:
    """
    A replication client and its server. `pool` says which database and user it belongs to, and stands for their limits.

    To the console and to cancel requests it looks enough like a client.
    """

    def __init__(self, pool: Any, user: str, replication: Replication, key: bytes, address: tuple[str, int]) -> None:
        self.pool = pool
        self.user = user
        self.replication = replication
        self.key = key  # ours; the server's own is far.key
        self.address = address
        self.number = 0  # its id on the console
        self.far_number = 0
        self.stage = Stage.OPENING
        self.connected_at: float = pool.now()
        self.opened_at: float = self.connected_at  # of the connection to PostgreSQL
        self.near, self.far = Near(self), Far(self)
        self.near.other, self.far.other = self.far, self.near
        self.doom: asyncio.Future[Closing] = asyncio.get_running_loop().create_future()  # closed before it was open

    @property
    def tag(self) -> Tag:
        """Who we are, for the log."""
        return tag_client(self.address, self.pool.database, self.user)

    def __repr__(self) -> str:
        return str(self.tag)

    @property
    def has_client(self) -> bool:
        """Not yet gone: else only PostgreSQL's side still counts."""
        return self.stage in (Stage.OPENING, Stage.OPEN)

    @property
    def application_name(self) -> str:
        return self.far.parameters.get("application_name", "")

    def cancel_waiting(self) -> bool:
        """A CancelRequest with our key has come: to PostgreSQL with it, whatever runs there."""
        if self.stage is Stage.OPEN:
            self.pool.world.issue_cancel(self.far)
        return True

    def end(self, why: Closing) -> None:
        """One side has ended, or must: see the other one off. Idempotent."""
        if self.stage is not Stage.OPEN:
            return
        self.stage = Stage.CLOSING
        self._log_end(Closing.CLIENT_REQUEST if self.near.said_goodbye else why)
        self.near.finish()
        self.far.see_off()
        self.pool.world.tunnel_left(self)

    def close(self, why: Closing) -> None:
        """Somebody of ours wants it gone."""
        if self.stage is Stage.OPENING and not self.doom.done():
            self.doom.set_result(why)
        self.end(why)

    def forget(self) -> None:
        """PostgreSQL has hung up, or was never reached: we do not count any more."""
        if self.stage is not Stage.CLOSED:
            self.stage = Stage.CLOSED
            self.pool.world.tunnel_closed(self)

    def _log_end(self, why: Closing) -> None:
        world = self.pool.world
        if world.settings.log_disconnections:
            age = self.pool.now() - self.connected_at
            world.log.for_socket(self.tag).closing(why.value, age)
            world.log.for_socket(self.far.tag).closing(why.value, self.pool.now() - self.opened_at)
