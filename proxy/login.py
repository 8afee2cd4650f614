"""
A client's conversation with us: from its startup packet to its welcome (what is before it: encryption.py).

Theory. Strangers talk here, so everything is bounded: the packet (10,000 bytes), the number of things it may ask
before it logs in, and the whole by `client_login_timeout`. The order gives nothing away: who somebody is comes before
whether the database exists, and an unknown user goes through the very exchange of a wrong password.

A client's welcome tells the parameters of a real server of its pool, with the values it asked for itself as a server
spells them (fitting.py); if the pool has never had a server the client waits until one is opened, or hears the server's
own words why not. It waits no longer than `query_wait_timeout`, like those who are in.

A client that asks for replication takes another way from the moment we know who it is: see replication.py.
"""

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from protocol import sqlstate
from protocol.backend import (
    READY_IDLE_MESSAGE,
    build_authentication_ok,
    build_backend_key,
    build_negotiate,
    build_notice,
    build_parameter_status,
)
from protocol.errors import Refused
from protocol.parameters import MAX_SET, PASSING, UNSHARED, ParameterSet, clean, is_name, is_sendable
from protocol.replication import Replication, parse_replication
from protocol.startup import Startup, negotiate, parse_options
from proxy.auth.claim import Claim
from proxy.auth.gate import ASK_NOTHING, needs_secrets
from proxy.auth.lookup import wait_claim
from proxy.cancel import find_key_length
from proxy.client import Client
from proxy.config.entries import CONSOLES, Database
from proxy.fitting import wait_spelled
from proxy.inbox import Inbox
from proxy.log import DEBUG, UNIX, Address, as_address, tag_client
from proxy.patience import find_refusal

MAX_GREETINGS = 1000  # different ones remembered per pool
LONG_KEYS_SINCE = 2  # the minor version

_AUTHENTICATION_OK = build_authentication_ok()
_OURS = frozenset({"user", "database", "replication", "options"})

_TOO_MANY_HINT: Final = "Close connections that are not needed, or have the limit raised."


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who has shown who he is. `prefix` is what remains to be sent in front of AuthenticationOk."""

    user: str
    database: str
    wishes: dict[str, str]  # parameters it asked for, by our keys
    prefix: bytes
    minor: int
    replication: Replication = Replication.NONE
    passed: Mapping[str, str] = field(default_factory=dict)  # startup parameters for a server of its own, as they are
    is_owner: bool = False  # the account that the proxy runs as
    claim: Claim | None = None  # what it has shown of its password; None: nobody was asked for


async def wait_visitor(
    inbox: Inbox, proxy: Any, startup: Startup, address: tuple[str, int], *, is_owner: bool = False
) -> Visitor:
    """Version, parameters, password (none of the owner). Raises Refused with what the client is told."""
    answer = negotiate(startup)
    if answer is not None:
        inbox.write(build_negotiate(*answer))
    replication = find_replication(startup)
    wishes = {} if replication else read_wishes(startup, proxy)
    rule = ASK_NOTHING if is_owner else proxy.gate.choose_rule(inbox, startup, address, replication)
    proxy.gate.tell(rule, startup, address)
    claim = await wait_claim(proxy, startup, address[0]) if needs_secrets(rule) else Claim(startup.user, ())
    prefix = await proxy.gate.wait_proof(inbox, rule, claim, address)
    minor = answer[0] if answer is not None else startup.minor
    passed = pick_passed(startup, proxy) if replication else {}
    return Visitor(startup.user, startup.database, wishes, prefix, minor, replication, passed, is_owner, claim)


def find_replication(startup: Startup) -> Replication:
    """None at the console, whatever is said: who comes there is judged by the rules for the console's name."""
    asked = parse_replication(startup.parameters.get("replication"))
    return Replication.NONE if startup.database in CONSOLES else asked


async def wait_proven(inbox: Inbox, proxy: Any, asked: Any, address: tuple[str, int]) -> Visitor:
    """The same for somebody who has been asked on the doorstep (asking.py)."""
    startup, claim = asked.startup, asked.exchange.claim
    prefix = await proxy.gate.wait_proof(inbox, asked.rule, claim, address, asked.exchange)
    return Visitor(startup.user, startup.database, asked.wishes, prefix, startup.minor, claim=claim)


def pick_passed(startup: Startup, proxy: Any) -> dict[str, str]:
    """Of a replication client's parameters those that its own server shall judge: all but the ignored ones."""
    ignored = {name.lower() for name in proxy.settings.ignore_startup_parameters}
    left_out = ignored | {"user", "database", "replication"}
    return {name: value for name, value in startup.parameters.items() if name.lower() not in left_out}


