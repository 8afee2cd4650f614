"""What an operator says about a directory: options, two ways, a URL; and names that cannot break out of their place."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.passwords import Secret
from proxy.config.kinds import LDAP_OPTIONS
from proxy.config.ldap import LdapRules, escape_name, escape_value, hide_password, make_rules, parse_options

SIMPLE = {"ldapserver": "ldap.example.com", "ldapprefix": "uid=", "ldapsuffix": ",dc=example,dc=com"}
SEARCH = {"ldapserver": "ldap.example.com", "ldapbasedn": "dc=example,dc=com"}


def test_options_are_separated_by_blanks_or_commas_and_quoted_as_pgbouncer_does() -> None:
    text = 'ldapserver=a.example.com,ldapport=390  ldapbasedn="dc=example, dc=com" ,ldapbindpasswd="say ""hi""" '
    assert parse_options(text) == {
        "ldapserver": "a.example.com",
        "ldapport": "390",
        "ldapbasedn": "dc=example, dc=com",
        "ldapbindpasswd": 'say "hi"',
    }
    assert parse_options('"ldapserver"="x"') == {"ldapserver": "x"}
    assert parse_options("  ") == {}


@pytest.mark.parametrize(
    "text",
    [
        "ldapserver",
        "ldapserver=",
        "ldapserver= x",
        'ldapserver="x',
        'ldapserver="x"y',
        "ldapbasedn=dc=example,dc=com",
        "ldapbindpasswd=hush colour=red",
        "x" * 5000,
    ],
)
def test_what_is_no_option_is_refused_without_its_value(text: str) -> None:
    with pytest.raises(ValueError, match="auth_ldap_options") as refused:
        parse_options(text)
    assert "hush" not in str(refused.value)


def test_a_user_is_named_or_searched_for() -> None:
    simple, search = make_rules(SIMPLE), make_rules(SEARCH)
    assert simple.base is None
    assert simple.entry_of("anna") == "uid=anna,dc=example,dc=com"
    assert search.base == "dc=example,dc=com"
    assert search.filter_for("anna") == "(uid=anna)"
    assert search.servers == "ldap://ldap.example.com:389"
    assert search.scope == 2


