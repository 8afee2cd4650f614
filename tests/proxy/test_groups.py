"""Units that travel as one: all of them are heard, or none of them has ever run."""

from dataclasses import replace

import pytest

from protocol import sqlstate
from protocol.backend import build_error
from protocol.frontend import build_query
from proxy.groups import LEAST, MAX_ANSWERS
from proxy.shapes import ALONE_AT_FIRST, MEAN_SOCIABLE
from proxy.states import CLOSED, CLOSING, GONE, IDLE, LINED, RESTING, WAITING, Closing
from tests.lined import (
    ANSWER,
    LINK_ANSWER,
    Lined,
    another_server,
    answers,
    answers_group,
    asks,
    cancel_arrives,
    cancels,
    free,
    group_answer,
    hangs_up,
    passes,
    says,
    sent,
    sent_for,
    sent_group,
    server_hangs_up,
    silence,
    to,
    told,
    trust,
)
from tests.play import said
from tests.proxy.test_lines import sweeps

CANCELED = build_error("ERROR", sqlstate.QUERY_CANCELED, "canceling statement due to user request") + said("Z:I")
STALL = 0.25
UNNAMED = "PARSE:=select_1 B D E S"
GOOD = LINK_ANSWER + " Z:I"
SET_CET = build_query("SET TimeZone=E'CET'")


def ready(names="a b c", servers=1, **limits):
    """These have asked, and are sent as soon as a server is free."""
    limits = {"pipeline_group": 32, "busy": servers, **limits}
    return Lined(names.replace(" ", ""), servers, **limits) >> asks(names)


def in_group(names="a b c", **limits):
    """These stand in one group on the only server."""
    return ready(names, **limits) >> free() << sent_group(names)


def stuck(names="a b c", **limits):
    """Another server is idle."""
    play = ready(names, 2, pipeline_stall_ms=1000 * STALL, **limits) >> free(0) << sent_group(names)
    return play >> free(1)


def is_over(play, number=0):
    """Nothing is left of it, and the server is for others."""
    assert play.servers[number].state is IDLE
    assert not [line for line in play.lines.members if line.load or line.nobodys or line.rest]
    assert not play.lines.pending


def each_alone(play, names, server=0):
    """They run again, in their order, each up to a Sync of its own; and each hears its answer."""
    play << sent_for(names, server=server) >> answers(names, server=server)
    for name in names.split():
        play << to(name)
    is_over(play, server)


def reload(**limits):
    return lambda play: play.pool.set_limits(replace(play.pool.limits, **limits))


# All goes well.


def test_units_that_travel_together_share_one_transaction_and_each_hears_its_own_answer():
    play = in_group() << silence("a b c") >> answers_group("a b c") << to("a") << to("b") << to("c")
    assert len(play.server_socket(0).written) == 2  # begin, and these
    assert [play.clients[name].state for name in "abc"] == [RESTING] * 3
    assert play.pool.stats.line_query_count == 3
    is_over(play)


def test_one_by_itself_is_sent_as_it_was_asked():
    play = ready("a") >> free() << sent_for("a") >> answers("a") << to("a")
    is_over(play)


def test_no_more_than_so_many_are_in_one():
    play = ready("a b c d e", pipeline_group=2) >> free()
    play << sent(*[f"PARSE:=select_'{name}' B D E{end}" for name, end in zip("abcd", ["", " S"] * 2, strict=True)],
                 "Q:select_'e'")  # fmt: skip
    play >> answers_group("a b") << to("a") << to("b") << silence("c d e")
    play >> says(group_answer("c d") + said(ANSWER.replace("ME", "e"))) << to("c") << to("d") << to("e")
    is_over(play)


def test_answers_in_two_pieces_cut_anywhere_are_heard_when_all_of_them_are_there():
    data = group_answer("a b c")
    for cut in range(1, len(data)):
        play = in_group() >> says(data[:cut]) << silence("a b c") >> says(data[cut:])
        play << to("a") << to("b") << to("c")
        is_over(play)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 23])
