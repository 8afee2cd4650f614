"""
The hub: LISTEN and NOTIFY for clients that share servers.

Theory. LISTEN belongs to a session, and clients that share servers have none. So each pool whose clients listen has one
connection more (`ear.py`), of the same database and user and never shared with others. It listens to every channel any
of them named, and the hub hands each notification to those who named it, as the same bytes. `channels.py` keeps the
books, `mailbox.py` keeps what a client cannot hear yet.

`listen` answers when PostgreSQL has confirmed: who is told yes hears everything from there on. What was said while the
connection was lost is lost, as it is for a client of PostgreSQL that has to connect again. There the client notices;
here it stays connected, so it is told by a WARNING.

Channels are UTF-8 here, and so is what PostgreSQL says to us: what is not ASCII is translated for clients of other
encodings, and who cannot be translated for (`protocol/encodings.py`) may listen to names in ASCII only.
"""

from collections.abc import Iterable
from typing import Any

from protocol import sqlstate
from protocol.backend import ErrorFields, Notification, build_notice, build_notification, parse_notification
from protocol.encodings import from_utf8, is_known, to_utf8
from protocol.errors import Refused
from protocol.framing import HEADER_SIZE
from proxy.channels import DEAF, HEARD, Books, Channel, Done, Wait
from proxy.ear import Ear, Wanting, as_error
from proxy.failing import LoginFailed
from proxy.letters import Letters, merge
from proxy.mailbox import Mailbox
from proxy.pool import Pool
from proxy.states import Waiting

MAX_NAME = 63  # bytes; PostgreSQL cuts longer ones (NAMEDATALEN)
MAX_CHANNELS = 10_000  # of one client
MAX_IN_ALL = 20_000  # of one hub: for each LISTEN and each notification PostgreSQL walks the list of them
MAX_SHOWN = 10  # names in a warning
PLACE_PATIENCE = 5.0  # seconds a LISTEN waits for a place under a limit: its own transaction may hold the last one
PATIENCE = 30.0  # seconds it waits for a connection, or for PostgreSQL to confirm

_LIMITS = (Waiting.DATABASE_LIMIT, Waiting.USER_LIMIT)


