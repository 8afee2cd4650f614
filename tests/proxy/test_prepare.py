"""From a client's names to a server's: what is sent, who hears the answers, what an error takes back."""

import gc

import pytest

from protocol.backend import build_data_row, build_parameter_description
from protocol.frontend import Bind, build_bind, build_parse, build_query
from protocol.inspection import Fact, Question, build_inspection
from proxy.requests import MAX_STATEMENT
from proxy.states import CLOSED, CLOSING, GONE
from tests.play import (
    Play,
    another_client,
    another_server,
    asked,
    client,
    client_hangs_up,
    released,
    said,
    server,
    stays_linked,
    to_client,
    to_server,
)

ONE = "PARSE:a=select_1 S"
RUN = "B:a E S"
OURS_RUN = "B:PGSHUTTLE_1 E S"


def a_play(**more):
    return Play(session_state="track", **{"pool_size": 9, **more})


def prepared(column="x", **more):
    """A play whose client has `a`, described by its server."""
    play = a_play(**more) >> client(ONE) << to_server("OURS:1=select_1 S")
    return play >> server(f"1 t T:{column} Z:I") << to_client("1 Z:I") << released


# One text, one statement.


def test_a_parse_goes_under_our_name_and_is_described_for_us():
    prepared()


def test_the_same_text_of_another_client_is_not_parsed_again():
    play = prepared() >> another_client >> client("PARSE:b=select_1 S") << to_server("KNOWN S")
    play >> server("1 Z:I") << to_client("1 Z:I") << released
    play >> client("B:b E S") << to_server(OURS_RUN)


def in_schema(schema, number):
    """Begins a transaction that says SET LOCAL search_path, and prepares `select 1` in it."""

    def act(play):
        play >> client("Q:begin") >> server("C Z:T") >> client(build_query(f"set local search_path = {schema}"))
        play >> server("C:SET Z:T")
        play.hear("server")
        play >> client("PARSE:x=select_1 S") << to_server(f"OURS:{number}=select_1 S" if number else "KNOWN S")
        play >> server("1 t T:x Z:T" if number else "1 Z:T") >> client("Q:commit") >> server("C:COMMIT Z:I")
        play << released
        play.hear("server")

    return act


def test_the_same_text_in_another_schema_is_another_statement_and_that_of_those_who_say_the_same():
    play = a_play(pool_size=1)
    in_schema("one", 1)(play)
    in_schema("two", 2)(play >> another_client)
    in_schema("one", 0)(play >> another_client)
    play >> another_client >> client("PARSE:x=select_1 S") << to_server("OURS:3=select_1 S")


def test_other_parameter_types_make_another_statement():
    play = prepared() >> another_client >> client(build_parse(b"a", b"select 1", [23]) + asked("S"))
    assert play.hear("server").startswith(build_parse(b"PGSHUTTLE_2", b"select 1", [23]))


@pytest.mark.parametrize("name", [b'it"s', b"\xff\xfe", b"x" * 10_000, b" ", b"PGSHUTTLE_9"])
def test_a_name_may_be_anything(name):
    play = a_play() >> client(build_parse(name, b"select 1") + asked("S")) << to_server("OURS:1=select_1 S")
    play >> server("1 t T Z:I") << to_client("1 Z:I")
    play >> client(build_bind(Bind(b"", name)) + asked("E S")) << to_server(OURS_RUN)


def test_of_a_name_as_many_bytes_count_as_in_postgresql():
    long = b"x" * 63
    play = a_play() >> client(build_parse(long + b"y", b"select 1") + asked("S")) >> server("1 t T Z:I")
    play.hear("server")
    play >> client(build_bind(Bind(b"", long + b"z")) + asked("E S")) << to_server(OURS_RUN)


def test_a_round_costs_nothing_but_its_name():
    play = prepared() >> client(RUN) << to_server(OURS_RUN) >> server("2 C Z:I") << to_client("2 C Z:I") << released
    assert len(play.server_socket.written) == 2


