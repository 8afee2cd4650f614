"""The rules of the outside methods: what must be said, what an HBA line may say otherwise, and what is missing."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from protocol.passwords import Secret
from proxy.config import outside
from proxy.config.ini import BadConfig, read
from proxy.config.kinds import AuthType
from proxy.config.outside import MODULES, OUTSIDE, READERS, check_options, find_missing, read_ldap, read_oauth, read_pam
from proxy.config.settings import Settings

OAUTH = {
    "oauth_issuer": "https://id.example.com",
    "oauth_jwks": "/etc/keys.json",
    "oauth_audience": ("pgshuttle",),
    "oauth_scope": ("openid", "db"),
}


def settings(**said: Any) -> Settings:
    return Settings(**{**OAUTH, **said})


def test_every_outside_method_has_its_rules_and_its_libraries() -> None:
    assert OUTSIDE == set(READERS) == set(MODULES)


def test_the_rules_are_those_of_the_settings() -> None:
    rules = read_oauth(settings())
    assert (rules.issuer, rules.jwks) == ("https://id.example.com", "/etc/keys.json")
    assert (rules.audience, rules.scope) == (("pgshuttle",), ("openid", "db"))
    assert (rules.user_claim, rules.allow_plain) == ("sub", False)


def test_a_line_of_the_hba_file_says_some_of_them_otherwise() -> None:
    options = {
        "issuer": "https://other.example.com",
        "jwks": "/other",
        "scope": "a b",
        "allow_plain": "1",
        "map": "people",
    }
    rules = read_oauth(settings(), options)
    assert (rules.issuer, rules.scope, rules.allow_plain) == ("https://other.example.com", ("a", "b"), True)
    assert (rules.map, read_oauth(settings(oauth_map="all")).map) == ("people", "all")
    assert rules.audience == ("pgshuttle",)
    with pytest.raises(ValueError, match="oauth_allow_plain is neither"):
        read_oauth(settings(), {"allow_plain": "perhaps"})


@pytest.mark.parametrize("name", ["issuer", "jwks", "audience", "scope"])
def test_what_makes_a_token_ours_must_be_said(name: str) -> None:
    with pytest.raises(ValueError, match=f"oauth_{name} is missing: "):
        read_oauth(settings(**{f"oauth_{name}": type(OAUTH[f"oauth_{name}"])()}))


@pytest.mark.parametrize(
    "address",
    [
        "http://id.example.com",
        "http://127.0.0.1.example.com/",
        "ftp://127.0.0.1",
        "https://",
        "https:///x",
        "file:///k",
    ],
)
def test_keys_and_tokens_come_by_https(address: str) -> None:
    with pytest.raises(ValueError, match="https"):
        read_oauth(settings(oauth_jwks=address))
    with pytest.raises(ValueError, match="https"):
        read_oauth(settings(oauth_issuer=address))


@pytest.mark.parametrize("address", ["https://id.example.com/keys", "http://127.0.0.1:8080/", "http://[::1]/k"])
def test_this_machine_may_do_without(address: str) -> None:
    assert read_oauth(settings(oauth_jwks=address)).jwks == address


def test_the_keys_of_one_issuer_do_not_vouch_for_another() -> None:
    said = settings(oauth_issuer="https://a", oauth_jwks="/a", oauth_audience=("x",), oauth_scope=("y",))
    with pytest.raises(ValueError, match="issuer= needs jwks= beside it"):
        read_oauth(said, {"issuer": "https://b"})


def test_an_identity_that_others_map_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="delegate_ident_mapping is not supported"):
        read_oauth(settings(), {"delegate_ident_mapping": "1"})
    assert read_oauth(settings(), {"delegate_ident_mapping": "0", "validator": "whatever"})


def test_a_line_of_the_hba_file_names_a_directory_of_its_own() -> None:
    said = settings(auth_ldap_options=Secret("ldapserver=a ldapprefix=uid="))
    assert read_ldap(said).servers == "ldap://a:389"
    assert read_ldap(said, {"ldapserver": "b", "ldapbasedn": "dc=x"}).servers == "ldap://b:389"
    assert read_ldap(said, {"clientcert": "verify-ca"}).servers == "ldap://a:389"


def test_a_line_of_the_hba_file_is_checked_where_it_is_read() -> None:
    check_options(Settings(), "md5", {})
    check_options(settings(), "oauth", {})
    for method, options in (("oauth", {}), ("ldap", {"ldapserver": "a"}), ("pam", {"pamservice": "a/b"})):
        with pytest.raises(ValueError, match=r"missing|no name"):
            check_options(Settings(), method, options)


def test_pam_has_a_service_file_with_a_name() -> None:
    assert read_pam(Settings()).service == "pgbouncer"
    assert read_pam(Settings(), {"pamservice": "db", "pam_use_hostname": "0"}).service == "db"
    for name in ("", "../shadow", "a/b", "a b", "x" * 65):
        with pytest.raises(ValueError, match="pam_service is no name"):
            read_pam(Settings(pam_service=name))
    with pytest.raises(ValueError, match="pam_use_hostname is not supported"):
        read_pam(Settings(), {"pam_use_hostname": "1"})


def test_a_system_without_pam_says_so(monkeypatch: Any) -> None:
    said = Settings(auth_type=AuthType.PAM)
    monkeypatch.setattr(outside, "LIBPAM", "libpam-of-nowhere.so.0")
    assert list(find_missing(said)) == [
        "auth_type = pam needs libpam-of-nowhere.so.0 of the system (Debian's package libpam0g)"
    ]


def write(folder: Path, **said: str) -> str:
    path = folder / "proxy.ini"
    path.write_text("[databases]\n* =\n[proxy]\n" + "".join(f"{name} = {value}\n" for name, value in said.items()))
    return str(path)


def test_a_file_that_does_not_say_enough_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="auth_type is oauth: oauth_issuer is missing"):
        read(write(tmp_path, auth_type="oauth"))


def test_a_missing_library_is_a_mistake_that_says_how_it_is_had(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = {name: "  ".join(value) if isinstance(value, tuple) else value for name, value in OAUTH.items()}
    with pytest.raises(BadConfig, match=r"auth_type = oauth needs jwt, .* pip install \"pgshuttle\[oauth\]\""):
        read(write(tmp_path, auth_type="oauth", **said))
    assert read(write(tmp_path, auth_type="md5", **said))


def test_a_file_that_says_enough_needs_no_auth_file(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    said = {name: "  ".join(value) if isinstance(value, tuple) else value for name, value in OAUTH.items()}
    config = read(write(tmp_path, auth_type="oauth", **said))
    assert config.warnings == ()
    assert config.settings.auth_type is AuthType.OAUTH
    assert list(find_missing(config.settings)) == []
    assert outside.read_oauth(config.settings).scope == ("openid", "db")
