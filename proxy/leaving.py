"""
How a client's connection ends, whoever ends it.

Theory. There is one way out (`_part`): out of the queue, off the server, off the books, socket closed; everything else
only decides what is said before. A last word is said only where the client can hear it as a message: not in the middle
of one that its server has begun. And it must be heard: a socket that is closed while something unread lies on it takes
back what was written last, so ours is closed in two steps, with a little patience and never much.
"""

import asyncio
from typing import Any

from protocol.backend import ErrorFields, build_error
from proxy import dispatch
from proxy.chores import hearer
from proxy.farewell import ERRORS, QUIET
from proxy.states import ACTIVE, GONE, ClientState, Closing

LAST_WORDS = 2.0  # seconds a client has to read why we closed it
FLUSH_TIME = 10.0  # seconds a closed client has to read what it was still owed


class Leaving:
    """The half of a client that says goodbye."""

    __slots__ = ()

    state: ClientState
    transport: asyncio.Transport
    server: Any
    pool: Any
    connected_at: float
    tag: Any  # a property
    stall: Any
    unit: Any

    def move(self, to: ClientState) -> None:
        raise NotImplementedError

    def drop_unsent(self) -> None:
        raise NotImplementedError

    def close(self, why: Closing) -> None:
        """Tell the client why, and close. Idempotent."""
        if self.state is not GONE:
            self.refuse(ERRORS[why], why)

    def refuse(self, error: ErrorFields, why: Closing, note: str = "") -> None:
        """Close with `error` as the last word. `note` is for the log, behind the message."""
        if self.state is GONE:
            return
        self._log_closing(why)
        if self.pool.world.settings.log_pooler_errors:
            about = f"{error.message}: {note}" if note else error.message
            self.pool.world.log.for_socket(self.tag).warning(f"pooler error: {about}")
        if not self.transport.is_closing() and not self._is_in_message():
            self.transport.write(
                build_error("FATAL", error.sqlstate, error.message, detail=error.detail, hint=error.hint)
            )
        self._part(why, cancel=True)

    def go_over(self) -> None:
        """Another process has us now, and our socket: off the books here, without a word."""
        self.move(GONE)
        if self.stall is not None:
            self.pool.world.find_hub(self.pool).forget(self)
        self.pool.world.client_left(self)
        self.transport.abort()

    def lose_server(self, why: Closing, said: ErrorFields | None, *, was_told: bool, cut: Any) -> None:
        """Our server is gone. `said` are its last words, if any; `cut` has heard the beginning of a message."""
        if self.state is GONE:
            return
        if was_told or cut is self:  # an error of ours would become the rest of the message that was cut
            self._leave(Closing.CRASHED, cancel=False)
        else:
            self.refuse(said or ERRORS[why], why)

    def _is_in_message(self) -> bool:
        """Has the client heard the beginning of a message and not its end? Then nothing of ours may come in between."""
        server = self.unit.server if self.unit is not None else self.server
        return server is not None and hearer(server.recipient) is self

    def _leave(self, why: Closing, *, cancel: bool) -> None:
        """Without a word to the client."""
        if self.state is not GONE:
            self._log_closing(why)
            self._part(why, cancel=cancel)

    def _depart(self: Any) -> None:
        """It has said goodbye, and nothing of its is anywhere: neither in a queue nor on a server."""
        pool, transport = self.pool, self.transport
        world = pool.world
        if world.settings.log_disconnections:
            self._log_closing(Closing.CLIENT_REQUEST)
        self.state = GONE
        if self.stall is not None:
            world.find_hub(pool).forget(self)
        world.client_left(self)
        if transport.get_write_buffer_size() > 0:
            self._close_socket(Closing.CLIENT_REQUEST)
        else:
            transport.close()

    def _part(self, why: Closing, *, cancel: bool) -> None:
        """The one way out: out of the queue, off the server, off the books, socket closed."""
        self.pool.waiting.pop(self, None)
        if self.state is ACTIVE and self.server is not None:
            dispatch.abandon(self, cancel=cancel)
        elif self.unit is not None:
            self.unit.abandon(cancel=cancel)
        self.move(GONE)
        self.drop_unsent()
        if self.stall is not None:
            self.pool.world.find_hub(self.pool).forget(self)
        self.pool.world.client_left(self)
        self._close_socket(why)

    def _close_socket(self, why: Closing) -> None:
        """Our last words must be heard: closing a socket on which something unread lies would take them back."""
        transport, loop = self.transport, asyncio.get_running_loop()
        if why in QUIET or transport.is_closing() or not transport.can_write_eof():
            if transport.get_write_buffer_size() > 0:  # it does not read: a little patience, then none
                loop.call_later(FLUSH_TIME, transport.abort)
            transport.close()
            return
        transport.write_eof()
        transport.resume_reading()  # what it still says is thrown away, its end is noticed
        loop.call_later(LAST_WORDS, transport.abort)

    def _log_closing(self, why: Closing) -> None:
        """On disk before the client sees anything of it."""
        world = self.pool.world
        if world.settings.log_disconnections:
            world.log.for_socket(self.tag).closing(why.value, self.pool.now() - self.connected_at)
