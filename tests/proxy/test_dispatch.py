"""Where clients and servers meet: whose parameters hold, and when they part."""

import pytest

from protocol.frontend import build_query
from proxy.states import CLOSED, CLOSING, GONE, IDLE
from tests.play import (
    Play,
    client,
    client_hangs_up,
    error_to_client,
    released,
    said,
    server,
    stays_linked,
    to_client,
    to_server,
)

CET = {"TimeZone": "CET"}
SET_CET = "Q:SET_TimeZone=E'CET'"


def test_equal_parameters_need_no_set():
    play = Play() >> client("Q:a") << to_server("Q:a")
    assert play.client.followed is play.server.followed


def test_equal_parameters_become_the_same_object():
    play = Play()
    play.client.followed = dict(play.client.followed)
    play >> client("Q:a") << to_server("Q:a")
    assert play.client.followed is play.server.followed


def test_an_unproven_value_goes_alone_and_the_request_waits_for_its_answer():
    play = Play(followed=CET) >> client("Q:a") << to_server(SET_CET) >> client("Q:b") << to_server("")
    play >> server("C S:TimeZone=CET Z:I") << to_server("Q:a Q:b") << to_client("")
    play >> server("C Z:I") << stays_linked >> server("C Z:I") << released << to_client("C Z:I C Z:I")
    assert play.client.followed is play.server.followed


def test_a_proven_value_travels_with_the_request():
    play = Play(followed=CET)
    play.world.pool.proven.add(("TimeZone", "CET"))
    play >> client("Q:a") << to_server(f"{SET_CET} Q:a")
    assert len(play.server_socket.written) == 1
    play >> server("C S:TimeZone=CET Z:I T D:a C Z:I") << to_client("T D:a C Z:I") << released


def test_a_request_never_runs_under_parameters_that_were_refused():
    play = Play(followed=CET) >> client("Q:a") >> server("ERROR:invalid Z:I") << to_server(SET_CET)
    play << error_to_client("invalid")
    assert play.client.state is GONE
    assert play.server.state is IDLE


def test_two_differences_make_one_set_message():
    play = Play(followed={"TimeZone": "CET", "DateStyle": "German"}) >> client("Q:a")
    assert play.hear("server").count(b"Q\0") == 1


def test_quotes_and_backslashes_in_a_value_stay_inside_it():
    play = Play(followed={"application_name": "it's \\ me"}) >> client("Q:a")
    assert b"application_name=E'it''s \\\\ me'" in play.hear("server")


def test_a_value_that_the_server_spells_its_own_way_is_taken_over_and_not_set_again():
    play = Play(followed={"TimeZone": "utc"}) >> client("Q:a") >> server("C Z:I") >> server("C Z:I") << released
    play.hear("server")
    play >> client("Q:b") << to_server("Q:b")


def test_a_value_that_cannot_be_said_in_a_set_ends_the_client_and_nothing_else():
    play = Play(followed={"TimeZone": "Europe/Z\udcfcrich"}) >> client("Q:a")
    assert play.client.state is GONE
    assert play.hear("client").startswith(b"E")
    assert play.server.state is IDLE
    play << to_server("")


def test_what_is_not_ascii_is_said_in_digits():
    play = Play(followed={"application_name": "Zürich"}) >> client("Q:a")
    assert b"decode('5ac3bc72696368','hex')" in play.hear("server")


def test_a_value_of_somebody_elses_is_reset_alone_and_the_request_waits():
    play = Play()
    play.server.followed = play.world.pool.intern({**play.server.followed, "my.x": "1"})
    play >> client("Q:a") << to_server('Q:RESET_"my"."x"') >> server("C Z:I") << to_server("Q:a")
    play >> server("C Z:I") << released
    assert play.server.followed is play.client.followed


def test_a_value_that_is_not_followed_never_travels_with_the_request():
    """It may fail though it has been accepted before: a role may be revoked."""
    play = Play(followed={"role": "clerk"})
    play.world.pool.proven.add(("role", "clerk"))
    play >> client("Q:a") << to_server(build_query("SELECT pg_catalog.set_config(E'role',E'clerk',false)"))


@pytest.mark.parametrize(("timeout", "messages"), [("1ms", 1), ("9s", 2)])
def test_nothing_travels_with_a_request_that_a_timeout_of_somebody_elses_could_strike(timeout, messages):
    play = Play(followed={**CET, "statement_timeout": timeout})
    play.world.pool.proven.add(("TimeZone", "CET"))
    play.server.followed = play.world.pool.intern({**play.server.followed, "statement_timeout": timeout})
    play >> client("Q:a")
    heard = play.hear("server")
    assert (b'RESET "statement_timeout";SET' in heard) is (messages == 1)
    assert heard.count(b"Q\0") == messages


def test_a_set_that_was_answered_after_its_client_left_is_remembered_of_the_server():
    play = Play(followed={"my.x": "1"}) >> client("Q:a X") >> server("C Z:I")
    assert play.server.followed["my.x"] == "1"
    other = play.world.new_client()
    with play.world.loop.running():
        other.data_received(b"Q\0\0\0\x06b\0")
    assert b'RESET "my"."x"' in play.hear("server")


def test_who_is_refused_hears_what_was_being_set():
    play = Play(followed={"role": "clerk"}) >> client("Q:a") >> server("ERROR:denied Z:I")
    play << error_to_client("were being set on another server connection: role")


def test_a_client_that_leaves_before_its_set_is_answered_leaves_a_clean_server():
    play = Play(followed=CET) >> client("Q:a") >> client_hangs_up >> server("C S:TimeZone=CET Z:I")
    play >> (lambda play: [play.world.cancel_arrives(each) for each in list(play.world.cancels)])
    assert play.server.state is IDLE
    assert play.server.followed["TimeZone"] == "CET"


def test_a_server_lost_before_the_set_is_answered_takes_its_client_along():
    play = Play(followed=CET) >> client("Q:a") >> (lambda play: play.server_socket.peer_breaks())
    assert play.server.state in (CLOSING, CLOSED)
    play << error_to_client("server conn crashed?")


def test_what_has_been_proven_is_not_remembered_without_bound():
    play = Play()
    for number in range(3000):
        play >> client("Q:set") >> server(said(f"C S:application_name=a{number} Z:I"))
    assert len(play.world.pool.proven) < 2500


@pytest.mark.parametrize("slow", [True, False])
def test_a_client_whose_socket_is_full_holds_the_server_it_gets(slow):
    play = Play(is_slow=slow)
    play >> client("Q:a") >> server("T " + ("D:" + "x" * 900 + " ") * 80 + "C Z:I") << released
    play >> client("Q:b")
    assert play.server_socket.reads is not slow


def test_a_server_whose_socket_is_full_holds_the_client_it_gets():
    play = Play()
    play.server_socket.is_slow = True
    play >> client("Q:copy") >> server("G") >> client("d:" + "x" * 100_000) >> server("ERROR:full Z:I") << released
    assert play.client_socket.reads
    play >> client("Q:b")
    assert not play.client_socket.reads
    play >> (lambda play: play.server_socket.peer_reads())
    assert play.client_socket.reads
