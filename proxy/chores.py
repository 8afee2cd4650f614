"""
Owners of our own debts: what we ask a server for ourselves, and whose answers reach nobody.

Theory. The ledger routes every answer to the owner of its debt. Where a client's answers go to its socket, those
of a chore end here: `deliver` throws them away, `failed` keeps the reason, `answered` says that the ReadyForQuery
has come. A chore lives from its request to its answer and is then forgotten, so there is nothing to reset.
"""

from collections.abc import Callable
from typing import Any

from protocol.backend import ErrorFields


class Chore:
    """Something we asked a server ourselves; `done(chore)` is called at its ReadyForQuery, in the server's stream."""

    __slots__ = ("_done", "error")

    client = None  # who hears it: nobody

    def __init__(self, done: Callable[["Chore"], object] | None = None) -> None:
        self.error: ErrorFields | None = None
        self._done = done

    def deliver(self, data: bytes) -> None:
        """Nobody wants to know."""

    def failed(self, error: ErrorFields) -> bytes | None:
        self.error = error
        return None

    def voided(self) -> None:
        """An error has paid something of it; `failed` knows."""

    def relieve(self) -> None:
        """There is nothing that waits."""

    def finish(self, server: Any, data: bytes) -> None:
        self.answered(server)

    def answered(self, server: Any) -> None:
        if self._done is not None:
            self._done(self)


class Beginning(Chore):
    """A BEGIN of ours. Until it is answered its client is in a transaction, whatever the server's last status."""

    __slots__ = ()


class Preface(Beginning):
    """One that runs in one unit with what its client asks, so it has no ReadyForQuery; `done` is called if it fails,
    and then nothing behind it has run."""

    __slots__ = ()

    def failed(self, error: ErrorFields) -> bytes | None:
        self.error = error
        if not error.is_fatal:  # else the server hangs up, and its client hears why
            self.answered(None)
        return None

    def finish(self, server: Any, data: bytes) -> None:
        """It went well."""


def is_for(owner: Any, client: Any) -> bool:
    """Does what is delivered to `owner` reach `client` in the end, perhaps with what reaches others?"""
    units = getattr(owner, "units", None)
    return hearer(owner) is client if units is None else any(unit.client is client for unit in units)


def hearer(owner: Any) -> Any:
    """Whom it reaches in the end what is delivered to `owner`: an envoy's client, nobody, or the owner itself."""
    return getattr(owner, "client", owner)
