"""SHOW ... <database>."""

from pathlib import Path

import pytest

from proxy.admin.show import NARROWABLE, SHOWS
from proxy.main import Proxy
from tests.proxy.admin.desk import LINES, Operator, a_client, a_server, at_desk


@pytest.mark.parametrize("name", NARROWABLE)
def test_rows_of_one_database_alone(name: str, tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        for database in ("shop", "bare", "guest"):
            client = a_client(proxy, a_server(proxy, database, "ann"))
            client.carry = b"Q"
            client.pool.lines.book.find(b"select 1").note(0.001, 1)
        for database in ("shop", "guest"):
            found = (await operator.ask(f"{name} {database}")).dicts()
            assert {row["database"] for row in found} == {database}
        console = (await operator.ask(f"{name} pgbouncer")).dicts()
        assert {row["database"] for row in console} <= {"pgbouncer"}
        assert bool(console) is (name not in ("SHOW SERVERS", "SHOW ACTIVE_SOCKETS", "SHOW LINES", "SHOW STATEMENTS"))
        every = {row["database"] for row in (await operator.ask(name)).dicts()}
        assert every >= {"shop", "bare", "guest"}

    at_desk(tmp_path, story, text=LINES)


@pytest.mark.parametrize("name", NARROWABLE)
def test_a_database_nobody_knows_is_an_error_and_no_empty_answer(name: str, tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        answer = await operator.ask(f"{name} shpo")
        assert (answer.error, answer.columns) == ("3D000 no such database: shpo", [])

    at_desk(tmp_path, story)


@pytest.mark.parametrize("name", sorted(set(SHOWS) - set(NARROWABLE)))
def test_the_others_take_no_name(name: str, tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        assert (await operator.ask(f"{name} shop")).error == f"42601 invalid command '{name} shop', use SHOW HELP;"

    at_desk(tmp_path, story)


@pytest.mark.parametrize("command", ["PAUSE", "DISABLE"])
def test_what_show_databases_lists_is_known(command: str, tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        await operator.ask(f"{command} shpo")
        assert "shpo" in [row["name"] for row in (await operator.ask("SHOW DATABASES")).dicts()]
        assert (await operator.ask("SHOW POOLS shpo")).error == ""

    at_desk(tmp_path, story)
