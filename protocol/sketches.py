"""
A text as it may be shown to anybody: its fingerprint, and nothing in it that could be a value.

Theory. A fingerprint (fingerprints.py) has no literals, as long as it is certain where they begin and end. Two things
make that uncertain: a backslash in a string, which means something or not by a setting that may just have changed, and
client encodings in which half a character may look like a backslash. Where a text can be read in two ways it is not
shown at all. What a SET sets need not be a literal, and goes; so do the digits in names, since names with numbers in
them (partitions, tenants, temporary tables) are mostly many of one kind. What cannot be printed becomes `?`.

A text is read up to MAX_SKETCHED, wherever that is: what was opened and not closed there is not shown either.
"""

import re
from typing import Final

from protocol.fingerprints import fingerprint

MAX_SKETCHED: Final = 4_096  # bytes
MAX_SHOWN: Final = 1_000  # characters
UNCERTAIN: Final = "<not shown: it can be read in two ways>"

_MIXED: Final = frozenset(
    [
        "sjis",
        "mskanji",
        "shiftjis",
        "shiftjis2004",
        "win932",
        "windows932",
        "big5",
        "win950",
        "windows950",
        "gbk",
        "win936",
        "windows936",
        "uhc",
        "win949",
        "windows949",
        "gb18030",
        "johab",
    ]
)
"""Encodings in which a byte of ASCII may be half a character."""

_set_value: Final = re.compile(rb"((?:\A|; ?)set (?:session |local )?+[^ ;]++ (?:=|to)) [^;]++").sub
_digits: Final = re.compile(rb"[0-9]++").sub
_others: Final = re.compile(r"[^0-9a-z]").sub
_strings_and_comments: Final = re.compile(
    rb"'[^']*+(?:'|\Z)|/\*[^*]*+(?:\*(?!/)[^*]*+)*+(?:\*/|\Z)|--[^\n]*+|[0-9]++"
).sub


def sketch(text: bytes, encoding: str = "") -> str:
    """`text` of a client with this client_encoding. Linear; about 1 us a token."""
    cut = text[:MAX_SKETCHED]
    if not cut.isascii() and _others("", encoding.lower()) in _MIXED:
        return UNCERTAIN
    folded = fingerprint(cut)
    if b"\\" in cut and fingerprint(cut, standard_conforming_strings=False) != folded:
        return UNCERTAIN
    folded = _digits(b"#", _set_value(rb"\1 ?", folded))
    shown = "".join(letter if letter.isprintable() else "?" for letter in folded.decode("utf-8", "replace"))
    is_whole = len(cut) == len(text) and len(shown) <= MAX_SHOWN
    return shown if is_whole else shown[:MAX_SHOWN] + "..."


def outline(text: bytes) -> bytes:
    """Mostly alike for texts with one sketch, and ten times as cheap: for looking it up, never to be shown."""
    return _strings_and_comments(b"?", text[:MAX_SKETCHED])
