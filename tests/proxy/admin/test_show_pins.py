"""SHOW PINS, SHOW AUDIT, and the two columns of SHOW CLIENTS that say who keeps a server and why."""

from pathlib import Path

from protocol.effects import Reader
from proxy.main import Proxy
from proxy.pins import PinReason
from proxy.session import Session
from tests.proxy.admin.desk import Operator, a_client, a_server, at_desk

WATCHER = "watcher"


def test_a_pinned_client_says_why_since_when_and_by_which_statement(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        client = a_client(proxy, a_server(proxy))
        client.session = Session()
        row = (await operator.ask("SHOW CLIENTS")).dicts()[0]
        assert (row["pinned"], row["pin_reason"]) == ("0", "")
        client.pool.learnt.pins.enter(client, client.session.pins, PinReason.LOCK, b"select pg_advisory_lock(7)")
        rows = (await operator.ask("SHOW CLIENTS")).dicts()
        since = "2026-01-02 03:04:05 UTC"
        assert rows[0]["pinned"] == "1"
        assert rows[0]["pin_reason"] == f"advisory lock since {since} by: select pg_advisory_lock(?)"
        assert [row["pinned"] for row in rows[1:]] == ["0"]

    at_desk(tmp_path, story, user=WATCHER)


def test_pins_are_counted_by_reason_and_those_that_never_were_are_left_out(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        client = a_client(proxy, a_server(proxy))
        book, pins = client.pool.learnt.pins, {}
        assert (await operator.ask("SHOW PINS")).rows == []
        book.enter(client, pins, PinReason.TEMP, b"create temp table t (a int)")
        book.enter(client, {}, PinReason.TEMP, b"create temp table t (a int)")
        book.strike(pins, [PinReason.TEMP])
        assert (await operator.ask("SHOW PINS")).rows == [("shop", "web", "temporary object", "1", "2")]

    at_desk(tmp_path, story, user=WATCHER)


def test_an_audit_has_a_row_for_each_thing_an_application_does(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        client = a_client(proxy, a_server(proxy))
        text = b"set my.secret = 'x'"
        for _ in range(2):
            client.pool.learnt.audit.note(client, Reader().read(text), text)
        application = client.followed.get("application_name", "")
        row = ("shop", "joe", application, "set", "replayed", "2", "set my.secret = ?")
        assert (await operator.ask("SHOW AUDIT")).rows == [row]

    at_desk(tmp_path, story, user=WATCHER)