@pytest.mark.parametrize("words", ["B:a E S", "B:a D E S", "B:a E B:a E S", "ASK:a S", "BIND:p=a E:p S", "B:a H E S"])
def test_wherever_it_is_cut_the_server_hears_the_same(words):
    data = asked(words)
    ought = words.replace("B:a", "B:PGSHUTTLE_1").replace("ASK:a", "ASK:PGSHUTTLE_1").replace("=a", "=PGSHUTTLE_1")
    for cut in range(1, len(data)):
        play = prepared() >> client(data[:cut]) >> client(data[cut:])
        play << to_server(ought)
    play = prepared()
    for at in range(len(data)):
        play >> client(data[at : at + 1])
    play << to_server(ought)


def test_a_long_bind_is_renamed_and_passed_on_as_it_comes():
    play, long = prepared(), build_bind(Bind(b"", b"a", values=(b"v" * 200_000,)))
    ours = build_bind(Bind(b"", b"PGSHUTTLE_1", values=(b"v" * 200_000,)))
    for at in range(0, len(long), 70_000):
        play >> client(long[at : at + 70_000])
    play >> client("E S") << to_server(ours + asked("E S")) >> server("2 C Z:I") << released


def test_a_statement_longer_than_is_shared_goes_as_it_is():
    play, long = a_play(), build_parse(b"a", b"select " + b"1" * MAX_STATEMENT)
    for at in range(0, len(long), 200_000):
        play >> client(long[at : at + 200_000])
    play >> client("B:a E S CLOSE:a S") << to_server(long + asked("B:a E S CLOSE:a S"))


def test_one_that_is_too_long_does_not_pretend_to_be_ours():
    play, body = a_play(), b"select " + b"1" * MAX_STATEMENT
    long = build_parse(b"PGSHUTTLE_1", body)
    for at in range(0, len(long), 200_000):
        play >> client(long[at : at + 200_000])
    play << to_server(build_parse(b"PGSHUTTLE_1?", body))
    play >> client("B:PGSHUTTLE_1 E CLOSE:PGSHUTTLE_1 S") << to_server("B:PGSHUTTLE_1? E CLOSE:PGSHUTTLE_1? S")


# A server that lacks it.


def test_a_server_that_lacks_it_is_given_it_and_the_client_hears_nothing_of_that():
    play = prepared() >> another_server >> client("B:a D E S") << to_server("OURS:1=select_1 H")
    play >> server("1 t T:x") << to_server("B:PGSHUTTLE_1 D E S")
    play >> server("2 T:x D C Z:I") << to_client("2 T:x D C Z:I") << released


def test_who_does_not_ask_for_the_description_waits_for_it():
    play = prepared() >> another_server >> client(RUN) << to_server("OURS:1=select_1 H")
    play >> server("1 t T:x") << to_server(OURS_RUN) >> server("2 C Z:I") << to_client("2 C Z:I") << released


def test_what_is_said_meanwhile_comes_behind():
    play = prepared() >> another_server >> client("B:a E S") << to_server("OURS:1=select_1 H")
    play >> client("B:a E S") >> client(asked("Q:select_9")[:3]) >> client(asked("Q:select_9")[3:]) << to_server("")
    play >> server("1 t T:x") << to_server("B:PGSHUTTLE_1 E S B:PGSHUTTLE_1 E S Q:select_9")
    play >> server("2 C Z:I 2 C Z:I") << stays_linked >> server("C Z:I") << released
    play << to_client("2 C Z:I 2 C Z:I C Z:I")


def test_the_rest_of_a_long_bind_comes_behind_too():
    play, long = prepared() >> another_server, build_bind(Bind(b"", b"a", values=(b"v" * 100_000,)))
    play >> client(long[:70_000]) << to_server("OURS:1=select_1 H") >> client(long[70_000:] + asked("E S"))
    play >> server("1 t T:x")
    play << to_server(build_bind(Bind(b"", b"PGSHUTTLE_1", values=(b"v" * 100_000,))) + asked("E S"))


def test_a_describe_of_something_else_does_not_tell_what_the_columns_are():
    prepared() >> another_server >> client("B:a ASK:b E S") << to_server("OURS:1=select_1 H")
    prepared() >> another_server >> client("BIND:p=a D E:p S") << to_server("OURS:1=select_1 H")


