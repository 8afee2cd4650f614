"""A visit to its end: the books are right whatever happened, and last words are heard before the door closes."""

import asyncio

from protocol.startup import build_cancel_request, build_startup
from proxy.visit import LAST_WORDS, Visit
from tests.proxy.auth.wire import alone, play, wired
from tests.proxy.test_login import HELLO, a_proxy, meet, refusal, visit


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
    proxy.cancels.request = asked.append
    assert visit(proxy, build_cancel_request(b"12345678")) == b""
    assert asked == [b"12345678"]


def test_a_visitor_counts_as_a_client_until_he_is_gone(tmp_path):
    proxy = a_proxy(tmp_path, auth_type="plain")

    async def main():
        inbox = alone(HELLO)
        talk = Visit(proxy, inbox, ("10.0.0.7", 1))
        meeting = asyncio.ensure_future(talk.serve())
        await asyncio.wait([meeting], timeout=0.01)
        counts = [proxy.client_count]
        inbox.eof_received()
        await meeting
        talk.finish()
        return [*counts, proxy.client_count]

    assert play(main()) == [1, 0]
