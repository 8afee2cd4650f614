"""
The second look at what a logged-in client sends.

Theory. The stream knows messages by their type, and for most that is enough. Where servers are shared it is not: a text
may change the session, a name may stand for a statement this server does not have. So the few types that can do such
things have a look, a function in a table by message type, that gives a verdict from the bytes at hand: pass it on as it
is, translate it when the server is known, wait for more bytes, wait for something else.

A look never writes and never raises but for what is illegal (ProtocolError) or forbidden (Refused). What a text may
leave behind is noted here (`session.note`), before anybody knows which server it goes to.
"""

import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Set
from itertools import product
from struct import Struct
from typing import Any, Final

from protocol import codes, sqlstate
from protocol.backend import build_command_complete, build_ready
from protocol.effects import PLAIN, Reader, Reading, What
from protocol.errors import ProtocolError, Refused
from protocol.framing import HEADER_SIZE
from protocol.frontend import STATEMENT, build_query
from protocol.prepared import MAX_TARGET, find_bind_names, find_parse_name, find_target_name
from protocol.session_acts import is_meaning
from protocol.sharing import is_readable
from protocol.statements import Kind
from proxy import session, stalls
from proxy.states import BEGUN, RESTING

SHORT = 1024  # bytes; max_packet_size is never less
MAX_STATEMENT = 1_048_576  # bytes; a Parse that is longer is passed on as it comes

length_at = Struct("!I").unpack_from

# Verdicts.
PASS: Final = 0  # as it is
UNNAMED: Final = 1  # as it is; the unnamed statement of the server is this client's from here on
CARE: Final = 2  # to be translated when the server is known
MORE: Final = 3  # not all that is needed has arrived
STALL: Final = 4  # something must be done first; `client.go_on` will be called
BEGIN: Final = 5  # a BEGIN that need not be sent yet
END: Final = 6  # the end of a transaction that was never begun

Look = Callable[[Any, bytes, int, int, bool], int]
"""(client, data, where the message begins, where it ends, has a Parse without a name come before it?) -> verdict"""

Notes = MutableMapping[Any, tuple[float, bytes]]
"""By client: when its last simple query came, and how that begins."""
NOTED: Final = 60  # bytes of it


def _spell(*texts: str) -> list[bytes]:
    """As drivers do."""
    said = [spelled + end for text, end in product(texts, ("", ";")) for spelled in (text, text.lower())]
    return [build_query(text.encode()) for text in said]


def _answer(tag: str) -> bytes:
    return build_command_complete(tag) + build_ready(codes.IN_TRANSACTION)


BEGINS: Final[Mapping[bytes, bytes]] = {
    **dict.fromkeys(_spell("BEGIN", "BEGIN TRANSACTION"), _answer("BEGIN")),
    **dict.fromkeys(_spell("START TRANSACTION"), _answer("START TRANSACTION")),
}
"""Messages that open a transaction and say nothing more, with what they are answered."""
ENDS: Final[Set[bytes]] = frozenset(_spell("COMMIT", "ROLLBACK", "END"))
"""Messages that end one and do not open another."""
NO_BEGINS: Final[Mapping[bytes, bytes]] = {}
NO_ENDS: Final[Set[bytes]] = frozenset()

UNREAD_TEXT: Final = b"do ''"
UNREAD: Final = Reader().read(UNREAD_TEXT)  # what a text may do that is too long to be read: anything
TOO_LONG: Final = b"P"  # an unnamed statement whose Parse we have not kept
MAX_DEPTH: Final = 5  # statements that run statements
_GRAMMAR: Final = frozenset({b"standard_conforming_strings", b"client_encoding", b""})
_OWN_VALUE: Final = re.compile(rb"\b(?:default|local\s*;?\s*$)", re.IGNORECASE)  # what it came with
_DROPS: Final = re.compile(rb"deallocate|discard", re.IGNORECASE)  # statements, where nobody sees their names
_SETS: Final = (Kind.SET, Kind.SET_LOCAL)
TRANSLATED: Final = (What.LISTEN, What.PREPARE, What.EXECUTE, What.DEALLOCATE, What.DISCARD)


