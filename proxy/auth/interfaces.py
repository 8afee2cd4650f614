"""
The addresses of this machine, and the networks it is in: what `samehost` and `samenet` are about.

Theory. The kernel is asked over a netlink socket (Linux: RTM_GETADDR), which takes some 50 us and never waits for
anything outside. It is asked when a caller is compared with such a rule, as PostgreSQL does, since interfaces come and
go; but not more than once a second, since strangers may call more often. Where there is no netlink the machine is in no
network but its own loopback: such a rule is then about fewer callers, not about more.
"""

import ipaddress
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Final

from proxy.auth.rules import Network

FRESH: Final = 1.0  # seconds
MAX_READS: Final = 64  # of up to 64 kB each: some ten thousand addresses
PATIENCE: Final = 1.0  # seconds; the kernel answers at once

_RTM_GETADDR, _RTM_NEWADDR, _DUMP, _DONE, _ERROR = 22, 20, 0x301, 3, 2
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ABOUT: Final = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, interface
_ATTRIBUTE: Final = struct.Struct("=HH")  # length, type

LOOPBACK: Final = tuple(
    Network(ip, ipaddress.ip_network(f"{ip}/{bits}", strict=False).netmask)
    for ip, bits in ((ipaddress.ip_address("127.0.0.1"), 8), (ipaddress.ip_address("::1"), 128))
)


class Interfaces:
    """What the kernel said last."""

    def __init__(self, now: Callable[[], float], ask: Callable[[], list[Network]] | None = None) -> None:
        self._now = now
        self._ask = ask or ask_kernel
        self._known: list[Network] = []
        self._until = float("-inf")

    def find(self) -> list[Network]:
        """Each address of this machine, with the mask of its network."""
        now = self._now()
        if now >= self._until:
            self._known, self._until = self._ask(), now + FRESH
        return self._known


def ask_kernel() -> list[Network]:
    """All addresses of all interfaces; the loopback's alone where the kernel cannot be asked."""
    try:
        return list(parse_addresses(_dump_addresses()))
    except (OSError, AttributeError):
        return list(LOOPBACK)


def _dump_addresses() -> bytes:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(PATIENCE)
        kernel.bind((0, 0))
        body = _ABOUT.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        kernel.sendto(_HEADER.pack(_HEADER.size + len(body), _RTM_GETADDR, _DUMP, 1, 0) + body, (0, 0))
        parts = []
        for _ in range(MAX_READS):
            parts.append(kernel.recv(1 << 16))
            if any(kind in (_DONE, _ERROR) for kind, _ in _split_messages(parts[-1])):
                break
        return b"".join(parts)


def parse_addresses(data: bytes) -> Iterator[Network]:
    """The addresses in what the kernel said; what is cut off or of another kind is left out."""
    for kind, body in _split_messages(data):
        if kind == _RTM_NEWADDR and len(body) >= _ABOUT.size:
            family, bits, *_ = _ABOUT.unpack_from(body)
            attributes = dict(_split_attributes(body[_ABOUT.size :]))
            raw = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS) or b""
            if len(raw) == {socket.AF_INET: 4, socket.AF_INET6: 16}.get(family) and bits <= len(raw) * 8:
                ip = ipaddress.ip_address(raw)
                yield Network(ip, ipaddress.ip_network((ip, bits), strict=False).netmask)


def _split_messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    pos = 0
    while pos + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, pos)
        if not _HEADER.size <= length <= len(data) - pos:
            return
        yield kind, data[pos + _HEADER.size : pos + length]
        pos += _align(length)


def _split_attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    pos = 0
    while pos + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, pos)
        if not _ATTRIBUTE.size <= length <= len(data) - pos:
            return
        yield kind, data[pos + _ATTRIBUTE.size : pos + length]
        pos += _align(length)


def _align(length: int) -> int:
    return (length + 3) & ~3
