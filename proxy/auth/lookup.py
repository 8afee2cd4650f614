"""
Who is not in the auth_file is asked for in PostgreSQL (auth_query), and what it says is remembered for a while.

Theory. `wait_claim` says which secrets count for a login: those of the file if it names the user, else those that
auth_query finds. The question goes to the client's own database, or to that of auth_dbname, in the name of auth_user,
on connections that serve nothing else (lookup_pool.py); nothing of what the client says reaches them but its name, as
a bound parameter.

An answer counts for `auth_query_ttl`, be it secrets or that there is nobody of that name: else the time that a second
try takes would tell which of the two it was. A login that fails is reason to ask again before it is called wrong, but
not within PAUSE of the last answer: so a new password works at once, and whoever tries passwords asks PostgreSQL once
a second and not a thousand times. Many logins of one user at a time are one question.

Strangers say names without end. What is remembered of names that nobody has is apart from what is known, and both are
bounded; and of the few questions that are asked at a time, half are for those who were found before. This is so for
each entry of [databases] by itself: whoever asks where PostgreSQL does not answer holds up nobody elsewhere.

Everybody who is unknown, or whose row is of no use, goes through the exchange of a wrong password to its end. If the
query itself is wrong or cannot be run, everybody is told so in the same general words, and the log has the reason.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from protocol import sqlstate
from protocol.authquery import DEBTS, BadQuery, BadRow, build_auth_query, hide_secrets, parse_secret
from protocol.backend import ErrorFields
from protocol.errors import Refused
from protocol.parameters import clean
from protocol.passwords import ScramVerifier, Stored
from protocol.startup import Startup
from proxy.auth.claim import Claim
from proxy.auth.turns import Turns
from proxy.config.entries import CONSOLES, FALLBACK
from proxy.errand import PATIENCE, Answer, Errand
from proxy.failing import LoginFailed

MOST_KNOWN: Final = 10_000  # users remembered; some 600 bytes each
MOST_UNKNOWN: Final = 10_000  # names that nobody has
PAUSE: Final = 1.0  # seconds after an answer in which a wrong password is no reason to ask again
STRANGERS_AT_ONCE: Final = 2  # questions for names that were not found before
TRIES: Final = 2  # connections, where the first one is lost

ERROR_RESPONSE: Final = "error response from auth_query"  # PgBouncer's words, and the next ones too
NO_CONNECTION: Final = "auth_query cannot be run: there is no connection to the server"
UNEXPECTED_RESPONSE: Final = "unexpected response from auth_query"

_NO_SUCH_TEXT: Final = frozenset({"22021", "22P05"})  # a name that is no text in that database's encoding
_ABOUT_LOGINS: Final = "28"  # class of SQLSTATE


@dataclass(frozen=True, slots=True)
class Question:
    """Where and how secrets are asked for."""

    database: str
    user: str
    query: str


@dataclass(frozen=True, slots=True)
class Found:
    """What was said, and when. `why_nobody` is for the log: nobody could be asked, and so there is nobody."""

    stored: tuple[Stored, ...]
    asked_at: float
    why_nobody: str = ""


Key = tuple[Question, str]


class Flight:
    """One question on its way, and how many logins wait for the answer."""

    __slots__ = ("task", "waiting")

    def __init__(self, task: "asyncio.Task[Found | Exception]") -> None:
        self.task = task
        self.waiting = 0


async def wait_claim(proxy: Any, startup: Startup, host: str) -> Claim:
    """The secrets that count for this login from `host`. Refused, LoginFailed: they cannot be asked for."""
    question = _find_open_question(proxy, startup)
    found = None if question is None else await proxy.lookups.wait(question, startup.user)
    return _make_claim(proxy, startup.user, host, question, found)


def recall_claim(proxy: Any, startup: Startup, host: str) -> Claim | None:
    """The same at once; None: somebody must be asked first. Refused: as above."""
    question = _find_open_question(proxy, startup)
    found = None if question is None else proxy.lookups.recall((question, startup.user))
    if found is None and question is not None:
        return None
    return _make_claim(proxy, startup.user, host, question, found)


def _find_open_question(proxy: Any, startup: Startup) -> Question | None:
    """Where the file does not name the user."""
    return None if proxy.users.secrets_of(startup.user) else find_question(proxy, startup.database)


def _make_claim(proxy: Any, user: str, host: str, question: Question | None, found: Found | None) -> Claim:
    users, who = proxy.users, (host, user)
    mocks = users.count_salts(proxy.keeper.draw(user)) if users.several else 1
    turn = proxy.lookups.turns.find(who)

    def miss() -> None:
        proxy.lookups.turns.next(who)

    if question is None or found is None:
        stored, meets_scram = users.secrets_of(user), _meets_scram_unasked(proxy)
        return Claim(user, stored, strangers_meet_scram=meets_scram, turn=turn, mocks=mocks, missed=miss)

    async def renew() -> Sequence[Stored] | None:
        newer: Found | None = await proxy.lookups.wait_newer(question, user, found)
        return None if newer is None else newer.stored

    meets_scram = proxy.lookups.mostly_scram
    return Claim(
        user,
        found.stored,
        strangers_meet_scram=meets_scram,
        source=question,
        renew=renew,
        turn=turn,
        mocks=mocks,
        missed=miss,
        why_nobody=found.why_nobody,
    )


def _meets_scram_unasked(proxy: Any) -> bool:
    """What those meet who are unknown in a database that does not exist: what they meet in one that does."""
    known: bool = proxy.lookups.mostly_scram if proxy.settings.auth_user else proxy.users.mostly_scram
    return known


def find_question(proxy: Any, name: str) -> Question | None:
    """What to ask for clients of the database `name`; None: there is nothing to ask. Refused: it is set up wrongly."""
    settings = proxy.settings
    entry = None if name in CONSOLES else proxy.find_database(name)
    if entry is None and name not in CONSOLES:
        return None
    user = (entry and entry.auth_user) or settings.auth_user
    database = (entry and entry.auth_dbname) or settings.auth_dbname or (name if entry else "")
    query = (entry and entry.auth_query) or settings.auth_query
    if not (user and database and query):
        return None
    if database in CONSOLES:
        raise _config_error(proxy, f'cannot use the reserved "{database}" database as an auth_dbname')
    if proxy.find_database(database) is None:
        raise _config_error(proxy, f'authentication database "{clean(database)}" is not configured')
    return Question(database, user, query)


class Lookups:
    """One per proxy: what auth_query has said lately."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy
        self.turns = Turns()  # of those who have several verifiers
        self._known: OrderedDict[Key, Found] = OrderedDict()
        self._unknown: OrderedDict[Key, Found] = OrderedDict()
        self._flights: dict[Key, Flight] = {}
        self._scram = 0  # how many of those known have a SCRAM verifier
        self._strangers: dict[str, asyncio.Semaphore] = {}  # by entry

    def __len__(self) -> int:
        return len(self._known) + len(self._unknown)

    @property
    def pending(self) -> int:
        """Questions on their way."""
        return len(self._flights)

    @property
    def mostly_scram(self) -> bool:
        """What would those meet who are not there, if they were? PostgreSQL's own default, until we know better."""
        return 2 * self._scram >= len(self._known)

    def forget(self) -> None:
        """Other questions are asked from now on, or the same ones of somebody else."""
        self._known.clear()
        self._unknown.clear()
        self._flights.clear()
        self._strangers.clear()
        self._scram = 0

    def is_current(self, question: object, user: str, stored: Stored) -> bool:
        """Is `stored` what was last said of `user`, as far as we remember?"""
        key: Any = (question, user)
        found = self._known.get(key)
        return key not in self._unknown if found is None else stored in found.stored

    async def wait(self, question: Question, user: str) -> Found:
        """What auth_query says of `user`, now or a moment ago. Refused, LoginFailed: it cannot be asked."""
        key = (question, user)
        found = self.recall(key)
        if found is None:
            answer = await self._fly(key)
            if isinstance(answer, Exception):
                raise answer
            found = answer
        return found

    async def wait_newer(self, question: Question, user: str, than: Found) -> Found | None:
        """Something newer; None: there is none, since that is new enough or nobody answers."""
        key = (question, user)
        last = self._known.get(key) or self._unknown.get(key) or than
        if last.asked_at > than.asked_at:
            return last
        if self._now() - than.asked_at < PAUSE:
            return None
        answer = await self._fly(key)
        return answer if isinstance(answer, Found) else None

    def recall(self, key: Key) -> Found | None:
        """The answer, if it still counts."""
        ttl, now = self._proxy.settings.auth_query_ttl, self._now()
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
            return found if now - found.asked_at < ttl else None
        found = self._unknown.get(key)
        return found if found is not None and now - found.asked_at < ttl else None

    async def _fly(self, key: Key) -> Found | Exception:
        """Ask, or wait for the answer of who asks already. When all who wait have gone nobody asks any more."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = Flight(self._proxy.tasks.start(self._ask(key), name="auth_query"))
            flight.task.add_done_callback(lambda _: self._land(key, flight))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                self._call_off(key, flight)

    def _call_off(self, key: Key, flight: Flight) -> None:
        """At once: whoever comes in the next moment must not wait for what is being cancelled."""
        if self._flights.get(key) is flight:
            del self._flights[key]
        flight.task.cancel()

    def _land(self, key: Key, flight: Flight) -> None:
        if self._flights.get(key) is not flight:
            return  # what it has found is no answer to what is asked by now
        del self._flights[key]
        task = flight.task
        if not task.cancelled() and task.exception() is None and isinstance(found := task.result(), Found):
            self.note(key, found)

    def note(self, key: Key, found: Found) -> None:
        """That is the answer now."""
        self._unknown.pop(key, None)
        self._scram -= _is_scram(self._known.pop(key, None))
        if not found.stored:
            self._unknown[key] = found
        else:
            self._known[key] = found
            self._scram += _is_scram(found)
        if len(self._unknown) > MOST_UNKNOWN:
            self._unknown.popitem(last=False)
        if len(self._known) > MOST_KNOWN:
            self._scram -= _is_scram(self._known.popitem(last=False)[1])

    async def _ask(self, key: Key) -> Found | Exception:
        try:
            if key in self._known:
                return await self._wait_answer(*key)
            async with self._find_door(key[0].database):
                return await self._wait_answer(*key)
        except Refused as no:
            return no
        except LoginFailed as failed:
            return self._judge(failed, *key)

    def _find_door(self, database: str) -> asyncio.Semaphore:
        """Of strangers: all names that only `*` knows have one between them, since there is no end of these."""
        entry = database if database in self._proxy.config.databases else FALLBACK
        door = self._strangers.get(entry)
        if door is None:
            door = self._strangers[entry] = asyncio.Semaphore(STRANGERS_AT_ONCE)
        return door

    async def _wait_answer(self, question: Question, user: str) -> Found:
        asked_at, pool = self._now(), self._proxy.pools.find_lookup(question.database, question.user)

        def ask(server: Any, answer: Answer) -> None:
            server.ledger.expect(DEBTS, answer)
            server.transport.write(build_auth_query(question.query, user))

        for _ in range(TRIES):
            answer = await Errand(pool, ask, user=question.user).wait()
            if answer is not None:
                return Found(self._read(answer, question, user), asked_at)
            if self._now() - asked_at >= PATIENCE:
                break
        raise _unanswered(self._proxy, question, user, "the connection was lost, or there was no answer in time")

    def _read(self, answer: Answer, question: Question, user: str) -> tuple[Stored, ...]:
        if answer.error is not None:
            if answer.error.sqlstate in _NO_SUCH_TEXT:
                return ()
            raise _unanswered(self._proxy, question, user, _tell(answer.error))
        try:
            return parse_secret(answer.data, user)
        except BadQuery as bad:
            raise _unanswered(self._proxy, question, user, str(bad), UNEXPECTED_RESPONSE) from None
        except BadRow as bad:
            _log(self._proxy, question, user, str(bad))
            return ()

    def _judge(self, failed: LoginFailed, question: Question, user: str) -> Found | Refused:
        """
        Nobody could be asked. In a database that does not exist there is nobody, and the log says of each who tries
        that it does not. Where PostgreSQL is and why it cannot
        be reached is none of a stranger's business, and that auth_user has a wrong password would look like his own:
        both are in the log.
        """
        if failed.sqlstate == sqlstate.INVALID_CATALOG:
            return Found((), self._now(), f'database "{clean(question.database)}" does not exist')
        if failed.sqlstate.startswith(_ABOUT_LOGINS):
            return _config_error(self._proxy, f"{_name(question)} cannot log in: {failed.sentence}")
        return Refused(failed.sqlstate, NO_CONNECTION, hint="The log of the pooler says why.")

    def _now(self) -> float:
        return float(self._proxy.clock.now())


def _is_scram(found: Found | None) -> bool:
    return found is not None and isinstance(found.stored[0], ScramVerifier)


def _tell(error: ErrorFields) -> str:
    return f"{error.severity} {error.message} ({error.sqlstate})"


def _unanswered(proxy: Any, question: Question, user: str, why: str, sentence: str = ERROR_RESPONSE) -> Refused:
    """The log has the reason, the client a general sentence."""
    _log(proxy, question, user, why)
    return Refused(sqlstate.CONNECTION_FAILURE, sentence, hint="The log of the pooler says why.")


def _log(proxy: Any, question: Question, user: str, why: str) -> None:
    proxy.log.warning(f'{_name(question)}, asked for user "{clean(user)}": {hide_secrets(why)}')


def _config_error(proxy: Any, why: str) -> Refused:
    proxy.log.error(why)
    return Refused(sqlstate.INVALID_AUTHORIZATION, "bouncer config error", hint="The log of the pooler says why.")


def _name(question: Question) -> str:
    return f'auth_query as "{clean(question.user)}" in database "{clean(question.database)}"'