def read_wishes(startup: Startup, proxy: Any) -> dict[str, str]:
    """The parameters the client wants, by our keys; what is said beside `options` counts more than what is in them."""
    wishes: dict[str, str] = {}
    ignored = {name.lower() for name in proxy.settings.ignore_startup_parameters}
    if "options" in startup.parameters and "options" not in ignored:
        for name, value in parse_options(startup.parameters["options"]):
            _take_wish(wishes, name, value, proxy, ignored)
    for name, value in startup.parameters.items():
        if name not in _OURS:
            _take_wish(wishes, name, value, proxy, ignored)
    if len(wishes) > MAX_SET:
        raise Refused(sqlstate.CONFIGURATION_LIMIT_EXCEEDED, f"more than {MAX_SET} startup parameters")
    return wishes


def _take_wish(wishes: dict[str, str], name: str, value: str, proxy: Any, ignored: set[str]) -> None:
    """Whether there is such a parameter, and takes such a value, is asked of a server later (fitting.py)."""
    lower = name.lower()
    key = proxy.spelling.get(lower)
    if key is None:
        if lower in PASSING or lower in ignored:
            return
        if not is_name(lower):
            raise Refused(sqlstate.UNDEFINED_OBJECT, f'unrecognized configuration parameter "{clean(name)}"')
        key = lower
    if key == "application_name":
        value = clean(value)
    if not is_sendable(value):
        raise Refused(sqlstate.INVALID_PARAMETER_VALUE, f'invalid value for parameter "{key}": "{clean(value)}"')
    wishes[key] = value


def find_database(visitor: Visitor, proxy: Any) -> Database:
    """The entry that serves this visitor. Refused: none does, or a limit of clients is reached."""
    database: Database | None = proxy.find_database(visitor.database)
    if database is None or visitor.database in CONSOLES:
        raise Refused(
            sqlstate.INVALID_CATALOG,
            f"no such database: {visitor.database}",
            hint='The pooler serves the entries of its [databases] section; other names only where that has a "*".',
        )
    if database.name in proxy.disabled:
        raise Refused(
            sqlstate.REJECTED,
            f'database "{database.name}" is disabled',
            detail="An administrator of the pooler lets no new clients in (DISABLE).",
            hint="ENABLE on its console lets them in again.",
        )
    if proxy.settings.auth_type is proxy.settings.auth_type.ANY and database.user is None:
        raise Refused(
            sqlstate.INVALID_AUTHORIZATION,
            "bouncer config error",
            detail="auth_type any needs a user in the database's entry",
        )
    return database


def check_client_limits(proxy: Any, pool: Any, user: str) -> None:
    """Refused when `max_db_client_connections` or `max_user_client_connections` is reached."""
    limits = pool.limits
    if limits.max_db_client_connections is not None:
        count = sum(len(each.clients) for each in proxy.pools.of_database(pool.database))
        count += sum(each.pool.database == pool.database for each in proxy.pools.tunnels if each.has_client)
        count += proxy.pools.elders.clients_of_database(pool.database)
        if count >= limits.max_db_client_connections:
            raise _too_many("client connections exceeded (max_db_client_connections)", count)
    if limits.max_user_client_connections is not None:
        count = sum(client.user == user for each in proxy.pools for client in each.clients)
        count += sum(each.user == user for each in proxy.pools.tunnels if each.has_client)
        count += proxy.pools.elders.clients_of_user(user)
        if count >= limits.max_user_client_connections:
            raise _too_many("client connections exceeded (max_user_client_connections)", count)


def _too_many(sentence: str, count: int) -> Refused:
    return Refused(
        sqlstate.TOO_MANY_CONNECTIONS,
        sentence,
        detail=f"{count} are connected, and no more may be.",
        hint=_TOO_MANY_HINT,
    )


def check_max_clients(proxy: Any, coming: int = 0) -> None:
    """Refused when `max_client_conn` clients are here already; the one who asks is counted, or is `coming`."""
    count = proxy.client_count + proxy.pools.elders.clients + coming
    if count > proxy.settings.max_client_conn:
        raise Refused(  # the number is for the log alone: we do not know who this is
            sqlstate.TOO_MANY_CONNECTIONS,
            "no more connections allowed (max_client_conn)",
            hint=_TOO_MANY_HINT,
            note=f"{count - 1} are connected",
        )


def build_welcome(visitor: Visitor, parameters: ParameterSet, key: bytes) -> bytes:
    """AuthenticationOk, the parameters, the cancel key, ReadyForQuery: one write."""
    return join_welcome(visitor, _build_parameters({**parameters, **visitor.wishes}), key)


def _build_parameters(told: ParameterSet) -> bytes:
    return b"".join(build_parameter_status(name, value) for name, value in told.items())


def join_welcome(visitor: Visitor, parameters: bytes, key: bytes, message: str = "") -> bytes:
    """The same, of ParameterStatus messages that are built already; with what the operator wants to tell everybody,
    where PostgreSQL says what its login triggers have to say."""
    before, behind = frame_welcome(parameters, visitor.minor, message)
    return b"".join([visitor.prefix, before, key, behind])