def test_answers_in_many_pieces(size):
    play, data = in_group(), group_answer("a b c")
    for at in range(0, len(data), size):
        play << silence("a b c") >> says(data[at : at + size])
    play << to("a") << to("b") << to("c")
    is_over(play)


@pytest.mark.parametrize("noise", ["N:careful", "S:TimeZone=CET", "A:news"])
def test_what_comes_aside_is_heard_where_it_came_by_whose_unit_runs(noise):
    data = said(f"1 2 T D:a C:SELECT_1 1 2 {noise} T D:b C:SELECT_1 1 2 T D:c C:SELECT_1 Z:I")
    for cut in range(len(data)):
        play = in_group() >> says(data[:cut]) << silence("a b c") >> says(data[cut:])
        play << to("a") << to("b", f"{noise} {ANSWER}") << to("c")
        is_over(play)


@pytest.mark.parametrize("noise", ["N:truncated", "S:TimeZone=CET"])
def test_what_comes_aside_before_the_first_answer_is_not_lost(noise):
    """PostgreSQL sends a notice at once, and so it may come by itself: that an identifier is too long, say."""
    play = in_group() >> says(noise) << silence("a b c") >> answers_group("a b c")
    play << to("a", f"{noise} {ANSWER}") << to("b") << to("c")
    is_over(play)


def test_what_comes_aside_before_the_end_is_heard_by_the_last():
    play = in_group() >> says(said("N:careful").join([group_answer("a b c")[:-6], said("Z:I")]))
    play << to("a") << to("b") << to("c", "T D:c C:SELECT_1 N:careful Z:I")
    is_over(play)


def test_rows_of_every_number_and_size():
    row = "D:" + "x" * 3000
    play = in_group() >> says(f"1 2 T C:SELECT_0 1 2 T {row} {row} C:SELECT_2 1 2 T D C:SELECT_1 Z:I")
    play << to("a", "T C:SELECT_0 Z:I") << to("b", f"T {row} {row} C:SELECT_2 Z:I") << to("c", "T D C:SELECT_1 Z:I")
    is_over(play)


def test_a_row_may_hold_the_bytes_of_an_end():
    fake = said("D:" + "x" * 60).replace(b"x" * 40, said("C:SELECT_1 Z:I 1 2 ")[:40].ljust(40, b"x"))
    data = said("1 2 T") + fake + said("C:SELECT_1 1 2 T D:b C:SELECT_1 Z:I")
    for cut in range(len(data)):
        play = in_group("a b") >> says(data[:cut]) >> says(data[cut:])
        play << to("a", said("T") + fake + said("C:SELECT_1 Z:I")) << to("b")


@pytest.mark.parametrize("size", [9, 10_000])
def test_two_groups_behind_one_another(size):
    play = ready("a b c d", pipeline_group=2) >> free()
    play.hear(0, play.server_socket(0))
    data = group_answer("a b") + group_answer("c d")
    for at in range(0, len(data), size):
        play >> says(data[at : at + size])
    play << to("a") << to("b") << to("c") << to("d")
    is_over(play)


def test_a_group_that_is_whole_is_heard_although_the_next_one_is_not():
    play = ready("a b c d", pipeline_group=2) >> free() >> says(group_answer("a b") + group_answer("c d")[:-3])
    play << to("a") << to("b") << silence("c d") >> says(group_answer("c d")[-3:]) << to("c") << to("d")
    is_over(play)


def test_rounds_of_every_kind_share_one():
    play = Lined("abc", pipeline_group=32, session_state="track")
    trust(play.pool, "select 1")
    play >> asks("a") >> asks("b", UNNAMED) >> asks("c", "PARSE:=select_1 B E S") >> free()
    play << sent("PARSE:=select_'a' B D E", "PARSE:=select_1 B D E", "PARSE:=select_1 B E S")
    play >> says("1 2 T D:a C:SELECT_1 1 2 T D:b C:SELECT_1 1 2 D:c C:SELECT_1 Z:I")
    play << to("a") << to("b", GOOD) << to("c", "1 2 D:c C:SELECT_1 Z:I")
    is_over(play)


