"""
What drivers and tools say to every database before and between what they are asked to do.

Theory. psycopg says BEGIN in front of everything, JDBC sets its application's name, pools ask `SELECT 1` to see whether
somebody is there and reset what they give back, and most ask what version this is. None of it means anything to a
console, and refusing it would keep the tool out. So it is answered as PostgreSQL would: a transaction begins and ends
(nothing is undone by its end), a parameter of a session has the value in `PARAMETERS`, to set one is accepted with the
notice `SET ignored`, as in PgBouncer, and a SELECT of constants and of a few functions (`FUNCTIONS`) gives one row.

Nothing here changes anything or says anything that the welcome has not said, so no right is needed for it. No
parameter here has the name of a setting of ours, or of something that is shown: a test says so.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from protocol import sqlstate
from protocol.errors import Refused
from proxy import COMPATIBLE, VERSION
from proxy.admin.rows import Value

PARAMETERS: Final[Mapping[str, str]] = {
    "application_name": "",
    "bytea_output": "hex",
    "client_encoding": "UTF-8",
    "client_min_messages": "notice",
    "datestyle": "ISO",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "extra_float_digits": "2",
    "idle_in_transaction_session_timeout": "0",
    "in_hot_standby": "off",
    "integer_datetimes": "on",
    "intervalstyle": "postgres",
    "is_superuser": "on",
    "jit": "off",
    "lock_timeout": "0",
    "max_identifier_length": "63",
    "search_path": "",
    "server_encoding": "UTF8",
    "server_version": f"{COMPATIBLE}/bouncer",
    "server_version_num": "12502",
    "standard_conforming_strings": "on",
    "statement_timeout": "0",
    "synchronize_seqscans": "off",
    "timezone": "GMT",
    "transaction_isolation": "read committed",
    "transaction_read_only": "off",
}

MAX_COLUMNS: Final = 50  # of a SELECT


@dataclass(frozen=True, slots=True)
class Courtesy:
    """An answer that is known: a tag, perhaps one row of a shape, perhaps a notice."""

    tag: str
    shape: str = ""
    row: tuple[Value, ...] = ()
    notice: str = ""


FUNCTIONS: Final[Mapping[str, tuple[str, Callable[[Any], Value]]]] = {
    "version": ("s", lambda _: VERSION),
    "pg_is_in_recovery": ("B", lambda _: False),
    "pg_backend_pid": ("i", lambda session: int.from_bytes(session.key[:4], "big") & 0x7FFFFFFF),
    "current_database": ("s", lambda session: session.database),
    "current_catalog": ("s", lambda session: session.database),
    "current_schema": ("s", lambda _: None),
    "current_user": ("s", lambda session: session.user),
    "session_user": ("s", lambda session: session.user),
    "user": ("s", lambda session: session.user),
    "pg_advisory_unlock_all": ("s", lambda _: ""),
}
"""By name: the type of the result, and the result."""

_WHOLE: Final = frozenset({"int", "int4", "integer"})
_TEXTS: Final = frozenset({"text", "varchar", "name"})
_BARE: Final = frozenset({"current_catalog", "current_schema", "current_user", "session_user", "user"})

_KEYWORDS = r"[A-Za-z_,\s]*+"
_TAGS: Final = [
    (re.compile(pattern, re.IGNORECASE), tag)
    for pattern, tag in (
        (rf"BEGIN\b{_KEYWORDS}", "BEGIN"),
        (rf"START\s++TRANSACTION\b{_KEYWORDS}", "START TRANSACTION"),
        (r"(?:COMMIT|END)(?:\s++(?:WORK|TRANSACTION))?+", "COMMIT"),
        (r"(?:ROLLBACK|ABORT)(?:\s++(?:WORK|TRANSACTION))?+", "ROLLBACK"),
        (r"ROLLBACK\s++TO\s++(?:SAVEPOINT\s++)?+\S++", "ROLLBACK"),
        (r"SAVEPOINT\s++\S++", "SAVEPOINT"),
        (r"RELEASE\s++(?:SAVEPOINT\s++)?+\S++", "RELEASE"),
        (r"RESET\s++(?!STATEMENTS\b)\w++", "RESET"),
        (r"DISCARD\s++ALL", "DISCARD ALL"),
        (r"CLOSE\s++ALL", "CLOSE CURSOR ALL"),
        (r"UNLISTEN\s++\*", "UNLISTEN"),
        (r"DEALLOCATE\s++ALL", "DEALLOCATE ALL"),
    )
]
_SET = re.compile(
    r"SET\s++(?:(?:SESSION|LOCAL)\s++)?+(\w++)\s*+(?:=|TO(?=[\s'\"]))\s*+(.++)", re.IGNORECASE | re.DOTALL
)
_SET_WORDS = re.compile(
    rf"SET\s++(?:TIME\s++ZONE\s.++|NAMES\s.++|(?:SESSION\s++CHARACTERISTICS\s++AS\s++)?+TRANSACTION\b{_KEYWORDS})",
    re.IGNORECASE,
)
_SHOW = re.compile(r"SHOW\s++(\w++)", re.IGNORECASE)
_SHOW_WORDS = re.compile(r"SHOW\s++(?:(TRANSACTION\s++ISOLATION\s++LEVEL)|TIME\s++ZONE)", re.IGNORECASE)
_SELECT = re.compile(r"SELECT\s*+(.++)", re.IGNORECASE | re.DOTALL)
_OF_SETTINGS = re.compile(r"\sFROM\s++(?:pg_catalog\.)?+pg_settings\s++WHERE\s++name\s*+=\s*+'\w++'\Z", re.IGNORECASE)
_NAME = r'(?:"[^"]++"|\w++)'
_TEXT = r"'((?:[^']|'')*+)'"
_COLUMN = re.compile(
    rf"""\s*+(?:(-?\d{{1,9}})(?![\w.(])                                                     # a number
        | {_TEXT}                                                                           # a text
        | (?:pg_catalog\s*+\.\s*+)?+(\w++)\s*+(\(\s*+(?:{_TEXT}[^()]*+)?+\))?+)             # a function
        (?:\s*+::\s*+(\w++)(?:\s*+/\s*+([1-9]\d{{0,5}}+))?+)?+                                # a cast, and a division
        (?:\s++(?:AS\s++)?+({_NAME}))?+\s*+(,|\Z)""",
    re.IGNORECASE | re.VERBOSE,
)


def find_courtesy(text: str, session: Any) -> Courtesy | None:
    """The answer to `text`, if it is one of these. Refused (42704): it asks for a parameter that nobody knows."""
    for pattern, tag in _TAGS:
        if pattern.fullmatch(text):
            return Courtesy(tag)
    return _find_set(text) or _find_show(text) or _find_select(text, session)


def _find_set(text: str) -> Courtesy | None:
    assignment = _SET.fullmatch(text)
    if _SET_WORDS.fullmatch(text) or (assignment is not None and assignment[1].lower() in PARAMETERS):
        return Courtesy("SET", notice="SET ignored")
    return None


def _find_show(text: str) -> Courtesy | None:
    words = _SHOW_WORDS.fullmatch(text)
    if words is not None:
        name = "transaction_isolation" if words[1] else "timezone"
    else:
        single = _SHOW.fullmatch(text)
        name = single[1].lower() if single is not None else ""
    return Courtesy("SHOW", f"{name} s", (PARAMETERS[name],)) if name in PARAMETERS else None


def _find_select(text: str, session: Any) -> Courtesy | None:
    select = _SELECT.fullmatch(_OF_SETTINGS.sub("", text))
    if select is None:
        return None
    shape: list[str] = []
    row: list[Value] = []
    pos, more = 0, ","
    while more:
        column = _COLUMN.match(select[1], pos)
        found = _find_value(column, session) if column is not None and len(row) < MAX_COLUMNS else None
        if column is None or found is None:
            return None
        name, letter, value = found
        letter, value = _cast(column[6], letter, value, int(column[7] or 1))
        shape.append(f"{_as_name(column[8] or name)} {letter}")
        row.append(value)
        pos, more = column.end(), column[9]
    return Courtesy("SELECT 1", ", ".join(shape), tuple(row))


def _find_value(column: re.Match[str], session: Any) -> tuple[str, str, Value] | None:
    """(name, type, value) of one column; None if it is nothing we know."""
    number, text, name, brackets, argument = column.group(1, 2, 3, 4, 5)
    if number is not None:
        return "?column?", "i", int(number)
    if text is not None:
        return "?column?", "s", text.replace("''", "'")
    name = name.lower()
    if brackets is None and name not in _BARE:
        return None
    if name == "current_setting" and argument is not None:
        return name, "s", _find_parameter(argument.lower(), may_miss="true" in brackets.lower())
    if name == "set_config" and argument is not None and argument.lower() in PARAMETERS:
        return name, "s", PARAMETERS[argument.lower()]
    if name not in FUNCTIONS or argument is not None:
        return None
    letter, work = FUNCTIONS[name]
    return name, letter, work(session)


def _cast(to: str | None, letter: str, value: Value, divisor: int) -> tuple[str, Value]:
    """To a whole number or to text, where that is wanted and can be; else as it is."""
    if value is None or to is None:
        return letter, value
    if to.lower() in _WHOLE and str(value).isdecimal():
        return "i", min(int(value), 2**31 - 1) // divisor
    return ("s", str(value)) if to.lower() in _TEXTS else (letter, value)


def _find_parameter(name: str, *, may_miss: bool) -> str | None:
    if name not in PARAMETERS and not may_miss:
        raise Refused(sqlstate.UNDEFINED_OBJECT, f'unrecognized configuration parameter "{name}"')
    return PARAMETERS.get(name)


def _as_name(text: str) -> str:
    """A column's name as it may stand in a shape."""
    return re.sub(r"[\s,]", "_", text.strip('"'))