class Hub:
    """One per pool whose clients listen, or have listened."""

    def __init__(self, pool: Pool) -> None:
        self.now = pool.now
        self.books = Books(self)
        self.received = self.delivered = self.lost = self.unwanted = 0  # notifications, and copies of them
        self._outage: dict[Mailbox, dict[bytes, None]] = {}  # who must be told which channels it may have missed
        self._outage_why = ""
        self._is_outage_told = False
        self._full: dict[Mailbox, None] = {}  # mailboxes with letters in them
        self.ear = Ear(pool, self.books, self)

    def __repr__(self) -> str:
        return f"H-{id(self):#x}: {self.ear.pool}"

    # What clients ask. Names are folded, and in the client's encoding.

    def listen(self, client: Any, name: bytes, done: Done) -> None:
        """`done(None)` once PostgreSQL listens for us, at once if it does already; else `done` with the reason."""
        try:
            key = _find_key(client, name)
            self._check_room(client, key)
        except Refused as no:
            done(ErrorFields("ERROR", no.sqlstate, no.sentence, no.detail, no.hint))
            return
        mailbox, channel = self.books.open_mailbox(client), self.books.open_channel(key)
        if channel.hearing is HEARD:
            self.books.subscribe(mailbox, channel)
            done(None)
            return
        wait = self.books.wait(mailbox, channel, done, self.now())
        self.ear.want(Wanting.FIRST)
        self.ear.ask_next()
        hindrance = self._find_hindrance(self._find_obstacle())
        if hindrance is not None:
            self._refuse([wait], hindrance)

    def unlisten(self, client: Any, name: bytes | None) -> None:
        """None: all of them. A LISTEN that still waits is withdrawn; its `done` is never called."""
        mailbox = self.books.mailboxes.get(client)
        if mailbox is None:
            return
        if name is None:
            self.books.close_mailbox(mailbox)
        else:
            try:
                self.books.unsubscribe(mailbox, _find_key(client, name))
            except Refused:
                return  # it cannot have listened to that

    def forget(self, client: Any) -> None:
        """The client has left."""
        self.unlisten(client, None)

    def channels_of(self, client: Any) -> list[bytes]:
        """Those it hears, in UTF-8."""
        mailbox = self.books.mailboxes.get(client)
        return [] if mailbox is None else list(mailbox.channels)

    def flush(self, client: Any) -> None:
        """The client has come to rest, or reads again: it gets what it could not hear before."""
        mailbox = self.books.mailboxes.get(client)
        if mailbox is not None and mailbox in self._full:
            self._post(mailbox)

    def join(self, client: Any, earlier: Letters, lost: int = 0, lead: int = 0) -> None:
        """The client comes from another process, which had these letters for it: they come first. `lead`: see merge."""
        mailbox = self.books.mailboxes.get(client)
        if mailbox is None:
            return
        wanted = [each for each in earlier if not each[0] or each[0] in mailbox.channels]
        letters = merge(wanted, list(mailbox.letters), lead)
        mailbox.is_held = False
        mailbox.clear()
        mailbox.lost += lost
        for letter in letters:
            self.lost += len(mailbox.put(*letter))
        self._full[mailbox] = None
        self._post(mailbox)

    def join_alone(self, client: Any) -> None:
        """The other process is gone with what it had."""
        detail = "The process before this one was lost while the connection was handed over."
        self.join(client, [(b"", _build_warning("notifications may have been missed", detail))])

    def report(self) -> list[tuple[bytes, str, int, int, int, int]]:
        """For the console: (channel, what PostgreSQL knows, who hears it, who waits for it, notifications, lost)."""
        return [
            (each.name, each.hearing.value, len(each.readers), len(each.waits), each.notifications, each.lost)
            for each in self.books.channels.values()
        ]

    def _check_room(self, client: Any, key: bytes) -> None:
        mailbox = self.books.mailboxes.get(client)
        if mailbox is not None and key not in mailbox.channels:
            _check_count(len(mailbox.channels) + len(mailbox.waits), MAX_CHANNELS, "a client")
        if key not in self.books.channels:
            _check_count(len(self.books.channels), MAX_IN_ALL, "all clients of a pool together")

    def mailbox_closed(self, mailbox: Mailbox) -> None:
        """Its client neither hears nor waits for anything any more."""
        self._full.pop(mailbox, None)
        self._outage.pop(mailbox, None)

    def all_gone(self) -> None:
        """Nobody wants anything any more."""
        self.ear.want_no_more()

    # Those who cannot be served.

    def _find_obstacle(self) -> Waiting | None:
        """Why no connection is being opened, if none is there."""
        return self.ear.pool.find_obstacle() if self.ear.server is None else None

    def _find_hindrance(self, obstacle: Waiting | None) -> LoginFailed | None:
        """Why waiting for a connection makes no sense."""
        failure = self.ear.pool.failure
        if obstacle is Waiting.RETRY and failure is not None:
            return failure.as_cached(self.ear.pool)
        if obstacle is Waiting.NO_PLACE_TO_LISTEN:
            return LoginFailed(sqlstate.TOO_MANY_CONNECTIONS, obstacle.value)
        if obstacle is Waiting.SHUTDOWN:
            return LoginFailed(sqlstate.CANNOT_CONNECT_NOW, obstacle.value)
        return None

    def _find_impatience(self, wait: Wait, waited: float, obstacle: Waiting | None) -> LoginFailed | None:
        """Why `wait` is over, if it is."""
        if obstacle is Waiting.PAUSED:  # a pause that waits for this client's transaction must not be waited for
            is_to_blame = wait.mailbox.client.server is not None and waited > PLACE_PATIENCE
            return LoginFailed(sqlstate.CANNOT_CONNECT_NOW, obstacle.value) if is_to_blame else None
        if obstacle in _LIMITS and waited > PLACE_PATIENCE:
            return LoginFailed(
                sqlstate.TOO_MANY_CONNECTIONS, f"no place for a connection that listens: {obstacle.value}"
            )
        if waited > PATIENCE:
            return LoginFailed(sqlstate.CONNECTION_FAILURE, "LISTEN was not confirmed in time")
        return self._find_hindrance(obstacle)

    def _refuse(self, waits: Iterable[Wait], failure: LoginFailed) -> None:
        hint = "Raise that limit, or use a session pool." if failure.sqlstate == sqlstate.TOO_MANY_CONNECTIONS else ""
        self.books.fail(waits, ErrorFields("ERROR", failure.sqlstate, failure.sentence, hint=hint))

    # What the ear tells.

    def hear(self, message: bytes) -> None:
        """A NotificationResponse. ProtocolError when it is malformed."""
        said = parse_notification(message[HEADER_SIZE:])
        self.received += 1
        channel = self.books.channels.get(said.channel)
        if channel is None or not channel.readers:
            self.unwanted += 1
            return
        channel.notifications += 1
        is_plain = said.channel.isascii() and said.payload.isascii()
        copies: dict[str, bytes | None] = {}  # by encoding
        for mailbox in list(channel.readers):
            encoding = "" if is_plain else mailbox.encoding
            if encoding not in copies:
                copies[encoding] = message if is_plain else _translate(said, encoding)
            copy = copies[encoding]
            if copy is None:
                self.lost += 1
                channel.lost += 1
                self._send(mailbox, b"", _build_untold(channel, mailbox.encoding))
            else:
                self.delivered += 1
                self._send(mailbox, channel.name, copy)

    def deafened(self, why: str) -> None:
        """The connection is lost: whoever heard something must be told, once it is heard again."""
        self._outage_why = why
        for mailbox in self.books.mailboxes.values():
            names = [name for name, channel in mailbox.channels.items() if channel.hearing is not DEAF]
            if names:
                self._outage.setdefault(mailbox, {}).update(dict.fromkeys(names))

    def hears_again(self) -> None:
        """Everything that was asked for has been answered."""
        if not self._outage or self.books.to_listen:
            return
        outage, self._outage = self._outage, {}
        self._is_outage_told = False
        for mailbox, names in outage.items():
            kept = [name for name in names if name in mailbox.channels]
            if kept:
                detail = f"The connection that listens was lost ({self._outage_why}) and opened again: {_spell(kept)}."
                self._send(mailbox, b"", _build_warning("notifications may have been missed", detail))

    def opening_failed(self, failure: LoginFailed) -> None:
        """No connection for now. Those who wait are told; at the second failure, and once, those who are deaf."""
        self._refuse(self.books.waits, failure)
        if self._outage and not self._is_outage_told and self.ear.pool.failures > 1:
            self._is_outage_told = True
            warning = _build_warning(
                "notifications are being missed",
                f"The connection that listens was lost ({self._outage_why}) and cannot be opened again yet: {failure}",
            )
            for mailbox in list(self._outage):
                self._send(mailbox, b"", warning)

    def refuse_all(self, failure: LoginFailed) -> None:
        """Nobody will be served."""
        self._refuse(self.books.waits, failure)

    def refuse_name(self, channel: Channel, error: ErrorFields) -> None:
        """PostgreSQL does not take this name, and perhaps did before: another server may have another encoding."""
        for mailbox in list(channel.readers):
            self._send(mailbox, b"", _build_warning("LISTEN has ended", f"{_spell([channel.name])}: {error.message}"))
            self.books.unsubscribe(mailbox, channel.name)
        self.books.fail(channel.waits, as_error(error))

    # Delivering.

    def _send(self, mailbox: Mailbox, name: bytes, message: bytes) -> None:
        """`message`, of the channel `name` or (b"") our own, now or when the client can hear it."""
        if mailbox not in self._full and mailbox.may_hear():
            mailbox.client.deliver(message)
            return
        self._full[mailbox] = None
        for lost in mailbox.put(name, message):
            self.lost += 1
            channel = self.books.channels.get(lost)
            if channel is not None:
                channel.lost += 1

    def _post(self, mailbox: Mailbox) -> None:
        if mailbox.may_hear():
            del self._full[mailbox]
            letters = mailbox.take()
            if letters:
                mailbox.client.deliver(letters)

    # Time.

    def sweep(self) -> None:
        """What is due, at the janitor's tick."""
        now, obstacle = self.now(), self._find_obstacle()
        for wait in list(self.books.waits):
            failure = self._find_impatience(wait, now - wait.since, obstacle)
            if failure is not None:
                self._refuse([wait], failure)
        self.ear.sweep()
        for mailbox in list(self._full):
            self._post(mailbox)

    def check(self) -> None:
        """The laws, for tests and for the brave: raises AssertionError."""
        self.books.check()
        self.ear.check()
        boxes = self.books.mailboxes.values()
        assert all(mailbox in self._full for mailbox in boxes if mailbox.letters or mailbox.lost), "letters lie about"
        assert {*self._full, *self._outage} <= {*boxes}, "somebody who has left is remembered"


