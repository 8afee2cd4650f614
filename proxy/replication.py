"""
A replication client's login, once we know who it is: a place within the limits, a server of its own, a welcome.

Theory. Whoever asks for replication needs a connection to PostgreSQL that was opened as a walsender, so no pool has one
to give. It is opened for this client alone, in the name of the pool of its database and user, with the client's own
startup parameters in the startup packet: a physical walsender takes no SET, and `application_name` is how a standby
is known to synchronous_standby_names (so it is passed on as it is, whatever application_name_add_host says). What the
server does not like about them it says itself, and the client hears it word for word.

A database of that name need not exist for physical replication: pg_basebackup and pg_receivewal ask for "replication",
others repeat the user. Its entry, or `*`, says where the server is.

While all this lasts three things may happen to it: success, a client that hangs up, an operator who calls it off. The
tunnel is counted from the start, so whatever happens must end in `Tunnel.forget`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from protocol import sqlstate
from protocol.errors import Refused
from protocol.replication import Replication
from proxy import login
from proxy.farewell import ERRORS
from proxy.inbox import Inbox, PeerGone
from proxy.states import Waiting
from proxy.tunnel import Near, Stage, Tunnel

PATIENCE = 5.0  # seconds we try to make room; who waits for the end of PAUSE waits until client_login_timeout
LOOK_AGAIN = 0.02  # seconds between two looks whether there is room


async def welcome(inbox: Inbox, proxy: Any, visitor: login.Visitor, address: tuple[str, int]) -> Near:
    """From a known visitor to an open tunnel, its welcome sent; the near end is what the client's socket goes to."""
    database = _find_database(visitor, proxy)
    pool = proxy.pools.find(database, visitor.user)
    proxy.proofs.learn(pool, visitor.claim)
    login.check_client_limits(proxy, pool, visitor.user)
    key = proxy.cancels.mint_key(is_long=visitor.minor >= login.LONG_KEYS_SINCE)
    tunnel = Tunnel(pool, visitor.user, visitor.replication, key, address)
    proxy.tunnel_wanted(tunnel)
    approach = proxy.opener.approach(tunnel.far)
    try:
        async with _while_wanted(proxy, inbox, tunnel):
            await _wait_place(proxy, tunnel)
            tunnel.opened_at = pool.now()
            said = {"replication": visitor.replication.asked} | dict(visitor.passed)
            # A physical walsender runs no queries, so connect_query is not for it.
            await proxy.opener.enter(approach, said, may_query=visitor.replication is Replication.LOGICAL)
    except BaseException:
        try:
            await approach.hang_up()
        finally:
            tunnel.forget()
        raise
    assert approach.inbox is not None
    _open(proxy, tunnel, inbox, approach.inbox, visitor)
    return tunnel.near


def _open(proxy: Any, tunnel: Tunnel, client: Inbox, server: Inbox, visitor: login.Visitor) -> None:
    """The client's welcome is the server's own, but for the cancel key."""
    tunnel.stage = Stage.OPEN
    proxy.tunnel_opened(tunnel)
    client.write(login.build_welcome(visitor, tunnel.far.parameters, tunnel.key))
    tunnel.near.transport = client.transport
    server.hand_over_to(tunnel.far)


def _find_database(visitor: login.Visitor, proxy: Any) -> Any:
    try:
        return login.find_database(visitor, proxy)
    except Refused as no:
        if no.sqlstate == sqlstate.INVALID_CATALOG:
            no.hint = f'A replication connection is served by the entry of that name: add "{visitor.database}" or "*".'
        raise


async def _wait_place(proxy: Any, tunnel: Tunnel) -> None:
    """Until the limits allow one more connection. Refused (53300) when no room can be made in time."""
    pool, pools = tunnel.pool, proxy.pools
    since = pool.now()
    while True:
        obstacle = Waiting.PAUSED if pools.is_pausing(pool.database) else pools.find_obstacle(pool, tunnel)
        waited = pool.now() - since
        if obstacle is None:
            return
        if obstacle is Waiting.PAUSED:
            since = pool.now()
        elif waited > PATIENCE:
            raise Refused(
                sqlstate.TOO_MANY_CONNECTIONS,
                f"no room for a replication connection: {obstacle.value}",
                hint="Its connection to PostgreSQL counts there, and those that are open are all in use.",
            )
        else:
            pools.make_room_for_tunnel(pool, obstacle, waited)
        await asyncio.sleep(LOOK_AGAIN)


@contextlib.asynccontextmanager
async def _while_wanted(proxy: Any, inbox: Inbox, tunnel: Tunnel) -> AsyncIterator[None]:
    """Calls off what is done inside when the client leaves (PeerGone) or the tunnel is closed (Refused)."""
    gone = proxy.tasks.start(inbox.wait_gone(), name="replication: watch the client")
    scope = asyncio.timeout(None)

    def call_off(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # it is over already
            scope.reschedule(asyncio.get_running_loop().time())

    try:
        async with scope:
            gone.add_done_callback(call_off)
            tunnel.doom.add_done_callback(call_off)
            yield
    except TimeoutError:
        raise _why_off(tunnel) from None
    finally:
        gone.remove_done_callback(call_off)
        tunnel.doom.remove_done_callback(call_off)
        gone.cancel()
    if tunnel.doom.done():  # in the very turn in which all was well
        raise _why_off(tunnel)


def _why_off(tunnel: Tunnel) -> Exception:
    if not tunnel.doom.done():
        return PeerGone("the client left while its connection was being opened")
    error = ERRORS[tunnel.doom.result()]
    return Refused(error.sqlstate, error.message, detail=error.detail, hint=error.hint)
