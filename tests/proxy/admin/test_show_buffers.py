"""SHOW SOCKETS, ACTIVE_SOCKETS and FDS."""

from pathlib import Path

import pytest

from proxy.admin.show_buffers import _WORDS
from proxy.admin.show_sockets import _CLIENT_WORDS, _SERVER_WORDS
from proxy.main import Proxy
from proxy.tunnel import Stage
from tests.fakes import socket_of
from tests.proxy.admin.desk import Operator, a_client, a_server, at_desk
from tests.proxy.admin.test_show_sockets import a_tunnel


def test_what_lies_in_the_buffers_of_a_client_stands_in_its_row(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        client = a_client(proxy, a_server(proxy))
        client.held, client.carry, client.remain = b"12345", b"123", 70
        socket_of(client).get_write_buffer_size = lambda: 11
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
        assert [row["state"] for row in found] == ["cl_active", "cl_active", "sv_active", "sv_idle"]

    at_desk(tmp_path, story)


def test_active_are_those_with_something_in_a_buffer(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        client = a_client(proxy, a_server(proxy))
        assert (await operator.ask("SHOW ACTIVE_SOCKETS")).rows == []
        socket_of(client).unsent = 7
        (row,) = (await operator.ask("SHOW ACTIVE_SOCKETS")).dicts()
        assert (row["type"], row["state"], row["send_remain"]) == ("C", "cl_active", "7")

    at_desk(tmp_path, story)


@pytest.mark.parametrize("letter", "CS")
def test_every_state_has_its_word(letter: str) -> None:
    known = {"C": {*_CLIENT_WORDS.values(), "waiting"}, "S": {*_SERVER_WORDS.values(), "being_canceled"}}
    assert {word for kind, word in _WORDS if kind == letter} == known[letter]


def test_tunnels_are_among_them(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_tunnel(proxy, Stage.OPENING)
        found = (await operator.ask("SHOW SOCKETS bare")).dicts()
        assert [(row["state"], row["replication"]) for row in found] == [
            ("cl_waiting", "physical"), ("sv_login", "physical"),
        ]  # fmt: skip

    at_desk(tmp_path, story)


def test_descriptors_without_secrets(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        server = a_server(proxy)
        client = a_client(proxy, server)
        for number, stream in enumerate((client, server), 7):
            socket_of(stream).get_extra_info = lambda name, default=None, number=number: a_socket(number)
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
