"""Where statements are tracked, whatever a client asks and however it asks it is measured under what it is."""

import gc

import pytest

from protocol.frontend import Bind, build_bind, build_parse
from proxy.habits import Habits
from proxy.tracking import MAX_IN_UNIT, MAX_NAMES, Spoken, spoken_of, track
from tests.fakes import make_limits
from tests.play import (
    Play,
    another_client,
    asked,
    cancel_arrives,
    client,
    client_hangs_up,
    released,
    server,
    to_client,
    to_server,
)


def tracked(**limits):
    return Play(**{"track_statements": True, **limits})


def pause(seconds):
    return lambda play: play.world.advance(seconds)


def another_one(play):
    """It speaks from here on; the first has the only server."""
    play.first = play.client
    another_client(play)


def the_first_commits(play):
    play.first.transport.peer_sends(asked("Q:commit"))


def figures(play):
    """By statement: calls, errors, seconds of the server."""
    book = play.world.pool.lines.book
    return {
        shape.sketch: (shape.calls, shape.errors, round(shape.spent, 3)) for shape in book if shape.calls + shape.errors
    }


def of(play, text):
    """The one statement of that sketch."""
    (shape,) = [shape for shape in play.world.pool.lines.book if shape.sketch == text]
    return shape


def test_nothing_is_tracked_unless_somebody_wants_it():
    assert Play().world.pool.lines is None
    habits, tracking = Habits(make_limits()), Habits(make_limits(track_statements=True))
    assert habits.is_plain_inside is habits.is_plain
    assert (habits.is_walking, tracking.is_walking) == (False, True)
    assert track(habits.looks) != habits.looks


def test_a_query_alone():
    play = tracked() >> client("Q:select_7") >> pause(0.25) >> server("T D C Z:I") << released
    assert figures(play) == {"select ?": (1, 0, 0.25)}
    assert of(play, "select ?").bytes == len(bytes(play.client_socket.arrived))
    play >> client("Q:select_8") >> pause(0.5) >> server("T") >> pause(0.5) >> server("D C Z:I")
    assert figures(play) == {"select ?": (2, 0, 1.25)}


def test_writes_and_queries_in_transactions_count_as_well():
    play = tracked(deferred_begin=False) >> client("Q:begin") >> server("C Z:T")
    play >> client("Q:insert_into_t_values_(1)") >> pause(0.25) >> server("C Z:T")
    play >> pause(9) >> client("Q:commit") >> pause(0.5) >> server("C Z:I") << released
    assert figures(play) == {"begin": (1, 0, 0), "insert into t values (?)": (1, 0, 0.25), "commit": (1, 0, 0.5)}


@pytest.mark.parametrize("text", ['select_"a"_/*_x_*/', "select_E'\\n'", "select_$$x$$"])
def test_a_text_without_a_shape_is_known_by_what_it_looks_like(text):
    play = tracked() >> client(f"Q:{text}") >> pause(0.25) >> server("T D C Z:I")
    assert list(figures(play).values()) == [(1, 0, 0.25)]
    assert "x" not in next(iter(figures(play)))


def test_an_error_is_no_call():
    play = tracked() >> client("Q:select_1") >> pause(0.25) >> server("ERROR:x Z:I") << released
    assert figures(play) == {"select ?": (0, 1, 0.0)}
    play >> client("Q:select_1") >> server("C Z:I")
    assert figures(play) == {"select ?": (1, 1, 0.0)}


def test_several_queries_sent_at_once():
    play = tracked() >> client("Q:select_1 Q:select_a Q:select_1") >> pause(0.25) >> server("T D C Z:I")
    play >> pause(0.5) >> server("ERROR:x Z:I") >> pause(1.0) >> server("C Z:I") << released
    assert figures(play) == {"select ?": (2, 0, 1.25), "select a": (0, 1, 0.0)}


def test_queries_sent_before_the_first_is_answered():
    play = tracked() >> client("Q:select_1") >> client("Q:select_a") >> pause(0.25) >> server("C Z:I")
    play >> pause(0.5) >> server("C Z:I") << released
    assert figures(play) == {"select ?": (1, 0, 0.25), "select a": (1, 0, 0.5)}


