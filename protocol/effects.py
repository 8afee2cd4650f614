"""
What a text may do to its session: the reader for every text a client sends.

Theory. Most texts do nothing that lasts, and must cost next to nothing: `Reader.is_plain` looks at a text without
reading it. A single statement that begins like SELECT or INSERT and in which no tell-tale letters occur has no acts,
however its quotes may fall; that is certain, and about 0.3 us. All others are read: `Reader.read` splits the text as
PostgreSQL does (`statements`) and asks each statement for its acts (`acts`). That is 10 us and more, but short texts
are remembered, and those that are sent all day (BEGIN, COMMIT, a driver's reset) cost no more than a plain one.

A text that cannot be split for certain is one sentence with one act, UNCLEAR, and not `is_clear`: it may be or do
anything, DDL included, unless PostgreSQL refuses it, as it mostly will. DO, CALL and unknown words are UNCLEAR acts in
a text that is otherwise clear.

The text must be in an encoding that `tokens` can read (see there).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from protocol.acts import Act, Acts, Phrase, Reads, Source, What
from protocol.call_acts import Calls
from protocol.schema_acts import SCHEMA_READERS, SELECTS, read_into
from protocol.session_acts import SESSION_READERS
from protocol.statements import Kind, Piece, Unclear, kind_of, split
from protocol.tokens import BACKSLASHED, STANDARD, Grammar, blank_comments

__all__ = ["PLAIN", "Act", "Reader", "Reading", "Sentence", "What"]


@dataclass(frozen=True, slots=True)
class Sentence:
    """One statement: `text[start:end]`, without its `;`."""

    kind: Kind
    acts: tuple[Act, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text says. Made by `build_reading`; the facts below `sentences` are its summary."""

    sentences: tuple[Sentence, ...] = ()
    is_clear: bool = True  # could be split for certain
    acts: tuple[Act, ...] = ()  # all of them, in order
    whats: frozenset[What] = frozenset()
    parameters: frozenset[bytes] = frozenset()  # of those four; b"" among them: nobody knows which, or all
    is_lasting: bool = False  # some act may outlive its statement: there is more than BEGIN, COMMIT, SAVEPOINT ...
    is_deferrable: bool = False  # exactly one BEGIN that cannot be wrong

    def has(self, *whats: What) -> bool:
        """Any of these?"""
        return not self.whats.isdisjoint(whats)


PLAIN: Final = Reading()  # of every text that has no acts: compare with `is`

_OF_TRANSACTION = frozenset({What.BEGIN, What.COMMIT, What.ROLLBACK, What.SAVEPOINT, What.RELEASE})
_OF_PARAMETERS = frozenset({What.SETTING, What.LOCAL, What.RESET, What.LOCAL_RESET})


def build_reading(text: bytes, sentences: tuple[Sentence, ...], *, is_clear: bool = True) -> Reading:
    acts = tuple(act for sentence in sentences for act in sentence.acts)
    if not acts:
        return PLAIN
    whats = frozenset(act.what for act in acts)
    parameters = frozenset(act.name for act in acts if act.what in _OF_PARAMETERS)
    is_lone_begin = len(sentences) == len(acts) == 1 and acts[0].what is What.BEGIN
    return Reading(
        sentences=sentences,
        is_clear=is_clear,
        acts=acts,
        whats=whats,
        parameters=parameters,
        is_lasting=not whats <= _OF_TRANSACTION,
        is_deferrable=is_lone_begin and is_deferrable(text),
    )


# BEGIN.

_S = rb"[ \t\n\r\f\v]"
_MODE = (
    rb"(?:isolation_+level_+(?:repeatable_+read|read_+committed|read_+uncommitted)|read_+only|(?:not_+)?+deferrable)"
)
_BEGIN = (
    rb"_*+(?:begin(?:_++(?:work|transaction)(?!\w))?+|start_++transaction)"
    rb"(?:_++" + _MODE + rb"(?:(?:_*+,_*+|_++)" + _MODE + rb")*+)?+_*+;?+_*+"
)
_is_begin = re.compile(_BEGIN.replace(b"_", _S), re.IGNORECASE).fullmatch


def is_deferrable(text: bytes) -> bool:
    """Is it one BEGIN or START TRANSACTION, without comments, with modes that no server refuses (a standby does refuse
    SERIALIZABLE and READ WRITE)?"""
    return _is_begin(text) is not None


# Reading.

MAX_SENTENCES: Final = 1_000  # in one text: 20 ms
MEMO_SIZE: Final = 1_000  # texts
MEMO_LENGTH: Final = 1_000  # bytes of each: at most 2 MB in all

_READERS: Final[dict[bytes, Reads]] = {**SESSION_READERS, **SCHEMA_READERS}


