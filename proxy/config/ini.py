"""
The file as a whole: `read(path)` gives a frozen `Config`, or every mistake in it at once.

Theory. One pass over the lines puts each into the table of its section; nothing is applied before the
whole file is read, so a `Config` is always complete and a bad file changes nothing. The main section may
be called `[proxy]` or `[pgbouncer]`, one of them in a file. Of a key said twice the last counts, but a
mistake in the first is still a mistake.

What is accepted but has no effect yet becomes a warning. There is one exception: where having no effect
would let in what the file forbids (an auth_type that is not served, TLS that is demanded), it is a mistake.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from proxy.config.entries import (
    CONSOLES,
    DATABASE_KEYS,
    DEPRECATED,
    FALLBACK,
    PEER_KEYS,
    USER_KEYS,
    BadEntry,
    Database,
    Peer,
    User,
    find_useless,
    parse_database,
    parse_peer,
    parse_user,
    suggest,
    unacted_keys,
)
from proxy.config.kinds import AuthType
from proxy.config.lines import MAX_MISTAKES, Line, Mistake, Reader
from proxy.config.outside import OUTSIDE, find_missing
from proxy.config.settings import MAIN_SECTIONS, SETTINGS, Setting, Settings, defaults

__all__ = ["BadConfig", "Config", "Mistake", "read"]

E = TypeVar("E", Database, User, Peer)

MAX_ENTRIES: Final = 100_000  # of a section; three seconds and 100 MB

_WITHOUT_FILE = OUTSIDE | {AuthType.TRUST, AuthType.ANY}


class BadConfig(Exception):
    """A file that cannot be used: all its `mistakes`, in the order of the file, and what else was worth a warning."""

    def __init__(self, mistakes: tuple[Mistake, ...], warnings: tuple[Mistake, ...] = ()) -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = mistakes
        self.warnings = warnings


@dataclass(frozen=True, slots=True)
class Config:
    """What a file says. `files` are all that were read, the main one first; `section` is the main section's name."""

    path: str
    section: str
    settings: Settings
    databases: Mapping[str, Database] = field(default_factory=dict)
    users: Mapping[str, User] = field(default_factory=dict)
    peers: Mapping[int, Peer] = field(default_factory=dict)
    warnings: tuple[Mistake, ...] = ()
    files: tuple[str, ...] = ()

    def find_database(self, name: str) -> Database | None:
        """The entry that serves `name`: its own, or a copy of `*` under that name, or None."""
        database = self.databases.get(name)
        if database is None and FALLBACK in self.databases:
            return replace(self.databases[FALLBACK], name=name)
        return database


def read(path: str) -> Config:
    """The file at `path` with all it includes. BadConfig: it cannot be read or is not right in every line."""
    return _Reading(path).finish()


def mistake_at(config: Config, setting: str, sentence: str) -> Mistake:
    """What is wrong with that setting, where it stands in the files."""
    said = [line for line in Reader().lines(config.path) if line.section in MAIN_SECTIONS and line.key == setting]
    return said[-1].mistake(f"{setting}: {sentence}") if said else Mistake(config.path, 0, f"{setting}: {sentence}")


@dataclass(slots=True)
class _Entries(Generic[E]):
    """A section of entries: how one is parsed, and those parsed so far, by name."""

    keys: Mapping[str, Setting]
    parse: Callable[[str, str], E]
    found: dict[str, E] = field(default_factory=dict)


