"""
What a statement may do to what belongs to the session by name: parameters, channels, statements, cursors, libraries.

Theory. These statements are read by their first words, as PostgreSQL's grammar reads them. SET is the one with traps:
SESSION, LOCAL, TIME, NAMES, ROLE and their kin are key words or parameters of that name, and only what follows tells
which (`SET local.x = 1` lasts, `SET LOCAL x = 1` does not).

What is gone with its transaction (SET LOCAL, SET CONSTRAINTS, a cursor without HOLD) is no act, unless it decides what
other texts mean until then (LOCAL), or goes back to a value that the server may not know: SET LOCAL ... TO DEFAULT.
"""

from dataclasses import replace
from typing import Final

from protocol.acts import Act, Acts, Phrase, Reads, What
from protocol.parameters import MEANINGS

# Parameters.

_ASSIGNS = (b"=", b"to", b".", b"from")  # behind a parameter's name; none of them is a name itself
_NOT_A_PARAMETER: Final = {  # what stands there instead of a name; and how many words before the value
    b"time": (b"timezone", 2),
    b"names": (b"client_encoding", 1),
    b"schema": (b"search_path", 1),
    b"role": (b"role", 1),
    b"session": (b"session_authorization", 2),
    b"xml": (b"xmloption", 2),
}
_CHARACTERISTICS = (
    b"default_transaction_isolation",
    b"default_transaction_read_only",
    b"default_transaction_deferrable",
)


def is_meaning(name: bytes) -> bool:
    """May other texts mean something else with another value of this one? b"": nobody knows which it is."""
    return not name or name.decode("ascii", "replace").lower() in MEANINGS


def _read_set(phrase: Phrase, at: int) -> Acts:
    at += 1
    if phrase[at] == b"local" and phrase[at + 1] not in _ASSIGNS:
        for act in _read_setting(phrase, at + 1):
            if act.what is What.RESET:
                yield replace(act, what=What.LOCAL_RESET)
            elif is_meaning(act.name):
                yield replace(act, what=What.LOCAL)
    else:
        yield from _read_setting(phrase, at)


def _read_setting(phrase: Phrase, at: int) -> Acts:
    """As if it lasted."""
    is_parameter = phrase[at + 1] in _ASSIGNS or phrase[at + 1] == b"authorization"
    if phrase[at] == b"session" and not is_parameter and not phrase.says(at + 1, b"characteristics", b"as"):
        at += 1
    word = phrase[at]
    if phrase[at + 1] in _ASSIGNS:
        yield _read_parameter(phrase, at)
    elif word == b"session" and phrase[at + 1] == b"characteristics":
        yield from (phrase.act(What.SETTING, at, name) for name in _CHARACTERISTICS)
    elif word in _NOT_A_PARAMETER:
        name, distance = _NOT_A_PARAMETER[word]
        value = phrase[at + distance]
        is_reset = value in (b"default", b"") or (word == b"time" and value == b"local")
        yield phrase.act(What.RESET if is_reset else What.SETTING, at, name)
    elif word not in (b"transaction", b"constraints"):
        yield phrase.act(What.SETTING, at)


def _read_parameter(phrase: Phrase, at: int) -> Act:
    """`a.b = DEFAULT`, and all other values."""
    name, end = _read_path(phrase, at)
    return phrase.act(What.RESET if phrase[end + 1] == b"default" else What.SETTING, at, name)


def _read_path(phrase: Phrase, at: int) -> tuple[bytes, int]:
    """A parameter's name, which may have dots, and what is behind it. Their case never matters, even in quotes."""
    parts = [phrase.name(at).lower()]
    while phrase[at + 1] == b".":
        at += 2
        parts.append(phrase.name(at).lower())
    return b".".join(parts) if all(parts) else b"", at + 1


def _read_reset(phrase: Phrase, at: int) -> Acts:
    at += 1
    pair = (phrase[at], phrase[at + 1])
    if pair[0] == b"all":
        yield phrase.act(What.RESET, at)
    elif pair in ((b"time", b"zone"), (b"session", b"authorization")):
        yield phrase.act(What.RESET, at, _NOT_A_PARAMETER[pair[0]][0])
    elif pair != (b"transaction", b"isolation"):
        yield phrase.act(What.RESET, at, _read_path(phrase, at)[0])


# What belongs to the session by name.


def _read_discard(phrase: Phrase, at: int) -> Acts:
    what = phrase[at + 1]
    yield phrase.act(What.DISCARD, at + 1, b"temp" if what == b"temporary" else what)


