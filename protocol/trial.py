"""
Startup parameters tried on a server: does it take them, and how does it spell them?

Theory. What a client wishes at login goes to servers later, and to any of them; so a server is asked first. The values
are set for the length of one message (`is_local`), so the server is as before, whatever comes of it, and set_config()
answers with the value as SHOW would print it: `utf-8` is UTF8, `5000` is 5s, `German` is `German, DMY`. The last one
depends on what is in force, so the server is first brought to the state it was opened in, for the same length of time.

A role is taken behind everything else, since it may not be allowed the rest. Last of all comes client_encoding: what is
said behind it would be said in it.
"""

from collections.abc import Mapping

from protocol.errors import ProtocolError
from protocol.frontend import build_query
from protocol.inspection import decode, parse_rows
from protocol.parameters import IDENTITY, ParameterSet, build_change, build_set_config, difference

_LAST = (*IDENTITY, "client_encoding")


def _in_order(wishes: Mapping[str, str]) -> list[str]:
    return [name for name in wishes if name not in _LAST] + [name for name in _LAST if name in wishes]


def build_trial(wishes: Mapping[str, str], base: ParameterSet, actual: ParameterSet) -> bytes:
    """The whole Query message, for a server that was opened as `base` says and is as `actual` says now."""
    texts = [build_change(difference(base, actual), is_local=True).decode("ascii")]
    texts += [build_set_config(name, wishes[name], is_local=True) for name in _in_order(wishes)]
    return build_query(";".join(text for text in texts if text))


def parse_trial(wishes: Mapping[str, str], data: bytes, encoding: str) -> dict[str, str]:
    """The wishes as the server spells them. ProtocolError: it says something else."""
    rows = list(parse_rows(data))[-len(wishes) :] if wishes else []
    if len(rows) != len(wishes) or any(len(row) != 1 for row in rows):
        raise ProtocolError("the answer to a trial has other rows")
    return {name: decode(row[0], encoding) or "" for name, row in zip(_in_order(wishes), rows, strict=True)}
