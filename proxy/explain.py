"""
Why somebody who waits for a server does not get one, in words: for the one who waits, for the log, for SHOW POOLS.

Theory. The pool knows what stands in the way (`find_obstacle`); here that becomes a sentence with numbers and names, a
SQLSTATE that drivers can act on, and a hint where something can be done. `Explanation` is the state of one pool at one
moment, made once however many are told, since a queue may be ten thousand long.

What a client may learn about others. Of clients that have logged in as the same user to the same database: their
application_name, address and times, as PostgreSQL shows in pg_stat_activity to sessions of one role. Of everybody else
numbers only: how many, for how long. Never the text of a query, never a secret. The operator (the log, the console)
reads everything but texts and secrets: `tell(None)`.

A waiter's SQLSTATE: 53300 where a limit is the reason; the server's own, or 08006, where logins fail; 57P03 where an
administrator has paused the database; 57P01 where the pooler is about to end. See protocol/sqlstate.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from protocol import sqlstate
from protocol.parameters import clean
from proxy.clock import span
from proxy.failing import describe_failing
from proxy.holders import IDLE, IDLING, Holder, find_holders
from proxy.states import CLEANING, CLOSING, LINKED, OPENING, TESTING, USED, Waiting
from proxy.states import IDLE as IDLE_SERVERS

SENTENCE: Final = "No server connection available in postgres backend, client being queued"
"""PgBouncer's, first of the notice to those who wait."""

_AT_WORK: Final = {OPENING: "being opened", TESTING: "being checked", CLEANING: "being reset", CLOSING: "being closed"}
_AT_REST: Final = (IDLE_SERVERS, USED)
MAX_SHARERS: Final = 5  # pools that the log names


@dataclass(frozen=True, slots=True)
class Reason:
    """What somebody who waits is told."""

    sqlstate: str
    detail: str
    hint: str = ""


class Explanation:
    """Of one pool, at one moment."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.obstacle: Waiting = pool.find_obstacle() or Waiting.OPENING
        if self.obstacle is Waiting.PAUSED and pool.world.leaving is not None:
            self.obstacle = Waiting.SHUTDOWN
        self.holders = find_holders(pool)
        self._told: dict[str | None, Reason] = {}

    def tell(self, user: str | None) -> Reason:
        """For a waiting client that has logged in as `user`; None is the operator."""
        if user not in self._told:
            self._told[user] = _TELLERS[self.obstacle](self, user)
        return self._told[user]

    def brief(self) -> str:
        """For a column of SHOW POOLS: the reason, and its numbers."""
        words, pool = self.obstacle.value, self.pool
        if self.obstacle is Waiting.RETRY:
            return f"{words}: {pool.failure.sentence}"
        if self.obstacle in (Waiting.BUSY, Waiting.DATABASE_LIMIT, Waiting.USER_LIMIT):
            summary = self.summarize()
            return f"{words}: {summary}" if summary else words
        return words

    @property
    def is_server_down(self) -> bool:
        """Is it PostgreSQL that keeps people waiting, and not a limit or an administrator of ours?"""
        return self.obstacle in (Waiting.RETRY, Waiting.OPENING)

    # What the tellers have in common.

    def summarize(self) -> str:
        """What the servers of the pool do, in numbers."""
        holders, places = self.holders, self.pool.places
        inside = [holder for holder in holders if holder.is_in_transaction]
        kept = sum(holder.doing is IDLE for holder in holders)
        parts = [
            (len(inside), _describe_inside(inside)),
            (len(holders) - len(inside) - kept, "running a query"),
            (kept, "kept by a session that does nothing" if kept == 1 else "kept by sessions that do nothing"),
            *((len(places[state]), words) for state, words in _AT_WORK.items()),
            (sum(len(places[state]) for state in _AT_REST), "idle"),
        ]
        return ", ".join(f"{count} {words}" for count, words in parts if count)

    def name_longest(self, user: str | None) -> str:
        """Who holds a server for longest; "" when nobody does."""
        if not self.holders:
            return ""
        longest = self.holders[0]
        if user is not None and user != longest.client.user:
            return f"the longest has been held by another user for {span(longest.age)}"
        return f"the longest belongs to {describe_holder(longest)}"

    def tell_servers(self, user: str | None) -> str:
        """One sentence about the pool's servers; "" when it has none."""
        size = self.pool.size
        if not size:
            return ""
        whose = f"server of pool {self.pool}"
        subject = (
            f"The one {whose} is busy" if size == 1 else f"All {size} {whose.replace('server', 'servers', 1)} are busy"
        )
        longest = self.name_longest(user)
        return f"{subject}: {self.summarize()}{'; ' + longest if longest else ''}."

    def advise(self, otherwise: str) -> str:
        """A hint that fits what the one does who holds a server for longest."""
        if self.holders and self.holders[0].doing in IDLING:
            return "A transaction that does nothing keeps its server: commit sooner, or set idle_transaction_timeout."
        if self.holders and self.holders[0].doing is IDLE:
            return "Sessions keep their servers in session mode, and where they are pinned (SHOW PINS)."
        return otherwise


