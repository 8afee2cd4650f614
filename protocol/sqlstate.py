"""
The SQLSTATEs we speak, each with the sentence it is used for.

Theory. Drivers decide by SQLSTATE whether to retry, to reconnect or to give up, so one code for
everything (PgBouncer says 08P01 nearly always) takes that decision away from them. Class 08 means "the
connection", 28 "who you are", 53 "no room, try later", 57 "an operator or a limit stopped it". The codes
are PostgreSQL's own (docs: appendix "PostgreSQL Error Codes"); none is invented here.

The severity is not ours to say: FATAL when the connection is over, ERROR when it lives on.
"""

from typing import Final

# Not errors.
SUCCESSFUL_COMPLETION: Final[str] = "00000"  # a notice that only informs: queued, welcome, help of the console
WARNING: Final[str] = "01000"  # a notice about something the client should change

# The connection.
SQLCLIENT_UNABLE_TO_ESTABLISH: Final[str] = "08001"  # we cannot reach PostgreSQL: refused, unreachable, no such host
CONNECTION_DOES_NOT_EXIST: Final[str] = "08003"  # the server this session lived on is gone and cannot be replaced
REJECTED: Final[str] = "08004"  # PostgreSQL turned our own login away, or this database is disabled here
CONNECTION_FAILURE: Final[str] = "08006"  # the server died, or cannot be reached, and left no SQLSTATE of its own
TRANSACTION_RESOLUTION_UNKNOWN: Final[str] = "08007"  # the server died while a COMMIT was under way: either may be true
PROTOCOL_VIOLATION: Final[str] = "08P01"  # a message that does not parse, or that is illegal in this state

# What we do not do.
FEATURE_NOT_SUPPORTED: Final[str] = "0A000"  # well-formed but not served here: pool mode, disable_pqexec, protocol

# What the client asked for.
INVALID_PARAMETER_VALUE: Final[str] = "22023"  # a startup parameter or a console SET with a value we cannot take
INVALID_STATEMENT_NAME: Final[str] = "26000"  # the prepared statement a Bind or Describe names does not exist
INVALID_CURSOR_NAME: Final[str] = "34000"  # the portal an Execute or Describe names does not exist
INVALID_CATALOG: Final[str] = "3D000"  # no such database here
SYNTAX_ERROR: Final[str] = "42601"  # a console command, or startup `options`, that cannot be read
INSUFFICIENT_PRIVILEGE: Final[str] = "42501"  # a console command this user may not give
UNDEFINED_OBJECT: Final[str] = "42704"  # a console command names a setting, client or pool that does not exist
UNDEFINED_PARAMETER: Final[str] = "42P02"  # a console command with a $1: nothing can be put there
DUPLICATE_STATEMENT: Final[str] = "42P05"  # a Parse with a name this client has already given away
OBJECT_NOT_IN_PREREQUISITE_STATE: Final[str] = "55000"  # RESUME of what is not paused, PAUSE of what is
CANT_CHANGE_RUNTIME_PARAM: Final[str] = "55P02"  # a console SET of a setting that only a restart changes

# Who the client is.
INVALID_AUTHORIZATION: Final[str] = "28000"  # no user name, a rule that rejects, TLS required, no certificate
INVALID_PASSWORD: Final[str] = "28P01"  # a wrong password or an unknown user: the two must look the same  # noqa: S105

# Transactions.
ACTIVE_TRANSACTION: Final[str] = "25001"  # what was asked is not possible while a transaction is open
READ_ONLY: Final[str] = "25006"  # a write where only reads go: a replica, or a read-only pool
NO_ACTIVE_TRANSACTION: Final[str] = "25P01"  # what was asked needs a transaction, and none is open
IN_FAILED_TRANSACTION: Final[str] = "25P02"  # the transaction has failed and only a rollback is heard
IDLE_IN_TRANSACTION_TIMEOUT: Final[str] = "25P03"  # idle_transaction_timeout: open, and nothing said for too long
TRANSACTION_TIMEOUT: Final[str] = "25P04"  # transaction_timeout: open for too long altogether

# No room.
OUT_OF_MEMORY: Final[str] = "53200"  # the bytes we hold for one client, or for all, have reached their cap
TOO_MANY_CONNECTIONS: Final[str] = "53300"  # max_client_conn and its kin; or all servers were busy for too long
CONFIGURATION_LIMIT_EXCEEDED: Final[str] = "53400"  # a message or packet larger than a setting allows

# An operator or a limit stopped it.
QUERY_CANCELED: Final[str] = "57014"  # a cancel found the query still queued; query_timeout; client_login_timeout
ADMIN_SHUTDOWN: Final[str] = "57P01"  # the pooler shuts down, the console killed this client, its database is gone
CRASH_SHUTDOWN: Final[str] = "57P02"  # PostgreSQL says it crashed: passed on, and never a reason to keep a server
CANNOT_CONNECT_NOW: Final[str] = "57P03"  # PostgreSQL starts up or shuts down; or it waited for the end of a PAUSE
DATABASE_DROPPED: Final[str] = "57P04"  # passed on only: of a database that left the file we say 57P01, as drivers know
IDLE_SESSION_TIMEOUT: Final[str] = "57P05"  # client_idle_timeout: connected, and nothing said for too long

# Us.
CONFIG_FILE_ERROR: Final[str] = "F0000"  # RELOAD found mistakes in the file; the old settings stand
INTERNAL_ERROR: Final[str] = "XX000"  # a bug of ours; the log has the rest
