"""
The laws of a pool, written as assertions.

Theory. A pool's methods keep these laws at each step; here they are said all at once, for tests to ask after every
step and for whoever hunts a bug in production. A law that fails is a defect of ours, never of a client or a server, so
what is raised is an AssertionError, and nobody handles it.
"""

from proxy.pool import Pool
from proxy.states import CLOSED, IDLE, PoolState, ServerState


def check_pool(pool: Pool) -> None:
    """The laws of a pool, for tests and for the brave: raises AssertionError."""
    for state in ServerState:
        for server in pool.places[state] if state is not CLOSED else ():
            assert server.state is state, f"{server!r} is {server.state.name}, found in {state.name}"
            assert server.pool is pool
    if pool.limits.pool_size is not None:
        assert pool.size <= pool.limits.pool_size + (pool.limits.reserve_pool_size or 0)
    if pool.state is PoolState.OPEN:
        assert not (pool.waiting and pool.places[IDLE]), "somebody waits while a server is idle"
