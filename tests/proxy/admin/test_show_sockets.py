"""SHOW CLIENTS and SHOW SERVERS."""

from pathlib import Path
from typing import Any

from protocol.replication import Replication
from proxy.main import Proxy
from proxy.states import CLEANING, CLOSING, GONE, IDLE, LINKED, Closing, move
from proxy.tunnel import Stage, Tunnel
from tests.fakes import FakeClock, socket_of
from tests.proxy.admin.desk import LINES, ROW, Line, Operator, a_client, a_server, at_desk, hang_up, lined


def test_a_linked_pair_points_at_each_other(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        server = a_server(proxy)
        client = a_client(proxy, server)
        first, console = (await operator.ask("SHOW CLIENTS")).dicts()
        (row,) = (await operator.ask("SHOW SERVERS")).dicts()
        assert (first["ptr"], first["link"]) == (row["link"], row["ptr"])
        assert (first["ptr"], row["ptr"]) == (f"{client.tag.ptr:#x}", f"{server.tag.ptr:#x}"), "as in the log"
        assert (first["type"], first["state"], first["user"], first["addr"]) == ("C", "active", "joe", "10.1.1.1")
        assert (row["type"], row["state"], row["user"], row["remote_pid"]) == ("S", "active", "web", "4711")
        assert len({first["id"], console["id"], row["id"]}) == 3
        assert (console["database"], console["application_name"]) == ("pgbouncer", "psql")

    at_desk(tmp_path, story)


def test_a_server_that_listens_for_clients_points_at_who_listens(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        server = a_server(proxy)
        ear: Any = proxy.find_hub(server.pool).ear
        move(server, LINKED)
        server.client = ear
        (row,) = (await operator.ask("SHOW SERVERS")).dicts()
        assert (row["state"], row["link"]) == ("active", f"{ear.tag.ptr:#x}")
        assert repr(ear).startswith(f"E-{ear.tag.ptr:#x}: ")
        server.client = None

    at_desk(tmp_path, story)


def test_times_are_those_of_the_wall(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        client = a_client(proxy, a_server(proxy))
        assert isinstance(proxy.clock, FakeClock)
        proxy.clock.advance(60)
        client.request_at = proxy.clock.now()
        row = (await operator.ask("SHOW CLIENTS")).dicts()[0]
        assert (row["connect_time"], row["request_time"]) == ("2026-01-02 03:04:05 UTC", "2026-01-02 03:05:05 UTC")

    at_desk(tmp_path, story)


def test_a_server_says_its_state_in_pgbouncers_words(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        server = a_server(proxy)

        async def state() -> str | None:
            return (await operator.ask("SHOW SERVERS")).dicts()[0]["state"]

        assert await state() == "idle"
        a_client(proxy, server)
        move(server, CLEANING)
        assert await state() == "tested"
        server.cancels = 1
        assert await state() == "being_canceled"
        server.close(Closing.LIFETIME)
        assert (await operator.ask("SHOW SERVERS")).rows == []

    at_desk(tmp_path, story)


def test_a_server_that_is_to_leave_says_so(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_client(proxy, a_server(proxy))
        assert (await operator.ask("RECONNECT shop")).tag == "RECONNECT"
        assert (await operator.ask("SHOW SERVERS")).dicts()[0]["close_needed"] == "1"

    at_desk(tmp_path, story)


def test_a_long_list_leaves_turns_for_others_and_whoever_goes_meanwhile_is_left_out(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        server = a_server(proxy)
        clients = [a_client(proxy, server)]
        for _ in range(999):
            server.client = None
            move(server, IDLE)
            clients.append(a_client(proxy, server))
        operator.say("SHOW CLIENTS")
        await operator.inbox._wait_bytes(1)
        for client in clients[900:]:
            client.state = GONE
        rows = (await operator.answer()).rows
        assert 900 <= len(rows) < 1001

    at_desk(tmp_path, story)


def a_tunnel(proxy: Proxy, stage: Stage) -> Tunnel:
    server = a_server(proxy, "bare")
    tunnel = Tunnel(server.pool, "joe", Replication.PHYSICAL, b"k" * 8, ("10.1.1.1", 40000))
    server.close(Closing.ADMIN)
    tunnel.stage = stage
    tunnel.near.connection_made(Line())
    tunnel.far.connection_made(Line())
    tunnel.far.address, tunnel.far.pid = ("10.0.0.1", 5432), 4712
    tunnel.far.parameters["application_name"] = "standby"
    proxy.tunnel_wanted(tunnel)
    return tunnel


def test_a_tunnel_is_a_row_in_each_and_they_point_at_each_other(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        tunnel = a_tunnel(proxy, Stage.OPEN)
        client, console = (await operator.ask("SHOW CLIENTS")).dicts()
        if client["replication"] == "none":
            client, console = console, client
        (server,) = (await operator.ask("SHOW SERVERS")).dicts()
        assert (client["replication"], server["replication"], console["replication"]) == (
            "physical",
            "physical",
            "none",
        )
        assert (client["ptr"], client["link"]) == (server["link"], server["ptr"])
        assert (client["state"], client["addr"], client["application_name"]) == ("active", "10.1.1.1", "standby")
        assert (server["state"], server["addr"], server["remote_pid"]) == ("active", "10.0.0.1", "4712")
        assert (client["id"], server["id"]) == (str(tunnel.number), str(tunnel.far_number))

    at_desk(tmp_path, story)


def test_one_that_is_being_opened_waits_and_one_that_is_closed_is_not_listed(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        tunnel = a_tunnel(proxy, Stage.OPENING)
        states = [(await operator.ask(f"SHOW {what}")).dicts() for what in ("CLIENTS", "SERVERS")]
        assert [row["state"] for row in states[0] if row["replication"] != "none"] == ["waiting"]
        assert [row["state"] for row in states[1]] == ["new"]
        tunnel.stage = Stage.CLOSING
        assert (await operator.ask("SHOW SERVERS")).rows == []
        assert len((await operator.ask("SHOW CLIENTS")).rows) == 1

    at_desk(tmp_path, story)


def test_tunnels_are_counted_in_the_other_tables(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        tunnel = a_tunnel(proxy, Stage.OPEN)
        hang_up(next(iter(tunnel.pool.places[CLOSING])))
        pools = {row["database"]: row for row in (await operator.ask("SHOW POOLS")).dicts()}
        databases = {row["name"]: row for row in (await operator.ask("SHOW DATABASES")).dicts()}
        users = {row["name"]: row for row in (await operator.ask("SHOW USERS")).dicts()}
        lists = {row["list"]: row["items"] for row in (await operator.ask("SHOW LISTS")).dicts()}
        assert (pools["bare"]["cl_active"], pools["bare"]["sv_active"]) == ("1", "1")
        for row in (databases["bare"], users["joe"]):
            assert (row["current_connections"], row["current_client_connections"]) == ("1", "1")
        assert lists["used_servers"] == "1"

    at_desk(tmp_path, story)


def test_kill_client_takes_a_tunnel_too(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        tunnel = a_tunnel(proxy, Stage.OPEN)
        assert (await operator.ask(f"KILL_CLIENT {tunnel.number}")).tag == "KILL_CLIENT"
        assert tunnel.stage is Stage.CLOSING

    at_desk(tmp_path, story)


def test_how_a_server_is_reached_is_told_in_pgbouncers_words(tmp_path: Path) -> None:
    class Encrypted:
        def version(self) -> str:
            return "TLSv1.3"

        def cipher(self) -> tuple[str, str, int]:
            return "TLS_AES_256_GCM_SHA384", "TLSv1.3", 256

    async def story(proxy: Proxy, operator: Operator) -> None:
        server: Any = a_server(proxy)
        assert [row["tls"] for row in (await operator.ask("SHOW SERVERS")).dicts()] == [""]
        extra = {"ssl_object": Encrypted()}
        socket_of(server).get_extra_info = lambda name, default=None: extra.get(name, default)
        rows = (await operator.ask("SHOW SERVERS")).dicts()
        assert [row["tls"] for row in rows] == ["TLSv1.3/TLS_AES_256_GCM_SHA384"]

    at_desk(tmp_path, story)


def test_those_in_line_are_active_once_they_are_sent_and_the_server_runs_the_first(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_client(proxy, a_server(proxy))
        server, clients = await lined(proxy, 5)
        proxy.clock.advance(1.5)
        rows = {row["id"]: row for row in (await operator.ask("SHOW CLIENTS")).dicts()}
        of = [rows[str(client.number)] for client in clients]
        assert [row["state"] for row in of] == ["active"] * 4 + ["waiting"]
        assert [row["link"] for row in of] == [f"{server.tag.ptr:#x}"] * 4 + [""]
        assert (of[4]["wait"], of[4]["wait_us"]) == ("1", "500000")
        (row,) = [row for row in (await operator.ask("SHOW SERVERS")).dicts() if row["id"] == str(server.number)]
        assert (row["state"], row["link"]) == ("active", of[0]["ptr"])
        proxy.clock.advance(60)
        server.data_received(ROW)
        (row,) = [row for row in (await operator.ask("SHOW SERVERS")).dicts() if row["id"] == str(server.number)]
        assert row["link"] == of[1]["ptr"]
        assert row["request_time"] > of[1]["request_time"], "the second runs since the first was answered"
        for client in clients:
            client.eof_received()
        (row,) = [row for row in (await operator.ask("SHOW SERVERS")).dicts() if row["id"] == str(server.number)]
        assert row["link"] == "", "whoever it works for has left"

    at_desk(tmp_path, story, text=LINES)
