"""
Which waiting unit goes to which server: the one room where clients and servers meet.

Theory. `client.py` and `server.py` do not know each other; here they are joined and parted. `attach` and `detach`
are the only writers of `client.server` and `server.client`, and both sides always change together.

When the two meet their followed parameters are compared. Usually they are the very same object and nothing
happens. Where they differ one SET goes in front, answered to nobody. If a server has accepted each of those
values before, the SET and the client's request travel in one write. A value nobody has proven yet goes alone, and
the client's bytes wait for its answer: so a request never runs under parameters that the server refused.
"""

from dataclasses import replace
from typing import Any

from protocol import codes, sqlstate
from protocol.backend import ErrorFields, build_parameter_status
from protocol.errors import ProtocolError
from protocol.frontend import build_query
from protocol.ledger import ONE_QUERY
from protocol.parameters import (
    NO_CHANGE,
    OUTER,
    TIMEOUTS,
    Change,
    ParameterSet,
    build_change,
    difference,
    is_in_the_way,
    is_sendable,
)
from proxy import reset
from proxy.chores import Chore
from proxy.own_names import bring_home
from proxy.states import ACTIVE, CLEANING, GONE, LINKED, RESTING, WAITING, Closing, move

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
    if client.followed is server.followed and not pool.is_private:
        return b""
    prefix = b"" if client.followed is server.followed else _agree(client, server)
    if pool.is_private and client.statements and client.server is server:
        names = bring_home(client, server)
        if prefix is not None:
            return prefix + names
        server.transport.write(names)
    return prefix


def _agree(client: Any, server: Any) -> bytes | None:
    """The message that brings the server to the client's set, entered in the ledger; see `attach`."""
    change = difference(client.followed, server.followed, client.pool.world.followed)
    if change is NO_CHANGE:
        client.followed = server.followed  # equal: from now on the same object
        return b""
    if not all(map(is_sendable, change.sets.values())):
        client.refuse(_UNSAYABLE, Closing.SET_FAILED)
        return None
    text = build_query(build_change(change))
    wanted = client.followed
    server.unnamed = None
    server.ledger.expect(ONE_QUERY, Chore(lambda chore: _agreed(client, server, wanted, chore)))
    if may_travel(change, client.pool, server.followed):
        return text
    server.transport.write(text)
    return None


def may_travel(change: Change, pool: Any, before: ParameterSet) -> bool:
    """May the request be sent behind the change, before that is answered? Then it must be certain to succeed. `before`
    is what holds there until then."""
    return (
        not change.resets
        and are_certain(change.sets, pool)
        and not any(is_in_the_way(name, before.get(name)) for name in TIMEOUTS)
    )


def are_certain(values: ParameterSet, pool: Any) -> bool:
    """Will any server take them, whatever holds there?"""
    return (
        values.keys() <= pool.world.followed
        and pool.proven.issuperset(values.items())
        and values.keys().isdisjoint(OUTER)
    )


def _agreed(client: Any, server: Any, wanted: ParameterSet, chore: Chore) -> None:
    """The change has been answered. It was made as a whole or not at all, whether the client is still there or not."""
    if chore.error is None:
        reach(server, wanted)
    if client.server is not server:
        return
    if chore.error is not None:
        _fail(client, server, wanted, chore.error)
        return
    client.pool.prove((name, value) for name, value in wanted.items() if name in client.pool.world.followed)
    client.followed = server.followed
    if client.held:
        client.play(server)
    else:
        client.held = None


def reach(server: Any, wanted: ParameterSet) -> None:
    """Its parameters are as wanted, in its own spelling."""
    told = {name: server.followed[name] for name in server.pool.world.followed if name in server.followed}
    reached = {**wanted, **told}
    server.followed = wanted if reached == wanted else server.pool.intern(reached)


def _fail(client: Any, server: Any, wanted: ParameterSet, error: ErrorFields) -> None:
    """The client's request has not been sent, and never will be. (If it travelled along, it is too late to say so.)"""
    if error.sqlstate == sqlstate.QUERY_CANCELED and client.held is not None:
        _try_another(client, server)  # a timeout that somebody else has set there
        return
    change = difference(wanted, server.followed, client.pool.world.followed)
    is_pinned = client.session is not None and client.session.pins
    if change.resets and client.held is not None and not is_pinned:
        _try_another(client, server)  # what somebody has left there is nothing this client wants, nor may RESET
        return
    names = ", ".join(sorted({*change.sets, *change.resets}))
    hint = f"This session's parameters were being set on another server connection: {names}."
    client.refuse(replace(error, hint=error.hint or hint), Closing.SET_FAILED)


