"""
How a server's connection ends, whoever ends it.

Theory. There are two ways: we say goodbye (`close`), or it has hung up (`connection_lost`). Either way whoever is
linked loses the server at once and is told, and its place in the pool is free only when PostgreSQL has hung up, since
until then the backend counts against its limit of connections.

PostgreSQL looks at its socket only between statements. So a server that runs one hears no Terminate, but a cancel
request and the end of what we write; one that is hostile is cut off.
"""

from typing import Any

from protocol import sqlstate
from protocol.frontend import TERMINATE_MESSAGE
from protocol.ledger import Ledger
from proxy import dispatch
from proxy.chores import hearer
from proxy.failing import LoginFailed
from proxy.server_tls import end_writing
from proxy.states import CLOSED, CLOSING, Closing, move

GOODBYE = 5.0  # seconds a server has to hang up after our Terminate

# What PgBouncer has one text for. What a server said on its way has a line of its own.
_TOLD_AS = {Closing.SAID_GOODBYE: Closing.CRASHED, Closing.RECONNECT: Closing.STALE}
_ABRUPT = frozenset({Closing.UNCLEAN, Closing.ABANDONED, Closing.HOSTILE})  # no goodbye: it would not be understood


class Ending:
    """The half of a server that hangs up. Its attributes are the server's."""

    __slots__ = ()

    # What the event loop calls.

    def eof_received(self: Any) -> None:
        """PostgreSQL never closes one half only. Not a plain close: that would wait until it has read everything."""
        self.connection_lost(None)  # at once: in the rest of this turn nobody may take it any more
        self.transport.abort()

    def connection_lost(self: Any, error: Exception | None) -> None:
        self.take_rest()
        if self.state < CLOSING:
            why = Closing.SAID_GOODBYE if self.last_error else Closing.CRASHED
            self._note_stillborn(why)
            self._log_closing(why)
            self._part(why)
        if self.state is not CLOSED:
            self.pool.server_closed(self)

    @property
    def age(self: Any) -> float:
        """Seconds since it was opened."""
        return float(self.pool.now() - self.opened_at)

    def close(self: Any, why: Closing) -> None:
        """Say goodbye. Idempotent. The place is free when PostgreSQL has hung up (`connection_lost`)."""
        if self.state >= CLOSING:
            return
        if self.opening is not None:
            self.opening.cancel(why.value)
            return
        self._log_closing(why)
        is_mid_message = self.client is not None and self.client.remain
        is_between_messages = why not in _ABRUPT and self.ledger.is_settled and not is_mid_message
        is_busy = not self.ledger.is_settled
        self.ledger = Ledger()  # whatever it still says, nobody is owed it
        self._note_stillborn(why)
        self._part(why)
        move(self, CLOSING)
        self.deadline = self.pool.now() + GOODBYE
        self.let_go()  # its hanging up must be heard
        self._hang_up(why, is_between_messages=is_between_messages, is_busy=is_busy)

    def _hang_up(self: Any, why: Closing, *, is_between_messages: bool, is_busy: bool) -> None:
        """Our last word. PostgreSQL looks at its socket only between statements: one that runs must be cancelled, or
        the backend would live on uncounted after we have gone."""
        transport = self.transport
        if transport.is_closing():
            return
        if is_between_messages:
            transport.write(TERMINATE_MESSAGE)
        elif why is Closing.HOSTILE:
            transport.abort()
        else:
            if is_busy and not self.cancels:
                self.pool.world.issue_cancel(self)
            end_writing(transport)

    def _note_stillborn(self: Any, why: Closing) -> None:
        """It let us in and left before it was of use to anybody: not to be repeated at once."""
        if self.ready_at == self.opened_at and why in (Closing.SAID_GOODBYE, Closing.CRASHED):
            error = self.last_error
            state = error.sqlstate if error else ""
            words = error.message if error else "server closed the connection"
            self.pool.opening_failed(LoginFailed(state or sqlstate.CONNECTION_FAILURE, words))

    def _part(self: Any, why: Closing) -> None:
        """Whoever is linked loses the server, and is told."""
        client = self.client
        if client is not None:
            cut = hearer(self.recipient)
            dispatch.detach(client, self)
            client.lose_server(why, self.last_error, was_told=self.was_client_told, cut=cut)

    def _log_closing(self: Any, why: Closing) -> None:
        if self.pool.world.settings.log_disconnections:
            self._log().closing(_TOLD_AS.get(why, why).value, self.age)

    def _log(self: Any) -> Any:
        return self.pool.world.log.for_socket(self.tag)