def test_a_client_may_leave_while_it_waits_for_a_description():
    play = prepared() >> another_server >> client(RUN) << to_server("OURS:1=select_1 H") >> client_hangs_up
    assert play.client.state is GONE
    play << to_server("R") >> server("1 t T:x") >> server("1 2 C Z:I")
    assert play.client.server is None


def test_an_error_of_what_was_put_in_front_is_the_clients_and_the_rest_is_skipped():
    play = prepared() >> another_server >> client("B:a E S") << to_server("OURS:1=select_1 H")
    play >> server("ERROR:gone") << to_client("ERROR:gone") << to_server("B:a E S")  # it is skipped
    play >> server("Z:I") << to_client("Z:I") << released
    play >> client("B:a D E S") << to_server("CLOSE:PGSHUTTLE_1 OURS:1=select_1 H")


def test_two_statements_that_are_lacking_wait_one_after_the_other():
    play = prepared() >> client("PARSE:b=select_2 S") >> server("1 t T:y Z:I") >> another_server
    play >> client("B:a E B:b E S") << to_server("OURS:1=select_1 H") >> server("1 t T:x")
    play << to_server("B:PGSHUTTLE_1 E OURS:2=select_2 H") >> server("2 C 1 t T:y")
    play << to_server("B:PGSHUTTLE_2 E S") >> server("2 C Z:I") << to_client("1 Z:I 2 C 2 C Z:I") << released


def test_a_copy_of_a_named_statement_goes_its_way():
    play = prepared() >> client("B:a E S") << to_server(OURS_RUN) >> server("2 G") << to_client("2 G")
    play >> client("d:row c S") << to_server("d:row c S") >> server("C Z:I") << to_client("C Z:I") << released


# Names.


def test_a_name_that_was_never_given_is_said_as_it_is():
    play = prepared() >> client("B:b E S") << to_server("B:b E S") >> server("MISSING:b Z:I")
    play << to_client("MISSING:b Z:I") << released


@pytest.mark.parametrize("words", ["B:PGSHUTTLE_1 E S", "ASK:PGSHUTTLE_1 S"])
def test_nobody_reaches_a_statement_of_others_by_our_name(words):
    play = prepared() >> another_client >> client(words) << to_server(words.replace("_1", "_1?"))
    play >> server("MISSING:PGSHUTTLE_1? Z:I") << to_client("MISSING:PGSHUTTLE_1 Z:I") << released


def test_a_close_of_our_name_closes_nothing_of_ours():
    prepared() >> another_client >> client("CLOSE:PGSHUTTLE_1 S") << to_server("CLOSE:PGSHUTTLE_1? S")


def test_a_name_that_is_taken_is_refused_by_postgresql_in_the_clients_words():
    play = prepared() >> client("PARSE:a=select_2 S") << to_server("PARSE:PGSHUTTLE_1=select_2 S")
    play >> server("TAKEN:PGSHUTTLE_1 Z:I") << to_client("TAKEN:a Z:I") << released
    play >> client(RUN) << to_server(OURS_RUN)


def test_a_name_that_is_taken_is_refused_also_by_a_server_that_lacks_it():
    play = prepared() >> another_server >> client("PARSE:a=select_2 S")
    play << to_server("PARSE:PGSHUTTLE_1= S PARSE:PGSHUTTLE_1=select_2 S")
    play >> server("1 Z:I TAKEN:PGSHUTTLE_1 Z:I") << to_client("TAKEN:a Z:I")


def test_a_closed_name_is_free_and_the_statement_stays():
    play = prepared() >> client("CLOSE:a S") << to_server("NEVER S") >> server("3 Z:I") << to_client("3 Z:I")
    play >> client("B:a E S") << to_server("B:a E S") >> server("MISSING:a Z:I")
    play >> client("PARSE:a=select_1 S") << to_server("KNOWN S")


