"""
What must be done before a client's text may go on: a channel heard, a database left alone.

Theory. Two things a text asks for are not the server's alone. LISTEN, where servers are shared, needs the hub to listen
first, so that nothing is lost from the moment the client is told so. CREATE and DROP DATABASE need a database that
nobody is connected to, and our own servers that nobody uses are somebody. In both cases the stream stops before that
message, does what is needed, and goes on (`client.go_on`), which looks at the message again: then there is nothing left
to do.

Neither makes a new error. If the hub cannot listen the client does it itself, and keeps its server; if the servers do
not leave in time PostgreSQL says who is in the way.
"""

import asyncio
from typing import Any, Final

from protocol import codes
from protocol.backend import ErrorFields
from protocol.effects import Act, Reading, What
from proxy.chores import Beginning
from proxy.states import CLEANING, CLOSED, GONE, IDLE, LINKED, OPENING, TESTING, USED, Closing

PATIENCE: Final = 2.0  # seconds for idle servers to hang up
TICK: Final = 0.01

_OF_BLOCKS: Final = frozenset({What.BEGIN, What.COMMIT, What.ROLLBACK})
_OF_CHANNELS: Final = _OF_BLOCKS | {What.LISTEN, What.UNLISTEN, What.DISCARD, What.ROLLBACK_TO}


class Stall:
    """Why a client was last held up; kept by the client."""

    __slots__ = (
        "_before", "_client", "_is_begun", "_left", "_pending", "cleared", "has_failed", "has_made", "is_refused",
    )  # fmt: skip

    def __init__(self, client: Any) -> None:
        self._client = client
        self._left = 0
        self._pending: list[Act] = []  # what its transaction has said of channels, and of its own beginning and end
        self._is_begun = False  # it was in a transaction block before the first of these
        self._before: frozenset[bytes] | None = None  # the channels it heard when it first said something of them
        self.has_failed = False  # an error has come in that transaction
        self.is_refused = False  # the hub could not listen: the client must do so itself
        self.cleared: Reading | None = None  # the text whose databases have been left
        self.has_made = False  # a database, perhaps, which others were told does not exist

    def listen(self, names: list[bytes]) -> bool:
        """True: the hub hears all of them already. Else `go_on` follows."""
        hub = self._client.pool.world.find_hub(self._client.pool)
        if self._before is None:
            self._before = frozenset(hub.channels_of(self._client))
        self._left = len(names) + 1
        for name in names:
            hub.listen(self._client, name, self._heard)
        self._left -= 1
        return self._left == 0

    def _heard(self, error: ErrorFields | None) -> None:
        self.is_refused = self.is_refused or error is not None
        self._left -= 1
        if self._left == 0:
            self._client.go_on()

    def note(self, reading: Reading) -> None:
        """It is on its way to the server."""
        if not self._pending:
            self._is_begun = is_in_transaction(self._client)
        self._pending += [act for act in reading.acts if act.what in _OF_CHANNELS]

    def settle(self) -> None:
        """The transaction is over: what it has said of channels counts now, unless it was rolled back.

        In doubt, after an error, the client goes on hearing: one notification too many is better than one too few.
        """
        pending, self._pending = self._pending, []
        before, self._before = self._before, None
        has_failed, self.has_failed = self.has_failed, False
        has_failed |= any(act.what is What.ROLLBACK_TO for act in pending)  # of what, nobody counts
        hub = self._client.pool.world.find_hub(self._client.pool)
        if pending:
            said = _sum_up(pending, before or frozenset(), is_begun=self._is_begun, has_failed=has_failed)
            for name in sorted(said):  # that of all comes first
                if not said[name]:
                    hub.unlisten(self._client, name or None)
                elif b"" in said:
                    hub.listen(self._client, name, lambda _: None)
        hub.flush(self._client)
        if self.has_made:
            self.has_made = False
            self._client.pool.world.database_made()

    @property
    def is_over(self) -> bool:
        """Is nothing left of it to be done?"""
        return not (self._client.is_stalled or self._pending or self._left)

    def clear(self, reading: Reading, leaving: list[Any], left: float = PATIENCE) -> None:
        """Until `leaving` have hung up."""
        if all(server.state is CLOSED for server in leaving) or left <= 0:
            self.cleared = reading
            self._client.go_on()
        elif self._client.state is not GONE:
            asyncio.get_running_loop().call_later(TICK, self.clear, reading, leaving, left - TICK)


