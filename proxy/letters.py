"""
Notifications for clients that go from one process to the next: none is lost on the way.

Theory. A client that listens can go when the new process listens too. So before it goes the old one names its channels
(CHANNELS), and the new one has its own hub listen to them for a `Ghost`, which hears nothing; only what is confirmed
(HEARING) lets clients go. The client then comes, and from the moment it is unpacked the new process keeps its letters;
from the moment it was packed the old one has kept them too, and goes on for GRACE seconds after TAKEN, since PostgreSQL
may tell one backend a little later than another. Then the old one sends what it has (LETTERS), and the new one, after
as long again, puts both rows together: all backends of a database tell in the same order, so the end of the one is the
beginning of the other (`merge`).

What cannot be told apart is told twice rather than never. If the old process dies before its letters have come the
client is warned, as it is when the connection that listens breaks.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

from protocol.encodings import from_utf8
from proxy.courier import Broken, Kind
from proxy.mailbox import Mailbox
from proxy.states import RESTING

GRACE: Final = 0.25  # seconds
MAX_NAMED: Final = 1_000  # channels in one message

Letters = list[tuple[bytes, bytes]]
Send = Callable[[Kind, dict[str, Any]], object]


class Sender:
    """Of the old process."""

    def __init__(self, proxy: Any, send: Send) -> None:
        self._proxy = proxy
        self._send = send
        self._asked: defaultdict[tuple[str, str], set[bytes]] = defaultdict(set)
        self._heard: defaultdict[tuple[str, str], set[bytes]] = defaultdict(set)

    def may_go(self, client: Any) -> bool:
        """Is there nothing that `client` would miss? If the other process does not hear it yet it is asked to."""
        mailbox = self._find_mailbox(client)
        if mailbox is None:
            return True
        if mailbox.waits or mailbox.letters or mailbox.lost:
            return False
        pool = (client.pool.database, client.pool.user)
        missing = [name for name in mailbox.channels if name not in self._asked[pool]]
        for start in range(0, len(missing), MAX_NAMED):
            named = missing[start : start + MAX_NAMED]
            self._asked[pool].update(named)
            self._send(Kind.CHANNELS, {"pool": list(pool), "channels": list(map(_text, named))})
        return mailbox.channels.keys() <= self._heard[pool]

    def heard(self, body: dict[str, Any]) -> None:
        """The other process hears these."""
        database, user = _pool_in(body)
        self._heard[database, user].update(_names_in(body))

    def hold(self, client: Any) -> list[str]:
        """It goes: its letters wait. The channels it hears."""
        mailbox = self._find_mailbox(client)
        if mailbox is None:
            return []
        mailbox.is_held = True
        return list(map(_text, mailbox.channels))

    def let_go(self, client: Any) -> None:
        """It stays."""
        mailbox = self._find_mailbox(client)
        if mailbox is not None:
            mailbox.is_held = False
            self._proxy.find_hub(client.pool).flush(client)

    def is_held(self, client: Any) -> bool:
        mailbox = self._find_mailbox(client)
        return mailbox is not None and mailbox.is_held

    def post(self, client: Any) -> None:
        """What it has not heard goes to the other process."""
        mailbox = self._find_mailbox(client)
        letters = [] if mailbox is None else [[_text(name), _text(message)] for name, message in mailbox.letters]
        lost = 0 if mailbox is None else mailbox.lost
        self._send(Kind.LETTERS, {"number": client.number, "letters": letters, "lost": lost})

    def _find_mailbox(self, client: Any) -> Mailbox | None:
        if client.stall is None:
            return None
        mailbox: Mailbox | None = self._proxy.find_hub(client.pool).books.mailboxes.get(client)
        return mailbox


class Ghost:
    """Listens in the place of clients that have not come yet, and hears nothing."""

    server = None
    state = RESTING
    is_choked = False
    begun = b""

    def __init__(self) -> None:
        self.followed = {"client_encoding": "UTF8"}

    def deliver(self, data: bytes) -> None:
        """Those who will come hear it from the other process."""


class Receiver:
    """Of the new process."""

    def __init__(self, proxy: Any, send: Send) -> None:
        self._proxy = proxy
        self._send = send
        self._ghosts: dict[Any, Ghost] = {}  # by pool
        self._held: dict[int, Any] = {}  # clients whose letters have not all come, by number

    def listen(self, body: dict[str, Any]) -> None:
        """Clients that hear these channels are to come; they stay where they are if we cannot hear them."""
        database, user = _pool_in(body)
        entry = self._proxy.find_database(database)
        pool = None if entry is None else self._proxy.pools.find(entry, user)
        if pool is None or not pool.habits.is_listening_shared:
            return
        ghost = self._ghosts.setdefault(pool, Ghost())
        for name in _names_in(body):
            self._listen_to(pool, ghost, name, [database, user])

    def _listen_to(self, pool: Any, ghost: Ghost, name: bytes, key: list[str]) -> None:
        def done(error: Any) -> None:
            if error is None:
                self._send(Kind.HEARING, {"pool": key, "channels": [_text(name)]})
            else:
                self._proxy.log.warning(f"{pool}: cannot listen for those who are to come over: {error.message}")

        self._proxy.find_hub(pool).listen(ghost, name, done)

    def subscribe(self, client: Any, channels: list[str]) -> None:
        """From here on its letters are kept. ValueError when it cannot hear these channels at once."""
        hub = self._proxy.find_hub(client.pool)
        encoding = client.followed.get("client_encoding", "UTF8")
        for channel in channels:
            answers: list[Any] = []
            hub.listen(client, from_utf8(_bytes(channel), encoding), answers.append)
            if answers != [None]:
                hub.forget(client)
                raise ValueError(f"the channel {channel!r} is not heard here")
        hub.books.mailboxes[client].is_held = True
        self._held[client.number] = client

    def deliver(self, number: int, body: dict[str, Any]) -> None:
        """All that the other process had for that client; it hears everything now."""
        client = self._held.pop(number, None)
        if client is not None:
            try:
                letters = [(_bytes(name), _bytes(message)) for name, message in body["letters"]]
                lost = int(body["lost"])
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise Broken(f"letters that are none: {error}") from error
            # The last of them must have come to us too, or they would not be known for the same.
            join = self._proxy.find_hub(client.pool).join
            asyncio.get_running_loop().call_later(GRACE, join, client, letters, lost)

    def finish(self) -> None:
        """Nothing more will come."""
        for pool, ghost in self._ghosts.items():
            self._proxy.find_hub(pool).forget(ghost)
        for client in self._held.values():
            self._proxy.find_hub(client.pool).join_alone(client)
        self._ghosts.clear()
        self._held.clear()


def merge(earlier: Letters, later: Letters) -> Letters:
    """`earlier`, and of `later` what does not repeat it, nor what came before it: a backend may tell very late."""
    for shared in range(min(len(earlier), len(later)), 0, -1):
        if earlier[-shared:] == later[:shared]:
            return earlier + later[shared:]
    for start in range(1, len(later) - len(earlier) + 1 if earlier else 0):
        if later[start] == earlier[0] and later[start : start + len(earlier)] == earlier:
            return later[start:]
    return earlier + later


def _pool_in(body: dict[str, Any]) -> tuple[str, str]:
    pool = body.get("pool")
    if not isinstance(pool, list) or len(pool) != 2:
        raise Broken("channels of no pool")
    return str(pool[0]), str(pool[1])


def _names_in(body: dict[str, Any]) -> list[bytes]:
    names = body.get("channels")
    if not isinstance(names, list):
        raise Broken("a message without channels")
    try:
        return [_bytes(str(name)) for name in names]
    except ValueError as error:
        raise Broken(f"a channel that is none: {error}") from error


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")
