"""One server's stream: to whom each byte goes, wherever the stream is cut, and what a hostile one achieves: nothing."""

import random

import pytest

from proxy.failing import FIRST_RETRY
from proxy.server import ENOUGH_OF_AN_ERROR, MAX_WHOLE
from proxy.states import CLEANING, CLOSED, CLOSING, GONE, IDLE, WAITING, Closing
from tests.play import (
    Play,
    asked,
    cancel_arrives,
    client,
    client_hangs_up,
    error_to_client,
    released,
    said,
    server,
    server_hangs_up,
    stays_linked,
    to_client,
    to_server,
)

TRANSCRIPTS = [
    ("Q:rows", "T D:a D:b C Z:I"),
    ("Q:rows", "T " + "D:equal " * 100 + "C Z:I"),
    ("Q:many", "T D:a C T D:b C Z:I"),
    ("Q:nothing", "I Z:I"),
    ("Q:fails", "T D:a ERROR:no Z:I"),
    ("Q:notice", "N:hear S:TimeZone=CET A:news C Z:I"),
    ("Q:copy", "H d:a d:b c C Z:I"),
    ("P B D E S", "1 2 T D:a C Z:I"),
    ("P B E S P B E S", "1 2 ERROR:no Z:I 1 2 C Z:I"),
    ("P D S", "1 n Z:I"),
    ("P B E S B E C S", "1 2 D:a s Z:I 2 C 3 Z:I"),
    ("F", "V Z:I"),
    ("S", "Z:I"),
    ("Q:one Q:two Q:three", "C Z:I ERROR:two Z:I T D:3 C Z:I"),
    ("P B E", "1 2 C"),
    ("P B E H", "1 2 ERROR:no"),
    ("Q:begin", "C Z:T"),
    ("Q:big", "T D:" + "x" * 100_000 + " C Z:I"),
    ("Q:big_error", "ERROR:" + "x" * 100_000 + " Z:I"),
]


@pytest.mark.parametrize(("question", "answer"), TRANSCRIPTS)
def test_the_client_hears_exactly_what_the_server_says_wherever_it_is_cut(question, answer):
    data = said(answer)
    cuts = [[], list(range(1, len(data)))] if len(data) < 5000 else [[1, 6, 70_000], [3, 2048, 90_000]]
    chance = random.Random(len(data))
    cuts += [sorted(chance.sample(range(1, len(data)), min(4, len(data) - 1))) for _ in range(20)]
    for places in cuts:
        play = Play() >> client(question) << to_server(question)
        for start, end in zip([0, *places], [*places, len(data)], strict=True):
            play >> server(data[start:end])
        play << to_client(answer)
        play << (released if answer.endswith("Z:I") else stays_linked)


@pytest.mark.parametrize(("question", "answer"), [each for each in TRANSCRIPTS if len(each[1]) < 200])
def test_a_cut_at_every_single_place_changes_nothing(question, answer):
    data = said(answer)
    for cut in range(1, len(data)):
        (Play() >> client(question) >> server(data[:cut]) >> server(data[cut:])) << to_client(answer)


def test_all_of_one_call_goes_out_with_one_write():
    play = Play() >> client("Q:one Q:two") >> server("T D:1 C Z:I T D:2 C Z:I")
    assert len(play.client_socket.written) == 1


def test_a_long_row_is_passed_on_as_it_comes_and_not_collected():
    row = said("D:" + "x" * 1_000_000)
    play = Play() >> client("Q:big") >> server(said("T") + row[:1000])
    assert len(play.hear("client")) == len(said("T")) + 1000
    for start in range(1000, len(row), 50_000):
        play >> server(row[start : start + 50_000]) << to_client(row[start : start + 50_000])
    play << stays_linked >> server("C Z:I") << to_client("C Z:I") << released


def test_a_long_error_is_passed_on_once_its_reason_is_known():
    error = said("ERROR:" + "x" * 500_000)
    play = Play() >> client("Q:bad") >> server(error[: ENOUGH_OF_AN_ERROR - 1]) << to_client("")
    play >> server(error[ENOUGH_OF_AN_ERROR - 1 : 5000]) << to_client(error[:5000])
    play >> server(error[5000:] + said("Z:I")) << to_client(error[5000:] + said("Z:I")) << released


@pytest.mark.parametrize(
    "junk", ["Z:I", "D:a", "C", "T", "1", "2", "3", "n", "s", "I", "V", "G", "H", "c", b"R\0\0\0\x08\0\0\0\0"]
)
@pytest.mark.parametrize("moment", ["idle", "linked", "in a transaction"])
def test_an_unasked_message_closes_the_server_before_a_byte_of_it_reaches_anybody(junk, moment):
    play = Play(pool_mode="session" if moment == "linked" else "transaction")
    if moment == "linked":
        play >> client("Q:one") >> server("C Z:I")
    elif moment != "idle":
        play >> client("Q:begin") >> server("C Z:T")
    play.hear("client")
    play >> server(junk)
    assert play.server.state in (CLOSING, CLOSED)
    play << (to_client("") if moment == "idle" else error_to_client("server broke the protocol"))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Q:a", "1"),
        ("Q:a", "2"),
        ("P S", "D:a"),
        ("P S", "Z:I"),
        ("S", "C"),
        ("B S", "1"),
        ("F", "C"),
        ("D S", "2"),
        ("E S", "T"),
    ],
)
def test_an_answer_to_another_question_is_unasked_too(question, answer):
    play = Play() >> client(question) >> server(answer) << error_to_client("server broke the protocol")
    assert play.server.state in (CLOSING, CLOSED)


