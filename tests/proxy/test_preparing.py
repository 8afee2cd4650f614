"""Rounds of named statements in lines: a server that lacks one is given it, and no client hears of that."""

from types import SimpleNamespace

import pytest

from protocol.backend import ErrorFields, build_row_description
from protocol.prepared import Statement
from proxy.patience import Patience
from proxy.session import Session
from proxy.states import ACTIVE, CLOSED, CLOSING, GONE, IDLE, LINED, RESTING, WAITING, Closing
from tests.lined import (
    ANSWER,
    PLAIN,
    Lined,
    another_server,
    answers,
    asks,
    cancel_arrives,
    cancels,
    free,
    hangs_up,
    passes,
    says,
    sent,
    server_hangs_up,
    silence,
    to,
)
from tests.play import said

ROUND = "B:x E S"
MINE = "B:PGSHUTTLE_1 E S"
GOOD = "2 D:ME C:SELECT_1 Z:I"
BRING = "OURS:1=select_1 S"
BROUGHT = "1 t T Z:I"


def prepared(names="a b", servers=1, *, known=True, **limits):
    """Each has parsed `select 1` as x; the server knows it, or not. Then the servers are busy again."""
    play = Lined(names.replace(" ", ""), servers, busy=0, session_state="track", **limits)
    for name in names.split():
        play >> asks(name, "PARSE:x=select_1 S")
        is_new = b"select 1" in play.hear(servers - 1, play.server_socket(servers - 1))
        play >> says(BROUGHT if is_new else "1 Z:I", server=servers - 1) << to(name, "1 Z:I")
    for number, name in zip(range(servers), "zyx", strict=False):
        play.join(name)
        play >> asks(name, "Q:begin") << sent("Q:begin", server=servers - 1 - number)
    if not known:
        for server in play.servers:
            server.statements.clear()
    return play


def test_rounds_of_a_statement_the_server_has_travel_together_under_our_name():
    play = prepared("a b c") >> asks("a b c", ROUND) << sent() >> free() << sent(MINE, MINE, MINE)
    play >> answers("a b c", GOOD) << to("a", GOOD) << to("b", GOOD) << to("c", GOOD)
    assert play.server.state is IDLE


ODD = {
    "session": Session,  # with a lock, see below
    "stall": lambda: SimpleNamespace(is_over=False, note=lambda _: None),
    "followed": lambda: {"work_mem": "a value that no server has taken"},
}


@pytest.mark.parametrize("words", [PLAIN, ROUND, "PARSE:=select_1 B D E S"])
@pytest.mark.parametrize("what", [None, *ODD])
def test_nobody_shares_who_has_something_that_only_his_own_server_may_see(words, what):
    """Also behind one who is like everybody: that he may share says nothing of the next."""
    play = prepared("a b c") >> asks("b", words)
    assert play.clients["b"].state is LINED
    client = play.clients["a"]
    if what is not None:
        setattr(client, what, ODD[what]())
    if what == "session":
        client.session.pins["lock"] = None
    play >> asks("a", words)
    assert client.state is (LINED if what is None else WAITING)


def test_described_rounds_too_cut_anywhere():
    play = prepared() >> asks("a b", "B:x D E S") >> free() << sent("B:PGSHUTTLE_1 D E S", "B:PGSHUTTLE_1 D E S")
    words = "2 T D:ME C:SELECT_1 Z:I"
    data = b"".join(said(words.replace("ME", name)) for name in "ab")
    for at in range(0, len(data), 9):
        play >> says(data[at : at + 9])
    play << to("a", words) << to("b", words)


def test_what_the_server_lacks_is_brought_once_and_those_who_need_it_wait():
    play = prepared(known=False) >> asks("a b", ROUND) >> free() << sent(BRING)
    assert [play.clients[name].state for name in "ab"] == [LINED, LINED]
    play >> says(BROUGHT) << silence("a b") << sent(MINE, MINE)
    play >> answers("a b", GOOD) << to("a", GOOD) << to("b", GOOD)
    assert play.server.state is IDLE


def test_those_who_need_nothing_are_not_held_up_by_it():
    play = prepared("a b", known=False)
    play.join("c")
    play >> asks("c") >> asks("a", ROUND) >> asks("b", "Q:select_'b'") >> free()
    play << sent("Q:select_'c'", BRING, "Q:select_'b'")
    play >> says(ANSWER, "c") << to("c") >> says(BROUGHT + " " + ANSWER, "b") << to("b") << silence("a")
    play << sent(MINE) >> says(GOOD, "a") << to("a", GOOD)


