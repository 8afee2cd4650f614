"""The conversation: welcome, questions, goodbye."""

import asyncio
from pathlib import Path

import pytest

from protocol import codes
from protocol.backend import parse_error, parse_parameter_status
from protocol.errors import ProtocolError, Refused
from protocol.frontend import TERMINATE_MESSAGE, build_query
from proxy.admin.rights import LOOK, RIGHTS
from proxy.inbox import PeerGone
from proxy.main import Proxy
from tests.proxy.admin.desk import Operator, a_client, a_server, at_desk, open_proxy


def test_the_welcome_is_that_of_pgbouncer(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        kinds = [kind for kind, _ in operator.welcome]
        assert kinds[0] == codes.AUTHENTICATION
        assert kinds[-2:] == [codes.BACKEND_KEY_DATA, codes.READY_FOR_QUERY]
        told = dict(parse_parameter_status(body) for kind, body in operator.welcome if kind == codes.PARAMETER_STATUS)
        assert told == {
            "server_version": "1.25.2/bouncer",
            "client_encoding": "UTF8",
            "server_encoding": "UTF8",
            "DateStyle": "ISO",
            "TimeZone": "GMT",
            "standard_conforming_strings": "on",
            "is_superuser": "on",
        }

    at_desk(tmp_path, story)


def test_the_console_is_no_client_for_the_limits(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        assert proxy.client_count == 0
        a_client(proxy, a_server(proxy))
        assert proxy.client_count == 1

    at_desk(tmp_path, story)


def test_whoever_has_no_right_is_refused_before_the_welcome(tmp_path: Path) -> None:
    async def story() -> None:
        async with open_proxy(tmp_path) as proxy:
            with pytest.raises(Refused, match="not allowed"):
                await Operator(proxy, "joe").enter()
            assert not proxy.consoles

    asyncio.run(story())


@pytest.mark.parametrize("name", RIGHTS)
def test_who_may_only_look_gets_no_further(name: str, tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        text = "SET verbose = 1" if name == "SET" else name
        answer = await operator.ask(text)
        if RIGHTS[name] is LOOK:
            assert (answer.error, bool(answer.tag)) == ("", True)
        else:
            assert answer.error == "42501 admin access needed"
        assert proxy.leaving is None

    at_desk(tmp_path, story, user="watcher")


def test_a_right_taken_away_is_gone_at_once(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        assert (await operator.ask("SET admin_users = root")).error == ""
        assert (await operator.ask("SHOW VERSION")).error == "42501 admin access needed"

    at_desk(tmp_path, story)


def test_an_error_is_not_the_end(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        assert (await operator.ask("EXPLODE;")).error == "42601 invalid command 'EXPLODE', use SHOW HELP;"
        assert (await operator.ask("")).error == ""
        assert (await operator.ask("SHOW VERSION")).tag == "SHOW"

    at_desk(tmp_path, story)


def test_commands_cut_anywhere_and_sent_in_a_row_are_all_answered(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        for byte in build_query("SHOW VERSION") * 3:
            operator.inbox.write(bytes([byte]))
        for _ in range(3):
            assert (await operator.answer()).tag == "SHOW"

    at_desk(tmp_path, story)


def test_the_account_that_the_proxy_runs_as_may_do_everything(tmp_path: Path) -> None:
    async def story() -> None:
        async with open_proxy(tmp_path) as proxy:
            operator = await Operator(proxy, "pgbouncer", is_owner=True).enter()
            assert (await operator.ask("DISABLE shop")).tag == "DISABLE"
            with pytest.raises(Refused, match="not allowed"):
                await Operator(proxy, "pgbouncer").enter()

    asyncio.run(story())


def test_a_text_that_is_too_long_is_refused_and_the_console_goes_on(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        answer = await operator.ask("SHOW " + "x" * 500_000)
        assert answer.error == "42601 a text of 500005 bytes, the console takes 16384"
        assert (await operator.ask("SHOW VERSION")).tag == "SHOW"

    at_desk(tmp_path, story)


@pytest.mark.parametrize(
    "garbage",
    [
        b"P\0\0\0\4",
        b"B\0\0\0\5x",
        b"D\0\0\0\6Xa",
        b"p\0\0\0\5x",
        b"\xff\0\0\0\4",
        b"Q\0\0\0\0",
        b"Q\x7f\0\0\0",
        b"Q\0\0\0\5x",
    ],
)
def test_garbage_ends_the_conversation(garbage: bytes, tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        operator.inbox.write(garbage)
        with pytest.raises(ProtocolError):
            await operator.hear()
        assert not proxy.consoles

    at_desk(tmp_path, story)


def test_goodbye_leaves_nothing_behind(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        operator.inbox.write(TERMINATE_MESSAGE)
        await operator.talk
        assert not proxy.consoles
        assert len(proxy.cancels) == 0

    at_desk(tmp_path, story)


def test_who_does_not_read_is_not_written_to(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        operator.us.pause_writing()
        for _ in range(50):
            operator.say("SHOW CONFIG")
        for _ in range(100):
            await asyncio.sleep(0)
        before = len(operator.inbox._unread)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(operator.inbox._unread) == before < 100_000
        operator.us.resume_writing()
        for _ in range(50):
            assert (await operator.answer()).tag == "SHOW"

    at_desk(tmp_path, story)


def test_when_the_proxy_ends_the_operator_is_told(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        operator.talk.cancel()
        kind, body = await operator.inbox.wait_message(10_000)
        assert kind == codes.ERROR_RESPONSE
        assert (parse_error(body).sqlstate, parse_error(body).message) == ("57P01", "pooler is shutting down")
        with pytest.raises(PeerGone):
            await operator.inbox.wait_message(10_000)

    at_desk(tmp_path, story)
