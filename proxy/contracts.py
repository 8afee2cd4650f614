"""
What a pool asks of those it deals with: servers, clients and the rest of the proxy.

Theory. The pool knows neither Client nor Server, so that it can be tried without sockets and so that nothing of a
stream creeps into the queue. It takes anything with these few methods; what is not named here it may not use.
"""

from typing import TYPE_CHECKING, Any, Protocol

from protocol.parameters import ParameterSet
from proxy.clock import Clock
from proxy.log import Tag, Voice
from proxy.outbox import Outbox
from proxy.states import Closing, ServerState, Waiting

if TYPE_CHECKING:
    from proxy.pool import Pool


class PooledServer(Protocol):
    """What a pool asks of a server."""

    state: ServerState
    pool: Any
    doomed: Closing | None
    followed: ParameterSet

    def close(self, why: Closing) -> None: ...
    def test(self) -> None: ...


class PooledClient(Protocol):
    """What a pool asks of a client."""

    waiting_since: float
    followed: ParameterSet

    @property
    def tag(self) -> Tag: ...

    def resume(self, server: Any) -> None: ...
    def close(self, why: Closing) -> None: ...


class World(Protocol):
    """What a pool asks of the rest of the proxy."""

    clock: Clock
    outbox: Outbox

    @property
    def log(self) -> Voice: ...
    @property
    def is_suspended(self) -> bool: ...

    def open_server(self, pool: "Pool") -> PooledServer: ...
    def find_obstacle(self, pool: "Pool") -> Waiting | None: ...
    def make_room(self, pool: "Pool", obstacle: Waiting) -> None: ...
    def room_made(self, pool: "Pool") -> None: ...
    def schema_changed(self, pool: "Pool") -> None: ...

    def roles_changed(self) -> None: ...

    def database_made(self) -> None: ...