def test_a_set_between_two_units_parts_them():
    play = Lined("ab", pipeline_group=32)
    for name in "cd":
        play.join(name, TimeZone="CET")
    play.pool.proven.add(("TimeZone", "CET"))
    play >> asks("a b c d") >> free()
    play << sent(*group_words("a b"), SET_CET, *group_words("c d"))
    play >> says(group_answer("a b") + said("C:SET S:TimeZone=CET Z:I") + group_answer("c d"))
    play << to("a") << to("b") << to("c") << to("d")
    is_over(play)


# An error.


@pytest.mark.parametrize("failing", range(3))
@pytest.mark.parametrize("is_apart", [False, True])
def test_an_error_is_heard_by_whose_it_is_from_a_run_by_himself_and_the_others_hear_their_answers(failing, is_apart):
    """PostgreSQL sends an error at once, and ReadyForQuery later: mostly they come apart."""
    first = "".join(f"1 2 T D:{name} C:SELECT_1 " for name in "abc"[:failing])
    play = in_group() >> says(f"{first} 1 ERROR:zero" + ("" if is_apart else " Z:I"))
    if is_apart:
        play << silence("a b c") << sent() >> says("Z:I")
    play << silence("a b c") << sent_for("a b c")
    for name in "abc":
        words = "T D:q ERROR:zero Z:I" if name == "abc"[failing] else ANSWER
        play >> says(words, name) << to(name, words)
    is_over(play)
    assert play.pool.stats.line_rerun_count == 3


def test_an_error_cut_anywhere():
    data = said("1 2 T D:a C:SELECT_1 1 2 T ERROR:zero Z:I")
    for cut in range(len(data)):
        play = in_group("a b") >> says(data[:cut]) << silence("a b") >> says(data[cut:]) << silence("a b")
        each_alone(play, "a b")


def test_an_error_at_the_end_of_all_is_nobodys():
    play = in_group("a b") >> says(group_answer("a b")[:-6] + said("ERROR:serialization Z:I")) << silence("a b")
    each_alone(play, "a b")
    assert not any(shape.shy_until for shape in play.lines.known.values())


def test_a_group_behind_one_that_fails_is_not_the_worse():
    play = ready("a b c d", pipeline_group=2) >> free()
    play.hear(0, play.server_socket(0))
    play >> says(said("1 ERROR:no Z:I") + group_answer("c d")) << silence("a b") << to("c") << to("d")
    each_alone(play, "a b")


def group_words(names):
    return [*[f"PARSE:=select_'{name}' B D E" for name in names.split()], "S"]


def busy_again(play):
    return play >> asks("z", "Q:begin") << sent("Q:begin")


def test_whose_kind_made_a_group_fail_goes_alone_for_a_while_and_then_for_longer():
    play = Lined("abc", pipeline_group=32)
    shape = play.lines.book.find(b"select 1")
    for patience in (ALONE_AT_FIRST, 2 * ALONE_AT_FIRST, 4 * ALONE_AT_FIRST):
        play >> asks("a", "Q:select_1") >> asks("b c") >> free()
        play << sent("PARSE:=select_1 B D E", *group_words("b c")) >> says("1 2 ERROR:no Z:I")
        play << sent("Q:select_1", "Q:select_'b'", "Q:select_'c'") >> answers("a b c") << to("a") << to("b") << to("c")
        assert shape.shy_until == shape.calls - 1 + patience
        for calls, is_sociable in (shape.calls, False), (shape.shy_until - 2, False), (shape.shy_until - 1, True):
            shape.calls = calls
            busy_again(play) >> asks("a", "Q:select_1") >> asks("b c") >> free()
            (
                play
                << sent("Q:select_1", *group_words("b c"))
                >> says(said(ANSWER.replace("ME", "a")) + group_answer("b c"))
            )
            play << to("a") << to("b") << to("c")
            assert shape.is_sociable is is_sociable
        busy_again(play)


