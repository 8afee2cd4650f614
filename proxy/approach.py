"""
One connection to PostgreSQL on its way in: who we are, the proof of it, and what the server tells about itself.

Theory. An `Approach` is made for somebody (`owner`: a pool's server, or the far end of a tunnel), on whom it notes
what the server says: its parameters, its cancel key, where it lives. It knows nothing of pools and limits; whoever
sent it decides what its end means (connect.py), be it good or bad.

The server is not trusted: the number and the length of what it may say before ReadyForQuery are bounded.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from protocol import codes
from protocol.backend import ErrorFields, parse_backend_key, parse_error, parse_parameter_status, parse_ready
from protocol.body import build_message
from protocol.doubts import MAX_CANDIDATES, find_customs
from protocol.errors import ProtocolError
from protocol.frontend import build_query
from protocol.inspection import MAX_ANSWER, Question, build_inspection, parse_inspection
from protocol.parameters import IDENTITY, is_sendable, note_reported
from protocol.startup import build_startup
from proxy.auth.keys import KeyKeeper
from proxy.auth.prove import MAX_MESSAGE, ServerRefused, prove_ourselves
from proxy.inbox import Inbox, PeerGone
from proxy.log import UNIX, Address
from proxy.server_tls import ServerTls

MAX_GREETINGS = 1000  # messages between AuthenticationOk and ReadyForQuery
LAST_WORDS = 1.0  # seconds a server that did not let us in has to hang up


class Approach:
    """`owner` has a `pool`, and gets `endpoint`, `address`, `tls`, `parameters`, `key`, `pid`."""

    def __init__(self, owner: Any, keeper: KeyKeeper, file: str = "proxy.ini") -> None:
        self.owner = owner
        self.inbox: Inbox | None = None
        self.began = 0.0  # when it headed for the place where it is now
        self.base: dict[str, str] = {}  # what `connect_query` has set
        self._must_bind = False
        self._keeper = keeper
        self._file = file  # where a password could stand
        self._rows = b""  # of the last query

    def head_for(self, endpoint: Any) -> None:
        self.began = self.owner.pool.now()
        self.owner.endpoint = endpoint
        self.owner.address = Address(UNIX if endpoint.path is not None else endpoint.where, endpoint.port)

    def connected(self, inbox: Inbox) -> None:
        self.inbox = inbox

    async def encrypt(self, tls: ServerTls) -> bool:
        """TLS, before anything is said. False: the server does without. TlsFailed."""
        assert self.inbox is not None
        if not await tls.begin(self.inbox, self.owner.endpoint.host):
            return False
        self.owner.tls = tls.as_is()
        self._must_bind = tls.must_bind
        return True

    async def start_over(self) -> None:
        """Hang up, and forget what was said: the next try is with somebody else, or in other words."""
        await self.hang_up()
        self.inbox = None
        self.owner.parameters.clear()
        self.owner.key, self.owner.pid, self.owner.tls = b"", 0, None
        self._must_bind = False

    async def log_in(self, said: Mapping[str, str], password: Any, minor: int) -> None:
        """
        Until the first ReadyForQuery. `said` are the parameters of the startup packet, `minor` is that of protocol 3.

        ServerRefused, ProtocolError, PeerGone, TooNew: as of `prove_ourselves`.
        """
        assert self.inbox is not None
        self.inbox.write(build_startup(said, codes.PROTOCOL_3_0 | minor))
        said_by, file, must_bind = said["user"], self._file, self._must_bind
        await prove_ourselves(self.inbox, said_by, password, self._keeper, minor, file=file, must_bind=must_bind)
        await self._wait_ready()

    async def ask(self, query: str) -> ErrorFields | None:
        """Run `query`, whose rows nobody wants; its error. ServerRefused: with that the connection is of no use."""
        assert self.inbox is not None
        self.inbox.write(build_query(query))
        try:
            await self._wait_ready()
        except ServerRefused as refusal:
            try:
                await self._wait_ready()
            except (PeerGone, ProtocolError):  # it has hung up, or is in a transaction
                raise refusal from None
            return refusal.fields
        return None

    async def prepare(self, query: str) -> ErrorFields | None:
        """
        Run the database's `connect_query`, and note what it has set: every client comes with that, so that a RESET
        brings it back and a DISCARD ALL does not take it from those who come later. What it has failed with, if so.
        """
        error = await self.ask(query)
        assert self.inbox is not None
        customs = sorted(find_customs(query.encode()))[:MAX_CANDIDATES]
        question = Question((*customs, *IDENTITY), lists=True)
        self._rows = b""
        self.inbox.write(build_inspection(question))
        await self._wait_ready()
        answer = parse_inspection(question, self._rows, self.owner.parameters.get("client_encoding", ""))
        named = {name: value for name, value in answer.values.items() if value and value != answer.at_login.get(name)}
        self.base = {name: value for name, value in {**answer.listed, **named}.items() if is_sendable(value)}
        return error

    async def _wait_ready(self) -> None:
        """Everything up to the next ReadyForQuery."""
        assert self.inbox is not None
        for _ in range(MAX_GREETINGS):
            kind, body = await self.inbox.wait_message(MAX_MESSAGE)
            if kind == codes.READY_FOR_QUERY:
                if parse_ready(body) != codes.IDLE:
                    raise ProtocolError("the server is in a transaction right after login")
                return
            self._note(kind, body)
        raise ProtocolError("the server talks and talks and does not get ready")

    def _note(self, kind: int, body: bytes) -> None:
        owner = self.owner
        if kind == codes.PARAMETER_STATUS:
            note_reported(owner.parameters, *parse_parameter_status(body))
        elif kind == codes.BACKEND_KEY_DATA:
            owner.key = parse_backend_key(body)
            owner.pid = int.from_bytes(owner.key[:4], "big")
        elif kind == codes.ERROR_RESPONSE:
            raise ServerRefused(parse_error(body))
        elif kind == codes.DATA_ROW:
            self._rows = (self._rows + build_message(kind, body))[-MAX_ANSWER:]
        elif kind not in _GREETINGS:
            raise ProtocolError(f"the server sends a message of type {chr(kind)!r} during login")

    def describe(self) -> str:
        """Our end of it, for the log."""
        assert self.inbox is not None
        local = self.inbox.transport.get_extra_info("sockname")
        return str(Address(*local[:2])) if isinstance(local, tuple) else f"{UNIX}:{self.owner.address.port}"

    async def hang_up(self) -> None:
        """Returns when the server has hung up too; one that takes longer than LAST_WORDS is cut off."""
        if self.inbox is None:
            return
        self.inbox.close()
        try:
            async with asyncio.timeout(LAST_WORDS):
                await self.inbox.wait_closed()
        except TimeoutError:
            self.inbox.transport.abort()


_GREETINGS = frozenset(
    {
        codes.NOTICE_RESPONSE,
        codes.NOTIFICATION_RESPONSE,
        codes.ROW_DESCRIPTION,
        codes.COMMAND_COMPLETE,
        codes.EMPTY_QUERY_RESPONSE,
    }
)
