"""A look at answers: it hands everything on as it comes, and notes what the server took and how large it was."""

import pytest

from proxy.probes import Probe, Trace
from tests.lined import ANSWER, Lined, answers, asks, free, hangs_up, passes, says, sent, to
from tests.play import said

NEW = "Q:select_a_from_t"


def asked_once(**limits):
    """a asks what nobody has seen yet, on its own server."""
    play = Lined("ab", busy=0, **limits) >> asks("a", NEW) << sent(NEW)
    return play, play.lines.book.find(b"select a from t")


def test_an_answer_is_heard_as_it_is_and_measured():
    play, shape = asked_once()
    play >> passes(0.002) >> says(ANSWER, "a") << to("a")
    assert (shape.calls, shape.errors) == (1, 0)
    assert shape.spent == pytest.approx(0.002, abs=0.001)
    assert shape.bytes == len(said(ANSWER.replace("ME", "a")))


@pytest.mark.parametrize("size", [1, 7, 50])
def test_cut_anywhere(size):
    play, shape = asked_once()
    data = said(ANSWER.replace("ME", "a"))
    for at in range(0, len(data), size):
        play >> says(data[at : at + size])
    play << to("a")
    assert shape.calls == 1
    assert 0 < shape.bytes <= len(data)


def test_an_error_is_no_good_answer():
    play, shape = asked_once()
    play >> says("ERROR:no Z:I") << to("a", "ERROR:no Z:I")
    assert (shape.calls, shape.errors, shape.good) == (0, 1, 0)


def test_a_client_that_has_left_is_no_bother():
    play, shape = asked_once()
    play >> hangs_up("a") >> says(ANSWER, "a") << to("a", b"")
    assert shape.calls == 0


def test_one_that_waits_in_the_queue_is_measured_from_its_start():
    play = Lined("ab") >> asks("a", NEW) >> passes(5.0) >> free() << sent(NEW) >> passes(0.001) >> says(ANSWER, "a")
    shape = play.lines.book.find(b"select a from t")
    assert shape.calls == 1
    assert shape.spent < 0.01
    assert shape.waited == pytest.approx(5.0, abs=0.01)


def test_a_probe_is_about_one_request_only():
    play = Lined("ab") >> asks("a", NEW)
    assert play.clients["a"].probe.is_about(play.clients["a"].held)
    assert not play.clients["a"].probe.is_about(b"something else")
    play >> free() >> says(ANSWER, "a") << sent(NEW) << to("a") >> asks("a", "Q:insert") << sent("Q:insert")
    play >> says("C Z:I") << to("a", "C Z:I")
    assert play.lines.book.find(b"select a from t").calls == 1


def test_after_three_good_ones_the_next_may_share():
    play, shape = asked_once()
    for _ in range(3):
        play >> passes(0.001) >> says(ANSWER, "a") << to("a") >> asks("a", NEW) << sent(NEW)
    assert shape.is_trusted
    play >> asks("b", NEW) << sent() >> answers("a") << to("a") << sent(NEW) >> answers("b") << to("b")


def test_a_trace_shares_time_and_bytes_among_statements():
    play = Lined("ab", busy=0)
    one, other = (play.lines.book.find(text) for text in (b"select a", b"select b"))
    client = play.clients["a"]
    client.request_at = play.world.clock.now()
    trace = Trace(client, b"data", {one: 1, other: 1}, {one: 1})
    assert trace.is_about(b"anything")
    trace.deliver(b"x" * 100)
    play.world.clock.advance(0.002)
    trace._note()
    assert one.calls == other.calls == 1
    assert one.bytes == other.bytes == 50
    trace._has_failed = True
    trace._note()
    assert (one.errors, other.errors) == (1, 0)
    trace._note()  # more than was asked for
    assert (one.calls, one.errors) == (1, 1)


def test_a_probe_is_an_envoy_of_its_client():
    play, shape = asked_once()
    (owner,) = play.server.ledger.owners()
    assert isinstance(owner, Probe)
    assert owner.client is play.clients["a"]
    assert owner.shape is shape
