"""SHOW SOCKETS, ACTIVE_SOCKETS and FDS."""

from pathlib import Path

from proxy.main import Proxy
from tests.proxy.admin.desk import Operator, a_client, a_server, at_desk


def test_what_lies_in_the_buffers_of_a_client_stands_in_its_row(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        client = a_client(proxy, a_server(proxy))
        client.held, client.carry, client.remain = b"12345", b"123", 70
        client.transport.get_write_buffer_size = lambda: 11
        row = (await operator.ask("SHOW SOCKETS")).dicts()[0]
        assert (row["recv_pos"], row["pkt_pos"], row["pkt_avail"], row["pkt_remain"]) == ("8", "5", "3", "70")
        assert (row["send_pos"], row["send_remain"], row["send_avail"]) == ("0", "11", "11")

    at_desk(tmp_path, story)


def test_the_rows_are_those_of_clients_consoles_and_servers(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_client(proxy, a_server(proxy))
        a_server(proxy, "bare")
        found = (await operator.ask("SHOW SOCKETS")).dicts()
        assert [(row["type"], row["database"]) for row in found] == [
            ("C", "shop"), ("C", "pgbouncer"), ("S", "shop"), ("S", "bare"),
        ]  # fmt: skip
        active = (await operator.ask("SHOW ACTIVE_SOCKETS")).dicts()
        assert [(row["type"], row["database"]) for row in active] == [("C", "shop"), ("C", "pgbouncer"), ("S", "shop")]

    at_desk(tmp_path, story)


def test_descriptors_without_secrets(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        server = a_server(proxy)
        client = a_client(proxy, server)
        for number, stream in enumerate((client, server), 7):
            stream.transport.get_extra_info = lambda name, default=None, number=number: a_socket(number)
        server.parameters["client_encoding"] = "UTF8"
        rows = (await operator.ask("SHOW FDS")).dicts()
        assert [(row["fd"], row["task"], row["user"], row["database"], row["link"]) for row in rows] == [
            ("7", "client", "joe", "shop", "8"), ("8", "server", "web", "shop", "7"),
        ]  # fmt: skip
        assert rows[1]["client_encoding"] == "UTF8"
        for row in rows:
            assert (row["password"], row["cancel"]) == ("", "0")
            assert row["scram_client_key"] is row["scram_server_key"] is None

    at_desk(tmp_path, story)


def a_socket(number: int) -> object:
    class Socket:
        def fileno(self) -> int:
            return number

    return Socket()