def test_if_it_cannot_be_made_a_server_of_its_own_says_why():
    play = prepared("a b", known=False) >> asks("a", ROUND) >> asks("b", "Q:select_'b'") >> free()
    play << sent(BRING, "Q:select_'b'") >> says("ERROR:gone Z:I") << silence("a")
    assert play.clients["a"].state is WAITING
    play >> says(ANSWER, "b") << to("b")
    assert play.clients["a"].state is ACTIVE
    heard = play.hear(0, play.server_socket(0))
    assert b"PGSHUTTLE_1" in heard
    play >> says("ERROR:gone Z:I") << to("a", "ERROR:gone Z:I")


def test_if_its_columns_are_others_by_now_it_is_asked_for_alone():
    play = prepared("a b", known=False) >> asks("a", ROUND) >> free() << sent(BRING)
    other = build_row_description([("token", 23, -1), ("more", 25, -1)])
    play >> says(said("1 t") + other + said("Z:I"))
    assert play.clients["a"].server is play.server
    assert play.clients["a"].unit is None


def test_a_plan_that_is_stale_is_run_again_alone_and_the_error_unheard():
    play = prepared("a b") >> asks("a b", ROUND) >> free() << sent(MINE, MINE)
    play >> says("STALE Z:I") << silence("a") >> says(GOOD, "b") << to("b", GOOD)
    assert play.clients["a"].server is play.server
    heard = play.hear(0, play.server_socket(0))
    assert b"select 1" in heard  # made again
    assert heard.endswith(b"S\0\0\0\4") or heard.endswith(b"H\0\0\0\4")


def test_what_somebody_dropped_behind_our_back_is_made_again():
    play = prepared("a b") >> asks("a b", ROUND) >> free() << sent(MINE, MINE)
    play >> says("MISSING:PGSHUTTLE_1 Z:I MISSING:PGSHUTTLE_1 Z:I") << silence("a b")
    assert {play.clients[name].state for name in "ab"} == {ACTIVE, WAITING}
    heard = play.hear(0, play.server_socket(0))
    assert b"select 1" in heard


def test_an_error_about_another_statement_is_its_own():
    play = prepared("a b") >> asks("a", ROUND) >> free()
    play >> says("MISSING:other Z:I") << to("a", "MISSING:other Z:I")


def test_an_error_that_names_ours_names_his_to_him():
    play = prepared("a b") >> asks("a b", ROUND) >> free()
    play >> says("TAKEN:PGSHUTTLE_1 Z:I") << to("a", "TAKEN:x Z:I") >> says(GOOD, "b") << to("b", GOOD)


def test_a_round_whose_rows_have_been_heard_is_not_run_again():
    play = prepared("a b") >> asks("a b", ROUND) >> free() >> says("2 D:a") >> says("STALE Z:I")
    heard = play.hear("a", play.socket("a"))
    assert heard.startswith(said("2 D:a") + b"E")
    assert play.clients["a"].state is RESTING


def test_who_waits_for_a_statement_may_leave_or_cancel():
    play = prepared("a b c", known=False) >> asks("a b c", ROUND) >> free() << sent(BRING)
    play >> hangs_up("a") >> cancels("b")
    assert b"57014" in play.hear("b", play.socket("b"))
    play >> says(BROUGHT) << sent(MINE) >> says(GOOD, "c") << to("c", GOOD) << silence("a b")
    assert not play.world.cancels


def test_if_all_who_waited_have_left_the_server_is_free():
    play = prepared("a b", known=False) >> asks("a", ROUND) >> free() << sent(BRING) >> hangs_up("a") >> says(BROUGHT)
    assert play.server.state is IDLE
    assert play.server.statements


def test_a_server_that_dies_with_the_statement_on_its_way():
    play = prepared("a b", known=False) >> asks("a b", ROUND) >> free() << sent(BRING) >> server_hangs_up()
    assert play.server.state is CLOSED
    play << silence("a b") >> passes(20.0) >> (lambda play: play.pool.grow()) >> another_server()
    play << sent(BRING, server=1) >> says(BROUGHT, server=1) << sent(MINE, MINE, server=1)
    play >> answers("a b", GOOD, server=1) << to("a", GOOD) << to("b", GOOD)


def test_if_it_is_waited_for_too_long_each_has_a_server_of_his_own_and_what_was_sent_is_cancelled():
    """A Parse takes a lock too."""
    play = prepared("a b", 2, known=False, pipeline_stall_ms=250)
    play >> asks("a b", ROUND) >> free(0) << sent(BRING) >> free(1) >> passes(0.2)
    assert [play.clients[name].state for name in "ab"] == [LINED, LINED]
    play >> passes(0.3) >> passes(0.3)
    assert [play.clients[name].state for name in "ab"] == [ACTIVE, WAITING]
    assert play.clients["a"].server is play.servers[1]
    assert play.world.cancels == [play.servers[0]]
    play >> says("ERROR:canceled Z:I") >> cancel_arrives(0) << silence("a b")
    assert play.clients["b"].server is play.servers[0]


