"""
What an administrator does: to the proxy, to one database, to one client.

Theory. Each command is a coroutine that gets the session and the command, does its work through the `Proxy`, and
returns the tag of its answer. The right to give it has been checked (rights.py). A coroutine that returns late is a
command that answers late: PAUSE when the last server has left, WAIT_CLOSE when the marked ones have.

A command is noted in the log with who gave it before it begins; one that is refused has changed nothing. PAUSE and
SUSPEND that are called off, or whose operator disappears, are undone: nothing must stand still for nobody.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from protocol import sqlstate
from protocol.errors import Refused
from proxy.admin.grammar import Command, invalid
from proxy.admin.scope import list_databases
from proxy.admin.session import Session
from proxy.admin.show_changes import refuse
from proxy.admin.show_statements import clear_statements
from proxy.config.entries import CONSOLES, FALLBACK, suggest
from proxy.config.settings import RESTART, SETTINGS
from proxy.inbox import PeerGone
from proxy.states import Closing, Leaving


async def _set(session: Session, command: Command) -> str:
    """SET key = value: until the next reload or restart."""
    row = SETTINGS.get(command.word)
    if row is None:
        raise Refused(
            sqlstate.UNDEFINED_OBJECT,
            "SET failed",
            detail=f"There is no setting {command.word!r}.",
            hint=suggest(command.word, SETTINGS).removeprefix(", ").capitalize(),
            note=f"(there is no setting {command.word!r})",
        )
    if row.reload is RESTART:
        fixed = f"{row.name} can only be changed by a restart"
        raise Refused(sqlstate.CANT_CHANGE_RUNTIME_PARAM, "SET failed", detail=f"{fixed}.", note=f"({fixed})")
    session.log(f"SET {row.name} command issued")
    try:
        await session.proxy.reloader.apply_setting(row.name, command.value)
    except ValueError as error:
        detail, note = f"{row.name} {error}.", f"({row.name} does not take that value)"  # which may be a secret
        raise Refused(sqlstate.INVALID_PARAMETER_VALUE, "SET failed", detail=detail, note=note) from error
    return f"SET {row.name}={command.value}"


async def _reset(session: Session, command: Command) -> str:
    """RESET STATEMENTS: the figures of SHOW STATEMENTS begin anew."""
    if command.word.upper() != "STATEMENTS":
        raise invalid(command.text, "RESET STATEMENTS")
    _note(session, command)
    clear_statements(session.proxy)
    return "RESET"


async def _reload(session: Session, command: Command) -> str:
    """As SIGHUP; but whoever asks is told the mistakes."""
    _check_no_word(command)
    session.log("RELOAD command issued")
    mistakes = await session.proxy.reload()
    if mistakes:
        raise refuse(mistakes, "RELOAD failed, see logs for additional details")
    session.remarks += session.proxy.reloader.unmet
    return "RELOAD"


async def _pause(session: Session, command: Command) -> str:
    """No server is handed out; the answer comes when the last one has been released and has left."""
    pools = session.proxy.pools
    database = _find_scope(session, command)
    _check_staying(session)
    _check_running(session)
    _note(session, command)
    concerned = pools.pause(database)
    try:
        await session.wait(_wait_all(pool.wait_quiet() for pool in concerned))
    except (Refused, PeerGone):
        session.log("PAUSE was called off, resuming")
        pools.resume(database)
        raise
    if not (pools.is_paused if database is None else pools.is_pausing(database)):
        raise Refused(sqlstate.OBJECT_NOT_IN_PREREQUISITE_STATE, "PAUSE was undone by RESUME while it waited")
    return "PAUSE"


async def _resume(session: Session, command: Command) -> str:
    pools = session.proxy.pools
    database = _find_scope(session, command)
    _check_staying(session)
    suspension = session.proxy.suspension
    if database is None and not (pools.is_paused or suspension.is_on):
        raise Refused(
            sqlstate.OBJECT_NOT_IN_PREREQUISITE_STATE,
            "pooler is not paused/suspended",
            hint="Databases paused by name are resumed by name." if pools.paused else "",
        )
    if database is not None and database not in pools.paused:
        raise _not_paused(database)
    _note(session, command)
    if database is None and suspension.is_on:
        suspension.end()
        return "RESUME"
    pools.resume(database)
    return "RESUME"


async def _suspend(session: Session, command: Command) -> str:
    """Nothing is read any more; the answer comes when all that was read has gone out."""
    _check_no_word(command)
    suspension, pools = session.proxy.suspension, session.proxy.pools
    _check_staying(session)
    _check_running(session)
    if pools.paused:
        raise Refused(
            sqlstate.OBJECT_NOT_IN_PREREQUISITE_STATE,
            "cannot suspend with paused databases",
            detail=f"Paused: {', '.join(sorted(pools.paused))}.",
        )
    _note(session, command)
    suspension.begin()
    try:
        await session.wait(suspension.wait_quiet())
    except (Refused, PeerGone):
        session.log("SUSPEND was called off, resuming")
        suspension.end()
        raise
    if not suspension.is_on:
        raise Refused(sqlstate.OBJECT_NOT_IN_PREREQUISITE_STATE, "SUSPEND was undone by RESUME while it waited")
    return "SUSPEND"


async def _disable(session: Session, command: Command) -> str:
    """No new clients; those who are here stay."""
    database = _find_one(session, command)
    _note(session, command)
    session.proxy.disabled.add(database)
    return "DISABLE"


async def _enable(session: Session, command: Command) -> str:
    database = _find_one(session, command)
    _note(session, command)
    session.proxy.disabled.discard(database)
    return "ENABLE"


async def _reconnect(session: Session, command: Command) -> str:
    """Every present server is closed at its next release."""
    database = _find_scope(session, command)
    _note(session, command)
    session.proxy.pools.retire(database, Closing.RECONNECT)
    return "RECONNECT"


async def _wait_close(session: Session, command: Command) -> str:
    """Until those that RECONNECT or a reload has marked are gone."""
    database = _find_scope(session, command)
    _note(session, command)
    concerned = [pool for pool in session.proxy.pools if database is None or pool.database == database]
    await session.wait(_wait_all(pool.wait_doomed() for pool in concerned))
    return "WAIT_CLOSE"


async def _kill(session: Session, command: Command) -> str:
    """At once: clients and servers leave, and the database stays paused."""
    database = _find_scope(session, command)
    _check_staying(session)
    _check_running(session)
    _note(session, command)
    session.proxy.pools.kill(database)
    return "KILL"


async def _kill_client(session: Session, command: Command) -> str:
    """One client, or one console, by its `id` in SHOW CLIENTS; its `ptr` will do."""
    proxy = session.proxy
    try:
        wanted = int(command.word, 16 if command.word.lower().startswith("0x") else 10)
    except ValueError:
        raise Refused(
            sqlstate.INVALID_PARAMETER_VALUE,
            "invalid client pointer supplied",
            hint="KILL_CLIENT takes the id of a row of SHOW CLIENTS.",
        ) from None
    groups = (*(pool.clients for pool in proxy.pools), proxy.pools.tunnels, proxy.consoles)
    for client in (each for group in groups for each in group):
        if wanted in (client.number, client.tag.ptr):
            session.log(f"KILL_CLIENT {client!r} command issued")
            client.close(Closing.ADMIN)
            return "KILL_CLIENT"
    raise Refused(sqlstate.UNDEFINED_OBJECT, "client not found")


async def _shutdown(session: Session, command: Command) -> str:
    """Three ways to end; the plain word is immediate. A gentle one is not repeated into an immediate one."""
    ways = {"": Leaving.IMMEDIATE, "WAIT_FOR_SERVERS": Leaving.WAIT_FOR_SERVERS}
    how = {**ways, "WAIT_FOR_CLIENTS": Leaving.WAIT_FOR_CLIENTS}.get(command.word.upper())
    if how is None:
        raise invalid(command.text, "SHUTDOWN, SHUTDOWN WAIT_FOR_SERVERS or SHUTDOWN WAIT_FOR_CLIENTS")
    if how is not Leaving.IMMEDIATE:
        _check_staying(session)
    session.log(f"{' '.join(filter(None, (command.verb, command.word.upper())))} command issued")
    session.proxy.leave(how)
    return "SHUTDOWN"


CONTROLS: Final[Mapping[str, Callable[[Session, Command], Awaitable[str]]]] = {
    "SET": _set,
    "RESET": _reset,
    "RELOAD": _reload,
    "PAUSE": _pause,
    "RESUME": _resume,
    "DISABLE": _disable,
    "ENABLE": _enable,
    "RECONNECT": _reconnect,
    "WAIT_CLOSE": _wait_close,
    "KILL": _kill,
    "KILL_CLIENT": _kill_client,
    "SUSPEND": _suspend,
    "SHUTDOWN": _shutdown,
}

_VERBS = {"WAIT_CLOSE": "wait in"}


def _note(session: Session, command: Command) -> None:
    """Into the log, in PgBouncer's words."""
    session.log(f"{command.verb} '{command.word}' command issued" if command.word else f"{command.verb} command issued")


