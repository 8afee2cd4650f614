"""
RELOAD CHECK: what a RELOAD would do now, without doing it.

Theory. The files are read and checked as RELOAD reads them and compared with what is in force (reloading.py), and what
RELOAD would write into its log in one line stands here as rows: `kind` and `name` say what differs, `old` and `new`
how, `effect` what becomes of it and of whom. Settings that only a restart changes are among them, or nobody would know
why nothing happens. Mistakes are an error, as RELOAD's own. A secret is `***` on both sides; that it differs is all one
learns.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

from protocol import sqlstate
from protocol.errors import Refused
from protocol.passwords import Stored
from proxy.admin.rows import Table
from proxy.admin.session import Session
from proxy.auth.rulebook import Rulebook
from proxy.auth.users import Users
from proxy.config.entries import FALLBACK, Database, Peer, User
from proxy.config.reload import LOGIN, SECRETS, Changes, Differences
from proxy.config.settings import table_of
from proxy.reloading import BadReload

MAX_MISTAKES_SHOWN: Final = 20
SHAPE: Final = "kind s, name s, old s, new s, effect s"

K = TypeVar("K", str, int)
Line = tuple[str, str, str | None, str | None, str]

_AT_ONCE: Final = "at once"
_RESTART: Final = "needs a restart, the old value stays"
_REPLACED: Final = "its server connections are replaced, busy ones at their next release"
_HIDDEN: Final = "***"


async def wait_changes(session: Session) -> tuple[Table, str]:
    """The rows, and a sentence about them. Refused (F0000): RELOAD would fail, and why."""
    session.log("RELOAD CHECK command issued")
    proxy = session.proxy
    try:
        changes, found = await proxy.reloader.preview()
    except BadReload as bad:
        raise refuse(bad.mistakes, "RELOAD would fail, nothing has changed") from None
    lines = [*_find_lines(proxy, changes, found.users), *_lines_of_rules(proxy, changes, found.rulebook)]
    count = len([line for line in lines if line[0] != "warning"])
    told = f"RELOAD would change {_count(count, 'thing') if count else 'nothing'}"
    return Table(SHAPE, lines), told


def refuse(mistakes: list[str], sentence: str) -> Refused:
    """The error for files that cannot be used; its detail has the mistakes."""
    more = len(mistakes) - MAX_MISTAKES_SHOWN
    shown = [*mistakes[:MAX_MISTAKES_SHOWN], *([f"and {more} more"] if more > 0 else [])]
    return Refused(sqlstate.CONFIG_FILE_ERROR, sentence, detail="\n".join(shown))


def _find_lines(proxy: Any, changes: Changes, users: Users) -> Iterator[Line]:
    old, new = proxy.config, changes.effective
    for change in changes.settings:
        yield "setting", change.name, change.old, change.new, _AT_ONCE
    for change in changes.restart:
        yield "setting", change.name, change.old, change.new, _RESTART
    yield from _lines_of_databases(proxy, changes)
    yield from _lines_of_entries("user", changes.users, _by_text(old.users), _by_text(new.users))
    yield from _lines_of_entries("peer", changes.peers, _by_text(old.peers), _by_text(new.peers))
    yield from _lines_of_logins(proxy.users.secrets, users.secrets)
    known = {warning.sentence for warning in old.warnings}
    for warning in new.warnings:
        if warning.sentence not in known:
            yield "warning", f"{warning.file}:{warning.line}", None, None, warning.sentence


def _lines_of_rules(proxy: Any, changes: Changes, new: Rulebook) -> Iterator[Line]:
    """How the rules of auth_hba_file differ, as a whole; SHOW HBA has those in force, one by one."""
    old = proxy.gate.rulebook
    if told := old.describe_change(new):
        name = changes.effective.settings.auth_hba_file or proxy.settings.auth_hba_file
        yield "hba", name, _count(len(old.rules), "rule"), told, "counts from the next login on"


def _by_text(entries: Mapping[K, User | Peer]) -> dict[str, User | Peer]:
    return {str(name): entry for name, entry in entries.items()}


def _lines_of_databases(proxy: Any, changes: Changes) -> Iterator[Line]:
    old, new = proxy.config.databases, changes.effective.databases
    for name in changes.databases.added:
        was_served = name in changes.retired and proxy.pools.of_database(name)  # by *
        effect = _REPLACED if was_served else "serves clients at once"
        yield "database", name, None, describe(new[name]), effect
    for name in changes.databases.removed:
        yield "database", name, describe(old[name]), None, _say_removed(proxy, changes, name)
    for name, each in changes.databases.changed.items():
        for change in each:
            effect = _REPLACED if change.name in LOGIN else _AT_ONCE
            yield "database", f"{name}: {change.name}", change.old, change.new, effect


def _say_removed(proxy: Any, changes: Changes, name: str) -> str:
    if changes.effective.find_database(name) is not None:
        return f"is served by {FALLBACK} from then on"
    pools = [
        pool
        for pool in proxy.pools.serving()
        if pool.database == name or (name == FALLBACK and pool.database not in proxy.config.databases)
    ]
    clients, servers = sum(len(pool.clients) for pool in pools), proxy.pools.count_servers(pools)
    return f"its {_count(clients, 'client')} and {_count(servers, 'server connection')} are closed"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _lines_of_entries(
    kind: str, differences: Differences, old: Mapping[str, User | Peer], new: Mapping[str, User | Peer]
) -> Iterator[Line]:
    for name in differences.added:
        yield kind, name, None, describe(new[name]), _AT_ONCE
    for name in differences.removed:
        yield kind, name, describe(old[name]), None, _AT_ONCE
    for name, each in differences.changed.items():
        for change in each:
            yield kind, f"{name}: {change.name}", change.old, change.new, _AT_ONCE


def _lines_of_logins(old: Mapping[str, tuple[Stored, ...]], new: Mapping[str, tuple[Stored, ...]]) -> Iterator[Line]:
    """Users of auth_file."""
    for name in _in_order(set(new) - set(old)):
        yield "login", name, None, _HIDDEN, "may log in at once"
    for name in _in_order(set(old) - set(new)):
        yield "login", name, _HIDDEN, None, "cannot log in any more; whoever is connected stays"
    for name in _in_order(name for name in old if name in new and old[name] != new[name]):
        yield "login", name, _HIDDEN, _HIDDEN, "the new secret counts from the next login on"


def _in_order(names: Iterable[str]) -> list[str]:
    return sorted(names)


def describe(entry: Database | User | Peer) -> str:
    """What an entry says, as it might stand in the file; secrets are hidden."""
    pairs = [
        f"{'host' if name == 'hosts' else name}={_HIDDEN if name in SECRETS else row.kind.format(getattr(entry, name))}"
        for name, row in table_of(type(entry)).items()
        if getattr(entry, name) != row.default
    ]
    return " ".join(pairs)
