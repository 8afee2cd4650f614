"""A line: several clients' units behind one another on one server, and each hears its own answer and nothing else."""

import pytest

from protocol.backend import build_error, build_parameter_status
from proxy.states import CLOSED, CLOSING, GONE, IDLE, LINED, LINKED, RESTING, WAITING, Closing
from tests.lined import (
    ANSWER,
    Lined,
    another_server,
    answers,
    asks,
    cancels,
    free,
    hangs_up,
    passes,
    says,
    sent,
    sent_for,
    server_hangs_up,
    silence,
    to,
    told,
)
from tests.play import said


def in_line(names="a b c", **limits):
    """These stand in line on the only server."""
    return Lined(names.replace(" ", ""), **limits) >> asks(names) >> free() << sent_for(names)


# Answers.


def test_units_travel_together_and_each_client_hears_its_own_answer():
    play = Lined() >> asks("a b c") << sent() >> free() << sent_for("a b c")
    assert len(play.server_socket(0).written) == 2  # begin, and these three in one
    play >> answers("a b c") << to("a") << to("b") << to("c")
    assert play.server.state is IDLE


def test_answers_come_one_by_one():
    play = in_line()
    for name in "abc":
        assert play.clients[name].state is LINED
        play >> answers(name) << to(name)
        assert play.clients[name].state is RESTING
    assert play.server.state is IDLE


@pytest.mark.parametrize("size", [1, 2, 5, 7, 23, 60])
def test_answers_cut_anywhere(size):
    play, stream = in_line(), b"".join(said(ANSWER.replace("ME", name)) for name in "abc")
    for at in range(0, len(stream), size):
        play >> says(stream[at : at + size])
    play << to("a") << to("b") << to("c")
    assert play.server.state is IDLE


def test_an_error_is_for_its_own_client_and_those_behind_are_none_the_worse():
    play = in_line() >> says("T D:a ERROR:zero Z:I") << to("a", "T D:a ERROR:zero Z:I") << silence("b c")
    play >> says("ERROR:mine Z:I " + ANSWER, "c") << to("b", "ERROR:mine Z:I") << to("c")


def test_a_notice_goes_to_whose_unit_runs():
    play = in_line() >> says("N:careful " + ANSWER, "a") << to("a", "N:careful " + ANSWER) << silence("b")
    play >> says("T N:mine") >> says("D C Z:I N:early") << to("b", "T N:mine D C Z:I") << to("c", "N:early")


def test_an_answer_in_pieces_with_others_around_it():
    play = in_line() >> says(ANSWER + " T D:b", "a") << to("a") << to("b", "T D:b") << silence("c")
    play >> says("D:b2 C:SELECT_2 Z:I " + ANSWER, "c") << to("b", "D:b2 C:SELECT_2 Z:I") << to("c")


@pytest.mark.parametrize("message", ["D:", "ERROR:"])
def test_what_a_message_holds_is_never_taken_for_an_answer_to_anybody(message):
    """However the network cuts it: a piece that looks like whole answers is still a piece of that row, and his."""
    forged = said("C:SELECT_1 Z:I T D:forged C:SELECT_1 Z:I")
    begin, _, end = said(message + "x" * 1000 + "#" * len(forged) + "y").partition(b"#" * len(forged))
    end += said("C:SELECT_1 Z:I" if message == "D:" else "Z:I")
    play = in_line() >> says(said("T") + begin) >> says(forged) << silence("b") << silence("c")
    play >> says(end) << to("a", said("T") + begin + forged + end)
    play >> answers("b c") << to("b") << to("c")
    assert play.server.state is IDLE


# A hostile server.


@pytest.mark.parametrize(
    "words", ["Z:T", "C Z:E", "C:BEGIN Z:T", "T D C Z:I T D C Z:T", "1 C Z:I", "V Z:I", "T t", "S:a=b Z:T"]
)
def test_what_nobody_asked_for_ends_the_server_and_those_behind_run_elsewhere(words):
    play = in_line() >> says(words)
    assert play.server.state in (CLOSING, CLOSED)
    left = [name for name in "abc" if play.clients[name].state is LINED]
    assert left in (["b", "c"], ["c"], [])  # whoever is at the head may have begun
    if left:
        play >> another_server()
        play << sent_for(" ".join(left), server=1) >> answers(" ".join(left), server=1)
    for name in left:
        play << to(name)