def _sum_up(acts: list[Act], before: frozenset[bytes], *, is_begun: bool, has_failed: bool) -> dict[bytes, bool]:
    """Channels, b"" for all: which are wanted from now on, and which no longer?

    A LISTEN in front of a BEGIN, or of a ROLLBACK with no transaction, may be one with it or not, as they were sent
    together: it is heard, and perhaps need not be.
    """
    settled: dict[bytes, bool] = {}
    said: dict[bytes, bool] = {}
    for act in acts:
        if act.what is What.LISTEN:
            said[act.name] = True
        elif act.what is What.UNLISTEN and act.name:
            said[act.name] = False
        elif act.what is What.UNLISTEN or (act.what is What.DISCARD and act.name == b"all"):
            said = {b"": False}
        elif act.what is What.BEGIN:
            settled, said = {**settled, **_wanted(said)}, dict.fromkeys(said.keys() - _wanted(said), False)
        elif act.what is What.COMMIT:
            settled, said = {**settled, **said}, {}
        elif act.what is What.ROLLBACK:
            undone = dict.fromkeys(_wanted(said).keys() - before, False)
            settled, said = {**settled, **(undone if is_begun else _wanted(said))}, {}
        if act.what in _OF_BLOCKS:
            is_begun = act.what is What.BEGIN or act.name == b"chain"
    return {name: is_wanted for name, is_wanted in {**settled, **said}.items() if is_wanted or not has_failed}


def _wanted(said: dict[bytes, bool]) -> dict[bytes, bool]:
    return {name: True for name, is_wanted in said.items() if is_wanted}


def is_in_transaction(client: Any) -> bool:
    server = client.server
    if server is None or client.begun:
        return bool(client.begun)
    return server.status != codes.IDLE or any(isinstance(owner, Beginning) for owner in server.ledger.owners())


def _stall_of(client: Any) -> Stall:
    if client.stall is None:
        client.stall = Stall(client)
    stall: Stall = client.stall
    return stall


def is_listening(client: Any, reading: Reading) -> bool:
    """May this LISTEN go on? False: the hub is asked, and `client.go_on` will be called."""
    stall = _stall_of(client)
    names = [act.name for act in reading.acts if act.what is What.LISTEN]
    if stall.is_refused:  # it does so itself, and shall not hear everything twice
        hub = client.pool.world.find_hub(client.pool)
        for name in names:
            hub.unlisten(client, name)
        return True
    return stall.listen(names)


def is_shared(client: Any, reading: Reading) -> bool:
    """Does the hub listen for this text?"""
    if not reading.has(What.LISTEN) or not client.pool.habits.is_listening_shared:
        return False
    return client.stall is None or not client.stall.is_refused


def is_cleared(client: Any, reading: Reading) -> bool:
    """Do none of our idle servers stand in the way of this text? False: they are asked to leave; `go_on` follows."""
    stall = _stall_of(client)
    stall.has_made = True
    if stall.cleared is reading:
        stall.cleared = None
        return True
    names = {act.name.decode("utf-8", "replace") for act in reading.acts if act.what is What.DATABASE}
    leaving = [server for server in client.pool.world.servers_in(names) if _is_sent_away(server)]
    if not leaving:
        return True
    asyncio.get_running_loop().call_later(TICK, stall.clear, reading, leaving)
    return False


def _is_sent_away(server: Any) -> bool:
    """Nobody uses it, or nobody will in a moment, and it is told to leave. (One at work leaves when it is released: its
    client may have said goodbye and we have not heard it yet. PostgreSQL itself waits five seconds for that.)"""
    if server.state in (IDLE, USED) or server.pool.is_deserted:
        server.close(Closing.EVICTED)
        return True
    is_for_nobody = server.state is OPENING and not server.pool.is_wanted  # but for min_pool_size
    if is_for_nobody or server.state in (TESTING, CLEANING, LINKED):
        server.doomed = server.doomed or Closing.EVICTED
    return is_for_nobody or server.state in (TESTING, CLEANING)
