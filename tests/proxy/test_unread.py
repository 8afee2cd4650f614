"""Clients in lines that do not read: how much is kept for each, and for all together."""

import pytest

from proxy import unread as unread_module
from proxy.states import RESTING
from tests.lined import Lined, answers, asks, free, passes, says, sent_for, to
from tests.play import said

PIECE = "D:" + "x" * 50_000


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(unread_module, "MAX_BUFFERED", 500_000)
    monkeypatch.setattr(unread_module, "MAX_TOGETHER", 1_000_000)


def slow_ones(names, **limits):
    """They ask and do not read. d does."""
    play = Lined("d", **limits)
    for name in names:
        play.join(name, is_slow=True)
    order = " ".join(names)
    return play >> asks(f"{order} d") >> free() << sent_for(f"{order} d")


def fill(play):
    """Until the server is not read any more; how many bytes lie at each of them then."""
    play >> says("T")
    for _ in range(100):
        if not play.server_socket(0).reads:
            break
        play >> says(PIECE)
    return [client.transport.get_write_buffer_size() for name, client in play.clients.items() if name in "abc"]


def reads(name):
    return lambda play: play.socket(name).peer_reads()


def much_for(name):
    """The head has less than one may, and its answer is over: `name` stands in no line any more."""

    def act(play):
        play.server_socket(0).peer_sends(said(f"T {PIECE} {PIECE}"))
        play.server_socket(0).peer_sends(said(" ".join([PIECE] * 6) + " C Z:I"))

        assert play.clients[name].state is RESTING

    return act


def test_one_alone_has_what_one_may():
    (size,) = fill(slow_ones("a"))
    assert 500_000 < size < 600_000


def test_many_have_no_more_together_though_each_has_left_his_line():
    play = slow_ones("abc") >> much_for("a") >> much_for("b")
    *_, own = sizes = fill(play)
    assert own < 300_000
    assert 1_000_000 < sum(sizes) < 1_100_000


def test_the_server_is_read_again_when_the_one_whose_answer_it_is_reads():
    play = slow_ones("abc") >> much_for("a") >> much_for("b")
    fill(play)
    play >> reads("c")
    assert play.server_socket(0).reads
    play >> says("C Z:I") >> answers("d") << to("d")


def test_who_has_read_or_left_counts_no_more():
    play = slow_ones("abc") >> much_for("a") >> much_for("b") >> reads("a")
    play >> (lambda play: play.socket("b").peer_breaks())
    *_, own = fill(play)
    assert own > 500_000


def test_those_behind_are_rescued():
    play = slow_ones("abc", servers=2, busy=2, pipeline_stall_ms=250) >> much_for("a") >> much_for("b")
    fill(play)
    play >> free(1) >> passes(1.0) << sent_for("d", server=1) >> answers("d", server=1) << to("d")
