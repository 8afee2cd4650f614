"""
What the process before us still holds, while both are there: it counts within our limits.

Theory. After a take-over two processes have connections to the same PostgreSQL, which knows nothing of that and has one
`max_connections`; and the clients of one service are with two. So the older one tells how many servers and clients it
has left, and closes servers as soon as they are idle; the newer one opens no server and lets nobody in who would exceed
a limit together with these. The older one does not ask: its last transactions shall end and not wait for us, so the sum
may be exceeded by the few clients there that wake up again before they come over.

A client on its way counts once: the older one leaves it out from the moment it is sent, and the newer one takes it off
the older one's last count when it counts it itself (`came`).
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from proxy.ear import EarPool
from proxy.lookup_pool import LookupPool

Row = tuple[str, str, int, int]
"""database, user, servers of that pool, others of theirs: those that listen, and those of replication"""

People = tuple[str, str, int]
"""database, user as they call themselves, clients"""


class Elders:
    """Nobody, mostly."""

    __slots__ = ("_of_database", "_of_pool", "_of_user", "clients", "people", "rows")

    def __init__(self) -> None:
        self.learn(0, ())

    def learn(self, clients: int, rows: Iterable[Row], people: Iterable[People] = ()) -> None:
        """This is what they have now, and nothing else."""
        self.clients = clients
        self.rows = list(rows)
        self._of_pool: Counter[tuple[str, str]] = Counter()
        self._of_database: Counter[str] = Counter()
        self._of_user: Counter[str] = Counter()
        for database, user, pooled, others in self.rows:
            self._of_pool[database, user] += pooled
            self._of_database[database] += pooled + others
            self._of_user[user] += pooled + others
        self.people: Counter[tuple[str, str]] = Counter()
        for database, user, count in people:
            self.people[database, user] += count

    def came(self, database: str, user: str) -> None:
        """One of their clients is ours now, and counted here."""
        self.clients -= self.clients > 0
        self.people[database, user] -= self.people[database, user] > 0

    def is_in_the_way(self, pool: Any) -> bool:
        """Is `pool_size` reached together with what they have?"""
        theirs, limit = self._of_pool[pool.database, pool.user], pool.limits.pool_size
        is_shared = not isinstance(pool, EarPool | LookupPool)  # these have a size of their own
        return bool(theirs) and limit is not None and is_shared and pool.size + theirs >= limit

    def of_database(self, database: str) -> int:
        return self._of_database[database]

    def of_user(self, user: str) -> int:
        return self._of_user[user]

    def clients_of_database(self, database: str) -> int:
        return sum(count for (name, _), count in self.people.items() if name == database)

    def clients_of_user(self, user: str) -> int:
        return sum(count for (_, name), count in self.people.items() if name == user)
