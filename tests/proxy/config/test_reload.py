"""What a reload changes, and what it says."""

from collections.abc import Mapping
from typing import Any

from protocol.passwords import Secret
from proxy.config.entries import Database, Peer, User
from proxy.config.ini import Config
from proxy.config.reload import compare, must_replace_servers
from proxy.config.settings import Settings


def config(
    settings: Mapping[str, Any] | None = None, databases: Mapping[str, Mapping[str, Any]] | None = None, **more: Any
) -> Config:
    entries = {name: Database(name=name, **values) for name, values in (databases or {}).items()}
    return Config(path="a.ini", section="proxy", settings=Settings(**(settings or {})), databases=entries, **more)


def test_nothing_changed() -> None:
    changes = compare(config(), config())
    assert not changes
    assert changes.summary() == "nothing changed"


def test_a_live_setting_takes_effect() -> None:
    changes = compare(config(), config({"default_pool_size": 30, "query_timeout": 1.5}))
    assert changes.effective.settings.default_pool_size == 30
    assert changes.summary() == "default_pool_size '20' -> '30', query_timeout '0' -> '1.5'"


def test_an_entry_that_is_as_it_was_stays_the_same_object() -> None:
    old = config(databases={"a": {"port": 1}, "b": {"port": 1}})
    new = config(databases={"a": {"port": 1}, "b": {"port": 2}, "c": {}})
    effective = compare(old, new).effective
    assert effective == new
    assert effective.databases["a"] is old.databases["a"]
    assert effective.databases["b"] is new.databases["b"]
    assert list(effective.databases) == ["a", "b", "c"]


def test_a_setting_that_needs_a_restart_keeps_its_old_value_and_is_named() -> None:
    new = config({"listen_port": 7000, "verbose": 1})
    changes = compare(config(), new)
    assert changes.effective.settings == Settings(verbose=1)
    assert [change.name for change in changes.restart] == ["listen_port"]
    assert changes.summary() == "verbose '0' -> '1'; needs a restart, old value kept: listen_port '6432' -> '7000'"
    again = compare(changes.effective, new)
    assert [change.name for change in again.restart] == ["listen_port"]
    assert not again.settings


def test_databases_come_go_and_change() -> None:
    old = config(databases={"a": {}, "b": {}, "c": {"pool_size": 5}, "d": {"port": 1}})
    new = config(databases={"b": {}, "c": {"pool_size": 6}, "d": {"port": 2}, "e": {}})
    changes = compare(old, new)
    assert changes.databases.added == ("e",)
    assert changes.databases.removed == ("a",)
    assert list(changes.databases.changed) == ["c", "d"]
    assert changes.retired == {"d"}
    assert changes.summary() == (
        "databases: added e, removed a, changed c (pool_size '5' -> '6'), d (port '1' -> '2'); servers replaced: d"
    )


def test_each_part_of_address_and_login_replaces_the_servers() -> None:
    base = Database(name="a")
    for values in (
        {"hosts": ("x",)},
        {"port": 1},
        {"dbname": "x"},
        {"user": "x"},
        {"password": Secret("x")},
        {"connect_query": "x"},
        {"timezone": "x"},
    ):
        assert must_replace_servers(base, Database(name="a", **values))  # type: ignore[arg-type]
    assert not must_replace_servers(base, Database(name="a", dbname="a", pool_size=1))


def test_a_secret_is_never_shown() -> None:
    old = config({"auth_ldap_options": "hush"}, databases={"a": {"password": Secret("hush")}})
    new = config({"auth_ldap_options": "hush2"}, databases={"a": {"password": Secret("hush2")}})
    changes = compare(old, new)
    assert changes.summary() == (
        "auth_ldap_options changed; databases: changed a (password changed); servers replaced: a"
    )
    assert "hush" not in repr(changes.databases)
    assert "hush" not in repr(changes.settings)


def test_a_name_that_leaves_the_fallback_for_another_address_is_retired() -> None:
    old = config(databases={"*": {"port": 1}})
    assert compare(old, config(databases={"*": {"port": 1}, "a": {"port": 2}})).retired == {"a"}
    assert compare(old, config(databases={"*": {"port": 1}, "a": {"port": 1}})).retired == frozenset()
    assert compare(old, config(databases={"*": {"port": 2}})).retired == {"*"}


def test_users_and_peers_are_compared_too() -> None:
    old = config(users={"a": User(name="a", pool_size=1)}, peers={1: Peer(number=1, host="x")})
    new = config(users={"a": User(name="a", query_timeout=2.0), "b": User(name="b")}, peers={})
    changes = compare(old, new)
    assert changes.summary() == (
        "users: added b, changed a (pool_size '1' -> '', query_timeout '' -> '2'); peers: removed 1"
    )


def test_the_line_stays_short_and_on_one_line() -> None:
    names = {f"db{number}": {} for number in range(500)} | {"odd\rname": {}}
    line = compare(config(databases={"odd\rname": {}}), config(databases={"x": {}} | names)).summary()
    assert line.endswith("db8 and 491 more")
    assert compare(config(databases={"odd\rname": {}}), config()).summary() == "databases: removed odd\\rname"
