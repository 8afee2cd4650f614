"""
Which timeout has struck a client that has a server, or rests; and what it is told.

Theory. The streams note when something began, the janitor compares, and here are the comparisons and the words. Whoever
is sent away hears the limit and the actual time, since "idle transaction timeout" alone makes people guess which
setting of which program it was. What an idle transaction last did is said as far as it is known: whether it has failed
or was only begun, with which word its last simple query began (habits.py notes that where there is such a timeout), and
the last statement it prepared without a name.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from protocol import codes
from protocol.backend import ErrorFields
from protocol.framing import HEADER_SIZE
from proxy.clock import span
from proxy.farewell import ERRORS
from proxy.states import BEGUN, LINED, Closing

_FIRST_WORD: Final = re.compile(rb"[\s(]{0,100}([A-Za-z]{2,20})\b")


def has_timeouts(limits: Any) -> bool:
    """Is there any that could strike a client that has a server?"""
    if limits.query_timeout is not None or limits.transaction_timeout is not None:
        return True
    return limits.idle_transaction_timeout is not None


def find_timeout(client: Any, server: Any, now: float) -> Closing | None:
    """For a client that has a server."""
    limits = client.pool.limits
    is_in_transaction = server.status != codes.IDLE or not server.ledger.is_settled
    if is_over(limits.query_timeout, now - client.request_at) and server.ledger.is_owing:
        return Closing.QUERY_TIMEOUT
    if is_over(limits.transaction_timeout, now - client.xact_at) and is_in_transaction:
        return Closing.TRANSACTION_TIMEOUT
    is_idle = not server.ledger.is_owing and is_in_transaction
    if is_over(limits.idle_transaction_timeout, now - idle_since(client)) and is_idle:
        return Closing.IDLE_TRANSACTION_TIMEOUT
    return None


def find_rest_timeout(client: Any, now: float) -> Closing | None:
    """For a client that has no transaction, or one that no server knows."""
    pool = client.pool
    if client.state is LINED:
        return None
    if client.state is BEGUN:
        is_late = is_over(pool.limits.idle_transaction_timeout, now - client.request_at)
        return Closing.IDLE_TRANSACTION_TIMEOUT if is_late else None
    is_pinned = client.session is not None and client.session.pins
    is_resting = client.server is None or pool.is_private or is_pinned
    if (
        is_resting
        and client not in pool.waiting
        and is_over(pool.limits.client_idle_timeout, now - client.ready_at)
        and is_quiet(client)
    ):
        return Closing.CLIENT_IDLE_TIMEOUT
    return None


def is_over(limit: float | None, value: float) -> bool:
    return limit is not None and value > limit


def is_quiet(client: Any) -> bool:
    """Is nothing under way on its server, if it has one?"""
    server = client.server
    return server is None or (server.status == codes.IDLE and server.ledger.is_settled)


def idle_since(client: Any) -> float:
    return float(client.request_at if client.state is BEGUN else max(client.ready_at, client.request_at))


def send_away(client: Any, why: Closing, now: float) -> None:
    """`client` has exceeded the limit that `why` is about."""
    error = describe(client, why, now)
    client.refuse(error, why, note=error.detail)


def describe(client: Any, why: Closing, now: float) -> ErrorFields:
    return replace(ERRORS[why], detail=_WORDS[why](client, client.pool.limits, now))


def _describe_query(client: Any, limits: Any, now: float) -> str:
    is_inside = client.server is not None and client.server.status != codes.IDLE
    inside = f" Its transaction has been open for {span(now - client.xact_at)}." if is_inside else ""
    running_for = span(now - client.request_at)
    return f"The statement has been running for {running_for}; query_timeout is {limits.query_timeout:g} s.{inside}"


def _describe_transaction(client: Any, limits: Any, now: float) -> str:
    is_at_work = client.server is not None and client.server.ledger.is_owing
    lately = f"its last statement has been running for {span(now - client.request_at)}"
    if not is_at_work:
        lately = f"it has done nothing for {span(now - idle_since(client))}"
    open_for, limit = span(now - client.xact_at), limits.transaction_timeout
    return f"The transaction has been open for {open_for}, and {lately}; transaction_timeout is {limit:g} s."


def _describe_idle_transaction(client: Any, limits: Any, now: float) -> str:
    idle_for, open_for = span(now - idle_since(client)), span(now - client.xact_at)
    limit, last = f"{limits.idle_transaction_timeout:g} s", _describe_last(client, now)
    words = f"The client has done nothing for {idle_for} in a transaction that is open for {open_for}; "
    return f"{words}idle_transaction_timeout is {limit}. {last}".rstrip()


def _describe_last(client: Any, now: float) -> str:
    """What it was that the client did last in its transaction, as far as that is known."""
    server = client.server
    if client.state is BEGUN:
        return "Nothing has followed its BEGIN."
    if server.status == codes.FAILED:
        return "The transaction has failed, and waits for a rollback."
    if server.status == codes.IDLE:
        return "What it has sent waits for a Sync."
    noted_at, text = client.pool.habits.notes.get(client, (now, b""))
    query = _first_word(text, 0)
    prepared = _first_word(client.unnamed, HEADER_SIZE + 1) if server.unnamed is client.unnamed else ""
    words = f"Its last simple query, {span(now - noted_at)} ago, was: {query} ..." if query else ""
    more = f"The last statement it prepared there without a name was: {prepared} ..." if prepared else ""
    return f"{words} {more}".strip()


def _first_word(text: bytes, pos: int) -> str:
    found = _FIRST_WORD.match(text, pos)
    return found[1].decode().upper() if found else ""


def _describe_client_idle(client: Any, limits: Any, now: float) -> str:
    silent_for = span(now - client.ready_at)
    return f"The client has said nothing for {silent_for}; client_idle_timeout is {limits.client_idle_timeout:g} s."


_WORDS: Final[Mapping[Closing, Callable[[Any, Any, float], str]]] = {
    Closing.QUERY_TIMEOUT: _describe_query,
    Closing.TRANSACTION_TIMEOUT: _describe_transaction,
    Closing.IDLE_TRANSACTION_TIMEOUT: _describe_idle_transaction,
    Closing.CLIENT_IDLE_TIMEOUT: _describe_client_idle,
}
