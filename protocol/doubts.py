"""
What a client's texts have put in doubt about its session, what to ask, and what follows from the answer.

Theory. `Doubts` gathers the acts of one client's texts (`effects`) until its transaction is over. `ask` says which
question settles them; often there is none: a parameter that PostgreSQL reports by itself is known already. `conclude`
makes the two new sets out of the answer, the client's and the server's.

What a server has in force is always true of it, wherever it comes from; so its set may hold a value that nobody has
set, but never lacks one that somebody has. A name leaves it only when it is known to be back where it was at login.

For the client a SET that went through is its new value. RESET goes back to the value it came with (`origin`), which
another server does not know: there it is an ordinary value. Whether a RESET went through shows in the value; where a
SET of the same name stands beside it, or the old value is that of the server as well, or something was refused, only
the server's list of what the session has set can tell.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from protocol.acts import What
from protocol.effects import Reading
from protocol.inspection import FIRST, Answer, Fact, Question
from protocol.parameters import (
    IDENTITY,
    ISOLATING,
    MAX_SET,
    PASSING,
    UNSHARED,
    ParameterSet,
    is_in_the_way,
    is_name,
    is_sendable,
)
from protocol.undone import Again, Undone

MAX_NAMES = 200  # parameters one transaction may name before everything is looked at
MAX_CANDIDATES = 200  # custom parameters looked for in texts that do not say which they set
MAX_SEARCHED = 65_536  # bytes of each of them, and of the values that came with it: 5 ms
MAX_TEXT = 1024  # bytes of the first text, for whoever asks why

# Any path of names, even of one: what has no dot must be run over as well, or each of its letters is tried as a start.
_PATH = re.compile(rb"[A-Za-z_][A-Za-z0-9_$]*+(?:\.[A-Za-z_][A-Za-z0-9_$]*+)*+")

# What PostgreSQL takes for the name of a custom parameter, where \ufffd is any byte beyond ASCII.
_is_custom = re.compile(r"[A-Za-z_\ufffd][\w$\ufffd]*(?:\.[A-Za-z_\ufffd][\w$\ufffd]*)+", re.ASCII).fullmatch

# Such a path that is not plain ASCII.
_ODD = re.compile(
    rb"[A-Za-z0-9_$\x80-\xff]\.[A-Za-z0-9_$]*+[\x80-\xff]|[\x80-\xff][A-Za-z0-9_$]*+\.[A-Za-z_\x80-\xff]"
).search
_UNDOES = re.compile(rb"\b(?i:reset|discard|default|null)\b").search
_NO_VALUE = b"\xff\xff\xff\xff"  # where a Bind has the length of one: NULL
_SETS = re.compile(rb"(?<![Rr][Ee])(?i:set)").search

MAKES: Mapping[What, frozenset[Fact]] = {
    What.TEMP: frozenset({Fact.TEMP}),
    What.DDL: frozenset({Fact.TEMP}),  # search_path may lead to the temporary schema
    What.HOLD: frozenset({Fact.CURSORS}),
    What.LOCK: frozenset({Fact.LOCKS}),
    What.LISTEN: frozenset({Fact.CHANNELS}),
    What.UNCLEAR: frozenset(Fact),
}
"""Acts after which something may exist."""

ENDS: Mapping[What, frozenset[Fact]] = {
    What.CLOSE: frozenset({Fact.CURSORS}),
    What.UNLOCK: frozenset({Fact.LOCKS}),
    What.UNLISTEN: frozenset({Fact.CHANNELS}),
    What.DEALLOCATE: frozenset({Fact.STATEMENTS}),
    What.DISCARD: frozenset(Fact),
}
"""Acts after which something may be gone: of interest where it was."""

TOUCHING = frozenset({*MAKES, What.SETTING, What.RESET, What.LOCAL_RESET, What.DISCARD, What.LOAD, What.FUNCTION})
"""Acts that may leave a session other than it was."""

NONE: frozenset[Fact] = frozenset()


class Sets(NamedTuple):
    """What a client believes in, and what its server is in."""

    client: ParameterSet
    server: ParameterSet


class Told:
    """What a server had reported at one moment, by our keys. (Other parameters than the followed ones may have bytes of
    unknown meaning: those are not known.)"""

    __slots__ = ("_names", "_spelled", "_values")

    def __init__(self, values: Mapping[str, str], names: Mapping[str, str], spelled: Mapping[str, str]) -> None:
        self._values = dict(values)  # by the server's names
        self._names = names  # from lower case to those
        self._spelled = spelled  # from lower case to those that are followed

    def get(self, key: str) -> str | None:
        lower = key.lower()
        value = self._values.get(self._names.get(lower, ""))
        return value if value is None or value.isascii() or lower in self._spelled else None

    def spell(self, key: str) -> str:
        """The server's name for it."""
        return self._names.get(key.lower(), key)


