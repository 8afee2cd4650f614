"""
From a text to its answer: what both query protocols of the console have in common.

Theory. A text is read into a `Request`: a command of ours, or something drivers say to every database (courtesy.py).
`find_shape` says what columns its answer will have without doing anything, as a driver asks before it lets a command
run; `perform` does it, and gives a `Reply`: a tag, perhaps rows, perhaps a notice. The right to give a command is
checked at each of these steps, by the one table (rights.py), so one that was prepared yesterday is refused to
somebody who has lost the right today.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from protocol import sqlstate
from protocol.backend import build_notice
from protocol.errors import Refused
from proxy.admin.control import CONTROLS
from proxy.admin.courtesy import Courtesy, find_courtesy
from proxy.admin.grammar import Command, parse_command
from proxy.admin.rights import RIGHTS, check_right
from proxy.admin.rows import Table
from proxy.admin.session import Session
from proxy.admin.show import find_table
from proxy.admin.show_changes import SHAPE as CHANGES_SHAPE
from proxy.admin.show_changes import wait_changes

Request = Command | Courtesy

_PLACE = re.compile(r"(?<![\w$])\$\d")
_QUOTED = re.compile(r"""'[^']*+'|"[^"]*+\"""")


@dataclass(frozen=True, slots=True)
class Reply:
    """How a request is answered: `notice` first (a whole message), then the rows if there are any, then the tag."""

    tag: str
    table: Table | None = None
    notice: bytes = b""


def parse_request(session: Session, text: str) -> Request:
    """Refused: it makes no sense, there is no such command, or this operator may not give it."""
    if courtesy := find_courtesy(text, session):
        return courtesy
    if _PLACE.search(_QUOTED.sub("", text)):
        raise Refused(
            sqlstate.UNDEFINED_PARAMETER,
            "commands of the console take no parameters",
            hint="Write the value into the command: a name as PAUSE \"my db\", a value as SET key = 'value'.",
        )
    command = parse_command(text)
    check_right(session.right, command)
    return command


def find_shape(session: Session, request: Request) -> str:
    """The columns of its rows, as a table's shape; "" when it has none."""
    if isinstance(request, Courtesy):
        return request.shape
    name = check_right(session.right, request)
    if name == "RELOAD CHECK":
        return CHANGES_SHAPE
    if request.verb == "SHOW" and name != "SHOW HELP":
        return find_table(session.proxy, name, request.value).shape
    return ""


async def perform(session: Session, request: Request) -> Reply:
    """Do it. Refused: it cannot be done, and nothing has changed."""
    if isinstance(request, Courtesy):
        table = Table(request.shape, [request.row]) if request.shape else None
        return Reply(request.tag, table, _notice(request.notice) if request.notice else b"")
    name = check_right(session.right, request)
    if name == "SHOW HELP":
        return Reply("SHOW", notice=build_help())
    if request.verb == "SHOW":
        return Reply("SHOW", find_table(session.proxy, name, request.value))
    if name == "RELOAD CHECK":
        table, notice = await wait_changes(session)
        return Reply("RELOAD", table, _notice(notice))
    session.remarks = []
    tag = await CONTROLS[name](session, request)
    return Reply(tag, notice=b"".join(map(_warning, session.remarks)))


def _notice(sentence: str, detail: str = "") -> bytes:
    return build_notice("NOTICE", sqlstate.SUCCESSFUL_COMPLETION, sentence, detail=detail)


def _warning(sentence: str) -> bytes:
    return build_notice("WARNING", sqlstate.WARNING, sentence)


def build_help() -> bytes:
    """The notice that SHOW HELP is. Its list is made of the table of rights: what exists is listed."""
    return _notice("Console usage", "\n" + "\n".join(f"\t{line}" for line in _usage_lines()))


def _usage_lines() -> Iterator[str]:
    shows = [name.removeprefix("SHOW ") for name in RIGHTS if name.startswith("SHOW ")]
    for start in range(0, len(shows), _SHOWS_A_LINE):
        yield f"SHOW {'|'.join(shows[start : start + _SHOWS_A_LINE])}"
    yield "SHOW CLIENTS|SERVERS|POOLS|SOCKETS|ACTIVE_SOCKETS|LINES|STATEMENTS <db>"
    yield from (_USAGE.get(name, name) for name in RIGHTS if not name.startswith("SHOW "))


_SHOWS_A_LINE: Final = 8
_USAGE: Final = {
    "SET": "SET key = arg",
    "RESET": "RESET STATEMENTS",
    "PAUSE": "PAUSE [<db>]",
    "RESUME": "RESUME [<db>]",
    "DISABLE": "DISABLE <db>",
    "ENABLE": "ENABLE <db>",
    "RECONNECT": "RECONNECT [<db>]",
    "WAIT_CLOSE": "WAIT_CLOSE [<db>]",
    "KILL": "KILL [<db>]",
    "KILL_CLIENT": "KILL_CLIENT <client_id>",
    "SHUTDOWN": "SHUTDOWN [WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS]",
}
