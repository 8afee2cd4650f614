"""The outside methods as a whole proxy knows them: who is asked, what is kept, and what a bad setting costs."""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from protocol.errors import Refused
from protocol.frontend import build_password
from protocol.passwords import Plain, ScramKeys, Secret
from proxy.auth.outside import NO_MAPS
from proxy.auth.rulebook import read_rulebook
from proxy.auth.users import Users
from proxy.config.ini import read
from proxy.config.kinds import AuthType
from proxy.failing import LoginFailed
from tests.extras import need
from tests.proxy.auth.wire import alone, play
from tests.whole import INI, a_pool, a_proxy

need("jwt", "cryptography")

from tests.proxy.auth.issuer import ISSUER, jwk_set, public_jwk, token  # noqa: E402
from tests.proxy.auth.test_oauth import first  # noqa: E402

HERE = ("127.0.0.1", 1)


def a_proxy_for_tokens(folder: Path, **said: str) -> Any:
    keys = folder / "keys.json"
    keys.write_bytes(jwk_set(public_jwk("2048", "one")))
    settings = {
        "oauth_issuer": ISSUER,
        "oauth_jwks": str(keys),
        "oauth_audience": "pgshuttle",
        "oauth_scope": "db",
        **said,
    }
    path = folder / "proxy.ini"
    path.write_text(INI + "".join(f"{name} = {value}\n" for name, value in settings.items()))
    return a_proxy(path)


def verify(proxy: Any, shown: Any, options: dict[str, str] | None = None, maps: Any = NO_MAPS) -> str:
    """The refusal and its note, or nothing."""

    async def scene() -> str:
        inbox = alone(first(shown) + b"p\x00\x00\x00\x05\x01")
        try:
            assert await proxy.outside.verify(inbox, "anna", AuthType.OAUTH, HERE, options or {}, maps) == b""
        except Refused as no:
            return f"{no.sqlstate} {no.sentence}: {no.note}"
        return ""

    return play(scene())


def test_a_token_is_held_against_the_settings(tmp_path: Path) -> None:
    proxy = a_proxy_for_tokens(tmp_path)
    assert verify(proxy, token()) == ""
    assert verify(proxy, token(aud="shop")).endswith("it is made for somebody else")


def test_or_against_the_options_of_a_line_of_the_hba_file(tmp_path: Path) -> None:
    proxy = a_proxy_for_tokens(tmp_path)
    assert verify(proxy, token(aud="shop"), {"audience": "shop"}) == ""
    assert verify(proxy, token(), {"scope": "write"}).endswith("it lacks the scope write")


def test_a_map_says_who_may_be_whom(tmp_path: Path) -> None:
    proxy = a_proxy_for_tokens(tmp_path)
    (tmp_path / "ident").write_text("people /^(.*)@example[.]com$ \\1\npeople root anna\n")
    settings = replace(
        proxy.settings, auth_type=AuthType.OAUTH, auth_ident_file=str(tmp_path / "ident"), oauth_map="people"
    )
    maps = read_rulebook(settings).maps
    assert verify(proxy, token(sub="anna@example.com"), {"map": "people"}, maps) == ""
    assert verify(proxy, token(sub="root"), {"map": "people"}, maps) == ""
    for sub in ("anna", "bert@example.com", "anna@example.com.evil.net", "anna@exampleXcom", "Root"):
        assert verify(proxy, token(sub=sub), {"map": "people"}, maps).endswith(f'it is of "{sub}"')
    assert verify(proxy, token(), {"map": "nobody"}, maps) != ""


def test_rules_that_are_wrong_are_the_operators_business_and_not_the_clients(tmp_path: Path) -> None:
    proxy = a_proxy_for_tokens(tmp_path, oauth_scope="")
    heard = verify(proxy, token())
    assert heard.startswith("XX000 oauth authentication is not set up for this login: oauth_scope is missing")


def test_a_reload_reads_the_keys_again_at_once(tmp_path: Path) -> None:
    """A stolen key is taken out of the file, and RELOAD is said: no token of it may be good any more."""

    async def scene() -> None:
        proxy = a_proxy_for_tokens(tmp_path)
        inbox = alone(first(token()))
        await proxy.outside.verify(inbox, "anna", AuthType.OAUTH, HERE)
        (tmp_path / "keys.json").write_bytes(jwk_set(public_jwk("P-256", "two")))
        assert await proxy.reload() == []
        with pytest.raises(Refused):
            await proxy.outside.verify(alone(first(token()) + b"p\x00\x00\x00\x05\x01"), "anna", AuthType.OAUTH, HERE)
        await proxy.tasks.cancel_all()

    asyncio.run(asyncio.wait_for(scene(), 5))


