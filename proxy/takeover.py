"""
Being taken over: what the running process does when a new one wants its place (`pgshuttle -R`).

Theory. Who may ask for that is decided in succession.py. The new process gets our listening sockets at once, and
nothing changes until it says that it accepts (READY): a connection that arrives meanwhile is ours, and one that comes
later lies in the same queue. With READY it proves that it has got the descriptors (proof.py): until then it may be a
stranger behind a forwarder of bytes, so it is told what pools there are and nothing of clients, and heard in nothing
but that it lives; a wrong proof ends it.

From READY on we take nobody new, and hand over our clients, each when it is at rest (luggage.py): reading it is paused,
so what it says next stays in the kernel; its socket and its state are sent; and only when the new process has said
TAKEN, which it does before it reads a byte, we forget it. Who cannot go stays and is served here, and goes when it can.
Our servers do not travel: they are closed as soon as they are idle, and the new process is told how many are left. When
nobody is left we end.

Who starts a new process and at once tells us to end means both: what is the service's (paths, clients) goes over.

If the new process dies, or does not answer for PATIENCE, everything it has not taken is ours again, and we accept as
before: our listening sockets were only resting.
"""

import asyncio
import enum
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from protocol.prepared import Statement
from proxy.courier import VERSION, Broken, Frame, Kind, close_all, number_in
from proxy.ear import EarPool
from proxy.elders import People, Row
from proxy.letters import GRACE, Sender
from proxy.lift import lift
from proxy.lookup_pool import LookupPool
from proxy.luggage import find_hindrance, pack_client, pack_pool, pack_statement
from proxy.proof import is_proven, lend_all
from proxy.states import GONE, Closing, Leaving, PoolState

WINDOW = 64  # clients on their way at once
FIRST_DELAY, LAST_DELAY = 0.01, 0.5  # seconds between two rounds, the longer the less happens
PULSE = 1.0  # seconds between two questions whether it lives
PATIENCE = 10.0  # seconds without a word from it
START_PATIENCE = 120.0  # the same before it accepts: it may have many servers to open


class Phase(enum.Enum):
    """How far it has come."""

    ASKED = "the new process has our sockets and does not accept yet"
    YIELDED = "the new process accepts, our clients go over"
    OVER = "one of us is gone"


