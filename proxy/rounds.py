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
from protocol.frontend import PORTAL, SYNC_MESSAGE, build_describe, build_execute
from protocol.ledger import BOUND, BOUND_DESCRIBED, PARSED, PARSED_DESCRIBED, Debt, Round
from protocol.prepared import Statement
from proxy.requests import read

_BIND, _PARSE, _IDLE = codes.BIND, codes.PARSE, codes.IDLE
_DESCRIBE = build_describe(PORTAL, b"")
_ENDS = [build_execute(b"", most) + SYNC_MESSAGE for most in (0, 1)]  # all rows, or one, as JDBC asks for COMMIT

TAILS: Final[dict[bytes, Round]] = {
    **dict.fromkeys(_ENDS, BOUND),
    **dict.fromkeys([_DESCRIBE + end for end in _ENDS], BOUND_DESCRIBED),
}
"""What may follow the Bind, and what the round earns."""
_WITH_PARSE: Final = {tail: PARSED if debts is BOUND else PARSED_DESCRIBED for tail, debts in TAILS.items()}
MAX_REPEATED: Final = 65536  # bytes of a batch that is remembered until it is answered
MAX_SHARED: Final = 1024  # bytes of a round that may stand in a line; max_packet_size is never less
MAX_NAMED: Final = 1_000_000  # bytes of a round that is recognised
LONGEST: Final = max(map(len, TAILS))
_NAME: Final = 6  # where that of the statement begins: behind a portal without one

_length_at = Struct("!I").unpack_from
_head = Struct("!cI").pack

Found = tuple[Statement, tuple[Debt, ...], int]


def recognise_named(data: bytes) -> tuple[Debt, ...] | None:
    """What this round earns, if it is one and begins with its Bind, to the portal without a name."""
    size = len(data)
    if size < 16 or data[0] != _BIND or data[_NAME - 1]:
        return None
    end = _length_at(data, 1)[0] + 1
    if not 0 < size - end <= LONGEST or data.find(0, _NAME, end) < 0:
        return None
    return TAILS.get(data[end:])


def recognise_unnamed(client: Any, data: bytes) -> tuple[Debt, ...] | None:
    """What this round earns, if it is one of the unnamed statement and its text does nothing that lasts. Notes the
    statement."""
    size = len(data)
    if size < 24 or data[0] != _PARSE or data[5]:
        return None
    middle = _length_at(data, 1)[0] + 1
    if middle + 16 > size or data[middle] != _BIND or data[middle + 5] or data[middle + 6]:
        return None
    end = middle + _length_at(data, middle + 1)[0] + 1
    debts = _WITH_PARSE.get(data[end:]) if 0 < size - end <= LONGEST else None
    last = data.find(0, 6, middle)
    if debts is None or client.tags or last < 0 or not _is_of_the_moment(client, data[6:last]):
        return None
    client.unnamed_said = data[:middle]
    client.unnamed_text = b""
    return debts


def _is_of_the_moment(client: Any, text: bytes) -> bool:
    """Does it do nothing that lasts? COMMIT does not."""
    return bool(client.pool.is_plain(text)) or (client.stall is None and not read(client, text).is_lasting)


def find_named(client: Any, data: bytes, most: int = MAX_SHARED) -> Found | None:
    """If `data` is a round, of at most so many bytes, of a statement of the client's that does nothing that lasts: that
    statement, what the round earns, and where the name ends. None: it is something else, or there is more to it."""
    names = client.statements
    if names is None or data[0] != _BIND or not 16 < len(data) <= most or data[5] or names.pending or client.tags:
        return None
    end = _length_at(data, 1)[0] + 1
    debts, stop = TAILS.get(data[end:]), data.find(0, _NAME, end)
    statement = names.get(data[_NAME:stop])
    if debts is None or stop < 0 or statement is None or statement.is_outdated or statement.reading.is_lasting:
        return None
    return statement, debts, stop


def rename(data: bytes, name: bytes, stop: int) -> bytes:
    """The round of `find_named`, with `name` in the place of what ends at `stop`."""
    return b"".join((_head(b"B", _length_at(data, 1)[0] + len(name) + _NAME - stop), b"\0", name, data[stop:]))


def send_named(client: Any, server: Any, data: bytes, prefix: bytes) -> bool:
    """Send the round of a statement that `server` has. False: it is none, or there is more to be done."""
    found = find_named(client, data, MAX_NAMED)
    return found is not None and send_found(client, server, data, found, prefix)


def send_found(client: Any, server: Any, data: bytes, found: Found, prefix: bytes) -> bool:
    """The same, of one that has been found."""
    statement, debts, stop = found
    known, ledger = server.statements, server.ledger
    if known.get(statement, 0) <= 0 or statement in server.arriving or ledger.skipping:
        return False
    known[statement] = known.pop(statement)  # the one used last stands last
    client.pool.stats.bind_count += 1
    owner = client if client.probe is None else client.take_probe(data)
    said = rename(data, statement.name, stop)
    if prefix or not ledger.is_settled:
        ledger.expect(debts, owner)
        said = prefix + said
    else:
        ledger.expect_alone(debts, owner)
        if server.status == _IDLE and len(data) <= MAX_REPEATED:
            server.repeatable = (client, data)
    server.transport.write(said)
    return True
