"""One client's stream: what it may ask, where it is cut, how it waits, and the ways it leaves."""

import random

import pytest

from proxy.client import MAX_AT_ONCE, SLICE, STREAM_FROM
from proxy.holding import MAX_HELD
from proxy.leaving import FLUSH_TIME
from proxy.served import MAX_BACKLOG
from proxy.states import ACTIVE, CLEANING, CLOSED, CLOSING, GONE, IDLE, RESTING, WAITING, Closing
from tests.fakes import check_world
from tests.play import (
    Play,
    asked,
    client,
    client_breaks,
    client_hangs_up,
    error_to_client,
    released,
    server,
    stays_linked,
    to_client,
    to_server,
)

QUESTIONS = [
    "Q:rows",
    "Q:one Q:two Q:three",
    "P B D E S",
    "P B E H P B E S",
    "F S",
    "Q:copy d:row d:row c",
    "P B E d:row f:no S",
    "P B E S d:row c S",
    "Q:" + "x" * 2000,
    "C D E S Q:last",
]


def busy_play(**said):
    """A play whose only server is somebody else's; that one too, as `play.other`."""
    play = Play(**said)
    with play.world.loop.running():
        play.other = play.world.new_client()
    return play >> (lambda play: play.other.transport.peer_sends(asked("Q:busy"))) << to_server("Q:busy")


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_server_hears_exactly_what_the_client_says_wherever_it_is_cut(question):
    data = asked(question)
    chance = random.Random(len(data))
    cuts = [[], list(range(1, len(data)))] + [sorted(chance.sample(range(1, len(data)), 3)) for _ in range(20)]
    for places in cuts:
        play = Play()
        for start, end in zip([0, *places], [*places, len(data)], strict=True):
            play >> client(data[start:end])
        play << to_server(question) << stays_linked


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_waits_in_line_is_sent_as_it_was_said_wherever_it_was_cut(question):
    data = asked(question)
    chance = random.Random(len(data))
    for places in [[], *([sorted(chance.sample(range(1, len(data)), 3))] * 5)]:
        play = busy_play()
        for start, end in zip([0, *places], [*places, len(data)], strict=True):
            play >> client(data[start:end])
        play << to_server("") >> server("C Z:I") << to_server(question) << to_client("")


def test_all_of_one_call_goes_to_the_server_with_one_write():
    play = Play() >> client("P B D E S Q:one Q:two")
    assert len(play.server_socket.written) == 1


@pytest.mark.parametrize("kind", [each for each in range(256) if chr(each) not in "QPBDECSHFdcfX"])
def test_a_message_of_an_unknown_type_ends_the_client_and_never_reaches_a_server(kind):
    play = Play() >> client(bytes([kind]) + b"\0\0\0\x05x") << to_server("") << error_to_client("08P01")
    assert play.client.state is GONE
    assert play.server.state is IDLE


