"""SHOW STATEMENTS: what is asked, what it costs, and whether it shares lines."""

from pathlib import Path
from typing import Any

import pytest

from proxy.admin.show_statements import FAILED, find_reason
from proxy.books import OTHERS, Book
from proxy.main import Proxy
from proxy.shapes import Doubt
from tests.proxy.admin.desk import INI, LINES, READ, ROW, Operator, a_client, a_server, at_desk, lined

TRACKED = INI.replace("[proxy]", "[proxy]\ntrack_statements = 1")
SECRET = "geheim"


def test_what_took_most_time_comes_first(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        book = a_server(proxy).pool.lines.book
        for seconds in (0.001, 0.003):
            book.find(b"select 1").note(seconds, 50)
        slow = book.find_any(b"delete from t1 where a = 'x'", "UTF8")
        slow.note(2.5, 10)
        slow.errors, slow.waited = 1, 0.25
        first, second = (await operator.ask("SHOW STATEMENTS")).dicts()
        assert list(first.values()) == [
            "shop", "web", "delete from t# where a = ?", "1", "1", "2500000", "2500000", first["p99_time"], "250000",
            "10", "no", "lines are off",
        ]  # fmt: skip
        assert 2_500_000 <= int(first["p99_time"] or 0) <= 3_000_000
        assert [second[name] for name in ("statement", "calls", "total_time", "mean_time", "bytes")] == [
            "select ?", "2", "4000", "2000", "100",
        ]  # fmt: skip

    at_desk(tmp_path, story, "watcher", TRACKED)


def test_what_one_client_asks_is_there_without_its_values(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        client = a_client(proxy, a_server(proxy))
        client.data_received(f"Q\0\0\0\x1eselect '{SECRET}', $${SECRET}$$\0".encode())
        client.server.data_received(ROW)
        (row,) = (await operator.ask("SHOW STATEMENTS")).dicts()
        assert (row["statement"], row["calls"]) == ("select ?, ?", "1")

    at_desk(tmp_path, story, "watcher", TRACKED)


def test_shapes_that_look_alike_are_one_row(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        book = a_server(proxy).pool.lines.book
        for text in (
            b"select * from t where a in (1,2)",
            b"select * from t where a in (1,2,3)",
            b"SELECT * from t where a in (1)",
        ):
            book.find(text).note(0.001, 5)
        (row,) = (await operator.ask("SHOW STATEMENTS")).dicts()
        assert (row["statement"], row["calls"], row["bytes"]) == ("select * from t where a in (?)", "3", "15")

    at_desk(tmp_path, story, "watcher", TRACKED)


def test_what_never_went_well_is_not_shown(tmp_path: Path) -> None:
    """It may be anything: a password that stands where a statement ought to."""

    async def story(proxy: Proxy, operator: Operator) -> None:
        pool = a_server(proxy).pool
        for text in (f"alter user joe password {SECRET}", f'select "{SECRET}"'):
            pool.lines.book.find_any(text.encode(), "UTF8").errors = 2
        pool.lines.book.others.calls = 7
        assert [(row["statement"], row["calls"], row["errors"], row["shared"]) for row in (
            await operator.ask("SHOW STATEMENTS")
        ).dicts()] == [(FAILED, "0", "4", None), (OTHERS, "7", "0", None)]  # fmt: skip

    at_desk(tmp_path, story, "watcher", TRACKED)


def test_with_lines_on_what_travels_in_them_is_there(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_client(proxy, a_server(proxy))
        server, _ = await lined(proxy, 6)
        proxy.clock.advance(0.5)
        server.data_received(ROW * 4)
        server.data_received(ROW * 2)
        (row,) = (await operator.ask("SHOW STATEMENTS shop")).dicts()
        assert [row[name] for name in ("statement", "calls", "shared", "why_not")] == ["select ?", "6", "yes", None]
        assert (row["total_time"], row["wait_time"]) == ("500000", "1000000")
        assert (await operator.ask("SHOW STATEMENTS bare")).rows == []

    at_desk(tmp_path, story, "watcher", LINES)


@pytest.mark.parametrize(
    ("text", "seconds", "size", "reason"),
    [
        (b"select a", [0.001] * 3, 10, ""),
        (b"select a", [0.001], 10, "not seen often enough (1 of 3 good answers)"),
        (b"select a", [0.001] * 3 + [9.0] * 20 + [0.001], 10, "was slow (1 of 6 good answers)"),
        (b"select a", [0.001], 9_999, "was large (0 of 3 good answers)"),
        (b"delete from t", [0.001] * 3, 10, "not a read"),
        (b"select f()", [0.001] * 3, 10, "calls a function that is not known to be harmless"),
        (b"select 1; select 2", [0.001] * 3, 10, "not a single statement"),
        (b'select "a"', [0.001] * 3, 10, "not understood"),
    ],
)
def test_why_it_does_not_share(text: bytes, seconds: list[float], size: int, reason: str) -> None:
    shape = Book(frozenset(), 0.005, 1_000).find_any(text, "UTF8")
    for each in seconds:
        shape.note(each, size)
    assert find_reason(shape) == reason


def test_a_head_that_was_stuck_is_a_reason_too() -> None:
    shape = Book(frozenset(), 0.005, 1_000).find(b"select a")
    shape.distrust()
    assert shape.doubted is Doubt.STUCK
    assert "stuck" in find_reason(shape)


def test_an_administrator_begins_anew(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        client = a_client(proxy, a_server(proxy))
        client.data_received(READ)
        client.server.data_received(ROW)
        assert len((await operator.ask("SHOW STATEMENTS")).rows) == 1
        answer: Any = await operator.ask("reset statements;")
        assert (answer.tag, answer.error) == ("RESET", "")
        assert (await operator.ask("SHOW STATEMENTS")).rows == []
        assert "RESET 'statements' command issued" in Path(proxy.settings.logfile or str(tmp_path / "log")).read_text()
        assert (await operator.ask("RESET ROLE")).tag == "RESET", "drivers say so"
        assert (await operator.ask("RESET")).error.startswith("42601")

    at_desk(tmp_path, story, "ann", TRACKED)


def test_who_may_only_look_does_not(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        assert (await operator.ask("RESET STATEMENTS")).error == "42501 admin access needed"

    at_desk(tmp_path, story, "watcher", TRACKED)


def test_where_nothing_is_measured_nothing_is_shown(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_server(proxy)
        assert (await operator.ask("SHOW STATEMENTS")).rows == []
        assert (await operator.ask("RESET STATEMENTS")).tag == "RESET"

    at_desk(tmp_path, story)


def test_tracking_alone_makes_no_lines(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_server(proxy)
        assert (await operator.ask("SHOW LINES")).rows == []

    at_desk(tmp_path, story, "watcher", TRACKED)


def test_it_can_be_turned_on_and_off_while_clients_are_at_work(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        client = a_client(proxy, a_server(proxy))
        assert client.pool.lines is None
        assert (await operator.ask("SET track_statements = 1")).tag == "SET track_statements=1"
        client.data_received(READ)
        assert (await operator.ask("SET track_statements = 0")).error == ""
        assert client.pool.lines is None
        client.server.data_received(ROW)
        client.data_received(READ)
        assert (await operator.ask("SHOW STATEMENTS")).rows == []

    at_desk(tmp_path, story)
