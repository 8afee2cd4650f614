"""
The owner of the process at its own console: no password, every right.

Theory. Whoever runs as the proxy's own account can read its files and end it anyway, so over the Unix socket the
kernel's word is enough: SO_PEERCRED says which account the other end had when it connected, and nobody can pretend to
be another. As in PgBouncer it is asked only of somebody who calls himself by the console's own name, for a database of
that name. From another account that name is refused at once, unless the file lists it as an administrator: then it is
a user like all others, and has to show a password.
"""

import os
import socket
import struct
from typing import Any, Final

from proxy.config.entries import CONSOLES
from proxy.inbox import Inbox
from proxy.log import UNIX

_CREDENTIALS: Final = struct.Struct("3i")  # process, user, group


def is_owner(inbox: Inbox, user: str, address: tuple[str, int]) -> bool:
    """Is it the account that we run as, under the console's own name?"""
    return user in CONSOLES and address[0] == UNIX and find_uid(inbox.transport) == os.geteuid()


def find_uid(transport: Any) -> int | None:
    """The account at the other end of a Unix socket; None where the kernel does not say."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    try:
        raw = transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    except (OSError, AttributeError):  # it is closed
        return None
    return int(_CREDENTIALS.unpack(raw)[1])