def test_a_parse_that_fails_frees_its_name():
    play = a_play() >> client("PARSE:a=select_wrong B:a E S") << to_server("OURS:1=select_wrong B:PGSHUTTLE_1 E S")
    play >> server("ERROR:syntax Z:I") << to_client("ERROR:syntax Z:I") << released
    play >> client("PARSE:a=select_1 S") << to_server("OURS:2=select_1 S") >> server("1 t T Z:I") << to_client("1 Z:I")


def test_the_same_text_after_it_failed_is_parsed_again():
    play = a_play() >> client("PARSE:a=select_wrong S") >> server("ERROR:no_table Z:I")
    play.hear("server")
    play >> client("PARSE:a=select_wrong S") << to_server("CLOSE:PGSHUTTLE_1 OURS:1=select_wrong S")
    play >> server("3 1 t T Z:I") << to_client("ERROR:no_table Z:I 1 Z:I")


def test_what_was_skipped_with_an_error_is_undone_in_order():
    play = prepared() >> client("Q:select_0 B:nobody CLOSE:a PARSE:a=select_2 CLOSE:a PARSE:a=select_3 S")
    play >> server("C Z:I MISSING:nobody Z:I") << released
    play.hear("server")
    play >> client(RUN) << to_server(OURS_RUN)


def test_a_name_that_is_in_doubt_is_waited_for():
    """Of an earlier unit: an error may have voided it, and nobody has heard of that yet."""
    play = a_play() >> client("PARSE:a=select_1 S B:a E S") << to_server("OURS:1=select_1 S NEVER H")
    play >> server("1 t T Z:I") << to_server("") >> server("3") << to_server("B:PGSHUTTLE_1 E S")
    play >> server("2 C Z:I") << to_client("1 Z:I 2 C Z:I") << released


@pytest.mark.parametrize("words", ["PARSE:a=select_2", "B:a E", "ASK:a", "CLOSE:a", "Q:execute_a", "Q:deallocate_all"])
def test_whoever_uses_it(words):
    play = a_play() >> client("PARSE:a=select_1 S " + words) << to_server("OURS:1=select_1 S NEVER H")
    assert play.client.held == asked(words)


def test_in_its_own_unit_it_is_not():
    """What voids the one voids the other."""
    a_play() >> client("PARSE:a=select_1 B:a E CLOSE:a S") << to_server("OURS:1=select_1 B:PGSHUTTLE_1 E NEVER S")


def test_a_name_of_a_unit_that_was_voided_is_free():
    play = a_play() >> client("CLOSE:a PARSE:a=select_wrong S CLOSE:a PARSE:a=select_1 S")
    play << to_server("CLOSE:a OURS:1=select_wrong S NEVER H") >> server("3 ERROR:syntax Z:I 3")
    play << to_server("CLOSE:a OURS:2=select_1 S") >> server("3 1 t T Z:I") << released
    play << to_client("3 ERROR:syntax Z:I 3 1 Z:I") >> client(RUN) << to_server("B:PGSHUTTLE_2 E S")


def test_two_units_that_are_voided_leave_what_was_before_both():
    play = prepared() >> client("B:no CLOSE:a PARSE:a=select_2 S B:no CLOSE:a PARSE:a=select_3 S")
    play << to_server("B:no NEVER OURS:2=select_2 S B:no NEVER H") >> server("MISSING:no Z:I MISSING:no")
    play << to_server("CLOSE:a PARSE:a=select_3 S") >> server("Z:I") << released
    play >> client(RUN) << to_server(OURS_RUN)
    assert not play.client.statements.pending


def test_what_waits_goes_on_when_all_that_was_voided_is_undone():
    """It waits for a description; and the error that ends its waiting voids the name in front of it too."""
    play = prepared() >> another_server >> client("CLOSE:b PARSE:b=select_wrong B:a E S B:b E S")
    play << to_server("CLOSE:b OURS:2=select_wrong OURS:1=select_1 H") >> server("3 ERROR:syntax")
    play << to_server("B:a E S B:b E S") >> server("Z:I MISSING:b Z:I") << released
    play << to_client("3 ERROR:syntax Z:I MISSING:b Z:I")