def test_a_round_of_the_unnamed_statement():
    said = build_parse(b"", b"select a where b = $1") + build_bind(Bind(b"", b""))
    play = tracked() >> client(said) >> client("E S") >> pause(0.25) >> server("1 2 D C Z:I") << released
    assert figures(play) == {"select a where b = ?": (1, 0, 0.25)}
    whole = said + b"E\0\0\0\x09\0\0\0\0\0S\0\0\0\4"
    play >> client(whole) >> pause(0.5) >> server("1 2 D C Z:I") << released
    assert figures(play) == {"select a where b = ?": (2, 0, 0.75)}


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_named_statement_counts_whenever_it_is_run(mode):
    play = (
        tracked(pool_mode=mode)
        >> client("PARSE:s=select_a S")
        >> server("1 t n Z:I" if mode == "transaction" else "1 Z:I")
    )
    assert figures(play) == {}, "to be parsed is not to be run"
    for _ in range(3):
        play >> client("BIND:=s E S") >> pause(0.25) >> server("2 D C Z:I")
    assert figures(play) == {"select a": (3, 0, 0.75)}


def in_transaction():
    """`s` is prepared, and a transaction is open."""
    play = tracked() >> client("PARSE:s=select_a S") >> server("1 t n Z:I")
    return play >> client("Q:begin;select_1") >> server("C Z:T")


def test_a_named_statement_in_a_transaction():
    play = in_transaction()
    (
        play
        >> client("BIND:=s E S")
        >> pause(0.25)
        >> server("2 D C Z:T")
        >> client("Q:commit")
        >> server("C Z:I")
        << released
    )
    assert figures(play)["select a"] == (1, 0, 0.25)


def test_statements_behind_one_sync_share_its_time():
    play = tracked() >> client("PARSE:s=select_a PARSE:u=select_b S") >> server("1 t n 1 t n Z:I")
    play >> client("BIND:=s E BIND:=u E BIND:=s E S") >> pause(0.75) >> server("2 C 2 C 2 C Z:I") << released
    assert figures(play) == {"select a": (2, 0, 0.5), "select b": (1, 0, 0.25)}
    play >> client("BIND:=s E BIND:=u E S") >> server("2 C ERROR:x Z:I")
    assert figures(play) == {"select a": (2, 1, 0.5), "select b": (1, 1, 0.25)}


def test_rows_fetched_later_count_once():
    play = in_transaction()
    (
        play
        >> client("BIND:=s E S")
        >> pause(0.25)
        >> server("2 D s Z:T")
        >> client("E S")
        >> pause(0.25)
        >> server("D C Z:T")
    )
    assert figures(play)["select a"] == (1, 0, 0.25)


def test_a_wait_for_a_server_counts_once_and_is_no_time_of_the_server():
    play = tracked() >> client("Q:begin;select_1") >> server("C Z:T") >> another_one
    play >> pause(0.1) >> client("Q:select_a") >> pause(2.0)
    play >> the_first_commits >> server("C Z:I") >> pause(0.25) >> server("C Z:I")
    shape = of(play, "select a")
    assert (shape.calls, round(shape.spent, 3), shape.waited) == (1, 0.25, 2.0)
    play >> client("Q:select_a") >> server("C Z:I")
    assert (shape.calls, shape.waited) == (2, 2.0)


def test_what_waits_and_what_comes_behind_it_are_two():
    play = tracked() >> client("Q:begin;select_1") >> server("C Z:T") >> another_one
    for text in "ab":
        play >> client(f"Q:select_{text}")
    play >> the_first_commits >> server("C Z:I") >> pause(0.25) >> server("C Z:I") >> pause(0.5) >> server("C Z:I")
    assert figures(play)["select a"] == (1, 0, 0.25)
    assert figures(play)["select b"] == (1, 0, 0.5)


def test_what_was_called_off_in_the_queue_is_not_mistaken_for_what_comes_next():
    play = tracked() >> client("Q:begin;select_1") >> server("C Z:T") >> another_one
    (play >> client("Q:select_a Q:select_a") >> (lambda play: play.client.cancel_waiting()))
    play >> the_first_commits >> server("C Z:I")
    play >> client("Q:select_b Q:select_b") >> server("C Z:I C Z:I")
    assert "select a" not in figures(play)
    assert figures(play)["select b"][0] == 2