def is_terminate(kind: int) -> bool:
    """Of the messages that earn no answer Terminate alone ends something; what is left raises ProtocolError."""
    if kind != codes.TERMINATE:
        raise ProtocolError(f"invalid frontend message type {kind}")
    return True


def read(client: Any, text: bytes, *, is_noted: bool = False) -> Reading:
    """What `text` may do, as this client's server will read it. Where it is not known how that reads it: anything.
    `is_noted`: it is among what has been noted already, and not behind it."""
    followed = client.followed
    if not text.isascii() and not is_readable(followed.get("client_encoding", "UTF8")):
        return UNREAD  # a byte that looks like a quote may be half a letter
    is_open = not is_noted and client.session is not None and client.session.is_grammar_open
    if is_open and (b"\\" in text or not text.isascii()):
        return UNREAD
    reading: Reading = client.pool.habits.reader.read(text, followed.get("standard_conforming_strings") != "off")
    return reading


def look_at_query(client: Any, data: bytes, pos: int, end: int, parsed: bool) -> int:
    if end > len(data):
        if client.pool.habits.is_tracking:
            session.note(client, UNREAD, data[pos + HEADER_SIZE : pos + HEADER_SIZE + SHORT])
        return PASS
    text = data[pos + HEADER_SIZE : end - 1]
    if client.pool.is_plain(text):
        return PASS
    reading = read(client, text)
    if reading is PLAIN:
        return PASS
    if pos == 0 and end == len(data) and client.pool.habits.is_deferring:
        if reading.is_deferrable and client.state is RESTING:
            return BEGIN
        if client.state is BEGUN and is_end(reading):
            return END
    if client.stall is not None and not reading.is_lasting:
        client.stall.note(reading)
    return weigh(client, reading, text, is_noted=True) if reading.is_lasting else PASS


def is_end(reading: Reading) -> bool:
    """Is it one COMMIT or ROLLBACK, and nothing else, that opens no other transaction?"""
    if not len(reading.acts) == len(reading.sentences) == 1:
        return False
    return reading.acts[0].what in (What.COMMIT, What.ROLLBACK) and not reading.acts[0].name


def weigh(client: Any, reading: Reading, text: bytes, *, is_noted: bool) -> int:
    """What must be done about a text whose acts may last. `is_noted`: it will run now, so what it does is in doubt."""
    habits = client.pool.habits
    if reading.has(What.LISTEN) and habits.is_listening_shared and not stalls.is_listening(client, reading):
        return STALL
    if reading.has(What.DATABASE) and not stalls.is_cleared(client, reading):
        return STALL
    if is_noted:
        note(client, reading, text)
    return CARE if reading.has(*TRANSLATED) and not habits.is_private else PASS


def note(client: Any, reading: Reading, text: bytes, values: bytes = b"", depth: int = 0) -> None:
    """`text` runs now, with the Bind `values` if it has one: what it may do is in doubt."""
    habits = client.pool.habits
    if not habits.is_private:
        _note_meanings(client, reading, text)
        for executed, said in _find_executed(client, reading, depth):
            note(client, executed, said + b" " + text, values, depth + 1)
        if (depth or reading.has(What.UNCLEAR)) and _DROPS.search(text):
            have_session(client)
            client.session.has_dropped = True
        if reading.has(What.ROLE):
            have_session(client)
            client.session.has_named = True
    if client.stall is not None:
        have_session(client)
        client.stall.note(reading)
    if habits.is_tracking or habits.is_audited:
        session.note(client, reading, text, values)


def _note_meanings(client: Any, reading: Reading, text: bytes) -> None:
    """What texts mean may be another thing behind this one: for itself now, and if the schema has changed for all when
    its transaction is over (Session.is_kept)."""
    is_ddl = reading.has(What.DDL, What.UNCLEAR)
    touched = any(map(is_meaning, reading.parameters))
    if not (
        is_ddl or touched or reading.has(What.TEMP, What.DISCARD) or (client.schema and reading.has(What.ROLLBACK_TO))
    ):
        return
    have_session(client)
    client.session.is_grammar_open |= is_ddl or not reading.parameters.isdisjoint(_GRAMMAR)
    client.session.has_ddl |= is_ddl
    if touched and not is_ddl and _is_simple(reading, text) and stalls.is_in_transaction(client):
        client.schema = client.pool.derive_schema(client.schema, text)  # all who say this mean the same
    else:
        client.schema = client.pool.make_private_schema()