def test_an_error_speaks_of_the_clients_name_even_when_that_is_gone():
    play = prepared() >> client("B:a E S CLOSE:a S") << to_server(OURS_RUN + " NEVER S")
    play >> server("MISSING:PGSHUTTLE_1 Z:I 3 Z:I") << to_client("MISSING:a Z:I 3 Z:I")


def test_of_two_names_for_the_same_the_error_speaks_of_the_right_one():
    play = prepared() >> client("PARSE:b=select_1 S") >> server("1 Z:I") >> client("PARSE:b=select_2 S")
    play.hear("client")
    play >> server("TAKEN:PGSHUTTLE_1 Z:I") << to_client("TAKEN:b Z:I")


def test_what_an_error_may_have_skipped_is_put_in_front_again_in_the_next_unit():
    play = prepared() >> another_server >> client("B:no B:a D E S B:a D E S")
    (
        play
        << to_server("B:no OURS:1=select_1 H")
        >> server("MISSING:no")
        << to_server("B:a D E S CLOSE:PGSHUTTLE_1 OURS:1=select_1 H")
    )
    play >> server("Z:I") << to_client("MISSING:no Z:I")
    play >> server("3 1 t T:x") << to_server("B:PGSHUTTLE_1 D E S") >> server("2 T:x C Z:I") << released
    play << to_client("2 T:x C Z:I")
    play >> client(RUN) << to_server(OURS_RUN)


# No room.


def test_the_one_not_used_for_longest_goes_when_there_is_no_room():
    play = prepared(max_prepared_statements=2) >> client("PARSE:b=select_2 S") >> server("1 t T Z:I")
    play >> client(RUN) >> server("2 C Z:I")
    play.hear("server")
    play >> client("PARSE:c=select_3 S") << to_server("CLOSE:PGSHUTTLE_2 OURS:3=select_3 S")
    play.hear("client")
    play >> server("3 1 t T Z:I") << to_client("1 Z:I") << released
    assert [each.text for each in play.server.statements] == [b"select 1", b"select 3"]
    play >> client("B:b D E S") << to_server("CLOSE:PGSHUTTLE_1 OURS:2=select_2 H")
    assert len(play.server.statements) == 2


def test_one_that_goes_may_be_needed_again_in_the_same_batch():
    play = prepared(max_prepared_statements=1) >> client("PARSE:b=select_2 S") >> server("3 1 t T:y Z:I")
    play.hear("server")
    (
        play
        >> client("B:a D E B:b D E B:a D E S")
        << to_server("CLOSE:PGSHUTTLE_2 OURS:1=select_1 H")
        >> server("3 1 t T:x")
        << to_server("B:PGSHUTTLE_1 D E CLOSE:PGSHUTTLE_1 OURS:2=select_2 H")
        >> server("2 T:x D C 3 1 t T:y")
        << to_server("B:PGSHUTTLE_2 D E CLOSE:PGSHUTTLE_2 OURS:1=select_1 H")
        >> server("2 T:y D C 3 1 t T:x")
        << to_server("B:PGSHUTTLE_1 D E S")
    )
    play >> server("2 T:x D C Z:I") << released
    assert not play.server.leaving


def test_one_whose_close_was_skipped_is_closed_before_it_is_parsed_again():
    play = prepared(max_prepared_statements=1) >> client("B:no PARSE:b=select_2 S")
    play << to_server("B:no CLOSE:PGSHUTTLE_1 OURS:2=select_2 S") >> server("MISSING:no Z:I") << released
    assert not play.server.leaving
    play >> client("B:a D E S")
    play << to_server("CLOSE:PGSHUTTLE_1 CLOSE:PGSHUTTLE_2 OURS:1=select_1 H")


def test_with_no_statements_allowed_names_go_as_they_are():
    play = a_play(max_prepared_statements=0) >> client("PARSE:a=select_1 B:a E ASK:a CLOSE:a S")
    play << to_server("PARSE:a=select_1 B:a E ASK:a CLOSE:a S")


HAS_STATEMENTS = build_inspection(Question(facts=(Fact.STATEMENTS,)))
YES = said("T") + build_data_row(["t"]) + said("C Z:I")


