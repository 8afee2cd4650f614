"""
SQL that names statements or channels: PREPARE, EXECUTE, DEALLOCATE, LISTEN, in our words where the client used its own.

Theory. A text is changed only where an act was seen (protocol/acts.py): the token at its place is replaced, nothing
else is touched, and a text that could not be read for certain is not changed at all. A statement made by PREPARE
belongs to its client alone, under a name of ours; a server that lacks it is given it before the text that uses it, as
a Query of its own. Names that the client never made stay as they are, so PostgreSQL itself says that they do not exist.

LISTEN goes to the server as UNLISTEN, which is harmless there and fails where LISTEN would; the connection that really
listens is the hub's. The answer's tags are put right on the way back (`envoys.Tagged`).
"""

from dataclasses import replace
from typing import Any

from protocol.effects import PLAIN, Act, Reading, Sentence, What, build_reading
from protocol.framing import HEADER_SIZE
from protocol.frontend import build_query
from protocol.prepared import Names, Statement, is_ours, mark
from proxy import stalls
from proxy.envoys import Deed, Envoy, Injection, Tagged
from proxy.requests import read

Edit = tuple[int, int, bytes]  # text[start:end] becomes this
Batch = Any  # prepare.Batch
_NAMING = (What.PREPARE, What.EXECUTE, What.DEALLOCATE)


def rewrite_query(batch: Batch, pos: int, end: int) -> Envoy | None:
    """Translate the Query at `pos`; who takes its answer, None for the client itself."""
    client = batch.client
    text = batch.data[pos + HEADER_SIZE : end - 1]
    reading = PLAIN if client.pool.is_plain(text) else read(client, text, is_noted=True)
    if not reading.is_lasting or not reading.is_clear:
        return None
    if not all(batch.is_certain(pos, name) for name in names_of(reading)):
        return None  # it waits
    is_listening = stalls.is_shared(client, reading)
    script = _Script(batch, pos, text)
    batch.needed = set()
    for sentence in reading.sentences:
        for act in sentence.acts:
            if act.what is not What.LISTEN or is_listening:
                script.follow(sentence, act)
    if script.edits:
        batch.replace(pos, end, build_query(_splice(text, script.edits)))
    if not script.edits and not script.deeds:
        return None
    listens = list_listens(reading) if is_listening else []
    injections = tuple(script.injections)
    return Tagged(client, listens, script.deeds, injections, aliases=script.aliases, place=script.place)


def names_of(reading: Reading) -> list[bytes | None]:
    """Of the statements it makes, runs or drops; None among them: of all."""
    naming = [act.name or None for act in reading.acts if act.what in _NAMING]
    return [*naming, None] if any(map(_is_discard_all, reading.acts)) else naming


def _is_discard_all(act: Act) -> bool:
    return act.what is What.DISCARD and act.name == b"all"


def names_in_sql(reading: Reading) -> bool:
    """Does it make, run or drop a statement by its name?"""
    return any(act.what in _NAMING and act.name for act in reading.acts)


def find_used(names: Names, reading: Reading) -> tuple[Statement, ...]:
    """The client's statements that it runs or drops."""
    found = [names.get(act.name) for act in reading.acts if act.what in (What.EXECUTE, What.DEALLOCATE)]
    return tuple(statement for statement in found if statement is not None)


def rewrite_uses(batch: Batch, pos: int, text: bytes, reading: Reading) -> bytes:
    """For the text of a Parse: EXECUTE and DEALLOCATE in our names. A PREPARE in it is left alone."""
    script = _Script(batch, pos, text)
    batch.needed = set()
    for act in reading.acts if reading.is_clear else ():
        if act.name and act.what in (What.EXECUTE, What.DEALLOCATE):
            script.use(act)
        elif act.what is What.PREPARE:
            script.mark(act)
    return _splice(text, script.edits)


def rewrite_listen(text: bytes, reading: Reading) -> bytes:
    return _splice(text, [(act.start, act.end, b"UNLISTEN") for act in reading.acts if act.what is What.LISTEN])


def list_listens(reading: Reading) -> list[bool]:
    """Of the UNLISTENs that a server will hear, in order: was it a LISTEN?"""
    return [act.what is What.LISTEN for act in reading.acts if act.what in (What.LISTEN, What.UNLISTEN)]


def _splice(text: bytes, edits: list[Edit]) -> bytes:
    pieces, last = [], 0
    for start, end, new in sorted(edits):
        pieces += [text[last:start], new]
        last = end
    return b"".join([*pieces, text[last:]])


