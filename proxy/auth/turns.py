"""
Whose turn it is, of several SCRAM verifiers that one user has: one exchange can name the salt of one of them only.

Theory. While a password is changed the file may have the old verifier and the new one, each with a salt of its own. Who
is told the wrong salt gives a wrong proof however right his password is, and comes again. So after a failure the
same user from the same address meets the next salt, and after a success the same one again.

A salt that changes must not say that there is somebody. So those who are unknown have several mock salts too, as many
of them as there are users with several verifiers in the file, and nobody can tell which: where a tenth of the users has
two, a tenth of all names that nobody has shows two as well. Where no user has several, nothing alternates.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from protocol.passwords import ScramVerifier, Stored

MOST: Final = 10_000  # of those that have failed lately

Who = tuple[str, str]
"""Address and user."""


class Turns:
    """One per proxy."""

    def __init__(self) -> None:
        self._turns: OrderedDict[Who, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._turns)

    def find(self, who: Who) -> int:
        """How often it has failed."""
        return self._turns.get(who, 0)

    def next(self, who: Who) -> None:
        """It has failed."""
        self._turns[who] = self._turns.pop(who, 0) + 1
        if len(self._turns) > MOST:
            self._turns.popitem(last=False)


def arrange(stored: Sequence[Stored], turn: int) -> tuple[Stored, ...]:
    """The same secrets, but for those verifiers first whose turn it is: they share salt and iterations."""
    salts = find_salts(stored) if len(stored) > 1 else ()
    if len(salts) < 2:
        return tuple(stored)
    chosen = salts[turn % len(salts)]
    return tuple(sorted(stored, key=lambda each: isinstance(each, ScramVerifier) and _salt_of(each) != chosen))


def find_salts(stored: Sequence[Stored]) -> list[tuple[bytes, int]]:
    """Those of its verifiers, each once, in order."""
    return list(dict.fromkeys(_salt_of(each) for each in stored if isinstance(each, ScramVerifier)))


def _salt_of(verifier: ScramVerifier) -> tuple[bytes, int]:
    return verifier.salt, verifier.iterations
