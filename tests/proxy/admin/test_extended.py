"""The extended protocol on the console, message by message."""

from pathlib import Path

import pytest

from protocol import codes
from protocol.backend import parse_command_complete, parse_data_row, parse_error, parse_row_description
from protocol.frontend import (
    FLUSH_MESSAGE,
    PORTAL,
    STATEMENT,
    SYNC_MESSAGE,
    Bind,
    build_bind,
    build_close,
    build_describe,
    build_execute,
    build_parse,
    build_query,
)
from proxy.admin.extended import MAX_PORTALS, MAX_STATEMENTS
from proxy.main import Proxy
from tests.proxy.admin.desk import Operator, a_client, a_server, at_desk, settle

Heard = list[tuple[int, bytes]]


def a_round(text: str, formats: tuple[int, ...] = (), most: int = 0) -> bytes:
    """Parse, Bind, Describe, Execute, all without a name."""
    bind = build_bind(Bind(b"", b"", result_formats=formats))
    return build_parse(b"", text.encode()) + bind + build_describe(PORTAL, b"") + build_execute(b"", most)


def kinds(heard: Heard) -> str:
    return "".join(chr(kind) for kind, _ in heard)


def rows(heard: Heard) -> list[tuple[bytes | None, ...]]:
    return [parse_data_row(body) for kind, body in heard if kind == codes.DATA_ROW]


def error(heard: Heard) -> str:
    (body,) = [body for kind, body in heard if kind == codes.ERROR_RESPONSE]
    fields = parse_error(body)
    assert fields.severity == "ERROR"
    return f"{fields.sqlstate} {fields.message}"