class _Script:
    """One text on its way to the server."""

    def __init__(self, batch: Batch, pos: int, text: bytes) -> None:
        self.batch = batch
        self.pos = pos
        self.text = text
        self.edits: list[Edit] = []
        self.deeds: list[Deed] = []  # in order
        self.injections: list[Injection] = []
        self.aliases: dict[bytes, bytes] = {}  # by names of ours

    def follow(self, sentence: Sentence, act: Act) -> None:
        if act.what is What.LISTEN:
            self.edits.append((act.start, act.end, b"UNLISTEN"))
        elif act.what is What.PREPARE:
            self._prepare(sentence, act)
        elif act.what in (What.EXECUTE, What.DEALLOCATE) and act.name:
            self.use(act)
        deed = self.batch.drop(act)
        if deed is not None:
            self.deeds.append(deed)

    def place(self, position: int) -> int:
        """Where the character that the server counts as `position` is in the client's text. Both count from 1."""
        gained = 0
        for start, end, new in sorted(self.edits):
            begin = self._count(self.text[:start]) + 1
            if position < begin + gained:
                break
            if position < begin + gained + self._count(new):
                return begin
            gained += self._count(new) - self._count(self.text[start:end])
        return position - gained

    def _count(self, text: bytes) -> int:
        """Characters."""
        is_utf8 = self.batch.client.followed.get("client_encoding") == "UTF8"
        return len(text.decode("utf-8", "replace")) if is_utf8 else len(text)

    def mark(self, act: Act) -> None:
        """A name that only looks like one of ours."""
        if is_ours(act.name):
            self.edits.append((act.start, act.end, b'"%s"' % mark(act.name).replace(b'"', b'""')))

    def use(self, act: Act) -> None:
        statement = self.batch.names.get(act.name)
        if statement is None:
            self.mark(act)
        else:
            if act.what is What.EXECUTE:
                self._bring(statement)
            else:
                self._bring_name(statement)
            self.aliases[statement.name] = act.name
            self.edits.append((act.start, act.end, statement.quoted))

    def _prepare(self, sentence: Sentence, act: Act) -> None:
        batch = self.batch
        statement = batch.names.get(act.name)
        if statement is not None:  # the name is taken, and so is ours: PostgreSQL will say so
            self._bring_name(statement)
            self.aliases[statement.name] = act.name
        else:
            body = self.text[act.end : sentence.end].rstrip(b"; \t\r\n")
            statement = batch.client.pool.statements.make(body, is_sql=True)
            statement.reading = build_reading(self.text, (without_prepare(sentence),))
            self._make(act.name, statement)
        self.edits.append((act.start, act.end, statement.quoted))

    def _make(self, name: bytes, statement: Statement) -> None:
        known, names = self.batch.server.statements, self.batch.names
        self.batch.free(self.pos, statement)
        names.put(name, statement)
        known[statement] = self.batch.client.pool.generation
        self.batch.needed.add(statement)

        def undo() -> None:
            known[statement] = 0
            if names.get(name) is statement:
                names.put(name, None)

        self.deeds.append(self.batch.promise(name, Deed(b"PREPARE\0", lambda: None, undo)))

    def _bring(self, statement: Statement) -> None:
        batch = self.batch
        if statement not in batch.needed and not batch.has(statement):
            # As a unit of its own, or what follows would be skipped if it failed; but a Sync in the middle of a unit
            # of the client's would end that.
            is_alone = batch.is_between_units
            injection = batch.inject(self.pos, statement, alone=is_alone)
            self.injections += [injection] if injection.is_alone else []
        batch.needed.add(statement)

    def _bring_name(self, statement: Statement) -> None:
        """Whatever it stands for there."""
        batch = self.batch
        if statement not in batch.needed and not batch.has(statement):
            batch.stand_in(self.pos, statement)
        batch.needed.add(statement)


def read_prepared(client: Any, statement: Statement) -> Reading:
    """What running it may do, read anew: of a statement that was made in another process, or under other habits."""
    if statement.is_sql:
        text = b"PREPARE x " + statement.body
        return build_reading(text, tuple(map(without_prepare, read(client, text).sentences)))
    text = (statement.said or statement.body).split(b"\0", 1)[0]
    return PLAIN if client.pool.is_plain(text) else read(client, text)


def without_prepare(sentence: Sentence) -> Sentence:
    return replace(sentence, acts=tuple(act for act in sentence.acts if act.what is not What.PREPARE))