@pytest.mark.parametrize("ready", [b"Z\0\0\0\5X", b"Z\0\0\0\6II", b"Z\0\0\0\4"])
def test_a_ready_for_query_that_is_none_ends_the_server_and_whose_it_was_to_be_hears_so(ready):
    play = in_line("a b") >> says(said("C") + ready) << told("a", "server broke the protocol")
    assert play.server.state in (CLOSING, CLOSED)
    play >> server_hangs_up() >> another_server() << sent_for("b", server=1) >> answers("b", server=1) << to("b")


def test_one_ready_for_query_too_many_is_not_heard_by_anybody():
    play = in_line("a") >> says("C Z:I Z:I") << to("a", "C Z:I")
    assert play.server.state in (CLOSING, CLOSED)


def test_nor_in_the_middle_of_a_line():
    """It would be the whole answer of the next: an empty one. PostgreSQL never says so to a query."""
    play = in_line("a b") >> says("C Z:I Z:I") << to("a", "C Z:I") << to("b", "Z:I")
    assert play.clients["b"].state is RESTING
    play >> says("T D:b C Z:I") << silence("a b")
    assert play.server.state in (CLOSING, CLOSED)


# A server that dies.


def test_when_its_server_dies_the_head_hears_so_and_those_behind_run_elsewhere():
    play = in_line() >> server_hangs_up() << told("a", "server conn crashed?")
    assert play.clients["a"].state is GONE
    play >> another_server() << sent_for("b c", server=1) >> answers("b c", server=1) << to("b") << to("c")


def test_who_stood_behind_it_and_wanted_a_cancel_runs_nowhere_else():
    play = in_line() >> cancels("b") >> server_hangs_up() << told("a", "server conn crashed?")
    play << to("b", build_error("ERROR", "57014", "canceling statement due to user request") + said("Z:I"))
    play >> another_server() << sent_for("c", server=1) >> answers("c", server=1) << to("c")


def test_a_fatal_is_the_heads_and_nobody_elses():
    play = in_line() >> says("FATAL:shutdown") << to("a", "FATAL:shutdown") >> server_hangs_up()
    assert play.clients["a"].state is GONE
    play << silence("a b c") >> another_server() << sent_for("b c", server=1)
    play >> answers("b c", server=1) << to("b") << to("c")


def test_between_two_answers_the_next_is_the_head():
    play = in_line() >> answers("a") << to("a") >> says("FATAL:shutdown") >> server_hangs_up()
    assert play.clients["b"].state is GONE
    play >> another_server() << sent_for("c", server=1)


def test_a_head_that_has_heard_some_rows_never_runs_twice():
    play = in_line("a b") >> says("T D:a") << to("a", "T D:a") >> server_hangs_up() << told("a", "crashed?")
    play >> another_server() << sent_for("b", server=1)


def test_a_head_cut_in_the_middle_of_a_message_hears_no_more():
    play = in_line("a b") >> says(said("T D:" + "a" * 5000)[:-9])
    play.hear("a", play.socket("a"))
    play >> server_hangs_up() << silence("a")
    assert play.clients["a"].state is GONE
    play >> another_server() << sent_for("b", server=1)


def test_who_has_lost_two_servers_has_the_next_for_himself():
    play = in_line("a b c")
    for number, left in enumerate(["b c", "c"]):
        play >> server_hangs_up(number) >> passes(20.0) >> (lambda play: play.pool.grow()) >> another_server()
        play << sent_for(left, server=number + 1)
    assert play.clients["c"].server is play.servers[2]
    play >> answers("c", server=2) << to("c")


def test_those_who_have_lost_two_servers_keep_their_order_and_who_came_later_stands_behind_them():
    play = in_line("a b c d e f") >> server_hangs_up() >> another_server() << sent_for("b c d e f", server=1)
    play >> asks("z") >> server_hangs_up(1) >> passes(20.0) >> (lambda play: play.pool.grow())
    assert [play.name_of(client) for client in play.pool.waiting if not client.is_line] == ["c", "d", "e", "f"]
    play >> another_server() << sent_for("c", server=2)
    for name, following in zip("cdef", "defz", strict=True):
        play >> answers(name, server=2) << to(name) << sent_for(following, server=2)


# Clients that leave.


def test_who_leaves_from_behind_is_answered_to_nobody():
    play = in_line() >> hangs_up("b")
    assert not play.world.cancels
    play >> answers("a b c") << to("a") << to("c") << silence("b")
    assert play.server.state is IDLE


def test_who_leaves_at_the_head_is_cancelled_and_its_neighbour_is_safe():
    play = in_line() >> hangs_up("a")
    assert play.world.cancels == [play.server]
    play >> says("ERROR:canceled Z:I " + ANSWER, "b") << to("b") << silence("a c")


