"""SHOW LISTENERS, and where the connection that listens is shown."""

from pathlib import Path

from proxy.main import Proxy
from proxy.states import LINKED
from tests.proxy.admin.desk import Operator, a_client, a_server, at_desk


def test_each_channel_is_a_row(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        client = a_client(proxy, a_server(proxy))
        hub = proxy.find_hub(client.pool)
        hub.ear.pool.pause()  # nothing is opened
        for name in ("news", "caf\u00e9"):
            hub.listen(client, name.encode(), lambda error: None)
        rows = (await operator.ask("SHOW LISTENERS")).rows
        deaf = "not asked on this connection"
        assert rows == [
            ("shop", "web", "news", deaf, "0", "1", "0", "0"),
            ("shop", "web", "caf\u00e9", deaf, "0", "1", "0", "0"),
        ]

    at_desk(tmp_path, story, user="watcher")


def test_its_connection_is_a_server_and_its_pool_no_row_of_its_own(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        client = a_client(proxy, a_server(proxy))
        hub = proxy.find_hub(client.pool)
        hub.ear.pool.places[LINKED].update(client.pool.places[LINKED])  # as if one were open
        pools = [row["database"] for row in (await operator.ask("SHOW POOLS")).dicts()]
        assert pools == ["shop", "pgbouncer"]
        assert len((await operator.ask("SHOW SERVERS")).rows) == 2
        (shop,) = [row for row in (await operator.ask("SHOW DATABASES")).dicts() if row["name"] == "shop"]
        assert (shop["current_connections"], shop["current_client_connections"]) == ("2", "1")
        hub.ear.pool.places[LINKED].clear()

    at_desk(tmp_path, story)
