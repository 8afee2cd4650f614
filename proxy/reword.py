"""
Errors that speak of statements, in the client's words.

Theory. On servers a client's statements have names of ours, and PostgreSQL's errors use them. A client must never see
one: where an error's message has such a name the client's own is put in its place, and nothing else is changed. The
name that never exists was bound on purpose, for a statement whose columns have changed: that error becomes the one
PostgreSQL has for this.

The same place notices that a plan has changed behind our back, by DDL that did not come through here, and has the batch
run again where that is safe.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from protocol import codes, sqlstate
from protocol.backend import ErrorFields
from protocol.body import build_message
from protocol.ledger import BIND, SYNC
from protocol.prepared import MARK, NEVER, PREFIX, Names, replace_name
from proxy.chores import hearer
from proxy.envoys import NO_ALIASES, Repeat
from proxy.reset import forget_missing

_OURS = re.compile(re.escape(PREFIX) + rb"[0-9]+" + re.escape(MARK) + rb"?")
_REPLANNED: Final = "RevalidateCachedQuery"  # where PostgreSQL notices that a plan's columns are others now
_REPLANNED_AT: Final = {"F": "plancache.c", "L": "0", "R": _REPLANNED}  # drivers look at the routine
CHANGED: Final = "cached plan must not change result type"


def reword(client: Any, error: ErrorFields, aliases: Mapping[bytes, bytes] = NO_ALIASES) -> bytes | None:
    """The error in the client's own names; None where it may stay as it is, or is too long to be changed.

    `aliases`, by names of ours, are those it must speak of where that is known: a statement may have several.
    """
    if is_replanned(error):
        return b"" if error.body and _is_repeated(client) else None
    found = _OURS.search(_find_message(error.body))
    if found is None:
        return None
    ours = found[0]
    if ours == NEVER:
        return _build({**error.raw, "C": sqlstate.FEATURE_NOT_SUPPORTED, "M": CHANGED, **_REPLANNED_AT})
    names: Names | None = client.statements
    theirs = aliases.get(ours) or (names.name_of(ours) if names is not None else None)
    if error.sqlstate == sqlstate.INVALID_STATEMENT_NAME and client.server is not None:
        forget_missing(client.server)
    if ours.endswith(MARK):
        theirs = ours.removesuffix(MARK)
    return None if theirs is None else replace_name(error.body, ours, theirs)


def is_replanned(error: ErrorFields) -> bool:
    """Was a plan stale?"""
    return error.sqlstate == sqlstate.FEATURE_NOT_SUPPORTED and error.raw.get("R") == _REPLANNED


def is_missing(error: ErrorFields, name: bytes) -> bool:
    """Did a server lack the statement of ours that has this name?"""
    found = _OURS.search(_find_message(error.body))
    return error.sqlstate == sqlstate.INVALID_STATEMENT_NAME and found is not None and found[0] == name


def _find_message(body: bytes) -> bytes:
    return next((field for field in body.split(b"\0") if field[:1] == b"M"), b"")


def _build(fields: dict[str, str]) -> bytes:
    body = b"".join((key + text).encode("utf-8", "replace") + b"\0" for key, text in fields.items())
    return build_message(codes.ERROR_RESPONSE, body + b"\0")


def _is_repeated(client: Any) -> bool:
    """A plan was stale. Is the batch run again? Only if it is alone, outside a transaction and nothing was heard of it.

    Whether its columns are what the client expects is looked at when the statement is made again (`is_there`).
    """
    server = client.server
    forget_stale(client.pool, server)
    if server is None or server.repeatable is None or server.repeatable[0] is not client or client.held is not None:
        return False
    ledger = server.ledger
    debt, owner = ledger.head
    is_unheard = ledger.failed_at is BIND and debt is SYNC and hearer(owner) is client
    if not is_unheard or ledger.backlog or client.remain or server.status != codes.IDLE:
        return False
    ledger.disown(owner, Repeat(client, server.repeatable[1]))
    client.held, client.held_debts = b"", ()
    return True


def forget_stale(pool: Any, server: Any) -> None:
    """Those this server has from before the last change of the schema are made again when they are needed.

    If there are none, somebody has changed it behind our back: then none can be trusted, and whoever parses anew gets
    a fresh one.
    """
    known = server.statements if server is not None else {}
    if not any(0 < generation < pool.generation for generation in known.values()):
        pool.world.schema_changed(pool)
    for statement, generation in known.items():
        if generation < pool.generation:
            known[statement] = 0
