"""
What clients have prepared, read again: after a reload that names other functions that leave something behind.

Theory. A statement is read once, when it is prepared, and what it may do to a session stands with it. Whether a
function leaves something behind the administrator says (`pin_functions`); when he says something else a statement that
was prepared before would be taken for what it was then, for as long as its client lives. So all are read once more.
"""

from typing import Any

from proxy.requests import unnamed_text
from proxy.rewrite import read_prepared


def reread(pool: Any) -> None:
    """All statements of its clients, with the habits it has now."""
    for client in pool.clients:
        for name in client.statements or ():
            statement = client.statements.get(name)
            statement.reading = read_prepared(client, statement)
        if client.unnamed_said:
            client.unnamed_text = unnamed_text(client.unnamed_said)  # it is read whenever it is bound
