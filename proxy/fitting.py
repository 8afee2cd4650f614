"""
A visitor's startup parameters are tried on, on a server of its pool, before it is let in.

Theory. A server must say whether it takes a value, and how it spells it; afterwards the pool knows, and the next
visitor with the same wish costs nothing (`Learnt.spelled`). Until then the visitor needs a server for one round trip,
which is an errand (errand.py). What it asks leaves nothing behind, so the server goes back at once; see
protocol/trial.py.

application_name is never asked: every server takes it, and we have cleaned it. Nor is a value the pool's servers have
by themselves.
"""

from collections.abc import Mapping
from typing import Any

from protocol import sqlstate
from protocol.errors import ProtocolError
from protocol.ledger import ONE_QUERY
from protocol.parameters import ParameterSet
from protocol.trial import build_trial, parse_trial
from proxy.errand import Answer, Errand, refusal_of
from proxy.failing import LoginFailed
from proxy.states import Closing

TRIES = 3  # servers, where the first ones are lost
UNASKED = frozenset({"application_name"})


async def wait_spelled(pool: Any, wishes: Mapping[str, str], base: ParameterSet, user: str = "") -> dict[str, str]:
    """The wishes as the pool's servers spell them. Refused in the server's words; LoginFailed when there is none."""
    known = pool.learnt.spelled
    unknown = {
        name: value
        for name, value in wishes.items()
        if name not in UNASKED and base.get(name) != value and (name, value) not in known
    }
    if unknown:
        pool.learnt.spell(unknown, await _wait_answer(pool, unknown, base, user))
    return {name: pool.learnt.spelled.get((name, value), value) for name, value in wishes.items()}


async def _wait_answer(pool: Any, wishes: Mapping[str, str], base: ParameterSet, user: str) -> dict[str, str]:
    def ask(server: Any, answer: Answer) -> None:
        server.ledger.expect(ONE_QUERY, answer)
        server.transport.write(build_trial(wishes, base, server.followed))

    for _ in range(TRIES):
        answer = await Errand(pool, ask, base, user).wait()
        spelled = None if answer is None else _read(answer, wishes, base)
        if spelled is not None:
            return spelled
    raise LoginFailed(sqlstate.CONNECTION_FAILURE, Closing.CRASHED.value)


def _read(answer: Answer, wishes: Mapping[str, str], base: ParameterSet) -> dict[str, str] | None:
    error = answer.error
    if error is not None:
        if error.sqlstate == sqlstate.QUERY_CANCELED:
            return None  # a timeout of somebody else's
        raise refusal_of(error)
    try:
        return parse_trial(wishes, answer.data, base.get("client_encoding", ""))
    except ProtocolError:
        return None
