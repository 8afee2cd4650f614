"""
What a client did to its session: looked at when its transaction is over, remembered, or a reason to keep its server.

Theory. A client that never does anything that lasts has no `Session`, and costs nothing here. For the others texts are
noted before they are sent (`note`), and when client and server have come to rest outside a transaction, `is_kept` is
asked whether the server may go. If something is in doubt that takes a question to the server (`doubts`, `inspection`),
one round trip, in which what the client sends is held: it belongs to a session whose state nobody knows yet. Then the
two sets are made new, pins come and go, and the server is given back, or stays. If the text did not say what it sets,
the server is given back only after a RESET ALL: there may be more than it can list. Where names are known to be missing
(`Doubts.is_lost`) that would take from the client what it has set, so it keeps its server instead (NAME), for good.

A parameter that must not stay on an idle server (UNSHARED) is put back before that goes, and is not remembered.

A client goes on in the queue like everybody else, also with what it sent while we were asking: who changes its session
in every transaction shall not keep its server longer than others do.

Nobody is handed a server of which something is unknown. An inspection that fails is made again at once, without what
may have been in its way (`Doubts.is_careful`: a timeout, a role that may not read, an isolation level that waits). If
that fails too, the client keeps its server (UNKNOWN), the log says why, SHOW CLIENTS shows it, and it is tried again
after its next unit. The server could be reset instead, and the client given back what is known of it; but what is not
known may be a lock that it relies on, and then two would hold it: who waits can be seen to wait, a lock that is gone
cannot. A client that leaves before it was answered, or pinned, leaves a server that is reset first (`leave`).
"""

from typing import Any

from protocol import codes
from protocol.acts import What
from protocol.backend import build_parameter_status
from protocol.doubts import TOUCHING, Doubts, Ground, Sets, Told, after_reset_all, why_unsayable
from protocol.effects import Reading
from protocol.errors import ProtocolError
from protocol.inspection import MAX_ANSWER, RESET_ALL, Answer, Fact, Question, build_inspection, parse_inspection
from protocol.ledger import ONE_QUERY
from protocol.parameters import UNSHARED, ParameterSet
from protocol.undone import build_again
from proxy import dispatch, reset, stalls
from proxy.chores import Chore
from proxy.config.kinds import SessionState
from proxy.pins import FACTS, PinReason, Pins
from proxy.states import Closing

_AT_ONCE = {What.LOAD: PinReason.LIBRARY, What.FUNCTION: PinReason.FUNCTION}


def note(client: Any, reading: Reading, text: bytes = b"", values: bytes = b"") -> None:
    """`text` is about to run for `client`; `values` is the Bind that runs it, if there is one."""
    if client.pool.habits.is_audited:
        client.pool.learnt.audit.note(client, reading, text)
        return
    session = client.session
    if session is None:
        if TOUCHING.isdisjoint(reading.whats):
            return
        session = client.session = Session()
    session.note(client, reading, text, values)


def pin_for_statement(client: Any, text: bytes) -> None:
    """A statement may come to be on its server by a name that is not ours."""
    if client.pool.habits.is_tracking:
        if client.session is None:
            client.session = Session()
        client.session.doubt(client, text).facts.add(Fact.STATEMENTS)


class Inspector(Chore):
    """Keeps what a server answers, if it is not too much."""

    __slots__ = ("data", "doubts", "question", "told")

    def __init__(self, question: Question, doubts: Doubts, told: Told) -> None:
        super().__init__()
        self.question = question
        self.doubts = doubts
        self.told = told  # what the server had reported when it was asked, and the client therefore heard
        self.data = b""

    def deliver(self, data: bytes) -> None:
        if len(self.data) <= MAX_ANSWER:
            self.data += data

    def finish(self, server: Any, data: bytes) -> None:
        self.deliver(data)

    def read(self, server: Any) -> Answer | None:
        """What the server said; None when it cannot be used."""
        if self.error is not None or len(self.data) > MAX_ANSWER:
            return None
        try:
            return parse_inspection(self.question, self.data, server.parameters.get("client_encoding", ""))
        except ProtocolError:
            return None


class Wipe(Chore):
    """RESET ALL. What it changes is no wish of the client's, who goes on to believe what it `believed`."""

    __slots__ = ("believed",)

    def __init__(self, believed: ParameterSet) -> None:
        super().__init__()
        self.believed = believed


