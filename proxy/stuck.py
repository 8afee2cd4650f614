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

Of a group (groups.py) nobody knows which of its units it is that waits, and to PostgreSQL they are one. So it is
cancelled, and runs again by units once PostgreSQL says that it has taken back what it did (or it has been done just in
time, and is heard); those behind it stay. Each unit goes to a server of its own, since in a line the one that waits
would be in the way of the others once more; and each kind among them has to show anew that it is fast, which is soon
done by those that did not wait. Only if the cancel does nothing for as long again, the group is left as others are.

A unit that has been rescued twice already has a server of its own.
"""

from typing import Any

from proxy.chores import Chore
from proxy.groups import Group
from proxy.units import Unit


def rescue(line: Any) -> int:
    """What runs on the server of `line` does not end; how many have been taken from behind it."""
    ledger, server = line.ledger, line.server
    head = ledger.head[1]
    if isinstance(head, Group) and head.units and not head.is_ending:
        return head.end()
    heir = Chore(lambda _: line.nobody_is_served(server))
    suspects = head.units if isinstance(head, Group) else []
    moving: list[Unit] = []
    for owner in dict.fromkeys(ledger.owners()):
        if _may_leave(owner, is_head=owner is head):
            moving += _leave(line, owner, is_head=owner is head)
            ledger.disown(owner, heir)
            line.nobodys += 1
    others = line.preparing.leave()
    if moving and isinstance(head, Unit):
        head.shape.distrust()
    line.lines.run_again(moving, alone=suspects)
    return len(moving) + int(others)


def _may_leave(owner: Any, *, is_head: bool) -> bool:
    """A group goes also when it has begun: most of its units are done, and nobody knows which."""
    if isinstance(owner, Group):
        return bool(owner.units)
    return isinstance(owner, Unit) and not is_head and owner.client is not None and owner.may_run_again


def _leave(line: Any, owner: Any, *, is_head: bool) -> list[Unit]:
    """Which units go."""
    if isinstance(owner, Group):
        return owner.leave(has_begun=is_head)
    line.load -= 1
    return [owner]
