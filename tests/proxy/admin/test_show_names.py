"""SHOW DNS_HOSTS, DNS_ZONES, PEERS and PEER_POOLS."""

import asyncio
from pathlib import Path

import pytest

from proxy.main import Proxy
from tests.proxy.admin.desk import INI, Operator, at_desk, open_proxy

PEERS = "[peers]\n1 = host=10.0.0.1\n2 = host=/run/two port=6433 pool_size=4\n"


def test_peers_and_their_pools(tmp_path: Path) -> None:
    async def story() -> None:
        async with open_proxy(tmp_path, INI + PEERS) as proxy:
            operator = await Operator(proxy, "ann").enter()
            assert (await operator.ask("SHOW PEERS")).rows == [
                ("1", "10.0.0.1", "6432", "7"), ("2", "/run/two", "6433", "4"),
            ]  # fmt: skip
            assert (await operator.ask("SHOW PEER_POOLS")).rows == [("1", *"0000"), ("2", *"0000")]
            lists = dict((await operator.ask("SHOW LISTS")).rows)
            assert (lists["peers"], lists["peer_pools"]) == ("2", "2")

    asyncio.run(story())


def test_names_that_were_looked_up_and_how_long_they_are_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        assert (await operator.ask("SHOW DNS_HOSTS")).rows == []
        known = [("db.example", 7, ["10.0.0.1", "fe80::1"]), ("gone.example", 0, [])]
        monkeypatch.setattr(proxy.resolver, "known", lambda: iter(known))
        assert (await operator.ask("SHOW DNS_HOSTS")).rows == [
            ("db.example", "7", "10.0.0.1,fe80::1"), ("gone.example", "0", ""),
        ]  # fmt: skip
        assert (await operator.ask("SHOW DNS_ZONES")).rows == []

    at_desk(tmp_path, story)
