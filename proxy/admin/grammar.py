"""
What an operator typed, as a command.

Theory. The language is PgBouncer's and fits two expressions: `VERB [word] [;]` and `SET key = value [;]`, where a word
may stand in double quotes (`""` is one quote) and a value in single ones (`''` is one). TO may stand for `=`, SELECT
for SHOW. Verbs and keys may be in any case; names of databases are taken as they stand. We are a little kinder:
bare words may hold what names often hold (`-`, `.`, `$`, any byte beyond ASCII), and comments in front, as drivers
and psql scripts put them there, are stepped over.

The text comes in some client encoding nobody told us. It is read as UTF-8, other bytes become lone surrogates, which is
how startup packets are read too, so a database has one name everywhere.

All expressions run forwards only (possessive), and lengths are bounded: verbs by 15 characters, words by 63 bytes,
values by 255, so a text costs microseconds whatever it holds.
"""

import re
from dataclasses import dataclass
from typing import Final

from protocol import sqlstate
from protocol.errors import Refused

MAX_VERB: Final = 15  # characters, as in PgBouncer
MAX_WORD: Final = 63  # bytes
MAX_VALUE: Final = 255  # bytes
MAX_SHOWN: Final = 200  # characters of a text that is repeated in an error

_WORD = r'(?:"(?:[^"]|"")*+"|[0-9A-Za-z_.$\-\x80-\U0010ffff]++)'
_VALUE = r"(?:'(?:[^']|'')*+'|" + r"""[^\s;'"]++""" + r'|"(?:[^"]|"")*+")'
_END = r"\s*+(?:;\s*+)*+"
_COMMENTS = re.compile(r"\s*+(?:(?:--[^\n]*+(?:\n|\Z)|/\*.*?\*/)\s*+)*+", re.DOTALL)
_COMMAND = re.compile(rf"([A-Za-z_]++)(?:\s++({_WORD}))?+{_END}")
_SET = re.compile(rf"SET\s++({_WORD})\s*+(?:=|TO(?=[\s'\"]))\s*+({_VALUE}){_END}", re.IGNORECASE)
_NOTHING = re.compile(_END)


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `verb` is in upper case; `word` and `value` are "" when there is none; `text` is what was typed."""

    verb: str
    word: str = ""
    value: str = ""
    text: str = ""


def parse_command(raw: bytes) -> Command | None:
    """None when nothing was typed. Refused (42601) when it makes no sense, or something is too long."""
    text = raw.decode("utf-8", "surrogateescape")
    start = _COMMENTS.match(text)
    text = text[start.end() :] if start else text
    if _NOTHING.fullmatch(text):
        return None
    if assignment := _SET.fullmatch(text):
        return Command("SET", _check_word(assignment[1]).lower(), _check_value(assignment[2]), text)
    command = _COMMAND.fullmatch(text)
    if command is None or len(command[1]) > MAX_VERB:
        raise invalid(text)
    verb = command[1].upper()
    if verb == "SET":
        raise bad_arguments("SET key = value, or SET key TO 'value'")
    return Command("SHOW" if verb == "SELECT" else verb, _check_word(command[2] or ""), "", text)


def invalid(text: str) -> Refused:
    """The error for a command nobody knows."""
    shown = text.rstrip("; \t\r\n")
    if len(shown) > MAX_SHOWN:
        shown = shown[:MAX_SHOWN] + "..."
    return Refused(sqlstate.SYNTAX_ERROR, f"invalid command '{shown}', use SHOW HELP;")


def bad_arguments(hint: str) -> Refused:
    """The error for a command that is known, with arguments it does not take."""
    return Refused(sqlstate.SYNTAX_ERROR, "bad arguments", hint=hint)


def _check_word(text: str) -> str:
    word = text[1:-1].replace('""', '"') if text.startswith('"') else text
    return _check_length(word, MAX_WORD)


def _check_value(text: str) -> str:
    quote = text[0]
    value = text[1:-1].replace(quote * 2, quote) if quote in "'\"" else text
    return _check_length(value, MAX_VALUE)


def _check_length(text: str, most: int) -> str:
    if len(text.encode("utf-8", "surrogateescape")) > most:
        raise bad_arguments(f"A word may have {MAX_WORD} bytes, a value {MAX_VALUE}.")
    return text
