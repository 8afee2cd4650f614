"""
The console: a conversation with an operator, over the protocol every PostgreSQL client speaks.

Theory. To psql, drivers and exporters the console is a database with its own few commands. It is a conversation, so
it may await; and it must not starve the streams, so long answers go out in slices, each waiting until the last has
mostly been read (an operator who asks much and reads nothing costs us one transport buffer).

The way of a command: `grammar` makes it of bytes, `rights` says whether this user may give it, and only then one of
two tables is asked, `show.SHOWS` for what is looked at and `control.CONTROLS` for what is done. Whatever is refused is
an ERROR to this operator, and the console goes on.

The welcome is what PgBouncer's console says, its version included: tools decide by it. The extended query protocol is
not spoken here yet, and whoever tries is told so, as in PgBouncer.
"""

import asyncio
from dataclasses import replace
from typing import Any, Final

from protocol import codes, sqlstate
from protocol.backend import (
    EMPTY_QUERY_MESSAGE,
    READY_IDLE_MESSAGE,
    build_command_complete,
    build_error,
    build_notice,
)
from protocol.errors import ProtocolError, Refused
from protocol.frontend import parse_query
from proxy import COMPATIBLE
from proxy.admin.control import CONTROLS
from proxy.admin.grammar import Command, parse_command
from proxy.admin.rights import CANNED, RIGHTS, check_login, check_right
from proxy.admin.rows import Table, build_slices
from proxy.admin.session import Session
from proxy.admin.show import SHOWS
from proxy.inbox import Inbox, PeerGone
from proxy.login import LONG_KEYS_SINCE, Visitor, build_welcome
from proxy.states import Closing

MAX_MESSAGE: Final = 65536  # bytes; what a tool might send by mistake still gets a friendly answer

WELCOME: Final = {
    "server_version": f"{COMPATIBLE}/bouncer",
    "client_encoding": "UTF8",
    "server_encoding": "UTF8",
    "DateStyle": "ISO",
    "TimeZone": "GMT",
    "standard_conforming_strings": "on",
    "is_superuser": "on",
}

_EXTENDED = frozenset(
    {codes.PARSE, codes.BIND, codes.DESCRIBE, codes.EXECUTE, codes.CLOSE, codes.SYNC, codes.FLUSH, codes.FUNCTION_CALL}
)


async def converse(inbox: Inbox, proxy: Any, visitor: Visitor, address: tuple[str, int]) -> None:
    """
    From the end of the login to the end of the connection, which is left to the caller to close.

    Refused: this user may not use the console, or spoke the extended protocol. ProtocolError: a message that has no
    place here. PeerGone: the operator left without a word.
    """
    check_login(proxy.settings, visitor.user)
    key = proxy.cancels.mint_key(is_long=visitor.minor >= LONG_KEYS_SINCE)
    session = Session(inbox, proxy, visitor, address, key)
    proxy.console_arrived(session)
    try:
        inbox.write(build_welcome(replace(visitor, wishes={}), WELCOME, key))
        while (text := await _wait_query(inbox)) is not None:
            await _answer(session, text)
        if proxy.settings.log_disconnections:
            age = proxy.clock.now() - session.connected_at
            proxy.log.for_socket(session.tag).closing(Closing.CLIENT_REQUEST.value, age)
    except asyncio.CancelledError:  # the proxy ends
        session.close(Closing.SHUTDOWN)
        raise
    finally:
        proxy.console_left(session)


async def _wait_query(inbox: Inbox) -> bytes | None:
    """The next text; None when the operator said goodbye."""
    kind, body = await inbox.wait_message(MAX_MESSAGE)
    if kind == codes.QUERY:
        return parse_query(body)
    if kind == codes.TERMINATE:
        return None
    if kind in _EXTENDED:
        raise Refused(sqlstate.FEATURE_NOT_SUPPORTED, "extended query protocol not supported by admin console")
    raise ProtocolError(f"a message of type {chr(kind)!r} on the admin console")


async def _answer(session: Session, text: bytes) -> None:
    """One text, one answer, one ReadyForQuery."""
    session.request_at = session.proxy.clock.now()
    try:
        command = parse_command(text)
        if command is None:
            session.inbox.write(EMPTY_QUERY_MESSAGE + READY_IDLE_MESSAGE)
        else:
            await _obey(session, command)
    except Refused as no:
        if session.proxy.settings.log_pooler_errors:
            session.proxy.log.for_socket(session.tag).warning(f"pooler error: {no.sentence}")
        error = build_error("ERROR", no.sqlstate, no.sentence, detail=no.detail, hint=no.hint)
        session.inbox.write(error + READY_IDLE_MESSAGE)
    await session.inbox.wait_writable()


async def _obey(session: Session, command: Command) -> None:
    name = check_right(session.proxy.settings, session.user, command)
    if name in SHOWS:
        await _send_table(session, SHOWS[name](session.proxy), _build_tail("SHOW"))
    elif name in CONTROLS:
        tag = await CONTROLS[name](session, command)
        session.inbox.write(_build_tail(tag))
    elif name == "SHOW HELP":
        session.inbox.write(build_help() + _build_tail("SHOW"))
    elif command.verb == "SHOW":
        table = Table(f"{command.word.lower()} s", [(CANNED[command.word.lower()],)])
        await _send_table(session, table, _build_tail("SHOW"))
    else:
        notice = build_notice("NOTICE", sqlstate.SUCCESSFUL_COMPLETION, "SET ignored")
        session.inbox.write(notice + _build_tail("SET"))


async def _send_table(session: Session, table: Table, tail: bytes) -> None:
    """In slices; the streams have a turn between two of them."""
    for piece in build_slices(table, tail):
        session.inbox.write(piece)
        await asyncio.sleep(0)
        await session.inbox.wait_writable()
        if not session.inbox.is_alive:
            raise PeerGone("the operator left in the middle of an answer")


def _build_tail(tag: str) -> bytes:
    return build_command_complete(tag) + READY_IDLE_MESSAGE


def build_help() -> bytes:
    """The notice that SHOW HELP is. Its list is made of the table of rights: what exists is listed."""
    canned = {f"SHOW {name.upper()}" for name in CANNED}
    shows = [name.removeprefix("SHOW ") for name in RIGHTS if name.startswith("SHOW ") and name not in canned]
    lines = [f"SHOW {'|'.join(shows)}", *(_USAGE.get(name, name) for name in RIGHTS if " " not in name)]
    detail = "\n" + "\n".join(f"\t{line}" for line in lines)
    return build_notice("NOTICE", sqlstate.SUCCESSFUL_COMPLETION, "Console usage", detail=detail)


_USAGE: Final = {
    "SET": "SET key = arg",
    "PAUSE": "PAUSE [<db>]",
    "RESUME": "RESUME [<db>]",
    "DISABLE": "DISABLE <db>",
    "ENABLE": "ENABLE <db>",
    "RECONNECT": "RECONNECT [<db>]",
    "WAIT_CLOSE": "WAIT_CLOSE [<db>]",
    "KILL": "KILL [<db>]",
    "KILL_CLIENT": "KILL_CLIENT <client_id>",
    "SHUTDOWN": "SHUTDOWN [WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS]",
}