def _read_listen(phrase: Phrase, at: int) -> Acts:
    name = phrase.name(at + 1)
    yield phrase.act(What.LISTEN if name else What.UNCLEAR, at, name)


def _read_unlisten(phrase: Phrase, at: int) -> Acts:
    name = phrase.name(at + 1)
    yield phrase.act(What.UNLISTEN if name or phrase[at + 1] == b"*" else What.UNCLEAR, at, name)


def _read_prepare(phrase: Phrase, at: int) -> Acts:
    yield phrase.named(What.PREPARE, at + 1)


def read_execute(phrase: Phrase, at: int) -> Acts:
    yield phrase.named(What.EXECUTE, at + 1)


def _read_deallocate(phrase: Phrase, at: int) -> Acts:
    """DEALLOCATE PREPARE p, but also DEALLOCATE prepare, a statement of that name."""
    at += 2 if phrase[at + 1] == b"prepare" and phrase[at + 2] else 1
    yield phrase.act(What.DEALLOCATE, at) if phrase[at] == b"all" else phrase.named(What.DEALLOCATE, at)


_CURSOR_OPTIONS = (b"binary", b"asensitive", b"insensitive", b"no", b"scroll")


def _read_declare(phrase: Phrase, at: int) -> Acts:
    """DECLARE c [BINARY] [INSENSITIVE] [[NO] SCROLL] CURSOR WITH HOLD FOR ..."""
    cursor = at + 2
    while phrase[cursor] in _CURSOR_OPTIONS:  # as often as one likes
        cursor += 1
    if phrase.says(cursor + 1, b"with", b"hold"):
        yield phrase.act(What.HOLD, at + 1, phrase.name(at + 1))


def _read_close(phrase: Phrase, at: int) -> Acts:
    at += 1
    yield phrase.act(What.CLOSE, at) if phrase[at] == b"all" else phrase.named(What.CLOSE, at)


def _read_load(phrase: Phrase, at: int) -> Acts:
    yield phrase.act(What.LOAD, at + 1, phrase.literal(at + 1) or b"")


def _read_unclear(phrase: Phrase, at: int) -> Acts:
    yield phrase.act(What.UNCLEAR, at)


# Transactions.


def _read_begin(phrase: Phrase, at: int) -> Acts:
    yield phrase.act(What.BEGIN, at, b"BEGIN" if phrase[at] == b"begin" else b"START TRANSACTION")


def _read_commit(phrase: Phrase, at: int) -> Acts:
    yield phrase.act(What.COMMIT, at, _read_chain(phrase, at + 1))


def _read_rollback(phrase: Phrase, at: int) -> Acts:
    to = at + 1 + (phrase[at + 1] in _BLOCK)
    if phrase[to] == b"to":
        to += phrase[to + 1] == b"savepoint" and phrase[to + 2] != b""
        yield phrase.act(What.ROLLBACK_TO, to + 1, phrase.name(to + 1))
    else:
        yield phrase.act(What.ROLLBACK, at, _read_chain(phrase, at + 1))


def _read_chain(phrase: Phrase, at: int) -> bytes:
    at += phrase[at] in _BLOCK
    return b"chain" if phrase.says(at, b"and", b"chain") else b""


def _read_savepoint(phrase: Phrase, at: int) -> Acts:
    yield phrase.act(What.SAVEPOINT, at + 1, phrase.name(at + 1))


def _read_release(phrase: Phrase, at: int) -> Acts:
    at += 2 if phrase[at + 1] == b"savepoint" and phrase[at + 2] else 1
    yield phrase.act(What.RELEASE, at, phrase.name(at))


_BLOCK = (b"work", b"transaction")

SESSION_READERS: Final[dict[bytes, Reads]] = {
    b"set": _read_set,
    b"reset": _read_reset,
    b"discard": _read_discard,
    b"listen": _read_listen,
    b"unlisten": _read_unlisten,
    b"prepare": _read_prepare,
    b"execute": read_execute,
    b"deallocate": _read_deallocate,
    b"declare": _read_declare,
    b"close": _read_close,
    b"load": _read_load,
    b"do": _read_unclear,
    b"call": _read_unclear,
    b"begin": _read_begin,
    b"start": _read_begin,
    b"commit": _read_commit,
    b"end": _read_commit,
    b"rollback": _read_rollback,
    b"abort": _read_rollback,
    b"savepoint": _read_savepoint,
    b"release": _read_release,
}
