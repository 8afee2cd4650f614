"""
What a client has reset in a transaction that goes on, and what brings back there the values it came with.

Theory. RESET goes back to what a session had at its login. For a client that is what it came with (`origin`), which
its server does not know: there RESET, SET LOCAL ... TO DEFAULT and RESET ALL lead to the server's own value, and what
runs next in the same transaction would run under that, perhaps in another schema. So each time the server comes to rest
in a transaction (`take`) what was undone since the last time is set again, if it is gone.

Whether it is gone only the server knows: behind the RESET may stand a SET LOCAL, which is no act, a ROLLBACK TO, or a
block that says nothing of what it does. A parameter that the session has set has the source 'session' in pg_settings,
also after SET LOCAL and after a rollback to where it was set; one that was reset does not. So it is asked in the
same breath: `SELECT set_config(...) WHERE` it is not so. What pg_settings does not list is told by its value: a role by
being none, a custom parameter by being empty, and that only where the text leaves a doubt.

What no text has named can have been undone only if it was there: who has said SET ROLE NONE in front of a block that
says nothing, and has none behind it, wants none (`keeps`).

Nothing is remembered once it was taken: the next RESET of the same name is undone anew, whatever was rolled back in
between. What is for the transaction alone is brought back for the transaction alone.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from protocol.acts import Act, What
from protocol.parameters import IDENTITY, ParameterSet, build_set_config, build_text

_OF_SESSION = (
    " WHERE EXISTS(SELECT FROM pg_catalog.pg_settings"
    ' WHERE pg_catalog.lower(name COLLATE pg_catalog."C") OPERATOR(pg_catalog.=) {name}'
    " AND source OPERATOR(pg_catalog.<>) 'session')"
)
_OF_VALUE = " WHERE COALESCE(pg_catalog.current_setting({name},true),'') OPERATOR(pg_catalog.=) {value}"


Keeps = Callable[[str, str | None], bool]
"""(key, value): was that the client's own wish before? None is nobody's."""


class Again(NamedTuple):
    """One parameter, and the value the client came with."""

    key: str
    value: str
    is_local: bool = False  # for the transaction
    nothing: str | None = None  # its value where nobody has set it, if that must tell; a listed one's source does
    is_listed: bool = True

    def build(self) -> str:
        """The SELECT that sets it, if it is gone."""
        text, name = build_set_config(self.key, self.value, is_local=self.is_local), build_text(self.key.lower())
        if self.is_listed:
            return text + _OF_SESSION.format(name=name)
        return text if self.nothing is None else text + _OF_VALUE.format(name=name, value=build_text(self.nothing))


class Undone:
    """By one client, since this was taken last."""

    __slots__ = ("_is_hazy", "_is_unclear", "_last")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._last: dict[str, What] = {}  # by name in lower case: a reset, or SETTING behind one; "": all
        self._is_hazy = False  # what is said last need not be what holds
        self._is_unclear = False  # nobody knows of which names

    def __bool__(self) -> bool:
        return bool(self._last) or self._is_unclear

    def note(self, act: Act) -> None:
        """In the order in which they are said."""
        name, what = act.name.lower().decode("ascii", "replace"), act.what
        if what is What.UNCLEAR or (what is What.SETTING and not name):
            self._is_unclear = self._is_hazy = True
        elif what is What.ROLLBACK_TO:
            self._is_hazy = True
        elif what is What.DISCARD and name == "all":
            self._last = dict.fromkeys(("", *IDENTITY), What.RESET)
        elif what is What.RESET and not name:
            self._last = {key: last for key, last in self._last.items() if key in IDENTITY} | {"": what}
        elif what is What.RESET:
            self._last[name] = what
            if name == "session_authorization":
                self._last["role"] = what  # PostgreSQL resets that along with it
        elif what is What.LOCAL_RESET:
            if self._find(name) is not What.RESET:
                self._last[name] = what
        elif what is What.SETTING and self._find(name) is not None:
            self._last[name] = what

    def _find(self, name: str) -> What | None:
        what = self._last.get(name)
        if what is None and name not in IDENTITY:  # RESET ALL does not touch who the session is
            what = self._last.get("")
        return what

    def may_hold(self, name: str) -> bool:
        """May `name` be at the server's own value by what was said since?"""
        what = self._find(name)
        return what in (What.RESET, What.LOCAL_RESET) or (self._is_unclear if what is None else self._is_hazy)

    def absorb(self, older: "Undone") -> None:
        """What `older` has stands before this."""
        self._last = {**older._last, **self._last}
        self._is_hazy |= older._is_hazy
        self._is_unclear |= older._is_unclear

    def take(
        self, origin: ParameterSet, user: str, get: Callable[[str], str | None], keeps: Keeps = lambda key, value: False
    ) -> list[Again]:
        """
        What must be set again, in the order in which it must be done. `user` is who the server has logged in as, `get`
        gives the value a server has reported: what is as it was is left alone.
        """
        found = list(self._find_all(origin, user, get)) if self else []
        last = {again.key: self._find(again.key.lower()) for again in found}
        self.clear()
        found = [again for again in found if last[again.key] or not keeps(again.key, again.nothing)]
        return sorted(found, key=lambda again: IDENTITY.index(again.key) if again.key in IDENTITY else -1)

    def _find_all(self, origin: ParameterSet, user: str, get: Callable[[str], str | None]) -> Iterator[Again]:
        for key, value in origin.items():
            if not self.may_hold(key.lower()) or get(key) == value:
                continue
            is_local = self._find(key.lower()) is What.LOCAL_RESET
            if key in IDENTITY:
                yield Again(key, value, is_local, "none" if key == "role" else user, is_listed=False)
            elif "." in key:
                yield Again(key, value, is_local, "" if self._is_hazy else None, is_listed=False)
            else:
                yield Again(key, value, is_local)


def build_again(agains: list[Again]) -> bytes:
    """One text for a simple Query."""
    return ";".join(again.build() for again in agains).encode("ascii")
