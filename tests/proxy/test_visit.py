"""A visit to its end: the books are right whatever happened, and last words are heard before the door closes."""

import asyncio

import pytest

import proxy.visit
from protocol.backend import parse_error
from protocol.frontend import build_password, build_query
from protocol.startup import build_cancel_request, build_startup, parse_startup
from proxy.client import Client
from proxy.config.entries import Database
from proxy.log import Address
from proxy.pool import LoginFailed
from proxy.server import Server
from proxy.states import CLOSING
from proxy.visit import LAST_WORDS, Visit
from tests.proxy.auth.wire import alone, play, wired
from tests.proxy.test_login import HELLO, a_proxy, find_pool, meet, refusal, visit


def test_a_refused_visitor_hears_why_before_the_socket_is_closed(tmp_path):
    async def main():
        inbox = alone(build_startup({"user": "anna", "database": "nowhere"}))
        said_eof = []
        wired(inbox).can_write_eof = lambda: True
        wired(inbox).write_eof = lambda: said_eof.append(wired(inbox).written)
        meeting = asyncio.ensure_future(meet(a_proxy(tmp_path), inbox))
        await asyncio.wait([meeting], timeout=0.01)
        assert not meeting.done(), "he is given time to read"
        inbox.data_received(b"still talking")
        inbox.eof_received()
        await meeting
        return said_eof

    (heard,) = play(main())
    assert refusal(heard)[0] == "3D000"


def test_nobody_is_given_time_for_ever():
    assert LAST_WORDS <= 2


def test_whoever_leaves_without_a_word_is_not_worth_a_line(tmp_path):
    proxy = a_proxy(tmp_path)
    assert visit(proxy, b"") == b""
    assert not [line for line in proxy.log.lines if "eof" in str(line)]


def test_whoever_leaves_in_the_middle_of_his_login_is_named_in_the_log(tmp_path):
    proxy = a_proxy(tmp_path, auth_type="scram-sha-256")
    visit(proxy, HELLO)
    assert [line for line in proxy.log.lines if "shop/anna" in str(line) and "client unexpected eof" in str(line)]


def test_a_cancel_request_is_answered_by_nothing(tmp_path):
    proxy = a_proxy(tmp_path)
    asked = []

    async def serve(key):
        asked.append(key)
        return "successfully sent cancel request"

    proxy.cancels.serve = serve
    assert visit(proxy, build_cancel_request(b"12345678")) == b""
    assert asked == [b"12345678"]
    assert "(nodb)/(nouser)@10.0.0.7:51234 closing because: successfully sent cancel request (age=0s)" in proxy.log.text


def test_a_cancel_request_is_logged_under_the_database_it_is_about(tmp_path):
    proxy = a_proxy(tmp_path)

    async def main():
        client = Client(find_pool(proxy), "anna", b"12345678", {}, ("10.0.0.7", 1))
        proxy.cancels.register(client)
        await meet(proxy, alone(build_cancel_request(b"12345678")))

    play(main())
    assert (
        "shop/(nouser)@10.0.0.7:51234 closing because: cancel request for a client that runs nothing" in proxy.log.text
    )


def test_the_age_of_a_visitor_is_real_and_a_failed_login_has_its_lines_in_pgbouncers_order(tmp_path):
    proxy = a_proxy(tmp_path, auth_type="plain")

    async def main():
        inbox = alone(HELLO)
        talk = Visit(proxy, inbox, ("10.0.0.7", 1))
        meeting = asyncio.ensure_future(talk.serve())
        await asyncio.wait([meeting], timeout=0.01)
        proxy.clock.advance(7.9)
        lines_before = list(proxy.log.lines)
        inbox.data_received(build_password("wrong"))
        inbox.eof_received()
        await meeting
        return lines_before, proxy.log.lines

    before, after = play(main())
    texts = [line.split("10.0.0.7:1 ", 1)[1] for line in after]
    assert len(before) == 1, "the attempt is told before it is known what comes of it"
    assert texts == [
        "login attempt: db=shop user=anna tls=no replication=no",
        "login failed: db=shop user=anna",
        'closing because: password authentication failed for user "anna" (age=7s)',
        'pooler error: password authentication failed for user "anna": it is not the stored one',
    ]
    assert after[-1].startswith("WARNING C-0x")


