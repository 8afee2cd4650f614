"""What a load balancer says first: both versions, whole and cut, honest and not."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ProtocolError
from protocol.proxy_header import (
    MAX_LINE,
    MAX_REST,
    SIGNATURE,
    V2_START,
    ProxyHeader,
    build_v2,
    count_missing,
    crc32c,
    is_header,
    parse_header,
)

TCP4 = bytes([10, 0, 0, 7, 10, 0, 0, 1]) + struct.pack("!HH", 51234, 6432)
TCP6 = bytes.fromhex("20010db8000000000000000000000007" + "00" * 15 + "01") + struct.pack("!HH", 51234, 6432)


def v2(command=0x21, family=0x11, rest=TCP4, length=None):
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest) if length is None else length) + rest


def extra(kind, value):
    return struct.pack("!BH", kind, len(value)) + value


def read(said):
    """The header, read as one must: never a byte too many; what lies behind it stays."""
    taken = 0
    while missing := count_missing(said[:taken]):
        assert taken < len(said), "cut"
        taken = min(taken + missing, len(said))
    return parse_header(said[:taken]), said[taken:]


def with_checksum(rest):
    blank = v2(rest=rest + extra(3, b"\0\0\0\0"))
    return blank[:-4] + crc32c(blank).to_bytes(4, "big")


@pytest.mark.parametrize(
    ("header", "source"),
    [
        (v2(), ("10.0.0.7", 51234)),
        (v2(family=0x21, rest=TCP6), ("2001:db8::7", 51234)),
        (v2(rest=TCP4 + extra(0x20, b"x" * 300) + extra(0x04, b"")), ("10.0.0.7", 51234)),
        (with_checksum(TCP4), ("10.0.0.7", 51234)),
        (v2(family=0x31, rest=b"/run/x".ljust(108, b"\0") * 2), None),
        (v2(family=0x00, rest=b""), None),
        (v2(family=0x00, rest=extra(0x04, b"padding")), None),
        (build_v2(("10.0.0.7", 51234), ("10.0.0.1", 6432)), ("10.0.0.7", 51234)),
        (build_v2(("fe80::1", 1), ("::1", 2)), ("fe80::1", 1)),
    ],
)
def test_version_2_names_the_source(header, source):
    assert read(header + b"more") == (ProxyHeader(source), b"more")
    for cut in range(len(header)):
        assert 0 < count_missing(header[:cut]) <= len(header) - cut


def test_version_2_may_speak_for_the_balancer_itself():
    assert read(v2(command=0x20, family=0x00, rest=b""))[0] == ProxyHeader(is_local=True)
    assert read(v2(command=0x20, rest=b""))[0] == ProxyHeader(is_local=True), "its family means nothing"
    assert read(v2(command=0x20, family=0xFF, rest=b""))[0] == ProxyHeader(is_local=True)


def test_an_ipv4_address_in_ipv6_clothes_is_itself():
    mapped = b"\0" * 10 + b"\xff\xff" + bytes([10, 0, 0, 7])
    assert read(v2(family=0x21, rest=mapped * 2 + b"\0\1\0\2"))[0].source == ("10.0.0.7", 1)
    assert read(b"PROXY TCP6 ::ffff:10.0.0.7 ::1 1 2\r\n")[0].source == ("10.0.0.7", 1)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"x" * V2_START, "missing, and it must come first"),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", "missing, and it must come first"),
        (v2(command=0x11), "version and command 0x11"),
        (v2(command=0x22), "version and command 0x22"),
        (v2(family=0x12), "family and transport 0x12 are not served"),
        (v2(family=0x41), "family and transport 0x41"),
        (v2(rest=TCP4[:-1]), "11 bytes are too few"),
        (v2(length=MAX_REST + 1), f"at most {MAX_REST}"),
        (v2(rest=TCP4 + b"\4"), "an extra is longer than the header"),
        (v2(rest=TCP4 + b"\4\0\x05abcd"), "an extra is longer than the header"),
        (with_checksum(TCP4)[:-1] + b"\0", "checksum is wrong"),
        (v2(rest=TCP4 + extra(3, b"\0\0\0")), "checksum is wrong"),
    ],
)
def test_what_is_wrong_with_version_2_is_said(header, words):
    with pytest.raises(ProtocolError, match=words):
        read(header)


def test_a_changed_byte_is_noticed_where_there_is_a_checksum():
    header = bytearray(with_checksum(TCP4))
    header[V2_START] ^= 1
    with pytest.raises(ProtocolError, match="checksum"):
        read(bytes(header))


def test_the_checksum_is_crc32c():
    assert crc32c(b"123456789") == 0xE3069283  # its check value in every catalogue of CRCs


@pytest.mark.parametrize(
    ("line", "source"),
    [
        (b"PROXY TCP4 10.0.0.7 10.0.0.1 51234 6432\r\n", ("10.0.0.7", 51234)),
        (b"PROXY TCP6 2001:DB8:0::7 ::1 1 65535\r\n", ("2001:db8::7", 1)),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff::1 ffff::1 1 2\r\n", None),
    ],
)
def test_version_1_is_a_line(line, source):
    assert read(line + b"more\n") == (ProxyHeader(source), b"more\n")


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY TCP4\r\n", b"PROXY TCP4 10.0.0.7 10.0.0.1 1\r\n",
        b"PROXY UDP4 1.1.1.1 1.1.1.1 1 2\r\n", b"PROXY TCP4 10.0.0.7 10.0.0.1 1 2\n",
        b"PROXY TCP4 10.0.0.7  10.0.0.1 1 2\r\n", b"PROXY TCP4 10.0.0.7 10.0.0.1 1 2 3\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n", b"PROXY TCP6 10.0.0.7 10.0.0.1 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", b"PROXY TCP4 10.0.0.7 10.0.0.1 65536 2\r\n",
        b"PROXY TCP4 10.0.0.7 10.0.0.1 -1 2\r\n", b"PROXY TCP4 10.0.0.7 10.0.0.1 \xb2 2\r\n",
        b"proxy TCP4 10.0.0.7 10.0.0.1 1 2\r\n",
    ],
)  # fmt: skip
def test_what_is_wrong_with_version_1_is_said(line):
    with pytest.raises(ProtocolError, match="PROXY header"):
        read(line)


def test_a_line_that_does_not_end_is_not_waited_for():
    assert count_missing(b"PROXY ".ljust(MAX_LINE - 1, b"x")) == 1
    with pytest.raises(ProtocolError, match="more than 107 bytes"):
        count_missing(b"PROXY ".ljust(MAX_LINE, b"x"))


def test_no_startup_packet_looks_like_a_header():
    assert is_header(v2())
    assert is_header(b"PROXY TCP4")
    for length in (8, 10_000):
        assert not is_header(length.to_bytes(4, "big"))
    assert not is_header(b"\x16\x03\x01\x02"), "nor does a TLS handshake"


@given(st.binary(max_size=300), st.sampled_from([0x20, 0x21]), st.sampled_from([0x00, 0x11, 0x21, 0x31]))
def test_any_rest_is_read_or_refused(rest, command, family):
    header = v2(command, family, rest)
    with contextlib.suppress(ProtocolError):
        assert isinstance(read(header)[0], ProxyHeader)


@given(st.binary(max_size=120))
def test_any_line_is_read_or_refused(words):
    with contextlib.suppress(ProtocolError):
        assert isinstance(read(b"PROXY TCP4 " + words + b"\r\n"), ProxyHeader)
