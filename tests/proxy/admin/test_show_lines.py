"""SHOW LINES: who stands in line, and why a line takes nobody in."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.admin.show_lines import Standing, find_standing
from proxy.main import Proxy
from proxy.states import Closing, PoolState
from tests.proxy.admin.desk import LINES, ROW, Operator, a_client, a_server, at_desk, lined, settle

Story = Callable[[Proxy, Operator], Awaitable[None]]


def at_lines(folder: Path, story: Story, user: str = "watcher") -> None:
    at_desk(folder, story, user, LINES)


def test_a_line_tells_its_head_and_who_stands_behind_it(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_client(proxy, a_server(proxy))  # company: who comes alone needs no line
        server, clients = await lined(proxy, 3)
        proxy.clock.advance(0.002)
        first, second = (await operator.ask("SHOW LINES")).rows
        assert first == ("shop", "web", None, None, "0", None, None, None, "0", None, "waiting for a place")
        assert second == (
            "shop", "web", str(server.number), "4711", "3", "4", str(clients[0].number), "0.002", "2", "100", "open",
        )  # fmt: skip
        server.data_received(ROW)
        assert (await operator.ask("SHOW LINES shop")).rows[1][4:9] == ("2", "4", str(clients[1].number), "0.000", "1")
        assert (await operator.ask("SHOW LINES bare")).rows == []

    at_lines(tmp_path, story)


def test_of_a_group_each_stands_there_by_himself_and_its_head_is_the_first_who_is_left(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_client(proxy, a_server(proxy))
        server, clients = await lined(proxy, 3)
        assert server.transport.written.count(b"S\0\0\0\4") == 1  # one Sync for all
        proxy.clock.advance(0.002)
        line = (await operator.ask("SHOW LINES")).rows[1]
        assert line[4:9] == ("3", "4", str(clients[0].number), "0.002", "2")
        clients[0].eof_received()
        line = (await operator.ask("SHOW LINES")).rows[1]
        assert line[4:9] == ("3", "4", "0", "0.002", "2")
        answer = b"1\0\0\0\0042\0\0\0\4" + ROW[:-6]
        server.data_received(answer * 3 + ROW[-6:])
        line = (await operator.ask("SHOW LINES")).rows[1]
        assert line[4:9] == ("0", "4", None, None, "0")
        assert [bytes(client.transport.written) for client in clients] == [b"", ROW, ROW]

    at_desk(tmp_path, story, "watcher", LINES.replace("pipeline_group = 1", "pipeline_group_min = 2"))


def test_those_without_a_place_stand_in_the_pools_row(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_client(proxy, a_server(proxy))
        _, clients = await lined(proxy, 6)
        proxy.clock.advance(0.001)
        queue, line = (await operator.ask("SHOW LINES")).rows
        assert queue[6:] == (str(clients[4].number), "0.001", "2", None, "waiting for a place")
        assert (line[4], line[-1]) == ("4", "full")

    at_lines(tmp_path, story)


def test_a_head_that_has_left_has_no_number(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_client(proxy, a_server(proxy))
        _, clients = await lined(proxy, 2)
        clients[0].eof_received()
        line = (await operator.ask("SHOW LINES")).rows[1]
        assert (line[4], line[6], line[8]) == ("2", "0", "1")

    at_lines(tmp_path, story)


def test_where_no_lines_are_configured_there_are_none(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_client(proxy, a_server(proxy))
        assert (await operator.ask("SHOW LINES")).rows == []

    at_desk(tmp_path, story, "watcher")


def test_a_line_without_a_server_is_idle_or_wants_one(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        own = a_client(proxy, a_server(proxy))
        server, _ = await lined(proxy, 1)
        server.data_received(ROW)
        await settle()
        (line,) = own.pool.lines.members
        assert find_standing(line) is Standing.IDLE
        own.pool.waiting[line] = None
        assert find_standing(line) is Standing.WANTING
        own.pool.waiting.clear()

    at_lines(tmp_path, story)


def is_paused(line: Any) -> None:
    line.pool.state = PoolState.PAUSED


def is_leaving(line: Any) -> None:
    line.server.doomed = Closing.RECONNECT


def is_canceled(line: Any) -> None:
    line.server.cancels = 1


def is_stuck(line: Any) -> None:
    line.head_since -= 1.0


def is_held(line: Any) -> None:
    line.is_held = True


def is_choked(line: Any) -> None:
    line.server.is_choked = True


def is_yielding(line: Any) -> None:
    line.pool.waiting[next(iter(line.pool.clients))] = None


def is_open(line: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("happens", "word"),
    [
        (is_open, "open"),
        (is_paused, "paused"),
        (is_leaving, "leaving"),
        (is_canceled, "cancel on its way"),
        (is_stuck, "stuck"),
        (is_held, "held by a slow reader"),
        (is_choked, "held by a slow server"),
        (is_yielding, "yielding"),
    ],
)
def test_a_line_says_why_it_takes_nobody_in(tmp_path: Path, happens: Callable[[Any], None], word: str) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_client(proxy, a_server(proxy))
        server, _ = await lined(proxy, 2)
        happens(server.client)
        assert (await operator.ask("SHOW LINES")).dicts()[1]["state"] == word
        server.pool.waiting.clear()

    at_lines(tmp_path, story)


def test_every_word_is_another() -> None:
    assert len({word.value for word in Standing}) == len(Standing)