def test_one_connection_has_one_name_in_the_log_from_its_first_line_to_its_last(tmp_path):
    proxy, address = a_proxy(tmp_path), Address("fe80::1", 4)

    async def main():
        talk = Visit(proxy, alone(b""), address)
        talk.startup = parse_startup(HELLO[4:])
        talk.voice.log("as a visitor")
        client = Client(find_pool(proxy), "anna", b"12345678", {}, address)
        proxy.log.for_socket(client.tag).log("as a client")

    play(main())
    first, second = (line.rpartition("as a ")[0] for line in proxy.log.lines)
    assert first == second
    assert first.endswith(": shop/anna@[fe80::1]:4 ")


def test_who_says_more_than_a_login_needs_is_refused_and_costs_no_memory(tmp_path):
    proxy = a_proxy(tmp_path, auth_type="plain")

    async def main():
        inbox = alone(b"")
        talk = Visit(proxy, inbox, ("10.0.0.7", 1))
        meeting = asyncio.ensure_future(talk.serve())
        inbox.data_received(HELLO)
        await asyncio.wait([meeting], timeout=0.01)
        inbox.data_received(b"x" * 250_000)
        await asyncio.wait([meeting], timeout=1)
        talk.finish()
        return meeting.done(), inbox.has_unread

    assert play(main()) == (True, False)
    assert "pooler error: more than 65536 bytes before the login is over" in proxy.log.text


def test_a_visitor_counts_as_a_client_from_when_he_has_shown_who_he_is_until_he_is_gone(tmp_path):
    proxy = a_proxy(tmp_path, auth_type="plain")

    async def main():
        inbox = alone(HELLO)
        talk = Visit(proxy, inbox, ("10.0.0.7", 1))
        meeting = asyncio.ensure_future(talk.serve())
        await asyncio.wait([meeting], timeout=0.01)
        counts = [proxy.client_count]
        inbox.data_received(build_password("secret"))
        await asyncio.wait([meeting], timeout=0.01)
        counts.append(proxy.client_count)
        inbox.eof_received()
        meeting.cancel()
        await asyncio.wait([meeting])
        talk.finish()
        return [*counts, proxy.client_count]

    assert play(main()) == [0, 1, 0]


class _Deaf:
    """Servers that are never opened."""

    def __init__(self, proxy):
        self.proxy = proxy

    def open_server(self, pool):
        return Server(pool)


def late(proxy, said=HELLO, *, prepare=lambda pool: None):
    """What somebody hears whose login takes longer than client_login_timeout; what the log says of it."""

    async def main():
        proxy.opener = _Deaf(proxy)
        prepare(find_pool(proxy))
        inbox = alone(said)
        await asyncio.wait_for(meet(proxy, inbox, warm=False), 5)
        return wired(inbox).written

    heard = play(main())
    error = parse_error(heard[heard.index(b"E\0") + 5 :])
    assert error.severity == "FATAL"
    return error, next(line for line in proxy.log.lines if "pooler error" in line)


def test_who_does_not_finish_his_login_in_time_is_told_so(tmp_path):
    error, line = late(a_proxy(tmp_path, client_login_timeout=0.02), HELLO[:9])
    assert (error.sqlstate, error.message) == ("57014", "client_login_timeout")
    assert error.detail == "The login has taken 0.0 s, which is more than client_login_timeout allows."
    assert line.endswith("pooler error: client_login_timeout")


def test_who_waits_for_the_first_server_is_told_that_it_is_down(tmp_path):
    error, line = late(a_proxy(tmp_path, client_login_timeout=0.02))
    assert (error.sqlstate, error.message) == ("08006", "client_login_timeout (server down)")
    assert error.detail == "A server connection is being opened, since 0.0 s."
    assert line.endswith("pooler error: client_login_timeout (server down): " + error.detail)


def test_who_waits_through_a_start_of_postgresql_is_told_in_its_words(tmp_path):
    def fail(pool):
        pool.opening_failed(LoginFailed("57P03", "the database system is starting up"))
        pool.world.clock.advance(0.1)

    error, _ = late(a_proxy(tmp_path, client_login_timeout=0.2), prepare=fail)
    assert (error.sqlstate, error.message) == ("57P03", "client_login_timeout (server down)")
    assert error.detail == (
        "Server logins have been failing for 0.1 s: the database system is starting up; the next try is in 0.1 s."
    )