def _describe_inside(inside: Sequence[Holder]) -> str:
    idling = sum(holder.doing in IDLING for holder in inside)
    if len(inside) == 1:
        return "idle in a transaction" if idling else "in a transaction"
    return f"in transactions ({idling} of them idle)" if idling else "in transactions"


def describe_holder(holder: Holder) -> str:
    """Who it is, for how long, and what it does."""
    client = holder.client
    host, port = client.address
    who = f'application "{holder.application}" (user {clean(client.user)} at {host}:{port})'
    if holder.idle_in_xact is not None:
        return f"{who}, for {span(holder.age)}, {holder.doing.value} for {span(holder.idle_in_xact)}"
    if holder.query_age is not None:
        return f"{who}, for {span(holder.age)}, running a query for {span(holder.query_age)}"
    return f"{who}, whose session has done nothing for {span(holder.idle)}"


def place_in_queue(place: int, total: int, *, is_over: bool = False) -> str:
    return f"You {'were' if is_over else 'are'} number {place} of {total} in the queue."


def explain_place(about: Explanation, client: Any, line: Any, place: int) -> Reason:
    """For `client`, who waits for a place in a line; or whose query has been sent, on `line`. Numbers only there."""
    if line is None:
        reason = about.tell(client.user)
        where = f"You are number {place} of those who wait for a place in a line."
        return replace(reason, detail=f"{reason.detail} {where}")
    age = span(about.pool.now() - line.head_since)
    words = f"Your query is number {place} in line on a server connection, and what runs there has done so for {age}."
    hint = f"With a smaller pipeline_stall_ms ({about.pool.limits.pipeline_stall_ms}) it is moved to another sooner."
    return Reason(sqlstate.TOO_MANY_CONNECTIONS, words, hint)


# One teller for each obstacle.