def test_who_leaves_in_the_middle_of_its_answer():
    play = in_line("a b") >> says(said("T D:" + "a" * 500)[:-20])
    play.hear("a", play.socket("a"))
    play >> hangs_up("a") >> says(said("T D:" + "a" * 500)[-20:] + said("C Z:I")) << silence("a b")
    play >> answers("b") << to("b")


def test_who_leaves_before_it_is_sent_is_never_sent():
    Lined("abc") >> asks("a b c") >> hangs_up("b") >> free() << sent_for("a c")


def test_a_line_nobody_stands_in_any_more_keeps_no_server():
    play = Lined("ab") >> asks("a b") >> hangs_up("a") >> hangs_up("b") >> free()
    assert play.server.state is IDLE
    assert not play.pool.waiting


def test_nor_does_one_whose_units_have_left_before_it_took_an_idle_one():
    play = Lined("a", servers=2)

    def comes_and_goes(play):
        asks("a")(play)
        hangs_up("a")(play)

    play >> comes_and_goes
    assert play.servers[0].state is IDLE


# Flow control.


BIG = "x" * 60_000


def test_who_does_not_read_holds_the_server_and_nobody_is_read_for_him_without_bound():
    play = Lined("b")
    slow = play.join("a", is_slow=True)
    play >> asks("a b") >> free() << sent_for("a b") >> says("T")
    while play.server_socket(0).reads:
        play >> says(f"D:{BIG}")
        assert slow.transport.get_write_buffer_size() < 1_200_000
    play >> (lambda play: slow.transport.peer_reads())
    assert play.server_socket(0).reads
    play >> says("C Z:I " + ANSWER, "b") << to("b")


def test_what_crosses_the_bound_with_its_last_piece_leaves_no_server_unread():
    play = Lined("b")
    slow = play.join("a", is_slow=True)
    play >> asks("a") >> free() >> says("T " + f"D:{BIG} " * 17)
    assert play.server_socket(0).reads
    play >> says(f"D:{BIG} D:{BIG} D:{BIG} C Z:I")
    assert slow.state is RESTING
    assert play.server.state is IDLE
    assert play.server_socket(0).reads


def test_who_leaves_while_he_holds_the_server_lets_it_go():
    play = Lined("b")
    play.join("a", is_slow=True)
    play >> asks("a b") >> free() >> says("T")
    while play.server_socket(0).reads:
        play >> says(f"D:{BIG}")
    play >> (lambda play: play.socket("a").peer_breaks())
    assert play.server_socket(0).reads
    play >> says("C Z:I " + ANSWER, "b") << to("b")


def test_nobody_is_sent_to_a_server_that_does_not_read():
    play = in_line("a b c d")
    play.server.pause_writing()
    play >> answers("a b") >> asks("a b") << sent()
    assert play.clients["a"].state is LINED
    play >> (lambda play: play.server.resume_writing()) << sent_for("a b") >> answers("c d a b")


# Parameters.


def test_a_unit_with_other_parameters_has_a_set_in_front_whose_answer_reaches_nobody():
    play = Lined("ab")
    play.join("c", TimeZone="app")
    play.pool.prove([("TimeZone", "app"), ("TimeZone", "UTC")])
    play >> asks("a c b") >> free()
    play << sent("Q:select_'a'", "Q:SET_TimeZone=E'app'", "Q:select_'c'", "Q:SET_TimeZone=E'UTC'", "Q:select_'b'")
    play >> answers("a") << to("a")
    play >> says("C:SET S:TimeZone=app Z:I " + ANSWER, "c") << to("c") << silence("a b")
    play >> says("C:SET S:TimeZone=UTC Z:I " + ANSWER, "b") << to("b")
    assert {play.clients[name].followed["TimeZone"] for name in "ab"} == {"UTC"}
    assert play.clients["c"].followed["TimeZone"] == "app"
    assert play.server.followed["TimeZone"] == "UTC"


def test_a_value_that_no_server_has_proven_travels_with_nobody():
    play = Lined("a")
    odd = play.join("c", TimeZone="odd")
    play >> asks("c a") >> free() << sent_for("a") >> answers("a") << to("a")
    assert odd.server is play.server
    play << sent("Q:SET_TimeZone=E'odd'") >> says("C:SET S:TimeZone=odd Z:I") << sent_for("c")
    play >> answers("c") << to("c")