def test_a_pause_is_no_server_that_is_down(tmp_path):
    error, _ = late(a_proxy(tmp_path, client_login_timeout=0.02), prepare=lambda pool: pool.pause())
    assert (error.sqlstate, error.message) == ("57P03", "client_login_timeout")
    assert error.detail == "The database is paused by an administrator."


def test_who_waits_for_a_server_waits_no_longer_than_those_who_are_in(tmp_path):
    """query_wait_timeout, where that is the smaller limit of the two."""
    error, line = late(a_proxy(tmp_path, client_login_timeout=10, query_wait_timeout=0.02))
    assert (error.sqlstate, error.message) == ("08006", "query_wait_timeout")
    assert error.detail == "A server connection is being opened, since 0.0 s."
    assert line.endswith(f"pooler error: query_wait_timeout: waited for 0.0 s: {error.detail}")
    proxy = a_proxy(tmp_path, client_login_timeout=10, query_wait_timeout=0.02)
    error, _ = late(proxy, prepare=lambda pool: pool.pause())
    assert (error.sqlstate, error.message) == ("57P03", "query_wait_timeout")


def test_a_limit_is_none_either(tmp_path):
    proxy = a_proxy(tmp_path, client_login_timeout=0.02, max_user_connections=1)

    def fill(pool):
        other = proxy.pools.find(Database(name="other"), "anna")
        other.places[CLOSING][Server(other)] = None

    error, _ = late(proxy, prepare=fill)
    assert (error.sqlstate, error.message) == ("53300", "client_login_timeout")
    assert "max_user_connections (1) is reached" in error.detail


def test_who_comes_while_logins_fail_hears_since_when(tmp_path):
    def fail(pool):
        pool.opening_failed(LoginFailed("28P01", "no such password"))
        pool.world.clock.advance(0.1)

    error, _ = late(a_proxy(tmp_path), prepare=fail)
    assert error.sqlstate == "28P01"
    assert error.message == "server login has been failing, cached error: no such password (server_login_retry)"
    assert error.detail == "Server logins have been failing for 0.1 s; the next try is in 0.1 s."


CONSOLE = {"user": "pgbouncer", "database": "pgbouncer"}


@pytest.mark.parametrize("user", ["pgbouncer", "pgshuttle"])
def test_whoever_takes_the_consoles_own_name_is_turned_away_without_a_question(tmp_path, user):
    heard = visit(a_proxy(tmp_path, auth_type="scram-sha-256"), build_startup(CONSOLE | {"user": user}))
    assert refusal(heard) == ("42501", "not allowed")


def test_an_administrator_of_that_name_is_a_user_like_others(tmp_path):
    heard = visit(a_proxy(tmp_path, auth_type="plain", admin_users="pgbouncer"), build_startup(CONSOLE))
    assert heard[:1] == b"R"


def test_the_owner_is_let_in_without_a_question_and_may_do_everything(tmp_path, monkeypatch):
    monkeypatch.setattr(proxy.visit, "is_owner", lambda inbox, user, address: user == "pgbouncer")
    world = a_proxy(tmp_path, auth_type="scram-sha-256")
    heard = visit(world, build_startup(CONSOLE) + build_query("DISABLE shop"), patience=0.05)
    assert b"DISABLE\0" in heard
    assert world.disabled == {"shop"}
    assert [line for line in world.log.lines if "pgbouncer access from unix socket" in str(line)]
    heard = visit(world, build_startup({"user": "pgbouncer", "database": "shop"}))
    assert heard[:1] == b"R", "another database asks for a password"


def test_while_everything_is_suspended_clients_wait_and_operators_come_in(tmp_path):
    async def main():
        world = a_proxy(tmp_path, admin_users="anna")
        world.suspension.begin()
        inboxes = [alone(HELLO), alone(build_startup({"user": "anna", "database": "pgbouncer"}))]
        meetings = [asyncio.ensure_future(meet(world, inbox)) for inbox in inboxes]
        await asyncio.wait(meetings, timeout=0.02)
        heard = [len(wired(inbox).written) > 0 for inbox in inboxes]
        world.suspension.end()
        await asyncio.wait(meetings, timeout=0.02)
        heard.append(len(wired(inboxes[0]).written) > 0)
        for inbox in inboxes:
            inbox.eof_received()
        await asyncio.wait(meetings, timeout=1)
        return heard

    assert play(main()) == [False, True, True]