def _find_scope(session: Session, command: Command) -> str | None:
    """The database a command is about, None for all. Refused when there is no such database, or it is the console."""
    name = command.word
    if not name:
        return None
    if name in CONSOLES and command.verb == "RESUME":
        raise _not_paused(name)
    if name in CONSOLES:
        verb = _VERBS.get(command.verb, command.verb.lower())
        raise Refused(sqlstate.FEATURE_NOT_SUPPORTED, f"cannot {verb} admin db: {name}")
    if name == FALLBACK or session.proxy.config.find_database(name) is None:  # that entry is no database
        raise Refused(sqlstate.INVALID_CATALOG, f"no such database: {name}")
    if name not in list_databases(session.proxy):
        session.remarks.append(
            f"{name} has no entry of its own ({FALLBACK} serves it), and nobody has asked for it yet"
        )
    return name


def _not_paused(database: str) -> Refused:
    return Refused(sqlstate.OBJECT_NOT_IN_PREREQUISITE_STATE, f"database {database} is not paused")


def _find_one(session: Session, command: Command) -> str:
    name = _find_scope(session, command)
    if name is None:
        raise Refused(sqlstate.SYNTAX_ERROR, "a database is required")
    return name


def _check_no_word(command: Command) -> None:
    if command.word:
        raise invalid(command.text, f"{command.verb} takes no argument.")


def _check_running(session: Session) -> None:
    """
    Refused when nothing is read, or nothing handed out; also to a command about one database, which would stand still
    after RESUME, and nobody would know why.
    """
    if session.proxy.is_suspended or session.proxy.pools.is_paused:
        raise Refused(
            sqlstate.OBJECT_NOT_IN_PREREQUISITE_STATE, "already suspended/paused", hint="RESUME undoes either."
        )


def _check_staying(session: Session) -> None:
    """Refused when the proxy is about to end: what it has paused or waits for is not to be changed any more."""
    if session.proxy.leaving not in (None, Leaving.SUCCEEDED):
        raise Refused(sqlstate.CANNOT_CONNECT_NOW, "pooler is shutting down")


async def _wait_all(hopes: Iterable[Awaitable[None]]) -> None:
    await asyncio.gather(*hopes)
