"""
The console: a conversation with an operator, over the protocol every PostgreSQL client speaks.

Theory. To psql, drivers and exporters the console is a database with its own few commands. It is a conversation, so
it may await; and it must not starve the streams, so long answers go out in slices, each waiting until the last has
mostly been read (an operator who asks much and reads nothing costs us one transport buffer).

The way of a command: `grammar` makes it of bytes, `rights` says whether this user may give it, and only then `answers`
has it looked up in `show` or done by `control`. Whatever is refused is an ERROR to this operator, and the console goes
on. The extended query protocol has a room of its own (`extended`).

The welcome is what PgBouncer's console says, its version included: tools decide by it.
"""

import asyncio
from dataclasses import replace
from typing import Any, Final

from protocol import codes
from protocol.backend import EMPTY_QUERY_MESSAGE, READY_IDLE_MESSAGE, build_command_complete
from protocol.errors import ProtocolError, Refused
from protocol.frontend import parse_query
from proxy import COMPATIBLE
from proxy.admin.answers import Reply, parse_request, perform
from proxy.admin.extended import KINDS, Exchange
from proxy.admin.grammar import split_commands
from proxy.admin.rights import check_login
from proxy.admin.rows import build_slices
from proxy.admin.session import Session
from proxy.inbox import Inbox
from proxy.login import LONG_KEYS_SINCE, Visitor, build_welcome
from proxy.states import Closing

MAX_MESSAGE: Final = 1_048_576  # bytes; what a tool might send by mistake still gets a friendly answer

WELCOME: Final = {
    "server_version": f"{COMPATIBLE}/bouncer",
    "client_encoding": "UTF8",
    "server_encoding": "UTF8",
    "DateStyle": "ISO",
    "TimeZone": "GMT",
    "standard_conforming_strings": "on",
    "is_superuser": "on",
}


async def converse(inbox: Inbox, proxy: Any, visitor: Visitor, address: tuple[str, int]) -> None:
    """
    From the end of the login to the end of the connection, which is left to the caller to close.

    Refused: this user may not use the console. ProtocolError: a message that has no place here, or is malformed.
    PeerGone: the operator left without a word.
    """
    key = proxy.cancels.mint_key(is_long=visitor.minor >= LONG_KEYS_SINCE)
    session = Session(inbox, proxy, visitor, address, key)
    check_login(session.right)
    proxy.console_arrived(session)
    try:
        inbox.write(build_welcome(replace(visitor, wishes={}), WELCOME, key))
        await _listen(session)
        if proxy.settings.log_disconnections:
            age = proxy.clock.now() - session.connected_at
            proxy.log.for_socket(session.tag).closing(Closing.CLIENT_REQUEST.value, age)
    except asyncio.CancelledError:  # the proxy ends
        session.close(Closing.SHUTDOWN)
        raise
    finally:
        proxy.console_left(session)


async def _listen(session: Session) -> None:
    """Until the operator says goodbye."""
    exchange = Exchange(session)
    while True:
        kind, body = await session.inbox.wait_message(MAX_MESSAGE)
        session.request_at = session.proxy.clock.now()
        if kind == codes.TERMINATE:
            return
        if kind in KINDS:
            if not exchange.is_skipping or kind == codes.SYNC:
                await exchange.take(kind, body)
        elif kind != codes.QUERY:
            raise ProtocolError(f"a message of type {chr(kind)!r} on the admin console")
        elif not exchange.is_skipping:
            exchange.flush()
            exchange.forget_unnamed()
            await _answer(session, parse_query(body))
        await session.inbox.wait_writable()


async def _answer(session: Session, raw: bytes) -> None:
    """One text, the answers to its commands up to the first that is refused, one ReadyForQuery."""
    try:
        texts = split_commands(raw)
        for number, text in enumerate(texts, 1):
            reply = await perform(session, parse_request(session, text))
            await _send(session, reply, READY_IDLE_MESSAGE if number == len(texts) else b"")
        if not texts:
            session.inbox.write(EMPTY_QUERY_MESSAGE + READY_IDLE_MESSAGE)
    except Refused as no:
        session.inbox.write(session.build_refusal(no) + READY_IDLE_MESSAGE)


async def _send(session: Session, reply: Reply, end: bytes) -> None:
    """In slices; the streams have a turn between two of them."""
    tail = build_command_complete(reply.tag) + end
    if reply.table is None:
        session.inbox.write(reply.notice + tail)
        return
    if reply.notice:
        session.inbox.write(reply.notice)
    for piece in build_slices(reply.table, tail):
        session.inbox.write(piece)
        await session.wait_turn()
