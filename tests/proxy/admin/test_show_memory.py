"""SHOW MEM."""

from pathlib import Path

from proxy.main import Proxy
from tests.proxy.admin.desk import Operator, a_client, a_server, at_desk


def test_what_there_is_is_counted_and_measured(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_client(proxy, a_server(proxy))
        a_server(proxy)
        rows = {row["name"]: row for row in (await operator.ask("SHOW MEM")).dicts()}
        used = {name: row["used"] for name, row in rows.items()}
        assert (used["client_cache"], used["server_cache"], used["pool_cache"], used["db_cache"]) == (
            "1",
            "2",
            "1",
            "3",
        )
        assert (used["user_cache"], used["console_cache"], used["peer_cache"]) == ("3", "1", "0")
        for row in rows.values():
            assert int(row["memtotal"] or 0) == int(row["size"] or 0) * int(row["used"] or 0)
            assert row["free"] == "0"
        assert int(rows["client_cache"]["size"] or 0) > 100

    at_desk(tmp_path, story)


def test_the_last_row_is_the_process_itself(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        row = (await operator.ask("SHOW MEM")).dicts()[-1]
        assert row["name"] == "process"
        assert 5_000_000 < int(row["memtotal"] or 0) < 2_000_000_000

    at_desk(tmp_path, story)