def _find_key(client: Any, name: bytes) -> bytes:
    """`name` as PostgreSQL will say it to us. Refused when it cannot be said."""
    encoding = client.followed.get("client_encoding", "UTF8")
    if not name:
        raise Refused(sqlstate.SYNTAX_ERROR, 'zero-length delimited identifier at or near """"')
    try:
        if b"\0" in name:
            raise ValueError("a zero byte")
        return to_utf8(name, encoding)[:MAX_NAME].decode("utf-8", "ignore").encode()
    except ValueError as error:
        raise Refused(
            sqlstate.FEATURE_NOT_SUPPORTED,
            f"LISTEN to this channel is not possible with client_encoding {encoding}",
            detail=f"{error}.",
            hint="" if is_known(encoding) else "Names in ASCII, or client_encoding UTF8, work.",
        ) from error


def _check_count(count: int, most: int, whose: str) -> None:
    if count >= most:
        raise Refused(sqlstate.CONFIGURATION_LIMIT_EXCEEDED, f"{whose} may listen to {most} channels")


def _translate(said: Notification, encoding: str) -> bytes | None:
    """For a client with that encoding; None when it cannot be said there."""
    try:
        channel, payload = from_utf8(said.channel, encoding), from_utf8(said.payload, encoding)
    except ValueError:
        return None
    return build_notification(Notification(said.process_id, channel, payload))


def _build_warning(message: str, detail: str) -> bytes:
    return build_notice("WARNING", sqlstate.WARNING, message, detail=detail)


def _build_untold(channel: Channel, encoding: str) -> bytes:
    return _build_warning(
        "a notification could not be delivered",
        f"It came on channel {_spell([channel.name])} and cannot be said in client_encoding {encoding}.",
    )


def _spell(names: list[bytes]) -> str:
    """Names of channels for people, in ASCII: a warning is read in whatever encoding."""
    shown = [ascii(name.decode("utf-8", "replace")) for name in names[:MAX_SHOWN]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
