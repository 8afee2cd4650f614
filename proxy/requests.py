"""
What a logged-in client may send, as far as it depends on more than the ledger's table.

Theory. The stream knows messages by their type; the few questions that need a second look are asked here, of the
bytes alone. What is illegal raises, with the words and the SQLSTATE the client gets for it, before a server hears it.
"""

from struct import Struct

from protocol import codes, sqlstate
from protocol.errors import ProtocolError, Refused
from protocol.framing import HEADER_SIZE

LEAST = HEADER_SIZE - 1  # bytes; less than any message has
SHORT = 1024  # bytes; max_packet_size is never less

length_at = Struct("!I").unpack_from


def is_terminate(kind: int) -> bool:
    """Of the messages that earn no answer Terminate alone ends something; what is left raises ProtocolError."""
    if kind != codes.TERMINATE:
        raise ProtocolError(f"invalid frontend message type {kind}")
    return True


def may_parse(data: bytes, pos: int, end: int, *, may_be_named: bool) -> bool:
    """May the Parse at `pos` be passed on? False: its name has not arrived yet. Refused: it has one and may not."""
    first = pos + HEADER_SIZE
    if end == first:
        raise ProtocolError("a Parse message without a body")
    if first == len(data):
        return False
    if data[first] and not may_be_named:
        raise Refused(
            sqlstate.FEATURE_NOT_SUPPORTED,
            "prepared statements with a name are not supported in transaction and statement pooling mode yet",
            hint="Use unnamed statements, or a pool in session mode.",
        )
    return True
