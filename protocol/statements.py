"""
What kind of statement a text is.

Theory. Before a pooler sends a text on it must know three things: does it open a transaction, does it
change the session, is it one statement or many. A statement is known by its first words and by a few words
inside it; that is all that is looked at here.

It never guesses. A text that cannot be split for certain, or a first word that is not in the table, is
UNKNOWN, and the caller takes the careful way. Where a word may be a key word or a name (a column may be
called "update"), the doubt goes against READ.

What READ does not promise: a SELECT may call a function, and a function may do anything.

The text must be in an encoding that `tokens` can read (see there). Cost: about 6 us for a short text; linear.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from protocol.tokens import ANY_WORD, BACKSLASHED, GAP, LINE_COMMENT, NAME_BYTE, STANDARD, Grammar, blank_comments


class Kind(Enum):
    """What a statement does to data, transaction and session. (The values are for logs.)"""

    READ = "read"  # SELECT, VALUES, TABLE, WITH, as long as they neither write nor lock
    WRITE = "write"  # INSERT, UPDATE, DELETE, MERGE, TRUNCATE, REFRESH; SELECT ... FOR UPDATE, which locks rows
    DDL = "ddl"  # CREATE, ALTER, DROP and their kin; SELECT ... INTO
    BEGIN = "begin"  # BEGIN, START TRANSACTION
    COMMIT = "commit"  # COMMIT, END; with AND CHAIN it opens the next transaction
    ROLLBACK = "rollback"  # ROLLBACK, ABORT; likewise
    SAVEPOINT = "savepoint"  # SAVEPOINT, RELEASE, ROLLBACK TO
    SET = "set"  # changes the session, though a transaction that fails takes it back
    SET_LOCAL = "set local"  # SET LOCAL, SET TRANSACTION, SET CONSTRAINTS: gone with the transaction
    RESET = "reset"
    DISCARD = "discard"
    LISTEN = "listen"
    UNLISTEN = "unlisten"
    NOTIFY = "notify"
    PREPARE = "prepare"
    EXECUTE = "execute"
    DEALLOCATE = "deallocate"
    COPY = "copy"
    DECLARE = "declare"
    FETCH = "fetch"  # FETCH, MOVE
    CLOSE = "close"
    LOCK = "lock"
    SHOW = "show"
    EXPLAIN = "explain"  # with ANALYZE it runs what it explains
    CALL = "call"
    DO = "do"
    LOAD = "load"
    VACUUM = "vacuum"  # VACUUM, ANALYZE, CLUSTER, REINDEX, CHECKPOINT: long, and mostly not allowed in a transaction
    UTILITY = "utility"  # PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED
    EMPTY = "empty"  # nothing but white space, comments and semicolons
    UNKNOWN = "unknown"  # not understood, or several statements of different kinds


@dataclass(frozen=True, slots=True)
class Statement:
    """What `classify` found. `kinds` has the kind of each statement in the text, `kind` the one they share."""

    kind: Kind
    is_single: bool  # exactly one statement that is not empty
    starts_transaction: bool  # any of them opens a transaction block
    kinds: frozenset[Kind] = frozenset()


class Unclear(Exception):
    """The text cannot be split into statements for certain, or not cheaply."""


MAX_STEPS = 50_000  # statements, parentheses and telling words looked at in one text: 30 ms, then it is UNKNOWN
_BLOCK_WORD = re.compile(rb"(?i:begin|transaction|chain)")


def classify(text: bytes, *, standard_conforming_strings: bool = True) -> Statement:
    """
    Never raises. What it remembers does not grow with the text; what it costs does, up to MAX_STEPS.

    `starts_transaction` errs on the side of True when the text is too long or too odd to be split.
    """
    kinds: set[Kind] = set()
    count, opens = 0, False
    grammar = STANDARD if standard_conforming_strings else BACKSLASHED
    try:
        for piece in split(blank_comments(text, grammar), grammar):
            kind = kind_of(piece)
            kinds.add(kind)
            opens = opens or _opens_block(piece.head)
            count += 1
    except Unclear:
        return _describe({*kinds, Kind.UNKNOWN}, False, opens or _BLOCK_WORD.search(text) is not None)
    return _SINGLE[opens][kind] if count == 1 else _describe(kinds or {Kind.EMPTY}, False, opens)


def _describe(kinds: set[Kind], is_single: bool, opens: bool) -> Statement:
    kind = next(iter(kinds)) if len(kinds) == 1 else Kind.UNKNOWN
    return Statement(kind, is_single, opens, frozenset(kinds))


_SINGLE = [{kind: _describe({kind}, True, opens) for kind in Kind} for opens in (False, True)]  # made once: 2 us


# Splitting.

_Head = tuple[bytes, ...]
_Words = set[bytes]
_Match = Callable[[bytes, int], re.Match[bytes] | None]

_WRITES = frozenset({b"insert", b"update", b"delete", b"merge"})
_ROUTINES = frozenset({b"function", b"procedure"})
_LOCKING = b"for"  # among the telling words: a FOR that locks rows, not that of SUBSTRING(x FOR 3)
_TELLING = rb"(?i:into|insert|update|delete|merge|for|atomic)(?!" + NAME_BYTE + rb")"
_LOCK = rb"(?i:update|share|no|key)(?!" + NAME_BYTE + rb")"
_TOKEN = rb"(" + ANY_WORD + rb"|[^ \t\n\r\f\v;])"
_HEAD = _TOKEN + 3 * (rb"(?:" + GAP + _TOKEN) + 3 * rb")?+"

_start_at = re.compile(rb"(?:[ \t\n\r\f\v;]++|" + LINE_COMMENT + rb")*+").match
_head_at = re.compile(rb"(?:\(" + GAP + rb")*+" + _HEAD, re.DOTALL).match  # (SELECT 1) UNION (SELECT 2)
_lock_at = re.compile(GAP + _LOCK).match


_STOPS = ("mark", "word", "end")
_DEPTH = {b"(": 1, b")": -1}


def _compile_stop(grammar: Grammar) -> _Match:
    """Runs over what tells nothing, flat parentheses too; stops at a parenthesis, a `;`, a telling word or the end."""
    word = rb"(?!" + _TELLING + rb")" + ANY_WORD
    *plain, dollars = grammar.dull()
    flat = rb"\((?:" + b"|".join((word, *plain)) + rb")*+\)"
    dull = b"|".join((word, *plain, flat, dollars))
    stops = rb"(?P<mark>[();])|(?P<word>" + _TELLING + rb")|(?P<end>\Z)"
    return re.compile(rb"(?:" + dull + rb")*+(?:" + stops + rb")?+", re.DOTALL).match


_STOP: Final = {grammar: _compile_stop(grammar) for grammar in (STANDARD, BACKSLASHED)}


class Piece(NamedTuple):
    """One statement of a text."""

    head: _Head  # its first four tokens in lower case; of anything but words just the first byte
    telling: _Words  # the words in it that change what it does wherever they stand
    start: int
    end: int  # behind its last byte, and before its `;`


def split(text: bytes, grammar: Grammar) -> Iterator[Piece]:
    """The statements that are not empty, of a text whose block comments are blanked. Raises Unclear."""
    stop_at, budget = _STOP[grammar], iter(range(MAX_STEPS))
    at = 0
    while (at := _skip(text, at)) < len(text):
        found = _head_at(text, at)
        if found is None:
            raise Unclear
        telling, end = _find_end(text, at, stop_at, budget)
        yield Piece(tuple([token.lower() for token in found.groups() if token]), telling, at, end)
        at = end


def _skip(text: bytes, at: int) -> int:
    start = _start_at(text, at)
    return start.end() if start else at


def _find_end(text: bytes, at: int, stop_at: _Match, budget: Iterator[int]) -> tuple[_Words, int]:
    """The telling words of the statement at `at`, and where its `;` is. One in parentheses is not its end."""
    telling: _Words = set()
    depth = 0
    for _ in budget:
        match = stop_at(text, at)
        if match is None or match.lastgroup not in _STOPS:
            break
        token, at = match[match.lastgroup], match.end()
        if token in b";" and depth == 0:  # also b"", the end of the text
            return telling, match.start(match.lastgroup)
        if match.lastgroup == "word":
            if token.lower() != b"for" or _lock_at(text, at):
                telling.add(token.lower())
        elif not token:
            break
        depth += _DEPTH.get(token, 0)
        if depth < 0:
            break
    raise Unclear


# Knowing a statement by its head.


def kind_of(piece: Piece) -> Kind:
    """What a statement is, by its first words and its telling ones."""
    head, telling, _, _ = piece
    decide = _DECIDE.get(head[0])
    return decide(head, telling) if decide else _KINDS.get(head[0], Kind.UNKNOWN)


def _opens_block(head: _Head) -> bool:
    if head[0] in (b"commit", b"end", b"rollback", b"abort"):  # COMMIT [WORK] AND CHAIN
        return head[-2:] == (b"and", b"chain")
    return head[0] == b"begin" or head[:2] == (b"start", b"transaction")


def _kind_of_select(head: _Head, telling: _Words) -> Kind:
    if _LOCKING in telling or (head[0] == b"with" and telling & _WRITES):
        return Kind.WRITE
    return Kind.DDL if b"into" in telling else Kind.READ


def _kind_of_create(head: _Head, telling: _Words) -> Kind:
    # BEGIN ATOMIC ...; ...; END: the semicolons inside a function's body have split it.
    is_routine = not _ROUTINES.isdisjoint(head[1:])
    return Kind.UNKNOWN if b"atomic" in telling and is_routine else Kind.DDL


def _kind_of_set(head: _Head, _: _Words) -> Kind:
    """SET LOCAL x = 1 but not SET local.x = 1, which is a parameter of that name."""
    second, third = (*head, b"", b"")[1:3]
    is_name = third[:1].isalpha() or third[:1] in (b"_", b'"') or third[:1] >= b"\x80"
    is_local = second in (b"local", b"transaction", b"constraints") and is_name and third != b"to"
    return Kind.SET_LOCAL if is_local else Kind.SET


def _kind_of_commit(head: _Head, _: _Words) -> Kind:
    return Kind.UTILITY if head[1:2] == (b"prepared",) else Kind.COMMIT


def _kind_of_rollback(head: _Head, _: _Words) -> Kind:
    if b"to" in head[1:3]:
        return Kind.SAVEPOINT
    return Kind.UTILITY if head[1:2] == (b"prepared",) else Kind.ROLLBACK


def _kind_of_prepare(head: _Head, _: _Words) -> Kind:
    """PREPARE TRANSACTION 'x', but not PREPARE transaction AS ..., a statement of that name."""
    is_two_phase = head[1:2] == (b"transaction",) and head[2:3] not in ((b"as",), (b"(",))
    return Kind.UTILITY if is_two_phase else Kind.PREPARE


def _kind_of_start(head: _Head, _: _Words) -> Kind:
    return Kind.BEGIN if head[1:2] == (b"transaction",) else Kind.UNKNOWN


def _kind_of_security(head: _Head, _: _Words) -> Kind:
    return Kind.DDL if head[1:2] == (b"label",) else Kind.UNKNOWN


_DECIDE: Final[dict[bytes, Callable[[_Head, _Words], Kind]]] = {
    **dict.fromkeys((b"select", b"values", b"table", b"with"), _kind_of_select),
    b"create": _kind_of_create,
    b"set": _kind_of_set,
    b"commit": _kind_of_commit,
    b"end": _kind_of_commit,
    b"rollback": _kind_of_rollback,
    b"abort": _kind_of_rollback,
    b"prepare": _kind_of_prepare,
    b"start": _kind_of_start,
    b"security": _kind_of_security,
}

_SAME_NAME = (
    *(Kind.BEGIN, Kind.SAVEPOINT, Kind.RESET, Kind.DISCARD, Kind.LISTEN, Kind.UNLISTEN, Kind.NOTIFY, Kind.EXECUTE),
    *(Kind.DEALLOCATE, Kind.COPY, Kind.DECLARE, Kind.FETCH, Kind.CLOSE, Kind.LOCK, Kind.SHOW, Kind.EXPLAIN, Kind.CALL),
    *(Kind.DO, Kind.LOAD, Kind.VACUUM),
)

_KINDS: Final[dict[bytes, Kind]] = {
    **{kind.value.encode(): kind for kind in _SAME_NAME},
    **dict.fromkeys((b"insert", b"update", b"delete", b"merge", b"truncate", b"refresh"), Kind.WRITE),
    **dict.fromkeys((b"alter", b"drop", b"comment", b"grant", b"revoke", b"import", b"reassign"), Kind.DDL),
    **dict.fromkeys((b"analyze", b"analyse", b"cluster", b"reindex", b"checkpoint"), Kind.VACUUM),
    b"release": Kind.SAVEPOINT,
    b"move": Kind.FETCH,
}
