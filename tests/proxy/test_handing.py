"""What comes back along a line: in which order it is handed on, and what is learnt of how long units take."""

from typing import Any

import pytest

from proxy.handing import LATE
from tests.lined import Lined, answers, asks, free, passes, sent_for, to


def in_line(names: str = "a b c", **limits: Any) -> Lined:
    return Lined(names.replace(" ", ""), **limits) >> asks(names) >> free()


def test_the_server_has_its_next_units_before_anybody_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    play = in_line(pipeline_depth=2) << sent_for("a b")
    order: list[str] = []
    for name, transport in (("a", play.socket("a")), ("server", play.server_socket(0))):
        write = transport.write

        def note(data: bytes, name: str = name, write: Any = write) -> None:
            order.append(name)
            write(data)

        monkeypatch.setattr(transport, "write", note)
    play >> answers("a") << to("a") << sent_for("c")
    assert order == ["server", "a"]


def test_what_a_line_sends_is_out_though_what_is_written_waits_for_the_end_of_the_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxy.pool.AT_WORK", 0)
    play = in_line("a b") >> answers("a b")

    def turn(play: Lined) -> None:
        heard = len(play.server_socket(0).arrived)
        asks("a b")(play)
        assert len(play.server_socket(0).arrived) == heard
        play.lines._serve()
        assert len(play.server_socket(0).arrived) > heard

    play >> turn


def test_several_answers_at_once_share_the_time() -> None:
    play = in_line() >> passes(0.003) >> answers("a b c") << to("a b c")
    shape = play.lines.book.find(b"select 'a'")
    assert (shape.calls, round(shape.spent, 6)) == (3, 0.003)


def test_a_line_goes_by_what_units_take_that_need_not_wait_for_a_core() -> None:
    play = Lined("ab") >> asks("a b") >> free()
    line = play.line
    for number in range(300):
        name = "ab"[number % 2]
        play >> passes(0.03 if number % 3 else 0.0002) >> answers(name) >> asks(name)
        assert play.line is line
    assert line.pace < 0.001 < 0.01 < line.gap


def test_a_head_is_late_when_it_takes_much_longer_than_is_usual_here() -> None:
    play = in_line()
    line, patience = play.line, 0.02
    began = line.head_since
    assert not line.is_late(began + patience, patience)
    assert line.is_late(began + patience + 0.001, patience)
    line.gap = 0.03  # everybody waits for a core
    assert not line.is_late(began + LATE * 0.03, patience)
    assert line.is_late(began + LATE * 0.03 + 0.001, patience)
    play >> answers("a b c")
    assert not line.is_late(began + 100.0, patience)  # nobody is there
