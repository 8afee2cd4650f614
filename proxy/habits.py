"""
How the clients of one pool are treated: what is looked at in what they send, and what is left alone.

Theory. A pool that shares its servers must know which text may change a session and whose statement a name is; one
that does not share need not know anything. The stream asks that for every message, so the answers are worked out here,
once per pool and reload, as plain attributes: a table of functions by message type, and `is_plain`, which is true of
everything where nobody wants to know.

Where statements are tracked every message is walked over (`is_walking`), and what is sent is noted (tracking.py).

Where idle transactions are ended the simple queries in transactions are noted, so that whoever is sent away hears which
kind of statement he idled after; where there is no such timeout nothing is.
"""

from weakref import WeakKeyDictionary

from protocol.effects import Reader
from proxy.config.kinds import ListenMode, PoolMode, SessionState, is_private
from proxy.config.limits import Limits
from proxy.requests import (
    BEGINS,
    ENDS,
    LOOKS_OF_AUDITED,
    LOOKS_OF_PRIVATE,
    LOOKS_OF_SHARED,
    LOOKS_OF_TAGGED,
    NO_BEGINS,
    NO_ENDS,
    Look,
    Notes,
    forbid_query,
    note_queries,
)
from proxy.reset import is_thorough
from proxy.tracking import track


class Habits:
    """Made by `Pool.set_limits`."""

    __slots__ = (
        "begins", "ends", "is_audited", "is_deferring", "is_leaking", "is_listening_shared", "is_noting", "is_plain",
        "is_plain_inside", "is_plain_noted", "is_private", "is_tracking", "is_walking", "looks", "looks_of_tagged",
        "notes", "pin_functions", "reader", "view",
    )  # fmt: skip

    def __init__(self, limits: Limits, before: "Habits | None" = None) -> None:
        """`before` are those the pool had: a Reader takes 70 us to make, and has learnt what it has read."""
        state = limits.session_state
        self.pin_functions = limits.pin_functions
        self.reader: Reader
        if before is not None and before.pin_functions == limits.pin_functions:
            self.reader = before.reader
        else:
            self.reader = Reader([name.encode() for name in limits.pin_functions])
        self.is_audited = state is SessionState.AUDIT
        self.is_private = is_private(limits.pool_mode, state)
        self.is_tracking = state in (SessionState.TRACK, SessionState.RESET) and not self.is_private
        # Is a server given back with whatever its client has left there?
        is_reset = (self.is_private or limits.server_reset_query_always) and is_thorough(limits.server_reset_query)
        self.is_leaking = not (self.is_tracking or is_reset)
        self.is_walking = self.is_private or limits.track_statements
        self.is_listening_shared = limits.listen_mode is ListenMode.SHARED and state is SessionState.TRACK
        # How a request is weighed, and therefore whether one that was weighed and not sent must be weighed anew.
        self.view = (
            self.is_private, self.is_tracking, self.is_listening_shared and not self.is_private, self.reader,
        )  # fmt: skip
        self.is_deferring = limits.deferred_begin and limits.pool_mode is PoolMode.TRANSACTION and not self.is_private
        self.is_plain = self.reader.is_plain if not self.is_private or self.is_audited else is_anything
        self.looks: tuple[Look | None, ...] = LOOKS_OF_SHARED
        self.looks_of_tagged = LOOKS_OF_TAGGED  # for a client with a portal whose command tag means something
        if self.is_private:
            self.looks = LOOKS_OF_AUDITED if self.is_audited else LOOKS_OF_PRIVATE
        self.begins = BEGINS if self.is_deferring else NO_BEGINS  # known at a glance, as `ends`
        self.ends = NO_ENDS if self.is_private else ENDS
        self.notes: Notes = WeakKeyDictionary()
        self.is_plain_inside = self.is_plain  # of what is said in a transaction
        self.is_noting = limits.idle_transaction_timeout is not None
        if self.is_noting:
            self.is_plain_inside = is_nothing
            self.looks, self.looks_of_tagged = (note_queries(looks, self.notes) for looks in self._tables())
        self.is_plain_noted = self.is_plain  # the same, where it is noted before it takes its short way
        if limits.track_statements:
            self.is_plain_inside = self.is_plain_noted = is_nothing
            self.begins, self.ends = NO_BEGINS, NO_ENDS
            self.looks, self.looks_of_tagged = map(track, self._tables())
        if limits.disable_pqexec:
            self.is_plain = self.is_plain_inside = self.is_plain_noted = is_nothing
            self.begins, self.ends = NO_BEGINS, NO_ENDS
            self.looks, self.looks_of_tagged = map(forbid_query, self._tables())

    def pins_all_of(self, habits: "Habits") -> bool:
        """Are there no functions that those look after and these have not?"""
        return set(habits.pin_functions) <= set(self.pin_functions)

    def _tables(self) -> tuple[tuple[Look | None, ...], tuple[Look | None, ...]]:
        return self.looks, self.looks_of_tagged


def is_anything(text: bytes) -> bool:
    """Where nobody looks, every text is plain."""
    return True


def is_nothing(text: bytes) -> bool:
    """Where no simple query may pass, none is plain: the look that refuses it must see it."""
    return False
