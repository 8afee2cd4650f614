"""The small SHOWs, and that every SHOW has the columns, types and order of PgBouncer 1.25."""

import asyncio
import re
from pathlib import Path

import pytest

from proxy.admin.show import SHOWS
from proxy.main import Proxy
from proxy.resolver import Resolver
from tests.proxy.admin.desk import Operator, a_client, a_server, at_desk

DOCS = Path(__file__).parents[3] / "deploy" / "docs" / "operations.md"
TYPES = {"s": 25, "i": 23, "q": 20, "N": 1700, "T": 25, "b": 17}

SOCKET = (
    "type s, user s, database s, replication s, state s, addr s, port i, local_addr s, local_port i, connect_time T, "
    "request_time T, wait i, wait_us i, close_needed i, ptr s, link s, remote_pid i, tls s, application_name s, "
    "prepared_statements i, id i"
)
BUFFERS = ", recv_pos i, pkt_pos i, pkt_remain i, send_pos i, send_remain i, pkt_avail i, send_avail i"
PGBOUNCER = {
    "VERSION": "version s",
    "CONFIG": "key s, value s, default s, changeable s",
    "DATABASES": (
        "name s, host s, port i, database s, force_user s, pool_size i, min_pool_size i, reserve_pool_size i, "
        "server_lifetime i, pool_mode s, load_balance_hosts s, max_connections i, current_connections i, "
        "max_client_connections i, current_client_connections i, paused i, disabled i"
    ),
    "POOLS": (
        "database s, user s, cl_active i, cl_waiting i, cl_active_cancel_req i, cl_waiting_cancel_req i, sv_active i, "
        "sv_active_cancel i, sv_being_canceled i, sv_idle i, sv_used i, sv_tested i, sv_login i, maxwait i, "
        "maxwait_us i, pool_mode s, load_balance_hosts s"
    ),
    "SOCKETS": SOCKET + BUFFERS,
    "ACTIVE_SOCKETS": SOCKET + BUFFERS,
    "FDS": (
        "fd i, task s, user s, database s, addr s, port i, cancel q, link i, client_encoding s, std_strings s, "
        "datestyle s, timezone s, password s, scram_client_key b, scram_server_key b"
    ),
    "MEM": "name s, size i, used i, free i, memtotal i",
    "DNS_HOSTS": "hostname s, ttl q, addrs s",
    "DNS_ZONES": "zonename s, serial q, count i",
    "PEER_POOLS": "peer_id i, cl_active_cancel_req i, cl_waiting_cancel_req i, sv_active_cancel i, sv_login i",
    "PEERS": "peer_id i, host s, port i, pool_size i",
    "HOLDERS": "",
    "PINS": "database s, user s, reason s, now i, total q",
    "AUDIT": "database s, user s, application_name s, what s, would_be s, count q, statement s",
    "CLIENTS": SOCKET + ", pinned i, pin_reason s, via s",
    "SERVERS": SOCKET,
    "USERS": (
        "name s, pool_size s, reserve_pool_size s, pool_mode s, max_user_connections i, current_connections i, "
        "max_user_client_connections i, current_client_connections i"
    ),
    "LISTS": "list s, items i",
    "STATS": (
        "database s, total_server_assignment_count N, total_xact_count N, total_query_count N, total_received N, "
        "total_sent N, total_xact_time N, total_query_time N, total_wait_time N, total_client_parse_count N, "
        "total_server_parse_count N, total_bind_count N, avg_server_assignment_count N, avg_xact_count N, "
        "avg_query_count N, avg_recv N, avg_sent N, avg_xact_time N, avg_query_time N, avg_wait_time N, "
        "avg_client_parse_count N, avg_server_parse_count N, avg_bind_count N"
    ),
    "STATS_TOTALS": (
        "database s, server_assignment_count N, xact_count N, query_count N, bytes_received N, bytes_sent N, "
        "xact_time N, query_time N, wait_time N, client_parse_count N, server_parse_count N, bind_count N"
    ),
    "STATS_AVERAGES": (
        "database s, server_assignment_count N, xact_count N, query_count N, bytes_received N, bytes_sent N, "
        "xact_time N, query_time N, wait_time N, avg_client_parse_count N, avg_server_parse_count N, avg_bind_count N"
    ),
    "TOTALS": "name s, value N",
    "STATE": "key s, value s",
    "LINES": "",
    "LISTENERS": "",
    "STATEMENTS": "",
    "HBA": "",
    "LOGINS": "",
}
STATS = [
    "client_login_count", "line_query_count", "line_rerun_count", "line_rescue_count", "line_set_count",
    "line_parse_count",
]  # fmt: skip