def test_a_show_is_parsed_bound_described_and_run(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        heard = await operator.batch(a_round("SHOW STATE"))
        assert kinds(heard) == "12TDDDDDDDDCZ"
        assert rows(heard)[0] == (b"active", b"yes")
        assert parse_command_complete(heard[-2][1]) == b"SHOW"

    at_desk(tmp_path, story)


def test_integers_travel_in_binary_where_a_driver_asks_for_it(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        heard = await operator.batch(a_round("SHOW LISTS", (0, 1)))
        columns = parse_row_description(next(body for kind, body in heard if kind == codes.ROW_DESCRIPTION))
        assert [(column.type_oid, column.format) for column in columns] == [(25, 0), (23, 1)]
        assert rows(heard)[0] == (b"databases", b"\0\0\0\3")

    at_desk(tmp_path, story)


def test_a_statement_with_a_name_is_described_without_being_run_and_runs_as_often_as_wanted(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        heard = await operator.batch(build_parse(b"s", b"PAUSE shop"), build_describe(STATEMENT, b"s"))
        assert kinds(heard) == "1tnZ"
        assert not proxy.pools.paused
        heard = await operator.batch(build_parse(b"t", b"SHOW STATE"), build_describe(STATEMENT, b"t"))
        assert kinds(heard) == "1tTZ"
        for _ in range(2):
            heard = await operator.batch(build_bind(Bind(b"p", b"t")), build_execute(b"p"))
            assert kinds(heard) == "2DDDDDDDDCZ"
        heard = await operator.batch(build_close(STATEMENT, b"t"), build_bind(Bind(b"p", b"t")))
        assert (kinds(heard), error(heard)) == ("3EZ", '26000 prepared statement "t" does not exist')

    at_desk(tmp_path, story)


def test_a_command_is_done_once_and_its_tag_is_its_own(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        heard = await operator.batch(a_round("DISABLE shop"))
        assert (kinds(heard), parse_command_complete(heard[-2][1])) == ("12nCZ", b"DISABLE")
        assert proxy.disabled == {"shop"}
        proxy.disabled.clear()
        heard = await operator.batch(build_execute(b""))
        assert error(heard) == '55000 portal "" cannot be run'
        assert not proxy.disabled

    at_desk(tmp_path, story)


def test_after_an_error_everything_is_skipped_up_to_the_sync(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        heard = await operator.batch(
            build_parse(b"", b"EXPLODE"), a_round("DISABLE shop"), build_query("DISABLE shop"), FLUSH_MESSAGE
        )
        assert (kinds(heard), error(heard)) == ("EZ", "42601 invalid command 'EXPLODE', use SHOW HELP;")
        assert not proxy.disabled
        assert kinds(await operator.batch(a_round("SHOW VERSION"))) == "12TDCZ"

    at_desk(tmp_path, story)


def test_an_error_is_heard_before_the_sync(tmp_path: Path) -> None:
    """asyncpg ends its first half with a Flush, and waits."""

    async def story(proxy: Proxy, operator: Operator) -> None:
        operator.inbox.write(build_parse(b"", b"EXPLODE") + FLUSH_MESSAGE)
        assert (await operator.hear())[0] == codes.ERROR_RESPONSE
        operator.inbox.write(SYNC_MESSAGE)
        assert (await operator.hear())[0] == codes.READY_FOR_QUERY

    at_desk(tmp_path, story)


def test_a_flush_brings_what_there_is(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        operator.inbox.write(build_parse(b"", b"SHOW STATE"))
        await settle()
        assert not operator.inbox.has_unread
        operator.inbox.write(FLUSH_MESSAGE)
        assert (await operator.hear())[0] == codes.PARSE_COMPLETE

    at_desk(tmp_path, story)


@pytest.mark.parametrize("text", ["PAUSE $1", "SHOW CLIENTS $1", "SET verbose = $1", "SELECT $1"])
def test_a_parameter_is_refused_clearly(text: str, tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        heard = await operator.batch(build_parse(b"", text.encode()))
        assert error(heard) == "42P02 commands of the console take no parameters"

    at_desk(tmp_path, story)


def test_a_dollar_in_a_name_is_none(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        assert (await operator.ask('PAUSE "a$1"')).tag == "PAUSE"
        assert (await operator.ask("RESUME a$1")).tag == "RESUME"

    at_desk(tmp_path, story)


@pytest.mark.parametrize(
    ("bind", "sentence"),
    [
        (Bind(b"", b"s", values=(b"x",)), "08P01 bind message supplies 1 parameters"),
        (Bind(b"", b"s", result_formats=(0, 0, 1)), "08P01 bind message has 3 formats for 2 columns"),
        (Bind(b"", b"s", result_formats=(7,)), "22023 unsupported format code: 7"),
        (Bind(b"", b"nobody"), '26000 prepared statement "nobody" does not exist'),
    ],
)
def test_a_bind_that_does_not_fit_is_refused(bind: Bind, sentence: str, tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        heard = await operator.batch(build_parse(b"s", b"SHOW STATE"), build_bind(bind))
        assert error(heard).startswith(sentence)

    at_desk(tmp_path, story)


def test_rows_may_be_fetched_in_parts(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        parse = build_parse(b"", b"SHOW LISTS") + build_bind(Bind(b"c", b""))
        heard = await operator.batch(parse, build_execute(b"c", 5))
        assert kinds(heard) == "12" + "D" * 5 + "sZ"
        more = await operator.batch(build_execute(b"c", 5), build_execute(b"c", 9))
        assert kinds(more) == "D" * 5 + "s" + "D" * 9 + "CZ"
        assert [row[0] for row in rows(heard + more)][::13] == [b"databases", b"dns_pending"]

    at_desk(tmp_path, story)


def test_nothing_typed_is_an_empty_query(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        assert kinds(await operator.batch(a_round("-- ping"))) == "12nIZ"

    at_desk(tmp_path, story)


def test_names_are_given_once_and_there_is_a_limit_to_them(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        again = build_parse(b"s", b"SHOW STATE")
        assert error(await operator.batch(again, again)) == '42P05 prepared statement "s" already exists'
        many = [build_parse(f"n{number}".encode(), b"SHOW STATE") for number in range(MAX_STATEMENTS)]
        assert error(await operator.batch(*many)).startswith("53400 more than 1000 prepared statements")
        portals = [build_bind(Bind(f"p{number}".encode(), b"s")) for number in range(MAX_PORTALS + 1)]
        heard = await operator.batch(*portals, build_execute(b"p0"))
        assert error(heard) == '34000 portal "p0" does not exist'

    at_desk(tmp_path, story)


def test_several_commands_do_not_fit_into_one_statement(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        heard = await operator.batch(build_parse(b"", b"SHOW STATE; RELOAD"))
        assert error(heard) == "42601 cannot insert multiple commands into a prepared statement"

    at_desk(tmp_path, story)


def test_a_simple_query_ends_what_has_no_name(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        await operator.batch(build_parse(b"", b"SHOW STATE"))
        await operator.ask("SHOW VERSION")
        assert error(await operator.batch(build_bind(Bind(b"", b"")))) == '26000 prepared statement "" does not exist'

    at_desk(tmp_path, story)


def test_a_function_call_is_refused_and_the_console_goes_on(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        operator.inbox.write(b"F\0\0\0\4")
        assert (await operator.hear())[0] == codes.ERROR_RESPONSE
        assert (await operator.hear())[0] == codes.READY_FOR_QUERY
        assert (await operator.ask("SHOW VERSION")).tag == "SHOW"

    at_desk(tmp_path, story)


def test_who_may_only_look_may_not_do_more_by_this_door(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        assert error(await operator.batch(a_round("PAUSE"))) == "42501 admin access needed"
        assert error(await operator.batch(a_round("SHOW FDS"))) == "42501 admin access needed"
        assert kinds(await operator.batch(a_round("SHOW STATE"))) == "12TDDDDDDDDCZ"

    at_desk(tmp_path, story, user="watcher")


def test_a_statement_prepared_yesterday_is_refused_when_the_right_is_gone(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        await operator.batch(build_parse(b"s", b"DISABLE shop"))
        await operator.ask("SET admin_users = root")
        heard = await operator.batch(build_bind(Bind(b"", b"s")), build_execute(b""))
        assert error(heard) == "42501 admin access needed"
        assert not proxy.disabled

    at_desk(tmp_path, story)


def test_a_pause_answers_late_and_may_be_called_off_here_too(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        a_client(proxy, a_server(proxy))
        operator.inbox.write(a_round("PAUSE shop") + SYNC_MESSAGE)
        assert [(await operator.hear())[0] for _ in range(3)] == [*b"12n"]
        await settle()
        assert proxy.pools.is_pausing("shop")
        (session,) = proxy.consoles
        assert session.cancel_waiting()
        heard = [await operator.hear() for _ in range(2)]
        assert (kinds(heard), error(heard)) == ("EZ", "57014 canceling statement due to user request")
        assert not proxy.pools.is_pausing("shop")

    at_desk(tmp_path, story)
