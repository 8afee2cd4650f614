"""
What a client is told when we close its connection: for each reason the error it gets.

Theory. One table from the reason to severity, SQLSTATE and words. The message begins with PgBouncer's text for the
same event, since people look for it; the SQLSTATE is the one PostgreSQL has and drivers act on, the detail says what
happened here, the hint what can be done about it.
"""

from protocol import sqlstate
from protocol.backend import ErrorFields
from proxy.states import Closing


def _fatal(code: str, message: str, detail: str = "", hint: str = "") -> ErrorFields:
    return ErrorFields("FATAL", code, message, detail, hint)


QUIET = frozenset({Closing.CLIENT_REQUEST, Closing.CLIENT_EOF})
"""Reasons that are the client's own: it is told nothing."""

_LOST = _fatal(
    sqlstate.CONNECTION_FAILURE,
    "server conn crashed?",
    "The connection to PostgreSQL broke without a last word; whether the last statement took effect is unknown.",
)

ERRORS: dict[Closing, ErrorFields] = {
    why: _fatal(sqlstate.CONNECTION_FAILURE, why.value) for why in Closing if why not in QUIET
} | {
    Closing.CRASHED: _LOST,
    Closing.SAID_GOODBYE: _LOST,
    Closing.HOSTILE: _fatal(
        sqlstate.PROTOCOL_VIOLATION,
        "server broke the protocol",
        "What PostgreSQL sent could not be understood, so the connection to it was closed; see the log.",
    ),
    # The details of these are worked out when they strike: explain.py, overtime.py.
    Closing.QUERY_WAIT_TIMEOUT: _fatal(sqlstate.TOO_MANY_CONNECTIONS, "query_wait_timeout"),
    Closing.QUEUED_TIMEOUT: _fatal(sqlstate.QUERY_CANCELED, "query_timeout"),
    Closing.QUERY_TIMEOUT: _fatal(
        sqlstate.QUERY_CANCELED,
        "query timeout",
        hint="PostgreSQL's own statement_timeout ends a statement and keeps the connection.",
    ),
    Closing.TRANSACTION_TIMEOUT: _fatal(sqlstate.TRANSACTION_TIMEOUT, "transaction timeout"),
    Closing.IDLE_TRANSACTION_TIMEOUT: _fatal(sqlstate.IDLE_IN_TRANSACTION_TIMEOUT, "idle transaction timeout"),
    Closing.CLIENT_IDLE_TIMEOUT: _fatal(sqlstate.IDLE_SESSION_TIMEOUT, "client_idle_timeout"),
    Closing.STATEMENT_MODE: _fatal(
        sqlstate.FEATURE_NOT_SUPPORTED,
        "transaction blocks not allowed in statement pooling mode",
        "A server is given back after each statement here, so a transaction cannot go on.",
        "Use autocommit, or a database entry with pool_mode = transaction.",
    ),
    Closing.STALE: _fatal(
        sqlstate.ADMIN_SHUTDOWN,
        "database configuration changed",
        "This session's server connection is outdated, and server_fast_close ends such sessions between transactions.",
        "Connect again.",
    ),
    Closing.ADMIN: _fatal(
        sqlstate.ADMIN_SHUTDOWN,
        "admin forced disconnect",
        "An administrator of the pooler has ended this connection (KILL_CLIENT).",
    ),
    Closing.KILLED: _fatal(
        sqlstate.ADMIN_SHUTDOWN,
        "database removed",
        "An administrator of the pooler has ended all connections of this database (KILL).",
    ),
    Closing.SUSPEND_TIMEOUT: _fatal(
        sqlstate.ADMIN_SHUTDOWN,
        "suspend_timeout",
        "What was sent was not read in time, and the pooler was to stand still.",
    ),
    Closing.SHUTDOWN: _fatal(sqlstate.ADMIN_SHUTDOWN, "pooler is shutting down"),
    Closing.NO_MORE_SERVERS: _fatal(
        sqlstate.ADMIN_SHUTDOWN,
        "server shutting down",
        "The pooler is shutting down and hands out no server any more.",
        "Connect again.",
    ),
    Closing.DATABASE_GONE: _fatal(sqlstate.ADMIN_SHUTDOWN, "database removed from the configuration"),
}