class Ground(NamedTuple):
    """What does not change while a client lives."""

    origin: ParameterSet  # what it logged in with
    spelled: Mapping[str, str]  # keys of what is followed, by names in lower case
    user: str  # who its servers log in as

    def key(self, name: str) -> str:
        return self.spelled.get(name, name)

    def is_nothing(self, key: str, value: str | None, at_login: str | None) -> bool:
        """Does it mean that nobody has set anything? A custom parameter that was reset is empty, and stays so."""
        if key in IDENTITY:
            return {value, at_login} <= {None, "none", self.user}
        return not value and "." in key


class Doubts:
    """Gathered from one or several texts of one client. `before` is what it believed in before them."""

    __slots__ = (
        "_undone", "before", "candidates", "facts", "has_erred", "has_failed", "is_all_reset", "is_careful", "is_lost",
        "is_unclear", "may_undo", "resets", "returned", "sets", "text",
    )  # fmt: skip

    def __init__(self, before: ParameterSet, text: bytes = b"") -> None:
        self.before = before
        self.text = text[:MAX_TEXT]  # the first of them
        self.sets: set[str] = set()  # names in lower case
        self.resets: set[str] = set()
        self.returned: set[str] = set()  # those that were set again behind a RESET
        self.is_all_reset = False
        self.is_unclear = False  # nobody knows which parameters
        self.is_lost = False  # there may be parameters that cannot be asked for
        self.is_careful = False  # a question has failed: what may have been in the way is put aside, or listed
        self.has_failed = False  # the transaction they are of, and so it was rolled back as likely as not
        self.has_erred = False  # something in it was refused
        self.may_undo = False  # by words that stand in a block, or a function call
        self.candidates: set[str] = set()
        self.facts: set[Fact] = set()
        self._undone = Undone()  # since somebody asked

    def add(self, reading: Reading, text: bytes = b"", values: bytes = b"", held: Collection[Fact] = ()) -> None:
        """What a text may have done, with the Bind `values` that ran it; `held` are facts that are known to be so."""
        for act in reading.acts:
            self._undone.note(act)
            self.facts |= MAKES.get(act.what, NONE)
            self.facts |= ENDS.get(act.what, NONE).intersection(held)
            if act.what is What.SETTING:
                self._add_name(self.sets, act.name)
            elif act.what is What.RESET and act.name:
                self._add_name(self.resets, act.name)
            elif act.what is What.RESET or (act.what is What.DISCARD and act.name == b"all"):
                self.is_all_reset = True
            elif act.what is What.UNCLEAR:
                self.is_unclear = True
        if self.is_unclear:
            self.may_undo |= _UNDOES(text) is not None or _NO_VALUE in values
            self._search(text)
            if values:
                self._search(values)

    def absorb(self, older: "Doubts") -> None:
        """`older` ones could not be settled, and stand beside these."""
        self.before, self.text = older.before, older.text
        self.sets |= older.sets
        self.resets |= older.resets
        self.returned |= older.returned
        self._undone.absorb(older._undone)
        self.is_all_reset |= older.is_all_reset
        self.is_unclear |= older.is_unclear
        self.has_failed |= older.has_failed
        self.has_erred |= older.has_erred
        self.is_lost |= older.is_lost
        self.is_careful |= older.is_careful
        self.may_undo |= older.may_undo
        self.candidates |= older.candidates
        self.facts |= older.facts

    def _add_name(self, names: set[str], said: bytes) -> None:
        name = said.lower().decode("ascii", "replace")
        if name in PASSING:
            return
        if is_name(name) and len(self.sets) + len(self.resets) < MAX_NAMES:
            names.update(IDENTITY if name in IDENTITY else (name,))  # a new user has no role
        else:
            self.is_unclear = True
            self.is_lost |= names is self.sets and _is_custom(name) is not None

    def _search(self, said: bytes) -> None:
        """Whatever looks like the name of a custom parameter is asked for."""
        searched = said[:MAX_SEARCHED]
        found = find_paths(searched)
        names = {name for name in found if is_name(name)} - self.sets
        self.candidates.update(sorted(names - self.candidates)[: MAX_CANDIDATES - len(self.candidates)])
        is_missed = len(found) > len(names | self.sets & found) or not names <= self.candidates
        if (is_missed or len(said) > MAX_SEARCHED or _ODD(searched)) and _SETS(said):
            self.is_lost = True

    def take_undone(self, ground: Ground, server: ParameterSet, told: Told) -> list[Again]:
        """
        What the client came with and has reset since this was asked last, so that this server may no longer have it: it
        is set again, in the same transaction.
        """
        if not self._undone:
            return []

        def get(key: str) -> str | None:
            return server.get(key) if key.lower() in ground.spelled else told.get(key)

        agains = self._undone.take(ground.origin, ground.user, get, self._keeps)
        self.returned.update(again.key.lower() for again in agains if not again.is_local)
        return agains

    def _keeps(self, key: str, value: str | None) -> bool:
        """A text that does not say what it does was run, and `key` is at this value, which means nothing: was it so
        before, or have its own words made it so?"""
        was_so = self.before.get(key) == value or key.lower() in self.sets
        return value is not None and was_so and not self.may_undo

    def fail(self) -> None:
        """Their transaction has failed. What was reset since somebody asked is so no more."""
        self.has_failed = True
        self._undone.clear()

    # What to ask.

    def ask(self, ground: Ground, server: ParameterSet, told: Told, known: Iterable[str]) -> Question:
        """
        The question that settles them. `told` are values the server has reported, by our keys; `known` are custom
        parameters that others have used.
        """
        touched = self._find_touched(ground, server)
        is_listing = (
            self.is_unclear
            or self.is_careful
            or (self.has_erred and self._may_be_in_vain(ground))
            or any(self._is_ambiguous(key, ground) for key in touched)
        )
        asked = {key for key in touched if not is_listing or "." in key or key in FIRST}
        if self.is_unclear:
            asked = asked.union(self.candidates, known, IDENTITY)
        names = {key for key in asked if key in FIRST or told.get(key) is None}
        facts = tuple(fact for fact in Fact if fact in self.facts) if self.facts else ()
        if not (names or facts or is_listing):
            return Question()
        names.update(name for name in FIRST if self.is_careful or is_in_the_way(name, server.get(name)))
        is_calm = self.is_careful or self.is_unclear or not ISOLATING.isdisjoint(touched | server.keys())
        return Question(tuple(sorted(names)), facts, lists=is_listing, is_calm=is_calm)

    def _find_touched(self, ground: Ground, server: ParameterSet) -> set[str]:
        """All keys whose values may have changed, as far as they can be named."""
        touched = {ground.key(name) for name in self.sets | self.resets | self.returned}
        if self.is_all_reset or self.is_unclear:
            touched |= self.before.keys() | ground.origin.keys() | server.keys()
        return touched

    def _may_be_in_vain(self, ground: Ground) -> bool:
        """
        May a SET have been refused of something that the value alone would make a parameter of the client's? Its
        user may have no right to set it, and so none to RESET it either: nobody could be given that server.
        """
        keys = {ground.key(name) for name in self.sets if "." not in name and name not in FIRST}
        return any(key.lower() not in ground.spelled and key not in self.before for key in keys)

    def _is_only_reset(self, key: str) -> bool:
        name = key.lower()
        return (self.is_all_reset or name in self.resets) and name not in self.sets | self.returned

    def _is_ambiguous(self, key: str, ground: Ground) -> bool:
        """Does its value not tell whether a RESET has happened, where that matters?"""
        if key not in ground.origin or not (self.is_all_reset or key.lower() in self.resets):
            return False
        return key.lower() in self.sets | self.returned or self.before.get(key) != ground.origin[key]

    # What follows.

    def conclude(self, question: Question, answer: Answer, sets: Sets, ground: Ground, told: Told) -> Sets:
        """The new sets, out of those that hold now, what was reported included."""
        client, server = dict(sets.client), dict(sets.server)
        keys = self._find_touched(ground, sets.server)
        if question.lists:
            keys |= set(map(ground.key, (*answer.listed, *answer.values)))
        for key in keys:
            judge = self._judge_listed if question.lists else self._judge
            theirs, its = judge(key, answer, ground, told)
            _put(client, key, ground.origin.get(key) if key in UNSHARED else theirs)
            if key.lower() not in ground.spelled:
                _put(server, key, its)
        return Sets(client, server)

    def _judge(self, key: str, answer: Answer, ground: Ground, told: Told) -> tuple[str | None, str | None]:
        """The client's value and the server's; None where none is set."""
        value, back = _first(told.get(key), answer.values.get(key)), ground.origin.get(key)
        if self._is_only_reset(key):
            is_left = value is not None and value == self.before.get(key) and key.lower() not in ground.spelled
            return (value, value) if is_left else (back, None)
        if self._is_nothing(key, value, answer, ground) and back is None:
            return None, None
        return value, value

    def _judge_listed(self, key: str, answer: Answer, ground: Ground, told: Told) -> tuple[str | None, str | None]:
        """The same where the server has listed all that the session has set and that can be listed."""
        value = answer.listed.get(key.lower())
        is_reset = (self.is_all_reset or key.lower() in self.resets) and not self.has_failed
        if value is None and ("." in key or key in IDENTITY):
            value = _first(told.get(key), answer.values.get(key))
            is_kept = not self._undone.may_hold(key.lower()) or (not is_reset and self._keeps(key, value))
            is_own = key in ground.origin and is_kept  # nothing may be what it wants
            is_back = is_reset and self._is_only_reset(key) and value != self.before.get(key)
            value = None if is_back or (self._is_nothing(key, value, answer, ground) and not is_own) else value
        elif value is None and key in answer.at_login:  # it was put back before the list was made
            value = answer.values[key]
            is_kept = key in self.sets or (value == self.before.get(key) and not is_reset)
            value = value if is_kept or value != answer.at_login[key] else None
        if value is not None:
            return value, value
        # Perhaps the server's own value.
        is_same = key.lower() in ground.spelled and told.get(key) == self.before.get(key)
        return (self.before if is_same and not is_reset else ground.origin).get(key), None

    def _is_nothing(self, key: str, value: str | None, answer: Answer, ground: Ground) -> bool:
        """What was made empty in so many words is not nothing: at login it may have been something."""
        if value == "" and key in self.sets and not self.has_failed:
            return False
        return ground.is_nothing(key, value, answer.at_login.get(key))


