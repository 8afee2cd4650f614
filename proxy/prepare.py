"""
From a client's names to a server's: what a batch becomes when the server it goes to is known.

Theory. A client's named statement is a shared `Statement` (protocol/prepared.py) under our name. A batch that carries
names is walked again when it has its server: Parse, Bind, Describe and Close are renamed, and what the server lacks is
put in front (`Injection`). The server answers everything itself, in its own order, so nothing has to be invented: a
Parse of what is there already becomes a Parse of something else without a name, a Close becomes a Close of a name that
never exists, a Parse under a name that is taken is sent under one that is taken. In the errors that come of it the
client's own name is put back (reword.py).

What a driver believes of a statement's columns must hold on every server. So a statement that is put in front is
described too; a Bind that needs it waits for that once. (Also one whose portal is described right behind it: libpq does
that each time, and drivers on top of it crash where columns have changed all the same.) A statement that was described
otherwise is outdated: it fails as PostgreSQL would fail it, until the client parses or describes it anew, and so it
gets a fresh one.

While the server skips to a Sync after an error nothing is renamed: it reads nothing of it, and no name changes.
"""

from typing import Any, Final

from protocol import codes
from protocol.effects import PLAIN, Reading, What
from protocol.framing import HEADER_SIZE
from protocol.frontend import PORTAL, STATEMENT, build_describe
from protocol.ledger import (
    BIND,
    CLOSE,
    DESCRIBE,
    EXECUTE,
    ONE_QUERY,
    PARSE,
    QUERY,
)
from protocol.prepared import (
    CLOSE_NEVER,
    CLOSE_UNNAMED,
    NEVER,
    PARSE_ANYTHING,
    PARSE_EMPTY,
    Statement,
    find_bind_names,
    find_parse_name,
    find_target_name,
    is_ours,
    mark,
    rename_bind,
    rename_parse,
    rename_start,
    rename_target,
)
from proxy import rounds, session, stalls
from proxy.batch import NOBODYS, Batch
from proxy.envoys import Alias, Envoy, Injection, Naming, Tagged
from proxy.pins import PinReason
from proxy.requests import TOO_LONG, note, read, unnamed_text
from proxy.rewrite import find_used, list_listens, names_in_sql, names_of, rewrite_listen, rewrite_query, rewrite_uses


def send(client: Any, server: Any, data: bytes, prefix: bytes = b"", first: int = 0) -> None:
    """Send `data`, translated, behind `prefix`; its first `first` bytes are the rest of a message sent before.

    What must wait for an answer is put into `client.held`, and sent when that has come (`client.play`).
    """
    if first or not rounds.send_named(client, server, data, prefix):
        Translation(client, server, data, prefix, first).send()


MAX_TAGS: Final = 100  # portals of one client that were bound to something whose tag means something


