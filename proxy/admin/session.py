"""
One operator at the console: who, since when, and how what he waits for is called off.

Theory. To the rest of the proxy a session looks enough like a client: it has a cancel key, a number and a line in
SHOW CLIENTS; but it holds no server and is in no pool. Some commands answer late: PAUSE, when the last transaction is
over. Meanwhile the operator may lose patience (^C, a CancelRequest with our key) or his connection; both must be
heard, or the databases would stay paused for somebody who is no longer there. So waiting is a race of three.
"""

import asyncio
import re
from collections.abc import Coroutine
from typing import Any

from protocol import sqlstate
from protocol.backend import build_error
from protocol.errors import Refused
from proxy.admin.grammar import HELP
from proxy.admin.rights import Right, find_right
from proxy.inbox import Inbox, PeerGone
from proxy.log import Tag, tag_client
from proxy.states import Closing

_TYPED = re.compile(r"(invalid command '\S++)\s.++", re.DOTALL).match


class Session:
    """`database` is the console's name as the operator wrote it. Times as in `Client`."""

    server = None  # it never has one, and nothing to cancel there

    def __init__(self, inbox: Inbox, proxy: Any, visitor: Any, address: tuple[str, int], key: bytes) -> None:
        self.inbox = inbox
        self.proxy = proxy
        self.user: str = visitor.user
        self.database: str = visitor.database
        self.is_owner: bool = visitor.is_owner
        self.application_name: str = visitor.wishes.get("application_name", "")
        self.address = address
        self.key = key
        self.number = 0  # its id, given by the proxy
        self.connected_at: float = proxy.clock.now()
        self.request_at: float = self.connected_at
        self.remarks: list[str] = []  # what is to be said with the answer to this command
        self._called_off: asyncio.Future[None] | None = None

    @property
    def tag(self) -> Tag:
        """Who it is, for the log."""
        return tag_client(self.address, self.database, self.user)

    def __repr__(self) -> str:
        return str(self.tag)

    @property
    def right(self) -> Right:
        """What it may do now: a reload may have changed that."""
        return find_right(self.proxy.settings, self.user, is_owner=self.is_owner)

    def log(self, text: str) -> None:
        self.proxy.log.for_socket(self.tag).log(text)

    def build_refusal(self, no: Refused) -> bytes:
        """The error for what was refused. The log has it too, but not all that was typed: that may hold a password."""
        if self.proxy.settings.log_pooler_errors:
            typed = _TYPED(no.sentence.removesuffix(HELP))
            sentence = f"{typed[1]} ...{HELP}" if typed else " ".join(filter(None, (no.sentence, no.note)))
            self.proxy.log.for_socket(self.tag).warning(f"pooler error: {sentence}")
        return build_error("ERROR", no.sqlstate, no.sentence, detail=no.detail, hint=no.hint)

    async def wait(self, hope: Coroutine[Any, Any, None]) -> None:
        """Until `hope` is done. Refused (57014): a cancel request came first. PeerGone: the operator left."""
        tasks = self.proxy.tasks
        self._called_off = asyncio.get_running_loop().create_future()
        done = tasks.start(hope, name="console: wait")
        gone = tasks.start(self.inbox.wait_gone(), name="console: watch")
        try:
            await asyncio.wait({done, gone, self._called_off}, return_when=asyncio.FIRST_COMPLETED)
            is_done, is_called_off = done.done(), self._called_off.done()
        finally:
            self._called_off = None
            done.cancel()
            gone.cancel()
        if is_called_off and not is_done:
            raise Refused(sqlstate.QUERY_CANCELED, "canceling statement due to user request")
        if not is_done:
            raise PeerGone("the operator left")

    async def wait_turn(self) -> None:
        """Between two slices of an answer: the streams first. PeerGone: nobody is there to hear the rest."""
        await asyncio.sleep(0)
        await self.inbox.wait_writable()
        if not self.inbox.is_alive:
            raise PeerGone("the operator left in the middle of an answer")

    def cancel_waiting(self) -> bool:
        """A CancelRequest with our key has come. False: there was nothing to call off."""
        if self._called_off is None or self._called_off.done():
            return False
        self._called_off.set_result(None)
        return True

    def close(self, why: Closing) -> None:
        """Tell the operator why, and hang up."""
        self.inbox.write(build_error("FATAL", sqlstate.ADMIN_SHUTDOWN, why.value))
        self.inbox.close()
