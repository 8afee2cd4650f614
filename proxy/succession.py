"""
Who may take our place: a new process calls (`pgshuttle -R`), and is let in or refused.

Theory. The new process calls on our Unix socket like a client, with a first packet of its own. So the way to us is the
one clients take: it always leads to whoever accepts them, and there is no second path to guard, to rename, to clean up.
Who may ask is decided by the kernel's word for the caller's user: our own, or root; nobody else learns more than no.
That is a word for who holds the socket, and may be a forwarder's, with anybody behind it: so whoever is let in here
gets nothing that matters before it has proven that it is there itself. That, and what follows, is takeover.py.
"""

import os
from typing import Any

from protocol import sqlstate
from protocol.errors import Refused
from proxy.courier import MAX_ANSWER, VERSION, Courier, Kind, Reader, build_frame, peer_of
from proxy.inbox import Inbox
from proxy.lift import lift
from proxy.log import UNIX
from proxy.takeover import Takeover


def receive(proxy: Any, inbox: Inbox, address: tuple[str, int], version: int) -> None:
    """Somebody wants to take over. Refused when nobody of ours; else the socket is no longer the inbox's."""
    pid, uid = _find_caller(inbox, address)
    if uid not in (0, os.geteuid()):
        proxy.log.warning(f"process {pid} of user id {uid} wanted to take over and was refused")
        raise Refused(sqlstate.INVALID_AUTHORIZATION, "only the user this process runs as may take over")
    why = find_refusal(proxy, version, pid)
    line = lift(inbox.transport)
    if why:
        proxy.log.warning(f"process {pid} wanted to take over and was refused: {why}")
        line.send(build_frame(Kind.REFUSAL, {"why": why}))
        line.close()
    else:
        proxy.log.log(f"process {pid} wants to take over")
        proxy.kin.heir = takeover = Takeover(proxy, pid)
        takeover.begin(Courier(line, Reader(MAX_ANSWER), takeover.hear, takeover.lost, Kind.SEVERED))


def _find_caller(inbox: Inbox, address: tuple[str, int]) -> tuple[int, int]:
    if address[0] != UNIX:
        raise Refused(sqlstate.INVALID_AUTHORIZATION, "taking over is possible over the Unix socket only")
    with lift(inbox.transport, keep=True) as line:
        return peer_of(line)


def find_refusal(proxy: Any, version: int, pid: int) -> str:
    """Why nobody may take over now; empty when somebody may."""
    if version != VERSION:
        return f"it hands over by version {VERSION}, not {version}: a full restart is needed"
    if proxy.kin.heir is not None:
        return "another process is taking over already"
    if proxy.leaving is not None:
        return f"it is ending ({proxy.leaving.value})"
    if proxy.is_activated:
        return "systemd opened its sockets: restart the service instead"
    if not proxy.notifier.believes_in(pid):
        return (
            "it is a service of systemd, which would take it to have ended: let systemd start you (see operations.md)"
        )
    if proxy.is_suspended or proxy.pools.is_paused:
        return f"it is {'suspended' if proxy.is_suspended else 'paused'}: RESUME first"
    if proxy.pools.paused:
        return f"{', '.join(sorted(proxy.pools.paused))} is paused: RESUME it by name first"
    return ""
