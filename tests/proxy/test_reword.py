"""Errors that speak of statements: in the client's words, in its encoding, and nothing else changed. Stale plans."""

import pytest

from protocol import codes
from protocol.backend import parse_error
from protocol.body import build_message
from protocol.frontend import Bind, build_bind, build_parse
from proxy.reword import CHANGED, reword
from proxy.server import ENOUGH_OF_AN_ERROR
from tests.play import Play, another_client, asked, client, released, said, server, stays_linked, to_client, to_server

RUN = "B:a D E S"
OURS_RUN = "B:PGSHUTTLE_1 D E S"
AGAIN = "CLOSE:PGSHUTTLE_1 OURS:1=select_1 H"


def a_play(**more):
    return Play(session_state="track", **{"pool_size": 9, **more})


def prepared(name=b"a"):
    play = a_play() >> client(build_parse(name, b"select 1") + asked("S")) >> server("1 t T:x Z:I") << released
    play.hear("server"), play.hear("client")
    return play


def error(**fields):
    """An ErrorResponse with these fields, in this order, and what PostgreSQL adds."""
    fields = {"S": "FEHLER", "V": "ERROR", "F": "prepare.c", "L": "451", "R": "FetchPreparedStatement", **fields}
    texts = (key.encode() + (text if isinstance(text, bytes) else text.encode()) for key, text in fields.items())
    return build_message(codes.ERROR_RESPONSE, b"\0".join([*texts, b"", b""]))


# Names.


@pytest.mark.parametrize(
    "message",
    [
        'prepared statement "{}" does not exist',
        "vorbereitete Anweisung »{}« existiert nicht",
        'bind message supplies 1 parameters, but prepared statement "{}" requires 2',
    ],
)
@pytest.mark.parametrize("name", [b"a", b"\xe9t\xe9", b'say "a"', b"\\1"])
def test_only_the_name_is_changed_and_every_other_byte_stays(message, name):
    play = prepared(name) >> client(build_bind(Bind(b"", name)) + asked("E S"))
    encoded = message.encode("latin-1")
    heard = error(C="08P01", M=encoded.replace(b"{}", b"PGSHUTTLE_1"), D="PGSHUTTLE_1", P="7")
    play >> server(heard + said("Z:I"))
    play << to_client(error(C="08P01", M=encoded.replace(b"{}", name), D="PGSHUTTLE_1", P="7") + said("Z:I"))


def test_an_error_of_somebody_who_never_named_a_statement_is_left_alone():
    play = a_play() >> client("Q:select_1") >> server(error(C="26000", M="PGSHUTTLE_1") + said("Z:I"))
    play << to_client(error(C="26000", M="PGSHUTTLE_1") + said("Z:I"))


def test_a_name_that_is_nobodys_stays():
    play = (
        prepared() >> client("B:b E S") >> server("MISSING:PGSHUTTLE_77 Z:I") << to_client("MISSING:PGSHUTTLE_77 Z:I")
    )
    assert play.server.state.name == "IDLE"


def test_an_error_that_comes_in_pieces_is_changed_when_it_is_whole():
    words = said("MISSING:PGSHUTTLE_1 Z:I")
    for cut in range(1, len(words)):
        play = prepared() >> client(RUN) >> server(words[:cut]) >> server(words[cut:])
        play << to_client("MISSING:a Z:I")


def test_one_that_is_too_long_to_wait_for_goes_as_it_comes():
    words = error(C="26000", M="PGSHUTTLE_1 " + "x" * ENOUGH_OF_AN_ERROR * 2)
    play = (
        prepared() >> client(RUN) >> server(words[: ENOUGH_OF_AN_ERROR + 9]) >> server(words[ENOUGH_OF_AN_ERROR + 9 :])
    )
    play << to_client(words)


def test_a_statement_dropped_out_of_our_sight_is_made_again():
    play = prepared() >> client(RUN) >> server("MISSING:PGSHUTTLE_1 Z:I") << to_client("MISSING:a Z:I") << released
    play.hear("server")
    play >> client(RUN) << to_server(AGAIN)


def test_a_statement_whose_columns_changed_fails_as_in_postgresql():
    play = prepared()
    next(iter(play.server.statements)).is_outdated = True
    play >> client("B:a E S") << to_server("B:PGSHUTTLE_0 E S") >> server("MISSING:PGSHUTTLE_0 Z:I")
    fields = parse_error(play.hear("client")[5:-6])
    assert (fields.severity, fields.sqlstate, fields.message) == ("ERROR", "0A000", CHANGED)
    assert fields.raw["R"] == "RevalidateCachedQuery"


