"""Which rule is about whom: the first that fits, and none is a no."""

from pathlib import Path

import pytest

from proxy.auth.fields import Reader
from proxy.auth.hba import parse_rule
from proxy.auth.rules import Caller, ClientCert, Method, Network, find_rule, find_unreached, parse_ip
from proxy.log import UNIX

OURS = [
    Network(parse_ip("10.1.2.3"), parse_ip("255.255.255.0")),
    Network(parse_ip("2001:db8::7"), parse_ip("ffff:ffff::")),
]


def rules_of(tmp_path: Path, text: str):
    (tmp_path / "hba.conf").write_text(text)
    reader = Reader()
    rules = [parse_rule(line, lambda method: "") for line in reader.lines(str(tmp_path / "hba.conf"))]
    assert not reader.mistakes
    return rules


def find_line(tmp_path, text, host="10.0.0.7", user="anna", database="shop", **more):
    """The line of the rule that counts; None: there is none."""
    rule = find_rule(rules_of(tmp_path, text), Caller(user, database, host, **more), lambda: OURS)
    return None if rule is None else rule.place.line


@pytest.mark.parametrize(
    ("record", "host", "has_tls", "fits"),
    [
        ("local all all", UNIX, False, True),
        ("local all all", "10.0.0.7", False, False),
        ("host all all all", UNIX, False, False),
        ("host all all all", "10.0.0.7", False, True),
        ("host all all all", "10.0.0.7", True, True),
        ("hostssl all all all", "10.0.0.7", False, False),
        ("hostssl all all all", "10.0.0.7", True, True),
        ("hostnossl all all all", "10.0.0.7", False, True),
        ("hostnossl all all all", "10.0.0.7", True, False),
        ("hostnogssenc all all all", "10.0.0.7", True, True),
        ("hostssl all all 10.0.0.0/8", UNIX, True, False),
    ],
)
def test_the_type_of_a_record(tmp_path, record, host, has_tls, fits):
    assert (find_line(tmp_path, f"{record} trust", host, has_tls=has_tls) is not None) is fits