class Takeover:
    """One new process, from its question until one of us is gone."""

    def __init__(self, proxy: Any, pid: int) -> None:
        self.phase = Phase.ASKED
        self._proxy = proxy
        self._now = proxy.clock.now
        self._pid = pid
        self._proof = ""  # what it was lent, and must repeat
        self.is_agreed = False  # it has: it may be told everything, and be heard
        self._courier: Any = None
        self._heard_at = self._asked_at = self._now()
        self._delay = FIRST_DELAY
        self._letters = Sender(proxy, self.send)
        self._travelling: dict[int, tuple[Any, float]] = {}  # clients it has not confirmed, and since when, by number
        self._lingering: dict[Any, None] = {}  # those it has, for whom we still listen a moment
        self._declined: WeakSet[Any] = WeakSet()
        self._told: WeakKeyDictionary[Statement, tuple[int, bytes | None, bool, bool]] = WeakKeyDictionary()
        self._last_statement = 0
        self._servers: tuple[int, list[Row], list[People]] = (-1, [], [])  # what it was told last
        self._gone_over = 0
        self._is_summed_up = False
        self._is_ending = False  # it said that it will leave, or has an heir itself: nobody need take its place
        self._takes_nobody = False
        self.is_settled = False  # whoever we accepted last has been seen by now

    def begin(self, courier: Any) -> None:
        """Give it what it needs to begin."""
        self._courier = courier
        try:
            self._testify()
            for pool in self._proxy.pools.serving():
                self.send(Kind.POOL, pack_pool(pool))
        except (OSError, ValueError) as error:
            why = f"it cannot be given what it needs: {error}"
            self.send(Kind.REFUSAL, {"why": why})
            courier.cut(why)
            return
        self._tell_servers()
        self._round()

    def send(self, kind: Kind, body: dict[str, Any] | None = None) -> None:
        self._courier.send(kind, body)

    def _testify(self) -> None:
        proxy = self._proxy
        lent = [listener.socket.fileno() for listener in proxy.listeners]
        pid_file = proxy.pid_file
        has_pid_file = pid_file is not None and pid_file.descriptor >= 0
        if has_pid_file:
            lent.append(pid_file.descriptor)
        body = {
            "version": VERSION,
            "pid": os.getpid(),
            "listeners": len(proxy.listeners),
            "listen_addr": list(proxy.settings.listen_addr),
            "pid_file": pid_file.path if has_pid_file else "",
            "notify": proxy.notifier.address,
            "number": proxy.last_number,
            "disabled": sorted(proxy.disabled),
        }
        self._proof, copies = lend_all(lent)
        self._courier.send(Kind.TESTAMENT, body, copies)

    # What it says.

    def hear(self, frame: Frame) -> None:
        self._heard_at = self._now()
        if frame.descriptors:
            close_all(frame.descriptors)
            raise Broken("a descriptor that nobody asked for")
        if not self.is_agreed and frame.kind not in (Kind.PULSE, Kind.READY):
            raise Broken(f"{frame.kind.name} before it accepts")
        if frame.kind is Kind.TAKEN:
            self._part(self._arrived(frame))
        elif frame.kind is Kind.DECLINED:
            self._decline(self._arrived(frame), str(frame.body.get("why")))
        elif frame.kind is Kind.HEARING:
            self._letters.heard(frame.body)
        elif frame.kind is Kind.READY:
            if not is_proven(self._proof, frame.body.get("proof")):
                raise Broken("it has not got our descriptors: only bytes go through to it")
            self._yield(number_in(frame.body, "pid"), has_pid_file=bool(frame.body.get("pid_file")))
        elif frame.kind is Kind.LEAVING:
            self._heed_leaving(has_heir=bool(frame.body.get("has_heir")))
        elif frame.kind is not Kind.PULSE:
            self._proxy.kin.hear(frame, self)

    def _arrived(self, frame: Frame) -> Any:
        """The client it speaks of; None when that is not on its way."""
        return self._travelling.pop(number_in(frame.body, "number"), (None, 0.0))[0]

    def _yield(self, pid: int, *, has_pid_file: bool) -> None:
        """It accepts clients: from here on we do not."""
        proxy = self._proxy
        if self.phase is not Phase.ASKED:
            raise Broken("nothing is to be had here any more")
        self.phase = Phase.YIELDED
        self.is_agreed = True
        self._pid = pid
        proxy.leaving = proxy.leaving or Leaving.SUCCEEDED
        for listener in proxy.listeners:
            listener.rest()
        if has_pid_file:
            proxy.pid_file.lend()
        proxy.notifier.hand_over(pid)
        if proxy.kin.elder is not None:
            proxy.kin.elder.send(Kind.LEAVING, {"has_heir": True})
        proxy.log.log(f"process {pid} has taken over and accepts clients: {proxy.client_count} of ours go over at rest")
        self._delay = FIRST_DELAY

    def bequeath(self) -> None:
        """We are told to end: the paths of the socket and the pid file are its own, also if it does not accept yet."""
        for listener in self._proxy.listeners:
            listener.rest()
        if self.phase is Phase.ASKED and self._proxy.pid_file is not None:
            self._proxy.pid_file.lend()

    def _heed_leaving(self, *, has_heir: bool) -> None:
        """It will go, and nobody need take its place: another one has, or the service ends."""
        self._is_ending = True
        if not has_heir:
            self._takes_nobody = True
            self._proxy.close_listeners()

    # Rounds.

    def _round(self) -> None:
        """Whatever can be done now; again a little later."""
        if self.phase is Phase.OVER:
            return
        try:
            self._work()
        except Exception as error:
            self._proxy.tasks.report("handing over stumbled and goes on", error)
        asyncio.get_running_loop().call_later(self._delay, self._round)

    def _work(self) -> None:
        now = self._now()
        if why := self._find_fault(now):
            self._courier.cut(why)
            return
        is_busy = self.phase is Phase.YIELDED and self._hand_over()
        is_busy |= self._tell_servers()
        if now - self._asked_at > PULSE:
            self._asked_at = now
            self.send(Kind.PULSE)
        self._delay = FIRST_DELAY if is_busy else min(self._delay * 2, LAST_DELAY)

    def _find_fault(self, now: float) -> str:
        """Why it cannot be relied upon any more; empty when it can."""
        patience = START_PATIENCE if self.phase is Phase.ASKED else PATIENCE
        if now - self._heard_at > patience:
            return f"it has not answered for {patience:g} s"
        _, sent_at = next(iter(self._travelling.values()), (None, now))
        return "it does not say what has become of a client" if now - sent_at > PATIENCE else ""

    def _hand_over(self) -> bool:
        """Was anybody sent?"""
        was_sent = False
        if not self._takes_nobody:
            for client in self._find_ready():
                was_sent |= self._send_client(client)
        for pool in self._proxy.pools:
            pool.close_idle(Closing.SUCCEEDED)
        if self._delay == LAST_DELAY and not self._is_summed_up:
            self._sum_up()
        if self.is_settled:
            self._proxy.check_drained()
        self.is_settled = True
        return was_sent

    def _find_ready(self) -> Iterator[Any]:
        """Clients that can go now, as many as may be on their way."""
        for pool in self._proxy.pools.serving():
            for client in list(pool.clients):
                if len(self._travelling) >= WINDOW:
                    return
                if client not in self._declined and not find_hindrance(client) and self._is_alone(client):
                    yield client

    def _is_alone(self, client: Any) -> bool:
        """Does nobody on his way have its number, and does it wait for no letters?"""
        is_taken: bool = client.number in self._travelling
        return not is_taken and self._letters.may_go(client)

    def _send_client(self, client: Any) -> bool:
        """From here on nobody here finds it, and nothing it says is read."""
        body = pack_client(client, self._number_of)
        client.hold()
        body["channels"] = self._letters.hold(client)
        try:
            self._courier.send(Kind.CLIENT, body, [lift_descriptor(client)])
        except OSError:  # no descriptor is left: there may be one later
            self._take_back(client)
            return False
        except ValueError as error:
            self._decline(client, str(error))
            return False
        client.pool.clients.discard(client)
        self._travelling[client.number] = (client, self._now())
        return True

    def _number_of(self, statement: Statement, generation: int) -> int:
        """It is told of each statement once, and again if something else is known of it."""
        is_current = statement.context is not None and statement.context.generation == generation
        known = (statement.description, statement.is_outdated, is_current)
        told = self._told.get(statement)
        if told is not None and told[1:] == known:
            return told[0]
        self._last_statement += 1
        self._told[statement] = (self._last_statement, *known)
        self.send(Kind.STATEMENT, pack_statement(self._last_statement, statement, is_current=is_current))
        return self._last_statement

    def _tell_servers(self) -> bool:
        """Has anything changed?"""
        pools, others = self._proxy.pools, self._proxy.pools.elders
        rows = list(others.rows) + [(each.pool.database, each.pool.user, 0, 1) for each in pools.tunnels]
        for pool in [*pools, *pools.dying]:
            is_other = isinstance(pool, EarPool | LookupPool)
            if pool.size:
                rows.append((pool.database, pool.user, 0 if is_other else pool.size, pool.size if is_other else 0))
        under_way = len(self._travelling) + len(self._lingering)  # these count there
        now = (self._proxy.client_count - under_way + others.clients, rows, self._count_people())
        if now == self._servers:
            return False
        self._servers = now
        self.send(Kind.SERVERS, {"clients": now[0], "rows": now[1], "people": now[2]})
        return True

    def _count_people(self) -> list[People]:
        pools = self._proxy.pools
        count = Counter(pools.elders.people)
        for pool in pools:
            if pool.clients:  # of thousands few may have any
                for user, number in Counter(client.user for client in pool.clients).items():
                    count[pool.database, user] += number
        count.update((each.pool.database, each.user) for each in pools.tunnels if each.has_client)
        return [(*key, number) for key, number in count.items() if number]

    def _sum_up(self) -> None:
        self._is_summed_up = True
        clients = [client for pool in self._proxy.pools.serving() for client in pool.clients]
        why = Counter(find_hindrance(client) or self._find_other_hindrance(client) for client in clients)
        why["replicating"] += sum(tunnel.has_client for tunnel in self._proxy.pools.tunnels)
        staying = ", ".join(f"{count} {reason}" for reason, count in why.most_common() if count)
        self._proxy.log.log(
            f"{self._gone_over} clients have gone over to process {self._pid},"
            f" {self._proxy.client_count} are served here until they can go or leave: {staying or 'none at rest'}"
        )

    def _find_other_hindrance(self, client: Any) -> str:
        return "declined" if client in self._declined or self._letters.may_go(client) else "listening"

    # What becomes of a client.

    def _part(self, client: Any) -> None:
        """It is the new process's; a moment later if we must still listen for it."""
        if client is None:
            return
        self._gone_over += 1
        if self._letters.is_held(client):
            self._lingering[client] = None
            asyncio.get_running_loop().call_later(GRACE, self._post, client)
        elif client.state is not GONE:
            client.go_over()

    def _post(self, client: Any) -> None:
        if self._lingering.pop(client, self) is None:
            self._letters.post(client)
            if client.state is not GONE:
                client.go_over()

    def _decline(self, client: Any, why: str) -> None:
        if client is not None:
            self._proxy.log.for_socket(repr(client)).warning(f"stays with this process: {why}")
            self._declined.add(client)
            self._take_back(client)

    def _take_back(self, client: Any) -> None:
        if client.state is GONE:
            return
        client.pool.clients.add(client)
        self._letters.let_go(client)
        if client.pool.state is PoolState.DYING:
            client.close(Closing.DATABASE_GONE)
        else:
            client.let_go()

    # The end.

    def lost(self, why: str) -> None:
        """Nothing more will come from it."""
        phase, self.phase = self.phase, Phase.OVER
        if phase is Phase.OVER:
            return
        proxy, travelling = self._proxy, [client for client, _ in self._travelling.values()]
        proxy.kin.lose(self)
        self._travelling.clear()
        for client in list(self._lingering):
            self._post(client)
        for client in travelling:
            self._take_back(client)
        if phase is Phase.ASKED:
            proxy.log.warning(f"process {self._pid} does not take over ({why}): nothing has changed")
        elif self._is_ending or proxy.leaving is not Leaving.SUCCEEDED:
            proxy.log.log(f"process {self._pid}, which has taken over, has left: {proxy.client_count} clients are here")
        else:
            self._resume(why, len(travelling))

    def _resume(self, why: str, taken_back: int) -> None:
        """It is as before."""
        proxy = self._proxy
        proxy.leaving = None
        for listener in proxy.listeners:
            listener.go_on()
        if proxy.pid_file is not None:
            proxy.pid_file.write_again()
        proxy.notifier.take_back()
        proxy.log.warning(
            f"process {self._pid}, which had taken over, is lost ({why}): this one accepts again. {self._gone_over}"
            f" clients were with it, {taken_back} on their way are taken back, {proxy.client_count} are served here"
        )

    def finish(self) -> None:
        """We end."""
        if self.phase is Phase.YIELDED:
            self._proxy.log.log(f"{self._gone_over} clients have gone over to process {self._pid}")
            self.send(Kind.DONE)
        self.phase = Phase.OVER


def lift_descriptor(client: Any) -> int:
    """A descriptor of its socket, for somebody else to close."""
    return lift(client.transport, keep=True).detach()