@pytest.mark.parametrize("length", [0, 3, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("kind", b"QPBDECSHFdcfX")
def test_an_absurd_length_ends_the_client(kind, length):
    play = Play() >> client(bytes([kind]) + length.to_bytes(4, "big") + b"xxxx") << to_server("")
    play << error_to_client("invalid message length")
    assert play.server.state is IDLE


@pytest.mark.parametrize("kind", b"QPBDECSFX")
def test_a_message_without_a_body_harms_nobody(kind):
    play = Play() >> client(bytes([kind]) + b"\0\0\0\x04")
    assert play.client.state in (ACTIVE, GONE)


def test_a_password_after_login_is_illegal():
    Play() >> client(b"p\0\0\0\x08abc\0") << to_server("") << error_to_client("invalid frontend message type 112")


def test_a_query_in_the_middle_of_copy_data_ends_the_client_and_the_copy():
    play = Play() >> client("Q:copy") >> server("G") << to_client("G") >> client("d:row Q:no")
    play << to_server("Q:copy f:the_client_has_left") << error_to_client("query message in the middle of COPY data")


def test_a_named_statement_passes_in_session_mode():
    Play(pool_mode="session") >> client("P:name B:name E S") << to_server("P:name B:name E S")


def test_in_session_mode_the_server_stays_with_its_client():
    play = Play(pool_mode="session") >> client("Q:a") >> server("C Z:I") << to_client("C Z:I") << stays_linked
    play >> client("X") << to_server("Q:a Q:DISCARD_ALL") >> server("C Z:I")
    assert play.server.state is IDLE


def test_in_transaction_mode_it_stays_as_long_as_the_transaction_is_open():
    play = Play() >> client("Q:begin") >> server("C Z:T") << stays_linked >> client("Q:fail")
    play >> server("ERROR:no Z:E") << stays_linked >> client("Q:rollback") >> server("C Z:I") << released


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_plain_queries_of_a_client_that_has_its_server_go_there_one_by_one_and_all_at_once(mode):
    play = Play(pool_mode=mode) >> client("Q:begin") << to_server("Q:begin") >> server("C:BEGIN Z:T")
    play << to_client("C:BEGIN Z:T") >> client("Q:select_1") << to_server("Q:select_1")
    play >> client("Q:select_2") << to_server("Q:select_2") >> client("Q:select_3 Q:select_4")
    play << to_server("Q:select_3 Q:select_4") >> server("T D:1 C:SELECT_1 Z:T") << to_client("T D:1 C:SELECT_1 Z:T")
    play >> server("C:SELECT_0 Z:T C:SELECT_1 Z:T") << to_client("C:SELECT_0 Z:T C:SELECT_1 Z:T") << stays_linked
    play >> server("T D:4 C:SELECT_1 Z:T") << to_client("T D:4 C:SELECT_1 Z:T") << stays_linked


def test_what_waits_behind_a_change_of_ours_is_not_overtaken_by_a_plain_query():
    play = Play() >> client("Q:begin") >> server("C Z:T") << to_client("C Z:T")
    play.client.held, play.client.held_debts = b"", ()
    play >> client("Q:select_1") << to_server("Q:begin")
    assert play.client.held == asked("Q:select_1")


def test_flush_alone_takes_no_server():
    Play() >> client("H") << to_server("") << released


@pytest.mark.parametrize("end", ["c", "f:no", "d:row c", "d:row d:row"])
def test_the_end_of_a_copy_that_has_failed_already_takes_no_server(end):
    play = Play() >> client("Q:copy d:row") >> server("G ERROR:bad Z:I") << released
    play << to_server("Q:copy d:row") >> client(end) << to_server("") << released


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_the_end_of_a_copy_that_has_failed_does_not_confuse_the_next_query(mode):
    play = Play(pool_mode=mode) >> client("Q:copy d:row") >> server("G ERROR:bad Z:I") >> client("d:row c Q:next")
    play << to_client("G ERROR:bad Z:I") >> server("C Z:I") << to_client("C Z:I")
    assert play.server.ledger.is_settled


def test_the_rest_of_copy_data_that_nobody_wants_is_thrown_away_to_its_last_byte():
    row = asked("d:" + "x" * 100_000)
    play = Play() >> client("Q:copy") >> server("G ERROR:bad Z:I") << released << to_server("Q:copy")
    (
        play
        >> client(row[:10])
        >> client(row[10:50_000])
        >> client(row[50_000:] + asked("c Q:next"))
        << to_server("c Q:next")
    )


def test_a_server_waits_for_the_end_of_a_message_that_is_half_sent():
    query = asked("d:" + "x" * 100_000)
    play = (
        Play() >> client("Q:copy") >> server("G") >> client(query[:70_000]) >> server("ERROR:bad Z:I") << stays_linked
    )
    play >> client(query[70_000:]) << released


def test_a_long_query_is_passed_on_as_it_comes():
    query = asked("Q:" + "x" * 200_000)
    play = Play() >> client(query[: STREAM_FROM + 10]) << to_server(query[: STREAM_FROM + 10])
    play >> client(query[STREAM_FROM + 10 :]) << to_server(query[STREAM_FROM + 10 :])
    play >> server("C Z:I") << released


def test_a_query_that_is_short_and_cut_takes_no_server_yet():
    play = Play() >> client(asked("Q:short")[:-1]) << to_server("")
    assert play.client.state is RESTING


@pytest.mark.parametrize("leave", [client_hangs_up, client_breaks, client("X")])
def test_a_client_may_leave_at_rest(leave):
    play = Play() >> leave
    assert play.client.state is GONE
    assert play.server.state is IDLE
    assert not play.world.pool.clients


@pytest.mark.parametrize("leave", [client_hangs_up, client_breaks, client("X")])
def test_a_client_may_leave_in_the_queue(leave):
    play = busy_play() >> client("Q:mine") >> leave >> server("C Z:I") << to_server("")
    assert play.client.state is GONE
    assert play.server.state is IDLE


@pytest.mark.parametrize("leave", [client_hangs_up, client_breaks])
def test_a_query_whose_client_disappears_is_cancelled(leave):
    play = Play() >> client("Q:long") >> leave
    assert play.server.state is CLEANING
    assert play.world.cancels == [play.server]
    play >> server("ERROR:canceled Z:I")
    assert play.server.state is CLEANING, "the cancel is still on its way"
    play >> (lambda play: play.world.cancel_arrives(play.server))
    assert play.server.state is IDLE


def test_a_query_whose_client_said_goodbye_is_not_cancelled():
    play = Play() >> client("Q:long X")
    assert play.world.cancels == []
    play >> server("C Z:I")
    assert play.server.state is IDLE


@pytest.mark.parametrize("is_slow", [False, True])
def test_a_goodbye_at_rest_closes_the_socket_when_what_was_written_is_read(is_slow):
    play = Play(is_slow=is_slow) >> client("Q:a") >> server("T D:1 C Z:I") >> client("X")
    assert play.client.state is GONE
    assert play.client_socket.is_closing()
    assert play.client_socket.is_lost is not is_slow
    assert play.server.state is IDLE
    assert play.client not in play.client.pool.clients
    if is_slow:
        play >> (lambda play: play.world.clock.advance(FLUSH_TIME + 1))
        assert play.client_socket.was_aborted, "there is a little patience, and no more"


@pytest.mark.parametrize("leave", [client_hangs_up, client_breaks, client("X")])
def test_an_open_transaction_is_rolled_back(leave):
    play = Play() >> client("Q:begin") >> server("C Z:T") >> leave << to_server("Q:begin Q:ROLLBACK")
    play >> server("C Z:I")
    assert play.server.state is IDLE


@pytest.mark.parametrize("cut", [70_000, 100_000])
def test_a_client_that_leaves_in_the_middle_of_a_message_costs_the_server(cut):
    play = Play() >> client(asked("Q:" + "x" * 200_000)[:cut]) >> client_hangs_up
    assert play.server.state in (CLOSING, CLOSED)


def test_a_client_at_every_byte_of_a_conversation_may_disappear():
    data = asked("Q:begin P B E S Q:commit")
    for cut in range(1, len(data)):
        play = Play() >> client(data[:cut]) >> client_hangs_up
        assert play.client.state is GONE
        check_world(play.world)


def test_who_waits_and_cancels_is_answered_from_the_queue():
    play = busy_play() >> client("Q:one P B E S") >> (lambda play: play.client.cancel_waiting())
    heard = play.hear("client")
    assert heard.count(b"C57014") == 2
    assert heard.count(b"Z\0\0\0\x05I") == 2
    assert play.client.state is RESTING
    play >> server("C Z:I") << to_server("")
    play >> client("Q:again") << to_server("Q:again")


@pytest.mark.parametrize("half", ["P B E", "Q:one P"])
def test_a_batch_without_its_end_cannot_be_taken_out_of_the_queue(half):
    play = busy_play() >> client(half) >> (lambda play: play.client.cancel_waiting()) << to_client("")
    assert play.client.state is WAITING


def test_what_a_waiting_client_sends_is_bounded_and_read_on_when_it_is_served():
    play = busy_play() >> client("Q:" + "x" * MAX_HELD)
    assert not play.client_socket.reads
    play >> server("C Z:I")
    assert play.client_socket.reads


def test_a_client_with_too_many_unanswered_requests_is_not_read_because_its_server_takes_more():
    play = Play() >> client("Q:first")
    play.server_socket.is_slow = True
    play >> client("S " * (MAX_BACKLOG + 4_000))
    assert not play.client_socket.reads
    play >> (lambda play: play.server_socket.peer_reads())
    assert not play.client_socket.reads


def test_a_client_is_not_read_while_its_server_takes_no_more_though_it_reads_itself():
    play = Play(is_slow=True) >> client("Q:rows Q:sleep") >> server("T " + ("D:" + "x" * 1000 + " ") * 70)
    play.server_socket.is_slow = True
    play >> client("Q:" + "x" * 100_000)
    assert not play.client_socket.reads
    play >> (lambda play: play.client_socket.peer_reads())
    assert not play.client_socket.reads, "what it sends would pile up in our memory"


def test_a_client_without_a_server_that_does_not_read_is_not_read():
    play = busy_play(is_slow=True) >> client("Q:a " * 1000) >> (lambda play: play.client.cancel_waiting())
    assert play.client.state is RESTING
    assert not play.client_socket.reads
    play >> (lambda play: play.client_socket.peer_reads())
    assert play.client_socket.reads


def test_who_waits_and_does_not_read_is_not_taken_out_of_the_queue_by_a_cancel():
    play = Play(is_slow=True) >> client("Q:big") >> server("T " + ("D:" + "x" * 1000 + " ") * 70 + "C Z:I") << released
    with play.world.loop.running():
        other = play.world.new_client()
    play >> (lambda play: other.transport.peer_sends(asked("Q:busy"))) >> client("Q:mine")
    assert play.client.state is WAITING
    unsent = len(play.client_socket.unsent)
    assert not play.client.cancel_waiting()
    assert play.client.state is WAITING
    assert len(play.client_socket.unsent) == unsent


def test_a_server_that_reads_slowly_pauses_its_client():
    play = Play()
    play.server_socket.is_slow = True
    play >> client("Q:" + "x" * 100_000)
    assert not play.client_socket.reads
    play >> (lambda play: play.server_socket.peer_reads())
    assert play.client_socket.reads


def test_a_client_that_does_not_read_its_last_words_is_cut_off_after_a_while():
    play = Play(is_slow=True) >> client("Q:a") >> server("T " + "D:" + "x" * 90_000)
    play >> client_hangs_up
    assert play.client.state is GONE
    assert not play.client_socket.was_aborted
    play >> (lambda play: play.world.advance(11.0))
    assert play.client_socket.was_aborted


def test_closing_tells_the_reason_once():
    play = Play()
    for _ in range(2):
        play >> (lambda play: play.client.close(Closing.ADMIN))
    play << error_to_client("admin forced disconnect")


def test_long_texts_that_come_together_are_taken_in_slices_too_and_what_is_sent_through_a_long_one_is_not_lost():
    play, one = Play(), asked("Q:" + "x" * (SLICE // 2))
    with play.world.loop.running():
        play.client.data_received(one * 5 + one[:9])
    assert bytes(play.server.transport.arrived) == one * 2
    play >> (lambda play: None)
    assert bytes(play.server.transport.arrived) == one * 5
    assert play.client.transport.reads
    long = asked("Q:" + "y" * (3 * SLICE))
    play >> client(one[9:] + long[:SLICE]) >> client(long[SLICE:] + one * 3)
    assert bytes(play.server.transport.arrived) == one * 6 + long + one * 3


def test_a_flood_of_tiny_messages_is_taken_in_slices_and_loses_none():
    play = Play()
    flood = asked("S") * (3 * MAX_AT_ONCE + 7)
    with play.world.loop.running():
        play.client.data_received(flood)
    heard = len(play.server.transport.arrived)
    assert heard == len(asked("S")) * MAX_AT_ONCE
    assert not play.client.transport.reads
    with play.world.loop.running():
        for _ in range(3):
            play.client._receive(b"")
    assert bytes(play.server.transport.arrived) == flood
    assert play.client.transport.reads