def set_again(client: Any, server: Any, text: bytes) -> None:
    """In a transaction: `text` sets what the client came with, where a RESET of its own has undone that here."""
    server.unnamed = None
    client.held, client.held_debts = b"", ()  # what it says now waits for the answer
    told = dict(server.parameters)
    server.ledger.expect(ONE_QUERY, Chore(lambda chore: _was_set_again(client, server, told, chore)))
    server.transport.write(build_query(text))


def _was_set_again(client: Any, server: Any, told: ParameterSet, chore: Chore) -> None:
    """The client has been told of the RESET, and not yet of what we made of it."""
    if client.server is not server:
        return
    for name, value in server.parameters.items():
        if told.get(name) != value:
            client.deliver(build_parameter_status(name, value))
    if client.held:
        client.play(server)
    else:
        client.held = None


def _try_another(client: Any, server: Any) -> None:
    data, debts, client.held = client.held, client.held_debts, None
    server.is_touched = True
    clean(server)
    if data:
        resend(client, data, debts, care=client.held_care)


def agree(client: Any, server: Any) -> None:
    """The two stay together and differ: what a RESET has undone is what the client came with."""
    text = _agree(client, server)
    if text is None and client.server is server:
        client.held, client.held_debts = b"", ()  # what it says now waits for the answer
    elif text:
        server.transport.write(text)


def detach(client: Any, server: Any) -> None:
    """They part. The server is settled, or about to be cleaned; either may be closed already."""
    client.server = server.client = None
    if client.session is not None:
        client.session.forget_pins(client)
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
    # The rest of a message that is held is nothing that this server waits for.
    # A line that was on its way when the pool was made private is nobody's session.
    if server.status != _IDLE or (client.remain and client.held is None) or (pool.is_private and not client.is_line):
        if server.status != _IDLE:
            if client.session is not None:
                client.session.bring_back(client, server)
        elif pool.is_private and client.statements and client.held is None and not client.remain:
            server.transport.write(bring_home(client, server))
        return
    if client.session is not None and client.session.is_kept(client, server):
        return
    client.server = server.client = None  # `detach`, for the usual case
    client.state = RESTING
    if client.is_choked or server.is_choked:
        _part_choked(client, server)
    if server.cancels or pool.is_wiping or server.ledger.doubts:
        _wipe(server)
    else:
        pool.release(server)


def hear_several(server: Any, data: bytes) -> bytes:
    """More than one answer is owed: the whole ones at the beginning of `data` are passed on in one go. What is left."""
    client = server.client
    if client is not None and client.is_line:
        rest: bytes = client.take_answers(data)
        return rest
    return hear_begun(server, data)


def hear_begun(server: Any, data: bytes) -> bytes:
    """The answer to a BEGIN that we have put in front of what a client asked; mostly with the answer to that, which is
    left. Without this the two would be taken message by message."""
    ledger = server.ledger
    owner = ledger.head[1]
    size = 0 if owner is server.client else ledger.pay_begin(data)
    if not size:
        return data
    server.status = codes.IN_TRANSACTION
    try:
        owner.finish(server, data[:size])
    except ProtocolError as error:  # an envoy has read it
        server.break_off(error)
        return b""
    return data[size:]


def _wipe(server: Any) -> None:
    """It is reset before anyone else gets it; or closed, if more may come from it than it owes."""
    if server.ledger.doubts:
        server.close(Closing.UNCLEAN)
    else:
        move(server, CLEANING)
        reset.begin(server)


def clean(server: Any) -> None:
    """`server` and its client part, and it is reset before anyone else gets it."""
    client = server.client
    detach(client, server)
    client.state = RESTING
    move(server, CLEANING)
    reset.begin(server)


def resend(client: Any, data: bytes, debts: tuple[Any, ...], *, care: bool) -> None:
    """What `client` has said meanwhile goes on: to its server if it has kept that, else to one whose turn it is."""
    if client.state is GONE:
        return
    is_agreeing = client.held is not None
    client.held, client.held_debts, client.held_care = data, debts, care
    if is_agreeing:
        return  # behind a change of ours
    if client.server is not None:
        client.play(client.server)
        return
    client.waiting_since = client.pool.now()
    server = client.pool.acquire(client)
    if server is not None:
        client.resume(server)
    else:
        client.is_notified = False
        client.move(WAITING)


def abandon(client: Any, *, cancel: bool) -> None:
    """`client` leaves while it has a server: that is cleaned before anyone else gets it, or closed."""
    server = client.server
    if client.session is not None:
        client.session.leave(client, server)
    detach(client, server)
    heir = Chore()
    server.ledger.disown(client, heir)
    if server.recipient is client:
        server.recipient = heir
    if client.remain:
        server.close(Closing.ABANDONED)  # it waits for the rest of a message that will never come
        return
    move(server, CLEANING)
    reset.begin(server, cancel=cancel)
