"""The usual login in one breath: the same answer as the long way's, and only while nothing has changed."""

from dataclasses import replace

import pytest

from protocol.codes import PROTOCOL_3_0
from protocol.passwords import Md5
from protocol.startup import LATEST_MINOR, build_ssl_request, build_startup
from proxy.auth.lookup import Found
from proxy.client import Client
from proxy.doorstep import Doorstep
from proxy.express import MAX_PACKET, MAX_PASSES
from proxy.failing import LoginFailed
from proxy.inbox import Inbox
from tests.proxy.auth.wire import play
from tests.proxy.test_doorstep import Door, turns
from tests.proxy.test_login import HELLO, PARAMETERS, a_proxy, find_pool

KEY_LENGTH = 13  # BackendKeyData with the short key


async def enter(proxy, packet=HELLO):
    door = Door(proxy)
    door.phase.data_received(packet)
    is_express = isinstance(door.phase, Client)
    await turns()
    return door, is_express


def without_key(heard):
    """A welcome but for its cancel key, which is another each time."""
    at = heard.index(b"K\0\0\0")
    return heard[:at] + heard[at + KEY_LENGTH :]


def meet_twice(tmp_path, change=lambda proxy: None, packet=HELLO, **settings):
    """Was the second of two equal logins express, with `change` in between? And what both heard."""

    async def main():
        proxy = a_proxy(tmp_path, **settings)
        find_pool(proxy).welcome = PARAMETERS
        first, was_express = await enter(proxy, packet)
        assert not was_express
        change(proxy)
        second, is_express = await enter(proxy, packet)
        return is_express, first.written, second.written, proxy

    return play(main())


def test_the_second_of_two_equal_logins_is_answered_at_once_and_in_the_same_words(tmp_path):
    is_express, first, second, proxy = meet_twice(tmp_path)
    assert is_express
    assert without_key(first) == without_key(second)
    assert first != second
    assert len(find_pool(proxy).clients) == 2
    assert proxy.client_count == 2
    lines = [line for line in map(str, proxy.log.lines) if "login attempt: db=shop user=anna tls=no" in line]
    assert len(lines) == 2


def test_startup_parameters_and_the_newer_protocol_make_no_difference(tmp_path):
    wishes = {"user": "anna", "database": "shop", "application_name": "till"}
    packet = build_startup(wishes, PROTOCOL_3_0 | LATEST_MINOR)
    is_express, first, second, _ = meet_twice(tmp_path, packet=packet)
    assert is_express
    assert len(first) == len(second)
    assert b"application_name\0till\0" in second


@pytest.mark.parametrize(
    "change",
    [
        lambda proxy: proxy.disabled.add("shop"),
        lambda proxy: proxy.suspension.begin(),
        lambda proxy: setattr(proxy, "users", type(proxy.users)({})),
        lambda proxy: setattr(proxy, "config", replace(proxy.config)),
        lambda proxy: find_pool(proxy).greetings.clear(),
        lambda proxy: setattr(find_pool(proxy), "failure", LoginFailed("28P01", "no")),
        lambda proxy: setattr(proxy, "visitors", 100),
    ],
    ids=["disabled", "suspended", "users", "config", "greeting", "failure", "max_client_conn"],
)
def test_whatever_has_changed_takes_the_long_way(tmp_path, change):
    assert not meet_twice(tmp_path, change)[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"application_name_add_host": 1},
        {"max_db_client_connections": 5},
        {"max_user_client_connections": 5},
    ],
    ids=lambda each: next(iter(each)),
)
def test_where_the_answer_hangs_on_more_than_the_packet_it_is_not_remembered(tmp_path, settings):
    is_express, first, second, _ = meet_twice(tmp_path, **settings)
    assert not is_express
    assert len(first) == len(second)


@pytest.mark.parametrize("method", ["plain", "md5", "scram-sha-256"])
def test_who_is_asked_for_a_password_is_asked_every_time(tmp_path, method):
    is_express, first, second, proxy = meet_twice(tmp_path, auth_type=method)
    assert not is_express
    assert not len(proxy.express)
    assert first[:1] == second[:1] == b"R"


def test_a_packet_that_is_answered_by_negotiation_is_not_remembered(tmp_path):
    packet = build_startup({"user": "anna", "database": "shop", "_pq_.greeting": "1"})
    is_express, first, second, _ = meet_twice(tmp_path, packet=packet)
    assert not is_express
    assert first[:1] == second[:1] == b"v"