def test_and_who_has_named_one_there_is_kept_there():
    play = a_play(max_prepared_statements=0) >> client("PARSE:a=select_1 S") >> server("1 Z:I") << to_client("1 Z:I")
    play << to_server(asked("PARSE:a=select_1 S") + HAS_STATEMENTS) >> server(YES) << stays_linked


def test_so_is_who_names_one_too_long_to_be_kept():
    play, long = a_play(), build_parse(b"a", b"select " + b"1" * MAX_STATEMENT)
    for at in range(0, len(long), 200_000):
        play >> client(long[at : at + 200_000])
    play >> client("S") >> server("1 Z:I")
    assert play.hear("server").endswith(asked("S") + HAS_STATEMENTS)
    play >> server(YES) << stays_linked


def test_so_is_who_prepares_one_in_sql_by_the_extended_protocol():
    """The name is in a text that is not changed there: nobody else may come upon it."""
    play = a_play() >> client("PARSE:=prepare_x_as_select_1 B E S") >> server("1 2 C:PREPARE Z:I")
    assert play.hear("server").endswith(HAS_STATEMENTS)
    play >> server(YES) << stays_linked


def test_also_when_it_was_parsed_before():
    play = a_play() >> client("PARSE:=prepare_x_as_select_1 S") >> server("1 Z:I") << to_client("1 Z:I") << released
    play >> client("B E S") >> server("1 2 C:PREPARE Z:I") << to_client("2 C:PREPARE Z:I")
    assert play.hear("server").endswith(HAS_STATEMENTS)
    play >> server(YES) << stays_linked


def test_when_the_limit_is_lowered_the_oldest_go_at_the_next_parse():
    play = prepared()
    for number in (2, 3, 4):
        play >> client(f"PARSE:s{number}=select_{number} S") >> server("1 t T Z:I")
    play.hear("server"), play.hear("client")
    play.world.pool.set_limits(a_play(max_prepared_statements=2).world.pool.limits)
    play >> client("PARSE:x=select_9 S")
    play << to_server("CLOSE:PGSHUTTLE_1 CLOSE:PGSHUTTLE_2 CLOSE:PGSHUTTLE_3 OURS:5=select_9 S")
    play >> server("3 3 3 1 t T Z:I") << to_client("1 Z:I") << released
    assert [each.text for each in play.server.statements] == [b"select 4", b"select 9"]


def test_a_client_that_fails_again_and_again_fills_no_server():
    play = a_play(max_prepared_statements=3)
    for number in range(20):
        gone = "3 " * (number >= 3)
        play >> client(f"PARSE:a=select_wrong{number} S") >> server(gone + "ERROR:wrong Z:I") << released
        assert len(play.server.statements) <= 3
    assert not play.server.arriving
    assert not play.server.leaving
    gc.collect()
    assert len(play.world.pool.statements) <= 3


def test_statements_of_clients_that_left_go_with_the_servers_that_knew_them():
    play = prepared() >> client_hangs_up
    assert len(play.world.pool.statements) == 1
    play >> (lambda play: play.server_socket.peer_hangs_up())
    play.server = play.client = None
    play.world.left.clear()
    gc.collect()
    assert len(play.world.pool.statements) == 0


# The unnamed statement.


def test_the_unnamed_statement_in_one_batch_goes_as_it_is():
    play = a_play() >> client("PARSE:=select_1 B E S") << to_server("PARSE:=select_1 B E S")
    play >> server("1 2 C Z:I") << released


def test_the_unnamed_statement_of_another_transaction_is_brought_again():
    """Whatever has become of it: a simple Query of anybody ends it."""
    play = a_play() >> client("PARSE:=select_1 D S") >> server("1 n Z:I") << released
    play.hear("server"), play.hear("client")
    play >> client("B E S") << to_server("PARSE:=select_1 B E S") >> server("1 2 C Z:I") << to_client("2 C Z:I")


def test_nobody_runs_the_unnamed_statement_of_somebody_else():
    play = a_play() >> client("PARSE:=select_1 S") >> server("1 Z:I") << released
    play.hear("server")
    play >> another_client >> client("B E S") << to_server(b"C\0\0\0\6S\0" + asked("B E S"))
    play >> server("3 MISSING: Z:I") << to_client("MISSING: Z:I")


