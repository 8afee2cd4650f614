"""
How pg_hba.conf and pg_ident.conf are written: a file to lines, a line to fields, a field to words.

Theory. The syntax is PostgreSQL's. A line is a row of fields with blanks between; a field is one word or several with
commas between; a `#` outside of quotes begins a comment. Double quotes let a word hold blanks, commas and `#`, make
`""` one quote, and take the meaning from words that have one: `"all"` is a name. A `\\` at the very end of a line goes
on in the next one. `@file` stands for all words of that file. A line `include FILE`, `include_if_exists FILE` or
`include_dir FOLDER` stands for the lines of those files. Names of files are relative to the file they stand in.

Where PostgreSQL guesses we do not: a quote that is never closed, a comma with nothing in front of it or behind it, and
a control character are mistakes, since each of them shifts what follows into another field, and makes a rule about
somebody else. Nothing here raises: reading goes on, and `mistakes` has them all. What is read is bounded, and each
character is looked at a fixed number of times.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from proxy.config.files import read_bytes
from proxy.config.lines import Mistake, parse_text

MAX_DEPTH: Final = 10  # of files in files, PostgreSQL's limit
MAX_FILES: Final = 1_000
MAX_SIZE: Final = 16 << 20  # bytes, of all files together
MAX_LINE: Final = 256 << 10  # characters, with what it goes on in
MAX_LINES: Final = 10_000  # that say something; each may be looked at in each login
MAX_MISTAKES: Final = 200

_BLANKS = re.compile(r"[ \t\r]*+")
_WORD = re.compile(r'(?:[^ \t\r,#"]++|"(?:[^"]|"")*+")++')
_PIECE = re.compile(r'([^"]++)|"((?:[^"]|"")*+)"')
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x0c\x0e-\x1f\x7f]")
_INCLUDES: Final = ("include", "include_if_exists", "include_dir")


class BadLine(ValueError):
    """A line that cannot be used; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word. Quoted it is a name, whatever it says."""

    text: str
    is_quoted: bool = False

    def means(self, keyword: str) -> bool:
        return not self.is_quoted and self.text == keyword


Field = tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """The fields of a line that says something, and where it begins."""

    file: str
    number: int
    fields: tuple[Field, ...]

    def mistake(self, sentence: str) -> Mistake:
        return Mistake(self.file, self.number, sentence)


def split_fields(text: str) -> list[list[Word]]:
    """The fields of a line. BadLine: PostgreSQL would have to guess."""
    if control := _CONTROL.search(text):
        raise BadLine(f"the control character 0x{ord(control[0]):02x} stands in the line")
    fields: list[list[Word]] = []
    pos, in_list = _skip_blanks(text, 0), False
    while pos < len(text) and text[pos] != "#":
        word, pos = _take_word(text, pos)
        if in_list:
            fields[-1].append(word)
        else:
            fields.append([word])
        in_list = text.startswith(",", pos)
        pos = _skip_blanks(text, pos + in_list)
    if in_list:
        raise BadLine("nothing follows the comma")
    return fields


def _skip_blanks(text: str, pos: int) -> int:
    match = _BLANKS.match(text, pos)
    return match.end() if match else pos


def _take_word(text: str, pos: int) -> tuple[Word, int]:
    if text[pos] == ",":
        raise BadLine("nothing stands in front of the comma")
    match = _WORD.match(text, pos)
    if match is None or text.startswith('"', match.end()):
        raise BadLine("a quote is never closed")
    pieces = (bare or quoted.replace('""', '"') for bare, quoted in _PIECE.findall(match[0]))
    return Word("".join(pieces), is_quoted=text[pos] == '"'), match.end()


@dataclass(slots=True)
class Reader:
    """Reads one file and all that belong to it; `files` and `mistakes` grow while `lines` is iterated."""

    files: list[str] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    _open: list[str] = field(default_factory=list)  # the files we are inside of, outermost first
    _room: int = MAX_SIZE
    _count: int = 0

    def lines(self, path: str) -> Iterator[Line]:
        """The lines of `path` and of the files it includes, in order."""
        yield from self._lines_of(path, None)

    @property
    def is_over(self) -> bool:
        """Too much is wrong, or there is too much: the rest is not read."""
        return len(self.mistakes) >= MAX_MISTAKES or self._count > MAX_LINES

    def note(self, mistake: Mistake) -> None:
        self.mistakes.append(mistake)

    def _lines_of(self, path: str, place: Mistake | None) -> Iterator[Line]:
        """`place` is where another file asks for this one."""
        for line in self._plain_lines(path, place):
            where = _read_include(line.fields)
            if where is not None:
                yield from self._included(line, *where)
                continue
            self._count += 1
            if self._count > MAX_LINES:
                self.note(line.mistake(f"more than {MAX_LINES} lines: the rest is not read"))
                return
            yield line

    def _plain_lines(self, path: str, place: Mistake | None) -> Iterator[Line]:
        """The lines of this one file, words of other files already in them."""
        text = self._load(path, place)
        if text is None:
            return
        self._open.append(os.path.realpath(path))
        for number, raw in _join_lines(text):
            if self.is_over:
                break
            if fields := self._parse(path, number, raw):
                yield Line(path, number, tuple(fields))
        self._open.pop()

    def _parse(self, path: str, number: int, raw: str) -> list[Field]:
        place = Mistake(path, number, "")
        try:
            if len(raw) > MAX_LINE:
                raise BadLine(f"the line is longer than {MAX_LINE} characters")
            return [self._expand(each, place) for each in split_fields(raw)]
        except BadLine as bad:
            self.note(Mistake(path, number, str(bad)))
            return []

    def _expand(self, words: list[Word], place: Mistake) -> Field:
        """The words, those of an @file in its place. BadLine: there is a mistake in it, or there are none."""
        found: list[Word] = []
        for word in words:
            if word.is_quoted or not word.text.startswith("@") or word.text == "@":
                found.append(word)
                continue
            before = len(self.mistakes)
            lines = list(self._plain_lines(_locate(word.text[1:], place.file), place))
            found += [each for line in lines for words_of in line.fields for each in words_of]
            if len(self.mistakes) > before:
                raise BadLine(f"{word.text} cannot be used")
        if not found:
            raise BadLine(f"{words[0].text} holds no names")
        return tuple(found)

    def _included(self, line: Line, how: str, name: str) -> Iterator[Line]:
        path, place = _locate(name, line.file), line.mistake("")
        if how == "include_dir":
            for each in self._find_in(path, place):
                yield from self._lines_of(each, place)
        elif how == "include" or not _is_missing(path):
            yield from self._lines_of(path, place)

    def _find_in(self, folder: str, place: Mistake) -> list[str]:
        """The files of a folder that end in .conf and are not hidden, in the order of their names."""
        try:
            names = sorted(os.listdir(folder), key=os.fsencode)
        except OSError as error:
            self.note(Mistake(place.file, place.line, f"{folder} cannot be read: {error.strerror}"))
            return []
        return [os.path.join(folder, name) for name in names if name.endswith(".conf") and not name.startswith(".")]

    def _load(self, path: str, place: Mistake | None) -> str | None:
        """The text of `path`, or None when a mistake was noted."""
        try:
            self._check_may_open(path)
            data = read_bytes(path, self._room)
            text = parse_text(data)
        except ValueError as error:
            where = place or Mistake(path, 0, "")
            self.note(Mistake(where.file, where.line, f"{path} {error}" if place else str(error)))
            return None
        self._room -= len(data)
        self.files.append(path)
        return text

    def _check_may_open(self, path: str) -> None:
        if len(self._open) > MAX_DEPTH:
            raise ValueError(f"is included more than {MAX_DEPTH} levels deep")
        if os.path.realpath(path) in self._open:
            raise ValueError("includes itself")
        if len(self.files) >= MAX_FILES:
            raise ValueError(f"is one file too many: {MAX_FILES} are read already")


def _join_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with the number of their first, those joined that a backslash at the end continues."""
    parts: list[str] = []
    first = 1
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.rstrip("\r")
        parts.append(line.removesuffix("\\"))
        if line.endswith("\\"):
            continue
        yield first, "".join(parts)
        parts, first = [], number + 1
    if parts:
        yield first, "".join(parts)


def _read_include(fields: tuple[Field, ...]) -> tuple[str, str] | None:
    """(how, file) where the line is about other files."""
    if len(fields) != 2 or any(len(each) != 1 for each in fields):
        return None
    (how,), (name,) = fields
    return (how.text, name.text) if how.text in _INCLUDES and not how.is_quoted else None


def _locate(name: str, including: str) -> str:
    return os.path.join(os.path.dirname(including), name)


def _is_missing(path: str) -> bool:
    """Only that it is not there is forgiven: a file that may not be looked at is a mistake."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False
