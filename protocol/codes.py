"""
The protocol's bytes, by name.

Every number here is from the PostgreSQL documentation, chapter "Frontend/Backend Protocol": section
"Message Formats" for the type bytes, "Message Flow" for what they mean. A message on the wire is one
type byte, then an int32 length that counts itself but not the type byte, then the body. The first
packet of a connection has no type byte.

Type bytes are plain ints, since indexing bytes gives ints and a tuple of 256 handlers is then the
cheapest dispatch there is (0.08 us). Some letters mean one thing from a client and another from a
server (D, E, S, C, H), hence two families of names.
"""

from typing import Final

# Frontend: what a client sends.
BIND: Final = ord("B")
CLOSE: Final = ord("C")
COPY_FAIL: Final = ord("f")
DESCRIBE: Final = ord("D")
EXECUTE: Final = ord("E")
FLUSH: Final = ord("H")
FUNCTION_CALL: Final = ord("F")
PARSE: Final = ord("P")
PASSWORD: Final = ord("p")  # also SASLInitialResponse, SASLResponse and GSSResponse
QUERY: Final = ord("Q")
SYNC: Final = ord("S")
TERMINATE: Final = ord("X")

# Both ways.
COPY_DATA: Final = ord("d")
COPY_DONE: Final = ord("c")

# Backend: what a server sends.
AUTHENTICATION: Final = ord("R")
BACKEND_KEY_DATA: Final = ord("K")
BIND_COMPLETE: Final = ord("2")
CLOSE_COMPLETE: Final = ord("3")
COMMAND_COMPLETE: Final = ord("C")
COPY_BOTH_RESPONSE: Final = ord("W")
COPY_IN_RESPONSE: Final = ord("G")
COPY_OUT_RESPONSE: Final = ord("H")
DATA_ROW: Final = ord("D")
EMPTY_QUERY_RESPONSE: Final = ord("I")
ERROR_RESPONSE: Final = ord("E")
FUNCTION_CALL_RESPONSE: Final = ord("V")
NEGOTIATE_PROTOCOL_VERSION: Final = ord("v")
NO_DATA: Final = ord("n")
NOTICE_RESPONSE: Final = ord("N")
NOTIFICATION_RESPONSE: Final = ord("A")
PARAMETER_DESCRIPTION: Final = ord("t")
PARAMETER_STATUS: Final = ord("S")
PARSE_COMPLETE: Final = ord("1")
PORTAL_SUSPENDED: Final = ord("s")
READY_FOR_QUERY: Final = ord("Z")
ROW_DESCRIPTION: Final = ord("T")

# Authentication requests: the int32 that follows 'R' and its length.
AUTH_OK: Final = 0
AUTH_KERBEROS_V5: Final = 2
AUTH_CLEARTEXT: Final = 3
AUTH_MD5: Final = 5
AUTH_GSS: Final = 7
AUTH_GSS_CONTINUE: Final = 8
AUTH_SSPI: Final = 9
AUTH_SASL: Final = 10
AUTH_SASL_CONTINUE: Final = 11
AUTH_SASL_FINAL: Final = 12

# Transaction status, the only byte of a ReadyForQuery.
IDLE: Final = ord("I")
IN_TRANSACTION: Final = ord("T")
FAILED: Final = ord("E")

# What the untyped first packet may say in its second int32.
PROTOCOL_3_0: Final = 3 << 16
PROTOCOL_3_2: Final = (3 << 16) | 2
CANCEL_REQUEST: Final = 80877102
TLS_HANDSHAKE: Final = 0x16  # the first byte of somebody who begins with TLS; no startup packet is so long
SSL_REQUEST: Final = 80877103
GSSENC_REQUEST: Final = 80877104
SUCCESSION_REQUEST: Final = int.from_bytes(b"pgsh", "big")  # of ours alone: another process wants to take our place

MAX_STARTUP_LENGTH: Final = 10_000  # PostgreSQL's MAX_STARTUP_PACKET_LENGTH
MAX_NAME_LENGTH: Final = 63  # NAMEDATALEN - 1: PostgreSQL cuts longer names
MAX_USER_LENGTH: Final = 127  # PgBouncer's limit: PostgreSQL cuts such a name when it makes the role, and at each login