def test_several_servers_and_schemes() -> None:
    said = {"ldapserver": "a.example.com [::1] 10.0.0.1", "ldapscheme": "ldaps"}
    assert make_rules(SEARCH | said).servers == "ldaps://a.example.com:636 ldaps://[::1]:636 ldaps://10.0.0.1:636"
    assert make_rules(SEARCH | {"ldapport": "1389"}).servers == "ldap://ldap.example.com:1389"
    assert make_rules(SEARCH | {"ldaptls": "1"}).starttls


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ldap://a.example.com/dc=x", ("ldap://a.example.com:389", "dc=x", "(uid=anna)", 0)),
        ("ldaps://a.example.com:1636/dc=x?cn?sub", ("ldaps://a.example.com:1636", "dc=x", "(cn=anna)", 2)),
        ("ldap://[::1]:390/o=a%20b?uid?one", ("ldap://[::1]:390", "o=a b", "(uid=anna)", 1)),
        ("ldap://a/dc=x??sub?(mail=$username)", ("ldap://a:389", "dc=x", "(mail=anna)", 2)),
        ("ldap://a/dc=x??sub?mail=$username", ("ldap://a:389", "dc=x", "(mail=anna)", 2)),
    ],
)
def test_a_url_says_it_all(url: str, expected: tuple[Any, ...]) -> None:
    rules = make_rules({"ldapurl": url})
    assert (rules.servers, rules.base, rules.filter_for("anna"), rules.scope) == expected


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "ldapserver is missing"),
        ({"ldapbasedn": "dc=x"}, "ldapserver is missing"),
        ({"ldapserver": "a"}, "ldapbasedn, ldapprefix or ldapsuffix is missing"),
        (SIMPLE | {"ldapbasedn": "dc=x"}, "ldapbasedn is for a search"),
        (SIMPLE | {"ldapbindpasswd": "hush", "ldapbinddn": "cn=a"}, "ldapbinddn is for a search"),
        (SEARCH | {"ldapsearchattribute": "cn", "ldapsearchfilter": "(cn=$username)"}, "one of them is enough"),
        (SEARCH | {"ldapurl": "ldap://a/dc=x"}, "is a part of ldapurl"),
        (SEARCH | {"ldapbinddn": "cn=a"}, "belong together"),
        (SEARCH | {"ldapbindpasswd": "hush"}, "belong together"),
        (SEARCH | {"ldapscheme": "ldaps", "ldaptls": "1"}, "ldaptls is for the scheme ldap"),
        (SEARCH | {"ldapscheme": "ldapi"}, "ldapscheme is none of"),
        (SEARCH | {"ldaptls": "yes"}, "ldaptls is none of"),
        (SEARCH | {"ldapport": "0"}, "ldapport is no port"),
        (SEARCH | {"ldapport": "x"}, "ldapport is no port"),
        (SEARCH | {"ldapserver": "a/b"}, "ldapserver is no list"),
        (SEARCH | {"ldapserver": "a:389"}, "ldapserver is no list"),
        (SEARCH | {"ldapserver": " ".join(["a"] * 11)}, "more than 10"),
        (SEARCH | {"ldapsearchattribute": "uid=*)(cn"}, "no name of an attribute"),
        (SEARCH | {"ldapsearchfilter": "(uid=anna)"}, "ldapsearchfilter"),
        (SEARCH | {"ldapsearchfilter": "uid=$username"}, "ldapsearchfilter"),
        (SEARCH | {"ldapsearchfilter": "((uid=$username)"}, "ldapsearchfilter"),
        ({"ldapurl": "http://a/dc=x"}, "ldapurl is not of the form"),
        ({"ldapurl": "ldap://a/dc=x??tree"}, "a scope other than"),
    ],
)
def test_options_that_make_no_sense_are_refused_without_their_values(options: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        make_rules(options)
    assert "hush" not in str(refused.value)


def test_the_password_shows_nowhere() -> None:
    rules = make_rules(SEARCH | {"ldapbinddn": "cn=a", "ldapbindpasswd": "hush"})
    assert rules.bind_password == Secret("hush")
    assert "hush" not in repr(rules)
    for text in ("ldapbindpasswd=hush x", 'a=b ldapbindpasswd="hu""sh hush" c=d', 'ldapbindpasswd="hush hush'):
        assert "hush" not in hide_password(text)
        assert "hush" not in LDAP_OPTIONS.format(LDAP_OPTIONS.parse(text))
    assert hide_password('ldapserver=a ldapbindpasswd="b c" ldapport=1') == "ldapserver=a ldapbindpasswd=*** ldapport=1"


# The user's name is a stranger's.


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("anna", "anna"),
        ("a,b=c+d", r"a\,b\=c\+d"),
        ('"<>;\\', r"\"\<\>\;\\"),
        ("#x", r"\#x"),
        (" x ", r"\ x\ "),
        (" ", r"\ "),
        ("a b", "a b"),
        ("a\0b", r"a\00b"),
        ("\n x\n", "\n x\n"),
        ("é", "é"),
    ],
)
def test_a_value_inside_a_name(name: str, escaped: str) -> None:
    assert escape_name(name) == escaped


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("anna", "anna"),
        ("*", r"\2a"),
        (")(uid=*", r"\29\28uid=\2a"),
        ("\\2a", r"\5c2a"),
        ("\0", r"\00"),
        ("é,=", "é,="),
    ],
)
def test_a_value_inside_a_filter(name: str, escaped: str) -> None:
    assert escape_value(name) == escaped


def parse_filter_value(text: str) -> str:
    """RFC 4515 backwards: what a directory makes of a value."""
    assert not set(text) & set("*()\0")
    head, *parts = text.split("\\")
    return head + "".join(chr(int(part[:2], 16)) + part[2:] for part in parts)


def parse_name_value(text: str) -> str:
    """RFC 4514 backwards."""
    value, pos = "", 0
    while pos < len(text):
        if text[pos] == "\\":
            is_hex = text[pos + 1 : pos + 3] == "00"
            value, pos = (value + "\0", pos + 3) if is_hex else (value + text[pos + 1], pos + 2)
        else:
            assert text[pos] not in ',+"<>;=\0'
            value, pos = value + text[pos], pos + 1
    return value


@given(st.text(st.sampled_from('abc *()\\,+"<>;=#\0é\n29'), max_size=12))
def test_whatever_the_name_it_stays_one_value(name: str) -> None:
    assert parse_filter_value(escape_value(name)) == name
    assert parse_name_value(escape_name(name)) == name


def test_the_name_is_put_in_wherever_the_filter_wants_it_and_is_no_pattern() -> None:
    rules: LdapRules = make_rules(SEARCH | {"ldapsearchfilter": "(|(uid=$username)(mail=$username@x))"})
    assert rules.filter_for("$username") == "(|(uid=$username)(mail=$username@x))"
    assert rules.filter_for("\\1*") == r"(|(uid=\5c1\2a)(mail=\5c1\2a@x))"
