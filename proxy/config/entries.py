# ruff: noqa: RUF009 - `row` is our dataclasses.field
"""
The entries of [databases], [users] and [peers]: `name = key=value key='a value'`.

Theory. An entry is a small table of settings of its own, made of the same rows as the main section. Its
value is a connection string in libpq's style: pairs with blanks between, a value in single quotes where it
holds blanks or is empty, `''` for one quote inside; a backslash is a backslash.

None in an entry means "not said here": the limits in force are worked out once, by `limits.resolve`, which also
knows what a written 0 means. Numbers are decimal here, as in PgBouncer, and -1 is "not said".

A mistake never shows a value: it may be a password.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from protocol.passwords import ScramVerifier, Secret, parse_stored
from proxy.config.kinds import (
    DATABASE_NAME,
    HOSTS,
    LOAD_BALANCE,
    PASSWORD,
    PEER_ID,
    PLAIN_COUNT,
    POOL_MODE,
    SECONDS,
    SERVER_PORT,
    TEXT,
    TLS_NEGOTIATION,
    USER_NAME,
    Kind,
    LoadBalance,
    PoolMode,
    TlsNegotiation,
    or_unsaid,
)
from proxy.config.settings import ACTED, LIVE, Setting, row, table_of

T = TypeVar("T")

FALLBACK: Final = "*"
CONSOLES: Final = ("pgbouncer", "pgshuttle")
SOCKET_DIRS: Final = ("/var/run/postgresql", "/tmp")  # noqa: S108 - where PostgreSQL's packages and its source put it

_PAIR = re.compile(r"\s*([^\s=']+)\s*=(\s*)(?:'((?:[^']|'')*+)'(?!\S)|(?!')(\S*))")
_OPENING = re.compile(r"\s*([^\s=']+)\s*=\s*'")
_QUOTED = re.compile(r"'(?:[^']|'')*+'")


def said(kind: Kind[T], words: str, reason: str = ACTED) -> T | None:
    """A field that is None until the entry says something."""
    return row(or_unsaid(kind), None, LIVE, reason, words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """One entry of [databases]: where its servers are, how to log in there, and limits of its own."""

    name: str
    dbname: str | None = said(DATABASE_NAME, "name on the server; unsaid = the entry's name, for * the one asked for")
    hosts: tuple[str, ...] = row(HOSTS, (), LIVE, ACTED, "addresses, comma between; /folder = Unix socket; unsaid = it")
    port: int = row(SERVER_PORT, 5432, LIVE, ACTED, "TCP port, and the number in the Unix socket's name")
    user: str | None = said(USER_NAME, "log in to the server as this user, whoever the client is")
    password: Secret | None = said(PASSWORD, "that user's password")
    auth_user: str | None = said(USER_NAME, "who runs auth_query")
    auth_query: str | None = said(TEXT, "query that fetches a user's secret")
    auth_dbname: str | None = said(DATABASE_NAME, "database auth_query runs in")
    pool_mode: PoolMode | None = said(POOL_MODE, "session, transaction or statement")
    pool_size: int | None = said(PLAIN_COUNT, "servers per user; 0 = no limit")
    min_pool_size: int | None = said(PLAIN_COUNT, "servers kept open per user")
    reserve_pool_size: int | None = said(PLAIN_COUNT, "servers a pool may add for clients that wait too long")
    max_db_connections: int | None = said(PLAIN_COUNT, "servers over all users; 0 = as everywhere")
    max_db_client_connections: int | None = said(PLAIN_COUNT, "clients over all users; 0 = as everywhere")
    server_lifetime: float | None = said(SECONDS, "an older server is closed when free; 0 = as everywhere")
    query_wait_timeout: float | None = said(SECONDS, "longest wait for a server; 0 = for ever")
    pipeline_depth: int | None = said(PLAIN_COUNT, "clients' reads in line on one server; 1 = none")
    pipeline_servers: int | None = said(PLAIN_COUNT, "servers with such lines; 0 = as many as seem good")
    pipeline_max_ms: int | None = said(PLAIN_COUNT, "milliseconds a statement may take to stand in one")
    pipeline_max_bytes: int | None = said(PLAIN_COUNT, "bytes its answer may have")
    pipeline_group: int | None = said(PLAIN_COUNT, "clients whose reads may share a transaction")
    load_balance_hosts: LoadBalance = row(
        LOAD_BALANCE, LoadBalance.ROUND_ROBIN, LIVE, ACTED, "several hosts: round-robin; disable = one until it fails"
    )
    server_tls_negotiation: TlsNegotiation | None = said(TLS_NEGOTIATION, "postgres or direct, as in the main section")
    connect_query: str | None = said(TEXT, "run on each new server")
    client_encoding: str | None = said(TEXT, "set on each new server")
    datestyle: str | None = said(TEXT, "set on each new server")
    timezone: str | None = said(TEXT, "set on each new server")
    application_name: str | None = said(TEXT, "set on each new server")

    @property
    def server_dbname(self) -> str:
        """The database's name on the server."""
        return self.dbname or self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """One entry of [users]: limits for one user, over those of the database."""

    name: str
    pool_mode: PoolMode | None = said(POOL_MODE, "session, transaction or statement")
    pool_size: int | None = said(PLAIN_COUNT, "servers per database; 0 = no limit")
    reserve_pool_size: int | None = said(PLAIN_COUNT, "servers a pool may add for clients that wait too long")
    max_user_connections: int | None = said(PLAIN_COUNT, "servers over all databases; 0 = as everywhere")
    max_user_client_connections: int | None = said(PLAIN_COUNT, "clients over all databases; 0 = as everywhere")
    query_timeout: float | None = said(SECONDS, "longest query; 0 = no limit")
    query_wait_timeout: float | None = said(SECONDS, "longest wait for a server; 0 = for ever")
    transaction_timeout: float | None = said(SECONDS, "longest transaction; 0 = no limit")
    idle_transaction_timeout: float | None = said(SECONDS, "idle inside a transaction; 0 = no limit")
    client_idle_timeout: float | None = said(SECONDS, "idle outside a transaction; 0 = no limit")
    pipeline_depth: int | None = said(PLAIN_COUNT, "clients' reads in line on one server; 1 = none")
    pipeline_servers: int | None = said(PLAIN_COUNT, "servers with such lines; 0 = as many as seem good")
    pipeline_max_ms: int | None = said(PLAIN_COUNT, "milliseconds a statement may take to stand in one")
    pipeline_max_bytes: int | None = said(PLAIN_COUNT, "bytes its answer may have")
    pipeline_group: int | None = said(PLAIN_COUNT, "clients whose reads may share a transaction")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One entry of [peers]: another process of the same service."""

    number: int
    host: str = row(TEXT, "", LIVE, ACTED, "its address; /folder or @name = Unix socket")
    port: int = row(SERVER_PORT, 6432, LIVE, ACTED, "its port")
    pool_size: int | None = said(PLAIN_COUNT, "cancel requests on their way to it at a time; 0 = no limit")


_ROWS: Final = table_of(Database)

DATABASE_KEYS: Final[Mapping[str, Setting]] = {
    **{name if name != "hosts" else "host": setting for name, setting in _ROWS.items()},
    "reserve_pool": _ROWS["reserve_pool_size"],
}
USER_KEYS: Final = table_of(User)
PEER_KEYS: Final = table_of(Peer)

DEPRECATED: Final = {"reserve_pool": "reserve_pool_size"}


class BadEntry(ValueError):
    """An entry that cannot be used: `sentences` says everything that is wrong with it."""

    def __init__(self, sentences: Iterable[str]) -> None:
        self.sentences = tuple(sentences)
        super().__init__("; ".join(self.sentences))


def parse_database(name: str, text: str) -> Database:
    """An entry of [databases]. BadEntry: the name is reserved or too long, or `text` is wrong."""
    sentences = list(_mistakes_of_name("database", name, DATABASE_NAME))
    if name in CONSOLES:
        sentences.append(f"the database name {name!r} is reserved for the console")
    values = _parse_values(DATABASE_KEYS, text, sentences)
    return Database(name=name, **values)


def parse_user(name: str, text: str) -> User:
    """An entry of [users]. BadEntry: the name is too long, or `text` is wrong."""
    sentences = list(_mistakes_of_name("user", name, USER_NAME))
    return User(name=name, **_parse_values(USER_KEYS, text, sentences))


def parse_peer(name: str, text: str) -> Peer:
    """An entry of [peers]. BadEntry: the name is no number from 1 to 16383, there is no host, or `text` is wrong."""
    sentences = []
    try:
        number = PEER_ID.parse(name) or 0
    except ValueError:
        number = 0
    if not number:
        sentences.append(f"the peer's id {name!r} is not a number from 1 to 16383")
    values = _parse_values(PEER_KEYS, text, sentences, needed="host")
    return Peer(number=number, **values)


def unacted_keys(keys: Mapping[str, Setting], text: str) -> Iterator[str]:
    """A warning per key of a valid entry that is not acted on, or has a newer name."""
    if not any(key in text for key, setting in keys.items() if key in DEPRECATED or not setting.acted):
        return  # as most: reading the pairs again would take a fifth of the whole reading
    for key, _ in parse_pairs(text):
        if key in DEPRECATED:
            yield f"{key} is the old name of {DEPRECATED[key]}"
        if not keys[key].acted:
            yield f"{key} is accepted but has no effect: {keys[key].reason}"


def find_useless(entry: object) -> Iterator[str]:
    """A warning for a valid entry whose password lets nobody in."""
    password = entry.password if isinstance(entry, Database) else None
    if password is not None and isinstance(parse_stored(password.reveal()), ScramVerifier):
        yield "password is a SCRAM verifier, which no server takes: give the password itself"


def hosts_of(database: Database, unix_socket_dir: str) -> tuple[str, ...]:
    """Where its servers are, first to last; unsaid: as PgBouncer the folder of our own Unix socket, else the usual."""
    return database.hosts or ((unix_socket_dir,) if unix_socket_dir else SOCKET_DIRS)


def parse_pairs(text: str) -> Iterator[tuple[str, str]]:
    """The (key, value) pairs of a connection string, in order. ValueError says where it stops making sense."""
    pos, end = 0, len(text.rstrip())
    while pos < end:
        match = _PAIR.match(text, pos, end)
        if match is None:
            raise ValueError(_what_is_wrong(text, pos))
        key, blanks, quoted, bare = match.groups()
        if blanks and bare and "=" in bare and bare.split("=", 1)[0] in DATABASE_KEYS:
            raise ValueError(f"{key} has no value: write {key}='' if it is meant to be empty")
        yield key, quoted.replace("''", "'") if bare is None else bare
        pos = match.end()


def suggest(word: str, known: Iterable[str]) -> str:
    """ ", did you mean X?" when something of that name is near, else nothing."""
    near = difflib.get_close_matches(word[:80], known, 1)
    return f", did you mean {near[0]}?" if near else ""


def _mistakes_of_name(noun: str, name: str, kind: Kind[str]) -> Iterator[str]:
    try:
        kind.parse(name)
    except ValueError as error:
        yield f"the {noun}'s name {error}"


def _parse_values(keys: Mapping[str, Setting], text: str, sentences: list[str], needed: str = "") -> dict[str, Any]:
    """Field values of an entry. BadEntry with `sentences` and everything else that is wrong."""
    values: dict[str, Any] = {}
    try:
        for key, value in parse_pairs(text):
            _parse_value(keys, key, value, values, sentences)
    except ValueError as error:
        sentences.append(str(error))
    if needed and not values.get(needed):
        sentences.append(f"{needed} is missing")
    if sentences:
        raise BadEntry(sentences)
    return values


def _parse_value(
    keys: Mapping[str, Setting], key: str, value: str, values: dict[str, Any], sentences: list[str]
) -> None:
    if key not in keys:
        sentences.append(f"unknown key {key!r}{suggest(key, keys)}")
        return
    try:
        values[keys[key].name] = keys[key].kind.parse(value)
    except ValueError as error:
        sentences.append(f"{key} {error}")


def _what_is_wrong(text: str, pos: int) -> str:
    """Why there is no pair at `pos`, by character and never by value: that may be a password."""
    quote = _OPENING.match(text, pos)
    if quote is None:
        return f"expected key=value at character {pos + 1}"
    if _QUOTED.match(text, quote.end() - 1) is None:
        return f"the quote that opens the value of {quote[1]} is never closed"
    return f"a blank is missing behind the quoted value of {quote[1]}"
