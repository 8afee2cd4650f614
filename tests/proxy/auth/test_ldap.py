"""A directory's yes and no: by a fake of python-ldap that counts what it is asked and can fail anywhere."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from protocol.frontend import build_password
from protocol.passwords import Secret
from proxy.auth.crew import Crew
from proxy.auth.ldap import CannotAsk, NotLetIn, bind_as, verify_by_ldap
from proxy.config.ldap import make_rules
from tests.proxy.auth.wire import alone, hear_of

BASE = "dc=example,dc=com"
SIMPLE = make_rules({"ldapserver": "h", "ldapprefix": "uid=", "ldapsuffix": f",{BASE}"})
SEARCH = make_rules({"ldapserver": "h", "ldapbasedn": BASE, "ldapbinddn": "cn=searcher", "ldapbindpasswd": "look"})


class LDAPError(Exception):
    pass


def an_error(name: str) -> type[LDAPError]:
    return type(name, (LDAPError,), {})


ERRORS = ("SERVER_DOWN", "TIMEOUT", "CONNECT_ERROR", "BUSY", "UNAVAILABLE", "SIZELIMIT_EXCEEDED", "INVALID_CREDENTIALS")


class FakeLdap(SimpleNamespace):
    """The module, and its one directory: `people` are passwords by entry, `found` what each search finds."""

    def __init__(self) -> None:
        super().__init__(
            VERSION3=3,
            OPT_REFERRALS="referrals",
            OPT_NETWORK_TIMEOUT="connect",
            OPT_TIMEOUT="answer",
            LDAPError=LDAPError,
            **{name: an_error(name) for name in ERRORS},
        )
        self.people = {f"uid=anna,{BASE}": b"swordfish", "cn=searcher": b"look"}
        self.found: list[Any] = [(f"uid=anna,{BASE}", {})]
        self.asked: list[Any] = []
        self.options: dict[Any, Any] = {}
        self.failing: dict[str, LDAPError] = {}

    def initialize(self, servers: str, **_: Any) -> "FakeLdap":
        self.asked.append(servers)
        return self

    def set_option(self, name: str, value: Any) -> None:
        self.options[name] = value

    def _ask(self, what: str, *args: Any) -> None:
        self.asked.append((what, *args))
        if what in self.failing:
            raise self.failing[what]

    def start_tls_s(self) -> None:
        self._ask("tls")

    def simple_bind_s(self, who: str, password: Any) -> None:
        self._ask("bind", who)
        raw = password.encode() if isinstance(password, str) else password
        if self.people.get(who) != raw:
            raise self.INVALID_CREDENTIALS({"desc": "Invalid credentials"})

    def search_ext_s(self, base: str, scope: int, text: str, attributes: Any, **limits: Any) -> list[Any]:
        self._ask("search", base, scope, text)
        assert limits == {"timeout": 5.0, "sizelimit": 2}
        return self.found

    def unbind_ext_s(self) -> None:
        self._ask("unbind")


@pytest.fixture(name="ldap")
def _ldap(monkeypatch: Any) -> FakeLdap:
    fake = FakeLdap()
    monkeypatch.setitem(sys.modules, "ldap", fake)
    return fake


def test_a_bind_as_the_user_decides(ldap: FakeLdap) -> None:
    bind_as(SIMPLE, "anna", Secret("swordfish"))
    assert ldap.asked == ["ldap://h:389", ("bind", f"uid=anna,{BASE}"), ("unbind",)]
    with pytest.raises(NotLetIn, match="Invalid credentials"):
        bind_as(SIMPLE, "anna", Secret("wrong"))


def test_or_a_search_and_then_a_bind(ldap: FakeLdap) -> None:
    bind_as(SEARCH, "anna", Secret("swordfish"))
    assert ldap.asked[1:] == [
        ("bind", "cn=searcher"),
        ("search", BASE, 2, "(uid=anna)"),
        ("bind", f"uid=anna,{BASE}"),
        ("unbind",),
    ]


def test_answers_are_bounded_in_time_and_nobody_is_followed_elsewhere(ldap: FakeLdap) -> None:
    bind_as(SIMPLE, "anna", Secret("swordfish"))
    assert ldap.options == {"referrals": 0, "connect": 3.0, "answer": 5.0}


@pytest.mark.parametrize("rules", [SIMPLE, SEARCH])
def test_an_empty_password_is_never_taken_to_a_directory(ldap: FakeLdap, rules: Any) -> None:
    ldap.people[f"uid=anna,{BASE}"] = b""  # as a directory answers a bind of nobody
    with pytest.raises(NotLetIn, match="empty"):
        bind_as(rules, "anna", Secret(""))
    assert ldap.asked == []


@pytest.mark.parametrize(
    "found",
    [
        [],
        [("", {})],
        [(None, ["ldap://elsewhere/"])],
        [(f"uid=anna,{BASE}", {}), (f"uid=anna,ou=x,{BASE}", {})],
    ],
)
def test_only_one_entry_with_a_name_will_do(ldap: FakeLdap, found: list[Any]) -> None:
    ldap.found, ldap.people[""] = found, b"swordfish"
    with pytest.raises(NotLetIn):
        bind_as(SEARCH, "anna", Secret("swordfish"))
    assert ("bind", "") not in ldap.asked


def test_more_entries_than_we_asked_for_are_too_many(ldap: FakeLdap) -> None:
    ldap.failing["search"] = ldap.SIZELIMIT_EXCEEDED()
    with pytest.raises(NotLetIn, match="several entries"):
        bind_as(SEARCH, "anna", Secret("swordfish"))


@pytest.mark.parametrize("name", ["SERVER_DOWN", "TIMEOUT", "CONNECT_ERROR", "BUSY", "UNAVAILABLE"])
def test_a_directory_that_does_not_answer_has_not_said_no(ldap: FakeLdap, name: str) -> None:
    ldap.failing["bind"] = getattr(ldap, name)({"desc": "Can't contact LDAP server"})
    with pytest.raises(CannotAsk, match="Can't contact"):
        bind_as(SIMPLE, "anna", Secret("swordfish"))
    assert ldap.asked[-1] == ("unbind",)


def test_a_searcher_that_is_not_let_in_is_not_the_users_fault(ldap: FakeLdap) -> None:
    ldap.people["cn=searcher"] = b"another"
    with pytest.raises(CannotAsk, match="Invalid credentials"):
        bind_as(SEARCH, "anna", Secret("swordfish"))


def test_without_tls_nothing_is_said_where_tls_is_wanted(ldap: FakeLdap) -> None:
    rules = make_rules({"ldapserver": "h", "ldapprefix": "uid=", "ldaptls": "1"})
    ldap.failing["tls"] = ldap.CONNECT_ERROR({"desc": "Connect error", "info": "certificate has expired"})
    with pytest.raises(CannotAsk, match="certificate has expired"):
        bind_as(rules, "anna", Secret("swordfish"))
    assert ldap.asked == ["ldap://h:389", ("tls",)]


def test_the_name_is_escaped_on_both_ways(ldap: FakeLdap) -> None:
    for rules in (SIMPLE, SEARCH):
        with pytest.raises(NotLetIn):
            bind_as(rules, "*)(uid=anna", Secret("wrong"))
    assert ("bind", f"uid=*)(uid\\=anna,{BASE}") in ldap.asked
    assert ("search", BASE, 2, "(uid=\\2a\\29\\28uid=anna)") in ldap.asked


def test_passwords_are_bytes(ldap: FakeLdap) -> None:
    ldap.people[f"uid=anna,{BASE}"] = b"gr\xfcn"
    bind_as(SIMPLE, "anna", Secret.decode(b"gr\xfcn"))


def hear(ldap: FakeLdap, password: str, rules: Any = SIMPLE) -> tuple[str, str]:
    async def ask() -> Secret:
        return await verify_by_ldap(alone(build_password(password)), "anna", rules, Crew("ldap"))

    return hear_of(ask(), password)


def test_what_the_client_hears_and_what_the_log(ldap: FakeLdap) -> None:
    assert hear(ldap, "swordfish") == ("", "")
    wrong = '28P01 password authentication failed for user "anna"'
    assert hear(ldap, "wrong") == (wrong, "the directory says: Invalid credentials")
    assert hear(ldap, "")[0] == wrong
    ldap.found = []
    assert hear(ldap, "swordfish", SEARCH) == (wrong, "the directory does not know him")
    ldap.failing["bind"] = ldap.SERVER_DOWN({"desc": "Can't contact LDAP server"})
    heard, note = hear(ldap, "swordfish")
    assert heard == '28000 LDAP authentication failed for user "anna"'
    assert note == "LDAP at ldap://h:389: Can't contact LDAP server"


def test_nothing_that_was_asked_is_in_what_the_log_hears(ldap: FakeLdap) -> None:
    ldap.failing["bind"] = LDAPError("uid=anna swordfish")
    assert hear(ldap, "swordfish")[1] == "the directory says: LDAPError"
