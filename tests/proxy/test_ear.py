"""The connection that listens: what it asks and when, and how it outlives PostgreSQL and its operators."""

import math

import pytest

from protocol import backend
from protocol.body import build_message
from proxy.ear import LINGER, MAX_BATCH, PATIENCE, PULSE, STEADY, EarPool, Wanting, find_limits
from proxy.failing import FIRST_RETRY
from proxy.states import CLOSING, IDLE, LINKED, RESTING, Closing, PoolState
from tests.fakes import make_limits
from tests.listening import Stage, heard, news, notification, warnings


@pytest.fixture(name="stage")
def _stage():
    stage = Stage()
    with stage.loop.running():
        yield stage
        stage.loop.turn()
        stage.check()


def test_it_has_a_server_beside_the_pools_own(stage):
    stage.ready(b"news")
    assert stage.pool.size == 0
    assert stage.ear.pool.size == 1
    assert stage.ear.server.client is stage.ear
    assert repr(stage.ear).endswith("shop/web")
    assert "listens for clients of its pool: a client listens" in stage.log.text
    stage.die()
    stage.sweep(FIRST_RETRY)
    stage.open()
    assert "the one before is gone and clients listen" in stage.log.text


def test_its_first_words_are_about_itself(stage):
    stage.listen(stage.new_client(), b"news")
    stage.open()
    first = stage.answer()
    assert b"client_encoding='UTF8'" in first
    assert b"statement_timeout" in first
    assert stage.answer() == b'LISTEN "news"'


def test_limits_of_clients_do_not_hold_for_it():
    limits = find_limits(make_limits(pool_mode="transaction", query_timeout=1.0, server_lifetime=5.0, pool_size=7))
    assert (limits.pool_size, limits.query_timeout, limits.server_lifetime) == (1, None, math.inf)
    assert limits.server_idle_timeout == LINGER
    assert find_limits(make_limits(server_idle_timeout=5.0)).server_idle_timeout == 5.0
    assert find_limits(make_limits(max_db_connections=5)).max_db_connections == 5


def test_names_are_quoted(stage):
    stage.listen(stage.new_client(), b'a"; DROP TABLE x; --')
    stage.open()
    stage.answer()
    assert stage.pending() == [b'LISTEN "a""; DROP TABLE x; --"']


def test_what_comes_while_a_question_is_under_way_travels_together(stage):
    client = stage.ready(b"first")
    for number in range(3):
        stage.listen(client, b"%d" % number)
    assert stage.pending() == [b'LISTEN "0"']
    stage.answer()
    assert stage.pending() == [b'LISTEN "1";LISTEN "2"']


def test_ten_thousand_channels_are_a_few_round_trips(stage):
    client = stage.new_client()
    for number in range(10_000):
        stage.hub.listen(client, b"channel %d" % number, lambda error: None)
    stage.open()
    stage.answer_all()
    assert len(stage.hub.channels_of(client)) == len(stage.listening) == 10_000
    assert len(stage.asked) == 1 + 10_000 // MAX_BATCH
    stage.leave(client)
    stage.sweep()
    assert stage.pending() == [b"UNLISTEN *"]


def test_unlisten_is_in_no_hurry_and_joined(stage):
    client = stage.ready(b"a", b"b", b"c")
    stage.unlisten(client, b"a")
    stage.unlisten(client, b"b")
    assert stage.pending() == []
    stage.sweep()
    assert stage.answer() == b'UNLISTEN "a";UNLISTEN "b"'
    assert stage.listening == {b"c"}


def test_listen_unlisten_listen_of_one_channel_costs_nothing(stage):
    client = stage.ready(b"a")
    stage.unlisten(client, b"a")
    assert stage.listen(client, b"a") == [None]
    stage.sweep()
    assert stage.pending() == []


def test_a_listen_behind_an_unlisten_under_way_is_asked_for_again(stage):
    client = stage.ready(b"a", b"b")
    stage.unlisten(client, b"a")
    stage.sweep()
    answers = stage.listen(client, b"a")
    assert answers == []
    stage.answer()
    assert stage.pending() == [b'LISTEN "a"']
    stage.answer()
    assert answers == [None]
    assert stage.listening == {b"a", b"b"}


def test_an_unlisten_behind_a_listen_under_way_follows_it(stage):
    client = stage.ready(b"b")
    answers = stage.listen(client, b"a")
    stage.unlisten(client, b"a")
    stage.answer()
    stage.sweep()
    assert stage.answer() == b'UNLISTEN "a"'
    assert answers == []
    assert stage.listening == {b"b"}


