"""
How a line of the log looks: as text in PgBouncer's format, or as one JSON object.

    2026-11-22 12:30:00.123 UTC [4711] LOG C-0x55d0c8: shop/web@10.0.0.7:51234 login attempt: ...
    {"time": "2026-11-22T12:30:00.123+00:00", "pid": 4711, "level": "LOG", "kind": "client", ..., "text": "login ..."}

Theory. A line never lies about where it ends. Text comes from clients (user names, errors of hostile servers), so what
is not printable is escaped (line ends, terminal codes, marks that turn writing around), and it is capped: nobody can
forge a line, or fill the disk with one. This holds for both formats and for each field: the `text` of a JSON line is
what stands behind the tag of a text line, letter by letter.

A field of JSON that exists is true: what is not known is left out.
"""

import enum
import json
import os
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from proxy.log.tags import Tag

TEXT_LIMIT = 8192  # characters of one line's text
TAG_LIMIT = 256  # characters of a tag: a long user name must not crowd out what happened to him

Facts = Mapping[str, object]
NO_FACTS: Facts = MappingProxyType({})


class Level(enum.IntEnum):
    """How much a line matters. A log shows its own level and everything that matters more."""

    FATAL = 0
    ERROR = 1
    WARNING = 2
    LOG = 3
    DEBUG = 4
    NOISE = 5


class Format(enum.StrEnum):
    """How a line looks."""

    TEXT = "text"
    JSON = "json"


_NAMES = tuple(level.name for level in Level)


class Writer:
    """Makes lines. `wall` gives seconds since 1970."""

    __slots__ = ("_iso", "_offset", "_second", "_stamp", "_wall", "_zone")

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._second = -1
        self._stamp = self._zone = self._iso = self._offset = ""

    def build_text(self, level: Level, tag: str, text: str) -> bytes:
        """One line, as PgBouncer writes it."""
        millis = self._look_at_the_clock()
        # The pid is asked for each time: a daemon's is not that of the process that made the log.
        head = f"{self._stamp}.{millis:03d} {self._zone} [{os.getpid()}] {_NAMES[level]}"
        return f"{head} {join_tag(tag, text)}\n".encode()

    def build_json(self, level: Level, tag: Tag | str, text: str, facts: Facts) -> bytes:
        """One line, as one JSON object."""
        millis = self._look_at_the_clock()
        line: dict[str, object] = {
            "time": f"{self._iso}.{millis:03d}{self._offset}",
            "pid": os.getpid(),
            "level": _NAMES[level],
        }
        line |= tag.fields if isinstance(tag, Tag) else ({"about": tag} if tag else {})
        line |= {"text": text, **facts}
        shown = {name: _show(name, value) for name, value in line.items()}
        return (json.dumps(shown, ensure_ascii=False) + "\n").encode()

    def _look_at_the_clock(self) -> int:
        """Sets the stamps; the milliseconds."""
        now = self._wall()
        second = int(now)
        if second != self._second:  # strftime costs 3 us, ten times the rest of the line
            self._second = second
            moment = time.localtime(second)
            self._stamp = time.strftime("%Y-%m-%d %H:%M:%S", moment)
            self._zone = time.strftime("%Z", moment)
            self._iso = time.strftime("%Y-%m-%dT%H:%M:%S", moment)
            offset = time.strftime("%z", moment)
            self._offset = f"{offset[:3]}:{offset[3:]}"
        return int((now - second) * 1000)


def _show(name: str, value: object) -> object:
    return (
        printable(value, TEXT_LIMIT if name in ("text", "reason") else TAG_LIMIT) if isinstance(value, str) else value
    )


def join_tag(tag: str, text: str) -> str:
    """Who and what, printable and bounded: a line without its head."""
    return printable(f"{tag[:TAG_LIMIT]} {text}" if tag else text)


def printable(text: str, limit: int = TEXT_LIMIT) -> str:
    """`text` on one line of at most `limit` characters and a remark: `\\n`, `\\x1b`, `\\u202e` stand for themselves."""
    if len(text) <= limit and text.isprintable():
        return text
    shown = "".join(map(_printable_character, text[:limit]))
    left_out = len(text) - limit if len(text) > limit else 0
    if left_out or len(shown) > limit:
        shown = f"{shown[:limit]}... ({len(text)} characters)"
    return shown


def _printable_character(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
