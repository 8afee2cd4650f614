"""
The two rounds that drivers send all day, known at a glance.

Theory. A driver that uses the extended protocol says the same few messages again and again: Bind of a named statement,
perhaps Describe, Execute, Sync; or the same behind a Parse without a name. What comes after the Bind is always the same
bytes. So one look at the first message, or two, and one in a table of tails tell all there is to know: what the round
will earn, and where the name stands that must be changed. That is a third of the work of walking over every message.

Whatever looks a little different is none of these rounds and goes the general way (client.py, prepare.py).
"""

from struct import Struct
from typing import Any, Final

from protocol import codes
from protocol.effects import PLAIN
from protocol.frontend import PORTAL, SYNC_MESSAGE, build_describe, build_execute
from protocol.ledger import BIND, DESCRIBE, EXECUTE, PARSE, SYNC, Debt
from protocol.prepared import Statement

_BIND, _PARSE = codes.BIND, codes.PARSE
_EXECUTE_ALL = build_execute(b"") + SYNC_MESSAGE

TAILS: Final[dict[bytes, tuple[Debt, ...]]] = {
    _EXECUTE_ALL: (BIND, EXECUTE, SYNC),
    build_describe(PORTAL, b"") + _EXECUTE_ALL: (BIND, DESCRIBE, EXECUTE, SYNC),
}
"""What may follow the Bind, and what the round earns."""
_WITH_PARSE: Final = {debts: (PARSE, *debts) for debts in TAILS.values()}
MAX_REPEATED: Final = 65536  # bytes of a batch that is remembered until it is answered
MAX_SHARED: Final = 1024  # bytes of a round that may stand in a line; max_packet_size is never less
LONGEST: Final = max(map(len, TAILS))

_length_at = Struct("!I").unpack_from
_head = Struct("!cI").pack


def recognise_named(data: bytes) -> tuple[Debt, ...] | None:
    """What this round earns, if it is one and begins with its Bind."""
    size = len(data)
    if size < 16 or data[0] != _BIND:
        return None
    end = _length_at(data, 1)[0] + 1
    if not 0 < size - end <= LONGEST:
        return None
    begin = data.find(0, 5, end)
    is_named = 0 <= begin < end and data.find(0, begin + 1, end) >= 0
    return TAILS.get(data[end:]) if is_named else None


def recognise_unnamed(client: Any, data: bytes) -> tuple[Debt, ...] | None:
    """What this round earns, if it is one of the unnamed statement and its text is plain. Notes the statement."""
    size = len(data)
    if size < 24 or data[0] != _PARSE or data[5]:
        return None
    middle = _length_at(data, 1)[0] + 1
    if middle + 16 > size or data[middle] != _BIND or data[middle + 5] or data[middle + 6]:
        return None
    end = middle + _length_at(data, middle + 1)[0] + 1
    debts = TAILS.get(data[end:]) if 0 < size - end <= LONGEST else None
    last = data.find(0, 6, middle)
    if debts is None or client.tags or last < 0 or not client.pool.is_plain(data[6:last]):
        return None
    client.unnamed_said = data[:middle]
    client.unnamed_text = b""
    return _WITH_PARSE[debts]


def find_named(client: Any, data: bytes) -> tuple[Statement, tuple[Debt, ...], int] | None:
    """If `data` is a short round of one of the client's statements and its portal has no name: the statement, what the
    round earns, and where the name ends. None: it is something else, or there is more to it."""
    names = client.statements
    if names is None or data[0] != _BIND or not 16 < len(data) < MAX_SHARED or data[5] or names.pending or client.tags:
        return None
    debts = TAILS.get(data[_length_at(data, 1)[0] + 1 :])
    stop = data.find(0, 6)
    statement = names.get(data[6:stop])
    if debts is None or statement is None or statement.is_outdated or statement.reading is not PLAIN or statement.said:
        return None
    return statement, debts, stop


def rename(data: bytes, name: bytes, stop: int) -> bytes:
    """The round of `find_named`, with `name` in the place of what ends at `stop`."""
    return b"".join((_head(b"B", _length_at(data, 1)[0] + len(name) + 6 - stop), b"\0", name, data[stop:]))


def send_named(client: Any, server: Any, data: bytes, prefix: bytes) -> bool:
    """Send the round of a statement that `server` has. False: it is none, or there is more to be done."""
    debts, names, ledger = recognise_named(data), client.statements, server.ledger
    if debts is None or names is None or ledger.skipping:
        return False
    begin = data.find(0, 5) + 1
    stop = data.find(0, begin)
    statement = names.get(data[begin:stop])
    known = server.statements
    if statement is None or not known.get(statement) or statement.is_outdated or statement.reading is not PLAIN:
        return False
    if client.tags or names.pending or statement in server.arriving:
        return False
    known[statement] = known.pop(statement)  # the one used last stands last
    if ledger.is_settled and server.status == codes.IDLE and not prefix and len(data) <= MAX_REPEATED:
        server.repeatable = (client, data)
    client.pool.stats.bind_count += 1
    name = statement.name
    ledger.expect(debts, client if client.probe is None else client.take_probe(data))
    length = _length_at(data, 1)[0] + len(name) - (stop - begin)
    server.transport.write(b"".join((prefix, _head(b"B", length), data[5:begin], name, data[stop:])))
    return True
