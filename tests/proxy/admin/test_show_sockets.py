"""SHOW CLIENTS and SHOW SERVERS."""

from pathlib import Path

from proxy.main import Proxy
from proxy.states import CLEANING, GONE, IDLE, Closing, move
from tests.fakes import FakeClock
from tests.proxy.admin.desk import Operator, a_client, a_server, at_desk


def test_a_linked_pair_points_at_each_other(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        server = a_server(proxy)
        client = a_client(proxy, server)
        first, console = (await operator.ask("SHOW CLIENTS")).dicts()
        (row,) = (await operator.ask("SHOW SERVERS")).dicts()
        assert (first["ptr"], first["link"]) == (row["link"], row["ptr"]) == (f"{id(client):#x}", f"{id(server):#x}")
        assert (first["type"], first["state"], first["user"], first["addr"]) == ("C", "active", "joe", "10.1.1.1")
        assert (row["type"], row["state"], row["user"], row["remote_pid"]) == ("S", "active", "web", "4711")
        assert len({first["id"], console["id"], row["id"]}) == 3
        assert (console["database"], console["application_name"]) == ("pgbouncer", "psql")

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
