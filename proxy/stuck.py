"""
When a line's head does not come to an end: who stands behind it is rescued.

Theory. A head may wait for a lock (somebody runs ALTER TABLE), read far more than it ever did, or its answer may not be
read by its client. Those behind it have not begun, and could have been served elsewhere. So after `pipeline_stall_ms`
they stand in line anew, before all others, and another server takes them; the head stays where it is, as if the server
had been its own all the time, and nobody joins it any more. Nothing is cancelled under it and no connection ends: that
would fail the head, which has done nothing wrong. What PostgreSQL has already been sent of those who left it is now
nobody's. It runs when the head is done, and its answers reach nobody; that is safe, since all of them only read. It may
wait for a lock itself, or be long: so nobody joins this line before it is done, and if it takes a while it is
cancelled.

If what runs is ours (a Parse waits for a lock as well), or nobody's, then all behind it are rescued.

A unit that has been rescued twice already has a server of its own.
"""

from typing import Any

from proxy.chores import Chore


def rescue(line: Any) -> int:
    """What runs on the server of `line` does not end; how many have been taken from behind it."""
    units, waiting, ledger, server = line.units, line.behind, line.ledger, line.server
    is_ours = len(waiting) == len(units)  # (what runs is nobody's: nobody has begun)
    behind = [unit for unit in waiting if unit.client is not None and unit.may_run_again]
    others = line.preparing.leave()
    if not behind:
        return int(others)
    heir = Chore(lambda _: line.nobody_is_served(server))
    for unit in behind:
        ledger.disown(unit, heir)
    line.load -= len(behind)
    line.nobodys += len(behind)
    if not is_ours:
        units[0].shape.distrust()
    line.lines.run_again(behind)
    return len(behind) + int(others)
