"""SHOW STATS and its kin."""

from pathlib import Path

from proxy.main import Proxy
from tests.proxy.admin.desk import LINES, ROW, Operator, a_client, a_server, at_desk, lined


def some_work(proxy: Proxy) -> None:
    """Two pools of one database: 30 transactions in the last ten seconds, 40 in all."""
    for user, count in (("ann", 10), ("joe", 20)):
        pool = a_server(proxy, "bare", user).pool
        pool.stats.xact_count, pool.stats.xact_time, pool.stats.received = count // 2, 1.0, 100
        pool.averages.roll(pool.stats, 10.0)
        pool.stats.xact_count, pool.stats.xact_time, pool.stats.received = count * 2, 1.0 + count * 0.001, 1100
        pool.averages.roll(pool.stats, 10.0)


def test_a_database_is_the_sum_of_its_pools(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        some_work(proxy)
        row, console = (await operator.ask("SHOW STATS")).dicts()
        assert (row["database"], console["database"]) == ("bare", "pgbouncer")
        assert (row["total_xact_count"], row["total_xact_time"], row["total_received"]) == ("60", "2030000", "2200")
        assert row["avg_xact_count"] == "4"  # 45 in ten seconds, whole numbers as in PgBouncer
        assert row["avg_xact_time"] == "666"  # 30 ms over 45 transactions
        assert row["avg_recv"] == "200"
        assert set(list(console.values())[1:]) == {"0"}

    at_desk(tmp_path, story)


def test_the_other_tables_say_the_same(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        some_work(proxy)
        totals, averages = await operator.ask("SHOW STATS_TOTALS"), await operator.ask("SHOW STATS_AVERAGES")
        assert (totals.dicts()[0]["xact_count"], totals.dicts()[0]["bytes_received"]) == ("60", "2200")
        assert (averages.dicts()[0]["xact_count"], averages.dicts()[0]["bytes_received"]) == ("4", "200")
        everything = dict((await operator.ask("SHOW TOTALS")).rows)
        assert everything["total_xact_count"] == "60"
        assert everything["total_client_bytes"] == "2200"
        assert everything["avg_xact_time"] == "666"
        assert "avg_ps_bind_count" in everything

    at_desk(tmp_path, story)


def test_what_travels_in_lines_is_counted_behind_everything_else(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_client(proxy, a_server(proxy))
        server, clients = await lined(proxy, 3)
        server.data_received(ROW + ROW)
        clients[2].unit.make_again()
        server.data_received(ROW)
        (row, _) = (await operator.ask("SHOW STATS")).dicts()
        assert [row[f"total_line_{name}_count"] for name in ("query", "rerun", "rescue", "set", "parse")] == [
            "2", "1", "0", "0", "0",
        ]  # fmt: skip
        assert row["total_query_count"] == "2", "they are queries as all others"

    at_desk(tmp_path, story, text=LINES)