PASSWORD = build_password("swordfish")


def ask_ldap(proxy: Any, monkeypatch: Any, said: bytes = PASSWORD) -> None:
    monkeypatch.setattr("proxy.auth.ldap.bind_as", lambda rules, user, password: None)
    monkeypatch.setitem(sys.modules, "ldap", ModuleType("ldap"))
    options = {"ldapserver": "127.0.0.1", "ldapprefix": "uid="}
    play(proxy.outside.verify(alone(said), "anna", AuthType.LDAP, HERE, options))


def test_a_password_that_a_directory_believes_opens_the_users_servers(tmp_path: Path, monkeypatch: Any) -> None:
    proxy = a_proxy_for_tokens(tmp_path)
    pool = a_pool(proxy)
    assert proxy.proofs.find_login(pool)[1] == (None,)
    pool.failure = LoginFailed("28P01", "no password")
    ask_ldap(proxy, monkeypatch)
    assert proxy.proofs.find_login(pool)[1] == (Secret("swordfish"),)
    assert pool.failure is None  # with a password it may be another matter
    pool.failure = LoginFailed("28P01", "wrong password")
    ask_ldap(proxy, monkeypatch)
    assert pool.failure is not None  # the same as before: nothing is tried anew
    ask_ldap(proxy, monkeypatch, build_password("another"))
    assert proxy.proofs.find_login(pool)[1] == (Secret("another"),)
    assert "another" not in repr(vars(proxy.outside))


def test_what_the_files_say_of_a_password_counts_more(tmp_path: Path, monkeypatch: Any) -> None:
    proxy = a_proxy_for_tokens(tmp_path)
    ask_ldap(proxy, monkeypatch)
    proxy.users = Users({"anna": (Plain(Secret("of the file")),)})
    assert proxy.proofs.find_login(a_pool(proxy))[1] == (Secret("of the file"), Secret("swordfish"))
    keys = ScramKeys.from_salted_password(b"x" * 32)
    proxy.users = Users({"anna": (keys.verifier(b"salt", 4096),)})  # with which nothing can be opened
    assert proxy.proofs.find_login(a_pool(proxy))[1][0] == Secret("swordfish")


def test_passwords_are_kept_of_so_many_and_no_more(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("proxy.auth.outside.MAX_PASSWORDS", 2)
    proxy = a_proxy_for_tokens(tmp_path)
    for user in ("a", "b", "a", "c"):
        proxy.outside._learn(user, Secret(user))
    assert [proxy.outside.password_of(user) for user in "abc"] == [Secret("a"), None, Secret("c")]


def test_where_every_database_has_a_password_of_its_own_nobodys_is_kept(tmp_path: Path, monkeypatch: Any) -> None:
    proxy = a_proxy_for_tokens(tmp_path)
    ask_ldap(proxy, monkeypatch)
    assert proxy.outside.password_of("anna") == Secret("swordfish")
    databases = {name: replace(entry, password=Secret("own")) for name, entry in proxy.config.databases.items()}
    proxy.config = replace(proxy.config, databases=databases)
    ask_ldap(proxy, monkeypatch)
    assert proxy.outside.password_of("anna") is None


def test_set_on_the_console_says_what_is_missing(tmp_path: Path) -> None:
    async def scene() -> None:
        proxy = a_proxy_for_tokens(tmp_path, oauth_audience="")
        with pytest.raises(ValueError, match="oauth_audience is missing"):
            await proxy.reloader.apply_setting("auth_type", "oauth")
        await proxy.reloader.apply_setting("oauth_audience", "pgshuttle")
        await proxy.reloader.apply_setting("auth_type", "oauth")
        assert proxy.settings.auth_type is AuthType.OAUTH

    play(scene())


def test_the_file_says_so_too(tmp_path: Path) -> None:
    a_proxy_for_tokens(tmp_path)
    text = (tmp_path / "proxy.ini").read_text().replace("auth_type = trust", "auth_type = oauth")
    (tmp_path / "proxy.ini").write_text(text)
    assert read(str(tmp_path / "proxy.ini")).settings.auth_type is AuthType.OAUTH
