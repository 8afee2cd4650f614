"""
Taking a connected socket out of the hands of the event loop.

Theory. A transport closes its socket when it ends, and closing is all it does: neither uvloop nor asyncio calls
shutdown(2), so a connection lives on in every other descriptor of it. Hence a copy of the descriptor, and the transport
may go. Two things would be lost with it and must be looked at before: what is written and not sent yet, and what it has
read and told nobody. The first is the transport's buffer; the second does not exist, since both loops tell what they
have read before they read on, and pausing takes effect at once: what comes later stays in the kernel, for whoever reads
next.
"""

import asyncio
import os
import socket


def lift(transport: asyncio.Transport, *, keep: bool = False) -> socket.socket:
    """The socket under `transport`, which is closed, unless we are to `keep` it: then it is not to read meanwhile."""
    assert keep or not transport.get_write_buffer_size(), "its peer is still owed something"
    connected: socket.socket = transport.get_extra_info("socket")
    lifted = socket.socket(fileno=os.dup(connected.fileno()))
    if not keep:
        transport.abort()
    return lifted
