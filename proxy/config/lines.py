"""
The file, line by line: sections, keys, values, and what each `%include` brings in.

The format is PgBouncer's. A line is `key = value`; the value is the rest of the line without the blanks
around it, quotes and `;` included: there are no comments behind a value. A comment is a line of its own
that begins with `;` or `#`. A key is made of letters, digits and `_ . - *`; any other name stands in double
quotes, where `""` is one quote. `[section]` may come again; something may follow it on its line. Keys may
be indented.

`%include FILE` reads FILE as if it stood there: the section in force goes in with it and comes back out
changed. FILE is relative to the working directory, as in PgBouncer, and when it is not there relative to
the including file. Ten levels, a thousand files and 16 MB in all are the limits, so that no file can keep
us busy for ever.

The text is UTF-8. A comment may be written in anything: files are older than that.

Nothing here raises: what is wrong becomes a `Mistake`, and reading goes on with the next line, up to two
hundred mistakes.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from proxy.config.files import read_bytes

MAX_DEPTH: Final = 10  # of %include, PgBouncer's limit
MAX_FILES: Final = 1_000
MAX_SIZE: Final = 16 << 20  # of all files together: some 100,000 databases
MAX_MISTAKES: Final = 200  # nobody reads more, and looking for them could take long
MAX_LINE: Final = 256 << 10  # characters; a password alone may have 65,530

_BLANKS: Final = " \t\r\v\f"  # C's isspace without the newline; str.strip() would take Unicode's too
_KEY = re.compile(r'([A-Za-z0-9_.*-]+|"(?:[^"]|"")*+")[ \t]*=(.*)', re.DOTALL)
_INCLUDE = re.compile(r"%include[ \t]+(.*)", re.DOTALL)
_SECTION = re.compile(r"\[([^\]]*)\][ \t\r\v\f]*")
_NO_TEXT = re.compile("[\udc80-\udcff]")  # what bytes that are not UTF-8 become


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong, or worth a warning, and where. `line` counts from 1; 0 is the file as a whole."""

    file: str
    line: int
    sentence: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return make_printable(f"{place}: {self.sentence}")


@dataclass(frozen=True, slots=True)
class Line:
    """One `key = value` and where it stands."""

    file: str
    number: int
    section: str
    key: str
    value: str = field(repr=False)  # a password may be in it

    def mistake(self, sentence: str) -> Mistake:
        return Mistake(self.file, self.number, sentence)


class Reader:
    """Reads one file and what it includes; `files`, `sections` and `mistakes` grow while `lines` is iterated."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.sections: dict[str, Mistake] = {}  # name -> where it first stands
        self.mistakes: list[Mistake] = []
        self.is_stopped = False
        self._section = ""
        self._open: list[str] = []  # the files we are inside of, outermost first
        self._room = MAX_SIZE  # how many bytes may still be read

    def lines(self, path: str, place: Mistake | None = None) -> Iterator[Line]:
        """Every `key = value` of `path`; `place` is the %include that asked for it."""
        place = place or Mistake(path, 0, "")
        text = self._load(path, place)
        if text is None:
            return
        self._open.append(os.path.realpath(path))
        for number, line in enumerate(text.split("\n"), 1):
            if len(self.mistakes) >= MAX_MISTAKES or self.is_stopped:
                break
            if len(line) > MAX_LINE:
                self.note(Mistake(path, number, f"the line is longer than {MAX_LINE} characters"))
            else:
                yield from self._one(path, number, self._enter_sections(path, number, line.strip(_BLANKS)))
        self._open.pop()

    def stop(self) -> None:
        """No line more, of any file."""
        self.is_stopped = True

    def note(self, mistake: Mistake) -> None:
        self.mistakes.append(mistake)

    def _enter_sections(self, path: str, number: int, line: str) -> str:
        """Enter the sections at the start of the line; what follows them."""
        pos = 0
        while match := _SECTION.match(line, pos):
            pos = match.end()
            self._section = match[1]
            self.sections.setdefault(match[1], Mistake(path, number, ""))
        return line[pos:]

    def _one(self, path: str, number: int, line: str) -> Iterator[Line]:
        if not line or line[0] in ";#":
            return
        if not line.isascii() and (byte := _NO_TEXT.search(line)):
            self.note(Mistake(path, number, f"this is not UTF-8 text: the byte 0x{ord(byte[0]) - 0xDC00:02x}"))
        elif match := _KEY.fullmatch(line):
            yield from self._key(Line(path, number, self._section, _unquote(match[1]), match[2].strip(_BLANKS)))
        elif match := _INCLUDE.fullmatch(line):
            place = Mistake(path, number, "")
            yield from self.lines(_locate(match[1], path), place)
        else:
            self.note(Mistake(path, number, _what_is_wrong(line)))

    def _key(self, line: Line) -> Iterator[Line]:
        if self._section in self.sections:
            yield line
        else:
            self.note(line.mistake(f"{line.key!r} stands before the first section"))

    def _load(self, path: str, place: Mistake) -> str | None:
        """The text of `path`, or None when a mistake was noted."""
        sentence = self._what_forbids(path)
        if sentence is None:
            try:
                data = read_bytes(path, self._room)
                text = parse_text(data)
            except ValueError as error:
                sentence = str(error)
            else:
                self._room -= len(data)
                self.files.append(path)
                return text
        self.note(Mistake(place.file, place.line, f"{path} {sentence}" if place.line else sentence))
        return None

    def _what_forbids(self, path: str) -> str | None:
        if len(self._open) > MAX_DEPTH:
            return f"is included more than {MAX_DEPTH} levels deep"
        if os.path.realpath(path) in self._open:
            return "includes itself"
        if len(self.files) >= MAX_FILES:
            return f"is one file too many: {MAX_FILES} are read already"
        return None


def parse_text(data: bytes) -> str:
    """The text of a file; bytes that are not UTF-8 are kept as halves of surrogates. ValueError: it is no text."""
    zero = data.find(b"\0")
    if zero >= 0:
        line = data.count(b"\n", 0, zero) + 1
        raise ValueError(f"is not a text file: line {line} holds a zero byte")
    return data.decode("utf-8-sig", "surrogateescape")


def make_printable(text: str) -> str:
    """The text as one line of a log: names from a file may hold anything."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _unquote(key: str) -> str:
    return key[1:-1].replace('""', '"') if key.startswith('"') else key


def _locate(name: str, including: str) -> str:
    beside = os.path.join(os.path.dirname(including), name)
    return beside if not os.path.exists(name) and os.path.exists(beside) else name


def _what_is_wrong(line: str) -> str:
    """Why a line is neither a section, nor an include, nor a key. The value may be a secret: it is not shown."""
    if line[0] == "[":
        return "the section's name has no closing ]"
    if line[0] == "%":
        return "only %include and a file's name may begin with %"
    if line[0] == '"' and '"' not in line[1:]:
        return "the quote that opens the name is never closed"
    if "=" not in line:
        return "this is neither a [section] nor key = value"
    return 'the name in front of = must be put in double quotes: "..."'
