"""
Who holds the servers of a pool, what for, and for how long.

Theory. A pool is exhausted because somebody holds its servers, and the streams note enough to say who: when a client's
transaction began (`xact_at`), when it last asked (`request_at`), when it was last answered (`ready_at`). Here these
moments become words and spans; nothing is kept, everything is read off at the moment somebody wants to know.

What a holder does is one of four things. Only the second is what idle_transaction_timeout ends, only the last has no
transaction at all: its session keeps the server (session mode, or a pin). Of a batch that has not been ended by a Sync
PostgreSQL makes a transaction too, so a client that pauses in the middle of one is idle in a transaction.

A server on which clients stand in line (line.py) is held by the client whose unit runs; by the line itself where that
client has left.
"""

import enum
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from protocol import codes
from protocol.parameters import clean
from proxy.states import LINKED


class Doing(enum.Enum):
    """The words of SHOW HOLDERS, and pg_stat_activity's."""

    ACTIVE = "active"
    IDLE_IN_TRANSACTION = "idle in transaction"
    ABORTED = "idle in transaction (aborted)"
    IDLE = "idle"


ACTIVE, IDLE_IN_TRANSACTION, ABORTED, IDLE = Doing
IDLING: Final = frozenset({IDLE_IN_TRANSACTION, ABORTED})


@dataclass(frozen=True, slots=True)
class Holder:
    """One client and its server. Spans are seconds; None where there is no transaction, no query, no idling in one."""

    client: Any
    server: Any
    doing: Doing
    is_in_transaction: bool
    xact_age: float | None
    query_age: float | None
    idle_in_xact: float | None
    idle: float  # since its last answer; means something when it does nothing

    @property
    def age(self) -> float:
        """How long it has held its server for what it holds it for."""
        return self.idle if self.xact_age is None else self.xact_age

    @property
    def application(self) -> str:
        return "" if self.client.is_line else application_of(self.client)


def application_of(client: Any) -> str:
    """Printable and short, whatever the client calls itself."""
    return clean(client.followed.get("application_name", ""))


def find_holders(pool: Any) -> list[Holder]:
    """Everyone who holds a server of `pool`, the longest first."""
    now = pool.now()
    found = [_look_at(server, now) for server in pool.places[LINKED]]
    return sorted(found, key=lambda holder: holder.age, reverse=True)


def _look_at(server: Any, now: float) -> Holder:
    client, ledger = server.client, server.ledger
    head = (client.head or client) if client.is_line else client
    is_open = server.status != codes.IDLE or not ledger.is_settled
    is_idling = is_open and not ledger.is_owing
    return Holder(
        client=head,
        server=server,
        doing=_name(server, is_idling=is_idling),
        is_in_transaction=server.status != codes.IDLE or is_idling,
        xact_age=now - client.xact_at if is_open else None,
        query_age=now - client.request_at if ledger.is_owing else None,
        idle_in_xact=now - max(client.ready_at, client.request_at) if is_idling else None,
        idle=now - client.ready_at,
    )


def _name(server: Any, *, is_idling: bool) -> Doing:
    if is_idling:
        return ABORTED if server.status == codes.FAILED else IDLE_IN_TRANSACTION
    return ACTIVE if server.ledger.is_owing else IDLE


def count_by_application(holders: Iterable[Holder]) -> Counter[tuple[str, str]]:
    """How many servers each (user, application) holds."""
    return Counter((holder.client.user, holder.application) for holder in holders)
