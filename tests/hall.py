"""
Who is alone in the hall: tests that measure time or processor run while no other test does.

Theory. `make test` runs several workers, and each has its own PostgreSQL, its own ports, its own folders; what they
share is the machine. A test marked `solitary` has it to itself. The hall is a lock that ordinary tests share and a
solitary one has alone. Before the hall is a gate, through which everybody goes one by one: a solitary test keeps it
shut while it waits for those inside to come out, or it would wait for ever, as there is always somebody inside.

Consecutive solitary tests of one worker stay in the hall together. Both locks are the kernel's (flock), so they end
with the worker, however it ends.
"""

import fcntl
from pathlib import Path


class Hall:
    """The locks as one worker holds them; `folder` is the same for all workers of a run."""

    def __init__(self, folder: Path) -> None:
        self._gate = (folder / "gate").open("w")
        self._hall = (folder / "hall").open("w")
        self.is_alone = False

    def enter(self) -> None:
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        fcntl.flock(self._hall, fcntl.LOCK_SH)
        fcntl.flock(self._gate, fcntl.LOCK_UN)

    def enter_alone(self) -> None:
        """The gate stays shut as long as we are here."""
        if self.is_alone:
            return
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        fcntl.flock(self._hall, fcntl.LOCK_EX)
        self.is_alone = True

    def leave(self) -> None:
        fcntl.flock(self._hall, fcntl.LOCK_UN)
        fcntl.flock(self._gate, fcntl.LOCK_UN)
        self.is_alone = False

    def close(self) -> None:
        """Nobody is in it any more."""
        self._gate.close()
        self._hall.close()