class Translation(Batch):
    """One message each."""

    __slots__ = ()

    def parse(self, pos: int, end: int) -> None:
        data = self.data
        stop = find_parse_name(data, pos, end)
        assert stop is not None
        name = data[pos + HEADER_SIZE : stop]
        if end <= len(data) and not self._is_readable(pos, data[stop + 1 : end]):
            return
        if not name:
            self._parse_unnamed(pos, stop, end)
        elif end > len(data) or not self.client.pool.limits.max_prepared_statements:
            if is_ours(name):
                self.replace(pos, stop, rename_start(data, pos, end, stop, mark(name)))
            self.debts.append(PARSE)
            session.pin_for_statement(self.client, data[stop + 1 : stop + 1024])
        elif not self.is_certain(pos, name):
            return
        elif (taken := self.names.get(name)) is not None:
            if not self.has(taken):
                self.stand_in(pos, taken)
            self.replace(pos, end, rename_parse(taken.name, data[stop + 1 : end]))
            self.enter_as((PARSE,), Alias(self.client, {taken.name: name}))
        else:
            self._parse_named(pos, end, name, data[stop + 1 : end])

    def _is_readable(self, pos: int, body: bytes) -> bool:
        """Is it certain what the names in a text stand for?"""
        names = names_of(self._read_text(body[: body.index(0)]))
        return all(self.is_certain(pos, name) for name in names)

    def _parse_unnamed(self, pos: int, stop: int, end: int) -> None:
        is_whole = end <= len(self.data)
        self.client.unnamed = self.server.unnamed = self.data[pos:end] if is_whole else TOO_LONG
        if is_whole:
            body = self.data[stop + 1 : end]
            said = self._say(pos, body)
            if said is not body:
                self.replace(pos, end, rename_parse(b"", said))
        self.debts.append(PARSE)

    def _say(self, pos: int, body: bytes) -> bytes:
        """The body of a Parse in our words; what it needs is put in front of `pos`."""
        text = body[: body.index(0)]
        reading = self._read_text(text)
        if not reading.is_lasting:
            return body
        if stalls.is_shared(self.client, reading):
            return rewrite_listen(text, reading) + body[len(text) :]
        if not names_in_sql(reading):
            return body
        return rewrite_uses(self, pos, text, reading) + body[len(text) :]

    def _read_text(self, text: bytes) -> Reading:
        return PLAIN if self.client.pool.is_plain(text) else read(self.client, text, is_noted=True)

    def _parse_named(self, pos: int, end: int, name: bytes, body: bytes) -> None:
        server, names = self.server, self.names
        self.client.pool.stats.client_parse_count += 1
        self.needed = set()
        statement = self._find(pos, body)
        if self.has(statement):
            is_exit = statement.reading.has(What.COMMIT, What.ROLLBACK, What.ROLLBACK_TO)
            self.replace(pos, end, PARSE_EMPTY if is_exit else PARSE_ANYTHING)
            server.unnamed = None
        else:
            self._parse_first(pos, end, name, statement)
            return
        self.enter_as((PARSE,), Naming(self.client, names, name, statement))

    def _parse_first(self, pos: int, end: int, name: bytes, statement: Statement) -> None:
        """Nobody has parsed it here: the client's own Parse does it, and a Describe of ours tells what it is."""
        gone = self.make_room(pos, statement)
        learner = Injection(self.client, self.server, statement, gone)
        if gone:
            self.enter_as((CLOSE,) * len(gone), learner)
        self.replace(pos, end, statement.build_parse() + statement.build_describe())
        self.expect(statement, learner)
        self.enter_as((PARSE,), Naming(self.client, self.names, name, statement))
        self.ledger.expect((DESCRIBE,), learner)

    def _find(self, pos: int, body: bytes) -> Statement:
        """The statement for the body of a Parse, read: shared, unless its text speaks of what is the client's alone."""
        reading = self._read_text(body[: body.index(0)])
        if not (names_in_sql(reading) or reading.has(What.LISTEN)):
            return self._find_shared(body)
        needs = find_used(self.names, reading)
        statement: Statement = self.client.pool.statements.make(self._say(pos, body))
        statement.needs = needs
        statement.said = body
        statement.reading = reading
        return statement

    def _find_shared(self, body: bytes) -> Statement:
        client, pool = self.client, self.client.pool
        schema = client.schema
        if client.session is not None and PinReason.TEMP in client.session.pins:
            schema = pool.make_private_schema()  # its temporary tables hide those of the same name
        statement: Statement = pool.find_statement(body, client.followed, schema)
        if statement.is_outdated:
            pool.world.schema_changed(pool)
            statement = pool.find_statement(body, client.followed, schema)
        statement.reading = self._read_text(body[: body.index(0)])
        return statement

    def bind(self, pos: int, end: int) -> None:
        span = find_bind_names(self.data, pos, end)
        assert span is not None
        name = self.data[span[0] : span[1]]
        if name and not self._is_plain_what(pos, name):
            return
        statement = self._find_named(pos, name)
        if statement is None:
            self._bind_other(pos, end, span, name)
            return
        is_asked, self.reasons = self._is_described(statement, pos, end, span), []
        if statement.is_outdated and not is_asked:
            self.replace(pos, span[1], rename_bind(self.data, pos, end, span, NEVER))
        elif self.is_there(pos, statement, is_asked=is_asked):
            self.replace(pos, span[1], rename_bind(self.data, pos, end, span, statement.name))
            if statement.reading is not PLAIN:
                self._note(statement.reading, statement.text, pos, end)
            elif self.client.tags:
                self.tag(pos, [], PLAIN)
        else:
            return
        self.client.pool.stats.bind_count += 1
        self.enter_explained(BIND)

    def _is_plain_what(self, pos: int, name: bytes) -> bool:
        """Is it certain what `name` stands for, and what those do that its text names?"""
        if not self.is_certain(pos, name):
            return False
        statement = self.names.get(name)
        if statement is None or not statement.said:
            return True
        return all(self.is_certain(pos, each) for each in names_of(statement.reading))

    def _find_named(self, pos: int, name: bytes) -> Statement | None:
        """What the client's name stands for; made anew if it speaks of names that stand for something else by now."""
        statement = self.names.get(name) if name else None
        if statement is None or not statement.said or find_used(self.names, statement.reading) == statement.needs:
            return statement
        statement = self._find(pos, statement.said)
        self.names.put(name, statement)
        return statement

    def _is_described(self, statement: Statement, pos: int, end: int, span: tuple[int, int]) -> bool:
        """Is the portal of the Bind at `pos` described right behind it? That excuses only what runs others by name: it
        is described as they are."""
        portal = self.data[pos + HEADER_SIZE : span[0] - 1]
        return bool(statement.said) and self.data.startswith(build_describe(PORTAL, portal), end)

    def _bind_other(self, pos: int, end: int, span: tuple[int, int], name: bytes) -> None:
        """The unnamed statement, or a name the client does not have: PostgreSQL will say so."""
        if not name:
            self._bring_unnamed(pos)
            if self.client.unnamed:
                text = unnamed_text(self.client.unnamed)
                self._note(self._read_text(text), text, pos, end)
        elif is_ours(name):
            self.replace(pos, span[1], rename_bind(self.data, pos, end, span, mark(name)))
        self.debts.append(BIND)

    def _bring_unnamed(self, pos: int) -> None:
        """The client's own unnamed statement, or none: not what somebody else has left there."""
        client, server = self.client, self.server
        if client.unnamed and server.unnamed is client.unnamed:
            return
        if client.unnamed is TOO_LONG:
            client.unnamed = b""
        owner = Injection(client, server, NOBODYS, [])
        said = rename_parse(b"", self._say(pos, client.unnamed[HEADER_SIZE + 1 :])) if client.unnamed else CLOSE_UNNAMED
        self.replace(pos, pos, said)
        self.enter_as((PARSE if client.unnamed else CLOSE,), owner)
        server.unnamed = client.unnamed or None

    def _note(self, reading: Reading, text: bytes, pos: int, end: int) -> None:
        """The Bind at `pos` runs this now."""
        listens = list_listens(reading) if stalls.is_shared(self.client, reading) else []
        self.tag(pos, listens, reading if reading.has(What.DEALLOCATE, What.DISCARD) else PLAIN)
        if not reading.is_lasting:
            return
        note(self.client, reading, text, self.data[pos:end])
        if reading.has(What.PREPARE):
            session.pin_for_statement(self.client, text)  # whose name cannot be changed here: it runs when it likes

    def tag(self, pos: int, listens: list[bool], dropping: Reading) -> None:
        """What the tag of an Execute of the portal of the Bind at `pos` means; that may come much later."""
        client, portal = self.client, self.data[pos + HEADER_SIZE : self.data.index(0, pos + HEADER_SIZE)]
        if listens or dropping is not PLAIN:
            if client.tags is None or len(client.tags) >= MAX_TAGS:
                client.tags = {}
            client.tags[portal] = (listens, dropping)
        elif client.tags:
            client.tags.pop(portal, None)

    def execute(self, pos: int, end: int) -> None:
        portal = self.data[pos + HEADER_SIZE : self.data.find(0, pos + HEADER_SIZE)]
        found = self.client.tags.get(portal) if self.client.tags else None
        if found is None:
            self.debts.append(EXECUTE)
            return
        listens, dropping = found
        if not all(self.is_certain(pos, name) for name in names_of(dropping)):
            return
        del self.client.tags[portal]
        deeds = [deed for act in dropping.acts if (deed := self.drop(act)) is not None]
        self.enter_as((EXECUTE,), Tagged(self.client, listens, deeds, is_one=True))

    def describe(self, pos: int, end: int) -> None:
        name = self._find_target(pos, end)
        if name and not self._is_plain_what(pos, name):
            return
        self.reasons = []
        if name is not None:
            statement = self._find_named(pos, name)
            if statement is not None and statement.is_outdated:
                statement = self._renew(name, statement)
            if statement is not None:
                self.is_there(pos, statement, is_asked=True)
                self.replace(pos, end, statement.build_describe())
            elif not name:
                self._bring_unnamed(pos)
            elif is_ours(name):
                self.replace(pos, end, rename_target(STATEMENT, mark(name), what=b"D"))
        self.enter_explained(DESCRIBE)

    def _renew(self, name: bytes, old: Statement) -> Statement:
        """The client asks what an outdated statement is now: from here on that is what it has."""
        statement = self._find_shared(old.body)
        self.names.put(name, statement)
        return statement

    def close(self, pos: int, end: int) -> None:
        name = self._find_target(pos, end)
        if name and not self.is_certain(pos, name):
            return
        if name is None:
            self.debts.append(CLOSE)
        elif not name:
            self.client.unnamed = b""
            self.server.unnamed = None
            self.debts.append(CLOSE)
        else:
            self._close_named(pos, end, name)

    def _close_named(self, pos: int, end: int, name: bytes) -> None:
        """A name of which we know nothing may be one that the server knows: of a statement too long to be shared."""
        if self.names.get(name) is None:
            if is_ours(name):
                self.replace(pos, end, rename_target(STATEMENT, mark(name), what=b"C"))
            self.debts.append(CLOSE)
            return
        self.replace(pos, end, CLOSE_NEVER)
        self.enter_as((CLOSE,), Naming(self.client, self.names, name, None))

    def _find_target(self, pos: int, end: int) -> bytes | None:
        """The name of the statement it is about; None if it is about a portal."""
        if self.data[pos + HEADER_SIZE] != STATEMENT:
            return None
        stop = find_target_name(self.data, pos, end)
        assert stop is not None
        return self.data[pos + HEADER_SIZE + 1 : stop]

    def query(self, pos: int, end: int) -> None:
        owner: Envoy | None = None
        if end <= len(self.data):
            owner = rewrite_query(self, pos, end)
        if self.waits_at >= 0:
            return
        if owner is None:
            self.debts.append(QUERY)
        else:
            self.enter_as(ONE_QUERY, owner)
            self.owner = self.client  # from here on a probe would lose count of the units


Translation.translations = {
    codes.QUERY: Translation.query,
    codes.PARSE: Translation.parse,
    codes.BIND: Translation.bind,
    codes.DESCRIBE: Translation.describe,
    codes.EXECUTE: Translation.execute,
    codes.CLOSE: Translation.close,
}
