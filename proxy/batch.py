"""
One walk over a batch that must be translated, and what its server has.

Theory. `data` is what the client has sent, `pieces` what the server gets: slices of the one, with something else in
between where a message is replaced or something is put in front. Debts are entered in the order of the pieces, those of
the client gathered, those of envoys by themselves. All of it is one write.

A server's named statements stand in `server.statements`, the one used last at the end: when there is no room the first
goes (Close). With it stands the generation of the schema it was made in; one that is not to be trusted any more has 0
there, and is closed before it is made again. One whose literals were read with parameters that it was not meant for is
good for the client who had it made so: there stands the client's number, below 0.

What was put in front in an earlier unit and is not answered yet (`server.arriving`, `server.leaving`) may have been
skipped by the server, because of an error that we have not heard of. So it is done again where it matters: to close
what is not there harms nobody. What such a unit has named is in doubt as well: who uses the name waits (`is_certain`).

A batch may come to a message that cannot be sent yet, since a statement must be described first: what lies from there
on (`waits_at`) is held by the client, and the description asked for with a Flush.
"""

import itertools
from collections.abc import Callable
from typing import Any, ClassVar, Final

from protocol import codes
from protocol.acts import Act, What
from protocol.framing import scan
from protocol.frontend import FLUSH_MESSAGE, SYNC_MESSAGE
from protocol.ledger import (
    CLOSE,
    DESCRIBE,
    DULL_REQUESTS,
    ENDS_UNIT,
    PARSE,
    QUERY,
    REQUESTS,
    SYNC,
    Debt,
    Owner,
    is_unit_closed,
)
from protocol.prepared import CLOSE_NEVER, NAME_LENGTH, Names, Statement, is_at_home, rename_parse
from proxy.envoys import Deed, Injection, Tagged
from proxy.rounds import MAX_REPEATED

_REPEATABLE: Final = (b"BES", b"BDES")  # a statement that exists is run, once: if its plan is stale it may be run again
MAX_LOOKED_AT: Final = 20  # statements, for one that may go
NO_TEXT: Final = b"\0\0\0"  # of a Parse, behind the name
NOBODYS: Final = Statement(b"", NO_TEXT)  # for what is put in front and has no name


