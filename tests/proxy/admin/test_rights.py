"""Who may do what: every command of the one table, as everybody."""

import asyncio
from pathlib import Path

import pytest

from protocol import codes
from protocol.backend import parse_error
from protocol.errors import Refused
from protocol.frontend import Bind, build_bind, build_execute, build_parse
from proxy.admin.control import CONTROLS
from proxy.admin.grammar import Command, parse_command
from proxy.admin.rights import ADMIN, LOOK, NOTHING, RIGHTS, check_login, check_right, find_right, name_of
from proxy.admin.show import SHOWS
from proxy.config.kinds import AuthType
from proxy.config.settings import Settings
from tests.proxy.admin.desk import Operator, open_proxy

SETTINGS = Settings(admin_users=("root", "ann"), stats_users=("watcher",))
ROLES = {"ann": ADMIN, "watcher": LOOK, "joe": NOTHING, "": NOTHING, "pgbouncer": NOTHING}
FOR_ADMINISTRATORS = {
    "SET", "RESET", "RELOAD", "RELOAD CHECK", "PAUSE", "RESUME", "DISABLE", "ENABLE", "RECONNECT", "WAIT_CLOSE", "KILL",
    "KILL_CLIENT", "SUSPEND", "SHUTDOWN", "SHOW FDS", "SHOW HBA",
}  # fmt: skip


def command_for(name: str) -> Command:
    return parse_command("SET verbose = 1" if name == "SET" else name)


def test_only_administrators_change_anything() -> None:
    assert {name for name, right in RIGHTS.items() if right is ADMIN} == FOR_ADMINISTRATORS
    assert {right for name, right in RIGHTS.items() if name not in FOR_ADMINISTRATORS} == {LOOK}


def test_what_can_be_done_and_what_may_be_done_are_the_same() -> None:
    assert set(RIGHTS) == {*SHOWS, *CONTROLS, "SHOW HELP", "RELOAD CHECK"}


@pytest.mark.parametrize("user", ROLES)
@pytest.mark.parametrize("name", RIGHTS)
def test_every_command_as_everybody(name: str, user: str) -> None:
    command = command_for(name)
    assert name_of(command) == name
    right = find_right(SETTINGS, user)
    assert right is ROLES[user]
    if right >= RIGHTS[name]:
        assert check_right(right, command) == name
    else:
        with pytest.raises(Refused, match="admin access needed") as refusal:
            check_right(right, command)
        assert refusal.value.sqlstate == "42501"


@pytest.mark.parametrize("text", ["SHOW", "SHOW PASSWORDS", "EXPLODE", "SHOW SHOW", "CHECK"])
def test_a_command_that_is_not_in_the_table_does_not_exist_for_anybody(text: str) -> None:
    with pytest.raises(Refused, match=f"invalid command '{text}', use SHOW HELP;"):
        check_right(ADMIN, Command(*text.split(maxsplit=1), text=text))


def test_the_name_is_compared_as_a_whole() -> None:
    assert find_right(SETTINGS, "roo") is NOTHING
    assert find_right(SETTINGS, "Ann") is NOTHING


def test_with_auth_type_any_everyone_may_look_and_administrators_have_a_name() -> None:
    settings = Settings(auth_type=AuthType.ANY, admin_users=("ann",), stats_users=("watcher",))
    assert {user: find_right(settings, user) for user in ROLES} == {
        "ann": ADMIN, "watcher": LOOK, "joe": LOOK, "": LOOK, "pgbouncer": LOOK,
    }  # fmt: skip


def test_the_account_of_the_proxy_itself_may_do_everything() -> None:
    assert find_right(SETTINGS, "pgbouncer", is_owner=True) is ADMIN


def test_a_user_without_rights_is_not_even_let_in() -> None:
    check_login(LOOK)
    with pytest.raises(Refused, match="not allowed") as refusal:
        check_login(NOTHING)
    assert refusal.value.sqlstate == "42501"


# The same at the console itself: what is typed by whom, over either protocol.

GUESTS = ("ann", "watcher", "joe", "owner")
HARMLESS_WORDS = {
    "KILL": "KILL bare",
    "KILL_CLIENT": "KILL_CLIENT 999",
    "SET": "SET verbose = 0",
    "WAIT_CLOSE": "WAIT_CLOSE bare",
}


async def try_command(folder: Path, name: str, user: str, *, is_extended: bool) -> str:
    """The error that `user` hears; "" when it was done, "not allowed" when he is not even let in."""
    async with open_proxy(folder) as proxy:
        guest = Operator(proxy, "pgbouncer" if user == "owner" else user, is_owner=user == "owner")
        try:
            await guest.enter()
            text = HARMLESS_WORDS.get(name, name)
            if not is_extended:
                return (await guest.ask(text)).error
            parse = build_parse(b"", text.encode()) + build_bind(Bind(b"", b"")) + build_execute(b"")
            heard = dict(await guest.batch(parse))
            return parse_error(heard[codes.ERROR_RESPONSE]).message if codes.ERROR_RESPONSE in heard else ""
        except Refused as no:
            return no.sentence
        finally:
            guest.talk.cancel()
            await asyncio.wait({guest.talk})


@pytest.mark.parametrize("is_extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize("user", GUESTS)
def test_every_command_is_typed_by_everybody(user: str, is_extended: bool, tmp_path: Path) -> None:
    for name in sorted({*RIGHTS, *SHOWS, *CONTROLS}):
        if name in ("SHUTDOWN", "SUSPEND", "PAUSE", "WAIT_CLOSE", "RELOAD") and user in ("ann", "owner"):
            continue  # they would be obeyed, and outlast the test; test_control.py sees to that
        error = asyncio.run(try_command(tmp_path, name, user, is_extended=is_extended))
        if user == "joe":
            assert error == "not allowed", name
        elif user == "watcher" and name in FOR_ADMINISTRATORS:
            assert "admin access needed" in error, name
        else:
            assert "admin access" not in error, name
            assert "not allowed" not in error, name
