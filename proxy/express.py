"""
The usual login in one breath: a startup packet that has been answered before is answered the same way again.

Theory. Applications that connect again and again send the same bytes each time. Where nothing is asked of a client
(auth_type trust or any) these bytes alone decide the whole conversation, so its outcome is remembered by them: which
pool, which parameters, which welcome. That is a third of a login's cost, and it needs no task, no timer, no parsing.

Where a client must prove who he is they decide what comes after the proof, and nothing before it: whoever asks for a
pass of that kind (`let_in`) has judged a proof that was given this very moment (asking.py).

Nothing is decided here that login.py would decide otherwise. A `Pass` holds only while everything it was made of is
still in force (the configuration, the users, the pool and its greeting), and only for a login that has no reason to
wait or to be refused; whatever is in doubt takes the long way, which decides, and says why.
"""

from dataclasses import dataclass, replace
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
        self._proven: dict[bytes, Pass] = {}  # good only together with a proof
        self._rules: Rules = (proxy.config, proxy.users)

    def __len__(self) -> int:
        return len(self._passes) + len(self._proven)

    def begin(self) -> Rules:
        """What a login that begins now is judged by, for `remember`."""
        return self._proxy.config, self._proxy.users

    def _is_in_force(self, rules: Rules) -> bool:
        return rules[0] is self._proxy.config and rules[1] is self._proxy.users

    def remember(self, packet: bytes, visitor: Visitor, pool: Any, rules: Rules) -> None:
        """`packet`, and a proof if he was asked for one, have made its sender a client of `pool`."""
        proxy = self._proxy
        if not self._is_in_force(rules):
            return  # he was judged by what holds no more: a login may take its time
        if not self._is_in_force(self._rules):
            self._passes.clear()
            self._proven.clear()
            self._rules = rules
        if not 0 < len(packet) <= MAX_PACKET or proxy.settings.application_name_add_host:
            return
        known = self._make_pass(visitor, pool)
        if known is None:
            return
        passes = self._proven if visitor.prefix else self._passes
        if not visitor.prefix and not self._is_unasked(visitor):
            return
        if len(passes) >= MAX_PASSES:
            passes.clear()
        passes[packet] = known

    def _is_unasked(self, visitor: Visitor) -> bool:
        """Is the packet alone enough, from wherever it comes?"""
        proxy = self._proxy
        is_found = visitor.claim is not None and visitor.claim.source is not None
        return proxy.settings.auth_type in _UNASKED and not needs_tls(proxy) and not is_found

    def _make_pass(self, visitor: Visitor, pool: Any) -> Pass | None:
        proxy = self._proxy
        wishes = tuple(visitor.wishes.items())
        greeting = pool.greetings.get(wishes)
        database = proxy.find_database(visitor.database)
        if greeting is None or database is None:
            return None
        welcome = frame_welcome(greeting[1], visitor.minor, proxy.settings.login_notify_message)
        shown = replace(visitor, prefix=b"", claim=None)  # a proof is good once
        return Pass(shown, database, pool, wishes, greeting, welcome)

    def admit(self, packet: bytes, door: Any) -> bool:
        """Make whoever stands at `door` a client, if `packet` is all he had to say; else nothing has happened."""
        proxy = self._proxy
        known = self._find(self._passes, packet)
        if known is None:
            return False
        if proxy.settings.log_connections:
            visitor = known.visitor
            log_attempt(proxy, door.address, visitor.database, visitor.user, visitor.replication.asked)
        self._enter(known, door, b"")
        return True

    def let_in(self, asked: Any, last: bytes, door: Any) -> bool:
        """The same for somebody who has just proven who he is (asking.py), and is told `last` of that."""
        proxy = self._proxy
        known = self._find(self._proven, asked.packet)
        if known is None or not self._is_in_force(asked.rules):
            return False
        if not proxy.strangers.guesses.end_well(asked.attempt):
            return False
        proxy.proofs.learn(known.pool, asked.exchange.claim)
        self._enter(known, door, last)
        return True

    def _find(self, passes: dict[bytes, Pass], packet: bytes) -> Pass | None:
        """What is known of `packet`, if it still holds."""
        known = passes.get(packet)
        if known is None or (self._is_in_force(self._rules) and known.holds(self._proxy)):
            return known
        del passes[packet]
        return None

    def _enter(self, known: Pass, door: Any, last: bytes) -> None:
        proxy, visitor, transport = self._proxy, known.visitor, door.transport
        key = proxy.cancels.mint_key(is_long=visitor.minor >= LONG_KEYS_SINCE)
        client = Client(known.pool, visitor.user, key, known.greeting[0], door.address)
        client.connected_at, client.transport = door.arrived_at, transport
        transport.set_protocol(client)
        before, behind = known.welcome
        transport.write(last + before + key + behind)  # it goes on while we do the books
        transport.crowd = known.pool.crowd
        enroll(proxy, client)