class Batch:
    """One walk over what a client has sent."""

    __slots__ = (
        "client", "data", "debts", "is_alone", "kinds", "ledger", "needed", "owner", "pieces", "reasons", "server",
        "start", "waits_at",
    )  # fmt: skip

    translations: ClassVar[dict[int, Callable[[Any, int, int], None]]] = {}  # by kind of message: (batch, pos, end)

    def __init__(self, client: Any, server: Any, data: bytes, prefix: bytes, first: int) -> None:
        self.client = client
        self.owner = client if client.probe is None else client.take_probe(data)  # of the client's own debts
        self.server = server
        self.ledger = server.ledger
        self.data = data
        self.pieces: list[bytes] = [prefix] if prefix else []
        self.start = 0  # what lies before is in `pieces`
        self.debts: list[Debt] = []  # of the client, not entered yet
        self.needed: set[Statement] = set()  # by the request at hand: they must not go
        self.reasons: list[Injection] = []  # what was put in front of it, and why it may fail
        self.waits_at = -1  # from here on it must wait
        self.kinds = bytearray()  # of the messages seen
        self.is_alone = self.ledger.is_settled and server.status == codes.IDLE and not prefix and not first
        self._walk(first)

    def _walk(self, pos: int) -> None:
        data, limit = self.data, self.client.pool.world.settings.max_packet_size
        size = len(data)
        while pos < size and self.waits_at < 0:
            kind, pos, end = scan(data, pos, DULL_REQUESTS, limit)
            if not kind:
                break
            translate = self.translations.get(kind)
            if translate is None or self._is_skipping():
                self.debts.append(REQUESTS[kind])
            else:
                translate(self, pos, end)
            self.kinds.append(kind)
            pos = end

    def _is_skipping(self) -> bool:
        if self.ledger.skipping:
            self.enter()  # a Sync among these may have ended it
        return bool(self.ledger.skipping)

    def send(self) -> None:
        self.enter()
        rest = self.data[self.start :] if self.waits_at < 0 else self.data[self.start : self.waits_at]
        self.pieces.append(rest)
        if self.waits_at >= 0:
            self.pieces.append(FLUSH_MESSAGE)
            self.client.wait_for_description(self.data[self.waits_at :])
        elif self.is_alone and bytes(self.kinds) in _REPEATABLE and len(self.data) <= MAX_REPEATED:
            self.server.repeatable = (self.client, self.data)
        self.server.transport.write(b"".join(self.pieces))

    def enter(self) -> None:
        """The client's debts so far."""
        if self.debts:
            self.ledger.expect(tuple(self.debts), self.owner)
            self.debts = []

    def enter_as(self, debts: tuple[Debt, ...], owner: Owner) -> None:
        self.enter()
        self.ledger.expect(debts, owner)

    def enter_explained(self, debt: Debt) -> None:
        """The debt of a request for which something may have been put in front that fails without a word."""
        reasons = tuple(each for each in self.reasons if each.is_alone)
        if reasons:
            self.enter_as((debt,), Tagged(self.client, [], [], reasons))
        else:
            self.debts.append(debt)

    def replace(self, pos: int, until: int, by: bytes) -> None:
        """`data[pos:until]` is sent as `by`."""
        if pos > self.start:
            self.pieces.append(self.data[self.start : pos])
        self.pieces.append(by)
        self.start = until

    @property
    def names(self) -> Names:
        names: Names | None = self.client.statements
        if names is None:
            names = self.client.statements = Names()
        return names

    @property
    def is_between_units(self) -> bool:
        """May something with a Sync of its own be put in front?"""
        is_closed = is_unit_closed(reversed(self.debts))
        return is_closed if is_closed is not None else self.ledger.is_between_units

    # What the server has.

    def is_certain(self, pos: int, name: bytes | None) -> bool:
        """Is it known what `name` stands for, all if that is None? False: what stands at `pos` must wait."""
        pending = self.names.pending
        if not pending:
            return True
        doubts = list(pending.values()) if name is None else [pending.get(name[:NAME_LENGTH]), pending.get(None)]
        if all(each is None or self._is_of_this_unit(each) for each in doubts):
            return True
        self.replace(pos, pos, CLOSE_NEVER)
        self.enter_as((CLOSE,), Injection(self.client, self.server, NOBODYS, [], then=self._go_on))
        self.waits_at = pos
        return False

    def has(self, statement: Statement) -> bool:
        """Does it? Then it is the one used last, from here on."""
        known, arriving = self.server.statements, self.server.arriving
        made = known.get(statement, 0)
        if made == 0 or (made < 0 and made != -self.client.number):
            return False
        if statement in arriving and not self._is_of_this_unit(arriving[statement]):
            return False
        known[statement] = known.pop(statement)
        return True

    def _is_of_this_unit(self, owner: Owner) -> bool:
        return ENDS_UNIT.isdisjoint(self.debts) and self.ledger.is_in_open_unit(owner)

    def free(self, pos: int, statement: Statement) -> None:
        """`make_room` for a statement that is made otherwise."""
        gone = self.make_room(pos, statement)
        if gone:
            self.enter_as((CLOSE,) * len(gone), Injection(self.client, self.server, NOBODYS, gone))

    def make_room(self, pos: int, statement: Statement) -> list[Statement]:
        """Close what must go before `statement` can be parsed."""
        known, leaving = self.server.statements, self.server.leaving
        gone = [statement] if statement in known or statement in leaving else []
        limit = max(self.client.pool.limits.max_prepared_statements, 1)
        surplus = len(known) + (statement not in known) - limit
        if surplus > 0:
            front = itertools.islice(known, MAX_LOOKED_AT)  # who is needed was used last, and stands at the end
            others = (each for each in front if each is not statement and each not in self.needed)
            gone += itertools.islice(others, surplus)
        for each in gone:
            known.pop(each, None)
            self.server.arriving.pop(each, None)
            leaving[each] = leaving.get(each, 0) + 1
            self.replace(pos, pos, each.build_close())
        return gone

    def inject(
        self, pos: int, statement: Statement, then: Callable[[], object] | None = None, *, alone: bool = False
    ) -> Injection:
        """Put `statement` in front of what stands at `pos`; `alone`: as a unit of its own, since no Sync follows."""
        gone = self.make_room(pos, statement)
        closes = (CLOSE,) * len(gone)
        is_alone = alone or statement.is_sql  # then what comes behind it is not skipped when it fails
        owner = Injection(self.client, self.server, statement, gone, then=then, is_alone=is_alone)
        self.expect(statement, owner)
        if not self._is_at_home(statement):
            self.server.statements[statement] = -self.client.number  # good for this client, and for nobody else
        if statement.is_sql:
            self.replace(pos, pos, statement.build_prepare())
            self.server.unnamed = None
            self.enter_as((*closes, QUERY), owner)
        else:
            end = SYNC_MESSAGE if alone else b""
            self.replace(pos, pos, statement.build_parse() + statement.build_describe() + end)
            self.enter_as((*closes, PARSE, DESCRIBE, SYNC) if alone else (*closes, PARSE, DESCRIBE), owner)
        return owner

    def stand_in(self, pos: int, statement: Statement) -> None:
        """Put something by the name of `statement` in front of what only needs that: it is dropped, or given again. The
        statement itself might not be made any more, without its table, and it would be in vain."""
        is_alone = self.is_between_units
        gone = self.make_room(pos, statement)
        closes = (CLOSE,) * len(gone)
        self.replace(pos, pos, rename_parse(statement.name, NO_TEXT) + (SYNC_MESSAGE if is_alone else b""))
        owner = Injection(self.client, self.server, NOBODYS, gone, is_alone=is_alone)
        self.enter_as((*closes, PARSE, SYNC) if is_alone else (*closes, PARSE), owner)
        self.server.statements[statement] = 0  # what stands there is not to be run

    def _is_at_home(self, statement: Statement) -> bool:
        """Will the server make the same of it as whoever parsed it first? Its client may have changed parameters."""
        return is_at_home(statement, self.client.tail if self.client.is_line else self.client.followed)

    def expect(self, statement: Statement, owner: Injection) -> None:
        """The server will have it, and `owner` hears of that."""
        self.server.statements[statement] = self.client.pool.generation
        self.server.arriving[statement] = owner
        self.client.pool.stats.server_parse_count += 1

    def drop(self, act: Act) -> Deed | None:
        """What a DEALLOCATE or DISCARD does to names, if its tag comes. It is done here, for what comes behind it."""
        if act.what is What.DISCARD and act.name == b"all":
            return self._wipe(b"DISCARD ALL\0")
        if act.what is not What.DEALLOCATE:
            return None
        if not act.name:
            return self._wipe(b"DEALLOCATE ALL\0")
        names, name, statement = self.names, act.name, self.names.get(act.name)
        if statement is None:
            return None
        names.put(name, None)
        forget = self._doubt([statement])
        return self.promise(name, Deed(b"DEALLOCATE\0", forget, lambda: names.put_back({name: statement})))

    def promise(self, name: bytes | None, deed: Deed) -> Deed:
        """What `deed` does to `name`, to all if that is None, is in doubt until it is done or undone."""
        names = self.names

        def done() -> None:
            names.settle(name, promised)
            deed.done()

        def undo() -> None:
            names.settle(name, promised)
            deed.undo()

        name = name and name[:NAME_LENGTH]
        promised = names.pending[name] = Deed(deed.tag, done, undo)
        return promised

    def _wipe(self, tag: bytes) -> Deed:
        """All statements go, the client's and the server's."""
        names = self.names
        before, forget = names.take_all(), self._doubt(list(self.server.statements))
        self.server.unnamed = None
        return self.promise(None, Deed(tag, forget, lambda: names.put_back(before)))

    def _doubt(self, going: list[Statement]) -> Callable[[], None]:
        """The server may have these no more; to be called when that is certain."""
        known = self.server.statements
        for each in going:
            known[each] = 0
            self.server.arriving.pop(each, None)

        def forget() -> None:
            for each in going:
                if known.get(each) == 0:
                    del known[each]

        return forget

    def is_there(self, pos: int, statement: Statement, *, is_asked: bool) -> bool:
        """See to it that the server has `statement`. False: what stands at `pos` must wait for its description."""
        self.needed = {statement, *statement.needs}
        self.reasons = []
        is_run = bool(statement.needs) and statement.reading.has(What.EXECUTE)
        for needed in statement.needs:
            if self.has(needed):
                continue
            if is_run:
                self.reasons.append(self.inject(pos, needed, alone=self.is_between_units))
            else:
                self.stand_in(pos, needed)
        if self.has(statement):
            return True
        must_wait = statement.description is not None and not is_asked
        self.reasons.append(self.inject(pos, statement, self._go_on if must_wait else None))
        if must_wait:
            self.waits_at = pos
        return not must_wait

    def _go_on(self) -> None:
        self.client.description_came(self.server)