def more(*words: str) -> str:
    """What only we count."""
    return ", ".join(f"{word}{name} N" for word in words for name in STATS)


OURS = {
    "HBA": (
        "rule_number i, file_name s, line_number i, type s, database s, user_name s, address s, netmask s, "
        "auth_method s, options s, error s"
    ),
    "HOLDERS": (
        "database s, user s, application_name s, addr s, port i, id i, server_pid i, state s, xact_age N, "
        "query_age N, idle_in_xact N, servers i, pinned s"
    ),
    "LINES": (
        "database s, user s, server_id i, server_pid i, depth i, limit i, client_id i, age N, waiting i, pace i, "
        "state s"
    ),
    "LISTENERS": "database s, user s, channel s, state s, listeners i, waiting i, notifications q, lost q",
    "LOGINS": "address s, user s, failures i, delay s, waiting i, forgotten_in i",
    "POOLS": "sv_closing i, waiting_for s, failing s",
    "STATEMENTS": (
        "database s, user s, statement s, calls q, errors q, total_time q, mean_time q, p99_time q, wait_time q, "
        "bytes q, shared s, why_not s"
    ),
    "STATS": more("total_", "avg_"),
    "STATS_TOTALS": more(""),
    "STATS_AVERAGES": more("avg_"),
}


def typed(shape: str) -> list[tuple[str, int]]:
    pairs = (column.split() for column in shape.split(", "))
    return [(name, TYPES[letter]) for name, letter in pairs]


def test_every_show_is_compared_here() -> None:
    assert {f"SHOW {name}" for name in PGBOUNCER} == set(SHOWS)