def _join(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _tell_busy(about: Explanation, user: str | None) -> Reason:
    limits = about.pool.limits
    hint = about.advise(f"Shorten transactions, or raise pool_size ({limits.pool_size}).")
    return Reason(sqlstate.TOO_MANY_CONNECTIONS, _join(about.tell_servers(user), _tell_reserve(about.pool)), hint)


def _tell_reserve(pool: Any) -> str:
    """What reserve_pool_size will do for those who wait; "" when that is nothing."""
    limits = pool.limits
    left = (limits.reserve_pool_timeout or 0.0) - pool.longest_wait
    if not limits.reserve_pool_size or left <= 0 or pool.size >= limits.pool_size + limits.reserve_pool_size:
        return ""
    return f"The reserve ({_count(limits.reserve_pool_size, 'server')}) is opened in {span(left)}."


def _tell_opening(about: Explanation, user: str | None) -> Reason:
    """Nothing forbids a server, so one is on its way."""
    pool = about.pool
    if pool.failure is not None:
        return _tell_retry(about, user)
    opening = pool.places[OPENING]
    if opening:
        oldest = max(pool.now() - server.opened_at for server in opening)
        many = "A server connection is" if len(opening) == 1 else f"{len(opening)} server connections are"
        words = f"{many} being opened, since {span(oldest)}."
    else:
        words = "A server connection is about to be opened or checked."
    is_busy = bool(pool.places[LINKED])
    state = sqlstate.TOO_MANY_CONNECTIONS if is_busy else sqlstate.CONNECTION_FAILURE
    return Reason(state, _join(words, about.tell_servers(user) if is_busy else ""))


def _tell_retry(about: Explanation, user: str | None) -> Reason:
    pool = about.pool
    words = describe_failing(pool, pool.failure.sentence)
    return Reason(pool.failure.sqlstate, _join(words, about.tell_servers(user) if pool.places[LINKED] else ""))


def _tell_paused(about: Explanation, user: str | None) -> Reason:
    return Reason(
        sqlstate.CANNOT_CONNECT_NOW,
        "The database is paused by an administrator.",
        "It goes on with RESUME on the console.",
    )


def _tell_elders(about: Explanation, user: str | None) -> Reason:
    return Reason(
        sqlstate.TOO_MANY_CONNECTIONS,
        _join(
            "The pooler was restarted, and the process before this one still has servers of this pool.",
            about.tell_servers(user),
        ),
        "It closes them as soon as they are idle.",
    )


def _tell_shutdown(about: Explanation, user: str | None) -> Reason:
    return Reason(sqlstate.ADMIN_SHUTDOWN, "The pooler is shutting down and hands out no server any more.")


def _tell_database_limit(about: Explanation, user: str | None) -> Reason:
    pool = about.pool
    reached = f'max_db_connections ({pool.limits.max_db_connections}) is reached for database "{pool.database}"'
    return _tell_limit(about, user, reached)


def _tell_user_limit(about: Explanation, user: str | None) -> Reason:
    pool = about.pool
    reached = f'max_user_connections ({pool.limits.max_user_connections}) is reached for user "{clean(pool.user)}"'
    return _tell_limit(about, user, reached)


def _tell_limit(about: Explanation, user: str | None, reached: str) -> Reason:
    words = f"{reached}: {_count_sharers(about, is_operator=user is None)}."
    hint = about.advise("Raise that limit, or lower the pool sizes of those who share it.")
    return Reason(sqlstate.TOO_MANY_CONNECTIONS, _join(words, about.tell_servers(user)), hint)


def _count_sharers(about: Explanation, *, is_operator: bool) -> str:
    """Who holds what the limit allows. A client is told numbers only."""
    pool, pools = about.pool, about.pool.world.pools
    others = [each for each in pools.sharers(pool, about.obstacle) if each is not pool and each.size]
    carried = sum(len(pools.tunnels_of(each)) for each in pools.sharers(pool, about.obstacle))
    parts = [f"{pool.size} in this pool"]
    if is_operator:
        largest = sorted(others, key=lambda each: each.size, reverse=True)
        parts += [f"{each.size} in {each}" for each in largest[:MAX_SHARERS]]
        others = largest[MAX_SHARERS:]
    if others:
        parts.append(f"{sum(each.size for each in others)} in {_count(len(others), 'other pool')}")
    if carried:
        parts.append(_count(carried, "replication connection"))
    return ", ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


_TELLERS: Final[Mapping[Waiting, Callable[[Explanation, str | None], Reason]]] = {
    Waiting.BUSY: _tell_busy,
    Waiting.OPENING: _tell_opening,
    Waiting.RETRY: _tell_retry,
    Waiting.PAUSED: _tell_paused,
    Waiting.ELDERS: _tell_elders,
    Waiting.SHUTDOWN: _tell_shutdown,
    Waiting.DATABASE_LIMIT: _tell_database_limit,
    Waiting.USER_LIMIT: _tell_user_limit,
    Waiting.NO_PLACE_TO_LISTEN: _tell_database_limit,
}
