"""Whose parameters let them share, and that the others make no detour each time."""

from proxy import sharers as sharers_module
from proxy.sharers import ALONE
from proxy.states import LINED, WAITING
from tests.lined import Lined, answers, asks, free, passes, says, sent, sent_for, to


def test_with_quotes_that_are_none_nobody_shares():
    play = Lined("a")
    play.join("c", standard_conforming_strings="off")
    play.join("d", client_encoding="SJIS")
    play.join("e", client_encoding="LATIN1")
    play >> asks("c d e")
    assert [play.clients[name].state for name in "cde"] == [WAITING, WAITING, LINED]


def test_whose_parameters_may_not_travel_makes_no_detour_the_next_time_until_their_value_is_proven():
    play = Lined("ab")
    play.join("c", TimeZone="odd")
    play.join("d", TimeZone="odd")
    play >> asks("a c") >> free() << sent_for("a") >> asks("d")
    assert [play.clients[name].state for name in "cd"] == [WAITING, WAITING]
    play >> answers("a") << to("a") << sent("Q:SET_TimeZone=E'odd'") >> says("C:SET S:TimeZone=odd Z:I")
    play << sent_for("c") >> answers("c") << to("c") << sent_for("d") >> asks("c")
    assert play.clients["c"].state is LINED  # its value is proven now
    play >> answers("d") << to("d") << sent_for("c") >> answers("c") << to("c")


def test_what_can_never_travel_is_tried_again_by_and_by_since_servers_may_have_it_by_then():
    play = Lined("ab", servers=2, busy=2)
    play.join("c", search_path="mine")
    play >> asks("a c") >> free() << sent_for("a") >> passes(ALONE / 2) >> answers("a") << to("a") >> says("C Z:I")
    play >> answers("c") << to("c") >> asks("c")
    assert play.clients["c"].server is play.server, "at once"
    play >> answers("c") << to("c") >> passes(ALONE) >> asks("c")
    assert play.clients["c"].state is LINED
    play >> answers("c") << to("c")


def test_a_server_that_was_left_in_an_odd_state_puts_nobody_out_of_line():
    play = Lined("ab")
    play.server.followed = play.pool.intern({**play.server.followed, "search_path": "mine"})
    play >> asks("a b") >> free()
    assert play.clients["a"].server is play.server
    assert play.lines._may_share(play.clients["a"])


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(sharers_module, "MAX_SETS", 3)
    sharers = Lined("").lines.sharers
    for number in range(10):
        parameters = {"TimeZone": str(number)}
        sharers.may_share(parameters)
        sharers.note_alone(parameters, parameters)
    assert len(sharers._known) <= 3
    assert len(sharers._alone) <= 3
