"""
Making room among pools that share a limit: whose server leaves so that another pool may open one.

Theory. Nobody is thrown out of a transaction. An idle server goes at once; where all are busy the largest pool is told
to part with one when it is next released. One at a time: as long as somebody is leaving, the room it leaves is
not there yet and nobody else has to go. A connection that listens (ear.py) is never released, so it is left alone.
"""

from collections.abc import Iterable, Sequence

from proxy.ear import EarPool
from proxy.pool import Pool
from proxy.states import CLOSING, IDLE, LINKED, USED, Closing


def evict(pools: Sequence[Pool]) -> None:
    """An idle server of the largest of them leaves, unless somebody is leaving already."""
    if any(each.places[CLOSING] for each in pools):
        return
    for each in sorted(pools, key=lambda each: each.size, reverse=True):
        for state in (USED, IDLE):
            for server in each.places[state]:
                server.close(Closing.EVICTED)
                return


def doom(pools: Sequence[Pool]) -> None:
    """A busy server of the largest of them leaves at its next release, unless one is to do so already.

    Those that listen are never released, and stay."""
    pools = [each for each in pools if not isinstance(each, EarPool)]
    if any(server.doomed for each in pools for server in each.places[LINKED]):
        return
    for each in sorted(pools, key=lambda each: each.size, reverse=True):
        for server in each.places[LINKED]:
            server.doomed = Closing.EVICTED
            return


def is_last_place(limit: int | None, pools: Iterable[Pool]) -> bool:
    """Have those that listen all places but one?"""
    return limit is not None and sum(pool.size for pool in pools if isinstance(pool, EarPool)) >= limit - 1
