"""
When a line's head does not come to an end: who stands behind it is rescued.

Theory. A head may wait for a lock (somebody runs ALTER TABLE), read far more than it ever did, or its answer may not be
read by its client. Those behind it have not begun, and could have been served elsewhere. So after `pipeline_stall_ms`
they stand in line anew, before all others, and another server takes them; the head stays where it is, as if the server
had been its own all the time, and nobody joins it any more. Nothing is cancelled, no connection ends: what PostgreSQL
has already been sent of those who left it runs once more when the head is done, and the answers reach nobody. That is
safe, since all of them only read, and it is the smaller evil: to end the connection would fail the head, which has done
nothing wrong.

A unit that has been rescued twice already stays.
"""

from typing import Any

from proxy.chores import Chore


def rescue(line: Any) -> int:
    """The head of `line` is stuck; how many have been taken from behind it."""
    units = line.units
    behind = [unit for unit in units[1:] if unit.client is not None and unit.may_run_again]
    if not behind:
        return 0
    heir = Chore()
    for unit in behind:
        line.ledger.disown(unit, heir)
    line.load -= len(behind)
    units[0].shape.distrust()
    for unit in reversed(behind):
        line.lines.run_again(unit)
    return len(behind)
