"""
A server could not be opened: in whose words, and for how long that is believed.

Theory. Most reasons last: a wrong password is wrong for the next one too, so whoever is logging in is told, and whoever
comes before the next try hears the same (`server_login_retry`). A few pass by themselves. PostgreSQL starts, shuts down
or has just crashed, or somebody has ended this very backend while it logged in (a storm of pg_terminate_backend, a
restart). Those who log in wait through that, as those in the queue do, bounded by their own timeouts; and the next try
comes soon.

And some do not pass by waiting at all: PostgreSQL has said, in its own words, that it has no such database or does not
let us in. While a pool has no server left, those in its queue are told that too, as in PgBouncer (patience.py). With
any other reason they go on waiting, so that a PostgreSQL that is away for a moment costs nobody his session.

Whoever hears a remembered reason is also told since when logins fail and when they are tried again: so the log of an
application alone shows that its database was down, and for how long.
"""

from typing import Any, Final

from protocol import sqlstate
from protocol.backend import ErrorFields
from proxy.clock import span

FIRST_RETRY: Final = 0.25  # seconds; doubles with every failure
PASSING_RETRY: Final = 1.0  # seconds between tries at the most, where waiting helps

_PASSING: Final = frozenset({sqlstate.ADMIN_SHUTDOWN, sqlstate.CRASH_SHUTDOWN, sqlstate.CANNOT_CONNECT_NOW})
_LASTING: Final = frozenset(
    {
        sqlstate.INVALID_CATALOG,
        sqlstate.INVALID_AUTHORIZATION,
        sqlstate.INVALID_PASSWORD,
        sqlstate.INSUFFICIENT_PRIVILEGE,
    }
)


class LoginFailed(Exception):
    """No server could be opened. `sqlstate` and the sentence are the server's own where it gave any.

    `is_passing`: does waiting help? PgBouncer thinks so of 57P03 alone. `is_lasting`: is there no hope in it at all?
    """

    def __init__(
        self, sqlstate: str, sentence: str, detail: str = "", *, hint: str = "", may_pass: bool = True
    ) -> None:
        super().__init__(sentence)
        self.sqlstate = sqlstate
        self.sentence = sentence
        self.detail = detail
        self.hint = hint
        self.is_passing = may_pass and sqlstate in _PASSING
        self.is_lasting = sqlstate in _LASTING

    def as_fields(self) -> ErrorFields:
        """For somebody whose connection ends with it."""
        return ErrorFields("FATAL", self.sqlstate, self.sentence, self.detail, self.hint)

    def find_delay(self, failures: int, limit: float) -> float:
        """Seconds until the next try, after so many `failures` in a row; `limit` is server_login_retry."""
        longest = min(limit, PASSING_RETRY) if self.is_passing else limit
        return min(FIRST_RETRY * 2.0 ** min(failures - 1, 16), longest)

    def as_cached(self, pool: Any) -> "LoginFailed":
        """The same, for those who come to `pool` before the next try."""
        words = f"server login has been failing, cached error: {self.sentence} (server_login_retry)"
        return LoginFailed(self.sqlstate, words, describe_failing(pool), hint=self.hint)


def describe_failing(pool: Any, reason: str = "") -> str:
    """Since when logins fail, and when they are tried again."""
    left = pool.retry_at - pool.now()
    then = f"the next try is in {span(left)}" if left > 0 else "another try is under way"
    why = f": {reason}" if reason else ""
    return f"Server logins have been failing for {span(pool.now() - pool.failing_since)}{why}; {then}."
