"""
Whether the kernel tells us every account at the other end of a Unix socket.

Theory. SO_PEERCRED gives a number as it is in our own user namespace, and a namespace may map a part of the machine's
accounts only: whoever is left out is told as the overflow number, 65534, which is `nobody`'s. So with PrivateUsers= of
systemd, and in a rootless container, all those are one account to us: a `peer` rule about any of them is about nobody,
their guesses are counted together, and a balancer is whoever else is not mapped. All are mapped where the only line of
/proc/self/uid_map begins at 0 on both sides and has all 2^32 - 1 numbers (user_namespaces(7)).
"""

from typing import Final

OWN_MAP: Final = "/proc/self/uid_map"
_ALL: Final = [b"0", b"0", b"4294967295"]


def sees_all_accounts(path: str = OWN_MAP) -> bool:
    """Is each account of this machine told as what it is? Yes where there is no such thing as a namespace."""
    try:
        with open(path, "rb") as file:  # as bytes: by now we may not have the right to load a codec
            return file.read().split() == _ALL
    except OSError:
        return True