def test_an_unlisten_that_fails_is_tried_again(stage):
    client = stage.ready(b"a", b"b")
    stage.unlisten(client, b"a")
    stage.sweep()
    stage.answer(error=("57014", "canceled"))
    stage.sweep()
    assert stage.answer() == b'UNLISTEN "a"'


def test_one_bad_name_does_not_spoil_the_others(stage):
    client = stage.ready(b"first")
    other = stage.listen(client, b"under way")
    answers = {number: stage.listen(client, b"%d" % number) for number in range(9)}
    stage.answer()
    assert other == [None]
    while stage.pending():
        is_bad = b'"5"' in stage.pending()[0]
        stage.answer(error=("22P05", "no such character") if is_bad else None)
    assert [number for number, answer in answers.items() if answer != [None]] == [5]
    (error,) = answers[5]
    assert (error.severity, error.sqlstate, error.message) == ("ERROR", "22P05", "no such character")
    assert len(stage.asked) <= 12


def test_on_a_standby_everybody_is_refused_in_the_servers_words(stage):
    client = stage.new_client()
    answers = [stage.listen(client, b"%d" % number) for number in range(3)]
    stage.open()
    stage.answer()
    stage.answer(error=("25006", "cannot execute LISTEN during recovery"))
    assert [(error.sqlstate, error.message) for (error,) in answers] == [
        ("25006", "cannot execute LISTEN during recovery")
    ] * 3
    assert not stage.hub.books.channels


def test_those_who_listened_before_are_not_left_deaf_by_a_standby(stage):
    client = stage.ready(b"news")
    stage.advance(STEADY)
    stage.die()
    stage.open()
    stage.answer()
    stage.answer(error=("25006", "cannot execute LISTEN during recovery"))
    assert stage.ear.server is None
    stage.socket.peer_hangs_up()
    stage.loop.turn()
    for _ in range(4):
        stage.sweep()
        if stage.openings:
            break
    stage.open()
    stage.answer_all()
    assert warnings(news(client)) == ["notifications may have been missed"]
    assert stage.listening == {b"news"}


def test_a_server_that_dies_while_it_confirms_is_replaced(stage):
    stage.ready(b"news")
    client = stage.new_client()
    answers = stage.listen(client, b"more")
    stage.advance(STEADY)
    stage.die("terminating connection due to administrator command")
    assert answers == []
    stage.open()
    stage.answer()
    assert sorted(stage.answer().split(b";")) == [b'LISTEN "more"', b'LISTEN "news"']
    assert answers == [None]


def test_a_young_one_that_dies_makes_the_next_one_wait_longer_each_time(stage):
    client = stage.new_client()
    answers = stage.listen(client, b"news")
    delays = []
    for _ in range(5):
        stage.open()
        stage.answer()
        stage.die("crash")
        assert answers.pop().message == "crash"
        delays.append(stage.ear.pool.retry_at - stage.clock.now())
        answers = stage.listen(client, b"news")
        assert "cached error" in answers.pop().message
        stage.advance(delays[-1])
        answers = stage.listen(client, b"news")
    assert delays == [FIRST_RETRY * 2**number for number in range(5)]


@pytest.mark.parametrize("why", [Closing.RECONNECT, Closing.STALE])
def test_reconnect_replaces_it_at_once(stage, why):
    client = stage.ready(b"news")
    before = stage.ear.pool.places[LINKED].copy()
    stage.ear.pool.retire_servers(why)
    assert next(iter(before)).state is CLOSING
    stage.socket.peer_hangs_up()
    stage.loop.turn()
    stage.open()
    stage.answer_all()
    assert stage.listening == {b"news"}
    assert warnings(news(client)) == ["notifications may have been missed"]


def test_a_pause_closes_it_and_resume_brings_it_back(stage):
    client = stage.ready(b"news")
    stage.ear.pool.pause()
    assert stage.ear.server is None
    stage.socket.peer_hangs_up()
    stage.loop.turn()
    assert stage.ear.pool.is_quiet
    answers = stage.listen(client, b"more")
    stage.sweep(1000.0)
    assert answers == []
    stage.ear.pool.unpause()
    stage.open()
    stage.answer_all()
    assert answers == [None]
    assert warnings(news(client)) == ["notifications may have been missed"]


