"""
What a statement may do to the objects of a database: to everybody's, to the session's own, and to databases themselves.

Theory. Two things matter to a pooler. A temporary object lives on one server, so its maker must stay there; it is
told by a key word, by the schema pg_temp in its name, and a view is temporary as soon as something it reads is. And a
result may have other columns than its prepared statement was promised (DDL): after any CREATE, ALTER or DROP but
those of SHAPELESS things (roles, indexes, triggers, policies ...), and after no GRANT, COMMENT or REFRESH.

CREATE, DROP and some ALTER DATABASE need a database to which nobody is connected, idle servers of ours least of all.

A session that has set a role has the one that had this name then; CREATE, DROP and ALTER ROLE ... RENAME give it away.

EXPLAIN counts as what it explains: with ANALYZE it does it.
"""

from typing import Final

from protocol.acts import Acts, Phrase, Reads, What, compile_seek
from protocol.session_acts import read_execute
from protocol.tokens import BACKSLASHED, GAP, NAME_BYTE, STANDARD

_TEMPORARY = (b"temp", b"temporary")
_SCOPES = (b"or", b"replace", b"global", b"local", b"unlogged")  # between CREATE and what it creates
_PG_TEMP = b"pg_temp"  # also pg_temp_3, its true name
_SHAPELESS: Final = frozenset(
    b"role user group tablespace statistics publication subscription policy trigger constraint event server system "
    b"default".split()
)
_ROLES = (b"role", b"user", b"group")  # three words for one thing; but not USER MAPPING
_INDEX = frozenset({b"index", b"unique"})  # ALTER INDEX may rename a table


def _read_create(phrase: Phrase, at: int) -> Acts:
    at += 1
    while phrase[at] in _SCOPES:
        at += 1
    word = phrase[at]
    if word == b"database":
        yield phrase.act(What.DATABASE, at, _read_template(phrase, at + 2))
    elif word in _TEMPORARY or _is_in_pg_temp(phrase, at):
        yield phrase.act(What.TEMP, at)
    elif _is_role(phrase, at):
        yield phrase.act(What.ROLE, at)
    elif word not in _SHAPELESS and word not in _INDEX:
        yield phrase.act(What.DDL, at)
        if phrase.mentions(_PG_TEMP) or phrase.mentions(b'u&"'):
            yield phrase.act(What.TEMP, at)
    if phrase.mentions(b"execute") and b"table" in (word, phrase[at + 1]):
        yield from _read_as_execute(phrase, at)


def _is_role(phrase: Phrase, at: int) -> bool:
    return phrase[at] in _ROLES and phrase[at + 1] != b"mapping"


def _is_in_pg_temp(phrase: Phrase, at: int) -> bool:
    """CREATE TABLE IF NOT EXISTS pg_temp.t, CREATE VIEW "pg_temp".v."""
    dot = next((i for i in range(at + 1, at + 8) if phrase[i] in (b".", b"(", b"as", b"")), at)
    return phrase[dot] == b"." and phrase.name(dot - 1).startswith(_PG_TEMP)


def _read_as_execute(phrase: Phrase, at: int) -> Acts:
    """CREATE TABLE t (a, b) WITH (...) AS EXECUTE p."""
    while phrase[at] not in (b"as", b""):
        at = phrase.closing(at) if phrase[at] == b"(" else at + 1
    if phrase[at + 1] == b"execute":
        yield from read_execute(phrase, at + 1)


def _read_alter(phrase: Phrase, at: int) -> Acts:
    word = phrase[at + 1]
    if _is_role(phrase, at + 1):
        yield from (phrase.act(What.ROLE, at),) if phrase.says(at + 3, b"rename", b"to") else ()
    elif word != b"database":
        yield from () if word in _SHAPELESS else (phrase.act(What.DDL, at),)
    elif phrase.says(at + 3, b"rename", b"to") or phrase.says(at + 3, b"set", b"tablespace"):
        yield phrase.named(What.DATABASE, at + 2)


def _read_drop(phrase: Phrase, at: int) -> Acts:
    word = phrase[at + 1]
    if word == b"database":
        yield phrase.named(What.DATABASE, at + 4 if phrase.says(at + 2, b"if", b"exists") else at + 2)
    elif _is_role(phrase, at + 1):
        yield phrase.act(What.ROLE, at)
    elif word not in _SHAPELESS and word not in _INDEX:
        yield phrase.act(What.DDL, at)


def _read_import(phrase: Phrase, at: int) -> Acts:
    yield phrase.act(What.DDL, at)


def _read_template(phrase: Phrase, at: int) -> bytes:
    """The database that a new one is a copy of, from options such as OWNER = x TEMPLATE y. Each may be given once."""
    at += phrase[at] == b"with"
    while option := phrase[at]:
        at += 2 if option == b"connection" else 1
        at += phrase[at] == b"="
        if option == b"template" and phrase[at] != b"default":
            return phrase.name(at) or phrase.literal(at) or b""
        at += 2 if phrase[at] in (b"-", b"+") else 1
    return b"template1"


# Statements inside others.


def _read_explain(phrase: Phrase, at: int) -> Acts:
    at += 1
    if phrase[at] == b"(" and phrase[at + 1] not in _IN_PARENTHESES:
        at = phrase.closing(at)
    while phrase[at] in (b"analyze", b"analyse", b"verbose"):
        at += 1
    if read := _EXPLAINED.get(phrase[at]):
        yield from read(phrase, at)


_IN_PARENTHESES = (b"select", b"with", b"values", b"table", b"(")  # a query, and no options
_EXPLAINED: Final[dict[bytes, Reads]] = {
    b"create": _read_create,
    b"execute": read_execute,
}

SCHEMA_READERS: Final[dict[bytes, Reads]] = {
    b"create": _read_create,
    b"alter": _read_alter,
    b"drop": _read_drop,
    b"import": _read_import,
    b"explain": _read_explain,
}

# SELECT ... INTO [TEMP] t. INSERT INTO may stand in a WITH; a table named temp there counts as a temporary one.

SELECTS: Final = frozenset({b"select", b"with", b"values", b"table", b"explain"})  # their INTO may be such a one

_END = rb"(?!" + NAME_BYTE + rb")"
_INTO = rb"(?:(?i:insert|merge)" + _END + GAP + rb")?+(?i:into)" + _END
_SEEK_INTO: Final = {grammar: compile_seek(grammar, _INTO) for grammar in (STANDARD, BACKSLASHED)}


def read_into(phrase: Phrase) -> Acts:
    """Where the INTO stands is not known: all of the statement is looked at."""
    source, at = phrase.source, phrase.start
    while match := _SEEK_INTO[source.grammar](source.text, at, phrase.end):
        at = match.end()
        target = Phrase(source, at, phrase.end)
        name = 1 if target[0] == b"table" else 0
        if target[1 if target[0] in _SCOPES else 0] in _TEMPORARY:
            yield target.act(What.TEMP, 0)
        elif len(match["target"]) == len(b"into"):  # and no INSERT before it
            is_temporary = target[name + 1] == b"." and target.name(name).startswith(_PG_TEMP)
            yield target.act(What.TEMP if is_temporary else What.DDL, name)
