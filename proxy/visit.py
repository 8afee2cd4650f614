"""
One connection from its first byte until it is a client, a console, or gone.

Theory. Whatever goes wrong in a login ends here, in one place: the visitor gets an error with a SQLSTATE and never a
traceback, the log gets a line, the books are put right, the socket is closed. `login.py` only raises. The whole login
stands under `client_login_timeout`; a console, once let in, may stay.
"""

import asyncio
import contextlib
from typing import Any

from protocol import sqlstate
from protocol.backend import build_error
from protocol.errors import ProtocolError, Refused
from protocol.replication import parse_replication
from protocol.startup import CancelRequest, Startup, SuccessionRequest, negotiate
from proxy import encryption, login, replication, succession
from proxy.admin.console import converse
from proxy.admin.rights import check_login, find_right
from proxy.asking import Asked
from proxy.auth.oauth import TokenWanted
from proxy.auth.owner import is_owner
from proxy.clock import span
from proxy.config.entries import CONSOLES
from proxy.explain import Explanation
from proxy.express import Rules
from proxy.failing import LoginFailed
from proxy.handshake import HandshakeFailed
from proxy.inbox import HIGH_WATER, Inbox, PeerGone
from proxy.log import Voice, tag_client
from proxy.peers import UNKNOWN
from proxy.pool import Pool
from proxy.states import Closing
from proxy.strangers import TOO_MANY
from proxy.tls import describe

_NOT_LET_IN = frozenset({sqlstate.INVALID_PASSWORD, sqlstate.INVALID_AUTHORIZATION, sqlstate.INVALID_CATALOG})

LAST_WORDS = 1.0  # seconds a refused visitor has to read why


