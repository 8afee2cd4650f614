"""Thousands of databases and pools: what nobody uses costs next to nothing, a reload does not stop those at work."""

import threading
import time

import pytest

from tests.live.crowd import Crowd
from tests.live.stand import Stand, wait_until

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.solitary]

POOLS = 1000
DATABASES = 5000


@pytest.fixture(name="crowd", scope="module")
def _crowd():
    with Crowd() as crowd:
        yield crowd


@pytest.mark.parametrize("pool_mode", ["transaction", "session"])
def test_a_thousand_pools_that_nobody_uses_cost_next_to_nothing(crowd, pool_mode):
    """1 % of a core when this was written, 1.6 % where each client keeps its server; 4 % when sweeps looked at all."""
    settings = {"max_client_conn": POOLS + 10, "query_wait_timeout": 0, "pool_mode": pool_mode}
    with Stand(crowd, settings) as stand:
        lines = [stand.raw(database=f"d{number}") for number in range(POOLS)]
        for line in lines:
            assert line.value("select 1") == "1"
        time.sleep(0.5)
        before, seconds = stand.cpu, 5.0
        time.sleep(seconds)
        assert (stand.cpu - before) / seconds < 0.03
        for line in lines:
            line.close()


def test_a_reload_of_five_thousand_databases_does_not_stop_those_at_work(crowd):
    """0.15 s, and nobody waited for more than 10 ms; the bounds are for a machine that has other things to do."""
    databases = {f"d{number}": "pool_size=3" for number in range(DATABASES)}
    with Stand(crowd, databases=databases) as stand, Prober(stand) as prober:
        prober.settle()
        usual = max(prober.delays)
        for change in ({}, {"default_pool_size": 7}, {"query_timeout": 9}):
            stand.settings |= change
            stand.write()
            prober.delays.clear()
            stand.mark()
            begun = time.monotonic()
            stand.signal(1)
            stand.wait_log("reloaded: ")
            assert time.monotonic() - begun < 3
            prober.settle()
            assert max(prober.delays) < 0.15 + usual
        stand.databases = databases | {"d7": "pool_size=4"}
        assert "databases: changed d7 (pool_size '3' -> '4')" in stand.reload()


class Prober:
    """A client that asks and asks, and notes how long each answer took."""

    def __init__(self, stand: Stand) -> None:
        self.delays: list[float] = []
        self._line = stand.raw(database="d0")
        self._is_over = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Prober":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()
        self._line.close()

    def settle(self) -> None:
        """Until there are a hundred answers more."""
        wanted = len(self.delays) + 100
        wait_until(lambda: len(self.delays) >= wanted, "a hundred answers")

    def _run(self) -> None:
        while not self._is_over:
            begun = time.monotonic()
            assert self._line.value("select 1") == "1"
            self.delays.append(time.monotonic() - begun)
            time.sleep(0.001)