def _build_heads(*words: str) -> frozenset[str]:
    """Words, each with a byte that ends it."""
    return frozenset(word + after for word in words for after in " \n\r\t(")


# Statements whose own words are no acts, by length. INTO is looked for apart.
_HEADS_7: Final = _build_heads("select", "insert", "update", "delete", "values", "notify")
_HEADS_6: Final = _build_heads("fetch", "merge")
_HEADS_5: Final = _build_heads("with", "show", "copy", "move")


_MAY_UPDATE: Final = frozenset({b"update", b"with", b"merge", b"explain", b"prepare"})
_WRITES: Final = "uwm"  # how those of them begin that may be plain


class Reader:
    """Reads texts. `pin_functions` are functions that tie a session to its server, written as in SQL."""

    __slots__ = ("_calls", "_memos", "_pin_tells")

    def __init__(self, pin_functions: Iterable[bytes] = ()) -> None:
        self._calls = Calls(pin_functions)
        self._pin_tells = tuple(tell.decode("latin-1") for tell in self._calls.pin_tells)
        self._memos: tuple[dict[bytes, Reading], dict[bytes, Reading]] = ({}, {})  # for False and True

    def is_plain(self, text: bytes) -> bool:
        """
        True only if it is certain that the text is one statement without any act.

        For every text of every client: about 0.3 us, and 2 ms per MB. It looks at a str, since `in` takes 20 ns there
        and 105 ns in bytes. The tells of Calls are written out, as a loop over them would double the price.
        """
        lowered = text.lower().decode("latin-1")
        if lowered[:7] not in _HEADS_7 and lowered[:5] not in _HEADS_5 and lowered[:6] not in _HEADS_6:
            return False
        if ";" in lowered and lowered.index(";") != len(lowered) - 1:
            return False
        if "into" in lowered and lowered[0] != "i":  # INSERT
            return False
        if lowered[0] in _WRITES and "pg_settings" in lowered:
            return False
        if "(" not in lowered:
            return True
        if "set_config" in lowered or "advisory_" in lowered or 'u&"' in lowered:
            return False
        for tell in self._pin_tells:  # noqa: SIM110  all() is twice as slow
            if tell in lowered:
                return False
        return True

    def read(self, text: bytes, standard_conforming_strings: bool = True) -> Reading:
        """Never raises. PLAIN if the text has no acts."""
        if len(text) > MEMO_LENGTH:
            return self._read(text, standard_conforming_strings)
        memo = self._memos[standard_conforming_strings]
        reading = memo.get(text)
        if reading is None:
            if len(memo) >= MEMO_SIZE:
                memo.clear()
            reading = memo[text] = self._read(text, standard_conforming_strings)
        return reading

    def _read(self, text: bytes, standard_conforming_strings: bool) -> Reading:
        if self.is_plain(text):
            return PLAIN
        grammar = STANDARD if standard_conforming_strings else BACKSLASHED
        try:
            return build_reading(text, tuple(self._read_sentences(text, grammar)))
        except Unclear:
            act = Act(What.UNCLEAR, b"", 0, len(text))
            return build_reading(text, (Sentence(Kind.UNKNOWN, (act,), 0, len(text)),), is_clear=False)

    def _read_sentences(self, text: bytes, grammar: Grammar) -> Iterator[Sentence]:
        source = Source(blank_comments(text, grammar), grammar)
        has_calls = self._calls.may_be_in(text.lower())
        for count, piece in enumerate(split(source.text, grammar)):
            if count >= MAX_SENTENCES:
                raise Unclear
            phrase, kind = Phrase(source, piece.start, piece.end), kind_of(piece)
            acts = tuple(_read_words(piece, kind, phrase))
            calls = tuple(self._calls.read(phrase)) if has_calls else ()
            yield Sentence(kind, acts + calls, piece.start, piece.end)


def _read_words(piece: Piece, kind: Kind, phrase: Phrase) -> Acts:
    """What a statement may do by its own words. Raises Unclear if not even its end is certain."""
    word = piece.head[0]
    if kind is Kind.UNKNOWN and word == b"create":
        raise Unclear
    if kind is Kind.UNKNOWN or (word in _READERS and phrase[0] != word):  # in parentheses
        yield phrase.act(What.UNCLEAR, 0)
    elif word in _READERS and kind is not Kind.UTILITY:
        yield from _READERS[word](phrase, 0)
    if b"into" in piece.telling and word in SELECTS:
        yield from read_into(phrase)
    if word in _MAY_UPDATE and phrase.mentions(b"pg_settings"):
        yield phrase.act(What.SETTING, 0)  # to update that view is to set a parameter