def test_within_a_transaction_it_stays_where_it_is():
    play = a_play() >> client("Q:begin") >> server("C Z:T") >> client("PARSE:=select_1 S") >> server("1 Z:T")
    play.hear("server")
    play >> client("B E S") << to_server("B E S")


def test_what_was_parsed_behind_it_in_the_queue_is_not_taken_for_it():
    play = a_play(pool_size=1) >> client("PARSE:=select_1 S") >> server("1 Z:I") << released
    first = play.client
    play.hear("server")
    play >> another_client >> client("Q:select_busy") << to_server("Q:select_busy")
    play.client, play._heard["client"] = first, len(first.transport.arrived)
    play >> client("B E S PARSE:=select_2 B E S") << to_server("") >> server("C Z:I")
    play << to_server("PARSE:=select_1 B E S PARSE:=select_2 B E S")


def test_an_unnamed_statement_too_long_to_be_kept_is_run_where_it_was_parsed():
    play, long = a_play(), build_parse(b"", b"select " + b"1" * MAX_STATEMENT)
    for at in range(0, len(long), 200_000):
        play >> client(long[at : at + 200_000])
    play >> client("B E S") << to_server(long + asked("B E S"))


def test_and_nowhere_else():
    play, long = a_play(), build_parse(b"", b"select " + b"1" * MAX_STATEMENT)
    for at in range(0, len(long), 200_000):
        play >> client(long[at : at + 200_000])
    play >> client("S") >> server("1 Z:I") << released
    play.hear("server"), play.hear("client")
    play >> client("B E S") << to_server(b"C\0\0\0\6S\0" + asked("B E S"))
    play >> server("3 MISSING: Z:I") << to_client("MISSING: Z:I")


def test_who_describes_the_unnamed_statement_elsewhere_gets_his_own():
    play = a_play() >> client("PARSE:=select_1 S") >> server("1 Z:I") << released >> another_server
    play >> client("ASK: S") << to_server("PARSE:=select_1 ASK: S") >> server("1 t n Z:I") << to_client("1 Z:I t n Z:I")
    play = a_play() >> client("PARSE:=select_1 S") >> server("1 Z:I") << released >> another_client
    play.hear("server")
    play >> client("ASK: S") << to_server(b"C\0\0\0\6S\0" + asked("ASK: S"))


def test_the_parse_of_what_is_there_ends_the_unnamed_statement_and_it_is_brought_back():
    play = prepared() >> client("PARSE:=select_2 PARSE:b=select_1 B E S")
    play << to_server("PARSE:=select_2 KNOWN PARSE:=select_2 B E S")


def test_a_closed_unnamed_statement_is_gone_for_this_client():
    play = a_play() >> client("PARSE:=select_1 CLOSE: S") >> server("1 3 Z:I") << released
    play.hear("server")
    play >> client("B E S") << to_server(b"C\0\0\0\6S\0" + asked("B E S"))


# Transactions that have failed.


def test_in_a_failed_transaction_a_parse_is_refused_as_it_must_be():
    """Also where we have not heard of the failure yet: what is sent instead of a Parse is refused like that."""
    play = prepared() >> client("Q:begin") >> server("C Z:T") >> client("Q:select_bad PARSE:b=select_1 S")
    play << to_server("Q:begin Q:select_bad KNOWN S") >> server("ERROR:x Z:E ERROR:aborted Z:E")
    play >> client("B:b S") << to_server("B:b S")


def test_but_not_one_that_ends_it():
    play = prepared() >> client("PARSE:r=rollback S") >> server("1 t n Z:I") >> client("Q:begin") >> server("C Z:E")
    play.hear("server")
    play >> client("PARSE:s=rollback B:s E S") << to_server("EMPTY B:PGSHUTTLE_2 E S")


# Stale statements.