def test_a_pool_that_is_paused_gets_an_ear_that_is_paused():
    stage = Stage()
    stage.pool.state = PoolState.PAUSED
    assert EarPool(stage.pool, stage.ear).state is PoolState.PAUSED


def test_when_the_world_ends_those_who_wait_are_told(stage):
    stage.ready(b"news")
    answers = stage.listen(stage.new_client(), b"more")
    stage.ear.pool.close_all(Closing.SHUTDOWN)
    (error,) = answers
    assert (error.sqlstate, error.message) == ("57P01", "pooler is shutting down")


def test_nobody_listens_and_it_lingers_and_is_taken_again(stage):
    client = stage.ready(b"news")
    stage.unlisten(client)
    stage.sweep()
    stage.answer_all()
    stage.sweep()
    assert stage.ear.state is RESTING
    assert len(stage.ear.pool.places[IDLE]) == 1
    answers = stage.listen(client, b"news")
    stage.answer_all()
    assert answers == [None]
    assert not stage.openings


def test_silence_is_questioned_and_a_dead_line_is_cut(stage):
    client = stage.ready(b"news")
    stage.sweep(PULSE + 1)
    assert stage.pending() == [b""]
    stage.answer()
    stage.sweep(PULSE / 2)
    assert stage.pending() == []
    stage.sweep(PULSE + 1)
    stage.socket.can_half_close = True
    stage.sweep(PATIENCE + 1)
    assert stage.ear.server is None
    assert stage.cancels  # it may be busy for all we know
    stage.cancel_arrives(stage.cancels[0])
    stage.socket.peer_hangs_up()
    stage.loop.turn()
    stage.open()
    stage.answer_all()
    assert warnings(news(client)) == ["notifications may have been missed"]


def test_settings_that_are_refused_end_the_connection(stage):
    answers = stage.listen(stage.new_client(), b"news")
    stage.open()
    stage.answer(error=("22023", "invalid value for parameter"))
    (error,) = answers
    assert error.message == "invalid value for parameter"
    assert stage.ear.server is None
    stage.socket.peer_hangs_up()


def test_notifications_before_an_answer_are_heard(stage):
    client = stage.ready(b"a")
    stage.listen(client, b"b")
    early = notification(b"a", b"early")
    stage.answer(early)
    assert heard(client) == early


def test_a_long_notice_in_pieces_is_stepped_over(stage):
    client = stage.ready(b"a")
    said = backend.build_notice("NOTICE", "00000", "x" * 5000) + notification(b"a", b"behind it")
    for start in range(0, len(said), 100):
        stage.socket.peer_sends(said[start : start + 100])
        stage.check()
    assert heard(client) == notification(b"a", b"behind it")


@pytest.mark.parametrize(
    "said",
    [
        build_message(ord("A"), b"\0\0\0\7news"),
        build_message(ord("A"), b"\0\0\0\7news\0hello\0more"),
        build_message(ord("A"), b"\0"),
        build_message(ord("D"), b"\0\0"),
        build_message(ord("Z"), b"I"),
        b"A\0\0\0\0",
        b"A\x7f\xff\xff\xff",
        b"\0\0\0\0\4",
    ],
)
def test_a_hostile_server_is_closed_and_nobody_hears_of_it(stage, said):
    client = stage.ready(b"news")
    stage.socket.peer_sends(said)
    stage.loop.turn()
    stage.check()
    assert stage.ear.server is None
    assert heard(client) == b""
    stage.sweep(FIRST_RETRY)
    stage.open()
    stage.answer_all()
    assert stage.listening == {b"news"}


def test_a_server_that_is_hostile_from_the_start_is_not_opened_in_a_frenzy(stage):
    stage.listen(stage.new_client(), b"news")
    opened = 0
    for _ in range(30):
        if stage.openings:
            opened += 1
            stage.open()
            stage.socket.peer_sends(b"\0\0\0\0\4")
            stage.loop.turn()
        stage.listen(stage.new_client(), b"news")
        stage.sweep(0.1)
    assert opened <= 5


def test_the_janitors_questions_are_answered(stage):
    stage.ready(b"news")
    ear = stage.ear
    ear.hold()
    ear.let_go()
    ear.failed(backend.ErrorFields())
    assert ear.request_at <= stage.clock.now()
    assert Wanting.AGAIN.value
    ear.close(Closing.ADMIN)
    assert ear.server is None
    ear.close(Closing.ADMIN)
    stage.socket.peer_hangs_up()
