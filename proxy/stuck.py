"""
When a line's head does not come to an end: who stands behind it is rescued.

Theory. A head may wait for a lock (somebody runs ALTER TABLE), read far more than it ever did, or its answer may not be
read by its client. Those behind it have not begun, and could have been served elsewhere. So after `pipeline_stall_ms`
everybody leaves the line: those behind stand in line anew, and the head runs again on a server of its own, where it may
wait for as long as it likes. Nobody loses anything by that, since all of them only read and nothing has been heard of
any of them. The server is cancelled and drained of the answers nobody wants any more, as after a client that left, and
then it is everybody's again.

A head of which something has been heard already cannot run again, and ending it would be an error that its client has
not earned: it is left alone, and so are those behind it. Its kind has lost its trust by then, so this seldom lasts.
"""

from typing import Any

from proxy import dispatch
from proxy.chores import Chore
from proxy.states import RESTING


def rescue(line: Any) -> None:
    """The head of `line` is stuck."""
    units = line.units
    waiting = [unit for unit in units if unit.client is not None]
    if len(waiting) < 2 or not all(unit.may_run_again for unit in units) or line.server.cancels:
        return
    server, head = line.server, units[0]
    head.shape.distrust()
    again = [unit.make_again() for unit in waiting]
    line.load = 0
    for unit in reversed(again[1:] if head is waiting[0] else again):
        line.lines.put_first(unit)
    heir = Chore()
    for unit in units:
        server.ledger.disown(unit, heir)
    if server.recipient in units:
        server.recipient = heir
    dispatch.abandon(line, cancel=True)
    line.state = RESTING
    line.lines.rescues += 1
    if head is waiting[0]:
        line.lines.send_alone(again[0])
