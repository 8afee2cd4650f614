"""
Where everything lives: the states of servers, clients and pools, the moves between them, the reasons for leaving.

Theory. A server is in exactly one place: the ordered set `pool.places[state]`. `move` is the only door: out of the
old place, into the new one, and an assertion (on in production, 0.1 us) that the table knows the way. A client
has a state too, but only the waiting ones stand in a list; the others are reached through the pool's set.

Reasons are enums: each is logged, counted and shown under the same words. Where PgBouncer has a text for the
same event ours is that text, since people's scripts look for it.
"""

import enum
from typing import Any, Protocol


class ServerState(enum.IntEnum):
    """The life of a connection to PostgreSQL. The numbers index `pool.places`."""

    OPENING = 0  # connecting or logging in; owned by `connect.open_server` until it returns
    IDLE = 1  # ready, nobody's; may be taken, tested or closed
    USED = 2  # idle for longer than server_check_delay: to be tested before it is taken
    TESTING = 3  # running server_check_query for us
    LINKED = 4  # one client's, reachable as client.server
    CLEANING = 5  # between clients: rolling back, draining, resetting, or waiting for a cancel to arrive
    CLOSING = 6  # we said goodbye; counted until PostgreSQL has hung up, so limits hold there too
    CLOSED = 7  # in no place


OPENING, IDLE, USED, TESTING, LINKED, CLEANING, CLOSING, CLOSED = ServerState

MOVES: dict[ServerState, frozenset[ServerState]] = {
    OPENING: frozenset({IDLE, LINKED, CLOSING, CLOSED}),
    IDLE: frozenset({USED, TESTING, LINKED, CLOSING, CLOSED}),
    USED: frozenset({TESTING, CLOSING, CLOSED}),
    TESTING: frozenset({IDLE, LINKED, CLOSING, CLOSED}),
    LINKED: frozenset({IDLE, LINKED, CLEANING, CLOSING, CLOSED}),  # to itself: from one client to the next
    CLEANING: frozenset({IDLE, LINKED, CLOSING, CLOSED}),
    CLOSING: frozenset({CLOSED}),
    CLOSED: frozenset(),
}


class ClientState(enum.IntEnum):
    """The life of a client, once logged in."""

    RESTING = 0  # no server and no wish for one
    BEGUN = 1  # the same, but it has said BEGIN, and no server knows
    WAITING = 2  # in pool.waiting, its bytes held
    LINED = 3  # its one query stands in a line with those of others: client.unit
    ACTIVE = 4  # has a server: client.server
    GONE = 5  # closed, or closing


RESTING, BEGUN, WAITING, LINED, ACTIVE, GONE = ClientState

CLIENT_MOVES: dict[ClientState, frozenset[ClientState]] = {
    RESTING: frozenset({BEGUN, WAITING, LINED, ACTIVE, GONE}),
    BEGUN: frozenset({RESTING, WAITING, ACTIVE, GONE}),
    WAITING: frozenset({RESTING, BEGUN, ACTIVE, GONE}),
    LINED: frozenset({RESTING, GONE}),
    ACTIVE: frozenset({RESTING, GONE}),
    GONE: frozenset(),
}


class PoolState(enum.Enum):
    """What an administrator did to a pool."""

    OPEN = "open"
    PAUSED = "paused"  # hands out no server; those linked are closed when released
    DYING = "dying"  # no longer in the configuration; gone when empty


class Leaving(enum.Enum):
    """How the proxy ends."""

    SUCCEEDED = "another process has taken over"
    WAIT_FOR_CLIENTS = "wait for clients"
    WAIT_FOR_SERVERS = "wait for servers"
    IMMEDIATE = "immediate"


class HasState(Protocol):
    """What `move` needs of a server."""

    state: ServerState
    pool: Any


def move(server: HasState, to: ServerState) -> None:
    """The only way a server changes state: out of the old place, into the new one."""
    state = server.state
    assert to in MOVES[state], f"{server!r}: {state.name} -> {to.name}"
    places = server.pool.places
    del places[state][server]
    places[to][server] = None
    server.state = to


def forget(server: HasState) -> None:
    """A server's last move: to CLOSED, which is in no place."""
    assert CLOSED in MOVES[server.state], f"{server!r} is forgotten twice"
    del server.pool.places[server.state][server]
    server.state = CLOSED


class Closing(enum.Enum):
    """Why a connection ends. The words go to the log as `closing because: ...`."""

    # servers
    LIFETIME = "server lifetime over"
    IDLE_TIMEOUT = "server idle timeout"
    STALE = "database configuration changed"
    OBSOLETE = "obsolete connection"  # its address is no longer its host's
    UNCLEAN = "unclean server"
    ABANDONED = "client disconnected with query in progress"
    CRASHED = "server conn crashed?"
    SAID_GOODBYE = "server closed the connection"
    LOOKUP_FAILED = "server DNS lookup failed"
    CONNECT_FAILED = "connect failed"
    CONNECT_TIMEOUT = "connect timeout"
    TLS_FAILED = "TLS handshake failed"
    LOGIN_FAILED = "login failed"
    TEST_FAILED = "test query failed"
    TEST_TIMEOUT = "test query timeout"
    CLEANING_TIMEOUT = "cleaning took too long"
    EVICTED = "evicted"
    PAUSE = "pause mode"
    RECONNECT = "reconnect"
    HOSTILE = "server broke the protocol"
    OVER_LIMIT = "too many servers in the pool"
    POOL_IDLE = "pool idle timeout"
    SUCCEEDED = "another process has taken over"
    # clients
    CLIENT_REQUEST = "client close request"
    CLIENT_EOF = "client unexpected eof"
    CLIENT_PROTOCOL = "client broke the protocol"
    TURNED_AWAY = "server login has been failing"  # PostgreSQL lets us in no more, and nobody need wait for that
    QUERY_WAIT_TIMEOUT = "query_wait_timeout"
    QUERY_TIMEOUT = "query timeout"
    QUEUED_TIMEOUT = "query_timeout"  # the same of a query that has not begun: so they differ in PgBouncer
    TRANSACTION_TIMEOUT = "transaction timeout"
    IDLE_TRANSACTION_TIMEOUT = "idle transaction timeout"
    CLIENT_IDLE_TIMEOUT = "client_idle_timeout"
    STATEMENT_MODE = "transaction blocks not allowed in statement pooling mode"
    BEGIN_FAILED = "a transaction could not be begun"
    SET_FAILED = "session parameters were refused by the server"
    # both
    SUSPEND_TIMEOUT = "suspend_timeout"
    ADMIN = "admin forced disconnect"
    KILLED = "database removed"  # KILL: in PgBouncer the same as for a database that is gone
    SHUTDOWN = "pooler is shutting down"
    NO_MORE_SERVERS = "server shutting down"
    DATABASE_GONE = "database removed from the configuration"


class Waiting(enum.Enum):
    """Why a client that needs a server does not get one now."""

    BUSY = "all servers of the pool are busy"
    OPENING = "a server connection is being opened"
    PAUSED = "the database is paused"
    RETRY = "server logins have been failing"
    DATABASE_LIMIT = "max_db_connections is reached"
    USER_LIMIT = "max_user_connections is reached"
    NO_PLACE_TO_LISTEN = "max_db_connections or max_user_connections leaves no place for a connection that listens"
    ELDERS = "the process before us has not closed its servers yet"
    SHUTDOWN = "the pooler is shutting down"
