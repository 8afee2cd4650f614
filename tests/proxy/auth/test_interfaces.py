"""The addresses of this machine: what the kernel says, and what is made of nonsense."""

import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from proxy.auth import interfaces
from proxy.auth.interfaces import FRESH, LOOPBACK, Interfaces, ask_kernel, parse_addresses
from proxy.auth.rules import Network, parse_ip
from tests.fakes import FakeClock


def message(family, bits, *attributes):
    body = struct.pack("=BBBBI", family, bits, 0, 0, 1)
    for kind, value in attributes:
        body += struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
    return struct.pack("=IHHII", 16 + len(body), 20, 2, 1, 0) + body


def test_the_kernel_knows_this_machines_own_addresses():
    known = ask_kernel()
    assert any(each.address.is_loopback for each in known)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("127.0.0.1", 9))
        assert parse_ip(probe.getsockname()[0]) in [each.address for each in known]


def test_an_address_is_read_with_its_mask():
    four = message(socket.AF_INET, 24, (1, bytes([10, 0, 0, 9])), (2, bytes([10, 0, 0, 7])), (3, b"eth0\0"))
    six = message(socket.AF_INET6, 64, (1, bytes(15) + b"\1"))
    assert list(parse_addresses(four + six)) == [
        Network(parse_ip("10.0.0.7"), parse_ip("255.255.255.0")),
        Network(parse_ip("::1"), parse_ip("ffff:ffff:ffff:ffff::")),
    ]


def test_what_makes_no_sense_is_left_out():
    assert list(parse_addresses(message(socket.AF_INET, 33, (2, bytes(4))))) == []
    assert list(parse_addresses(message(socket.AF_INET6, 64, (2, bytes(4))))) == []
    assert list(parse_addresses(message(99, 8, (2, bytes(4))))) == []
    assert list(parse_addresses(message(socket.AF_INET, 8))) == []


@given(st.binary(max_size=80))
def test_any_bytes_end(data):
    assert len(list(parse_addresses(data))) <= 5


def test_without_netlink_there_is_the_loopback_alone(monkeypatch):
    def refuse():
        raise OSError("no netlink here")

    monkeypatch.setattr(interfaces, "_dump_addresses", refuse)
    assert ask_kernel() == list(LOOPBACK)


def test_the_kernel_is_asked_once_a_second_however_many_call():
    clock, asked = FakeClock(), []
    known = Interfaces(clock.now, lambda: asked.append(clock.now()) or list(LOOPBACK))
    for _ in range(100):
        assert known.find() == list(LOOPBACK)
    assert len(asked) == 1
    clock.advance(FRESH)
    known.find()
    assert len(asked) == 2
