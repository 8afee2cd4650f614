"""How a server's connection ends: what is said, who hears of it, and that its place counts until its backend ends."""

import pytest

from proxy.failing import FIRST_RETRY
from proxy.states import CLOSED, CLOSING, GONE, WAITING, Closing
from tests.play import (
    Play,
    asked,
    cancel_arrives,
    client,
    client_hangs_up,
    error_to_client,
    said,
    server,
    server_hangs_up,
    to_client,
    to_server,
)


def test_the_servers_own_last_words_reach_its_client_and_no_others_follow():
    play = Play() >> client("Q:a") >> server("FATAL:shutdown") >> server_hangs_up << to_client("FATAL:shutdown")
    assert play.client.state is GONE
    assert play.server.state is CLOSED
    assert "SAID" not in play.world.log.text


def test_a_server_that_dies_without_a_word_gives_its_client_an_error():
    play = Play() >> client("Q:a") >> server_hangs_up << error_to_client("server conn crashed?")
    assert play.server.state is CLOSED


def test_last_words_said_to_an_idle_server_are_logged_and_the_next_client_does_not_get_it():
    play = Play() >> server("FATAL:idle_too_long")
    assert play.server.state in (CLOSING, CLOSED)
    play >> server_hangs_up
    assert "idle too long" in play.world.log.text


def test_last_words_that_answer_our_own_set_are_still_told_to_the_client():
    play = Play(followed={"TimeZone": "CET"}) >> client("Q:a") << to_server("Q:SET_TimeZone=E'CET'")
    play >> server("FATAL:shutdown") >> server_hangs_up << error_to_client("shutdown")


def test_last_words_with_nonsense_behind_them_are_told_to_the_client_all_the_same():
    """And one right behind the other or apart: as much is heard of them."""
    Play() >> client("Q:a") >> server("FATAL:shutdown 1") << error_to_client("shutdown")
    Play() >> client("Q:a") >> server("FATAL:shutdown") >> server("1") << to_client("FATAL:shutdown")


@pytest.mark.parametrize("cut", [3, 20, 60])
def test_a_server_that_dies_in_the_middle_of_a_row_does_not_have_its_row_ended_by_our_error(cut):
    row = said("D:" + "x" * 200)
    play = Play() >> client("Q:a") >> server(row[:cut]) >> server_hangs_up
    assert play.client.state is GONE
    heard = play.hear("client")
    assert heard in (row[:cut], b"") or heard.startswith(b"E"), heard


def test_closing_an_idle_server_says_goodbye_and_waits_for_its_end():
    play = Play() >> (lambda play: play.server.close(Closing.IDLE_TIMEOUT)) << to_server("X")
    assert play.server.state is CLOSING
    assert play.world.pool.size == 1
    play >> server("N:late D:late") >> server_hangs_up
    assert play.server.state is CLOSED
    assert play.world.pool.size == 0


def test_closing_a_server_at_work_over_tls_cancels_its_query_and_closes_both_halves():
    play = Play() >> client("Q:a") >> (lambda play: play.server.close(Closing.ADMIN)) << to_server("Q:a")
    play << error_to_client("admin forced disconnect")
    assert play.world.cancels == [play.server]
    assert play.server_socket.is_closing()
    assert not play.server_socket.was_aborted


def half_closable(play):
    play.server_socket.can_half_close = True


def test_closing_a_server_at_work_cancels_its_query_and_leaves_its_backend_time_to_end():
    play = Play() >> half_closable >> client("Q:a") >> (lambda play: play.server.close(Closing.ADMIN))
    play << to_server("Q:a") << error_to_client("admin forced disconnect")
    assert play.world.cancels == [play.server]
    assert play.server_socket.has_written_eof
    assert not play.server_socket.was_aborted
    assert play.server.state is CLOSING
    assert play.world.pool.size == 1
    play >> cancel_arrives >> server("ERROR:canceled Z:I")
    assert play.world.pool.size == 1
    play >> server_hangs_up
    assert play.server.state is CLOSED
    assert play.world.pool.size == 0


def test_a_server_that_is_cancelled_already_is_not_cancelled_again_when_it_is_closed():
    play = Play() >> half_closable >> client("Q:a") >> (lambda play: play.world.issue_cancel(play.server))
    play >> (lambda play: play.server.close(Closing.ADMIN))
    assert play.world.cancels == [play.server]
    assert play.server_socket.has_written_eof


def test_a_hostile_server_is_cut_off():
    play = Play() >> half_closable >> client("Q:a") >> server("1")
    assert play.server_socket.was_aborted
    assert not play.server_socket.has_written_eof
    assert play.world.cancels == []


def test_an_idle_server_hears_a_goodbye_and_no_bare_end():
    play = Play() >> half_closable >> (lambda play: play.server.close(Closing.IDLE_TIMEOUT)) << to_server("X")
    assert play.world.cancels == []
    assert not play.server_socket.has_written_eof
    assert not play.server_socket.was_aborted


def test_the_place_of_a_query_whose_client_left_in_the_middle_of_a_message_counts_until_its_backend_has_ended():
    half = asked("Q:" + "x" * 200_000)[:100_000]
    play = Play() >> half_closable >> client("Q:sleep") >> client(half) >> client_hangs_up
    assert play.client.state is GONE
    assert play.world.cancels == [play.server]
    assert play.server_socket.has_written_eof
    assert not play.server_socket.was_aborted
    with play.world.loop.running():
        other = play.world.new_client()
        other.transport.peer_sends(asked("Q:mine"))
    assert other.state is WAITING
    assert play.world.openings == []
    play >> cancel_arrives
    assert play.world.openings == []
    play >> server_hangs_up
    assert len(play.world.openings) == 1


@pytest.mark.parametrize("last_words", ["", "FATAL:too_many"])
def test_a_server_that_lets_us_in_and_hangs_up_at_once_is_not_asked_again_before_the_back_off(last_words):
    play = Play() >> server(last_words) >> server_hangs_up >> client("Q:a")
    assert play.server.state is CLOSED
    assert play.client.state is WAITING
    assert play.world.openings == []
    assert play.world.pool.failure is not None
    assert ("too many" if last_words else "closed the connection") in str(play.world.pool.failure)
    play >> (lambda play: play.world.advance(FIRST_RETRY + 0.01)) >> (lambda play: play.world.pool.grow())
    assert len(play.world.openings) == 1


def test_a_server_that_has_been_of_use_is_replaced_at_once_when_it_hangs_up():
    play = Play() >> client("Q:a") >> (lambda play: play.world.advance(1.0)) >> server("C Z:I") >> server_hangs_up
    play >> client("Q:b")
    assert play.world.pool.failure is None
    assert len(play.world.openings) == 1


def test_closing_twice_is_closing_once():
    play = Play()
    for why in (Closing.LIFETIME, Closing.ADMIN):
        play >> (lambda play, why=why: play.server.close(why))
    assert play.hear("server") == asked("X")


def test_a_server_that_gets_ready_while_the_pool_is_paused_is_closed_and_not_lost():
    play = Play(pool_size=2)
    world = play.world
    world.pool.open_one()
    world.pool.pause()
    with world.loop.running():
        late = world.finish_opening()
        assert late.state is CLOSING
        late.transport.peer_hangs_up()
        world.loop.turn()
    assert late.state is CLOSED
