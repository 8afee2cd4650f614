"""
What clients have prepared, read again: after a reload that names other functions that leave something behind.

Theory. A statement is read once, when it is prepared, and what it may do to a session stands with it. Whether a
function leaves something behind the administrator says (`pin_functions`); when he says something else a statement that
was prepared before would be taken for what it was then, for as long as its client lives. So all are read once more.
"""

from typing import Any

from protocol.effects import PLAIN, build_reading
from protocol.framing import HEADER_SIZE
from protocol.prepared import Statement
from proxy.requests import TOO_LONG, read
from proxy.rewrite import without_prepare


def reread(pool: Any) -> None:
    """All statements of its clients, with the habits it has now."""
    for client in pool.clients:
        for name in client.statements or ():
            _reread(client, client.statements.get(name))
        if client.unnamed_said and client.unnamed_said is not TOO_LONG:
            client.unnamed_text = client.unnamed_said[
                HEADER_SIZE + 1 : client.unnamed_said.find(0, HEADER_SIZE + 1)
            ]  # it is read whenever it is bound


def _reread(client: Any, statement: Statement) -> None:
    if statement.is_sql:
        text = b"PREPARE x " + statement.body
        sentences = tuple(without_prepare(each) for each in read(client, text).sentences)
        statement.reading = build_reading(text, sentences)
        return
    text = (statement.said or statement.body).split(b"\0", 1)[0]
    statement.reading = PLAIN if client.pool.is_plain(text) else read(client, text)