class Visit:
    """One connection until it is a client: what went wrong is said here, to the visitor and to the log."""

    def __init__(
        self,
        proxy: Any,
        inbox: Inbox,
        address: tuple[str, int],
        arrived_at: float | None = None,
        declined: int = 0,
        asked: Asked | None = None,
    ) -> None:
        self.proxy = proxy
        self.inbox = inbox
        self.address = address
        self.arrived_at: float = proxy.clock.now() if arrived_at is None else arrived_at
        self._declined = declined  # requests for encryption, before we came
        self._asked = asked  # on the doorstep, where something unusual has come in between
        self.startup: Startup | None = None if asked is None else asked.startup
        self._meant = ""  # the database of the client whose query is to be canceled
        self.visitor: login.Visitor | None = None
        self.is_counted = False
        self.is_handed_over = False
        self._scope: asyncio.Timeout | None = None
        self._is_dropped = False
        self._is_refused = False  # it has been told, and has a moment to read it
        inbox.most = HIGH_WATER
        proxy.callers += 1
        proxy.strangers.visits[self] = None

    async def run(self) -> None:
        """From the first byte to the first query, or to the end of a console."""
        try:
            await self.serve()
        finally:
            self.finish()

    async def serve(self) -> None:
        if not await self._is_served():
            await self.inbox.wait_heard(LAST_WORDS)

    async def turn_away(self, error: ProtocolError) -> None:
        """It is refused for what it said to somebody before us."""
        try:
            self._refuse(sqlstate.PROTOCOL_VIOLATION, str(error))
            await self.inbox.wait_heard(LAST_WORDS)
        finally:
            self.finish()

    async def _is_served(self) -> bool:
        """False: it was refused, and has been told."""
        try:
            async with asyncio.timeout(self._find_time_left()) as self._scope:
                visitor = await self._log_in(self._scope)
            if visitor is not None:
                self.inbox.most = None
                await converse(self.inbox, self.proxy, visitor, self.address)
        except Refused as no:
            self._log_failed_login(no)
            self._refuse(no.sqlstate, no.sentence, no.detail, no.hint, note=no.note)
        except LoginFailed as failed:
            self._refuse(failed.sqlstate, failed.sentence, failed.detail, failed.hint)
        except ProtocolError as error:
            self._refuse(sqlstate.PROTOCOL_VIOLATION, str(error))
        except HandshakeFailed as failed:
            self.voice.warning(f"TLS handshake error: {failed}")
            return True
        except TimeoutError:
            if self._is_dropped:
                self.inbox.write(TOO_MANY)
                return True
            self._refuse_late()
        except PeerGone as gone:
            if self.startup is not None:  # else a port scan or a health check, not worth a line
                self._log_closing(Closing.CLIENT_EOF.value)
                self.voice.debug(str(gone))
            return True
        else:
            return True
        return False

    def drop(self) -> None:
        """There are too many who have not logged in."""
        self._is_dropped = True
        if self._is_refused:
            self.inbox.close()  # it has been told
        elif self._scope is not None:
            with contextlib.suppress(RuntimeError):  # its time is over just now
                self._scope.reschedule(asyncio.get_running_loop().time())

    def _find_time_left(self) -> float | None:
        if self._is_dropped:
            return 0.0
        limit: float | None = self.proxy.settings.client_login_timeout
        return None if limit is None else max(limit - (self.proxy.clock.now() - self.arrived_at), 0.0)

    async def _log_in(self, scope: asyncio.Timeout) -> login.Visitor | None:
        """A visitor who wants the console; None when everything is done already."""
        if self._asked is not None:
            await self._go_on(self._asked)
            return None
        proxy, inbox = self.proxy, self.inbox
        request, packet = await encryption.wait_request(inbox, proxy, self.address, self._declined)
        if isinstance(request, CancelRequest):
            meant = proxy.cancels.find(request.key)
            if meant is not None:
                self._meant = meant.tag.database
                proxy.strangers.leave(self)  # he knows a secret of ours
            result = await proxy.cancels.serve(request.key)
            if result is not UNKNOWN or proxy.strangers.wrong_keys.is_time():
                self._log_closing(result)
            return None
        if isinstance(request, SuccessionRequest):
            inbox.most = None
            succession.receive(proxy, inbox, self.address, request.version)
            self.is_handed_over = True
            return None
        self.startup = request
        rules = proxy.express.begin()
        is_console = request.database in CONSOLES
        has_console = is_console and self._is_owner(request.user)
        if not is_console:
            login.check_max_clients(proxy, coming=1)
            await proxy.suspension.wait_over(scope)
        asked = parse_replication(request.parameters.get("replication")).asked
        tls = describe(inbox.transport)
        login.log_attempt(proxy, self.address, request.database, request.user, asked, tls)
        async with proxy.strangers.guesses.attempt(self.address, request.user, inbox):
            visitor = self.visitor = await login.wait_visitor(inbox, proxy, request, self.address, is_owner=has_console)
        proxy.strangers.leave(self)
        if is_console:
            return visitor
        await self._let_in(visitor, packet, rules, is_plain=negotiate(request) is None and not tls)
        return None

    async def _go_on(self, asked: Asked) -> None:
        """From where the doorstep has stopped."""
        proxy, inbox = self.proxy, self.inbox
        async with proxy.strangers.guesses.attempt(self.address, asked.startup.user, inbox, asked.attempt):
            visitor = self.visitor = await login.wait_proven(inbox, proxy, asked, self.address)
        proxy.strangers.leave(self)
        await self._let_in(visitor, asked.packet, asked.rules, is_plain=True)

    async def _let_in(self, visitor: login.Visitor, packet: bytes, rules: Rules, *, is_plain: bool) -> None:
        """Somebody has shown who he is. `is_plain`: the next one who says the same hears the same."""
        proxy, inbox = self.proxy, self.inbox
        self._count()
        login.check_max_clients(proxy)
        phase: asyncio.Protocol
        if visitor.replication:
            phase = await replication.welcome(inbox, proxy, visitor, self.address)
        else:
            phase = client = await login.welcome(inbox, proxy, visitor, self.address)
            client.connected_at = self.arrived_at  # its age is that of its connection, not of its login
            if is_plain:
                proxy.express.remember(packet, visitor, client.pool, rules)
        self._discount()
        self.is_handed_over = True
        inbox.hand_over_to(phase)

    def _is_owner(self, user: str) -> bool:
        """Of the console. Refused: somebody else calls himself by its name."""
        if user not in CONSOLES:
            return False
        is_own = is_owner(self.inbox, user, self.address)
        check_login(find_right(self.proxy.settings, user, is_owner=is_own))
        if is_own and self.proxy.settings.log_connections:
            self.voice.log("pgbouncer access from unix socket")
        return is_own

    def _count(self) -> None:
        self.is_counted = True
        self.proxy.visitors += 1

    def _discount(self) -> None:
        if self.is_counted:
            self.is_counted = False
            self.proxy.visitors -= 1

    def finish(self) -> None:
        self.proxy.callers -= 1
        self.proxy.strangers.leave(self)
        self._discount()
        if not self.is_handed_over:
            self.inbox.close()
            self.proxy.check_drained()

    def _refuse_late(self) -> None:
        """client_login_timeout: was it the visitor who took so long, or PostgreSQL?"""
        visitor, pool = self.visitor, self._find_pool()
        if visitor is None or pool is None:
            taken = span(self.proxy.clock.now() - self.arrived_at)
            detail = f"The login has taken {taken}, which is more than client_login_timeout allows."
            self._refuse(sqlstate.QUERY_CANCELED, "client_login_timeout", detail)
            return
        explanation = Explanation(pool)
        reason, is_down = explanation.tell(visitor.user), explanation.is_server_down
        sentence = "client_login_timeout (server down)" if is_down else "client_login_timeout"
        self._refuse(reason.sqlstate, sentence, reason.detail, reason.hint, note=explanation.tell(None).detail)

    def _find_pool(self) -> Pool | None:
        """Where the visitor waits: whoever has shown who he is, and is no client yet, waits for a server."""
        database = self.proxy.find_database(self.visitor.database) if self.visitor is not None else None
        if database is None or self.visitor is None:
            return None
        pool: Pool | None = self.proxy.pools.find_old(database, self.visitor.user)
        return pool

    def _log_failed_login(self, no: Refused) -> None:
        startup = self.startup
        is_failed = no.sqlstate in _NOT_LET_IN and not isinstance(no, TokenWanted)
        if is_failed and startup is not None and self.proxy.settings.log_connections:
            self.voice.log(f"login failed: db={startup.database} user={startup.user}")

    def _refuse(self, state: str, sentence: str, detail: str = "", hint: str = "", *, note: str = "") -> None:
        self._is_refused = True
        self._log_closing(sentence)
        if self.proxy.settings.log_pooler_errors:
            self.voice.warning(f"pooler error: {sentence}: {note}" if note else f"pooler error: {sentence}")
        self.inbox.write(build_error("FATAL", state, sentence, detail=detail, hint=hint))

    def _log_closing(self, reason: str) -> None:
        if self.proxy.settings.log_disconnections:
            self.voice.closing(reason, self.proxy.clock.now() - self.arrived_at)

    @property
    def voice(self) -> Voice:
        """Our lines in the log."""
        startup = self.startup
        database, user = (startup.database, startup.user) if startup is not None else (self._meant, "")
        voice: Voice = self.proxy.log.for_socket(tag_client(self.address, database, user))
        return voice
