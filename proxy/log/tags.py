"""
Who a line of the log is about: one socket, its database, its user, where the other end is.

Theory. A connection is called many things in its life: a visitor, then a client, an operator or the near end of a
tunnel. What stays is the `Address` made when it arrived, and so that is what gives it its name in the log: `ptr` is the
same from the first line to the last, and no two living connections have the same.

The form is PgBouncer's: `C-0x55d0c8: shop/web@10.0.0.7:51234`. IPv6 stands in brackets; on a Unix socket, where the
other end has no address, stands its process: `unix(4711)`, with the port that our socket is named after.
"""

from collections.abc import Mapping
from typing import NamedTuple

UNIX = "unix"  # stands for the host of whoever comes by a Unix socket
_MAPPED = "::ffff:"
NO_DATABASE, NO_USER = "(nodb)", "(nouser)"


class _Pair(NamedTuple):
    host: str
    port: int


class Address(_Pair):
    """
    The other end of one connection. On a Unix socket `host` is UNIX, `pid` its process, 0 when not known, and `uid`
    that one's account, -1 when not known. `via` is the balancer in between, which has told us the address.
    """

    pid: int = 0
    uid: int = -1
    via: str = ""

    @classmethod
    def of_unix(cls, port: int, pid: int, uid: int = -1) -> "Address":
        address = cls(UNIX, port)
        address.pid, address.uid = pid, uid
        return address

    @classmethod
    def behind(cls, balancer: "Address", host: str, port: int) -> "Address":
        address = cls(host, port)
        address.via = str(balancer)
        return address

    def __str__(self) -> str:
        host, port = self
        if self.pid:
            return f"{host}({self.pid}):{port}"
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Tag(NamedTuple):
    """One socket: `kind` is C for a client, S for a server. E, an ear, is what LISTENs for clients, and has none."""

    kind: str
    ptr: int
    database: str
    user: str
    address: Address

    def __str__(self) -> str:
        kind, ptr, database, user, address = self
        return f"{kind}-{ptr:#x}: {database or NO_DATABASE}/{user or NO_USER}@{address}"

    @property
    def fields(self) -> Mapping[str, object]:
        """The same for a line of JSON: what is not known is not there."""
        known = {
            "kind": _KINDS.get(self.kind, self.kind),
            "ptr": f"{self.ptr:#x}",
            "database": self.database,
            "user": self.user,
            "host": self.address.host,
            "port": self.address.port,
            "client_pid": self.address.pid,
            "via": self.address.via,
        }
        return {name: value for name, value in known.items() if value}


_KINDS = {"C": "client", "S": "server", "E": "listener"}


def tag_client(address: tuple[str, int], database: str = "", user: str = "") -> Tag:
    """Of the connection that came from `address`, whatever it is by now."""
    return Tag("C", id(address), database, user, as_address(address))


def tag_server(server: object, database: str, user: str, address: tuple[str, int]) -> Tag:
    """Of a connection to PostgreSQL."""
    return Tag("S", id(server), database, user, as_address(address))


def unmapped(host: str) -> str:
    """A socket that is open for both tells an IPv4 address as ::ffff:10.0.0.7 (RFC 4291, 2.5.5.2): 10.0.0.7."""
    return host[len(_MAPPED) :] if host.startswith(_MAPPED) else host


def as_address(address: tuple[str, int]) -> Address:
    return address if isinstance(address, Address) else Address(*address)
