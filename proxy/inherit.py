"""
Taking over: what a new process does that was started with -R while an older one serves.

Theory. It begins before there is an event loop, and before we become a daemon, so that whoever starts us sees what is
wrong: `claim` calls on the Unix socket of the older process and gets its listening sockets. Somebody else may have put
a socket in that place (in /tmp, or under an abstract name, anybody can): so the kernel is asked whose it is, and only
our own user's or root's will do. We believe nothing more than that user could do to us anyway: what comes is data.

Nothing changes until we accept clients ourselves and say so (`begin`), and repeat the proof that we were lent with the
listening sockets (proof.py); before that we say no more than that we live. Then clients come, each with its socket. One
is ours when TAKEN is in the kernel's hands, and not a moment before we read or write a byte of it: so at any moment,
with either process dying, a client has one master or none, and never two.

Should the older one take everything back, since we were silent for too long, we serve whom we have and end with them.
"""

import asyncio
import errno
import os
import socket
from typing import Any

from protocol.prepared import Statement
from protocol.startup import build_succession_request
from proxy.client import Client
from proxy.config.settings import Settings
from proxy.courier import VERSION, Broken, Courier, Frame, Kind, Reader, close_all, number_in, peer_of, wait_frame
from proxy.daemon import StartFailed
from proxy.elders import People, Row
from proxy.inbox import Inbox
from proxy.letters import Receiver
from proxy.listener import socket_path
from proxy.luggage import Body, Declined, unpack_client, unpack_pool, unpack_statement
from proxy.proof import borrow_proof
from proxy.stalls import Stall
from proxy.states import Closing, Leaving, PoolState

PATIENCE = 10.0  # seconds for each word of the older process before we are up
NUMBERS_APART = 100_000  # between its last number on the console and our first: it goes on counting

_NOBODY = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)


def claim(settings: Settings, users: set[int]) -> "Inheritance | None":
    """Ask the process that serves for its place; it must be of one of `users`. None: nobody is there. StartFailed."""
    if not settings.unix_socket_dir:
        raise StartFailed("-R finds the running process by its Unix socket, and unix_socket_dir is empty")
    path = socket_path(settings)
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.settimeout(PATIENCE)
    try:
        line.connect(path)
    except OSError as error:
        line.close()
        if error.errno in _NOBODY:
            return None
        raise StartFailed(f"-R: cannot reach the running process at {_printable(path)}: {error}") from error
    try:
        return _ask(line, _printable(path), users)
    except (OSError, Broken) as error:
        line.close()
        raise StartFailed(f"-R: who answers at {_printable(path)} hands nothing over: {error}") from error


def _ask(line: socket.socket, path: str, users: set[int]) -> "Inheritance":
    pid, uid = peer_of(line)
    if uid not in users:
        raise Broken(f"it is process {pid} of user id {uid}, whom we do not trust")
    line.sendall(build_succession_request(VERSION))
    reader = Reader()
    first = wait_frame(line, reader)
    try:
        if first.kind is Kind.REFUSAL:
            raise Broken(str(first.body.get("why")))
        if first.kind is not Kind.TESTAMENT:
            raise Broken(f"it begins with {first.kind.name}")
        return Inheritance(line, reader, first, _wait_early(line, reader))
    except (OSError, Broken):
        reader.close()
        close_all(first.descriptors)
        raise


def _wait_early(line: socket.socket, reader: Reader) -> list[Frame]:
    """Up to its servers: pools, which are counted with them."""
    early: list[Frame] = []
    while not early or early[-1].kind is not Kind.SERVERS:
        early.append(wait_frame(line, reader))
    return early


def _printable(path: str) -> str:
    return "@" + path[1:] if path.startswith("\0") else path


