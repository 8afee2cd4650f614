"""
The connection of a hub: it asks PostgreSQL to listen, and survives PostgreSQL.

Theory. It lives in a pool of its own (`EarPool`: same database and user, one server, one client, which is the ear),
so that limits count it, reload, PAUSE, KILL and shutdown reach it and its openings are spaced like all others. Clients
are never served from there. When nobody listens any more it is given back to that pool, idle, and leaves after a while.

One question is on its way at a time. What is wanted meanwhile waits in the books (`channels.py`) and travels together
in the next one, up to `MAX_BATCH` names: thousands of channels are a few round trips. If PostgreSQL refuses a batch
because of one of its names, halves are tried until that name stands alone, so nobody fails for another's name.

When the connection is lost it is opened again and everything is asked for again. One that was young when it was lost
makes the next one wait, longer each time. One that has been silent for long is asked an empty query: a dead connection
would be just as silent.
"""

import enum
import math
from dataclasses import replace
from typing import Any, Protocol

from protocol import codes, sqlstate
from protocol.backend import ErrorFields
from protocol.framing import flags, scan
from protocol.frontend import build_query
from protocol.ledger import ONE_QUERY
from proxy import dispatch
from proxy.channels import ASKED, DEAF, HEARD, LEAVING, Books, Channel
from proxy.chores import Chore
from proxy.config.kinds import PoolMode
from proxy.config.limits import Limits
from proxy.failing import LoginFailed
from proxy.laws import check_pool
from proxy.log import Address, Tag
from proxy.pool import Pool
from proxy.states import ACTIVE, LINKED, RESTING, ClientState, Closing

MAX_BATCH = 1_000  # names in one message
MAX_MESSAGE = 0x3FFFFFFF + 4  # PostgreSQL's own limit; a long one is stepped over, not kept
PATIENCE = 30.0  # seconds PostgreSQL may take for an answer
PULSE = 30.0  # seconds of silence after which we ask whether it still lives
LINGER = 60.0  # seconds the connection is kept when nobody listens any more
STEADY = 10.0  # seconds; one that is lost sooner makes the next one wait

_ALL_BUT_NOTIFICATIONS = bytes(1 - flag for flag in flags(bytes([codes.NOTIFICATION_RESPONSE])))
_ABOUT_A_NAME = ("22", "42", "54")  # classes of SQLSTATE: only such an error is the fault of one name in a batch
_ON_PURPOSE = frozenset(
    {
        Closing.PAUSE,
        Closing.RECONNECT,
        Closing.STALE,
        Closing.OBSOLETE,
        Closing.ADMIN,
        Closing.KILLED,
        Closing.SHUTDOWN,
        Closing.DATABASE_GONE,
    }
)
_SETTINGS = (
    "SET client_encoding='UTF8';SET application_name='pgshuttle: listens';"
    "SELECT pg_catalog.set_config(name,'0',false) FROM pg_catalog.pg_settings"
    " WHERE name IN ('statement_timeout','transaction_timeout','idle_session_timeout')"
)


class Asking(enum.Enum):
    """Why we ask our server something."""

    SETTINGS = "its encoding, and no timeouts"
    LISTEN = "LISTEN"
    UNLISTEN = "UNLISTEN"
    PULSE = "whether it still lives"


class Wanting(enum.Enum):
    """Why a connection is wanted."""

    FIRST = "a client listens"
    AGAIN = "the one before is gone and clients listen"


class Listener(Protocol):
    """What an ear tells its hub."""

    def hear(self, message: bytes) -> None: ...
    def deafened(self, why: str) -> None: ...
    def hears_again(self) -> None: ...
    def opening_failed(self, failure: LoginFailed) -> None: ...
    def refuse_all(self, failure: LoginFailed) -> None: ...
    def refuse_name(self, channel: Channel, error: ErrorFields) -> None: ...


class Request(Chore):
    """One question; notifications that come before its answer go to the ear, like all others (see Server)."""

    __slots__ = ("asking", "channels", "ear", "sent_at")

    def __init__(self, ear: "Ear", asking: Asking, channels: list[Channel]) -> None:
        super().__init__()
        self.ear = ear
        self.asking = asking
        self.channels = channels
        self.sent_at: float = ear.now()

    def answered(self, server: Any) -> None:
        self.ear.on_answer(self)


class EarPool(Pool):
    """The pool of one ear. Its server is never at rest, so what waits for that elsewhere is done at once here."""

    def __init__(self, pool: Pool, ear: "Ear") -> None:
        self.ear = ear
        super().__init__(pool.database, pool.user, pool.limits, pool.world)
        self.state = pool.state

    @property
    def is_deserted(self) -> bool:  # type: ignore[override]
        return not self.ear.books.mailboxes

    def set_limits(self, limits: Limits) -> None:
        super().set_limits(find_limits(limits))

    def pause(self) -> None:
        super().pause()
        self._close_linked(Closing.PAUSE)

    def retire_servers(self, why: Closing) -> None:
        super().retire_servers(why)
        self._close_linked(why)

    def close_all(self, why: Closing) -> None:
        super().close_all(why)
        self.ear.hub.refuse_all(LoginFailed(sqlstate.ADMIN_SHUTDOWN, why.value))

    def opening_failed(self, failure: LoginFailed) -> None:
        super().opening_failed(failure)
        self.ear.hub.opening_failed(failure)

    def _close_linked(self, why: Closing) -> None:
        for server in list(self.places[LINKED]):
            server.close(why)