def _is_simple(reading: Reading, text: bytes) -> bool:
    """Is it one SET or SET LOCAL, to a value that is the same whoever says it?"""
    is_one = len(reading.acts) == len(reading.sentences) == 1 and reading.sentences[0].kind in _SETS
    return is_one and reading.acts[0].what not in (What.RESET, What.LOCAL_RESET) and _OWN_VALUE.search(text) is None


def _find_executed(client: Any, reading: Reading, depth: int) -> Iterator[tuple[Reading, bytes]]:
    """What the statements do that it runs by name."""
    names = client.statements
    for name in {act.name for act in reading.acts if act.what is What.EXECUTE}:
        statement = names.get(name) if names is not None else None
        if depth > MAX_DEPTH or (statement is None and names is not None and names.pending):
            yield UNREAD, UNREAD_TEXT
        elif statement is not None:
            yield statement.reading or UNREAD, statement.text


def have_session(client: Any) -> None:
    """Somebody must be asked when it comes to rest."""
    if client.session is None:
        client.session = session.Session()


def look_at_parse(client: Any, data: bytes, pos: int, end: int, parsed: bool) -> int:
    stop = find_parse_name(data, pos, end)
    if stop is None or (end > len(data) and end - pos <= MAX_STATEMENT):
        return MORE
    is_unnamed = stop == pos + HEADER_SIZE
    if end > len(data):
        if is_unnamed:
            client.unnamed_said, client.unnamed_text = TOO_LONG, UNREAD_TEXT
        return UNNAMED if is_unnamed else CARE
    last = data.find(0, stop + 1, end)
    if last < 0:
        raise ProtocolError("a Parse message whose text has no end")
    text = data[stop + 1 : last]
    reading = PLAIN if client.pool.is_plain(text) else read(client, text)
    verdict = weigh(client, reading, text, is_noted=False) if reading.is_lasting else PASS
    if not is_unnamed:
        return max(verdict, CARE)
    if verdict is not STALL:
        client.unnamed_said = data[pos:end]
        client.unnamed_text = text if reading.is_lasting or client.stall is not None else b""
    return verdict if verdict >= CARE else UNNAMED


def unnamed_text(message: bytes) -> bytes:
    """The text in a Parse without a name; it may be one that was too long to be kept."""
    if message is TOO_LONG:
        return UNREAD_TEXT
    return message[HEADER_SIZE + 1 : message.find(0, HEADER_SIZE + 1)]


def look_at_bind(client: Any, data: bytes, pos: int, end: int, parsed: bool) -> int:
    if data[pos + HEADER_SIZE : pos + HEADER_SIZE + 2] != b"\0\0":
        names = find_bind_names(data, pos, end)
        if names is None:
            return MORE
        if names[0] != names[1]:
            return CARE
    if not (parsed or is_unnamed_there(client)):
        return CARE
    return look_at_unnamed(client, data[pos:end]) if client.unnamed_text else PASS


def look_at_unnamed(client: Any, values: bytes) -> int:
    """The unnamed statement is bound, and it may leave something behind."""
    reading = read(client, client.unnamed_text)
    if reading.has(*TRANSLATED):
        return CARE
    note(client, reading, client.unnamed_text, values)
    return PASS


def look_at_target(client: Any, data: bytes, pos: int, end: int, parsed: bool) -> int:
    """A Describe or Close."""
    at = pos + HEADER_SIZE
    if end == at:
        raise ProtocolError("a Describe or Close message without a body")
    if end - pos > MAX_TARGET:
        raise ProtocolError(f"invalid message length {end - pos - 1}")
    stop = find_target_name(data, pos, end) if at < len(data) else None
    if stop is None:
        return MORE
    if data[at] != STATEMENT:
        return PASS
    is_unnamed_describe = stop == at + 1 and data[pos] == codes.DESCRIBE
    return PASS if is_unnamed_describe and (parsed or is_unnamed_there(client)) else CARE


