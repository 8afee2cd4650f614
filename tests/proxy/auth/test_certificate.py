"""Whose certificate it is: one common name, to the letter, of a certificate that was checked."""

import pytest

from protocol.errors import Refused
from proxy.auth.certificate import Names, check_certificate, names_of


class Connection:
    """The other side has shown a certificate with this subject, or none."""

    def __init__(self, *subject):
        self.subject = tuple(((name, value),) if isinstance(name, str) else (name, value) for name, value in subject)

    def getpeercert(self):
        return {"subject": self.subject} if self.subject else {}


ANNA = Connection(("countryName", "CH"), ("organizationName", "Bank, Ltd."), ("commonName", "anna"))


def test_the_names_are_the_common_one_and_the_whole_subject_last_part_first():
    assert names_of(ANNA) == Names("anna", "CN=anna,O=Bank\\, Ltd.,C=CH")


def test_several_names_at_one_level_stand_together():
    connection = Connection((("commonName", "anna"), ("userId", "7")))
    assert names_of(connection) == Names("anna", "UID=7+CN=anna")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("#1", "\\#1"),
        (" x", "\\ x"),
        ("x ", "x\\ "),
        ('a"b', 'a\\"b'),
        ("a\\b", "a\\\\b"),
        ("a+b;<>", "a\\+b\\;\\<\\>"),
    ],
)
def test_what_is_special_in_a_name_is_escaped(value, written):
    assert names_of(Connection(("commonName", value))).dn == f"CN={written}"


def test_no_tls_and_no_certificate_are_no_names():
    assert names_of(None) is None
    assert names_of(Connection()) is None


def test_two_common_names_are_none():
    assert names_of(Connection(("commonName", "anna"), ("commonName", "postgres"))).cn == ""


def test_whose_name_it_is_may_come_in():
    check_certificate(ANNA, "anna", is_known=True)


@pytest.mark.parametrize(
    ("connection", "user", "is_known", "note"),
    [
        (None, "anna", True, "TLS connection required"),
        (Connection(), "anna", True, "TLS client certificate required"),
        (ANNA, "bert", True, "TLS certificate name mismatch: 'CN=anna,O=Bank\\\\, Ltd.,C=CH' is not 'bert'"),
        (ANNA, "Anna", True, "TLS certificate name mismatch"),
        (ANNA, "anna", False, "no such user"),
        (Connection(("commonName", "anna\0.evil.example")), "anna", True, "TLS certificate name mismatch"),
        (Connection(("commonName", "*")), "anna", True, "TLS certificate name mismatch"),
        (Connection(("commonName", "anna"), ("commonName", "bert")), "anna", True, "TLS certificate name mismatch"),
        (Connection(("commonName", "")), "", True, "TLS certificate name mismatch"),
        (Connection(("organizationName", "anna")), "anna", True, "TLS certificate name mismatch"),
    ],
)
def test_nobody_else_may_and_all_hear_the_same(connection, user, is_known, note):
    with pytest.raises(Refused) as refused:
        check_certificate(connection, user, is_known=is_known)
    assert (refused.value.sqlstate, refused.value.sentence) == (
        "28000",
        f'certificate authentication failed for user "{user}"',
    )
    assert refused.value.note.startswith(note)
    assert not refused.value.detail + refused.value.hint
