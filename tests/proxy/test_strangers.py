"""Who has not logged in yet: never too many, the oldest goes first, and nobody who has logged in pays for them."""

import asyncio

from protocol.backend import parse_error
from protocol.frontend import build_password
from protocol.startup import build_cancel_request, build_startup
from proxy.client import Client
from proxy.janitor import Janitor
from proxy.log.seldom import PERIOD
from proxy.strangers import LEAST, TOO_MANY
from tests.proxy.auth.wire import play
from tests.proxy.test_doorstep import Door, turns
from tests.proxy.test_login import HELLO, PARAMETERS, a_proxy, find_pool, refusal, visit


def a_proxy_for(tmp_path, limit=5, **settings):
    proxy = a_proxy(tmp_path, max_half_open=limit, **{"auth_type": "plain", **settings})
    find_pool(proxy).welcome = PARAMETERS
    return proxy


def test_of_those_who_say_nothing_the_oldest_gives_way(tmp_path):
    async def main():
        proxy = a_proxy_for(tmp_path)
        doors = [Door(proxy) for _ in range(8)]
        assert len(proxy.strangers) == len(proxy.doorsteps) == 5
        assert [door.is_closed for door in doors] == [True] * 3 + [False] * 5
        assert [door.written for door in doors] == [TOO_MANY] * 3 + [b""] * 5
        return proxy.strangers.dropped

    assert play(main()) == 3


def test_and_of_those_who_do_not_say_their_password(tmp_path):
    async def main():
        proxy = a_proxy_for(tmp_path)
        first = Door(proxy)
        first.phase.data_received(HELLO)
        await turns()
        proxy.clock.advance(1)
        silent = [Door(proxy) for _ in range(5)]
        await turns()
        assert first.is_closed
        assert refusal(first.written[9:])[0] == "53300"
        assert not any(door.is_closed for door in silent)
        assert len(proxy.strangers) == 5
        assert proxy.callers == 0
        return [line for line in proxy.log.lines if "closing because" in line]

    assert play(main()) == [], "what strangers do as often as they like is told in one line"


def test_a_newcomer_gets_in_through_a_thousand_silent_ones(tmp_path):
    async def main():
        proxy = a_proxy_for(tmp_path, 50, max_client_conn=10)
        for _ in range(1000):
            Door(proxy)
        for _ in range(40):
            door = Door(proxy)
            door.phase.data_received(HELLO)
        await turns()
        door.phase.data_received(build_password("secret"))
        await turns()
        return door.written[9:]

    assert play(main()).startswith(b"R\0\0\0\x08\0\0\0\0"), "and none of them took a place of max_client_conn"


def test_a_flood_from_one_address_throws_out_itself_and_not_a_login_that_takes_its_time(tmp_path):
    async def main():
        proxy = a_proxy_for(tmp_path, 50)
        slow = Door(proxy, ("10.9.9.9", 1))
        slow.phase.data_received(HELLO)
        await turns()
        for _ in range(500):
            proxy.clock.advance(0.001)
            Door(proxy)
        await turns()
        slow.phase.data_received(build_password("secret"))
        await turns()
        return slow.written[9:]

    assert play(main()).startswith(b"R\0\0\0\x08\0\0\0\0")


def test_who_has_logged_in_is_no_stranger_any_more(tmp_path):
    async def main():
        proxy = a_proxy_for(tmp_path)
        client = Door(proxy)
        client.phase.data_received(HELLO)
        await turns()
        assert len(proxy.strangers.visits) == 1
        client.phase.data_received(build_password("secret"))
        await turns()
        assert len(proxy.strangers) == 0
        for _ in range(20):
            Door(proxy)
        await turns()
        return client.is_closed

    assert play(main()) is False


def test_nor_is_who_waits_for_a_server(tmp_path):
    async def main():
        proxy = a_proxy_for(tmp_path, auth_type="trust")
        find_pool(proxy).welcome = None
        proxy.pools.pause(None)
        waiting = Door(proxy)
        waiting.phase.data_received(HELLO)
        await turns()
        for _ in range(20):
            Door(proxy)
        await turns()
        closed = waiting.is_closed
        await proxy.tasks.cancel_all()
        return closed

    assert play(main()) is False