def test_a_client_with_parameters_of_its_own_is_measured_behind_its_set():
    play = tracked(followed={"TimeZone": "Asia/Tokyo"}) >> client("Q:select_1") >> server("S:TimeZone=Asia/Tokyo C Z:I")
    play >> pause(0.25) >> server("C Z:I") << released
    assert figures(play)["select ?"][0] == 1


def test_a_deferred_begin_is_nobodys_business():
    play = tracked(deferred_begin=True) >> client("Q:begin") << to_client("C:BEGIN Z:T")
    play >> client("Q:select_1") >> server("RAN:BEGIN") >> pause(0.25) >> server("C Z:T")
    assert figures(play)["select ?"][0] == 1


def test_a_query_in_pieces():
    text = b"select '" + b"x" * 3_000 + b"'\0"
    message = b"Q" + (len(text) + 4).to_bytes(4, "big") + text
    play = tracked() >> client(message[:2_000]) >> client(message[2_000:]) << to_server(message)
    play >> pause(0.25) >> server("C Z:I") << released
    assert figures(play) == {"select ?": (1, 0, 0.25)}


def test_one_that_is_passed_on_as_it_comes_is_known_by_its_beginning():
    text = b"select a, '" + b"geheim" * 30_000 + b"'\0"
    message = b"Q" + (len(text) + 4).to_bytes(4, "big") + text
    play = tracked() >> client(message[:90_000]) >> client(message[90_000:]) >> server("C Z:I") << released
    assert list(figures(play)) == ["select a, ?"]


def test_who_leaves_is_not_counted_and_nothing_breaks():
    play = (
        tracked() >> client("Q:select_1 Q:select_a") >> client_hangs_up >> cancel_arrives >> server("ERROR:x Z:I C Z:I")
    )
    assert sum(calls for calls, _, _ in figures(play).values()) <= 1
    del play
    gc.collect()


def test_names_are_bounded_and_the_last_ones_are_known():
    spoken, shapes = Spoken(), [object() for _ in range(MAX_NAMES + 1)]
    for number, shape in enumerate(shapes):
        spoken.name(b"%d" % number, shape)
    assert len(spoken.names) == MAX_NAMES
    assert b"0" not in spoken.names
    for shape in shapes:
        spoken.bind(shape)
        spoken.bind(shape)
    unit = spoken.take_unit()
    assert len(unit) == MAX_IN_UNIT
    assert set(unit.values()) == {2}
    assert spoken.take_unit() == {}


def test_what_is_known_of_a_client_goes_with_it():
    play = tracked() >> client("PARSE:s=select_a S") >> server("1 t n Z:I")
    assert list(spoken_of(play.client).names) == [b"s"]
    assert len(play.world.pool.lines.book.spoken) == 1


def test_a_name_given_before_anybody_noted_it():
    play = Play() >> client("PARSE:s=select_a S") >> server("1 t n Z:I")
    play.world.pool.set_limits(make_limits(pool_size=1, track_statements=True))
    play >> client("BIND:=s E S") >> pause(0.25) >> server("2 D C Z:I") >> client("BIND:=s E S BIND:=s E S")
    play >> server("2 D C Z:I 2 D C Z:I")
    assert figures(play)["select a"][0] == 3


def test_with_a_probe_in_the_ledger_every_answer_is_the_same():
    """The same transcript with and without."""
    words = [
        ("Q:select_1", "T D C Z:I"), ("Q:select_1 Q:select_2", "T D C Z:I ERROR:x Z:I"),
        ("PARSE:s=select_a S", "1 t n Z:I"),
        ("BIND:=s E S", "2 D C Z:I"), ("BIND:=s D E S", "2 T D C Z:I"), ("P B E H", "1 2 D C"), ("S", "Z:I"),
        ("Q:copy_t_from_stdin", "G"), ("d:x c", "C Z:I"), ("F", "V Z:I"),
    ]  # fmt: skip
    heard = []
    for is_tracked in (False, True):
        play = Play(track_statements=is_tracked)
        for one, other in words:
            play >> client(one) >> server(other)
        play << released
        heard.append((bytes(play.client_socket.arrived), bytes(play.server_socket.arrived)))
    assert heard[0] == heard[1]
