"""
Old config against new: what a reload changes, and what it cannot.

Theory. `compare` looks and changes nothing. Settings that belong to things made at the start (sockets, the
account we run as) keep their old values: `effective` is the new config with those taken from the old, and
it is what the proxy lives by from then on, so the next comparison starts from the truth. A database whose
address or login changed is `retired`: its servers must be replaced, since an open connection still talks
to the old place. One whose limits alone changed keeps its servers.

A secret is never shown, nor is its length: "password changed" is all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, TypeVar

from proxy.config.entries import Database, Peer, User
from proxy.config.ini import Config
from proxy.config.lines import make_printable
from proxy.config.settings import RESTART, SETTINGS, Setting, table_of

K = TypeVar("K", str, int)
E = TypeVar("E", Database, User, Peer)

MOST_NAMES: Final = 10  # in one log line

# What an open server connection cannot take over: where it leads, as whom, and what was said to it first.
LOGIN: Final = (
    "server_dbname",
    "hosts",
    "port",
    "server_tls_negotiation",
    "user",
    "password",
    "connect_query",
    "client_encoding",
    "datestyle",
    "timezone",
    "application_name",
)
SECRETS: Final = frozenset({"password", "auth_ldap_options"})


@dataclass(frozen=True, slots=True)
class Change:
    """One value that differs, as text; of a secret only that it differs."""

    name: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.name} changed" if self.name in SECRETS else f"{self.name} {self.old!r} -> {self.new!r}"


@dataclass(frozen=True, slots=True)
class Differences:
    """Entries of one section that came, went or changed, by name."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: Mapping[str, tuple[Change, ...]]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


@dataclass(frozen=True, slots=True)
class Changes:
    """All that differs. `retired`: names of databases whose servers must be replaced; "*" may be among them."""

    effective: Config
    settings: tuple[Change, ...]
    restart: tuple[Change, ...]
    databases: Differences
    users: Differences
    peers: Differences
    retired: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.settings or self.restart or self.databases or self.users or self.peers)

    def summary(self) -> str:
        """One line for the log."""
        parts = [
            ", ".join(str(change) for change in self.settings),
            _describe("databases", self.databases),
            _describe("users", self.users),
            _describe("peers", self.peers),
            _prefix("servers replaced: ", _some(sorted(self.retired), len(self.retired))),
            _prefix("needs a restart, old value kept: ", ", ".join(str(change) for change in self.restart)),
        ]
        return make_printable("; ".join(part for part in parts if part) or "nothing changed")


def compare(old: Config, new: Config) -> Changes:
    """What putting `new` in the place of `old` means."""
    changes = _changes_of(SETTINGS, old.settings, new.settings)
    databases = _differences(old.databases, new.databases)
    return Changes(
        effective=_keep(old, new),
        settings=tuple(change for change in changes if SETTINGS[change.name].reload is not RESTART),
        restart=tuple(change for change in changes if SETTINGS[change.name].reload is RESTART),
        databases=databases,
        users=_differences(old.users, new.users),
        peers=_differences(old.peers, new.peers),
        retired=frozenset(_retired(old, new, databases)),
    )


def must_replace_servers(old: Database, new: Database) -> bool:
    """Whether servers opened for `old` are of no use to `new`: another address, another login, another start."""
    return any(getattr(old, name) != getattr(new, name) for name in LOGIN)


def _retired(old: Config, new: Config, databases: Differences) -> Iterable[str]:
    """Names served before and after, but elsewhere: also a name that moves from `*` to an entry of its own or back."""
    for name in (*databases.changed, *databases.added, *databases.removed):
        before, after = old.find_database(name), new.find_database(name)
        if before is not None and after is not None and must_replace_servers(before, after):
            yield name


def _keep(old: Config, new: Config) -> Config:
    """`new` with the old values of what needs a restart, and with the old objects for entries that are as they were:
    of thousands few change, and new objects by the thousand make work for the collector of cycles."""
    kept = {name: getattr(old.settings, name) for name, row in SETTINGS.items() if row.reload is RESTART}
    databases = {name: _same(old.databases.get(name), entry) for name, entry in new.databases.items()}
    users = {name: _same(old.users.get(name), entry) for name, entry in new.users.items()}
    return replace(new, settings=replace(new.settings, **kept), databases=databases, users=users)


def _same(old: E | None, new: E) -> E:
    return old if old is not None and old == new else new


def _differences(old: Mapping[K, E], new: Mapping[K, E]) -> Differences:
    unlike = [(name, entry) for name, entry in old.items() if name in new and entry != new[name]]
    table = table_of(type(unlike[0][1])) if unlike else {}
    changed = {str(name): _changes_of(table, entry, new[name]) for name, entry in unlike}
    return Differences(
        added=tuple(str(name) for name in new if name not in old),
        removed=tuple(str(name) for name in old if name not in new),
        changed=changed,
    )


def _changes_of(table: Mapping[str, Setting], old: object, new: object) -> tuple[Change, ...]:
    found = []
    for name, row in table.items():
        before, after = getattr(old, name), getattr(new, name)
        if before != after and name in SECRETS:
            found.append(Change(name, "***", "***"))
        elif before != after:
            found.append(Change(name, row.kind.format(before), row.kind.format(after)))
    return tuple(found)


def _describe(section: str, differences: Differences) -> str:
    changed = (f"{name} ({', '.join(map(str, changes))})" for name, changes in differences.changed.items())
    parts = [
        _prefix("added ", _some(differences.added, len(differences.added))),
        _prefix("removed ", _some(differences.removed, len(differences.removed))),
        _prefix("changed ", _some(changed, len(differences.changed))),
    ]
    return _prefix(f"{section}: ", ", ".join(part for part in parts if part))


def _some(names: Iterable[str], count: int) -> str:
    """The first names, and how many more there are."""
    rest = count - MOST_NAMES
    return ", ".join(islice(names, MOST_NAMES)) + (f" and {rest} more" if rest > 0 else "")


def _prefix(words: str, text: str) -> str:
    return words + text if text else ""