class _Reading:
    """One pass over the lines, and what has been understood so far."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.reader = Reader()
        self.values: dict[str, Any] = {}
        self.asking: Line | None = None  # how clients are asked who they are
        self.warnings: list[Mistake] = []
        self.databases = _Entries(DATABASE_KEYS, parse_database)
        self.users = _Entries(USER_KEYS, parse_user)
        self.peers = _Entries(PEER_KEYS, parse_peer)

    def finish(self) -> Config:
        for line in self.reader.lines(self.path):
            self._take(line)
        self._check_sections()
        if self.reader.mistakes:
            raise BadConfig(self._in_order(self.reader.mistakes), self._in_order(self.warnings))
        section = next(name for name in MAIN_SECTIONS if name in self.reader.sections)
        settings = replace(defaults(section), **({"conffile": self.path} | self.values))
        self._check_logins(settings)
        if self.reader.mistakes:
            raise BadConfig(self._in_order(self.reader.mistakes), self._in_order(self.warnings))
        return Config(
            path=self.path,
            section=section,
            settings=settings,
            databases=MappingProxyType(self.databases.found),
            users=MappingProxyType(self.users.found),
            peers=MappingProxyType({peer.number: peer for peer in self.peers.found.values()}),
            warnings=self._in_order(self.warnings),
            files=tuple(self.reader.files),
        )

    def _take(self, line: Line) -> None:
        if line.section in MAIN_SECTIONS:
            self._take_setting(line)
        elif line.section == "databases":
            self._take_entry(line, self.databases)
        elif line.section == "users":
            self._take_entry(line, self.users)
        elif line.section == "peers":
            self._take_entry(line, self.peers)

    def _take_setting(self, line: Line) -> None:
        setting = SETTINGS.get(line.key)
        if setting is None:
            self.reader.note(line.mistake(f"unknown setting {line.key[:80]!r}{suggest(line.key, SETTINGS)}"))
            return
        try:
            value = setting.kind.parse(line.value)
        except ValueError as error:
            self.reader.note(line.mistake(f"{line.key} {error}: {line.value[:80]!r}"))
            return
        self.values[line.key] = value
        self.asking = line if line.key == "auth_type" else self.asking
        self._judge(line, setting, value)

    def _judge(self, line: Line, setting: Setting, value: object) -> None:
        """A valid setting may still be one we do not act on, or know under a newer name."""
        if line.key in DEPRECATED:
            self.warnings.append(line.mistake(f"{line.key} is the old name of {DEPRECATED[line.key]}"))
        elif not setting.acted and value != setting.default:  # a file full of defaults is no reason to complain
            self.warnings.append(line.mistake(f"{line.key} is accepted but has no effect: {setting.reason}"))

    def _take_entry(self, line: Line, entries: _Entries[E]) -> None:
        if len(entries.found) >= MAX_ENTRIES:
            self.reader.note(line.mistake(f"more than {MAX_ENTRIES} entries in [{line.section}]: the rest is not read"))
            self.reader.stop()
            return
        try:
            entries.found[line.key] = entries.parse(line.key, line.value)
        except BadEntry as error:
            for sentence in error.sentences:
                self.reader.note(line.mistake(f"{line.key[:80]}: {sentence}"))
            return
        for sentence in (*unacted_keys(entries.keys, line.value), *find_useless(entries.found[line.key])):
            self.warnings.append(line.mistake(f"{line.key[:80]}: {sentence}"))

    def _check_sections(self) -> None:
        """Exactly one main section, and no section nobody knows."""
        known = (*MAIN_SECTIONS, "databases", "users", "peers")
        for name, place in self.reader.sections.items():
            if name not in known:
                self._note_at(place, f"unknown section [{name[:80]}]{suggest(name, known)}")
        mains = [name for name in self.reader.sections if name in MAIN_SECTIONS]
        if len(mains) > 1:
            sentence = f"[{mains[1]}] stands beside [{mains[0]}]: the main section has one name in a file"
            self._note_at(self.reader.sections[mains[1]], sentence)
        if not mains and self.reader.files and not self.reader.is_stopped:
            self.reader.note(Mistake(self.path, 0, "there is no main section, [proxy] or [pgbouncer]"))
        if len(self.reader.mistakes) >= MAX_MISTAKES:
            self.reader.note(Mistake(self.path, 0, f"more than {MAX_MISTAKES} mistakes: the rest is not read"))

    def _check_logins(self, settings: Settings) -> None:
        if self.asking is not None:
            for sentence in find_missing(settings):
                self.reader.note(self.asking.mistake(sentence))
        if settings.auth_dbname in CONSOLES:
            sentence = f'cannot use the reserved "{settings.auth_dbname}" database as an auth_dbname'
            self.warnings.append(Mistake(self.path, 0, sentence))
        has_users = settings.auth_file or settings.auth_user
        if settings.auth_type not in _WITHOUT_FILE and not has_users:
            sentence = f"auth_type is {settings.auth_type} and there is no auth_file: nobody can log in"
            self.warnings.append(Mistake(self.path, 0, sentence))

    def _in_order(self, mistakes: list[Mistake]) -> tuple[Mistake, ...]:
        """By file as they were opened, then by line."""
        order = {file: index for index, file in enumerate(self.reader.files)}
        return tuple(sorted(mistakes, key=lambda mistake: (order.get(mistake.file, 0), mistake.line)))

    def _note_at(self, place: Mistake, sentence: str) -> None:
        self.reader.note(Mistake(place.file, place.line, sentence))
