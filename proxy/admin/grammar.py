"""
What an operator typed, as commands.

Theory. The language is PgBouncer's and fits two expressions: `VERB [word] [;]` and `SET key = value [;]`, where a word
may stand in double quotes (`""` is one quote) and a value in single ones (`''` is one). TO may stand for `=`, SELECT
for SHOW. Verbs and keys may be in any case; names of databases are taken as they stand. We are a little kinder:
bare words may hold what names often hold (`-`, `.`, `$`, any byte beyond ASCII), SHOW may be followed by a second word
(whose rows), comments in front, as drivers and psql scripts put them there, are stepped over, and one text may hold
several commands (`split_commands`), as some drivers send them.

The text comes in some client encoding nobody told us. It is read as UTF-8, other bytes become lone surrogates, which is
how startup packets are read too, so a database has one name everywhere.

All expressions run forwards only (possessive), and lengths are bounded: verbs by 15 characters, words by 63 bytes,
values by 255, the whole by 16 kB and 20 commands, so a text costs no time to speak of, whatever it holds.
"""

import re
from dataclasses import dataclass
from typing import Final

from protocol import sqlstate
from protocol.errors import Refused

MAX_VERB: Final = 15  # characters, as in PgBouncer
MAX_WORD: Final = 63  # bytes
MAX_VALUE: Final = 255  # bytes
MAX_TEXT: Final = 16_384  # bytes; a longer one is meant for a database
MAX_COMMANDS: Final = 20  # in one text
MAX_SHOWN: Final = 200  # characters of a text that is repeated in an error
HELP: Final = "', use SHOW HELP;"  # behind such a text

_WORD = r'(?:"(?:[^"]|"")*+"|[0-9A-Za-z_.$\-\x80-\U0010ffff]++)'
_VALUE = r"(?:'(?:[^']|'')*+'|" + r"""[^\s;'"]++""" + r'|"(?:[^"]|"")*+")'
_END = r"\s*+(?:;\s*+)*+"
_COMMENTS = re.compile(r"\s*+(?:(?:--[^\n]*+(?:\n|\Z)|/\*.*?\*/)\s*+)*+", re.DOTALL)
_COMMAND = re.compile(rf"([A-Za-z_]++)(?:\s++({_WORD}))?+(?:\s++({_WORD}))?+{_END}")
_SET = re.compile(rf"SET\s++({_WORD})\s*+(?:=|TO(?=[\s'\"]))\s*+({_VALUE}){_END}", re.IGNORECASE)
_PIECE = re.compile(
    r"""(?:[^;'"/-]++|'[^']*+(?:'|\Z)|"[^"]*+(?:"|\Z)|--[^\n]*+|/\*(?:[^*]++|\*(?!/))*+(?:\*/|\Z)|[-/])*+"""
)


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `verb` is in upper case; what there is not is ""; `text` is what was typed.

    `value` is what a SET sets, or whose rows a SHOW shall show.
    """

    verb: str
    word: str = ""
    value: str = ""
    text: str = ""


def split_commands(raw: bytes) -> list[str]:
    """The commands of a text, without the comments in front of them. Refused (42601) when there is too much of it."""
    if len(raw) > MAX_TEXT:
        raise Refused(
            sqlstate.SYNTAX_ERROR,
            f"a text of {len(raw)} bytes, the console takes {MAX_TEXT}",
            hint="This is the admin console, and no database. Use SHOW HELP.",
        )
    text = raw.decode("utf-8", "surrogateescape")
    found, pos = [], 0
    while pos < len(text):
        piece = _PIECE.match(text, pos)
        end = piece.end() if piece else pos
        command = _strip(text[pos:end])
        if command:
            found.append(command)
        if len(found) > MAX_COMMANDS:
            raise Refused(sqlstate.SYNTAX_ERROR, f"more than {MAX_COMMANDS} commands in one text")
        pos = end + 1
    return found


def _strip(text: str) -> str:
    start = _COMMENTS.match(text)
    return text[start.end() if start else 0 :].strip()


def parse_command(text: str) -> Command:
    """One command. Refused (42601) when it makes no sense, or something is too long."""
    if assignment := _SET.fullmatch(text):
        return Command("SET", _check_word(assignment[1]).lower(), _check_value(assignment[2]), text)
    command = _COMMAND.fullmatch(text)
    if command is None:
        raise invalid(text)
    if len(command[1]) > MAX_VERB:
        raise bad_arguments(f"A command has at most {MAX_VERB} letters.")
    verb = command[1].upper()
    if verb == "SET":
        raise invalid(text, "SET key = value, or SET key TO 'value'")
    if verb == "SELECT":
        verb = "SHOW"
    if command[3] and verb != "SHOW":
        raise invalid(text)
    return Command(verb, _check_word(command[2] or ""), _check_word(command[3] or ""), text)


def invalid(text: str, hint: str = "") -> Refused:
    """The error for a command nobody knows, or that cannot be said like that: `hint` says how."""
    shown = text.rstrip("; \t\r\n")
    if len(shown) > MAX_SHOWN:
        shown = shown[:MAX_SHOWN] + "..."
    return Refused(sqlstate.SYNTAX_ERROR, f"invalid command '{shown}{HELP}", hint=hint)


def bad_arguments(hint: str) -> Refused:
    """The error for words that are too long."""
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
