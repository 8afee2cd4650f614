"""
pg_ident.conf: who somebody is elsewhere (an account of this machine, a certificate's name), and who he may be here.

Theory. A line is `MAP SYSTEM-NAME USER`; a rule of pg_hba.conf names its map by `map=`. The system's name may be a
/regular expression, and then the first `\\1` in the user's name stands for what its first ( ) held. The user's name may
be `all`, or a /regular expression of its own. One line that fits is enough, so more lines allow more and never less.

A `\\1` that nothing can be put in, `+role`, and an expression we do not take are mistakes when the file is read, and
not surprises at a login. What is put in for `\\1` is a name and nothing else: somebody called `all` is not everybody.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from proxy.auth.fields import BadLine, Field, Line, Word
from proxy.auth.hba import parse_regex
from proxy.auth.pattern import Pattern

_FIRST = "\\1"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. A pattern, or else a name; `user` is None for `all`."""

    map: str
    system: Pattern | str
    user: Pattern | str | None

    def allows(self, system: str, user: str) -> bool:
        if isinstance(self.system, str):
            return self.system == system and self._means(user, self.user)
        found = self.system.search(system)
        if found is None:
            return False
        if isinstance(self.user, str) and _FIRST in self.user:
            return found.first is not None and self._means(user, self.user.replace(_FIRST, found.first, 1))
        return self._means(user, self.user)

    @staticmethod
    def _means(user: str, wanted: Pattern | str | None) -> bool:
        if isinstance(wanted, Pattern):
            return wanted.search(user) is not None
        return wanted is None or wanted == user


Maps = Mapping[str, tuple[Entry, ...]]


def parse_entry(line: Line) -> Entry:
    """BadLine: it cannot be kept as it is written."""
    if len(line.fields) != 3:
        raise BadLine("a line is a map, a system's name and a user's name: there must be three")
    name, system, user = (_one(words) for words in line.fields)
    if not name.text:
        raise BadLine("the map has no name")
    return Entry(name.text, parse_regex(system) if _is_regex(system) else system.text, _parse_user(user, system))


def _parse_user(user: Word, system: Word) -> Pattern | str | None:
    if user.means("all"):
        return None
    if not user.is_quoted and user.text.startswith("+"):
        raise BadLine(f"{user.text[:80]}: the pooler does not know who is a member of which role")
    if _is_regex(user):
        return parse_regex(user)
    if _FIRST in user.text and _is_regex(system) and not parse_regex(system).has_group:
        raise BadLine(f"{user.text[:80]!r} asks for what the first ( ) holds, and {system.text[:80]!r} has none")
    return user.text


def _is_regex(word: Word) -> bool:
    return word.text.startswith("/")


def _one(words: Field) -> Word:
    if len(words) > 1:
        raise BadLine("a list cannot stand here: write one line for each")
    return words[0]


def gather(entries: Iterable[Entry]) -> Maps:
    """The lines of each map, in order."""
    maps: dict[str, list[Entry]] = {}
    for entry in entries:
        maps.setdefault(entry.map, []).append(entry)
    return {name: tuple(lines) for name, lines in maps.items()}


def is_allowed(maps: Maps, name: str, system: str, user: str) -> bool:
    """May whoever is `system` elsewhere be `user` here? Without a map ("") only under the same name."""
    if not name:
        return system == user
    return any(entry.allows(system, user) for entry in maps.get(name, ()))
