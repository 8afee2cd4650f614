"""RELOAD CHECK: what a reload would do, and that it does nothing."""

from pathlib import Path

import pytest

from proxy.main import Proxy
from tests.proxy.admin.desk import INI, Operator, a_client, a_server, at_desk

USERS = '"ann" "secret"\n"joe" "secret"\n'


async def check(proxy: Proxy, operator: Operator, text: str) -> list[tuple[str | None, ...]]:
    """The rows for `text` in the file. Nothing may have changed."""
    Path(proxy.config.path).write_text(text)
    before = (proxy.config, proxy.settings, proxy.users)
    answer = await operator.ask("RELOAD CHECK")
    assert (proxy.config, proxy.settings, proxy.users) == before
    assert (answer.error, answer.tag) == ("", "RELOAD")
    assert answer.columns == [(name, 25) for name in ("kind", "name", "old", "new", "effect")]
    count = len([row for row in answer.rows if row[0] != "warning"])
    assert answer.notice == {0: "RELOAD would change nothing", 1: "RELOAD would change 1 thing"}.get(
        count, f"RELOAD would change {count} things"
    )
    return answer.rows


def test_a_file_that_is_the_same_changes_nothing_but_users_that_were_never_in_it(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        await operator.ask("RELOAD")
        assert await check(proxy, operator, INI) == []

    at_desk(tmp_path, story)


def test_settings_that_take_effect_and_settings_that_do_not(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        await operator.ask("RELOAD")
        text = INI.replace("default_pool_size = 7", "default_pool_size = 9").replace("6432", "7000")
        assert await check(proxy, operator, text) == [
            ("setting", "default_pool_size", "7", "9", "at once"),
            ("setting", "listen_port", "6432", "7000", "needs a restart, the old value stays"),
        ]

    at_desk(tmp_path, story)


def test_databases_that_come_go_and_change(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        await operator.ask("RELOAD")
        text = INI.replace("* = host=10.0.0.9\n", "")
        Path(proxy.config.path).write_text(text)
        await operator.ask("RELOAD")
        a_client(proxy, a_server(proxy, "bare"))
        text = text.replace("bare =\n", "new = host=10.0.0.3 password=hunter3\n")
        text = text.replace("hunter2 pool_size=3", "hunter4 pool_size=5")
        replaced = "its server connections are replaced, busy ones at their next release"
        assert await check(proxy, operator, text) == [
            ("database", "new", None, "host=10.0.0.3 password=***", "serves clients at once"),
            ("database", "bare", "", None, "its 1 client and 1 server connection are closed"),
            ("database", "shop: password", "***", "***", replaced),
            ("database", "shop: pool_size", "3", "5", "at once"),
        ]

    at_desk(tmp_path, story)


def test_a_new_entry_replaces_servers_only_where_the_star_has_served_it(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        await operator.ask("RELOAD")
        a_server(proxy, "old")
        lines = await check(proxy, operator, INI.replace("bare =\n", "bare =\nold = host=h\nnew = host=h\n"))
        replaced = "its server connections are replaced, busy ones at their next release"
        assert {line[1]: line[-1] for line in lines} == {"old": replaced, "new": "serves clients at once"}

    at_desk(tmp_path, story)


def test_a_database_that_falls_back_on_the_star(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        await operator.ask("RELOAD")
        ((*_, effect),) = await check(proxy, operator, INI.replace("bare =\n", ""))
        assert effect == "is served by * from then on"

    at_desk(tmp_path, story)


def test_users_and_logins_without_their_secrets(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        file = tmp_path / "users"
        file.write_text(USERS)
        text = INI.replace("[proxy]\n", f"[proxy]\nauth_file = {file}\n")
        Path(proxy.config.path).write_text(text)
        await operator.ask("RELOAD")
        file.write_text('"ann" "another"\n"eve" "hunter5"\n')
        rows = await check(proxy, operator, text.replace("pool_size=2", "pool_size=4"))
        assert rows == [
            ("user", "joe: pool_size", "2", "4", "at once"),
            ("login", "eve", None, "***", "may log in at once"),
            ("login", "joe", "***", None, "cannot log in any more; whoever is connected stays"),
            ("login", "ann", "***", "***", "the new secret counts from the next login on"),
        ]

    at_desk(tmp_path, story)


def test_what_would_be_new_among_the_warnings(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        await operator.ask("RELOAD")
        rows = await check(proxy, operator, INI.replace("[databases]", "service_name = x\n[databases]"))
        assert [row[0] for row in rows] == ["setting", "warning"]
        assert str(rows[1][1]).endswith("proxy.ini:7")

    at_desk(tmp_path, story)


@pytest.mark.parametrize("command", ["RELOAD CHECK", "RELOAD"])
def test_mistakes_are_named_with_file_and_line(command: str, tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        Path(proxy.config.path).write_text(INI.replace("listen_port = 6432", "listen_port = many\nno_such_thing = 1"))
        answer = await operator.ask(command)
        sentences = {
            "RELOAD": "F0000 RELOAD failed, see logs for additional details",
            "RELOAD CHECK": "F0000 RELOAD would fail, nothing has changed",
        }
        assert answer.error == sentences[command]
        first, second = answer.detail.split("\n")
        assert first.startswith(f"{proxy.config.path}:3: listen_port")
        assert second.startswith(f"{proxy.config.path}:4: unknown setting 'no_such_thing'")
        assert (await operator.ask("SHOW VERSION")).tag == "SHOW"

    at_desk(tmp_path, story)


def test_rules_that_come_and_go_are_counted(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        rules = tmp_path / "hba.conf"
        text = INI.replace("[databases]", f"auth_type = hba\nauth_hba_file = {rules}\n[databases]")
        rules.write_text("local all all trust\nhost all all all md5\n")
        Path(proxy.config.path).write_text(text)
        await operator.ask("RELOAD")
        assert await check(proxy, operator, text) == []
        rules.write_text("local all all trust\nhost all all all reject\nhost a b all trust\n")
        rows = await check(proxy, operator, text)
        told = "3 rules, 2 added, 1 removed"
        assert rows == [("hba", str(rules), "2 rules", told, "counts from the next login on")]
        assert len(proxy.gate.rulebook.rules) == 2

    at_desk(tmp_path, story)


def test_mistakes_in_the_rules_are_those_of_the_reload(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        rules = tmp_path / "hba.conf"
        rules.write_text("local all all nonsense\n")
        text = INI.replace("[databases]", f"auth_type = hba\nauth_hba_file = {rules}\n[databases]")
        Path(proxy.config.path).write_text(text)
        for command in ("RELOAD CHECK", "RELOAD"):
            answer = await operator.ask(command)
            assert answer.error.startswith("F0000")
            assert f"{rules}:1: 'nonsense' is no method" in answer.detail

    at_desk(tmp_path, story)