def test_another_description_is_never_given_to_who_has_not_asked():
    play = prepared() >> another_server >> client(RUN) << to_server("OURS:1=select_1 H")
    play >> server("1 t T:other") << to_server("B:PGSHUTTLE_0 E S") >> server("MISSING:PGSHUTTLE_0 Z:I")
    heard = play.hear("client")
    assert b"C0A000\0Mcached plan must not change result type\0" in heard
    assert b"PGSHUTTLE" not in heard
    play << released


def test_to_ask_what_a_portal_has_is_not_to_be_ready_for_other_columns():
    play = prepared() >> another_server >> client("B:a D E S") << to_server("OURS:1=select_1 H")
    play >> server("1 t T:other") << to_server("B:PGSHUTTLE_0 D E S") >> server("MISSING:PGSHUTTLE_0 Z:I") << released
    assert b"cached plan must not change result type" in play.hear("client")


def test_it_is_made_again_with_the_types_that_its_parameters_had():
    play = a_play() >> client("PARSE:a=insert_into_t_values_($1) S")
    play.hear("server")
    play >> server(said("1") + build_parameter_description([23]) + said("n Z:I")) << released
    play.hear("client")
    play >> another_server >> client("B:a E S")
    assert play.hear("server").startswith(build_parse(b"PGSHUTTLE_1", b"insert into t values ($1)", [23]))


def test_who_parses_anew_after_that_gets_a_fresh_one():
    play = prepared() >> another_server >> client(RUN) >> server("1 t T:other") >> server("MISSING:PGSHUTTLE_0 Z:I")
    play.hear("server"), play.hear("client")
    play >> client("CLOSE:a PARSE:a=select_1 B:a E S") << to_server("NEVER OURS:2=select_1 B:PGSHUTTLE_2 E S")


def test_who_describes_anew_has_what_is_there_now():
    play = prepared() >> another_server >> client(RUN) >> server("1 t T:other") >> server("MISSING:PGSHUTTLE_0 Z:I")
    play.hear("server"), play.hear("client")
    play >> client("ASK:a S") << to_server("OURS:2=select_1 ASK:PGSHUTTLE_2 S") >> server("1 t T:other t T:other Z:I")
    play << to_client("t T:other Z:I") >> client(RUN) << to_server("B:PGSHUTTLE_2 E S")


# What a hostile server may do.


@pytest.mark.parametrize("words", ["3", "1 1", "1 3", "1 t t Z:I", "1 t T 3 Z:I", "1 t T Z:I Z:I", "2"])
def test_a_server_that_answers_what_nobody_asked_is_closed(words):
    play = a_play() >> client(ONE) >> server(words)
    assert play.server.state in (CLOSING, CLOSED)


@pytest.mark.parametrize(
    "message",
    [b"T\0\0\0\x08\0\1x\0", b"T\0\0\0\6\xff\xff", b"T\0\x20\0\0" + b"x" * 100, b"T\0\0\0\x07\0\1x"],
)
def test_an_absurd_description_closes_the_server(message):
    play = a_play() >> client(ONE) >> server(said("1 t") + message)
    assert play.server.state in (CLOSING, CLOSED)
    assert play.client.state is GONE


# What is counted.


def test_statements_with_shared_names_are_counted_and_no_others():
    play = prepared() >> client(RUN) << to_server(OURS_RUN) >> server("2 C Z:I") << to_client("2 C Z:I") << released
    play >> another_client >> client("PARSE:b=select_1 S") << to_server("KNOWN S")
    play >> server("1 Z:I") << to_client("1 Z:I") << released
    play >> client("PARSE:=select_2 B E S") >> server("1 2 C Z:I") << to_client("1 2 C Z:I") << released
    stats = play.world.pool.stats
    assert (stats.client_parse_count, stats.server_parse_count, stats.bind_count) == (2, 1, 1)


def test_a_bind_that_waits_for_a_description_is_counted_once():
    play = prepared() >> another_server >> client(RUN) << to_server("OURS:1=select_1 H")
    assert play.world.pool.stats.bind_count == 0
    play >> server("1 t T:x") << to_server(OURS_RUN) >> server("2 C Z:I") << to_client("2 C Z:I") << released
    stats = play.world.pool.stats
    assert (stats.bind_count, stats.client_parse_count, stats.server_parse_count) == (1, 1, 2)
