"""
The extended query protocol on the console: what JDBC, asyncpg, pgx and most others speak, and PgBouncer does not.

Theory. A statement is a command that has been read, a portal one that may run: at its first Execute it does, and
never again. The answers of a batch are gathered and go out at its Sync or Flush, or when they are many, or before
something is done that may take its time. After an error everything is skipped up to the next Sync, as in PostgreSQL.

Commands take no parameters: what a `$1` could stand for is a name or a setting, and neither is data. Results travel in
the formats the driver asks for, text or binary, so integers arrive as such. Portals outlive their Sync, as if all
happened in one transaction, so rows can be fetched in parts; only their number is bounded.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from protocol import codes, sqlstate
from protocol.backend import (
    BIND_COMPLETE_MESSAGE,
    CLOSE_COMPLETE_MESSAGE,
    EMPTY_QUERY_MESSAGE,
    NO_DATA_MESSAGE,
    PARSE_COMPLETE_MESSAGE,
    PORTAL_SUSPENDED_MESSAGE,
    READY_IDLE_MESSAGE,
    build_command_complete,
    build_error,
    build_parameter_description,
)
from protocol.errors import Refused
from protocol.frontend import STATEMENT, parse_bind, parse_close, parse_describe, parse_execute, parse_parse
from proxy.admin.answers import Reply, Request, find_shape, parse_request, perform
from proxy.admin.grammar import split_commands
from proxy.admin.rows import BINARY, TEXT, Encoder, Row, build_head, parse_shape, spread
from proxy.admin.session import Session

MAX_STATEMENTS: Final = 1000
MAX_PORTALS: Final = 100  # then the oldest goes
GATHERED: Final = 16_384  # bytes of answers that are kept for one write


@dataclass(slots=True)
class Portal:
    """A command on its way; `request` is None if nothing was typed."""

    request: Request | None
    formats: tuple[int, ...]
    reply: Reply | None = None  # once it has run
    rows: Iterator[Row] = field(default_factory=lambda: iter(()))


class Exchange:
    """One operator's statements and portals, and the answers that have not gone out yet."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._statements: dict[bytes, Request | None] = {}
        self._portals: dict[bytes, Portal] = {}
        self._gathered = b""
        self.is_skipping = False  # an error has come, and its Sync has not

    async def take(self, kind: int, body: bytes) -> None:
        """One message. ProtocolError: it is malformed."""
        if kind == codes.SYNC:
            self.is_skipping = False
            self._say(READY_IDLE_MESSAGE)
            self.flush()
        elif kind == codes.FUNCTION_CALL:
            self.flush()
            error = build_error("ERROR", sqlstate.FEATURE_NOT_SUPPORTED, "the console has no functions to be called")
            self._session.inbox.write(error + READY_IDLE_MESSAGE)
        else:
            try:
                await _STEPS[kind](self, body)
            except Refused as no:
                self.is_skipping = True
                self._say(self._session.build_refusal(no))
                self.flush()  # a driver may wait for it before it says Sync

    def forget_unnamed(self) -> None:
        """A simple Query has come: it ends the statement and the portal without a name."""
        self._statements.pop(b"", None)
        self._portals.pop(b"", None)

    def flush(self) -> None:
        gathered, self._gathered = self._gathered, b""
        if gathered:
            self._session.inbox.write(gathered)

    def _say(self, message: bytes) -> None:
        self._gathered += message
        if len(self._gathered) > GATHERED:
            self.flush()

    # One step per kind of message.

    async def _parse(self, body: bytes) -> None:
        parse = parse_parse(body)
        if parse.name and parse.name in self._statements:
            raise Refused(sqlstate.DUPLICATE_STATEMENT, f'prepared statement "{_shown(parse.name)}" already exists')
        if len(self._statements) >= MAX_STATEMENTS:
            raise Refused(
                sqlstate.CONFIGURATION_LIMIT_EXCEEDED, f"more than {MAX_STATEMENTS} prepared statements on the console"
            )
        texts = split_commands(parse.query)
        if len(texts) > 1:
            raise Refused(sqlstate.SYNTAX_ERROR, "cannot insert multiple commands into a prepared statement")
        self._statements[parse.name] = parse_request(self._session, texts[0]) if texts else None
        self._say(PARSE_COMPLETE_MESSAGE)

    async def _bind(self, body: bytes) -> None:
        bind = parse_bind(body)
        request = self._find_statement(bind.statement)
        if bind.values:
            raise Refused(
                sqlstate.PROTOCOL_VIOLATION,
                f"bind message supplies {len(bind.values)} parameters, but commands of the console take none",
            )
        self._check_formats(request, bind.result_formats)
        self._portals.pop(bind.portal, None)
        if len(self._portals) >= MAX_PORTALS:
            del self._portals[next(iter(self._portals))]
        self._portals[bind.portal] = Portal(request, bind.result_formats)
        self._say(BIND_COMPLETE_MESSAGE)

    def _check_formats(self, request: Request | None, formats: tuple[int, ...]) -> None:
        for each in formats:
            if each not in (TEXT, BINARY):
                raise Refused(sqlstate.INVALID_PARAMETER_VALUE, f"unsupported format code: {each}")
        shape = self._shape_of(request)
        try:
            spread(formats, len(parse_shape(shape)) if shape else 0)
        except ValueError as error:
            raise Refused(sqlstate.PROTOCOL_VIOLATION, f"bind message has {error}") from None

    async def _describe(self, body: bytes) -> None:
        target = parse_describe(body)
        if target.kind == STATEMENT:
            request = self._find_statement(target.name)
            self._say(build_parameter_description([]) + self._build_head(request, ()))
        else:
            portal = self._find_portal(target.name)
            self._say(self._build_head(portal.request, portal.formats))

    def _build_head(self, request: Request | None, formats: tuple[int, ...]) -> bytes:
        shape = self._shape_of(request)
        return build_head(shape, formats) if shape else NO_DATA_MESSAGE

    def _shape_of(self, request: Request | None) -> str:
        return find_shape(self._session, request) if request is not None else ""

    async def _execute(self, body: bytes) -> None:
        execute = parse_execute(body)
        portal = self._find_portal(execute.portal)
        if portal.request is None:
            self._say(EMPTY_QUERY_MESSAGE)
        elif portal.reply is None:
            self.flush()
            portal.reply = await perform(self._session, portal.request)
            self._say(portal.reply.notice)
            if portal.reply.table is not None:
                portal.rows = iter(portal.reply.table.rows)
            await self._go_on(portal, portal.reply, max(execute.max_rows, 0))
        elif portal.reply.table is None:
            raise Refused(sqlstate.OBJECT_NOT_IN_PREREQUISITE_STATE, f'portal "{_shown(execute.portal)}" cannot be run')
        else:
            await self._go_on(portal, portal.reply, max(execute.max_rows, 0))

    async def _go_on(self, portal: Portal, reply: Reply, most: int) -> None:
        """The next rows of it; 0 is all."""
        if reply.table is not None:
            encoder = Encoder(reply.table.shape, portal.formats)
            for piece in encoder.build_slices(portal.rows, most=most):
                self._say(piece)
                await self._session.wait_turn()
            if most and (more := next(portal.rows, None)) is not None:
                portal.rows = chain([more], portal.rows)
                self._say(PORTAL_SUSPENDED_MESSAGE)
                return
        self._say(build_command_complete(reply.tag))

    async def _close(self, body: bytes) -> None:
        target = parse_close(body)
        if target.kind == STATEMENT:
            self._statements.pop(target.name, None)
        else:
            self._portals.pop(target.name, None)
        self._say(CLOSE_COMPLETE_MESSAGE)

    async def _flush(self, body: bytes) -> None:
        self.flush()

    def _find_statement(self, name: bytes) -> Request | None:
        if name not in self._statements:
            raise Refused(sqlstate.INVALID_STATEMENT_NAME, f'prepared statement "{_shown(name)}" does not exist')
        return self._statements[name]

    def _find_portal(self, name: bytes) -> Portal:
        if name not in self._portals:
            raise Refused(sqlstate.INVALID_CURSOR_NAME, f'portal "{_shown(name)}" does not exist')
        return self._portals[name]


def _shown(name: bytes) -> str:
    return name[:63].decode("utf-8", "replace")


_STEPS: Final[dict[int, Callable[[Exchange, bytes], Awaitable[None]]]] = {
    codes.PARSE: Exchange._parse,
    codes.BIND: Exchange._bind,
    codes.DESCRIBE: Exchange._describe,
    codes.EXECUTE: Exchange._execute,
    codes.CLOSE: Exchange._close,
    codes.FLUSH: Exchange._flush,
}

KINDS: Final = frozenset({*_STEPS, codes.SYNC, codes.FUNCTION_CALL})
"""The messages of this protocol."""
