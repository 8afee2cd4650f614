"""
Calls of functions that leave something in the session.

Theory. A call may stand anywhere in a statement, so all of it is run over, by one regular expression that stops only at
the names it knows (20 to 50 ms per MB); and only a text in which one of TELLS can be found is worth that. A name is
called when a parenthesis follows. Its schema is not looked at: who calls something else `set_config` pays for a look.

What a function of the user's does is not known, nor what a text does that is executed by one: name it among the
pin functions. Nor is it known whether a call is reached, or succeeds.
"""

import re
from collections.abc import Iterable
from typing import Final

from protocol.acts import Acts, Phrase, What, compile_seek
from protocol.session_acts import is_meaning
from protocol.tokens import BACKSLASHED, GAP, NAME_BYTE, QUOTED_NAME, STANDARD, fold_name

_BUILT_IN: Final = {
    b"set_config": What.SETTING,
    b"pg_advisory_lock": What.LOCK,
    b"pg_advisory_lock_shared": What.LOCK,
    b"pg_try_advisory_lock": What.LOCK,
    b"pg_try_advisory_lock_shared": What.LOCK,
    b"pg_advisory_unlock": What.UNLOCK,
    b"pg_advisory_unlock_shared": What.UNLOCK,
    b"pg_advisory_unlock_all": What.UNLOCK,
}
TELLS: Final = (b"set_config", b"advisory_", b'u&"')  # no call of a built-in function without one, in lower case
_TRUE = frozenset({b"true", b"t", b"yes", b"y", b"on", b"1"})  # for a boolean; PostgreSQL takes a few more


class Calls:
    """The functions that matter. `pins` are those that tie a session to its server, written as in SQL."""

    def __init__(self, pins: Iterable[bytes] = ()) -> None:
        names = {fold_name(re.sub(rb'^(?:"[^"]*"|[^".]*)\.', b"", pin)) for pin in pins} - {b""}
        self._whats = {**_BUILT_IN, **dict.fromkeys(names, What.FUNCTION)}
        tells = {name.lower().split(b'"')[0] for name in names}
        self.pin_tells = tuple(tell for tell in sorted(tells) if not any(o in tell for o in tells - {tell}))
        known = b"|".join(re.escape(name) for name in self._whats)
        target = rb"(?:(?i:" + known + rb")(?!" + NAME_BYTE + rb")|" + QUOTED_NAME + rb")"
        target += rb"(?=" + GAP + rb"(?:\(|(?i:uescape)))"
        self._seek = {grammar: compile_seek(grammar, target) for grammar in (STANDARD, BACKSLASHED)}

    def may_be_in(self, lowered: bytes) -> bool:
        """False for a text, in lower case, that calls none of them for certain."""
        return b"(" in lowered and any(tell in lowered for tell in (*TELLS, *self.pin_tells))

    def read(self, phrase: Phrase) -> Acts:
        """All calls in it."""
        source, at = phrase.source, phrase.start
        while match := self._seek[source.grammar](source.text, at, phrase.end):
            at = match.end()
            call = Phrase(source, match.start("target"), phrase.end)
            name = call.name(0)
            if name in self._whats:
                yield from self._read_call(call, name)
            elif not name and b"(" in (call[1], call[3]):  # U&"..." that cannot be told, perhaps with a UESCAPE
                yield call.act(What.UNCLEAR, 0)

    def _read_call(self, call: Phrase, name: bytes) -> Acts:
        what = self._whats[name]
        if what is What.SETTING:
            return _read_set_config(call)
        return iter((call.act(what, 0, name),))


def _read_set_config(call: Phrase) -> Acts:
    """set_config('name', value, is_local). If it is plain to see that it is local, it matters for some names only; with
    NULL it is a RESET."""
    *starts, end = _find_arguments(call, 2)
    is_local = len(starts) == 3 and _is_true(call, starts[2], end)
    name = (call.literal(2) if _is_alone(call, 2, [*starts, end][1]) else None) or b""
    if name and len(starts) == 3 and call[starts[1]] == b"null" and _is_alone(call, starts[1], starts[2]):
        yield call.act(What.LOCAL_RESET if is_local else What.RESET, 0, name.lower())
    elif not is_local:
        yield call.act(What.SETTING, 0, name.lower())
    elif is_meaning(name):
        yield call.act(What.LOCAL, 0, name.lower())


def _find_arguments(call: Phrase, at: int) -> list[int]:
    """Where each argument begins, and the end: all of them one token behind a comma or the like."""
    bounds, depth = [at], 0
    while (token := call[at]) and (depth or token != b")"):
        depth += _DEPTH.get(token, 0)
        at += 1
        if token == b"," and not depth:
            bounds.append(at)
    return [*bounds, at + 1]


def _is_alone(call: Phrase, start: int, bound: int) -> bool:
    """Is the argument up to the comma before `bound` one token, perhaps with a type: 'x'::text?"""
    return bound - start == 2 or (bound - start == 4 and call[start + 1] == b"::")


def _is_true(call: Phrase, start: int, bound: int) -> bool:
    said = call.literal(start)
    return _is_alone(call, start, bound) and (call[start] == b"true" if said is None else said.strip().lower() in _TRUE)


_DEPTH: Final = {b"(": 1, b"[": 1, b")": -1, b"]": -1}
