"""
Statements that go home: what our names stand for, under its client's own, where servers have ceased to be shared.

Theory. Where servers are shared a client's names are ours on every server (prepare.py), and where they are not nobody
looks at names. So a client that had some when a reload made its pool private would not find them any more. They are
made once more under their own names as soon as it has a server to itself and rests there: in front of its next request,
or behind its last one if it had a server at that moment. Each is a unit of its own, since one that cannot be made any
more (its table is gone) shall not take the others along; its client hears of that when it uses it.

Until then, in a transaction that began before the reload, its messages are translated as they were.
"""

from typing import Any

from protocol.frontend import SYNC_MESSAGE, build_query
from protocol.ledger import ONE_QUERY, PARSE, SYNC, Debt
from protocol.prepared import rename_parse
from proxy.chores import Chore


def bring_home(client: Any, server: Any) -> bytes:
    """What must be written to `server`, which is its client's alone, entered in the ledger."""
    names, client.statements = client.statements, None
    pieces: list[bytes] = []
    debts: list[Debt] = []
    for name in names:
        statement = names.get(name)
        if statement.is_sql:
            quoted = name.replace(b'"', b'""')
            pieces.append(build_query(b'PREPARE "%s" %s' % (quoted, statement.said or statement.body)))
            debts += ONE_QUERY
        else:
            pieces += [rename_parse(name, statement.said or statement.typed), SYNC_MESSAGE]
            debts += (PARSE, SYNC)
    server.unnamed = None
    server.ledger.expect(tuple(debts), Chore())
    return b"".join(pieces)