def find_limits(limits: Limits) -> Limits:
    """Of an ear's pool: one server, for as long as anybody listens. What spans pools stays as it is."""
    idle = LINGER if limits.server_idle_timeout is None else min(LINGER, limits.server_idle_timeout)
    return replace(
        limits,
        pool_mode=PoolMode.SESSION,
        pool_size=1,
        min_pool_size=0,
        reserve_pool_size=0,
        query_timeout=None,
        query_wait_timeout=None,
        query_wait_notify=None,
        transaction_timeout=None,
        idle_transaction_timeout=None,
        client_idle_timeout=None,
        server_lifetime=math.inf,
        server_idle_timeout=idle,
        server_reset_query="",
        server_reset_query_always=False,
    )


class Ear:
    """One per hub. What a server and a pool ask of a client it has, too."""

    is_choked = is_line = False
    remain = 0  # of a message to the server; ours are always whole
    held = session = statements = None  # what clients have, and we never
    begun = unnamed = b""

    def __init__(self, pool: Pool, books: Books, hub: Listener) -> None:
        self.now = pool.now
        self.books = books
        self.hub = hub
        self.state: ClientState = RESTING
        self.server: Any = None
        self.followed: Any = {}
        self.waiting_since = self.request_at = self.xact_at = self.ready_at = self.now()
        self.request: Request | None = None
        self._is_set_up = False
        self._linked_at = 0.0
        self._heard_at = 0.0
        self._skip = 0  # bytes of a message that is of no use to us, still to come
        self._batch = MAX_BATCH
        self._stumbles = 0  # connections lost too soon, in a row
        self._why = Wanting.FIRST
        self._reproach: LoginFailed | None = None  # why we close the connection ourselves
        self.pool = EarPool(pool, self)

    @property
    def tag(self) -> Tag:
        """Who we are, for the log and the console: like a client, with no socket of our own."""
        return Tag("E", id(self), self.pool.database, self.pool.user, Address("", 0))

    def __repr__(self) -> str:
        return f"E-{id(self):#x}: {self.pool}"

    # Asking.

    def ask_next(self) -> None:
        """The next LISTEN, if there is one and the last question has been answered."""
        if self.request is None and self._is_set_up and self.books.to_listen:
            channels = self.books.take_to_listen(self._batch)
            self._ask(Asking.LISTEN, channels, b";".join(b"LISTEN " + _quote(each.name) for each in channels))

    def _leave_next(self) -> None:
        """UNLISTEN is in no hurry: the janitor's tick brings it about, and often it is wanted again before."""
        books = self.books
        is_all = len(books.to_leave) == len(books.channels)
        channels = books.take_to_leave(len(books.channels) if is_all else MAX_BATCH)
        text = b"UNLISTEN *" if is_all else b";".join(b"UNLISTEN " + _quote(each.name) for each in channels)
        self._ask(Asking.UNLISTEN, channels, text)

    def _ask(self, asking: Asking, channels: list[Channel], text: str | bytes) -> None:
        self.request = request = Request(self, asking, channels)
        self.request_at = self.now()
        self.server.ledger.expect(ONE_QUERY, request)
        self.server.transport.write(build_query(text))

    def on_answer(self, request: Request) -> None:
        """The ReadyForQuery of `request` has come, in the server's stream."""
        if request is not self.request:
            return
        self.request = None
        self.ready_at = self._heard_at = self.server.ready_at = self.now()
        error = request.error
        if request.asking is Asking.LISTEN:
            self._listened(request.channels, error)
        elif request.asking is Asking.UNLISTEN:
            self.books.change(request.channels, DEAF if error is None else HEARD)
        elif error is not None:
            self._give_up(error)
        else:
            self._is_set_up = True
        self.ask_next()
        if self._is_set_up and self.request is None:
            self.hub.hears_again()

    def _listened(self, channels: list[Channel], error: ErrorFields | None) -> None:
        books = self.books
        if error is None:
            self._batch = min(self._batch * 2, MAX_BATCH)
            books.change(channels, HEARD)
            books.confirm(channels)
            return
        books.change(channels, DEAF)
        is_about_a_name = error.sqlstate.startswith(_ABOUT_A_NAME)
        if is_about_a_name and len(channels) > 1:
            self._batch = len(channels) // 2
            books.put_first(channels)
        elif is_about_a_name:
            self.hub.refuse_name(channels[0], error)
        else:  # a standby, or somebody has cancelled it
            books.fail([wait for channel in channels for wait in channel.waits], as_error(error))
            if any(channel.readers for channel in channels):
                self._give_up(error)  # they must not be deaf for ever

    def _give_up(self, error: ErrorFields) -> None:
        """This connection is of no use: another one, later."""
        self._reproach = LoginFailed(error.sqlstate or sqlstate.CONNECTION_FAILURE, error.message)
        if self.server is not None:
            self.server.close(Closing.TEST_FAILED)

    # Our pool's client.

    def want(self, why: Wanting) -> None:
        """Have a server, now or as soon as there may be one."""
        if self.server is not None or self in self.pool.waiting or not self.books.channels:
            return
        self._why = why
        server = self.pool.acquire(self)
        if server is not None:
            self.resume(server)

    def want_no_more(self) -> None:
        """The last channel has gone while we had no server."""
        self.pool.waiting.pop(self, None)

    def resume(self, server: Any) -> None:
        """Our pool has a server for us."""
        self.followed = server.followed
        dispatch.attach(self, server)
        self._linked_at = self._heard_at = self.now()
        self._is_set_up = False
        self._skip = 0
        self._reproach = None
        server._log().log(f"listens for clients of its pool: {self._why.value}")
        self._ask(Asking.SETTINGS, [], _SETTINGS)

    def close(self, why: Closing) -> None:
        """An ear has no end of its own; its connection has."""
        if self.server is not None:
            self.server.close(why)

    def refuse(self, error: ErrorFields, why: Closing, note: str = "") -> None:
        """The proxy ends and hands out no server any more. We hold up nobody, and who listens is told at the end."""

    def _retire(self) -> None:
        """Nobody listens: the connection lingers in its pool."""
        server = self.server
        self._is_set_up = False
        dispatch.detach(self, server)
        self.state = RESTING
        self.pool.release(server)

    # What a server calls.

    def deliver(self, data: bytes) -> None:
        """Messages; only the last may be cut, and not if it is a notification. ProtocolError: a malformed one."""
        self._heard_at = self.now()
        size, pos = len(data), self._skip
        while pos < size:
            kind, pos, end = scan(data, pos, _ALL_BUT_NOTIFICATIONS, MAX_MESSAGE)
            if kind:
                self.hub.hear(data[pos:end])
            pos = end
        self._skip = pos - size

    def failed(self, error: ErrorFields) -> None:
        """Its last words: what follows is `lose_server`."""

    def lose_server(self, why: Closing, said: ErrorFields | None, *, was_told: bool, cut: Any) -> None:
        """Our server is gone, whoever closed it: another one, if anybody still listens."""
        self.state = RESTING
        self.request = None
        self._is_set_up = False
        self.hub.deafened(said.message if said else why.value)
        self.books.change(list(self.books.channels.values()), DEAF)
        if why not in _ON_PURPOSE:
            state = (said.sqlstate if said else "") or sqlstate.CONNECTION_FAILURE
            self._stumble(LoginFailed(state, said.message if said else why.value, may_pass=False))
        self.want(Wanting.AGAIN)

    def _stumble(self, failure: LoginFailed) -> None:
        """A connection was lost; if it was young, the next one is opened later, and later still each time."""
        is_young = self.now() - self._linked_at < STEADY
        self._stumbles = self._stumbles + 1 if is_young else 0
        if is_young:
            self.pool.failures = self._stumbles - 1
            self.pool.opening_failed(self._reproach or failure)

    def hold(self) -> None:
        """The server's socket is full. The next question is asked after the answer to the last: nothing to hold."""

    def let_go(self) -> None:
        """See `hold`."""

    # Time.

    def sweep(self) -> None:
        """What is due, at the janitor's tick."""
        now, request = self.now(), self.request
        if self.server is None:
            self.want(Wanting.AGAIN)
        elif request is not None:
            if now - request.sent_at > PATIENCE:
                self._give_up(ErrorFields("ERROR", sqlstate.CONNECTION_FAILURE, "PostgreSQL does not answer"))
        elif self.books.to_listen:
            self.ask_next()
        elif self.books.to_leave:
            self._leave_next()
        elif not self.books.channels:
            self._retire()
        elif now - self._heard_at > PULSE:
            self._ask(Asking.PULSE, [], "")

    def check(self) -> None:
        """The laws of an ear and its pool: raises AssertionError."""
        check_pool(self.pool)
        linked, asked = self.pool.places[LINKED], self.request.channels if self.request else []
        assert list(linked) == ([] if self.server is None else [self.server])
        assert (self.state is ACTIVE) == (self.server is not None)
        assert self.server is None or self.server.client is self
        assert self.server is not None or (self.request is None and not self._is_set_up)
        in_flight = [each for each in self.books.channels.values() if each.hearing in (ASKED, LEAVING)]
        assert set(in_flight) == set(asked), "a question and the books disagree"
        if self.server is None:
            assert (self in self.pool.waiting) == bool(self.books.channels), "who waits for what?"
        else:
            assert self not in self.pool.waiting


def as_error(error: ErrorFields) -> ErrorFields:
    """The server's own words, for a client whose connection lives on."""
    return replace(error, severity="ERROR", raw={})


def _quote(name: bytes) -> bytes:
    return b'"' + name.replace(b'"', b'""') + b'"'