def test_a_timeout_of_what_is_ours_is_said_to_no_bystander():
    play = prepared("a b", known=False) >> asks("a b", ROUND) >> free() << sent(BRING)
    (line,) = [line for line in play.lines.members if line.server is not None]
    with play.world.loop.running():
        line.refuse(ErrorFields("FATAL", "57014", "query timeout"), Closing.QUERY_TIMEOUT)
    play << silence("a b")


def test_when_there_is_room_for_one_the_other_goes_and_all_are_answered():
    play = prepared("a b", known=False, max_prepared_statements=1)
    play >> asks("a", ROUND) >> free() << sent(BRING) >> says(BROUGHT) << sent(MINE) >> says(GOOD, "a") << to("a", GOOD)
    assert len(play.server.statements) == 1


def test_a_round_of_the_unnamed_statement_travels_as_it_is():
    words = "PARSE:=select_1 B D E S"
    play = prepared("a b") >> asks("a b", words) >> free() << sent(words, words)
    good = "1 2 T D:ME C:SELECT_1 Z:I"
    play >> answers("a b", good) << to("a", good) << to("b", good)


def test_who_binds_his_unnamed_statement_again_has_it_put_in_front():
    words = "PARSE:=select_1 B E S"
    play = prepared("a b") >> asks("a b", words) >> free() << sent(words, words)
    good = "1 2 D:ME C:SELECT_1 Z:I"
    play >> answers("a b", good) << to("a", good) << to("b", good) >> asks("a", "B E S")
    assert play.hear(0, play.server_socket(0)).startswith(b"P")
    assert play.clients["a"].server is play.server


def test_statements_in_lines_are_counted():
    play = prepared("a b") >> asks("a b", ROUND) >> free() >> answers("a b", GOOD)
    assert play.pool.stats.bind_count == 2
    (statement,) = play.server.statements
    assert isinstance(statement, Statement)


def test_a_server_that_answers_what_was_brought_as_if_it_were_a_round_is_broken():
    play = prepared("a b", known=False) >> asks("a", ROUND) >> asks("b", "Q:select_'b'") >> free()
    play << sent(BRING, "Q:select_'b'") >> says("1 2 C Z:I") << silence("a b")
    assert play.server.state in (CLOSING, CLOSED)
    assert [play.clients[name].state for name in "ab"] == [LINED, LINED]


@pytest.mark.parametrize("words", ["2 D Z:I", "2 Z:I", "2 C C Z:I", "2 D C D Z:I", "2 T D C:SELECT_1 Z:I"])
def test_a_server_whose_answer_has_not_one_end_is_broken_and_who_stands_behind_is_served_elsewhere(words):
    play = prepared("a b") >> asks("a b", ROUND) >> free() << sent(MINE, MINE) >> says(words)
    assert play.server.state in (CLOSING, CLOSED)
    assert play.clients["a"].state is GONE
    assert b"server broke the protocol" in play.hear("a", play.socket("a"))
    play >> another_server() << silence("b") << sent(BRING, server=1) >> says(BROUGHT, server=1) << sent(MINE, server=1)
    play >> answers("b", GOOD, server=1) << to("b", GOOD)


def test_who_has_deallocated_his_statement_is_told_so_and_the_others_keep_theirs():
    play = prepared("a b") >> asks("a", "Q:deallocate_x") >> free()
    heard = play.hear(0, play.server_socket(0))
    assert b"deallocate" in heard.lower()
    play >> says("C:DEALLOCATE Z:I") << to("a", "C:DEALLOCATE Z:I") >> asks("z", "Q:begin") << sent("Q:begin")
    play >> asks("b", ROUND) >> asks("a", ROUND)
    assert play.clients["b"].state is LINED
    assert play.clients["a"].state is WAITING


def test_who_waits_for_a_statement_of_ours_for_long_is_told_that_he_waits():
    play = prepared("a b", known=False, query_wait_notify=1.0, pipeline_stall_ms=60_000) >> asks("a", ROUND) >> free()
    play << sent(BRING) >> passes(1.5) >> (lambda play: Patience(play.world.clock.now).sweep_lines(play.pool))
    heard = play.hear("a", play.socket("a"))
    assert heard[:1] == b"N"
    assert b"number 2 in line on a server connection" in heard
    play >> says(BROUGHT) << sent(MINE) >> answers("a", GOOD) << to("a", GOOD) << silence("b")
