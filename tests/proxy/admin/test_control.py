"""What an administrator does, and what it does."""

import asyncio
from pathlib import Path

import pytest

from proxy.main import Proxy
from proxy.states import CLOSED, CLOSING, GONE, Closing, Leaving, PoolState
from tests.proxy.admin.desk import INI, Operator, a_client, a_server, at_desk, hang_up, settle


def test_pause_answers_when_the_last_server_has_left(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        server = a_server(proxy)
        operator.say("PAUSE shop")
        await settle()
        assert server.state is CLOSING
        assert not operator.inbox.has_unread
        hang_up(server)
        assert (await operator.answer()).tag == "PAUSE"
        assert (await operator.ask("RESUME shop")).tag == "RESUME"
        assert server.pool.state is PoolState.OPEN

    at_desk(tmp_path, story)


def test_a_cancel_request_calls_a_pause_off(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        server = a_server(proxy)
        a_client(proxy, server)
        operator.say("PAUSE")
        await settle()
        assert proxy.pools.is_paused
        (session,) = proxy.consoles
        proxy.cancels.request(session.key)
        assert (await operator.answer()).error == "57014 canceling statement due to user request"
        assert not proxy.pools.is_paused
        assert server.pool.state is PoolState.OPEN
        assert (await operator.ask("SHOW VERSION")).tag == "SHOW"

    at_desk(tmp_path, story)


def test_an_operator_who_disappears_leaves_nothing_paused(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_client(proxy, a_server(proxy))
        operator.say("PAUSE shop")
        await settle()
        assert proxy.pools.paused == {"shop"}
        operator.us.eof_received()
        await settle()
        assert proxy.pools.paused == set()
        assert not proxy.consoles

    at_desk(tmp_path, story)


def test_a_resume_ends_somebody_elses_pause(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_client(proxy, a_server(proxy))
        other = await Operator(proxy, "ann").enter()
        operator.say("PAUSE")
        await settle()
        assert (await other.ask("PAUSE")).error == "55000 already suspended/paused"
        assert (await other.ask("RESUME")).tag == "RESUME"
        assert (await operator.answer()).error == "55000 PAUSE was undone by RESUME while it waited"
        other.talk.cancel()

    at_desk(tmp_path, story)


@pytest.mark.parametrize("command", ["PAUSE", "PAUSE shop", "KILL", "KILL shop", "SUSPEND"])
@pytest.mark.parametrize("first", ["PAUSE", "SUSPEND"])
def test_while_all_stands_still_no_database_can_be_stopped(first: str, command: str, tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        assert (await operator.ask(first)).tag == first
        assert (await operator.ask(command)).error == "55000 already suspended/paused"
        assert (await operator.ask("RESUME")).tag == "RESUME"
        assert not proxy.pools.paused
        assert not proxy.pools.is_pausing("shop")

    at_desk(tmp_path, story)


def test_a_database_paused_by_name_stays_so_when_all_go_on(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        server = a_server(proxy)
        proxy.pools.pause(None)
        proxy.pools.pause("shop")
        assert (await operator.ask("RESUME")).tag == "RESUME"
        assert server.pool.state is PoolState.PAUSED
        assert (await operator.ask("RESUME")).error == "55000 pooler is not paused/suspended"
        assert (await operator.ask("RESUME shop")).tag == "RESUME"
        assert (await operator.ask("RESUME shop")).error == "55000 database shop is not paused"

    at_desk(tmp_path, story)


@pytest.mark.parametrize("verb", ["PAUSE", "RESUME", "KILL", "DISABLE", "ENABLE", "RECONNECT", "WAIT_CLOSE"])
def test_the_entry_for_all_others_is_no_database(verb: str, tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        (tmp_path / "proxy.ini").write_text((tmp_path / "proxy.ini").read_text() + "[databases]\n* = host=127.0.0.1\n")
        assert (await operator.ask("RELOAD")).tag == "RELOAD"
        assert (await operator.ask(f'{verb} "*"')).error == "3D000 no such database: *"

    at_desk(tmp_path, story)


def test_a_disabled_database_is_marked_until_it_is_enabled(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        assert (await operator.ask("DISABLE shop")).tag == "DISABLE"
        assert proxy.disabled == {"shop"}
        assert (await operator.ask("ENABLE shop")).tag == "ENABLE"
        assert proxy.disabled == set()
        assert (await operator.ask("DISABLE")).error == "42601 a database is required"

    at_desk(tmp_path, story)


def test_reconnect_and_wait_close(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        busy, idle = a_server(proxy), a_server(proxy)
        a_client(proxy, busy)
        await operator.ask("RECONNECT")
        assert (busy.doomed, idle.state) == (Closing.RECONNECT, CLOSING)
        operator.say("WAIT_CLOSE")
        await settle()
        hang_up(idle)
        await settle()
        assert not operator.inbox.has_unread
        hang_up(busy)
        assert (await operator.answer()).tag == "WAIT_CLOSE"
        assert busy.state is idle.state is CLOSED

    at_desk(tmp_path, story)


def test_kill_drops_clients_and_servers_and_stays_paused(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        server = a_server(proxy)
        client = a_client(proxy, server)
        assert (await operator.ask("KILL shop")).tag == "KILL"
        assert client.state is GONE
        assert server.state is not CLOSED
        assert server.pool.state is PoolState.PAUSED
        assert proxy.pools.paused == {"shop"}

    at_desk(tmp_path, story)


def test_kill_client_takes_the_id_and_nobody_else(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        first, second = (a_client(proxy, a_server(proxy)) for _ in range(2))
        assert (await operator.ask(f"KILL_CLIENT {first.number}")).tag == "KILL_CLIENT"
        assert (first.state is GONE, second.state is GONE) == (True, False)
        assert (await operator.ask(f"KILL_CLIENT {first.number}")).error == "42704 client not found"
        for word in ("", " x", " -1", ' "1e3"'):
            answer = await operator.ask("KILL_CLIENT" + word)
            assert answer.error in ("22023 invalid client pointer supplied", "42704 client not found")
        assert (await operator.ask(f"KILL_CLIENT {second.tag.ptr:#x}")).tag == "KILL_CLIENT"
        assert second.state is GONE

    at_desk(tmp_path, story)


def test_set_changes_one_setting_until_the_next_reload(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        pool = a_server(proxy, "bare").pool
        assert (await operator.ask("SET query_timeout = '2.5'")).tag == "SET query_timeout=2.5"
        assert proxy.settings.query_timeout == pool.limits.query_timeout == 2.5
        (tmp_path / "proxy.ini").write_text(INI.replace("[databases]", "verbose = 1\n[databases]"))
        assert (await operator.ask("RELOAD")).tag == "RELOAD"
        assert pool.limits.query_timeout is None
        assert proxy.settings.verbose == 1

    at_desk(tmp_path, story)


@pytest.mark.parametrize(
    ("text", "error", "detail"),
    [
        ("SET nonsense = 1", "42704 SET failed", "There is no setting 'nonsense'."),
        ("SET listen_port = 1", "55P02 SET failed", "listen_port can only be changed by a restart."),
        ("SET default_pool_size = many", "22023 SET failed", "default_pool_size is not a whole number."),
        ("SET auth_file = /nowhere/users", "22023 SET failed", None),
        ("SET auth_type = ldap", "22023 SET failed", None),
        ("SET auth_type = hba", "22023 SET failed", None),
    ],
)
def test_a_set_that_cannot_be_changes_nothing(text: str, error: str, detail: str | None, tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        before = proxy.settings
        answer = await operator.ask(text)
        assert answer.error == error
        assert detail in (None, answer.detail)
        assert proxy.settings == before

    at_desk(tmp_path, story)


def test_a_reload_of_a_bad_file_names_the_mistakes(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        (tmp_path / "proxy.ini").write_text("[proxy]\ndefault_pool_size = x\nfoo = 1\n")
        answer = await operator.ask("RELOAD")
        assert answer.error == "F0000 RELOAD failed, see logs for additional details"
        assert "proxy.ini:2: default_pool_size is not a whole number" in answer.detail
        assert "proxy.ini:3: unknown setting 'foo'" in answer.detail
        assert proxy.settings.default_pool_size == 7

    at_desk(tmp_path, story)


@pytest.mark.parametrize(
    ("word", "how"),
    [
        ("", Leaving.IMMEDIATE),
        (" wait_for_servers", Leaving.WAIT_FOR_SERVERS),
        (" WAIT_FOR_CLIENTS", Leaving.WAIT_FOR_CLIENTS),
    ],
)
def test_there_are_three_ways_to_end(word: str, how: Leaving, tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_client(proxy, a_server(proxy))
        assert (await operator.ask(f"SHUTDOWN{word}")).tag == "SHUTDOWN"
        assert proxy.leaving is how
        for text in ("SHUTDOWN WAIT_FOR_CLIENTS", "PAUSE", "RESUME", "KILL"):
            assert (await operator.ask(text)).error == "57P03 pooler is shutting down"
        assert proxy.leaving is how
        await operator.ask("SHUTDOWN")
        assert proxy.leaving is Leaving.IMMEDIATE

    at_desk(tmp_path, story)


@pytest.mark.parametrize("verb", ["PAUSE", "RESUME", "KILL", "RECONNECT", "DISABLE", "ENABLE", "WAIT_CLOSE"])
def test_the_console_and_unknown_databases_are_left_alone(verb: str, tmp_path: Path) -> None:
    ini = INI.replace("* = host=10.0.0.9", "")

    async def story(proxy: Proxy, operator: Operator) -> None:
        (tmp_path / "proxy.ini").write_text(ini)
        await proxy.reload()
        sentences = {
            "WAIT_CLOSE": "0A000 cannot wait in admin db: pgbouncer",
            "RESUME": "55000 database pgbouncer is not paused",
        }
        said = sentences.get(verb, f"0A000 cannot {verb.lower()} admin db: pgbouncer")
        assert (await operator.ask(f"{verb} pgbouncer")).error == said
        assert (await operator.ask(f"{verb} nosuch")).error == "3D000 no such database: nosuch"

    at_desk(tmp_path, story)


def test_arguments_nobody_asked_for_are_bad(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        assert (await operator.ask("RELOAD now")).error == "42601 invalid command 'RELOAD now', use SHOW HELP;"
        assert (await operator.ask("SHUTDOWN soon")).error == "42601 invalid command 'SHUTDOWN soon', use SHOW HELP;"
        assert proxy.leaving is None
        await asyncio.sleep(0)

    at_desk(tmp_path, story)


@pytest.mark.parametrize(
    ("first", "then", "error"),
    [
        ("SUSPEND", "SUSPEND", "55000 already suspended/paused"),
        ("SUSPEND", "PAUSE", "55000 already suspended/paused"),
        ("SUSPEND", "PAUSE shop", "55000 already suspended/paused"),
        ("PAUSE", "SUSPEND", "55000 already suspended/paused"),
        ("PAUSE", "PAUSE", "55000 already suspended/paused"),
        ("PAUSE shop", "SUSPEND", "55000 cannot suspend with paused databases"),
        ("SUSPEND", "RESUME shop", "55000 database shop is not paused"),
        ("RELOAD CHECK", "RESUME", "55000 pooler is not paused/suspended"),
        ("BEGIN", "SUSPEND shop", "42601 invalid command 'SUSPEND shop', use SHOW HELP;"),
        ("BEGIN", "RELOAD shop", "42601 invalid command 'RELOAD shop', use SHOW HELP;"),
        ("BEGIN", "PAUSE a b", "42601 invalid command 'PAUSE a b', use SHOW HELP;"),
    ],
)
def test_what_does_not_go_together_is_refused_in_pgbouncers_words(
    first: str, then: str, error: str, tmp_path: Path
) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        assert (await operator.ask(first)).error == ""
        assert (await operator.ask(then)).error == error
        assert (await operator.ask("SHOW VERSION")).tag == "SHOW"

    at_desk(tmp_path, story)


def test_a_reload_while_everything_is_paused_leaves_it_paused(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        await operator.ask("PAUSE")
        assert (await operator.ask("RELOAD")).tag == "RELOAD"
        assert proxy.pools.is_paused

    at_desk(tmp_path, story)


def test_two_reloads_at_once_are_one_after_the_other(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        other = await Operator(proxy, "ann").enter()
        for each in (operator, other):
            each.say("RELOAD")
        assert [(await each.answer()).tag for each in (operator, other)] == ["RELOAD", "RELOAD"]
        other.talk.cancel()
        await asyncio.wait({other.talk})

    at_desk(tmp_path, story)


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("PAUSE", "PAUSE command issued"),
        ("PAUSE shop", "PAUSE 'shop' command issued"),
        ("DISABLE shop", "DISABLE 'shop' command issued"),
        ("RECONNECT", "RECONNECT command issued"),
        ("KILL shop", "KILL 'shop' command issued"),
        ("SUSPEND", "SUSPEND command issued"),
        ("SHUTDOWN WAIT_FOR_CLIENTS", "SHUTDOWN WAIT_FOR_CLIENTS command issued"),
        ("RELOAD CHECK", "RELOAD CHECK command issued"),
        ("EXPLODE", "pooler error: invalid command 'EXPLODE', use SHOW HELP;"),
        ("ALTER USER x PASSWORD 'y'", "pooler error: invalid command 'ALTER ...', use SHOW HELP;"),
        ("SET auth_type = hunter2", "pooler error: SET failed (auth_type does not take that value)"),
        ("SET defualt_pool_size = 3", "pooler error: SET failed (there is no setting 'defualt_pool_size')"),
        ("SET listen_port = 1", "pooler error: SET failed (listen_port can only be changed by a restart)"),
    ],
)
def test_the_log_says_who_did_what(command: str, line: str, tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        await operator.ask(command)
        (found,) = [each for each in (tmp_path / "log").read_text().splitlines() if each.endswith(line)]
        assert "pgbouncer/ann@127.0.0.1:5" in found

    at_desk(tmp_path, story)


def test_a_setting_that_is_misspelt_is_guessed(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        assert (await operator.ask("SET defualt_pool_size = 3")).hint == "Did you mean default_pool_size?"
        assert (await operator.ask("SET xyzzy = 3")).hint == ""

    at_desk(tmp_path, story)


def test_what_a_reload_cannot_change_is_told_to_who_asked_for_it(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        file = Path(proxy.config.path)
        file.write_text(file.read_text().replace("[proxy]", "[proxy]\nlisten_backlog = 77"))
        answer = await operator.ask("RELOAD")
        assert (answer.tag, answer.error) == ("RELOAD", "")
        assert answer.notice.startswith("listen_backlog")
        assert answer.notice.endswith("needs a restart, the old value stays in force")
        assert (await operator.ask("RESUME")).notice == "", "and not again with the next command"
        file.write_text(file.read_text().replace("listen_backlog = 77", ""))
        assert (await operator.ask("RELOAD")).notice == ""

    at_desk(tmp_path, story)


@pytest.mark.parametrize("command", ["PAUSE", "DISABLE", "RECONNECT", "WAIT_CLOSE", "KILL"])
def test_a_name_that_only_the_star_knows_may_be_a_mistake(command: str, tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        answer = await operator.ask(f"{command} shpo")
        assert (answer.tag, answer.error) == (command, "")
        assert answer.notice == "shpo has no entry of its own (* serves it), and nobody has asked for it yet"
        assert (await operator.ask(f"{command} shop")).notice == ""

    at_desk(tmp_path, story)