class Inheritance:
    """What an older process leaves to us, from its first word until it is gone."""

    def __init__(self, line: socket.socket, reader: Reader, testament: Frame, early: list[Frame]) -> None:
        body, descriptors = testament.body, testament.descriptors
        count = number_in(body, "listeners")
        if not 0 < count < len(descriptors):
            raise Broken("it has no listening sockets, or no proof")
        self.pid = number_in(body, "pid")
        self._proof = borrow_proof(descriptors.pop())
        self.is_agreed = False  # we have said READY: from then on we say more than that we live
        self.listeners = [socket.socket(fileno=each) for each in descriptors[:count]]
        self.pid_file = str(body.get("pid_file") or "")
        self._pid_descriptor = descriptors[count] if self.pid_file and len(descriptors) > count else -1
        self._body = body
        self._line = line
        self._reader = reader
        self._early = early
        self._proxy: Any = None
        self._courier: Any = None
        self._letters: Any = None
        self._texts: dict[int, Body] = {}  # statements as they travelled, by number
        self._made: dict[tuple[Any, int], Statement] = {}  # and as they are here, by pool and number
        self._unconfirmed: dict[Client, socket.socket] = {}  # TAKEN is not in the kernel's hands yet
        self._taken = self._declined = 0
        self._is_done = False

    def has_pid_file(self, path: str) -> bool:
        """Is the lock on that file among what we get?"""
        return self._pid_descriptor >= 0 and self.pid_file == path

    def prepare(self, proxy: Any) -> None:
        """Before we open servers: how many are there already, and what they are like."""
        self._proxy = proxy
        proxy.kin.elder = self
        proxy.last_number = int(self._body.get("number") or 0) + NUMBERS_APART
        proxy.disabled.update(map(str, self._body.get("disabled") or ()))
        self._letters = Receiver(proxy, self.send)
        proxy.notifier.adopt(str(self._body.get("notify") or ""))
        proxy.log.log(f"taking over from process {self.pid}: {len(self.listeners)} listening sockets")
        if list(self._body.get("listen_addr") or ()) != list(proxy.settings.listen_addr):
            proxy.log.warning("listen_addr has changed: the sockets of the running process stay; this needs a restart")
        self._courier = Courier(self._line, self._reader, self.hear, self.lost)
        for frame in self._early:
            self.hear(frame)

    def begin(self) -> None:
        """We accept clients from now on."""
        proxy = self._proxy
        has_pid_file = proxy.pid_file is not None and self.has_pid_file(proxy.pid_file.path)
        if has_pid_file:
            proxy.pid_file.inherit(self._pid_descriptor)
        elif self._pid_descriptor >= 0:
            os.close(self._pid_descriptor)
        self.send(Kind.READY, {"pid": os.getpid(), "pid_file": has_pid_file, "proof": self._proof})
        self.is_agreed = True

    def send(self, kind: Kind, body: Body | None = None) -> None:
        self._courier.send(kind, body)

    # What it says.

    def hear(self, frame: Frame) -> None:
        if frame.kind is Kind.CLIENT and len(frame.descriptors) == 1:
            self._take(frame.body, socket.socket(fileno=frame.descriptors[0]))
        elif frame.descriptors:
            close_all(frame.descriptors)
            raise Broken(f"descriptors with {frame.kind.name}")
        elif frame.kind is Kind.STATEMENT:
            self._texts[number_in(frame.body, "number")] = frame.body
        elif frame.kind is Kind.SERVERS:
            self._learn(frame.body)
        elif frame.kind is Kind.POOL:
            self._learn_pool(frame.body)
        elif frame.kind is Kind.CHANNELS:
            self._letters.listen(frame.body)
        elif frame.kind is Kind.LETTERS:
            self._letters.deliver(number_in(frame.body, "number"), frame.body)
        elif frame.kind is Kind.PULSE:
            self.send(Kind.PULSE)
        elif frame.kind is Kind.DONE:
            self._is_done = True
        elif frame.kind is Kind.SEVERED:
            self._give_up()
        else:
            self._proxy.kin.hear(frame, self)

    def _learn(self, body: Body) -> None:
        try:
            rows = [(str(database), str(user), int(one), int(two)) for database, user, one, two in body["rows"]]
            people = [(str(database), str(user), int(count)) for database, user, count in body["people"]]
            clients = int(body["clients"])
        except (KeyError, TypeError, ValueError) as error:
            raise Broken(f"a count that is none: {error}") from error
        self._count(clients, rows, people)

    def _count(self, clients: int, rows: list[Row], people: list[People]) -> None:
        """So much is left there: those who have waited longest may have what is free now."""
        pools = self._proxy.pools
        pools.elders.learn(clients, rows, people)
        for pool in sorted(pools, key=lambda each: each.longest_wait, reverse=True):
            pool.grow()

    def _learn_pool(self, body: Body) -> None:
        try:
            unpack_pool(self._proxy, body)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Broken(f"a pool that is none: {error}") from error

    # Clients.

    def _take(self, body: Body, connected: socket.socket) -> None:
        connected.setblocking(False)
        number = number_in(body, "number")
        try:
            if self._proxy.leaving not in (None, Leaving.SUCCEEDED):
                raise Declined("the new process is ending")
            client = unpack_client(self._proxy, body, self._find_statement)
            self._subscribe(client, body)
        except Declined as no:
            self._decline(number, connected, str(no))
            return
        except Exception as error:  # a client without an answer would be read by nobody
            self._proxy.tasks.report("a client could not be taken over", error)
            self._decline(number, connected, "a defect of the new process; see its log")
            return
        self._proxy.cancels.register(client)
        self._proxy.pools.elders.came(client.pool.database, client.user)
        self._unconfirmed[client] = connected
        self._courier.send(Kind.TAKEN, {"number": number}, then=lambda: self._adopt(client, connected))

    def _decline(self, number: int, connected: socket.socket, why: str) -> None:
        connected.close()
        self._declined += 1
        self._courier.send(Kind.DECLINED, {"number": number, "why": why})

    def _subscribe(self, client: Client, body: Body) -> None:
        """To the channels it hears. Declined."""
        channels = body.get("channels") or []
        if channels:
            client.stall = Stall(client)
            try:
                self._letters.subscribe(client, list(map(str, channels)))
            except (TypeError, ValueError) as error:
                raise Declined(str(error)) from error

    def _find_statement(self, client: Client, number: int) -> Statement:
        """As it is in `client`'s pool here."""
        statement = self._made.get((client.pool, number))
        if statement is None:
            text = self._texts.get(number)
            if text is None:
                raise Declined(f"statement {number} has not come")
            statement = self._made[client.pool, number] = unpack_statement(client, text)
        return statement

    def _adopt(self, client: Client, connected: socket.socket) -> None:
        """It is ours: the older process will hear that, whatever becomes of us."""
        self._taken += 1
        del self._unconfirmed[client]
        coming = self._proxy.tasks.start(self._connect(client, connected), name="heir")
        # If we end before it is here nobody else closes its socket.
        coming.add_done_callback(lambda task: connected.close() if task.cancelled() else None)

    async def _connect(self, client: Client, connected: socket.socket) -> None:
        try:
            _, inbox = await asyncio.get_running_loop().connect_accepted_socket(Inbox, connected)
        except OSError as error:
            self._drop(client, connected)
            self._proxy.log.for_socket(repr(client)).warning(f"lost while it was handed over: {error}")
            return
        client.pool.clients.add(client)
        inbox.hand_over_to(client)
        if client.pool.state is PoolState.DYING:  # since it came
            client.close(Closing.DATABASE_GONE)

    def _drop(self, client: Client, connected: socket.socket) -> None:
        connected.close()
        if client.stall is not None:
            self._proxy.find_hub(client.pool).forget(client)
        self._proxy.client_left(client)

    # The end.

    def _give_up(self) -> None:
        """The older process has taken back what we had not confirmed, and the service with it."""
        self._is_done = True
        proxy = self._proxy
        proxy.log.warning(f"process {self.pid} serves again, since we were silent: we end with the clients we have")
        for listener in proxy.listeners:
            listener.rest()
        if proxy.pid_file is not None:
            proxy.pid_file.lend()
        proxy.notifier.hand_over(self.pid)
        if proxy.leaving is None:
            proxy.leave(Leaving.WAIT_FOR_CLIENTS)

    def lost(self, why: str) -> None:
        """It is gone, and its servers with it."""
        proxy = self._proxy
        proxy.kin.lose(self)
        for client, connected in self._unconfirmed.items():
            self._drop(client, connected)
        self._unconfirmed.clear()
        self._letters.finish()
        self._texts.clear()
        self._made.clear()
        words = f"{self._taken} clients came over, {self._declined} were declined"
        if self._is_done:
            proxy.log.log(f"nothing more will come from process {self.pid}: {words}")
        else:
            proxy.log.warning(f"process {self.pid} is lost ({why}), and those with it: {words}; we go on")
        self._count(0, [], [])
        proxy.check_drained()
