"""
The books of a hub: who listens to which channel, who waits for that, and what the server has not been told yet.

Theory. A channel stands in one of four places towards the hub's server (`Hearing`), and is wanted or not by clients
that hear it or wait for it. `review` compares the two and is the only place that decides: a channel that is wanted and
not heard goes to `to_listen`, one that is heard and not wanted to `to_leave`, one that is neither is forgotten. While
a LISTEN or UNLISTEN is on its way nothing is decided; it is when the answer comes. So a client that leaves, comes
back and leaves again while PostgreSQL is busy costs nothing, and what counts is what is wanted at the end.

Own bookkeeping first, calling out last: each `done` may come back to us, and may make others leave.
"""

import enum
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from protocol.backend import ErrorFields
from proxy.mailbox import Mailbox

Done = Callable[[ErrorFields | None], object]


class Hearing(enum.Enum):
    """What the hub's server knows of a channel."""

    DEAF = "not asked on this connection"
    ASKED = "a LISTEN is on its way"
    HEARD = "listening"
    LEAVING = "an UNLISTEN is on its way"


DEAF, ASKED, HEARD, LEAVING = Hearing


class Channel:
    """One name, in UTF-8."""

    __slots__ = ("hearing", "lost", "name", "notifications", "readers", "waits")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.hearing = DEAF
        self.readers: dict[Mailbox, None] = {}
        self.waits: dict[Wait, None] = {}
        self.notifications = 0  # that came from PostgreSQL
        self.lost = 0  # copies that found no room, or no translation

    @property
    def is_wanted(self) -> bool:
        return bool(self.readers or self.waits)


class Wait:
    """A LISTEN that is not confirmed yet; `done` is called once, or never when the client loses interest."""

    __slots__ = ("channel", "done", "mailbox", "since")

    def __init__(self, mailbox: Mailbox, channel: Channel, done: Done, since: float) -> None:
        self.mailbox = mailbox
        self.channel = channel
        self.done = done
        self.since = since


class Reader(Protocol):
    """Who is told when something ends."""

    def mailbox_closed(self, mailbox: Mailbox) -> None: ...
    def all_gone(self) -> None: ...