@pytest.mark.parametrize(
    ("address", "host", "fits"),
    [
        ("all", "10.0.0.7", True),
        ("all", "::1", True),
        ("10.0.0.7/32", "10.0.0.7", True),
        ("10.0.0.7/32", "10.0.0.8", False),
        ("10.0.0.0/8", "10.255.0.1", True),
        ("10.0.0.0/8", "11.0.0.0", False),
        ("10.1.1.1/8", "10.2.2.2", True),  # the bits behind the mask do not count
        ("10.0.0.0 255.0.0.0", "10.9.9.9", True),
        ("10.0.0.7 255.0.0.255", "10.3.4.7", True),  # a mask with a hole, which PostgreSQL takes
        ("10.0.0.7 255.0.0.255", "10.3.4.8", False),
        ("0.0.0.0/0", "192.0.2.1", True),
        ("0.0.0.0/0", "::1", False),
        ("0.0.0.0/0", "::ffff:192.0.2.1", True),  # an IPv4 caller on a socket of both
        ("::/0", "::ffff:192.0.2.1", False),
        ("::/0", "::1", True),
        ("::/0", "127.0.0.1", False),
        ("::1/128", "::1", True),
        ("2001:db8::/32", "2001:db8:1::1", True),
        ("2001:db8:: ffff:ffff::", "2001:db8:1::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("fe80::/10", "fe80::1%2", True),
        ("samehost", "10.1.2.3", True),
        ("samehost", "10.1.2.4", False),
        ("samehost", "2001:db8::7", True),
        ("samenet", "10.1.2.4", True),
        ("samenet", "10.1.3.4", False),
        ("samenet", "2001:db8:ff::1", True),
    ],
)
def test_where_somebody_comes_from(tmp_path, address, host, fits):
    assert (find_line(tmp_path, f"host all all {address} trust", host) is not None) is fits


@pytest.mark.parametrize(
    ("databases", "database", "fits"),
    [
        ("all", "shop", True),
        ("shop", "shop", True),
        ("shop", "Shop", False),
        ("bank,shop", "shop", True),
        ("bank", "shop", False),
        ("sameuser", "anna", True),
        ("sameuser", "shop", False),
        ('"sameuser"', "sameuser", True),
        ('"all"', "shop", False),
        ('"all"', "all", True),
        ("replication", "shop", False),
        ("replication", "replication", False),
        ('"replication"', "replication", True),
        ("/^sh", "shop", True),
        ("/^sh$", "shop", False),
        ('"/^sho{1,2}p$"', "shop", True),
        ("/^shop$", "shop\n", False),
    ],
)
def test_what_somebody_wants(tmp_path, databases, database, fits):
    assert (find_line(tmp_path, f"host {databases} all all trust", database=database) is not None) is fits


@pytest.mark.parametrize(
    ("users", "user", "fits"),
    [
        ("all", "anna", True),
        ("anna", "anna", True),
        ("anna", "annabel", False),
        ("bob,anna", "anna", True),
        ('"all"', "anna", False),
        ("/^(anna|bob)$", "bob", True),
        ("/^(anna|bob)$", "bobby", False),
        ('"two words"', "two words", True),
        ("replication", "replication", True),  # no keyword here
        ("sameuser", "anna", False),
    ],
)
def test_who_somebody_says_he_is(tmp_path, users, user, fits):
    assert (find_line(tmp_path, f"host all {users} all trust", user=user) is not None) is fits


def test_physical_replication_is_meant_by_its_own_word_only(tmp_path):
    text = "host all all all trust\nhost replication anna all md5\n"
    assert find_line(tmp_path, text) == 1
    assert find_line(tmp_path, text, is_physical=True) == 2
    assert find_line(tmp_path, text, user="bob", is_physical=True) is None


def test_the_first_rule_counts_whatever_comes_of_it(tmp_path):
    text = "host all bob all reject\nhost all all 10.0.0.0/8 md5\nhost all all all trust\n"
    assert find_line(tmp_path, text, user="bob") == 1
    assert find_line(tmp_path, text) == 2
    assert find_line(tmp_path, text, host="192.0.2.1") == 3


def test_no_rule_is_none(tmp_path):
    assert find_line(tmp_path, "") is None
    assert find_line(tmp_path, "local all all trust") is None


@pytest.mark.parametrize("host", ["", "?", "unix2", "10.0.0", "10.0.0.7:5432"])
def test_somebody_from_nowhere_has_no_rule(tmp_path, host):
    assert find_line(tmp_path, "local all all trust\nhost all all all trust\n", host) is None


def test_the_networks_of_this_machine_are_asked_for_only_where_a_rule_is_about_them(tmp_path):
    def never():
        raise AssertionError("asked")

    rules = rules_of(tmp_path, "host bank all samenet trust\nhost all all all trust\n")
    assert find_rule(rules, Caller("anna", "shop", "10.0.0.7"), never) is rules[1]


@pytest.mark.parametrize(
    ("earlier", "later", "is_unreached"),
    [
        ("host all all all trust", "host shop anna 10.0.0.0/8 reject", True),
        ("host all all all trust", "hostssl all all all cert", True),
        ("host all all all trust", "local all all trust", False),
        ("host all all all trust", "host replication all all trust", False),
        ("host all all all trust", "host replication,shop all all trust", False),
        ("hostssl all all all trust", "host all all all trust", False),
        ("host all all 10.0.0.0/8 trust", "host shop all 10.0.0.0/8 trust", True),
        ("host all all 10.0.0.0/8 trust", "host shop all 10.0.0.0/16 trust", False),
        ("host shop all all trust", "host shop anna all trust", False),
        ("local all all trust", "local shop all trust", True),
    ],
)
def test_a_rule_behind_one_about_everybody_is_about_nobody(tmp_path, earlier, later, is_unreached):
    first, second = rules = rules_of(tmp_path, f"{earlier}\n{later}\n")
    assert list(find_unreached(rules)) == ([(second, first)] if is_unreached else [])


def test_a_rule_is_told_by_its_place_and_shows_no_option(tmp_path):
    (rule,) = rules_of(tmp_path, "\nhost all all all ldap ldapserver=x ldapbindpasswd=hunter2\n")
    assert str(rule) == f"{tmp_path}/hba.conf:2"
    assert "hunter2" not in repr(rule)
    assert rule.options["ldapbindpasswd"] == "hunter2"
    assert (rule.method, rule.client_cert) == (Method.LDAP, ClientCert.UNASKED)