def test_those_of_a_kind_with_large_answers_go_alone():
    play = Lined("abc", pipeline_group=32, pipeline_max_bytes=65_536)
    shape, row = play.lines.book.find(b"select 1"), "D:" + "x" * MEAN_SOCIABLE
    play >> asks("a", "Q:select_1") >> asks("b c") >> free() << sent("PARSE:=select_1 B D E", *group_words("b c"))
    play >> says(said(f"1 2 T {row} C:SELECT_1") + group_answer("b c"))
    play << to("a", f"T {row} C:SELECT_1 Z:I") << to("b") << to("c")
    assert shape.is_trusted
    busy_again(play) >> asks("a", "Q:select_1") >> asks("b c") >> free() << sent("Q:select_1", *group_words("b c"))
    play >> says(said("C:SELECT_0 Z:I") + group_answer("b c")) << to("a", "C:SELECT_0 Z:I") << to("b") << to("c")
    is_over(play)


def test_who_goes_alone_parts_those_before_him_from_those_behind_and_neither_are_more_than_allowed():
    play = Lined("abcdefg", pipeline_group=2)
    play.lines.book.find(b"select 1").is_sociable = False
    play >> asks("a b c") >> asks("d", "Q:select_1") >> asks("e f g") >> free()
    play << sent(*group_words("a b"), "Q:select_'c'", "Q:select_1", *group_words("e f"), "Q:select_'g'")
    data = group_answer("a b") + b"".join(said(ANSWER.replace("ME", name)) for name in "cd")
    play >> says(data + group_answer("e f") + said(ANSWER.replace("ME", "g")))
    for name in "abcdefg":
        play << to(name)
    is_over(play)


def test_too_few_make_no_group_whatever_may_become_of_those_who_are_enough():
    play = ready("a b c d", pipeline_group_min=5) >> free() << sent_for("a b c d") >> answers("a b c d")
    for name in "abcd":
        play << to(name)
    is_over(play)
    play = ready("a b c d e f", pipeline_group_min=5) >> free() << sent(*group_words("a b c d"), *group_words("e f"))
    play = ready("a b", pipeline_group_min=0) >> free() << sent_group("a b")
    play = ready("a", pipeline_group_min=0) >> free() << sent_for("a")


def test_many_are_two_groups_so_that_one_is_heard_while_the_other_is_worked_on():
    names = "a b c d e f g h i j"
    play = ready(names) >> free() << sent(*group_words("a b c d e"), *group_words("f g h i j"))
    play >> answers_group("a b c d e") << to("a") << to("e") << silence("f") >> answers_group("f g h i j") << to("j")
    is_over(play)
    play = ready("a b c d e") >> free() << sent(*group_words("a b c d"), "Q:select_'e'")
    assert LEAST == 4


# Answers that are too large.


