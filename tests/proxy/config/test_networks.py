"""Lists of networks: what may be written, and who is in them."""

import pytest

from proxy.config.networks import NETWORKS, Networks


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("10.0.0.0/8", ["10.1.2.3", "::ffff:10.1.2.3"], ["11.0.0.1", "::1", "unix", "::ffff:11.0.0.1"]),
        ("10.0.0.7", ["10.0.0.7"], ["10.0.0.8"]),
        ("2001:db8::/32, 10.0.0.7", ["2001:db8::7", "10.0.0.7"], ["2001:db9::7", "fe80::1%eth0"]),
        ("unix", ["unix"], ["127.0.0.1", "::1"]),
        ("all", ["127.0.0.1", "::1"], ["unix"]),
        ("", [], ["127.0.0.1", "unix"]),
    ],
)
def test_who_is_in(text: str, inside: list[str], outside: list[str]) -> None:
    networks = NETWORKS.parse(text)
    assert [host for host in inside + outside if networks.covers(host)] == inside
    assert NETWORKS.format(networks) == text


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0", "db.example.com", "10.0.0.7,", "10.0.0.7 10.0.0.8", "UNIX"])
def test_what_is_no_network_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="holds what is no network: write "):
        NETWORKS.parse(text)


def test_bits_to_the_right_of_the_mask_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="bits to the right of its mask"):
        NETWORKS.parse("10.0.0.7/8")


def test_an_empty_list_is_false() -> None:
    assert not Networks()
    assert NETWORKS.parse("unix")
    assert NETWORKS.parse("::1")


def test_two_lists_are_the_same_when_they_are_written_the_same() -> None:
    assert NETWORKS.parse("10.0.0.0/8") == NETWORKS.parse("10.0.0.0/8") != NETWORKS.parse("10.0.0.0/9")
