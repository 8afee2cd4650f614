"""One server's stream: to whom each byte goes, wherever the stream is cut, and what a hostile one achieves: nothing."""

import random

import pytest

from protocol.parameters import MAX_REPORTED
from proxy.server import ENOUGH_OF_AN_ERROR, MAX_AT_ONCE, MAX_WHOLE
from proxy.states import CLEANING, CLOSED, CLOSING, GONE, IDLE, Closing
from tests.play import (
    Play,
    client,
    error_to_client,
    released,
    said,
    server,
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


def test_a_transaction_that_is_open_though_it_looks_closed_is_nobody_elses():
    """A Query in the middle of a pipeline, and a Sync that ends nothing: PostgreSQL fails what comes next."""
    data = said("1 2 C C Z:T Z:I")
    for cut in range(1, len(data)):
        play = Play() >> client("P B E Q:two S") >> server(data[:cut]) >> server(data[cut:])
        play << to_client("1 2 C C Z:T Z:I")
        assert play.server.state is CLOSED


@pytest.mark.parametrize(("question", "answer"), [
    ("P B E S", "1 2 C Z:I"), ("E:p S", "C Z:I"), ("E:p S", "ERROR:no Z:I"), ("Q:commit S", "C Z:I Z:I"),
    ("S S Q:commit", "Z:T Z:T C Z:I"),
])  # fmt: skip
def test_one_that_was_closed_is(question, answer):
    data = said(answer)
    for cut in range(1, len(data)):
        play = Play() >> client("Q:begin") >> server("C Z:T") >> client(question)
        play >> server(data[:cut]) >> server(data[cut:]) << released


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


@pytest.mark.parametrize("question", ["Q:one", "P B E S"])
@pytest.mark.parametrize("message", ["D:", "ERROR:"])
def test_what_a_message_holds_is_never_taken_for_the_end_of_an_answer(question, message):
    """However the network cuts it: a piece that looks like the rest of the answer is still a piece of that row."""
    forged = said("C Z:I")
    begin, _, end = said(message + "x" * 1000 + "#" * len(forged) + "y").partition(b"#" * len(forged))
    begin, end = said("T" if question == "Q:one" else "1 2") + begin, end + said("C Z:I" if message == "D:" else "Z:I")
    play = Play() >> client(question) >> server(begin) >> server(forged) << stays_linked
    play >> server(end) << to_client(begin + forged + end) << released


def test_a_long_error_is_passed_on_once_its_reason_is_known():
    error = said("ERROR:" + "x" * 500_000)
    play = Play() >> client("Q:bad") >> server(error[: ENOUGH_OF_AN_ERROR - 1]) << to_client("")
    play >> server(error[ENOUGH_OF_AN_ERROR - 1 : 5000]) << to_client(error[:5000])
    play >> server(error[5000:] + said("Z:I")) << to_client(error[5000:] + said("Z:I")) << released


@pytest.mark.parametrize(
    "junk",
    ["Z:I", "D:a", "C", "T", "1", "2", "3", "n", "s", "I", "V", "G", "H", "c", "ERROR:no", b"R\0\0\0\x08\0\0\0\0"],
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


def test_what_a_client_came_with_stays_his_while_the_server_is_still_being_brought_there():
    mine = {"TimeZone": "CET", "DateStyle": "German, DMY"}
    play = Play(followed=mine) >> client("Q:a") >> server("S:TimeZone=CET")
    assert {name: play.client.followed[name] for name in mine} == mine
    assert (play.server.followed["TimeZone"], play.server.followed["DateStyle"]) == ("CET", "ISO, MDY")


def test_a_server_may_not_report_parameters_without_end():
    play = Play() >> client("Q:a")
    for number in range(MAX_REPORTED - len(play.server.parameters)):
        play >> server(f"S:p{number}=x")
    play >> server("S:p0=y") << stays_linked  # a change is not one more
    play.hear("client")
    play >> server("S:one_more=x") << error_to_client("server broke the protocol")
    assert len(play.server.parameters) == MAX_REPORTED + 1


def test_a_parameter_that_changes_on_an_idle_server_is_set_back_for_the_next_client():
    play = Play() >> server("S:TimeZone=CET") << to_client("") << released >> client("Q:a")
    play << to_server("Q:SET_TimeZone=E'UTC' Q:a")


def test_notifications_of_nobody_are_dropped():
    Play() >> server("N:hello A:news") << to_client("") << released


def test_nor_do_they_reach_anybody_with_the_answer_to_a_reset():
    play = Play() >> client("Q:a X") << to_server("Q:a") >> server("A:news C Z:I") << to_client("")
    assert play.server.state is IDLE
    play = Play(pool_mode="session") >> client("Q:a") >> server("C Z:I") >> client("X")
    play.hear("client")
    play >> server("A:news C Z:I") << to_client("")
    assert play.server.state is IDLE


def test_the_last_words_of_a_server_that_nobody_has_reach_nobody():
    play = Play() >> server("N:hello FATAL:bye") << to_client("")
    assert play.server.state in (CLOSING, CLOSED)


def test_a_client_that_reads_slowly_pauses_its_server_and_no_longer_than_that():
    play = Play(is_slow=True) >> client("Q:big") >> server("T " + ("D:" + "x" * 1000 + " ") * 70)
    assert not play.server_socket.reads
    play >> (lambda play: play.client_socket.peer_reads())
    assert play.server_socket.reads
    play >> server("C Z:I") << released


ANSWERS = MAX_AT_ONCE * 5 // 2  # three slices: only the ends of them are judged


def flooded(**said_of_it):
    """A client has asked much at once, and all the answers come at once. What is delivered in the first slice."""
    play = Play(**said_of_it) >> client("Q:a " * ANSWERS)
    with play.world.loop.running():
        play.server.data_received(said("C Z:I " * ANSWERS))
    return play


def test_a_flood_of_tiny_answers_is_taken_in_slices_and_loses_none():
    play = flooded()
    assert play.hear("client") == said("C Z:I " * MAX_AT_ONCE)
    assert not play.server_socket.reads
    play >> (lambda play: None) << to_client("C Z:I " * (ANSWERS - MAX_AT_ONCE)) << released
    assert play.server_socket.reads


def test_a_server_that_is_held_meanwhile_stays_held_and_one_that_is_let_go_is_not_read_before_its_time():
    play = flooded()
    play.server.hold()
    play >> (lambda play: None)
    assert not play.server_socket.reads
    play.server.let_go()
    assert play.server_socket.reads
    play = flooded()
    play.server.hold()
    play.server.let_go()
    assert not play.server_socket.reads


def test_what_a_server_said_before_its_connection_broke_is_heard_also_in_a_flood():
    play = flooded() >> (lambda play: play.server_socket.peer_breaks())
    assert play.hear("client").startswith(said("C Z:I " * ANSWERS))


def test_a_server_closed_in_a_flood_is_read_until_it_hangs_up():
    play = flooded()
    with play.world.loop.running():
        play.server.close(Closing.ADMIN)
    assert play.server_socket.reads
    play >> (lambda play: None)
    assert play.hear("client").count(b"Z") < ANSWERS


def test_a_server_given_back_by_a_slow_client_reads_again():
    play = Play(is_slow=True) >> client("Q:big") >> server("T " + ("D:" + "x" * 1000 + " ") * 70 + "C Z:I") << released
    assert play.server_socket.reads


def test_what_a_client_that_left_is_still_owed_reaches_nobody():
    play = Play() >> client("Q:a X") << to_server("Q:a")
    assert play.server.state is CLEANING
    play >> server("T D:secret C Z:I") << to_client("")
    assert play.server.state is IDLE