class Session:
    """Of one client, from the first text that may have changed it."""

    __slots__ = (
        "_asking", "_doubts", "_ground", "_has_failed", "_is_blurred", "_is_spoilt", "has_ddl", "has_dropped",
        "has_named", "is_grammar_open", "pins",
    )  # fmt: skip

    def __init__(self) -> None:
        self.pins: Pins = {}
        self.has_ddl = False  # in the transaction at hand
        self.has_dropped = False  # statements of its server, perhaps, which others take to be there
        self.has_named = False  # a role, perhaps, as others have meant another by that name
        self.is_grammar_open = False  # likewise: it may have changed how texts are read, and is not answered
        self._doubts: Doubts | None = None
        self._asking: Inspector | Wipe | None = None
        self._ground: Ground | None = None
        self._has_failed = False  # the last inspection; not to be repeated in the same breath
        self._is_blurred = False  # its server may have parameters that nobody can list
        self._is_spoilt = False  # its server may have what no reset undoes

    def note(self, client: Any, reading: Reading, text: bytes, values: bytes) -> None:
        held = [fact for fact, reason in FACTS.items() if reason in self.pins] if self.pins else []
        if isinstance(self._asking, Inspector):
            held += self._asking.question.facts  # what it may have been found to hold when this is sent
        if TOUCHING.isdisjoint(reading.whats) and not held:
            return
        doubts = self.doubt(client, text)
        doubts.add(reading, text, values, held)
        if stalls.is_shared(client, reading) and not reading.has(What.UNCLEAR):
            doubts.facts.discard(Fact.CHANNELS)  # somebody else listens
        for what, reason in _AT_ONCE.items():
            if what in reading.whats:
                self._is_spoilt = True
                if not _is_resetting(client):
                    client.pool.learnt.pins.enter(client, self.pins, reason, text)

    def doubt(self, client: Any, text: bytes) -> Doubts:
        """What is in doubt now, and after `text`."""
        if self._doubts is None:
            self._doubts = Doubts(client.followed, text)
        return self._doubts

    def hear_error(self) -> None:
        """Of the client's: what it has said may not have happened."""
        if self._doubts is not None:
            self._doubts.has_erred = True

    # At rest.

    def bring_back(self, client: Any, server: Any) -> None:
        """In a transaction that goes on: RESET means what the client came with, and this server does not know that."""
        if self._doubts is None or client.held is not None:
            return
        if server.status == codes.FAILED:
            self._doubts.fail()
            return
        agains = self._doubts.take_undone(self._find_ground(client), server.followed, _find_told(client, server))
        if agains:
            dispatch.set_again(client, server, build_again(agains))

    def is_kept(self, client: Any, server: Any) -> bool:
        """Both sides have come to rest outside a transaction: does the client keep its server for now?"""
        if client.schema:  # what it has changed in the schema is everybody's now
            client.schema = 0
            has_ddl, self.has_ddl, self.is_grammar_open = self.has_ddl, False, False
            if has_ddl:
                client.pool.world.schema_changed(client.pool)
        if self.has_dropped or self.has_named:
            self._tell_others(client, server)
        if client.stall is not None:
            client.stall.settle()
        asked, self._asking = self._asking, None
        if asked is not None:
            if isinstance(asked, Wipe):
                self._end_wipe(client, server, asked)
            else:
                self._end(client, server, asked)
            return self._asking is not None or self._is_kept_with_words(client, server)
        if client.held is not None:
            return True  # behind a SET of ours
        if self._doubts is not None and not self._has_failed:
            if _is_resetting(client):
                return self._give_up(server)
            if self._begins(client, server):
                return True
        self._has_failed = False
        if server.is_touched and not self.pins:
            dispatch.clean(server)
            return True
        is_unshared = not UNSHARED.isdisjoint(server.followed)
        if (self.pins or is_unshared) and client.followed is not server.followed:
            dispatch.agree(client, server)
        return bool(self.pins) or client.held is not None or client.server is not server

    def _tell_others(self, client: Any, server: Any) -> None:
        """What they take to be there may be gone, or another."""
        if self.has_dropped:
            reset.forget_missing(server)
        if self.has_named:
            client.pool.world.roles_changed()
        self.has_dropped = self.has_named = False

    def _give_up(self, server: Any) -> bool:
        """Nobody wants to know what was done: the server is reset before anyone else has it."""
        self._doubts = None
        self._soil(server)
        dispatch.clean(server)
        return True

    def _soil(self, server: Any) -> None:
        """It must be reset, or closed, before anybody else has it."""
        server.is_touched = True
        if self._is_spoilt:
            server.doomed = Closing.UNCLEAN
            self._is_spoilt = False

    def _is_kept_with_words(self, client: Any, server: Any) -> bool:
        """What the client has said while we were asking goes on: here if it is pinned, else in the queue."""
        data, debts, care = client.held, client.held_debts, client.held_care
        client.held = None
        if not data:
            dispatch.rest_linked(server)
            return True
        doubts, self._doubts = self._doubts, None  # what it may do no server has heard yet
        dispatch.rest_linked(server)
        self._doubts = doubts
        dispatch.resend(client, data, debts, care=care)
        return True

    # Asking.

    def _begins(self, client: Any, server: Any) -> bool:
        """Ask what is in doubt. False: all of it is known already, and settled."""
        doubts, self._doubts = self._doubts, None
        assert doubts is not None
        ground, told = self._find_ground(client), _find_told(client, server)
        question = doubts.ask(ground, server.followed, told, client.pool.learnt.customs)
        if not question:
            self._settle(client, server, doubts.conclude(question, Answer(), _sets(client, server), ground, told), told)
            return False
        client.held, client.held_debts = b"", ()
        self._say(server, build_inspection(question), Inspector(question, doubts, told))
        return True

    def _say(self, server: Any, text: bytes, chore: Inspector | Wipe) -> None:
        self._asking = chore
        server.unnamed = None
        server.ledger.expect(ONE_QUERY, chore)
        server.transport.write(text)

    def _end(self, client: Any, server: Any, inspector: Inspector) -> None:
        """The server has answered."""
        answer, doubts, book = inspector.read(server), inspector.doubts, client.pool.learnt.pins
        if answer is None:
            if not self._asks_again(server, inspector):
                self._fail(client, server, inspector)
            return
        book.strike(self.pins, [PinReason.UNKNOWN])
        for fact, is_so in answer.facts.items():
            if is_so:
                book.enter(client, self.pins, FACTS[fact], doubts.text)
            else:
                book.strike(self.pins, [FACTS[fact]])
        ground = self._find_ground(client)
        sets = doubts.conclude(inspector.question, answer, _sets(client, server), ground, inspector.told)
        if why := why_unsayable(sets.client, ground.spelled):
            book.enter(client, self.pins, PinReason.VALUE, doubts.text or why.encode())
        else:
            book.strike(self.pins, [PinReason.VALUE])
        if doubts.is_lost and not doubts.has_failed:
            book.enter(client, self.pins, PinReason.NAME, doubts.text)
        client.pool.learnt.meet(sets.client)
        self._settle(client, server, sets, inspector.told)
        self._is_blurred |= doubts.is_unclear
        if self._is_blurred and not self.pins:
            self._say(server, RESET_ALL, Wipe(client.followed))

    def _asks_again(self, server: Any, inspector: Inspector) -> bool:
        """Something the session is in may have been in the way of the question: once more, without that."""
        doubts, told = inspector.doubts, inspector.told
        if inspector.error is None or doubts.is_careful or self._ground is None:
            return False
        doubts.is_careful = True
        question = doubts.ask(self._ground, server.followed, told, inspector.question.names)
        self._say(server, build_inspection(question), Inspector(question, doubts, told))
        return True

    def _end_wipe(self, client: Any, server: Any, wipe: Wipe) -> None:
        """Nothing is left that nobody knows of."""
        client.followed = wipe.believed
        if wipe.error is not None:
            server.is_touched = True
            return
        self._is_blurred = False
        server.followed = client.pool.intern(after_reset_all(server.followed, self._find_ground(client).spelled))

    def _fail(self, client: Any, server: Any, inspector: Inspector) -> None:
        """What is in doubt stays so, and the client where it is."""
        if self._doubts is None:
            self._doubts = inspector.doubts
        else:
            self._doubts.absorb(inspector.doubts)
        self._has_failed = True
        why = inspector.error.message if inspector.error else "it makes no sense"
        client.pool.world.log.for_socket(server.tag).warning(f"no answer to what a session is like: {why}")
        client.pool.learnt.pins.enter(client, self.pins, PinReason.UNKNOWN, inspector.doubts.text)

    def _settle(self, client: Any, server: Any, sets: Sets, told: Told) -> None:
        """From now on these hold. The client is told what it believes in where it has heard otherwise."""
        pool = client.pool
        server.followed = pool.intern(sets.server)
        client.followed = server.followed if sets.client == server.followed else pool.intern(sets.client)
        if self._doubts is not None:
            self._doubts.before = client.followed
        for key, value in client.followed.items():
            if told.get(key) not in (None, value):
                client.deliver(build_parameter_status(told.spell(key), value))

    def _find_ground(self, client: Any) -> Ground:
        if self._ground is None:
            self._ground = Ground(client.origin, client.pool.learnt.spell_followed(client.pool), client.pool.user)
        return self._ground

    # Leaving.

    def leave(self, client: Any, server: Any) -> None:
        """The client is gone: what does its server need before anyone else has it?"""
        if self.pins or self._doubts is not None or self._asking is not None:
            self._soil(server)

    @property
    def is_at_ease(self) -> bool:
        """Does all that is known of it stand in the client's parameters?"""
        return not (self.pins or self._doubts or self._asking or self._is_blurred or self._is_spoilt)

    def forget_pins(self, client: Any) -> None:
        """It has no server any more."""
        client.pool.learnt.pins.strike(self.pins, list(self.pins))


def _is_resetting(client: Any) -> bool:
    return client.pool.limits.session_state is SessionState.RESET


def _sets(client: Any, server: Any) -> Sets:
    return Sets(client.followed, server.followed)


def _find_told(client: Any, server: Any) -> Told:
    learnt = client.pool.learnt
    return Told(server.parameters, learnt.name_reported(server), learnt.spell_followed(client.pool))
