"""A line of pg_hba.conf: what becomes of it, and the sentence where nothing does."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.auth.fields import BadLine, Line, split_fields
from proxy.auth.hba import METHODS, parse_rule
from proxy.auth.rules import ClientCert, Method, Network, Record, Where, parse_ip


def rule(text, why_not_served=lambda method: ""):
    return parse_rule(Line("hba.conf", 7, tuple(tuple(words) for words in split_fields(text))), why_not_served)


def test_a_rule_has_everything_that_its_line_says():
    found = rule('hostssl shop,"all" anna,/^app_ 10.0.0.0/8 scram-sha-256 clientcert=verify-ca')
    assert (found.record, found.method, found.client_cert) == (Record.HOSTSSL, Method.SCRAM, ClientCert.VERIFY_CA)
    assert found.databases.exact == {"shop", "all"}
    assert not found.databases.has_all
    assert found.users.exact == {"anna"}
    assert [pattern.text for pattern in found.users.patterns] == ["^app_"]
    assert found.address == Network(parse_ip("10.0.0.0"), parse_ip("255.0.0.0"))
    assert (found.place.file, found.place.line) == ("hba.conf", 7)


def test_words_for_addresses_lose_their_meaning_in_quotes():
    assert rule("host all all samenet trust").address is Where.SAMENET
    with pytest.raises(BadLine, match="'samenet' is no address"):
        rule('host all all "samenet" trust')


def test_ident_on_a_unix_socket_is_peer_as_in_postgresql():
    assert rule("local all all ident map=m").method is Method.PEER
    with pytest.raises(BadLine, match="ident is not spoken"):
        rule("host all all all ident")


def test_cert_implies_verify_full():
    assert rule("hostssl all all all cert").client_cert is ClientCert.VERIFY_FULL


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("hots all all all trust", "'hots' is no type of record: local, host, hostssl"),
        ("host,local all all all trust", "the type of the record is one word"),
        ("hostgssenc all all all trust", "GSSAPI encryption is not spoken here"),
        ("host", "the line ends in front of the databases"),
        ("host all", "the line ends in front of the users"),
        ("host all all", "the line ends in front of the address"),
        ("host all all 10.0.0.1", "the line ends in front of the mask"),
        ("host all all all", "the line ends in front of the method"),
        ("local all all", "the line ends in front of the method"),
        ("host samerole all all trust", "samerole: the pooler does not know"),
        ("host samegroup all all trust", "samegroup: the pooler does not know"),
        ("host all +admins all trust", "+admins: the pooler does not know"),
        ("host all /( all trust", "the regular expression '/(' has a ( that is never closed"),
        ("host all / all trust", "no regular expression follows the /"),
        ("host all all db.example.com trust", "host names are not looked up"),
        ("host all all .example.com trust", "host names are not looked up"),
        ("host all all 10.0.0 trust", "'10.0.0' is no address"),
        ("host all all 010.0.0.1/32 trust", "is no address"),
        ("host all all 10.0.0.0/33 trust", "behind the / stand 0 to 32 bits"),
        ("host all all ::/129 trust", "behind the / stand 0 to 128 bits"),
        ("host all all 10.0.0.0/x trust", "behind the / stand"),
        ("host all all 10.0.0.0/ trust", "behind the / stand"),
        ("host all all 10.0.0.0/-1 trust", "behind the / stand"),
        ("host all all 10.0.0.0 trust", "'trust' is no mask"),
        ("host all all 10.0.0.0 ffff:: trust", "the address is of IPv4 and its mask 'ffff::' is not"),
        ("host all all all,10.0.0.0/8 trust", "the address is one word"),
        ("host all all all trust,md5", "the method is one word"),
        ("host all all all scram", "'scram' is no method: trust, reject"),
        ("host all all all gss", "the method gss is not spoken here"),
        ("host all all all radius radiusservers=x", "the method radius is not spoken here"),
        ("host all all all peer", "the method peer is for local records only"),
        ("host all all all cert", "the method cert is for hostssl records only"),
        ("local all all cert", "the method cert is for hostssl records only"),
        ("host all all all trust map", "the option 'map' is not written as name=value"),
        ("host all all all trust map=x", "the option map is for the methods cert, peer, oauth, not for trust"),
        ("host all all all trust colour=red", "the option 'colour' is none that is known"),
        ("local all all peer map=x map=y", "the option map stands twice"),
        ("local all all peer map=", "map= names no map"),
        ("host all all all md5 clientcert=verify-ca", "the option clientcert is for hostssl records only"),
        ("hostssl all all all md5 clientcert=1", "clientcert is verify-ca or verify-full"),
        ("hostssl all all all cert clientcert=verify-ca", "clientcert is verify-full where the method is cert"),
        ("hostssl all all all cert clientname=dn", "clientname is CN or DN"),
    ],
)
def test_what_cannot_be_kept_is_a_mistake_with_the_reason(line, sentence):
    with pytest.raises(BadLine) as caught:
        rule(line)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "host all all all ldap ldapbindpasswd=hunter1 hunter2",
        "host all all all ldap ldapbindpasswd=hunter1 hunter2=hunter3",
        "host all all all ldap ldapserver=x ldapbindpasswd=hunter2 ldapbindpasswd=hunter3",
        "host all all all ldapbindpasswd=hunter2 ldap",
        "host all all 10.0.0.1 ldapbindpasswd=hunter2",
        "host all all ldapbindpasswd=hunter2 ldap",
        "host all all all trust ldapbindpasswd=hunter2",
        "ldapbindpasswd=hunter2",
    ],
)
def test_no_sentence_repeats_a_secret(line):
    with pytest.raises(BadLine) as caught:
        rule(line)
    assert "hunter" not in str(caught.value)


def test_a_method_that_cannot_be_served_here_is_a_mistake():
    with pytest.raises(BadLine, match="the method pam needs the extra"):
        rule("host all all all pam", lambda method: "needs the extra [pam]" if method is Method.PAM else "")


def test_every_method_has_a_row():
    assert set(METHODS) == set(Method)


WORDS = st.sampled_from(
    "local host hostssl all sameuser replication +x @ /^a$ /( 10.0.0.0/8 ::1/128 10.0.0.1 255.0.0.0 samehost trust md5"
    ' cert peer map=x clientcert=verify-full ldap ldapserver=x x.example.com , "all" "" = /'.split()
)


@given(st.lists(WORDS, max_size=8).map(" ".join))
def test_any_line_is_a_rule_or_a_mistake(text):
    with contextlib.suppress(BadLine):
        found = rule(text)
        assert (found.address is None) is (found.record is Record.LOCAL)
