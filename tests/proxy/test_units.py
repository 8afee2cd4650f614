"""One client's unit in a line: cancelled, hit in the place of another, run again, never twice where it was heard of."""

import pytest

from protocol import sqlstate
from protocol.backend import build_error
from proxy.states import GONE, IDLE, LINED, RESTING, WAITING
from tests.lined import (
    ANSWER,
    Lined,
    another_server,
    answers,
    asks,
    cancel_arrives,
    cancels,
    free,
    hangs_up,
    says,
    sent,
    sent_for,
    server_hangs_up,
    silence,
    to,
    told,
)
from tests.play import said

CANCELED = build_error("ERROR", sqlstate.QUERY_CANCELED, "canceling statement due to user request")
READY = said("Z:I")


def in_line(names="a b c", **limits):
    return Lined(names.replace(" ", ""), **limits) >> asks(names) >> free() << sent_for(names)


def rows(name):
    return said(ANSWER.replace("ME", name))


# Cancelling.


def test_the_cancel_of_a_head_is_its_own():
    play = in_line("a b") >> cancels("a")
    assert play.world.cancels == [play.server]
    play >> says(CANCELED + READY + rows("b")) << to("a", CANCELED + READY) << to("b")
    play >> cancel_arrives()
    assert play.server.state is IDLE


def test_who_is_hit_by_his_neighbours_cancel_runs_again_and_never_hears_of_it():
    play = in_line() >> cancels("a") >> answers("a") << to("a")
    play >> cancel_arrives() >> says(CANCELED + READY) << silence("b")  # it came too late for a
    assert play.clients["b"].state is LINED
    play >> answers("c") << to("c") << sent_for("b") >> answers("b") << to("b")
    assert play.server.state is IDLE


@pytest.mark.parametrize("size", [1, 3, 8, 40])
def test_however_the_error_is_cut(size):
    play = in_line() >> cancels("a") >> answers("a") << to("a")
    data = CANCELED + READY + rows("c")
    for at in range(0, len(data), size):
        play >> says(data[at : at + size])
    play << silence("b") << to("c") >> cancel_arrives() << sent_for("b") >> answers("b") << to("b")


def test_while_a_cancel_is_on_its_way_nobody_joins_the_line():
    play = in_line("a b c") >> cancels("a") >> answers("a b") << to("a") << to("b") >> asks("a b") << sent()
    play >> answers("c") >> cancel_arrives() << sent_for("a b") >> answers("a b") << to("a") << to("b")


def test_one_whose_first_rows_came_before_the_hit_has_not_heard_them_and_runs_again():
    play = in_line("a b") >> cancels("a") >> answers("a") << to("a") >> says("T D:b") << silence("b")
    play >> says(CANCELED + READY) << silence("b") >> cancel_arrives() << sent_for("b") >> answers("b") << to("b")


def test_nor_one_whose_rows_come_in_the_same_piece_as_the_error():
    play = in_line("a b") >> cancels("a") >> says(rows("a") + said("T D:b") + CANCELED + READY) << to("a")
    play << silence("b") >> cancel_arrives() << sent_for("b") >> answers("b") << to("b")


@pytest.mark.parametrize(
    "pieces", [["T D:b", "C Z:I"], ["T", "D:b C Z:I"], ["T D:b C", "Z:I"], ["T", "D:b", "C", "Z:I"]]
)
@pytest.mark.parametrize("behind", ["", "T D:c C:SELECT_1 Z:I", "T D:c"])
def test_what_was_kept_back_of_an_answer_that_goes_well_is_heard_with_the_rest(pieces, behind):
    play = in_line("a b c") >> cancels("a") >> answers("a") << to("a")
    for piece in pieces[:-1]:
        play >> says(piece) << silence("b")
    play >> says(f"{pieces[-1]} {behind}") << to("b", " ".join(pieces))


def test_one_that_was_heard_before_the_cancel_was_asked_for_is_not_run_twice():
    play = in_line("b a") >> says("T D:b") << to("b", "T D:b") >> cancels("a") >> says(CANCELED + READY)
    play << to("b", CANCELED + READY) >> cancel_arrives() >> answers("a") << to("a")


def test_what_is_kept_back_is_bounded():
    play = in_line("a b") >> cancels("a") >> answers("a") << to("a") >> says("T") << silence("b")
    play >> says("D:" + "x" * 70_000) << to("b", "T D:" + "x" * 70_000)
    play >> says(CANCELED + READY) << to("b", CANCELED + READY)


def test_what_was_kept_back_is_heard_when_the_server_dies():
    play = in_line("a b") >> cancels("a") >> answers("a") << to("a") >> says("T D:b") << silence("b")
    play >> server_hangs_up()
    heard = play.hear("b", play.socket("b"))
    assert heard.startswith(said("T D:b") + b"E")


def test_a_timeout_of_the_server_is_heard_where_no_cancel_is_about():
    in_line("a b") >> says(CANCELED + READY) << to("a", CANCELED + READY)


def test_who_wanted_a_cancel_and_is_hit_by_anothers_has_what_he_wanted():
    play = in_line("a b") >> cancels("a") >> cancels("b") >> answers("a") << to("a")
    play >> says(CANCELED + READY) << to("b", CANCELED + READY)


def test_who_is_hit_again_and_again_has_a_server_of_his_own_in_the_end():
    play = in_line("b")
    play >> asks("z") << sent_for("z") >> cancels("z") >> says(CANCELED + READY) << silence("b")
    play >> answers("z") >> cancel_arrives() << sent_for("b")
    play >> asks("z") >> cancels("z") >> says(CANCELED + READY) << silence("b")
    assert play.clients["b"].state is WAITING
    play >> answers("z") >> cancel_arrives()
    assert play.clients["b"].server is play.server
    play >> says(CANCELED + READY) << to("b", CANCELED + READY)


