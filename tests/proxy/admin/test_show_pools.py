"""SHOW DATABASES and SHOW POOLS."""

from pathlib import Path

from proxy.failing import LoginFailed
from proxy.main import Proxy
from proxy.states import CLEANING, CLOSING, TESTING, USED, Closing, move
from tests.proxy.admin.desk import LINES, Operator, a_client, a_server, at_desk, lined


def test_databases_tell_the_entry_and_what_is_open(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_client(proxy, a_server(proxy))
        a_server(proxy, "elsewhere")
        await operator.ask("DISABLE bare")
        await operator.ask("PAUSE bare")
        rows = (await operator.ask("SHOW DATABASES")).rows
        assert [" ".join(value or "-" for value in row) for row in rows] == [
            "shop 10.0.0.1,10.0.0.2 5432 shop web 3 0 0 3600 - round-robin 9 1 0 1 0 0",
            "bare - 5432 bare - 7 0 0 3600 - - 0 0 0 0 1 1",
            "elsewhere 10.0.0.9 5432 elsewhere - 7 0 0 3600 - - 0 1 0 0 0 0",
            "pgbouncer - 6432 pgbouncer pgbouncer 2 0 0 0 statement - 0 0 0 1 0 0",
        ]

    at_desk(tmp_path, story)


def test_a_database_that_only_a_typing_error_knows_is_seen_while_it_is_paused(tmp_path: Path) -> None:
    """With a `*` every name is one: it would stay paused unseen, and SUSPEND be refused for ever."""

    async def story(proxy: Proxy, operator: Operator) -> None:
        await operator.ask("PAUSE ghost")
        rows = (await operator.ask("SHOW DATABASES")).dicts()
        assert [row["paused"] for row in rows if row["name"] == "ghost"] == ["1"]
        await operator.ask("RESUME ghost")
        assert "ghost" not in {row["name"] for row in (await operator.ask("SHOW DATABASES")).dicts()}

    at_desk(tmp_path, story)


def test_a_pool_counts_each_server_once_under_pgbouncers_words(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_client(proxy, a_server(proxy))
        used, testing, leaving, cleaning, canceled = (a_server(proxy) for _ in range(5))
        move(used, USED)
        move(testing, TESTING)
        leaving.close(Closing.LIFETIME)
        assert leaving.state is CLOSING
        for server in (cleaning, canceled):
            a_client(proxy, server)
            move(server, CLEANING)
        canceled.cancels = 1
        a_server(proxy)
        pool = (await operator.ask("SHOW POOLS")).dicts()[0]
        assert {name: pool[name] for name in pool if name.startswith("sv_")} == {
            "sv_active": "1", "sv_active_cancel": "1", "sv_being_canceled": "1", "sv_idle": "1", "sv_used": "1",
            "sv_tested": "2", "sv_login": "0", "sv_closing": "1",
        }  # fmt: skip
        assert (pool["database"], pool["user"], pool["pool_mode"]) == ("shop", "web", "transaction")

    at_desk(tmp_path, story)


def test_what_runs_auth_query_is_a_server_of_its_user(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_server(proxy)
        for user in ("web", "guard"):
            proxy.pools.find_lookup("shop", user).places[TESTING][object()] = None
        rows = [
            (row["database"], row["user"], row["sv_idle"], row["sv_tested"])
            for row in (await operator.ask("SHOW POOLS")).dicts()
        ]
        assert rows[:2] == [("shop", "web", "1", "1"), ("shop", "guard", "0", "1")]
        assert len(rows) == 3, "one row each, with the console's"
        assert len((await operator.ask("SHOW POOLS bare")).rows) == 0
        users = {row["name"]: row["current_connections"] for row in (await operator.ask("SHOW USERS")).dicts()}
        assert (users["web"], users["guard"]) == ("2", "1")
        for lookup in proxy.pools.lookups().values():
            lookup.places[TESTING].clear()

    at_desk(tmp_path, story)


def test_a_queue_shows_its_age_and_what_it_waits_for(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        server = a_server(proxy)
        pool = server.pool
        client = a_client(proxy, server)
        proxy.pools.pause("shop")
        pool.waiting[client] = None
        client.waiting_since = proxy.clock.now() - 2.25
        (row,) = [row for row in (await operator.ask("SHOW POOLS")).dicts() if row["database"] == "shop"]
        assert (row["cl_active"], row["cl_waiting"], row["maxwait"], row["maxwait_us"]) == ("0", "1", "2", "250000")
        assert row["waiting_for"] == "the database is paused"
        pool.waiting.clear()

    at_desk(tmp_path, story)


def test_the_console_is_a_pool_too(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        (row,) = (await operator.ask("SHOW POOLS")).dicts()
        assert (row["database"], row["cl_active"], row["pool_mode"]) == ("pgbouncer", "1", "statement")

    at_desk(tmp_path, story)


def test_of_those_in_line_whoever_is_not_sent_waits(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        own = a_client(proxy, a_server(proxy))
        await lined(proxy, 6)
        proxy.clock.advance(2.25)
        pool = (await operator.ask("SHOW POOLS")).dicts()[0]
        assert (pool["cl_active"], pool["cl_waiting"], pool["sv_active"]) == ("5", "2", "2")
        assert (pool["maxwait"], pool["maxwait_us"]) == ("2", "250000")
        assert own.pool.count_waiting() == 0, "for a server nobody waits"

    at_desk(tmp_path, story, text=LINES)


def test_that_no_server_can_be_opened_is_shown_also_while_nobody_waits(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        pool = a_server(proxy).pool

        async def failing() -> str | None:
            (row,) = [row for row in (await operator.ask("SHOW POOLS")).dicts() if row["database"] == "shop"]
            assert row["waiting_for"] is None
            return row["failing"]

        assert await failing() is None
        pool.opening_failed(LoginFailed("28P01", "no such password"))
        said = str(await failing())
        assert said.startswith("Server logins have been failing for ")
        assert ": no such password; the next try is in " in said
        pool.failure = None
        assert await failing() is None

    at_desk(tmp_path, story)