def frame_welcome(parameters: bytes, minor: int, message: str = "") -> tuple[bytes, bytes]:
    """What is in front of the cancel key and behind it, for all who are told the same."""
    notice = build_notice("NOTICE", sqlstate.SUCCESSFUL_COMPLETION, message) if message else b""
    size = find_key_length(is_long=minor >= LONG_KEYS_SINCE)
    header = build_backend_key(bytes(size))[:-size]
    return _AUTHENTICATION_OK + parameters + header, notice + READY_IDLE_MESSAGE


async def wait_greeting(
    proxy: Any, pool: Any, parameters: ParameterSet, wishes: dict[str, str], user: str = ""
) -> tuple[ParameterSet, bytes]:
    """For a client with these wishes: its parameters, and all its ParameterStatus messages.

    Remembered per pool, since most clients wish the same: 100 us of a login, and a question to a server.
    """
    key = tuple(wishes.items())
    known: tuple[ParameterSet, bytes] | None = pool.greetings.get(key)
    if known is None:
        reported = {name: parameters[name] for name in proxy.followed if name in parameters}
        base = pool.intern({**reported, **pool.learnt.base})
        spelled = await wait_spelled(pool, wishes, base, user)
        known = greet(pool, parameters, base, spelled)
        if len(pool.greetings) >= MAX_GREETINGS:
            pool.greetings.clear()
        pool.greetings[key] = known
    return known


def greet(
    pool: Any, parameters: ParameterSet, base: ParameterSet, spelled: dict[str, str]
) -> tuple[ParameterSet, bytes]:
    """What is told are the parameters a server reports, with the client's own values for them."""
    if not pool.is_private:
        spelled = {name: value for name, value in spelled.items() if name not in UNSHARED}
    told = {name: spelled.get(name, spelled.get(name.lower(), value)) for name, value in parameters.items()}
    told |= {name: value for name, value in spelled.items() if name in pool.world.followed}
    return pool.intern({**base, **spelled}), _build_parameters(told)


async def welcome(inbox: Inbox, proxy: Any, visitor: Visitor, address: tuple[str, int]) -> Client:
    """From a known visitor to a client of a pool; its welcome has been sent."""
    database = find_database(visitor, proxy)
    pool = proxy.pools.find(database, visitor.user)
    proxy.proofs.learn(pool, visitor.claim)
    check_client_limits(proxy, pool, visitor.user)
    wishes = visitor.wishes
    if proxy.settings.application_name_add_host:
        name = f"{wishes.get('application_name', 'app')} - {_describe_host(as_address(address))}"
        wishes = {**wishes, "application_name": clean(name)}
    began = pool.now()
    try:
        async with asyncio.timeout(pool.limits.query_wait_timeout) as scope:
            parameters = await pool.wait_welcome()
            followed, told = await wait_greeting(proxy, pool, parameters, wishes, visitor.user)
    except TimeoutError:
        if not scope.expired():
            raise
        raise find_refusal(pool, visitor.user, pool.now() - began) from None
    check_client_limits(proxy, pool, visitor.user)  # again: others may have come while we waited
    client = settle(proxy, pool, visitor, followed, address)
    inbox.write(join_welcome(visitor, told, client.key, proxy.settings.login_notify_message))
    return client


def _describe_host(address: Address) -> str:
    """In PgBouncer's words, which name the machine of somebody on a Unix socket, as PostgreSQL may be on another."""
    return f"{UNIX}({address.pid}@{socket.gethostname()}):{address.port}" if address.host == UNIX else str(address)


def settle(proxy: Any, pool: Any, visitor: Visitor, followed: ParameterSet, address: tuple[str, int]) -> Client:
    """Nothing stands in the way any more: the visitor is a client."""
    key = proxy.cancels.mint_key(is_long=visitor.minor >= LONG_KEYS_SINCE)
    client = Client(pool, visitor.user, key, followed, address)
    enroll(proxy, client)
    return client


def enroll(proxy: Any, client: Client) -> None:
    """It is in the books from here on."""
    proxy.client_arrived(client)
    if proxy.log.level >= DEBUG:
        proxy.log.for_socket(client.tag).debug("logged in")


def log_attempt(
    proxy: Any, address: tuple[str, int], database: str, user: str, replication: str, tls: str = ""
) -> None:
    """The line of the log for everybody who says who he is, before it is known whether that is true."""
    if proxy.settings.log_connections:
        words = f"login attempt: db={database} user={user} tls={tls or 'no'} replication={replication}"
        facts = {"tls": tls or "no", "replication": replication}
        proxy.log.for_socket(tag_client(address, database, user)).log(words, facts)