class Books:
    """All channels and mailboxes of one hub."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.channels: dict[bytes, Channel] = {}
        self.mailboxes: dict[Any, Mailbox] = {}  # by client
        self.waits: dict[Wait, None] = {}  # the oldest first
        self.to_listen: dict[Channel, None] = {}
        self.to_leave: dict[Channel, None] = {}

    # What clients want.

    def open_mailbox(self, client: Any) -> Mailbox:
        mailbox = self.mailboxes.get(client)
        if mailbox is None:
            mailbox = self.mailboxes[client] = Mailbox(client)
        return mailbox

    def open_channel(self, name: bytes) -> Channel:
        """A channel that is made here must get a reader or a wait at once."""
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(name)
        return channel

    def subscribe(self, mailbox: Mailbox, channel: Channel) -> None:
        mailbox.channels[channel.name] = channel
        channel.readers[mailbox] = None
        self.review(channel)

    def wait(self, mailbox: Mailbox, channel: Channel, done: Done, now: float) -> Wait:
        wait = Wait(mailbox, channel, done, now)
        mailbox.waits[wait] = channel.waits[wait] = self.waits[wait] = None
        self.review(channel)
        return wait

    def unsubscribe(self, mailbox: Mailbox, name: bytes) -> None:
        """It hears `name` no more, and waits for it no more."""
        channel = self.channels.get(name)
        if channel is None:
            return
        for wait in [wait for wait in mailbox.waits if wait.channel is channel]:
            self._settle(wait)
        if mailbox.channels.pop(name, None) is not None:
            del channel.readers[mailbox]
            mailbox.drop(name)
        self.review(channel)
        self._tidy(mailbox)

    def close_mailbox(self, mailbox: Mailbox) -> None:
        """It hears nothing and waits for nothing any more."""
        mailbox.take()
        for name in {*mailbox.channels, *(wait.channel.name for wait in mailbox.waits)}:
            self.unsubscribe(mailbox, name)
        self._tidy(mailbox)

    def _tidy(self, mailbox: Mailbox) -> None:
        if not mailbox.is_used and self.mailboxes.pop(mailbox.client, None) is not None:
            self.reader.mailbox_closed(mailbox)

    # What the server has been told.

    def review(self, channel: Channel) -> None:
        """What is to be done about `channel`."""
        if channel.hearing is DEAF:
            self.to_leave.pop(channel, None)
            if channel.is_wanted:
                self.to_listen[channel] = None
            else:
                self.to_listen.pop(channel, None)
                self.channels.pop(channel.name, None)
                if not self.channels:
                    self.reader.all_gone()
        elif channel.hearing is HEARD:
            if channel.is_wanted:
                self.to_leave.pop(channel, None)
            else:
                self.to_leave[channel] = None

    def take_to_listen(self, most: int) -> list[Channel]:
        """Up to `most` channels for a LISTEN that is sent now."""
        return list(self._take(self.to_listen, most, ASKED))

    def take_to_leave(self, most: int) -> list[Channel]:
        return list(self._take(self.to_leave, most, LEAVING))

    def _take(self, those: dict[Channel, None], most: int, to: Hearing) -> Iterator[Channel]:
        for channel in list(those)[:most]:
            del those[channel]
            channel.hearing = to
            yield channel

    def change(self, channels: Iterable[Channel], to: Hearing) -> None:
        """An answer has come, or will never come."""
        for channel in channels:
            channel.hearing = to
            self.review(channel)

    def put_first(self, channels: list[Channel]) -> None:
        """These are asked for before all others."""
        chosen = dict.fromkeys(channel for channel in channels if channel in self.to_listen)
        self.to_listen = chosen | {channel: None for channel in self.to_listen if channel not in chosen}

    def confirm(self, channels: Iterable[Channel]) -> None:
        """Those who wait for channels that are HEARD now are told, and hear them."""
        for wait in [wait for channel in channels for wait in channel.waits]:
            if wait in self.waits and wait.channel.hearing is HEARD:
                self._settle(wait)
                self.subscribe(wait.mailbox, wait.channel)
                wait.done(None)

    def fail(self, waits: Iterable[Wait], error: ErrorFields) -> None:
        """These are told why not."""
        for wait in list(waits):
            if wait in self.waits:
                self._settle(wait)
                self.review(wait.channel)
                self._tidy(wait.mailbox)
                wait.done(error)

    def _settle(self, wait: Wait) -> None:
        del wait.mailbox.waits[wait], wait.channel.waits[wait], self.waits[wait]

    def check(self) -> None:
        """The laws of the books: raises AssertionError."""
        for name, channel in self.channels.items():
            assert channel.name == name
            assert (channel in self.to_listen) == (channel.hearing is DEAF), f"{name!r} is {channel.hearing}"
            assert channel.is_wanted or channel.hearing is not DEAF, f"nobody wants {name!r}"
            assert (channel in self.to_leave) == (channel.hearing is HEARD and not channel.is_wanted)
            assert all(mailbox.channels[name] is channel for mailbox in channel.readers)
            assert all(wait.channel is channel and wait in self.waits for wait in channel.waits)
        known = {*self.channels.values()}
        assert {*self.to_listen, *self.to_leave} <= known, "a forgotten channel is to be asked for"
        assert sum(len(channel.waits) for channel in known) == len(self.waits)
        for client, mailbox in self.mailboxes.items():
            assert mailbox.client is client
            assert mailbox.is_used, "a mailbox of nobody is kept"
            assert all(mailbox in channel.readers for channel in mailbox.channels.values())
            assert all(wait.mailbox is mailbox and wait in self.waits for wait in mailbox.waits)
            assert mailbox.size == sum(len(message) for _, message in mailbox.letters)
