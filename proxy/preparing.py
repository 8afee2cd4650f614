"""
Named statements that a line's server lacks.

Theory. A client believes that it has its statement, and that its columns are what they were. So a server that lacks it
is given it by us, as a unit of our own (Parse, Describe, Sync), and whoever needs it waits until it is known to be what
it was: that is once per statement and server. If it cannot be had, or is another by now, a server of the client's own
says so in PostgreSQL's words (prepare.py).
"""

from typing import Any

from protocol.prepared import Statement, is_at_home
from proxy.batch import Batch
from proxy.units import Unit


class Preparing:
    """Of one line: who waits for which statement."""

    __slots__ = ("_line", "_waiting")

    def __init__(self, line: Any) -> None:
        self._line = line
        self._waiting: dict[Statement, list[Unit]] = {}

    def has(self, unit: Unit, pieces: list[bytes], entries: Any) -> bool:
        """Does the server have what `unit` runs? Else it waits, or goes elsewhere."""
        server, statement = self._line.server, unit.statement
        if statement in self._waiting:
            self._waiting[statement].append(unit)
            return False
        if self._line.has(statement):
            return True
        if statement.is_outdated or statement in server.arriving or not is_at_home(statement, unit.client.followed):
            self._line.lines.send_alone(unit)
            return False
        self._line.flush(pieces, entries)
        pieces.clear()
        entries.clear()
        self._bring(unit)
        return False

    def _bring(self, unit: Unit) -> None:
        line, statement = self._line, unit.statement
        line.pool.stats.line_parse_count += 1
        self._waiting[statement] = [unit]
        server = line.server
        if server.ledger.head[1] is None:
            line.head_since = line.now()
        batch = Batch(line, server, b"", b"", 0)
        batch.inject(0, statement, then=lambda: self._came(statement, server), alone=True)
        batch.send()

    def _came(self, statement: Statement, server: Any) -> None:
        """It is there, or it is not."""
        line = self._line
        if statement not in self._waiting:
            line.nobody_is_served(server)
            return
        units = self._waiting.pop(statement)
        is_there = (
            line.server is not None and line.server.statements.get(statement, 0) > 0 and not statement.is_outdated
        )
        if is_there:
            line.lines.put_first(units)
        else:
            for unit in units:
                line.lines.send_alone(unit)

    @property
    def waiting(self) -> list[Unit]:
        return [unit for units in self._waiting.values() for unit in units]

    @property
    def is_busy(self) -> bool:
        return bool(self._waiting)

    def leave(self) -> int:
        """It takes too long: whoever waits has a server of his own, where he may wait as well. How many that are."""
        waiting, self._waiting = self._waiting, {}
        self._line.nobodys += len(waiting)
        for units in waiting.values():
            for unit in units:
                self._line.lines.send_alone(unit)
        return sum(map(len, waiting.values()))

    def give_up(self) -> None:
        """The server is gone: others may have them."""
        waiting, self._waiting = self.waiting, {}
        self._line.lines.put_first(waiting)