def is_unnamed_there(client: Any) -> bool:
    """Is the unnamed statement of the client's server its own, and nothing that names another still held?"""
    server = client.server
    if server is None or client.held is not None:
        return False
    return bool(client.unnamed) and server.unnamed is client.unnamed


def look_at_tagged_bind(client: Any, data: bytes, pos: int, end: int, parsed: bool) -> int:
    return max(look_at_bind(client, data, pos, end, parsed), CARE)


def look_at_tagged_execute(client: Any, data: bytes, pos: int, end: int, parsed: bool) -> int:
    return CARE


def look_at_call(client: Any, data: bytes, pos: int, end: int, parsed: bool) -> int:
    """A function by its number, which may do anything."""
    note(client, UNREAD, b"FunctionCall", data[pos:end])
    return PASS


def look_at_audited_query(client: Any, data: bytes, pos: int, end: int, parsed: bool) -> int:
    """Nothing is done about it, it is only counted."""
    if end <= len(data):
        text = data[pos + HEADER_SIZE : end - 1]
        reading = PLAIN if client.pool.is_plain(text) else read(client, text)
        if reading.is_lasting:
            session.note(client, reading, text)
    return PASS


def look_at_private_parse(client: Any, data: bytes, pos: int, end: int, parsed: bool) -> int:
    """Its server is the client's own: only what PostgreSQL would choke on is looked for."""
    if end == pos + HEADER_SIZE:
        raise ProtocolError("a Parse message without a body")
    stop = find_parse_name(data, pos, end) if client.pool.habits.is_audited else None
    if stop is not None and end <= len(data):
        text = data[stop + 1 : data.find(0, stop + 1)]
        reading = PLAIN if client.pool.is_plain(text) else read(client, text)
        if reading.is_lasting:
            session.note(client, reading, text)
    return PASS


def refuse_query(client: Any, data: bytes, pos: int, end: int, parsed: bool) -> int:
    raise Refused(
        sqlstate.FEATURE_NOT_SUPPORTED,
        "PQexec disallowed",
        detail="disable_pqexec is set, so the simple query protocol is refused here.",
        hint="Use the extended query protocol: statements with parameters, or prepared ones.",
    )


def _table(**looks: Look) -> tuple[Look | None, ...]:
    by_kind = {getattr(codes, name.upper()): look for name, look in looks.items()}
    return tuple(by_kind.get(kind) for kind in range(256))


LOOKS_OF_PRIVATE: Final = _table(parse=look_at_private_parse)
LOOKS_OF_AUDITED: Final = _table(query=look_at_audited_query, parse=look_at_private_parse)
LOOKS_OF_SHARED: Final = _table(
    query=look_at_query,
    parse=look_at_parse,
    bind=look_at_bind,
    describe=look_at_target,
    close=look_at_target,
    function_call=look_at_call,
)
LOOKS_OF_TAGGED: Final = _table(
    query=look_at_query,
    parse=look_at_parse,
    bind=look_at_tagged_bind,
    describe=look_at_target,
    execute=look_at_tagged_execute,
    close=look_at_target,
    function_call=look_at_call,
)
"""Of shared servers, for a client with a portal whose command tag means something."""


def note_query(notes: Notes, client: Any, data: bytes, pos: int, end: int) -> None:
    notes[client] = client.pool.now(), data[pos + HEADER_SIZE : min(pos + HEADER_SIZE + NOTED, end - 1)]


def note_queries(looks: tuple[Look | None, ...], notes: Notes) -> tuple[Look | None, ...]:
    """The same looks, and the last simple query of each client is noted."""
    look = looks[codes.QUERY]

    def look_and_note(client: Any, data: bytes, pos: int, end: int, parsed: bool) -> int:
        note_query(notes, client, data, pos, end)
        return PASS if look is None else look(client, data, pos, end, parsed)

    return tuple(look_and_note if kind == codes.QUERY else each for kind, each in enumerate(looks))


def forbid_query(looks: tuple[Look | None, ...]) -> tuple[Look | None, ...]:
    """The same looks, but no simple query passes (disable_pqexec)."""
    return tuple(refuse_query if kind == codes.QUERY else look for kind, look in enumerate(looks))