@pytest.mark.parametrize("length", [0, 3, 0x40000010, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("kind", b"DTCZESN")
def test_an_absurd_length_closes_the_server(kind, length):
    play = Play() >> client("Q:a") >> server(bytes([kind]) + length.to_bytes(4, "big") + b"x" * 20)
    play << error_to_client("server broke the protocol")
    assert play.server.state in (CLOSING, CLOSED)


@pytest.mark.parametrize("ready", [b"Z\0\0\0\x04", b"Z\0\0\0\x05X", b"Z\0\0\0\x06II", b"Z\0\0\0\x05\0"])
def test_a_malformed_ready_for_query_closes_the_server(ready):
    play = Play() >> client("Q:a") >> server(ready) << error_to_client("server broke the protocol")
    assert play.server.state in (CLOSING, CLOSED)


@pytest.mark.parametrize("kind", b"ZSA")
def test_a_message_we_must_read_whole_may_not_be_long(kind):
    play = Play() >> client("Q:a") >> server(bytes([kind]) + (MAX_WHOLE + 1).to_bytes(4, "big") + b"x" * 20)
    play << error_to_client("server broke the protocol")


@pytest.mark.parametrize("body", [b"", b"\0", b"S", b"\0\0", b"SERROR", b"\xff" * 30 + b"\0\0"])
def test_an_error_without_fields_is_forwarded_like_any_other(body):
    error = b"E" + (len(body) + 4).to_bytes(4, "big") + body
    Play() >> client("Q:a") >> server(error + said("Z:I")) << to_client(error + said("Z:I")) << released


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


@pytest.mark.parametrize("cut", [3, 20, 60])
def test_a_server_that_dies_in_the_middle_of_a_row_does_not_have_its_row_ended_by_our_error(cut):
    row = said("D:" + "x" * 200)
    play = Play() >> client("Q:a") >> server(row[:cut]) >> server_hangs_up
    assert play.client.state is GONE
    heard = play.hear("client")
    assert heard in (row[:cut], b"") or heard.startswith(b"E"), heard


@pytest.mark.parametrize("bad", [b"D\0\0\0\0", b"Z\0\0\0\x04"])
def test_a_row_that_was_cut_is_not_ended_by_the_error_about_what_follows_it(bad):
    row = said("D:" + "x" * 200)
    play = Play() >> client("Q:a") >> server(row[:100]) << to_client(row[:100]) >> server(row[100:] + bad)
    assert row[100:].startswith(play.hear("client"))
    assert play.client.state is GONE


def test_a_client_that_breaks_the_protocol_in_the_middle_of_a_row_hears_no_error_inside_it():
    row = said("D:" + "x" * 200)
    play = Play() >> client("Q:a") >> server(row[:100]) << to_client(row[:100]) >> client(b"?\0\0\0\x04")
    play << to_client("")
    assert play.client.state is GONE


def test_a_parameter_status_is_followed_by_server_and_client():
    play = Play() >> client("Q:set") >> server("C S:TimeZone=CET Z:I") << to_client("C S:TimeZone=CET Z:I") << released
    assert play.client.followed is play.server.followed
    assert play.server.followed["TimeZone"] == "CET"
    assert ("TimeZone", "CET") in play.client.pool.proven


def test_a_parameter_nobody_follows_is_only_noted():
    play = Play() >> client("Q:set") >> server("C S:crew=on Z:I")
    assert play.server.parameters["crew"] == "on"
    assert "crew" not in play.server.followed


def test_a_parameter_that_changes_on_an_idle_server_is_set_back_for_the_next_client():
    play = Play() >> server("S:TimeZone=CET") << to_client("") << released >> client("Q:a")
    play << to_server("Q:SET_TimeZone=E'UTC' Q:a")


def test_notifications_of_nobody_are_dropped():
    Play() >> server("N:hello A:news") << to_client("") << released


def test_a_client_that_reads_slowly_pauses_its_server_and_no_longer_than_that():
    play = Play(is_slow=True) >> client("Q:big") >> server("T " + ("D:" + "x" * 1000 + " ") * 70)
    assert not play.server_socket.reads
    play >> (lambda play: play.client_socket.peer_reads())
    assert play.server_socket.reads
    play >> server("C Z:I") << released


def test_a_server_given_back_by_a_slow_client_reads_again():
    play = Play(is_slow=True) >> client("Q:big") >> server("T " + ("D:" + "x" * 1000 + " ") * 70 + "C Z:I") << released
    assert play.server_socket.reads


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


def test_what_a_client_that_left_is_still_owed_reaches_nobody():
    play = Play() >> client("Q:a X") << to_server("Q:a")
    assert play.server.state is CLEANING
    play >> server("T D:secret C Z:I") << to_client("")
    assert play.server.state is IDLE