def test_what_is_sent_behind_the_packet_is_not_lost(tmp_path):
    async def main():
        proxy = a_proxy(tmp_path)
        find_pool(proxy).welcome = PARAMETERS
        await enter(proxy)
        door = Door(proxy)
        door.phase.data_received(HELLO + b"X\0\0\0\4")
        assert isinstance(door.phase, Inbox)
        await turns()
        return door.is_closed, proxy.client_count

    assert play(main()) == (True, 1)


def test_who_asks_for_encryption_first_is_remembered_by_what_came_after_that(tmp_path):
    async def main():
        proxy = a_proxy(tmp_path)
        find_pool(proxy).welcome = PARAMETERS
        kinds = []
        for _ in range(2):
            door = Door(proxy)
            door.phase.data_received(build_ssl_request())
            kinds.append(type(door.phase))
            door.phase.data_received(HELLO)
            kinds.append(type(door.phase))
            await turns()
            assert door.written.startswith(b"NR")
        return kinds

    assert play(main()) == [Doorstep, Inbox, Doorstep, Client]


def test_a_request_for_encryption_that_came_in_pieces_is_never_taken_for_a_login(tmp_path):
    async def main():
        proxy = a_proxy(tmp_path)
        find_pool(proxy).welcome = PARAMETERS
        door = Door(proxy)
        for piece in (build_ssl_request()[:5], build_ssl_request()[5:], HELLO):
            door.phase.data_received(piece)
            await turns()
        assert door.written.startswith(b"NR")
        stranger = Door(proxy)
        stranger.phase.data_received(build_ssl_request())
        return stranger.written

    assert play(main()) == b"N"


@pytest.mark.parametrize("what", ["config", "users"])
def test_who_was_judged_by_what_holds_no_more_is_not_remembered(tmp_path, what):
    """A login may wait for a server, and a reload come meanwhile."""

    async def main():
        proxy = a_proxy(tmp_path)
        find_pool(proxy).welcome = PARAMETERS
        await enter(proxy)
        (known,) = proxy.express._passes.values()
        rules = proxy.express.begin()
        setattr(proxy, what, replace(proxy.config) if what == "config" else type(proxy.users)({}))
        proxy.express.remember(b"another", known.visitor, known.pool, rules)
        assert list(proxy.express._passes) == [HELLO]
        proxy.express.remember(b"another", known.visitor, known.pool, proxy.express.begin())
        return list(proxy.express._passes)

    assert play(main()) == [b"another"], "and what was remembered under the old rules is kept no longer"


def test_who_has_answered_a_question_is_not_remembered_whatever_holds_by_now(tmp_path):
    async def main():
        proxy = a_proxy(tmp_path)
        find_pool(proxy).welcome = PARAMETERS
        await enter(proxy)
        (known,) = proxy.express._passes.values()
        asked = replace(known.visitor, prefix=b"R\0\0\0\x0c\0\0\0\x0cv=its own signature")
        proxy.express.remember(b"another", asked, known.pool, proxy.express.begin())
        return list(proxy.express._passes)

    assert play(main()) == [HELLO]


def test_memory_is_bounded(tmp_path):
    async def main():
        proxy = a_proxy(tmp_path)
        find_pool(proxy).welcome = PARAMETERS
        await enter(proxy, build_startup({"user": "anna", "database": "shop", "application_name": "x" * MAX_PACKET}))
        assert not len(proxy.express)
        door, _ = await enter(proxy)
        visitor, pool = proxy.express._passes[HELLO].visitor, door.phase.pool
        for number in range(MAX_PASSES):
            proxy.express.remember(b"%d" % number, visitor, pool, proxy.express.begin())
        assert 0 < len(proxy.express) <= MAX_PASSES

    play(main())


def test_what_the_operator_has_to_say_is_said_each_time(tmp_path):
    is_express, first, second, _ = meet_twice(tmp_path, login_notify_message="be quick")
    assert is_express
    assert b"Mbe quick\0" in first
    assert without_key(first) == without_key(second)


def test_whoever_was_found_by_auth_query_may_not_be_there_the_next_time(tmp_path):
    async def main():
        proxy = a_proxy(tmp_path, auth_user="guard", auth_query_ttl="0")
        found = {"bert": (Md5("0" * 32),)}

        async def ask(question, user):
            return Found(found.get(user, ()), 0.0)

        proxy.lookups.wait = ask
        database = proxy.config.find_database("shop")
        proxy.pools.find(database, "bert").welcome = PARAMETERS
        hello = build_startup({"user": "bert", "database": "shop"})
        first, _ = await enter(proxy, hello)
        found.clear()
        second, is_express = await enter(proxy, hello)
        return first.written, second.written, is_express, len(proxy.express)

    first, second, is_express, remembered = play(main())
    assert first[:1] == b"R"
    assert b"28000" in second
    assert not is_express
    assert remembered == 0