def test_a_unit_that_has_not_been_sent_is_cancelled_here():
    play = Lined() >> asks("a b") >> cancels("a") << to("a", CANCELED + READY)
    assert not play.world.cancels
    assert play.clients["a"].state is RESTING
    play >> free() << sent_for("b") >> answers("b") << to("b")
    play >> asks("a") << sent_for("a") >> answers("a") << to("a")


def test_its_client_may_ask_at_once_and_stands_at_the_end():
    play = Lined() >> asks("a b") >> cancels("a") << to("a", CANCELED + READY) >> asks("a")
    play >> free() << sent_for("b a")


def test_a_cancel_for_who_has_been_answered_hits_nobody():
    play = in_line("a b") >> answers("a") << to("a") >> cancels("a")
    assert not play.world.cancels
    play >> answers("b") << to("b")


def test_who_leaves_from_the_head_is_cancelled_and_who_is_hit_instead_runs_again():
    play = in_line("a b") >> hangs_up("a") >> says(rows("a")) >> says(CANCELED + READY) << silence("a b")
    play >> cancel_arrives() << sent_for("b") >> answers("b") << to("b")


# Leaving, losing.


def test_what_ran_again_may_lose_its_server_too():
    play = in_line("a b") >> cancels("a") >> answers("a") >> says(CANCELED + READY) >> cancel_arrives()
    play << sent_for("b") >> server_hangs_up() << told("b", "crashed?")
    assert play.clients["b"].state is GONE


def test_what_is_to_run_again_may_be_left_by_its_client():
    play = in_line("a b") >> cancels("a") >> answers("a") >> says(CANCELED + READY) >> hangs_up("b")
    play >> cancel_arrives() << sent()
    assert play.server.state is IDLE
    assert not play.lines.pending


# One after another.


def test_a_second_question_waits_for_the_first_answer():
    play = in_line("a b") >> asks("a", "Q:select_'a2'") << sent()
    assert play.clients["a"].carry
    play >> answers("a b") << to("a") << to("b") << sent("Q:select_'a2'")
    play >> says(ANSWER, "a2") << to("a", ANSWER.replace("ME", "a2"))


def test_several_at_once_are_no_unit_and_go_the_usual_way():
    play = Lined("ab") >> asks("b") >> asks("a", "Q:select_'a' Q:select_'a2'") >> free()
    play << sent_for("b") >> answers("b") << to("b") << sent("Q:select_'a' Q:select_'a2'")


@pytest.mark.parametrize("words", ["X", "Q:begin", "S", "PARSE:a=select_1 S", "Q:insert", "Q:select_'a' Q:select_'b'"])
def test_whatever_comes_behind_is_done_behind(words):
    play = in_line("a b") >> asks("a", words) << sent() >> answers("a b") << to("a") << to("b")
    if words == "X":
        assert play.clients["a"].state is GONE
    elif words.startswith("PARSE"):
        assert play.clients["a"].server is play.server
    else:
        play << sent(words)


def test_a_client_that_floods_from_its_place_in_line_is_not_read_any_more():
    play = in_line("a b")
    while play.socket("a").reads:
        play >> asks("a", "Q:" + "x" * 1000)
        assert len(play.clients["a"].carry) < 100_000
    play >> answers("a b")
    assert play.clients["a"].server is play.server
    assert play.socket("a").reads


def test_a_goodbye_and_a_broken_message_behind_a_unit():
    play = in_line("a b") >> asks("a", b"!\0\0\0\4") >> answers("a")
    heard = play.hear("a", play.socket("a"))
    assert heard.startswith(rows("a"))
    assert b"invalid frontend message type" in heard
    assert play.clients["a"].state is GONE
    play >> answers("b") << to("b")


# Memory.


def test_a_unit_forgets_its_client_when_that_is_served():
    play = in_line("a b")
    unit = play.unit("a")
    play >> answers("a b")
    assert play.clients["a"].unit is None
    assert play.clients["a"].state is RESTING
    assert unit not in play.lines.pending


def test_the_next_question_after_an_answer_is_another_unit():
    play = in_line("a b") >> answers("a") >> asks("a") << sent_for("a")
    assert [unit.client for unit in play.line.units] == [play.clients["b"], play.clients["a"]]
    play >> answers("b a") << to("b") << to("a", ANSWER.replace("ME", "a") + " " + ANSWER.replace("ME", "a"))


def test_a_server_that_dies_between_a_hit_and_its_ready_for_query():
    """b was hit, and runs again on another server; what dies here is nothing of its own."""
    play = in_line("a b c") >> cancels("a") >> answers("a") << to("a") >> says(CANCELED) << silence("b")
    play >> server_hangs_up() >> another_server() << silence("b")
    play << sent_for("c b", server=1) >> answers("c b", server=1) << to("c") << to("b")


def test_last_words_of_a_server_are_heard_behind_what_was_kept_back():
    play = in_line("a b") >> cancels("a") >> answers("a") << to("a") >> says("T D:b FATAL:bye") >> server_hangs_up()
    play << to("b", "T D:b FATAL:bye")
    assert play.clients["b"].state is GONE


def test_who_leaves_while_something_is_kept_back_for_him():
    play = in_line("a b c") >> cancels("a") >> answers("a") << to("a") >> says("T D:b") >> hangs_up("b")
    play >> says("C Z:I " + ANSWER, "c") << silence("b") << to("c")
