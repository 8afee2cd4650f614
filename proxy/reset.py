"""
Cleaning a server before somebody else gets it.

Theory. A server is handed on only when nothing is owed, no transaction is open and no message is half sent. When a
client leaves it may be far from that, and the steps back are always the same: end a COPY, end a batch that has no
Sync, cancel what still runs, wait for the answers (they reach nobody), roll back, run `server_reset_query` where
the mode asks for it or something may be left in the session, and wait until every cancel request on its way has
arrived, lest it hits the next client's query. `begin` takes the first three steps, `next_step` is called each time the
server has come to rest again.

What it is reset with is decided at the beginning (`server.resets`), as the pool is then: after a reload that asks for
less its sessions have still been what they were.

A server with something left in its session (`is_touched`) is not clean before DISCARD ALL, whatever else
`server_reset_query` says: that is run first, and may well be just this. Any other query (RESET ALL, DEALLOCATE ALL)
leaves a server of which less is known than before: what was set there may be gone, and statements too (`_was_reset`).

Each step is taken once. A server that does not come clean, or not within `PATIENCE`, is closed. Where that is because
`server_reset_query` fails it is so each time, and nothing is pooled any more: the log says so now and then. A client
that said goodbye properly while its statement runs is no reason to cancel it at once, since PostgreSQL itself would
finish it. But nobody waits for that longer than `PATIENCE`: drivers say goodbye in this way when they have lost theirs.
"""

from collections.abc import Callable
from typing import Any

from protocol import codes
from protocol.frontend import SYNC_MESSAGE, build_copy_fail, build_query, build_run
from protocol.ledger import COPY_END, ONE_QUERY, RUN, SYNC
from protocol.parameters import UNKNOWN
from proxy.chores import Chore
from proxy.states import Closing

PATIENCE = 10.0  # seconds

_THOROUGH = "DISCARD ALL"

_ROLLBACK = build_query(b"ROLLBACK")
# The end of somebody's batch: a bare Sync would commit what the batch has done, and PostgreSQL itself would not.
_ROLLBACK_BATCH = build_run(b"ROLLBACK") + SYNC_MESSAGE
_ROLLBACK_DEBTS = (*RUN, SYNC)
_COPY_FAIL = build_copy_fail(b"the client has left")


def begin(server: Any, *, cancel: bool = False) -> None:
    """`server` is CLEANING and nobody's: bring it to rest. `cancel`: do not wait for what still runs."""
    ledger = server.ledger
    server.resets = find_resets(server)
    server.is_rolled_back = False
    server.unnamed = None
    server.deadline = server.pool.now() + PATIENCE
    end_unit(server)
    if ledger.is_owing and cancel:
        server.pool.world.issue_cancel(server)
    server.rest()


def end_unit(server: Any) -> None:
    """Whatever `server` still expects from a client that has left: the end of its COPY, of its batch."""
    ledger, chore = server.ledger, Chore()
    if ledger.copying:
        server.transport.write(_COPY_FAIL)
        ledger.expect((COPY_END,), chore)
    if ledger.is_unit_open or ledger.skipping:
        server.transport.write(_ROLLBACK_BATCH)
        ledger.expect(_ROLLBACK_DEBTS, chore)


def next_step(server: Any) -> None:
    """A CLEANING server has nothing more to say: the next step, or give it back."""
    if server.ledger.doubts:
        server.close(Closing.UNCLEAN)
    elif server.status != codes.IDLE:
        if server.is_rolled_back:
            server.close(Closing.UNCLEAN)
            return
        server.is_rolled_back = True
        _ask(server, _ROLLBACK)
    elif server.cancels:
        return  # `rest` is called again when the last cancel request has arrived
    elif server.resets:
        resets, server.resets = server.resets, ()
        for query in resets:
            name = "server_reset_query" if query == server.pool.limits.server_reset_query else _THOROUGH
            _ask(server, build_query(query.encode()), _was_discarded if is_thorough(query) else _was_reset, name)
    else:
        server.deadline = None
        server.pool.release(server)


def find_resets(server: Any) -> tuple[str, ...]:
    """`server_reset_query`, and DISCARD ALL where that is needed and not the same."""
    limits = server.pool.limits
    query = limits.server_reset_query
    is_wanted = server.pool.is_private or limits.server_reset_query_always or server.is_touched
    resets = (query,) if query and is_wanted else ()
    return (*resets, _THOROUGH) if server.is_touched and not is_thorough(query) else resets


def is_thorough(query: str) -> bool:
    """Is nothing left of a session after it?"""
    return " ".join(query.strip("; \t\n").split()).upper() == _THOROUGH


def _was_discarded(server: Any) -> None:
    """It is as it was when it was opened."""
    server.is_touched = False
    server.statements.clear()
    told = {name: server.followed[name] for name in server.pool.world.followed if name in server.followed}
    if len(told) != len(server.followed):
        server.followed = server.pool.intern(told)


def _was_reset(server: Any) -> None:
    """It has what it reports. The rest is set, or reset, for whoever comes next, and statements are made anew."""
    followed = {
        name: value if name in server.pool.world.followed else UNKNOWN for name, value in server.followed.items()
    }
    if UNKNOWN in followed.values():
        server.followed = server.pool.intern(followed)
    forget_missing(server)


def forget_missing(server: Any) -> None:
    """Somebody has dropped what we believed to be there, out of our sight: perhaps more than this."""
    for statement in server.statements:
        server.statements[statement] = 0


def _ask(server: Any, text: bytes, done: Callable[[Any], None] | None = None, name: str = "") -> None:
    def close_if_failed(chore: Chore) -> None:
        if chore.error is not None:
            if name and server.pool.unclean.is_time():
                words = f"{name} failed: {chore.error.severity or 'ERROR'} {chore.error.message}"
                server.pool.world.log.for_socket(server.tag).warning(words)
            server.close(Closing.UNCLEAN)
        elif done is not None:
            done(server)

    server.deadline = server.pool.now() + PATIENCE
    server.unnamed = None
    server.ledger.expect(ONE_QUERY, Chore(close_if_failed))
    server.transport.write(text)


def test(server: Any) -> None:
    """Run `server_check_query` on a TESTING server; it is released when the answer has come."""

    def close_if_failed(chore: Chore) -> None:
        if chore.error is not None:
            server.close(Closing.TEST_FAILED)

    limits = server.pool.limits
    server.deadline = server.pool.now() + (limits.server_connect_timeout or PATIENCE)
    server.unnamed = None
    server.ledger.expect(ONE_QUERY, Chore(close_if_failed))
    server.transport.write(build_query(limits.server_check_query or ""))