def test_what_is_said_without_bytes_is_not_changed():
    play = prepared()
    whole = parse_error(said("MISSING:PGSHUTTLE_1")[5:])
    assert reword(play.client, whole) == said("MISSING:a")
    assert reword(play.client, parse_error(b"")) is None


# Stale plans.


def test_a_stale_plan_is_made_again_and_the_batch_is_run_again():
    play = prepared() >> client(RUN) << to_server(OURS_RUN) >> server("STALE Z:I") << to_client("") << to_server(AGAIN)
    (
        play
        >> server("3 1 t T:x")
        << to_server(OURS_RUN)
        >> server("2 T:x D C Z:I")
        << to_client("2 T:x D C Z:I")
        << released
    )


def test_who_does_not_ask_for_the_columns_gets_the_same_ones():
    play = prepared() >> client("B:a E S") >> server("STALE Z:I") << to_client("")
    play << to_server("B:PGSHUTTLE_1 E S CLOSE:PGSHUTTLE_1 OURS:1=select_1 H") >> server("3 1 t T:x")
    play << to_server("B:PGSHUTTLE_1 E S") >> server("2 D C Z:I") << to_client("2 D C Z:I") << released


def test_or_the_honest_error():
    play = prepared() >> client("B:a E S") >> server("STALE Z:I") >> server("3 1 t T:new")
    play.hear("server")
    play >> server("MISSING:PGSHUTTLE_0 Z:I") << released
    assert b"C0A000" in play.hear("client")


def test_it_is_run_again_once():
    play = prepared() >> client(RUN) >> server("STALE Z:I") >> server("3 1 t T:x") >> server("STALE Z:I")
    play << to_client("STALE Z:I") << released


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        ("B:a E B:a E S", "2 C STALE Z:I"),
        ("B:a D E S Q:select_2", "STALE Z:I"),
        ("B:a E", "STALE"),
        ("PARSE:=select_2 B E B:a E S", "1 2 C STALE Z:I"),
        ("ASK:a S", "STALE Z:I"),
    ],
)
def test_what_is_not_one_statement_run_alone_is_not_run_again(words, answers):
    play = prepared() >> client(words)
    play.hear("server")
    play >> server(answers) << to_client(answers) << to_server("")


def test_nor_is_it_in_a_transaction():
    play = prepared() >> client("Q:begin") >> server("C Z:T") >> client(RUN) >> server("STALE Z:E")
    play << to_client("C Z:T STALE Z:E") << stays_linked


def test_a_batch_is_not_taken_for_the_one_before_it():
    """That one has been answered: to run it again would run it twice."""
    play = prepared() >> client("PARSE:b=select_2 S") >> server("1 t T Z:I") >> client(RUN)
    play >> server("2 T:x D C Z:I") << released
    play.hear("server"), play.hear("client")
    play >> client("B:a D E S") >> server("2 T:x D C") >> client("B:b E S") >> server("Z:I STALE Z:I")
    play << to_client("2 T:x D C Z:I STALE Z:I") << to_server(OURS_RUN + " B:PGSHUTTLE_2 E S") << released


def test_after_a_stale_plan_whoever_parses_anew_gets_a_fresh_statement():
    play = prepared() >> client("B:a E B:a E S") >> server("STALE Z:I")
    play.hear("server")
    play >> another_client >> client("PARSE:b=select_1 S") << to_server("OURS:2=select_1 S")


def test_what_was_made_since_is_trusted():
    play = prepared() >> client("PARSE:b=select_2 S") >> server("1 t T Z:I")
    play.world.schema_changed(play.world.pool)
    play >> client("PARSE:c=select_3 S") >> server("1 t T Z:I") >> client(RUN) >> server("STALE Z:I")
    generation = play.world.pool.generation
    assert {each.text: since for each, since in play.server.statements.items()} == {
        b"select 1": generation,
        b"select 2": 0,
        b"select 3": generation,
    }


def test_a_cut_error_is_never_a_reason_to_run_anything_again():
    words = error(C="0A000", M="x" * ENOUGH_OF_AN_ERROR, R="RevalidateCachedQuery")
    play = prepared() >> client(RUN) >> server(words[:-10]) >> server(words[-10:] + said("Z:I"))
    play << to_client(words + said("Z:I")) << released
