"""
Lists of networks: who is meant by `10.0.0.0/8, 2001:db8::/32, unix`.

Theory. A list is asked about each connection that arrives, so it is parsed once, when the file is read, and an empty
one is false. An address without a mask is that address alone. `unix` stands for everybody who comes by the Unix socket,
`all` for all TCP addresses. A network with bits set to the right of its mask is a mistake and not a guess.
"""

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from proxy.config.kinds import Kind
from proxy.log import UNIX

ALL: Final = ("0.0.0.0/0", "::/0")

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Networks:
    """`text` is how they were written; two lists are equal when that is."""

    text: str = ""
    networks: tuple[Network, ...] = field(default=(), compare=False)
    has_unix: bool = field(default=False, compare=False)

    def __bool__(self) -> bool:
        return bool(self.networks) or self.has_unix

    def covers(self, host: str) -> bool:
        """Is `host`, the address of somebody connected, in one of them?"""
        if host == UNIX:
            return self.has_unix
        address = ip_address(host)
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped  # of a socket that speaks both
        return any(address in network for network in self.networks)


def _parse(text: str) -> Networks:
    networks: list[Network] = []
    words = [word.strip() for word in text.split(",")] if text.strip() else []
    for word in words:
        if word != UNIX:
            networks += [_parse_network(each) for each in (ALL if word == "all" else (word,))]
    return Networks(text, tuple(networks), UNIX in words)


def _parse_network(word: str) -> Network:
    try:
        return ip_network(word)
    except ValueError as error:
        if "host bits" in str(error):
            raise ValueError("has a network with bits to the right of its mask") from None
        raise ValueError("holds what is no network: write 10.0.0.0/8, ::1, unix or all, comma between") from None


NETWORKS: Final = Kind(_parse, lambda networks: networks.text)