def after_reset_all(server: ParameterSet, spelled: Mapping[str, str]) -> ParameterSet:
    """What is left of a server's set. (Who the session is, RESET ALL does not touch.)"""
    return {key: value for key, value in server.items() if key in IDENTITY or key.lower() in spelled}


def find_customs(said: bytes) -> set[str]:
    """Whatever in it looks like the name of a custom parameter."""
    return {name for name in find_paths(said[:MAX_SEARCHED]) if is_name(name)}


def find_paths(said: bytes) -> set[str]:
    """Names that have a dot."""
    return {match[0].decode("ascii").lower() for match in _PATH.finditer(said) if b"." in match[0]}


def _first(value: str | None, other: str | None) -> str | None:
    return other if value is None else value


def _put(parameters: dict[str, str], key: str, value: str | None) -> None:
    if value is None:
        parameters.pop(key, None)
    else:
        parameters[key] = value


def why_unsayable(parameters: ParameterSet, spelled: Mapping[str, str]) -> str:
    """Why this set cannot be replayed on another server; "" when it can."""
    own = {key: value for key, value in parameters.items() if key.lower() not in spelled}
    if len(own) > MAX_SET:
        return f"{len(own)} parameters are set"
    return next((key for key, value in own.items() if not (is_name(key) and is_sendable(value))), "")
