"""
The PROXY protocol: what a load balancer says first, so that we know for whom it speaks.

Theory. HAProxy's specification has two forms. Version 1 is one line of text, `PROXY TCP4 source destination port port`;
version 2 is 16 bytes, addresses, and perhaps some extras (TLVs), of which we read one, the checksum. Whoever may say
such a header may claim to be anybody, so it is read from those alone whom the operator has named, never guessed at.

A header is read to the byte and not one further, since what follows it may be a TLS handshake that somebody else has
to read: `count_missing` says how many bytes may safely be asked for. The result is the source address, or None when the
header names none: the balancer speaks for itself (LOCAL, a health check), or for somebody without an address (UNKNOWN,
a Unix socket). `is_local` tells these apart.

Source: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt; the checksum is CRC32c (RFC 4960, appendix B).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from protocol.errors import ProtocolError

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
V2_START: Final = 16  # bytes: the signature, version and command, family, the length of the rest
MAX_REST: Final = 4096  # bytes of addresses and extras; a certificate's name is the longest anybody sends
V1_WORD: Final = b"PROXY "
MAX_LINE: Final = 107  # bytes, its end included

_START = struct.Struct("!12sBBH")
_INET = struct.Struct("!4s4sHH")
_INET6 = struct.Struct("!16s16sHH")
_UNIX_LENGTH: Final = 216
_LOCAL, _PROXY = 0x20, 0x21  # version 2, and the command
_UNSPECIFIED, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_LENGTHS: Final = {_UNSPECIFIED: 0, _TCP4: _INET.size, _TCP6: _INET6.size, _UNIX: _UNIX_LENGTH}
_CRC32C: Final = 0x03  # the type of the extra that holds the checksum


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """For whom the balancer speaks: `source` is (host, port), None when it names nobody."""

    source: tuple[str, int] | None = None
    is_local: bool = False  # for itself


def is_header(data: bytes | bytearray) -> bool:
    """Is this, at least four bytes, how a header of either version begins? No startup packet is so long."""
    return data.startswith((SIGNATURE[:4], V1_WORD[:4]))


def count_missing(said: bytes) -> int:
    """How many bytes of the header, of which this is the beginning, are to come at least; 0 when it is whole."""
    if not (SIGNATURE.startswith(said[: len(SIGNATURE)]) or V1_WORD.startswith(said[: len(V1_WORD)])):
        raise ProtocolError("PROXY header: missing, and it must come first from whoever is in proxy_protocol_from")
    if len(said) < len(SIGNATURE):  # no line of version 1 is shorter
        return len(SIGNATURE) - len(said)
    if said.startswith(V1_WORD):
        return _count_missing_of_line(said)
    if len(said) < V2_START:
        return V2_START - len(said)
    return V2_START + _parse_rest_length(said) - len(said)


def parse_header(header: bytes) -> ProxyHeader:
    """A whole header, of which `count_missing` is 0."""
    return _parse_v1(header) if header.startswith(V1_WORD) else _parse_v2(header)


# Version 2.


def _parse_rest_length(header: bytes) -> int:
    _, command, family, length = _START.unpack_from(header)
    if command not in (_LOCAL, _PROXY):
        raise ProtocolError(f"PROXY header: version and command {command:#04x} are unknown")
    if command == _PROXY and family not in _LENGTHS:
        raise ProtocolError(
            f"PROXY header: family and transport {family:#04x} are not served, TCP and Unix streams are"
        )
    if length > MAX_REST:
        raise ProtocolError(f"PROXY header: {length} bytes long, at most {MAX_REST} are taken")
    if command == _PROXY and length < _LENGTHS[family]:
        raise ProtocolError(f"PROXY header: {length} bytes are too few for its addresses")
    return int(length)


def _parse_v2(header: bytes) -> ProxyHeader:
    _, command, family, _ = _START.unpack_from(header)
    if command == _LOCAL:  # what else it says means nothing
        return ProxyHeader(is_local=True)
    _check_extras(header, V2_START + _LENGTHS[family])
    if family == _TCP4:
        host, _, port, _ = _INET.unpack_from(header, V2_START)
        return ProxyHeader((str(IPv4Address(host)), port))
    if family == _TCP6:
        host, _, port, _ = _INET6.unpack_from(header, V2_START)
        return ProxyHeader((_plain(IPv6Address(host)), port))
    return ProxyHeader()


def _plain(host: IPv6Address) -> str:
    """An IPv4 address in IPv6's clothes is the address it is, or rules for it would not hold."""
    return str(host.ipv4_mapped or host)


def _check_extras(header: bytes, pos: int) -> None:
    for kind, start, end in _walk(header, pos):
        if kind == _CRC32C:
            blank = header[:start] + b"\0\0\0\0" + header[end:]
            if end - start != 4 or int.from_bytes(header[start:end], "big") != crc32c(blank):
                raise ProtocolError("PROXY header: its checksum is wrong")


def _walk(header: bytes, pos: int) -> Iterator[tuple[int, int, int]]:
    """The extras: type, and where the value begins and ends."""
    while pos < len(header):
        start = pos + 3
        end = start + int.from_bytes(header[pos + 1 : start], "big")
        if start > len(header) or end > len(header):
            raise ProtocolError("PROXY header: an extra is longer than the header")
        yield header[pos], start, end
        pos = end


def _make_table() -> tuple[int, ...]:
    table = tuple(range(256))
    for _ in range(8):
        table = tuple((value >> 1) ^ (0x82F63B78 if value & 1 else 0) for value in table)
    return table


_TABLE: Final = _make_table()


def crc32c(data: bytes) -> int:
    """The checksum of version 2; 0.1 us a byte."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


# Version 1.


def _count_missing_of_line(said: bytes) -> int:
    """One byte at a time: what stands behind the end of the line is not ours."""
    if said.endswith(b"\n"):
        return 0
    if len(said) >= MAX_LINE:
        raise ProtocolError(f"PROXY header: a line of more than {MAX_LINE} bytes")
    return 1


def _parse_v1(line: bytes) -> ProxyHeader:
    if not line.endswith(b"\r\n"):
        raise ProtocolError("PROXY header: a line of version 1 ends in CR LF")
    words = line[:-2].decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return ProxyHeader()
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise ProtocolError("PROXY header: a line of version 1 is PROXY TCP4|TCP6 source destination port port")
    hosts = [_parse_host(words[1], word) for word in words[2:4]]
    ports = [_parse_port(word) for word in words[4:]]
    return ProxyHeader((hosts[0], ports[0]))


def _parse_host(family: str, text: str) -> str:
    try:
        if family == "TCP4":
            return str(IPv4Address(text))
        host = IPv6Address(text)
    except ValueError:
        raise ProtocolError(f"PROXY header: no {family} address: {text[:50]!r}") from None
    if host.scope_id is not None:
        raise ProtocolError(f"PROXY header: an address with a zone: {text[:50]!r}")
    return _plain(host)


def _parse_port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise ProtocolError(f"PROXY header: no port: {text[:50]!r}")
    return int(text)


def build_v2(source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    """What a balancer would say; of one family both."""
    hosts = [IPv6Address(host) if ":" in host else IPv4Address(host) for host, _ in (source, destination)]
    family = _TCP6 if hosts[0].version == 6 else _TCP4
    packed = hosts[0].packed + hosts[1].packed + struct.pack("!HH", source[1], destination[1])
    return _START.pack(SIGNATURE, _PROXY, family, len(packed)) + packed