def test_a_unit_that_goes_alone_does_not_leave_its_line_with_a_server():
    """One server is idle, and the line takes it for a unit that may not travel."""
    play = Lined("a", servers=2)
    play.join("c", TimeZone="odd")
    play >> asks("c")
    assert play.clients["c"].server is play.servers[0]


def test_a_set_that_fails_after_all_is_told_by_a_server_of_his_own_to_whoever_relied_on_it():
    play = Lined("ab")
    play.join("c", TimeZone="CET")
    play.pool.prove([("TimeZone", "CET"), ("TimeZone", "UTC")])
    play >> asks("a c b") >> free() >> answers("a") << to("a") >> says("ERROR:no Z:I") << silence("b c")
    assert play.server.doomed is Closing.SET_FAILED
    assert [play.clients[name].state for name in "cb"] == [WAITING, LINED]
    play >> says(ANSWER, "c") >> says("C:SET Z:I " + ANSWER, "b") << silence("b c")  # under what parameters?
    assert play.server.state in (CLOSING, CLOSED)
    play >> server_hangs_up() >> another_server() << sent("Q:SET_TimeZone=E'CET'", "Q:select_'c'", server=1)
    play >> says("ERROR:no Z:I", server=1) >> answers("c", server=1)
    heard = play.hear("c", play.socket("c"))
    assert heard[:1] == b"E"
    assert play.clients["c"].state is GONE


def test_a_parameter_that_changes_by_itself_is_told_to_whose_unit_runs_and_the_line_looks_anew():
    """SIGHUP on the server. Whoever comes after those who have been sent gets what he believes in."""
    play = in_line() >> says("S:TimeZone=CET " + ANSWER, "a") << to("a", "S:TimeZone=CET " + ANSWER)
    assert play.server.followed["TimeZone"] == "CET"
    play.pool.prove([("TimeZone", "UTC")])
    play >> asks("a") << sent() >> answers("b c") << to("b") << to("c")
    play << sent("Q:SET_TimeZone=E'UTC'", "Q:select_'a'") >> says("C:SET S:TimeZone=UTC Z:I " + ANSWER, "a") << to("a")


def test_a_notification_or_parameter_between_units_is_no_answer():
    play = in_line("a b") >> answers("a") << to("a") >> says(build_parameter_status("is_superuser", "on"))
    play >> answers("b") << to("b", build_parameter_status("is_superuser", "on") + said(ANSWER.replace("ME", "b")))


# Timeouts, and what an administrator does.


def test_to_the_pool_a_line_is_a_client():
    play = in_line()
    line = play.line
    assert line.server is play.server
    assert play.server.state is LINKED
    assert line.user == "web"
    assert line.tag == play.clients["a"].tag
    assert line.address == play.clients["a"].address
    assert "3 units" in repr(line)
    play >> answers("a b c")
    assert line.tag.database == "shop" if hasattr(line.tag, "database") else line.tag
    assert line.address == ("", 0)


def test_a_doomed_server_takes_nobody_in_and_leaves_when_it_has_run_empty():
    play = in_line()
    play.pool.retire_servers(Closing.RECONNECT)
    play >> answers("a") << to("a") >> asks("a") << sent() >> answers("b c") << to("b") << to("c")
    assert play.server.state in (CLOSING, CLOSED)
    play >> server_hangs_up() >> another_server() << sent_for("a", server=1) >> answers("a", server=1) << to("a")


def test_closing_a_line_closes_whose_unit_runs():
    play = in_line()
    play >> (lambda play: play.line.close(Closing.ADMIN)) << told("a", "admin forced disconnect")
    play >> answers("a b c") << to("b") << to("c") << silence("a")


def test_time_passes_for_the_head_alone():
    play = in_line() >> passes(2.0) >> answers("a") >> passes(1.0)
    assert play.line.request_at == play.world.clock.now() - 1.0


def test_an_idle_server_that_takes_nothing_is_waited_for_and_not_asked_again_and_again():
    """Its socket is full of the data of a COPY that has failed."""
    play = Lined("ab", servers=2)
    play.servers[0].pause_writing()
    play >> asks("a") << sent()
    assert play.clients["a"].state is LINED
    play >> (lambda play: play.servers[0].resume_writing()) << sent_for("a") >> answers("a") << to("a")
    assert play.servers[0].state is IDLE


def test_if_nobody_waits_for_it_any_more_it_is_given_back():
    play = Lined("ab", servers=2)
    play.servers[0].pause_writing()
    play >> asks("a") >> hangs_up("a") >> (lambda play: play.servers[0].resume_writing()) << sent()
    assert play.servers[0].state is IDLE