@pytest.mark.parametrize("name", PGBOUNCER)
def test_a_show_has_the_columns_of_pgbouncer_and_ours_behind_them(name: str, tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_client(proxy, a_server(proxy))
        answer = await operator.ask(f"SHOW {name};")
        assert answer.error == ""
        assert answer.tag == "SHOW"
        assert answer.columns == typed(", ".join(filter(None, [PGBOUNCER[name], OURS.get(name)])))
        assert all(len(row) == len(answer.columns) for row in answer.rows)

    at_desk(tmp_path, story)


def test_the_version_begins_as_tools_expect_and_says_who_we_are(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        (version,) = (await operator.ask("SHOW VERSION")).rows
        assert str(version[0]).startswith("PgBouncer 1.25.2 (pgshuttle ")

    at_desk(tmp_path, story)


def test_config_says_what_is_what_was_and_what_can_change(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        rows = {row[0]: row[1:] for row in (await operator.ask("SHOW CONFIG")).rows}
        assert rows["default_pool_size"] == ("7", "20", "yes")
        assert rows["listen_port"] == ("6432", "6432", "no")
        assert list(rows) == sorted(rows)

    at_desk(tmp_path, story)


def test_no_secret_is_ever_shown(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        client = a_client(proxy, a_server(proxy))
        assert (await operator.ask("SET auth_ldap_options = 'ldapbindpasswd=hunter2'")).error == ""
        for name in SHOWS:
            answer = await operator.ask(name)
            assert answer.error == ""
            text = str(answer.rows)
            assert "hunter2" not in text
            assert "'secret'" not in text
            assert client.key.hex() not in text
            assert "key!" not in text

    at_desk(tmp_path, story)


async def state_of(operator: Operator) -> list[str | None]:
    """PgBouncer's three rows of SHOW STATE, which come first."""
    rows = (await operator.ask("SHOW STATE")).rows[:3]
    assert [key for key, _ in rows] == ["active", "paused", "suspended"]
    return [value for _, value in rows]


def test_the_state_says_how_it_works_here(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        async def how() -> list[tuple[str | None, ...]]:
            return (await operator.ask("SHOW STATE")).rows[3:]

        proxy.outbox.ring = None
        well = [("reload", "ok"), ("log", "ok")]
        assert await how() == [("io_uring", "no"), ("busy_poll", "no"), ("busy_poll_ms", "0"), *well]
        proxy.outbox.ring = object()  # type: ignore[assignment]
        proxy.outbox.busy_poll.limit, proxy.outbox.busy_poll.spent = 1, 7_999_999
        assert await how() == [("io_uring", "yes"), ("busy_poll", "yes"), ("busy_poll_ms", "7"), *well]
        proxy.outbox.ring = None

    at_desk(tmp_path, story)


def test_state_and_lists_and_users(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_client(proxy, a_server(proxy, "bare", "joe"))
        assert await state_of(operator) == ["yes", "no", "no"]
        await operator.ask("PAUSE shop")
        proxy.pools.pause(None)
        assert await state_of(operator) == ["no", "yes", "no"]
        proxy.pools.resume(None)
        proxy.suspension.begin()
        assert await state_of(operator) == ["no", "no", "yes"]
        names = (
            "databases users peers pools peer_pools free_clients used_clients login_clients free_servers used_servers"
            " dns_names dns_zones dns_queries dns_pending half_open half_open_dropped failed_logins delayed_logins"
            " refused_logins"
        )
        lists = (await operator.ask("SHOW LISTS")).rows
        assert [row[0] for row in lists] == names.split()
        assert [row[1] for row in lists[:10]] == ["3", "4", "0", "2", "0", "0", "2", "0", "0", "1"]
        assert [row[1] for row in lists[10:]] == ["0"] * 9
        proxy.resolver = Resolver(proxy.tasks, proxy, lambda name: asyncio.get_running_loop().create_future())
        proxy.resolver.begin("db1")
        proxy.resolver.begin("db2")
        lists = (await operator.ask("SHOW LISTS")).rows
        assert [row[1] for row in lists[10:]] == ["2", "0", "2", "0", *"00000"]
        users = (await operator.ask("SHOW USERS")).rows
        assert users == [
            ("ann", "", "", None, "0", "0", "0", "0"),
            ("joe", "2", "", "session", "5", "1", "0", "1"),
            ("pgbouncer", "", "", None, "0", "0", "0", "0"),
            ("watcher", "", "", None, "0", "0", "0", "0"),
        ]

    at_desk(tmp_path, story)


def test_what_drivers_ask_for_has_a_canned_answer(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        answer = await operator.ask("SHOW DateStyle")
        assert (answer.columns, answer.rows) == ([("datestyle", 25)], [("ISO",)])
        answer = await operator.ask("SET client_encoding TO 'UTF8'")
        assert (answer.notice, answer.tag) == ("SET ignored", "SET")
        answer = await operator.ask("SELECT 1, pg_is_in_recovery()")
        assert (answer.columns, answer.rows) == ([("?column?", 23), ("pg_is_in_recovery", 16)], [("1", "f")])
        assert (await operator.ask("BEGIN")).tag == "BEGIN"

    at_desk(tmp_path, story, user="watcher")


def test_help_lists_what_exists(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        answer = await operator.ask("SHOW HELP")
        assert (answer.notice, answer.tag, answer.rows) == ("Console usage", "SHOW", [])
        assert "STATS_AVERAGES" in answer.detail
        assert "KILL_CLIENT <client_id>" in answer.detail
        await asyncio.sleep(0)

    at_desk(tmp_path, story)


def test_the_state_says_that_the_last_reload_was_refused_and_that_lines_of_the_log_are_lost(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        file = Path(proxy.config.path)
        right = file.read_text()
        file.write_text(right + "\n[users]\nann = no_such_key=1\n")
        await operator.ask("RELOAD")
        state = dict((await operator.ask("SHOW STATE")).rows)
        assert str(state["reload"]).startswith(f"refused: {file}:")
        file.write_text(right)
        await operator.ask("RELOAD")
        assert dict((await operator.ask("SHOW STATE")).rows)["reload"] == "ok"
        next(iter(proxy.log._sinks.values())).lost = 3
        assert "3 lines are lost" in str(dict((await operator.ask("SHOW STATE")).rows)["log"])

    at_desk(tmp_path, story)


def read_alarms() -> list[tuple[str, str]]:
    """What the docs say one should be alarmed by: (column or row, SHOW)."""
    (paragraph,) = re.findall(r"\*\*What to alert on\.\*\* (.*?)\n\n", DOCS.read_text(), re.DOTALL)
    parts = [(part.split("`SHOW")[0], re.findall(r"\(`(SHOW \w+)`\)", part)) for part in paragraph.split(";")]
    return [(word, show[0]) for words, show in parts if show for word in re.findall(r"`(\w+)`", words)]


def test_what_the_docs_say_one_should_be_alarmed_by_is_there(tmp_path: Path) -> None:
    alarms = read_alarms()
    assert ("failing", "SHOW POOLS") in alarms
    assert ("used_clients", "SHOW LISTS") in alarms

    async def story(proxy: Proxy, operator: Operator) -> None:
        for word, show in alarms:
            answer = await operator.ask(show)
            told = {name for name, _ in answer.columns} | {cell for row in answer.rows for cell in row}
            assert word in told | {"ok", "max_client_conn"}, f"{word} of {show}"

    at_desk(tmp_path, story)
