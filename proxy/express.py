"""
The usual login in one breath: a startup packet that has been answered before is answered the same way again.

Theory. Applications that connect again and again send the same bytes each time. Where nothing is asked of a client
(auth_type trust or any) these bytes alone decide the whole conversation, so its outcome is remembered by them: which
pool, which parameters, which welcome. That is a third of a login's cost, and it needs no task, no timer, no parsing.

Nothing is decided here that login.py would decide otherwise. A `Pass` holds only while everything it was made of is
still in force (the configuration, the users, the pool and its greeting), and only for a login that has no reason to
wait or to be refused; whatever is in doubt takes the long way, which decides, and says why.
"""

from dataclasses import dataclass
from typing import Any, Final

from protocol.parameters import ParameterSet
from proxy.client import Client
from proxy.config.entries import Database
from proxy.config.ini import Config
from proxy.config.kinds import AuthType
from proxy.encryption import needs_tls
from proxy.login import LONG_KEYS_SINCE, Visitor, enroll, frame_welcome, log_attempt
from proxy.states import PoolState

MAX_PASSES: Final = 1000  # packets remembered
MAX_PACKET: Final = 1000  # bytes of one that is

Greeting = tuple[ParameterSet, bytes]
Rules = tuple[Config, Any]  # the configuration and the users

DYING: Final = PoolState.DYING
_UNASKED: Final = frozenset({AuthType.TRUST, AuthType.ANY})


@dataclass(frozen=True, slots=True)
class Pass:
    """How one startup packet was answered, and what that rested on."""

    visitor: Visitor
    database: Database
    pool: Any
    wishes: tuple[tuple[str, str], ...]
    greeting: Greeting
    welcome: tuple[bytes, bytes]  # what is in front of the cancel key, and behind it

    def holds(self, proxy: Any) -> bool:
        """Would the long way come to the same end, without waiting for anything?"""
        pool = self.pool
        limits = pool.limits
        return (
            pool.state is not DYING
            and pool.failure is None
            and pool.greetings.get(self.wishes) is self.greeting
            and self.database.name not in proxy.disabled
            and limits.max_db_client_connections is None
            and limits.max_user_client_connections is None
            and proxy.client_count + proxy.pools.elders.clients < proxy.settings.max_client_conn
            and not proxy.suspension.is_on
        )


class Express:
    """All passes of one proxy; none outlives the configuration and the users it was made under."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy
        self._passes: dict[bytes, Pass] = {}
        self._rules: Rules = (proxy.config, proxy.users)

    def __len__(self) -> int:
        return len(self._passes)

    def begin(self) -> Rules:
        """What a login that begins now is judged by, for `remember`."""
        return self._proxy.config, self._proxy.users

    def _is_in_force(self, rules: Rules) -> bool:
        return rules[0] is self._proxy.config and rules[1] is self._proxy.users

    def remember(self, packet: bytes, visitor: Visitor, pool: Any, rules: Rules) -> None:
        """`packet` alone has made its sender a client of `pool`, without a question."""
        proxy = self._proxy
        is_found = visitor.claim is not None and visitor.claim.source is not None
        if visitor.prefix or is_found or not self._is_in_force(rules):
            return  # he was asked something, or judged by what holds no more: a login may take its time
        if not self._is_in_force(self._rules):
            self._passes.clear()
            self._rules = rules
        wishes = tuple(visitor.wishes.items())
        greeting = pool.greetings.get(wishes)
        database = proxy.find_database(visitor.database)
        if not 0 < len(packet) <= MAX_PACKET or greeting is None or database is None:
            return
        if proxy.settings.auth_type not in _UNASKED or proxy.settings.application_name_add_host or needs_tls(proxy):
            return  # the answer hangs on more than the packet
        if len(self._passes) >= MAX_PASSES:
            self._passes.clear()
        welcome = frame_welcome(greeting[1], visitor.minor, proxy.settings.login_notify_message)
        self._passes[packet] = Pass(visitor, database, pool, wishes, greeting, welcome)

    def admit(self, packet: bytes, door: Any) -> bool:
        """Make whoever stands at `door` a client, if `packet` is all he had to say; else nothing has happened."""
        proxy, known = self._proxy, self._passes.get(packet)
        if known is None:
            return False
        if not (self._is_in_force(self._rules) and known.holds(proxy)):
            del self._passes[packet]
            return False
        visitor, transport = known.visitor, door.transport
        if proxy.settings.log_connections:
            log_attempt(proxy, door.address, visitor.database, visitor.user, visitor.replication.asked)
        key = proxy.cancels.mint_key(is_long=visitor.minor >= LONG_KEYS_SINCE)
        client = Client(known.pool, visitor.user, key, known.greeting[0], door.address)
        client.connected_at, client.transport = door.arrived_at, transport
        transport.set_protocol(client)
        before, behind = known.welcome
        transport.write(before + key + behind)  # it goes on while we do the books
        enroll(proxy, client)
        return True
