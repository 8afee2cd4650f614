"""SHOW HOLDERS: who keeps servers from the others."""

from pathlib import Path

from protocol import codes
from protocol.ledger import ONE_QUERY
from proxy.main import Proxy
from proxy.pins import PinReason
from proxy.session import Session
from proxy.tunnel import Stage
from tests.proxy.admin.desk import LINES, Operator, a_client, a_server, at_desk, lined
from tests.proxy.admin.test_show_sockets import a_tunnel

WATCHER = "watcher"


def test_the_longest_comes_first_over_all_pools(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        young, old = a_client(proxy, a_server(proxy)), a_client(proxy, a_server(proxy, "bare"), "ann")
        now = proxy.clock.now()
        young.xact_at = young.request_at = now - 1.5
        young.server.ledger.expect(ONE_QUERY, young)
        old.server.status, old.xact_at, old.ready_at, old.request_at = (
            codes.IN_TRANSACTION,
            now - 93,
            now - 80,
            now - 81,
        )
        rows = (await operator.ask("SHOW HOLDERS")).rows
        assert rows == [
            ("bare", "ann", "shop", "10.1.1.1", "40000", str(old.number), "4711", "idle in transaction",
             "93.000", None, "80.000", "1", ""),
            ("shop", "joe", "shop", "10.1.1.1", "40000", str(young.number), "4711", "active",
             "1.500", "1.500", None, "1", ""),
        ]  # fmt: skip

    at_desk(tmp_path, story, user=WATCHER)


def test_it_counts_what_one_application_holds_and_says_who_is_pinned(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        clients = [a_client(proxy, a_server(proxy)) for _ in range(3)]
        a_client(proxy, a_server(proxy), "ann")
        clients[0].session = Session()
        clients[0].pool.learnt.pins.enter(
            clients[0], clients[0].session.pins, PinReason.LOCK, b"select pg_advisory_lock(7)"
        )
        rows = (await operator.ask("SHOW HOLDERS")).dicts()
        assert sorted((row["user"], row["servers"]) for row in rows) == [("ann", "1"), *[("joe", "3")] * 3]
        (pinned,) = [row for row in rows if row["pinned"]]
        assert str(pinned["pinned"]).startswith("advisory lock since ")
        assert pinned["state"] == "idle"

    at_desk(tmp_path, story, user=WATCHER)


def test_nobody_holds_anything(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_server(proxy)
        answer = await operator.ask("show holders;")
        assert (answer.rows, answer.tag) == ([], "SHOW")
        assert [name for name, _ in answer.columns][:3] == ["database", "user", "application_name"]

    at_desk(tmp_path, story)


def test_a_tunnel_holds_its_connection_for_as_long_as_it_lasts(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        tunnel = a_tunnel(proxy, Stage.OPEN)
        (row,) = (await operator.ask("SHOW HOLDERS")).rows
        number = str(tunnel.number)
        assert row[:7] == ("bare", "joe", "standby", "10.1.1.1", "40000", number, "4712")
        assert row[7:] == ("replication", None, None, None, "1", "")
        tunnel.stage = Stage.CLOSING
        assert (await operator.ask("SHOW HOLDERS")).rows == []
        proxy.pools.tunnels.clear()

    at_desk(tmp_path, story)


def test_a_server_with_a_line_is_held_by_the_client_it_runs(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_client(proxy, a_server(proxy))
        _, clients = await lined(proxy, 3)
        proxy.clock.advance(0.25)
        (row,) = [row for row in (await operator.ask("SHOW HOLDERS")).rows if row[7] == "active"]
        assert row[:7] == ("shop", "joe", "shop", "10.1.1.1", "40000", str(clients[0].number), "4711")
        assert row[7:] == ("active", "0.250", "0.250", None, "2", "")
        clients[0].eof_received()
        (row,) = [row for row in (await operator.ask("SHOW HOLDERS")).rows if row[7] == "active"]
        assert row[:7] == ("shop", "web", "", "", "0", "0", "4711"), "it runs for nobody"

    at_desk(tmp_path, story, text=LINES)
