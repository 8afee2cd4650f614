"""Who a line is about: PgBouncer's form, and the same facts as fields."""

import pytest

from proxy.log.tags import Address, Tag, as_address, tag_client, tag_server


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (Address("10.0.0.7", 51234), "10.0.0.7:51234"),
        (Address("::1", 51234), "[::1]:51234"),
        (Address("fe80::1%eth0", 1), "[fe80::1%eth0]:1"),
        (Address.of_unix(6432, 4711), "unix(4711):6432"),
        (Address.of_unix(6432, 0), "unix:6432"),
    ],
)
def test_an_address_is_written_as_pgbouncer_writes_it(address, shown):
    assert str(address) == shown


def test_an_address_is_a_pair_for_everybody_else():
    host, port = Address.of_unix(6432, 4711)
    assert (host, port) == ("unix", 6432)
    assert as_address(("::1", 5)) == ("::1", 5)
    address = Address("::1", 5)
    assert as_address(address) is address


def test_who_has_not_said_who_he_is_has_a_name_too():
    tag = tag_client(Address("10.0.0.7", 5))
    assert str(tag) == f"C-{tag.ptr:#x}: (nodb)/(nouser)@10.0.0.7:5"
    assert "database" not in tag.fields
    assert "user" not in tag.fields


def test_a_client_is_named_after_its_connection_and_a_server_after_itself():
    address, server = Address("10.0.0.7", 5), object()
    assert tag_client(address).ptr == tag_client(address, "shop", "web").ptr
    assert tag_client(address).ptr != tag_client(Address("10.0.0.7", 5)).ptr
    assert tag_server(server, "shop", "web", ("10.0.0.1", 5432)).ptr == id(server)


def test_the_fields_are_the_facts_and_only_what_is_known():
    tag = Tag("C", 0x55D0, "shop", "web", Address.of_unix(6432, 4711))
    assert tag.fields == {
        "kind": "client", "ptr": "0x55d0", "database": "shop", "user": "web", "host": "unix", "port": 6432,
        "client_pid": 4711,
    }  # fmt: skip
    proxied = Tag("C", 0x55D0, "", "", Address.behind(Address("10.0.0.1", 33333), "192.0.2.7", 40000))
    assert str(proxied) == "C-0x55d0: (nodb)/(nouser)@192.0.2.7:40000"
    assert proxied.fields == {
        "kind": "client", "ptr": "0x55d0", "host": "192.0.2.7", "port": 40000, "via": "10.0.0.1:33333",
    }  # fmt: skip
    assert Tag("S", 1, "shop", "web", Address("", 0)).fields == {
        "kind": "server", "ptr": "0x1", "database": "shop", "user": "web",
    }  # fmt: skip