def test_answers_that_are_larger_than_ever_are_not_kept_and_all_run_by_themselves():
    play = stuck("a b c")
    row = "D:" + "x" * 60_000
    play >> says(f"1 2 T D:a C:SELECT_1 1 2 T {row}")
    for _ in range(MAX_ANSWERS // 60_000 + 1):
        play >> says(row) << silence("a b c")
    play << sent_for("a b c", server=1) << sent()
    assert play.lines.members[0].nobodys == 1
    play >> says("C:SELECT_9 1 2 T D:c C:SELECT_1 Z:I") << silence("a b c")
    play >> answers("a b c", server=1) << to("a") << to("b") << to("c")
    is_over(play)
    is_over(play, 1)


def test_one_that_comes_in_one_piece_and_is_too_large():
    play = in_group("a b") >> says("1 2 T " + " ".join(["D:" + "x" * 60_000] * 6) + " C:SELECT_6 1 2 T C:SELECT_0 Z:I")
    heard = b"".join(play.hear(name, play.socket(name)) for name in "ab")
    if not heard:
        play << sent_for("a b") >> answers("a b") << to("a") << to("b")
    is_over(play)


def test_what_nobody_hears_any_more_is_not_taken_for_the_answer_of_the_next():
    """A notice so long that the group is given up before anything of it is answered."""
    play = ready("a b c d", pipeline_group=2) >> free()
    play.hear(0, play.server_socket(0))
    notice = said("N:" + "x" * (MAX_ANSWERS + 10))
    play >> says(notice) << silence("a b c d")
    play >> says(group_answer("a b")) << silence("a b c d") >> says(group_answer("c d")) << to("c") << to("d")
    each_alone(play, "a b")


# A hostile server.


@pytest.mark.parametrize("status", "TE")
def test_a_transaction_that_nobody_has_begun_ends_the_server_and_all_of_them_hear_so(status):
    play = in_group("a b") >> answers_group("a b", end=f"Z:{status}")
    play << told("a", "server broke the protocol") << told("b", "server broke the protocol")
    assert play.server.state in (CLOSING, CLOSED)
    assert [play.clients[name].state for name in "ab"] == [GONE] * 2


@pytest.mark.parametrize("ready", [b"Z\0\0\0\5X", b"Z\0\0\0\6II", b"Z\0\0\0\4"])
def test_a_ready_for_query_that_is_none_ends_the_server_and_all_run_elsewhere(ready):
    play = in_group("a b") >> says(group_answer("a b")[:-6] + ready) << silence("a b")
    assert play.server.state in (CLOSING, CLOSED)
    play >> server_hangs_up() >> another_server()
    each_alone(play, "a b", server=1)


@pytest.mark.parametrize(
    "words",
    [
        "Z:I Z:I", "1 Z:I", "1 2 T D C:SELECT_1 Z:I", "2 1 T D C", "1 2 T D C 1 2 T D C C Z:I",
        "1 2 T D C 1 2 T D C 3 Z:I", "1 2 T D C V 1 2", "T D C Z:I", "1 1 2 T D", "1 2 Z:I", "1 2 C 1 2 C Z:I",
    ],
)  # fmt: skip
def test_what_nobody_asked_for_reaches_nobody_and_they_run_elsewhere(words):
    play = in_group("a b") >> says(words) << silence("a b")
    assert play.server.state in (CLOSING, CLOSED)
    play >> server_hangs_up() >> another_server()
    each_alone(play, "a b", server=1)


@pytest.mark.parametrize("length", [0, 3, 2**31, 2**32 - 1])
@pytest.mark.parametrize("kind", [b"1", b"T", b"D", b"C", b"Z"])
@pytest.mark.parametrize("before", ["", "1 2 T", "1 2 T D C:SELECT_1 1 2 T D C:SELECT_1"])
def test_a_length_that_lies_is_found_out(before, kind, length):
    play = in_group("a b") >> says(said(before) + kind + length.to_bytes(4, "big")) << silence("a b")
    while play.server.state not in (CLOSING, CLOSED):
        play >> says(b"x" * 60_000) << silence("a b")
        assert len(play.server_socket(0).written) < 20
        if play.lines.pending or all(line.nobodys for line in play.lines.members if line.load == 0 and line.server):
            break
        assert sum(len(line.rest) for line in play.lines.members) <= MAX_ANSWERS


def test_one_ready_for_query_too_many():
    play = in_group("a b") >> answers_group("a b", end="Z:I Z:I") << to("a") << to("b")
    assert play.server.state in (CLOSING, CLOSED)


# A server that dies.


@pytest.mark.parametrize("is_fatal", [False, True])
def test_when_the_server_dies_wherever_it_is_nobody_hears_of_it_and_all_run_elsewhere(is_fatal):
    data = group_answer("a b")
    for cut in range(len(data) - is_fatal):  # (a FATAL may begin with its status)
        play = in_group("a b") >> says(data[:cut])
        if is_fatal:
            play >> says("FATAL:shutdown")
        play << silence("a b") >> server_hangs_up() >> another_server() << silence("a b")
        each_alone(play, "a b", server=1)


def test_when_it_dies_behind_its_answers_they_are_heard():
    play = in_group("a b") >> says(group_answer("a b") + said("FATAL:shutdown")) << to("a") << to("b")
    play >> server_hangs_up() << silence("a b")
    assert [play.clients[name].state for name in "ab"] == [RESTING] * 2


def test_those_behind_a_group_whose_server_dies_keep_their_order_and_may_share_again():
    play = ready("a b c d", pipeline_group=2) >> free() >> server_hangs_up() >> another_server()
    play << sent("Q:select_'a'", "Q:select_'b'", *group_words("c d"), server=1)
    play >> says(said("".join(ANSWER.replace("ME", name) + " " for name in "ab")) + group_answer("c d"), server=1)
    play << to("a") << to("b") << to("c") << to("d")
    is_over(play, 1)


def test_when_it_dies_between_an_error_and_the_end():
    play = in_group("a b") >> says("1 2 T D:a C:SELECT_1 1 ERROR:no") >> server_hangs_up() >> another_server()
    each_alone(play, "a b", server=1)


def test_what_ends_a_server_by_itself_too_is_heard_by_whose_it_is():
    play = in_group("a b") >> server_hangs_up() >> another_server() << sent_for("a b", server=1)
    play >> server_hangs_up(1) << told("a", "server conn crashed?") << silence("b")


# A cancel.


def test_a_cancel_that_hits_a_group_is_heard_by_whose_it_is_and_the_others_run_again():
    play = in_group() >> cancels("b") << silence("a b c")
    assert play.world.cancels == [play.server]
    play >> says("1 2 T ERROR:canceled") >> cancel_arrives() >> says("Z:I") << to("b", CANCELED) << silence("a c")
    each_alone(play, "a c")
    assert not any(shape.shy_until for shape in play.lines.known.values())


def test_a_cancel_that_comes_too_late_for_a_group_hurts_nobody():
    play = in_group() >> cancels("b") >> answers_group("a b c") << to("a") << to("b") << to("c")
    play >> asks("a b") << sent() >> cancel_arrives() << sent_for("a")
    assert play.clients["b"].state is not RESTING


def test_a_cancel_before_the_group_is_at_the_head_waits_for_it():
    play = ready("a b c d", pipeline_group=2) >> free() >> cancels("d") >> answers_group("a b") << to("a") << to("b")
    play >> says("1 2 T ERROR:canceled Z:I") << to("d", CANCELED) << silence("c") >> cancel_arrives()
    play.hear(0, play.server_socket(0))
    play >> answers("c") << to("c")
    is_over(play)


def test_a_cancel_that_hits_the_group_behind_is_nobodys():
    play = ready("a b c d", pipeline_group=2) >> free() >> cancels("a") >> answers_group("a b") << to("a") << to("b")
    play.hear(0, play.server_socket(0))
    play >> says("1 ERROR:canceled Z:I") << silence("c d") >> cancel_arrives()
    each_alone(play, "c d")


def test_a_cancel_before_it_is_sent():
    play = ready("a b c") >> cancels("b") << to("b", CANCELED) >> free() << sent_group("a c") >> answers_group("a c")
    play << to("a") << to("c")


def test_who_wanted_a_cancel_of_a_group_that_is_lost_does_not_run_again():
    play = in_group() >> cancels("b") >> server_hangs_up() << to("b", CANCELED) >> another_server()
    each_alone(play, "a c", server=1)


# Clients that leave or do not read.


def test_who_leaves_is_answered_to_nobody_and_no_neighbour_is_cancelled():
    for names in ("a", "b", "c", "a c"):
        play = in_group()
        for name in names.split():
            play >> hangs_up(name)
        assert not play.world.cancels
        play >> answers_group("a b c")
        for name in "abc":
            play << (silence(name) if name in names else to(name))
        is_over(play)


def test_who_has_left_does_not_run_again():
    play = in_group() >> hangs_up("b") >> says("1 2 T D:a C 1 ERROR:no Z:I")
    each_alone(play, "a c")


def test_all_may_leave():
    play = in_group() >> hangs_up("a") >> hangs_up("b") >> hangs_up("c") >> says(group_answer("a b c")[:50])
    play >> says(group_answer("a b c")[50:])
    is_over(play)
    play = in_group("a b") >> hangs_up("a") >> hangs_up("b") >> says("1 ERROR:no Z:I") << sent()
    is_over(play)


def test_what_all_have_left_is_cancelled_when_it_takes_a_while():
    play = in_group("a b", pipeline_stall_ms=1000 * STALL) >> hangs_up("a") >> hangs_up("b") >> passes(2 * STALL)
    assert play.world.cancels
    play >> says("1 ERROR:canceled Z:I") >> cancel_arrives()
    is_over(play)


def test_who_does_not_read_holds_nobody_up():
    play = Lined("bc", pipeline_group=32)
    slow = play.join("a", is_slow=True)
    play >> asks("a b c") >> free() << sent_group("a b c")
    row = "D:" + "x" * 60_000
    play >> says(f"1 2 T {row} {row} C:SELECT_2 1 2 T D:b C:SELECT_1 1 2 T D:c C:SELECT_1 Z:I") << to("b") << to("c")
    assert slow.is_choked
    is_over(play)
    slow.transport.peer_reads()
    play << to("a", f"T {row} {row} C:SELECT_2 Z:I")


# What takes too long.


LATE = 1.2 * STALL


def own_servers(play):
    """a has the second server, and then the first is for b and c."""
    play << sent_for("a", server=1) << sent_for("b") >> answers("b") << to("b") << sent_for("c")
    play >> answers("c") << to("c") >> answers("a", server=1) << to("a")
    is_over(play)
    is_over(play, 1)


def test_a_group_that_stands_still_is_cancelled_and_each_has_a_server_of_its_own_when_it_is_taken_back():
    play = stuck() >> passes(LATE) << sent(server=1) << silence("a b c")
    assert play.world.cancels == [play.server]  # it has locks of what its first units read
    play >> says("1 2 T D C 1 ERROR:canceled Z:I") >> cancel_arrives() << silence("a b c")
    own_servers(play)


def test_one_that_is_done_just_in_time_is_heard():
    play = stuck() >> passes(LATE) >> answers_group("a b c") << to("a") << to("b") << to("c") >> cancel_arrives()
    is_over(play)


@pytest.mark.parametrize("size", [5, 10_000])
def test_one_that_no_cancel_ends_is_left_and_what_it_says_reaches_nobody(size):
    data = group_answer("a b c")
    for cut in range(0, len(data), 7):
        play = stuck() >> says(data[:cut]) >> passes(LATE) << sent(server=1) >> passes(LATE) << sent_for("a", server=1)
        for at in range(cut, len(data), size):
            play >> says(data[at : min(at + size, len(data))])
        play << silence("a b c") >> cancel_arrives()
        play << sent_for("b") >> answers("b") << to("b") << sent_for("c") >> answers("c") << to("c")
        play >> answers("a", server=1) << to("a")
        is_over(play)


def test_a_group_behind_one_that_is_cancelled_stays():
    play = ready("a b c d", 2, pipeline_group=2, pipeline_stall_ms=1000 * STALL) >> free(0)
    play << sent(*group_words("a b"), *group_words("c d")) >> passes(LATE) << sent()
    play >> says(said("1 ERROR:canceled Z:I") + group_answer("c d")) << silence("a b") << to("c") << to("d")


def test_a_group_behind_a_single_one_that_is_stuck():
    play = Lined("abc", 2, busy=2, pipeline_group=32, pipeline_stall_ms=1000 * STALL) >> asks("a") >> free(0)
    play << sent_for("a") >> asks("b c") << sent_group("b c")
    play >> free(1) >> passes(2 * STALL) << sent_group("b c", server=1) << silence("a b c")
    assert not play.world.cancels
    play >> answers_group("b c", server=1) << to("b") << to("c")
    play >> says(said(ANSWER.replace("ME", "a")) + group_answer("b c")) << to("a") << silence("b c")
    is_over(play)


def test_a_query_timeout_is_for_the_one_whose_time_it_is():
    play = ready("a b", 2, query_timeout=5.0, pipeline_stall_ms=60_000) >> free(0) << sent_group("a b") >> passes(4.0)
    play >> sweeps >> free(1) >> passes(2.0) >> sweeps << silence("a b") << sent(server=1)
    play >> says("1 ERROR:canceled Z:I") >> cancel_arrives() << sent_for("a", server=1) << sent_for("b")
    play >> answers("b") << to("b") >> passes(6.0) >> sweeps << told("a", "query timeout")


def test_time_of_a_group_that_failed_does_not_count_for_those_behind():
    play = ready("a b c", pipeline_group=2, query_timeout=5.0, pipeline_stall_ms=60_000) >> free() >> passes(4.0)
    play >> says("1 ERROR:no Z:I") >> passes(2.0) >> sweeps << silence("a b c")
    assert play.clients["c"].state is LINED


def test_what_runs_for_nobody_ends_with_its_server():
    play = stuck("a b") >> passes(LATE) >> passes(LATE) << sent_for("a", server=1) >> server_hangs_up()
    assert not any(line.nobodys for line in play.lines.members)


# What administrators do.


def test_turned_off_and_on_with_groups_under_way():
    play = Lined(pipeline_group=32) >> asks("a b") >> free() << sent_group("a b") >> reload(pipeline_group=1)
    play >> asks("c d") << sent_for("c d")
    play >> reload(pipeline_group=32) >> asks("e f") << sent_group("e f")
    data = group_answer("a b") + b"".join(said(ANSWER.replace("ME", name)) for name in "cd") + group_answer("e f")
    play >> says(data)
    for name in "abcdef":
        play << to(name)
    is_over(play)


def test_told_that_more_are_needed_two_make_no_group():
    play = in_group("a b") >> answers_group("a b") << to("a") << to("b") >> reload(pipeline_group_min=3)
    play = busy_again(play) >> asks("a b") >> free() << sent_for("a b")


def test_turned_off_a_group_that_fails_runs_again_all_the_same():
    play = in_group("a b") >> reload(pipeline_depth=1) >> says("1 ERROR:no Z:I")
    play << sent_for("a") >> answers("a") << to("a") << sent_for("b") >> answers("b") << to("b")
    is_over(play)


def test_paused_a_group_is_heard_and_one_that_fails_waits():
    play = in_group() >> (lambda play: play.pool.pause()) >> answers_group("a b c") << to("a") << to("b") << to("c")
    assert play.server.state in (CLOSING, CLOSED)
    play = in_group("a b") >> (lambda play: play.pool.pause()) >> says("1 ERROR:no Z:I") << sent("X") << silence("a b")
    play >> server_hangs_up() >> (lambda play: play.pool.unpause()) >> another_server()
    each_alone(play, "a b", server=1)


def test_reconnected_a_group_is_heard_and_one_that_fails_goes_to_a_new_server():
    play = in_group("a b") >> (lambda play: play.pool.retire_servers(Closing.RECONNECT)) >> answers_group("a b")
    play << to("a") << to("b")
    assert play.server.state in (CLOSING, CLOSED)
    play = in_group("a b") >> (lambda play: play.pool.retire_servers(Closing.RECONNECT)) >> says("1 ERROR:no Z:I")
    play >> server_hangs_up() >> another_server()
    each_alone(play, "a b", server=1)


@pytest.mark.parametrize("why", [Closing.ADMIN, Closing.DATABASE_GONE])
@pytest.mark.parametrize("is_failed", [False, True])
def test_killed_everybody_is_gone(why, is_failed):
    play = in_group() >> asks("z")
    if is_failed:
        play >> says("1 2 T ERROR:no")
    play >> (lambda play: play.pool.pause()) >> (lambda play: play.pool.close_all(why))
    assert all(client.state is GONE for client in play.clients.values())
    assert not play.pool.waiting
    assert not play.world.openings
    assert not play.lines.pending


def test_who_needs_a_server_of_his_own_is_not_kept_waiting_by_those_who_run_again():
    play = in_group("a b") >> asks("z", "Q:begin")
    assert play.clients["z"].state is WAITING
    play >> says("1 ERROR:no Z:I") << sent("Q:begin") >> says("C:BEGIN Z:T") << silence("a b")
