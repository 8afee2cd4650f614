"""
Those who wait in the queues: told why, sent away when it takes too long, and a word to the log about who is in the way.

Theory. The front of a queue has waited longest, so a look at it ends at the first who has not waited long enough. Why
they wait is worked out once per pool and sweep, when the first of them must be told (explain.py). Where nobody need
wait, since no server will come, all are sent away at once.

Who waits for a server while it logs in stands in no queue, and has a time limit of its own: what it is told when
query_wait_timeout strikes there (login.py) is made here too.

Who stands in line (lines.py) is in no queue of a pool: he waits for a place, or has been sent behind somebody who does
not come to an end. Nothing of his answer has come before he is the head, so until then a notice may go to him. (How
long he waits is reckoned anew when he is sent.)

The log hears of an exhausted pool too: when somebody has waited for longer than `query_wait_notify`, and then at most
once per WARN_AGAIN, with the name of whoever holds a server for longest. It does not when an administrator has paused
the pool, who knows.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final
from weakref import WeakKeyDictionary

from protocol import sqlstate
from protocol.backend import ErrorFields, build_notice
from protocol.errors import Refused
from proxy.clock import span
from proxy.explain import SENTENCE, Explanation, Reason, explain_place, place_in_queue
from proxy.farewell import ERRORS
from proxy.states import Closing, Leaving, Waiting

MAX_TOLD: Final = 1000  # notices in one sweep, 20 us each; the others hear theirs in the next
WARN_AGAIN: Final = 60.0  # seconds between two warnings about one pool
_KNOWN: Final = frozenset({Waiting.PAUSED, Waiting.SHUTDOWN})


def find_limit(limits: Any) -> tuple[float | None, Closing]:
    """How long one may wait in a queue, and which of two limits says so: a query's time runs from its arrival on."""
    wait, query = limits.query_wait_timeout, limits.query_timeout
    if query is not None and (wait is None or query <= wait):
        return query, Closing.QUEUED_TIMEOUT
    return wait, Closing.QUERY_WAIT_TIMEOUT


class Patience:
    """One per proxy."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._warned: WeakKeyDictionary[Any, float] = WeakKeyDictionary()  # when, by pool

    def sweep(self, pool: Any) -> None:
        """Everybody in `pool`'s queue whose time has come."""
        if pool.world.leaving is Leaving.WAIT_FOR_SERVERS:
            _dismiss(pool, ERRORS[Closing.NO_MORE_SERVERS], Closing.NO_MORE_SERVERS)
            return
        failure = pool.find_hopeless()
        if failure is not None and failure.is_lasting:
            _dismiss(pool, failure.as_cached(pool).as_fields(), Closing.TURNED_AWAY)
            return
        limits, now = pool.limits, self._now()
        limit, why = find_limit(limits)
        explanation: Explanation | None = None
        waiting, told = list(pool.waiting), 0
        for place, client in enumerate(waiting, 1):
            waited = now - client.waiting_since
            is_over = limit is not None and waited > limit
            if not is_over and (limits.query_wait_notify is None or waited <= limits.query_wait_notify):
                break
            if client.is_notified and not is_over:
                continue
            if told == MAX_TOLD:
                break
            explanation = explanation or Explanation(pool)
            where = place_in_queue(place, len(waiting), is_over=is_over)
            reason = _address(explanation, client, where)
            if is_over:
                _send_away(client, why, reason, explanation, waited)
            else:
                told += 1
                _notify(client, reason)
        self._warn(pool, explanation)

    def sweep_lines(self, pool: Any) -> None:
        """Those of them who stand in line there, and are not told yet."""
        patience = pool.limits.query_wait_notify
        if patience is None:
            return
        latest = self._now() - patience
        late = [each for each in pool.lines.find_places() if each[0].since < latest and not each[0].is_notified]
        if not late:
            return
        explanation = Explanation(pool)
        for unit, line, place in late[:MAX_TOLD]:
            unit.is_notified = True
            _notify(unit.client, explain_place(explanation, unit.client, line, place))

    def _warn(self, pool: Any, explanation: Explanation | None) -> None:
        """One line about a pool that has been exhausted for long."""
        patience, waited = pool.limits.query_wait_notify, pool.longest_wait
        if patience is None or waited <= patience or self._now() < self._warned.get(pool, -WARN_AGAIN) + WARN_AGAIN:
            return
        explanation = explanation or Explanation(pool)
        if explanation.obstacle in _KNOWN:
            return
        self._warned[pool] = self._now()
        count = pool.count_waiting()
        who = "1 client waits" if count == 1 else f"{count} clients wait"
        pool.world.log.warning(
            f"{pool}: {who} for a server, the first for {span(waited)}: {explanation.tell(None).detail}"
        )


def find_refusal(pool: Any, user: str, waited: float) -> Refused:
    """Of somebody who waits for a server of `pool` to log in as `user`, in the words for those who are in."""
    explanation = Explanation(pool)
    reason, note = explanation.tell(user), _note(explanation, waited)
    return Refused(reason.sqlstate, Closing.QUERY_WAIT_TIMEOUT.value, detail=reason.detail, hint=reason.hint, note=note)


def _dismiss(pool: Any, error: ErrorFields, why: Closing) -> None:
    """Nobody will get a server, so nobody need wait: there may be another pooler, or something to mend."""
    for client in list(pool.waiting):
        client.refuse(error, why)


def _address(explanation: Explanation, client: Any, where: str) -> Reason:
    """The reason as this client may hear it, and where it stands in the queue."""
    reason = explanation.tell(client.user)
    return replace(reason, detail=f"{reason.detail} {where}")


def _notify(client: Any, reason: Reason) -> None:
    client.is_notified = True
    client.deliver(
        build_notice("NOTICE", sqlstate.SUCCESSFUL_COMPLETION, SENTENCE, detail=reason.detail, hint=reason.hint)
    )


def _send_away(client: Any, why: Closing, reason: Reason, explanation: Explanation, waited: float) -> None:
    error = replace(ERRORS[why], sqlstate=reason.sqlstate, detail=reason.detail, hint=reason.hint)
    if why is Closing.QUEUED_TIMEOUT:
        limit = client.pool.limits.query_timeout
        detail = f"The statement has waited for {span(waited)}; query_timeout is {limit:g} s. {reason.detail}"
        error = replace(error, sqlstate=ERRORS[why].sqlstate, detail=detail)
    client.refuse(error, why, note=_note(explanation, waited))


def _note(explanation: Explanation, waited: float) -> str:
    """For the log."""
    return f"waited for {span(waited)}: {explanation.tell(None).detail}"