def test_who_is_dropped_before_his_conversation_has_begun_is_gone_too(tmp_path):
    async def main():
        proxy = a_proxy_for(tmp_path, 1)
        first = Door(proxy)
        first.phase.data_received(HELLO)
        Door(proxy)
        await turns()
        assert len(proxy.strangers) == 1
        return first.written

    assert play(main()).endswith(TOO_MANY)


class Reader(Door):
    """Somebody who takes his time to read last words."""

    def can_write_eof(self):
        return True

    def write_eof(self):
        pass

    def close(self):
        super().close()
        self.phase.connection_lost(None)


def test_who_has_been_refused_and_reads_why_gives_way_too(tmp_path):
    async def main():
        proxy = a_proxy_for(tmp_path, 2)
        slow = Reader(proxy)
        slow.phase.data_received(build_startup({"user": "anna"}, 2 << 16))
        await turns()
        assert refusal(slow.written)[0] == "0A000"
        assert (len(proxy.strangers), slow.is_closed) == (1, False)
        for _ in range(3):
            Door(proxy)
        await turns()
        assert slow.is_closed
        assert proxy.callers == 0
        return len(proxy.strangers), proxy.log.text

    count, log = play(main())
    assert count == 2
    assert "Traceback" not in log


def test_the_log_tells_it_seldom_and_counts_the_rest(tmp_path):
    async def main():
        proxy = a_proxy_for(tmp_path)
        for _ in range(105):
            Door(proxy)
        janitor = Janitor(proxy)
        janitor.sweep()
        before = list(proxy.log.lines)
        proxy.clock.advance(PERIOD)
        janitor.sweep()
        return before, proxy.log.lines[len(before) :]

    before, after = play(main())
    assert before == [
        "WARNING more than 5 connections have not logged in (max_half_open), an old one is closed: "
        "it came from ('10.0.0.7', 51234)"
    ]
    assert after == ["WARNING 99 more connections were closed before they logged in (max_half_open)"]


def test_wrong_cancel_keys_are_told_seldom(tmp_path):
    proxy = a_proxy(tmp_path)
    for number in range(50):
        visit(proxy, build_cancel_request(number.to_bytes(8, "big")), patience=None)
    assert proxy.log.text.count("closing because: failed cancel request") == 1
    proxy.clock.advance(PERIOD)
    Janitor(proxy).sweep()
    assert proxy.log.lines[-1] == f"LOG 49 more cancel requests had a wrong key, in {PERIOD:g}s or more"


def test_who_waits_for_his_cancel_request_to_be_served_is_no_stranger(tmp_path):
    async def main():
        proxy = a_proxy_for(tmp_path)
        client = Client(find_pool(proxy), "anna", b"12345678", {}, ("10.0.0.7", 1))
        proxy.cancels.register(client)
        served = asyncio.Event()

        async def serve(key):
            await served.wait()
            return "done"

        proxy.cancels.serve = serve
        asker, guesser = Door(proxy), Door(proxy)
        asker.phase.data_received(build_cancel_request(b"12345678"))
        guesser.phase.data_received(build_cancel_request(b"87654321"))
        await turns()
        for _ in range(20):
            Door(proxy)
        await turns()
        found = asker.is_closed, guesser.is_closed
        served.set()
        await turns()
        return found

    assert play(main()) == (False, True)


def test_how_many_there_may_be_where_nothing_is_said(tmp_path):
    assert a_proxy_for(tmp_path, 0, max_client_conn=700).strangers.limit == 700
    assert a_proxy_for(tmp_path, 0, max_client_conn=1).strangers.limit == LEAST
    assert a_proxy_for(tmp_path, 7, max_client_conn=700).strangers.limit == 7


def test_what_they_hear_names_the_setting():
    error = parse_error(TOO_MANY[5:])
    assert (error.severity, error.sqlstate) == ("FATAL", "53300")
    assert "max_half_open" in error.message


def test_a_full_house_is_told_before_the_password_is_asked_for(tmp_path):
    said = build_startup({"user": "anna", "database": "shop"})
    state, words = refusal(visit(a_proxy(tmp_path, auth_type="plain", max_client_conn=0), said))
    assert (state, words) == ("53300", "no more connections allowed (max_client_conn)")


def test_an_ordinary_end_leaves_no_stranger(tmp_path):
    proxy = a_proxy(tmp_path, auth_type="plain")
    for said in (b"", HELLO, HELLO + build_password("wrong"), HELLO + build_password("secret")):
        visit(proxy, said)
    assert len(proxy.strangers) == 0
