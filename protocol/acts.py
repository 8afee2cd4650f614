"""
The words for what a statement may do to its session, and the tokens they are read from.

Theory. An act is a fact about words: this statement may change that setting, take a lock that outlives its
transaction, leave a table behind. Whether it did is not said here, for a text cannot tell (it may fail, be rolled
back, be tried in vain); an act says what to look at afterwards. So an act too many costs a look, an act too few
costs somebody else's session: every doubt is an act.

Acts are read by `session_acts` (SET, LISTEN, PREPARE ...), `schema_acts` (CREATE, ALTER, DROP ...) and `call_acts`
(functions). They share a `Source`, the text and the budget for looking at it, and see a statement as a `Phrase`.

Names are folded as PostgreSQL folds them. No name is empty there, so b"" is free to mean all of them (RESET ALL,
UNLISTEN *), or, for a SETTING, nobody knows which. A name that is needed and cannot be told makes the act UNCLEAR.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from protocol.statements import Unclear
from protocol.tokens import ANY_WORD, LITERAL, NAME, QUOTED_NAME, WORD, Grammar, fold_name, literal_value


class What(Enum):
    """What may have been done. `Act.name` is given in brackets."""

    SETTING = "a parameter of the session may have got a value"  # (the parameter; b"": nobody knows which)
    LOCAL = "a parameter on which a text's meaning hangs may have another value until the transaction is over"  # (it)
    RESET = "a parameter may be back at the value it had at login"  # (the parameter; b"": all)
    LOCAL_RESET = "a parameter may be back at that value until the transaction is over"  # (the parameter)
    DISCARD = "DISCARD"  # (b"all", b"plans", b"sequences" or b"temp")
    LISTEN = "LISTEN; the span is that of the key word"  # (the channel)
    UNLISTEN = "UNLISTEN; the span is that of the key word"  # (the channel; b"": all)
    PREPARE = "a statement of that name may exist"  # (the statement)
    EXECUTE = "a statement of that name may have run"  # (the statement)
    DEALLOCATE = "a statement of that name may be gone"  # (the statement; b"": all)
    TEMP = "a temporary object may exist"
    HOLD = "a cursor that outlives its transaction may exist"  # (the cursor)
    CLOSE = "a cursor may be gone"  # (the cursor; b"": all)
    LOCK = "an advisory lock of the session may be held"  # (the function)
    UNLOCK = "an advisory lock of the session may be gone"  # (the function)
    LOAD = "a library may have been loaded"  # (the library, if it is plain to see)
    FUNCTION = "a function may have been called that ties the session to its server"  # (the function)
    DDL = "results of statements may have other columns than before"
    DATABASE = "needs a database without connections"  # (that database)
    ROLE = "a role's name may stand for another one, or for none"
    BEGIN = "a transaction block may be open"  # (its command tag: b"BEGIN" or b"START TRANSACTION")
    COMMIT = "the transaction may be over"  # (b"chain" if the next one is open, else b"")
    ROLLBACK = "the transaction may be over and undone"  # (likewise)
    SAVEPOINT = "a savepoint of that name may exist"  # (the savepoint)
    RELEASE = "a savepoint may be gone"  # (the savepoint)
    ROLLBACK_TO = "what came after a savepoint may be undone"  # (the savepoint)
    UNCLEAR = "anything"


@dataclass(frozen=True, slots=True)
class Act:
    """`text[start:end]` is the token of the original text it was seen by: the name if it has one there."""

    what: What
    name: bytes = b""
    start: int = 0
    end: int = 0


MAX_TOKENS: Final = 20_000  # looked at in one text, statements' first words and arguments: 15 ms


class Source:
    """A text without its block comments, and how much of it may still be looked at."""

    __slots__ = ("_budget", "grammar", "text")

    def __init__(self, text: bytes, grammar: Grammar) -> None:
        self.text = text
        self.grammar = grammar
        self._budget = iter(range(MAX_TOKENS))

    def spend(self) -> None:
        """One more token. Raises Unclear when it is one too many."""
        if next(self._budget, None) is None:
            raise Unclear


class Phrase:
    """The tokens from `start` to `end`, read only as far as somebody asks. Behind the last one they are b""."""

    __slots__ = ("_matches", "_rest", "end", "source", "start")

    def __init__(self, source: Source, start: int, end: int) -> None:
        self.source = source
        self.start = start
        self.end = end
        self._matches: list[re.Match[bytes]] = []
        self._rest = source.grammar.token.finditer(source.text, start, end)

    def __getitem__(self, at: int) -> bytes:
        """The token, in lower case if it is a word: what is quoted equals no key word."""
        match = self._match(at)
        if match is None:
            return b""
        return match[0].lower() if match.lastindex == WORD else match[0]

    def mentions(self, word: bytes) -> bool:
        """May it be in there? Also in literals."""
        return word in self.source.text[self.start : self.end].lower()

    def says(self, at: int, *words: bytes) -> bool:
        """Do these stand at `at`?"""
        return all(self[at + i] == word for i, word in enumerate(words))

    def name(self, at: int) -> bytes:
        """The name it stands for; b"" if it is none, or one that cannot be told."""
        match = self._match(at)
        if match is None or match.lastindex not in (WORD, NAME) or self[at + 1] == b"uescape":
            return b""
        return fold_name(match[0])

    def literal(self, at: int) -> bytes | None:
        match = self._match(at)
        return literal_value(match[0]) if match is not None and match.lastindex == LITERAL else None

    def act(self, what: What, at: int, name: bytes = b"") -> Act:
        """An act seen by the token at `at`."""
        match = self._match(at)
        return Act(what, name, *match.span()) if match is not None else Act(what, name, self.end, self.end)

    def named(self, what: What, at: int) -> Act:
        """An act on the name at `at`."""
        name = self.name(at)
        return self.act(what if name else What.UNCLEAR, at, name)

    def closing(self, at: int) -> int:
        """Behind the parenthesis that closes the one at `at`, or behind the end."""
        depth = 0
        while token := self[at]:
            at += 1
            depth += _DEPTH.get(token, 0)
            if depth == 0:
                break
        return at

    def _match(self, at: int) -> re.Match[bytes] | None:
        while len(self._matches) <= at:
            match = next((match for match in self._rest if match.lastindex is not None), None)
            if match is None:
                return None
            self.source.spend()
            self._matches.append(match)
        return self._matches[at]


_DEPTH: Final = {b"(": 1, b")": -1}

Acts = Iterator[Act]
Reads = Callable[[Phrase, int], Acts]  # the statement that begins at that token
Seek = Callable[[bytes, int, int], re.Match[bytes] | None]


def compile_seek(grammar: Grammar, target: bytes) -> Seek:
    """Runs over all that is not `target`, which begins with a word or a quoted name: its end is the match's."""
    name = rb"(?!" + target + rb")(?:" + ANY_WORD + rb"|" + QUOTED_NAME + rb")"
    dull = b"|".join((name, rb"[();]++", *(part for part in grammar.dull() if part != QUOTED_NAME)))
    return re.compile(rb"(?:" + dull + rb")*+(?P<target>" + target + rb")", re.DOTALL).match
