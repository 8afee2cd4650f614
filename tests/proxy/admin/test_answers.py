"""What both protocols share: texts to requests, requests to replies."""

from pathlib import Path

import pytest

from protocol.errors import Refused
from proxy.admin.answers import build_help, find_shape, parse_request, perform
from proxy.admin.courtesy import Courtesy
from proxy.admin.grammar import Command
from proxy.admin.rights import RIGHTS
from proxy.main import Proxy
from tests.proxy.admin.desk import Operator, at_desk


def test_a_request_is_a_command_of_ours_or_a_courtesy(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        (session,) = proxy.consoles
        assert parse_request(session, "BEGIN") == Courtesy("BEGIN")
        assert parse_request(session, "SELECT pools") == Command("SHOW", "pools", "", "SELECT pools")
        with pytest.raises(Refused, match="invalid command 'SELECT x FROM y', use SHOW HELP;"):
            parse_request(session, "SELECT x FROM y")

    at_desk(tmp_path, story)


@pytest.mark.parametrize("name", RIGHTS)
def test_the_shape_that_is_told_is_the_shape_that_comes(name: str, tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        (session,) = proxy.consoles
        request = parse_request(session, "SET verbose = 1" if name == "SET" else name)
        shape = find_shape(session, request)
        assert bool(shape) == (name == "RELOAD CHECK" or (name.startswith("SHOW ") and name != "SHOW HELP"))
        if shape:
            table = (await perform(session, request)).table
            assert table is not None
            assert table.shape == shape

    at_desk(tmp_path, story)


def test_help_names_everything_that_exists() -> None:
    text = build_help().decode()
    for name in RIGHTS:
        assert name.removeprefix("SHOW ") in text
    assert "KILL_CLIENT <client_id>" in text
    assert "SHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION\n" in text


def test_several_commands_in_one_text_end_at_the_first_that_is_refused(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        answer = await operator.ask("BEGIN; DISABLE shop; EXPLODE; DISABLE bare")
        assert (answer.tag, answer.error) == ("DISABLE", "42601 invalid command 'EXPLODE', use SHOW HELP;")
        assert proxy.disabled == {"shop"}
        answer = await operator.ask("SHOW STATE; SHOW VERSION; COMMIT;")
        assert (answer.tag, len(answer.rows)) == ("COMMIT", 9)

    at_desk(tmp_path, story)
