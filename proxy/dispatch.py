"""
Which waiting unit goes to which server: the one room where clients and servers meet.

Theory. `client.py` and `server.py` do not know each other; here they are joined and parted. `attach` and `detach`
are the only writers of `client.server` and `server.client`, and both sides always change together.

When the two meet their followed parameters are compared. Usually they are the very same object and nothing
happens. Where they differ one SET goes in front, answered to nobody. If a server has accepted each of those
values before, the SET and the client's request travel in one write. A value nobody has proven yet goes alone, and
the client's bytes wait for its answer: so a request never runs under parameters that the server refused.
"""

from typing import Any

from protocol import codes, sqlstate
from protocol.backend import ErrorFields
from protocol.frontend import build_query
from protocol.ledger import ONE_QUERY
from protocol.parameters import build_set, difference, is_sendable
from proxy import reset
from proxy.chores import Chore
from proxy.states import ACTIVE, CLEANING, LINKED, RESTING, Closing, move

_IDLE = codes.IDLE

_UNSAYABLE = ErrorFields(
    "FATAL", sqlstate.INVALID_PARAMETER_VALUE, "a session parameter has a value that no other server can be given"
)


def attach(client: Any, server: Any) -> bytes | None:
    """`server` is `client`'s. What must be written before its request (often b""), or None: nothing may be sent yet."""
    if server.state is not LINKED:
        move(server, LINKED)  # else: it goes from one client straight to the next, and stays in its place
    assert client.state < ACTIVE, f"{client!r} has a server already"
    client.state = ACTIVE
    client.server = server
    server.client = client
    pool = client.pool
    pool.stats.server_assignment_count += 1
    client.request_at = client.xact_at = pool.now()
    if client.is_choked:
        server.hold()
    if server.is_choked:
        client.hold()
    if client.followed is server.followed:
        return b""
    return _agree(client, server)


def _agree(client: Any, server: Any) -> bytes | None:
    """The SET that brings the server to the client's parameters, entered in the ledger; see `attach`."""
    changes = difference(client.followed, server.followed)
    if not changes:
        client.followed = server.followed  # equal: from now on the same object
        return b""
    if not all(map(is_sendable, changes.values())):
        client.refuse(_UNSAYABLE, Closing.SET_FAILED)
        return None
    text = build_query(build_set(changes))
    server.ledger.expect(ONE_QUERY, Chore(lambda chore: _agreed(client, server, chore)))
    if client.pool.proven.issuperset(changes.items()):
        return text
    server.transport.write(text)
    return None


def _agreed(client: Any, server: Any, chore: Chore) -> None:
    """The SET has been answered."""
    if client.server is not server:
        return
    if chore.error is not None:
        client.refuse(chore.error, Closing.SET_FAILED)
        return
    client.pool.prove(client.followed.items())
    if client.followed == server.followed:
        server.followed = client.followed  # the same object: nothing to compare next time
    else:
        client.followed = server.followed  # in the server's own spelling
    if client.held is not None:
        client.play(server)


def detach(client: Any, server: Any) -> None:
    """They part. The server is settled, or about to be cleaned; either may be closed already."""
    client.server = server.client = None
    if client.is_choked or server.is_choked:
        _part_choked(client, server)


def _part_choked(client: Any, server: Any) -> None:
    """Nobody stays held for a partner that is gone."""
    if client.is_choked:
        server.let_go()
    if server.is_choked:
        client.let_go()


def rest_linked(server: Any) -> None:
    """Both sides of a linked server have said their last word: does the client keep it?"""
    client, pool = server.client, server.pool
    if server.status != _IDLE or client.remain or pool.is_private:
        return
    client.server = server.client = None  # `detach`, for the usual case
    client.state = RESTING
    if client.is_choked or server.is_choked:
        _part_choked(client, server)
    if server.ledger.doubts:
        server.close(Closing.UNCLEAN)
    elif server.cancels or pool.limits.server_reset_query_always:
        move(server, CLEANING)
        reset.begin(server)
    else:
        pool.release(server)


def abandon(client: Any, *, cancel: bool) -> None:
    """`client` leaves while it has a server: that is cleaned before anyone else gets it, or closed."""
    server = client.server
    detach(client, server)
    heir = Chore()
    server.ledger.disown(client, heir)
    if server.recipient is client:
        server.recipient = heir
    if client.remain:
        server.close(Closing.UNCLEAN)  # it waits for the rest of a message that will never come
        return
    move(server, CLEANING)
    reset.begin(server, cancel=cancel)
