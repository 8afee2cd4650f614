"""SQL that names statements: what becomes of PREPARE, EXECUTE and DEALLOCATE on the way to a server."""

import pytest

from protocol.backend import build_command_complete, parse_error
from protocol.body import build_message, build_string
from protocol.effects import Reader
from protocol.frontend import FLUSH_MESSAGE, STATEMENT, Bind, build_bind, build_describe, build_parse, build_query
from proxy.prepare import MAX_TAGS
from proxy.rewrite import find_used, list_listens, names_in_sql, rewrite_listen
from tests.play import (
    Play,
    another_client,
    another_server,
    asked,
    client,
    released,
    said,
    server,
    stays_linked,
    to_client,
    to_server,
)

MADE = said("C:PREPARE Z:I")
DROPPED = said("C:DEALLOCATE Z:I")
PREPARE_1 = build_query('prepare "PGSHUTTLE_1" as select 1')
GIVEN_1 = build_query('PREPARE "PGSHUTTLE_1"  as select 1')  # put in front
ALL_GONE = build_command_complete("DEALLOCATE ALL")


def q(text):
    return build_query(text)


def a_play(**more):
    return Play(session_state="track", **{"pool_size": 9, **more})


def prepared(**more):
    """A play whose client has made `foo` by PREPARE."""
    play = a_play(**more) >> client(q("prepare foo as select 1")) << to_server(PREPARE_1)
    return play >> server(MADE) << to_client(MADE) << released


# PREPARE and EXECUTE.


def test_a_statement_has_our_name_on_servers():
    play = prepared() >> client(q("execute foo")) << to_server(q('execute "PGSHUTTLE_1"'))
    play >> server("T D C Z:I") << to_client("T D C Z:I") << released


@pytest.mark.parametrize(
    ("said_text", "heard"),
    [
        ("execute foo", 'execute "PGSHUTTLE_1"'),
        ("EXECUTE /* a */ \"foo\" ( 1, 'foo' ) ;", "EXECUTE /* a */ \"PGSHUTTLE_1\" ( 1, 'foo' ) ;"),
        ("explain (analyze) execute foo", 'explain (analyze) execute "PGSHUTTLE_1"'),
        ("create temp table t as execute foo(1)", 'create temp table t as execute "PGSHUTTLE_1"(1)'),
        ("select 1; execute foo; select 'execute foo'", "select 1; execute \"PGSHUTTLE_1\"; select 'execute foo'"),
        ("execute FOO", 'execute "PGSHUTTLE_1"'),
        ("deallocate prepare foo", 'deallocate prepare "PGSHUTTLE_1"'),
    ],
)
def test_the_name_is_changed_and_nothing_else(said_text, heard):
    prepared() >> client(q(said_text)) << to_server(q(heard))


@pytest.mark.parametrize("text", ["execute bar", "deallocate bar", 'execute "FOO"', 'execute "fo""o"', "execute ü"])
def test_a_name_that_was_never_made_goes_as_it_is(text):
    prepared() >> client(q(text)) << to_server(q(text))


@pytest.mark.parametrize("word", ["execute", "deallocate", "explain execute"])
def test_nobody_reaches_a_statement_of_others_by_our_name(word):
    play = prepared() >> another_client >> client(q(f'{word} "PGSHUTTLE_1"')) << to_server(q(f'{word} "PGSHUTTLE_1?"'))
    play >> server("MISSING:PGSHUTTLE_1? Z:I") << to_client("MISSING:PGSHUTTLE_1 Z:I")


def test_the_same_text_of_another_client_is_another_statement():
    (
        prepared()
        >> another_client
        >> client(q("prepare foo as select 1"))
        << to_server(q('prepare "PGSHUTTLE_2" as select 1'))
    )


def test_what_follows_the_name_is_kept_for_other_servers():
    play = a_play() >> client(q("prepare foo (int, text) AS select $1, $2 ; select 5")) >> server("C:PREPARE T D C Z:I")
    play.hear("server")
    play >> another_server >> client(q("execute foo(1, 'x')"))
    play << to_server(q('PREPARE "PGSHUTTLE_1"  (int, text) AS select $1, $2') + q("execute \"PGSHUTTLE_1\"(1, 'x')"))


def test_a_server_that_lacks_it_is_given_it():
    play = prepared() >> another_server >> client(q("execute foo")) << to_server(GIVEN_1 + q('execute "PGSHUTTLE_1"'))
    play >> server(MADE) >> server("T D C Z:I") << to_client("T D C Z:I") << released


def test_one_that_was_parsed_can_be_executed_and_the_other_way_round():
    play = a_play() >> client("PARSE:a=select_1 S") >> server("1 t T Z:I")
    play.hear("server")
    play >> client(q("execute a")) << to_server(q('execute "PGSHUTTLE_1"')) >> server("T D C Z:I")
    play = prepared() >> client("B:foo D E S") << to_server("B:PGSHUTTLE_1 D E S")
    play >> server("2 T D C Z:I") << released


def test_a_server_is_given_what_was_parsed_before_a_text_that_executes_it():
    play = a_play() >> client("PARSE:a=select_1 S") >> server("1 t T Z:I") >> another_server
    play.hear("client")
    play >> client(q("execute a")) << to_server(asked("OURS:1=select_1 S") + q('execute "PGSHUTTLE_1"'))
    play >> server("1 t T Z:I T D C Z:I") << to_client("T D C Z:I") << released


def test_if_that_cannot_be_done_the_client_is_told_why_and_once():
    play = prepared() >> another_server >> client(q("execute foo")) << to_server(GIVEN_1 + q('execute "PGSHUTTLE_1"'))
    play >> server("ERROR:no_such_table Z:I") << to_client("")
    play >> server("MISSING:PGSHUTTLE_1 Z:I") << to_client("ERROR:no_such_table Z:I") << released
    play >> client(q("execute foo"))
    play << to_server(asked("CLOSE:PGSHUTTLE_1") + GIVEN_1 + q('execute "PGSHUTTLE_1"'))


def test_what_is_put_in_front_of_a_text_is_a_unit_of_its_own_also_behind_another_query():
    play = a_play() >> client("PARSE:a=select_1 S") >> server("1 t T Z:I") >> another_server
    play.hear("client")
    play >> client(q("select 7") + q("execute a"))
    play << to_server(q("select 7") + asked("OURS:1=select_1 S") + q('execute "PGSHUTTLE_1"'))


def test_but_not_in_the_middle_of_a_unit():
    """A Sync of ours would end it, and commit what it has done."""
    play = a_play() >> client("PARSE:a=select_1 S") >> server("1 t T Z:I") >> another_server
    play >> client(asked("PARSE:=select_7 B E") + q("execute a"))
    play << to_server(asked("PARSE:=select_7 B E OURS:1=select_1") + q('execute "PGSHUTTLE_1"'))


def test_nor_behind_a_query_that_the_server_may_be_skipping():
    play = a_play() >> client("PARSE:a=select_1 S") >> server("1 t T Z:I") >> another_server
    play >> client(asked("B:nobody E") + q("select 7") + q("execute a"))
    play << to_server(asked("B:nobody E") + q("select 7") + asked("OURS:1=select_1") + q('execute "PGSHUTTLE_1"'))
    play >> server("MISSING:nobody") >> client("S") >> server("Z:I") << released


def test_an_error_points_to_its_place_in_the_clients_own_text():
    play = prepared() >> client(q("select 'ä'; execute foo; selec; execute foo"))
    error = build_message(ord("E"), b"SERROR\0C42601\0Mno\0P%d\0\0")
    for place, ought in ((1, 1), (13, 13), (21, 21), (30, 21), (36, 26), (43, 33), (60, 41)):
        tagged = play.server.ledger.head[1]
        told = tagged.failed(parse_error(error[5:].replace(b"%d", b"%d" % place)))
        assert told is not None
        assert parse_error(told[5:]).raw["P"] == str(ought), place


def test_a_name_that_is_taken_is_refused_by_postgresql():
    play = prepared() >> client(q("prepare foo as select 2")) << to_server(q('prepare "PGSHUTTLE_1" as select 2'))
    play >> server("TAKEN:PGSHUTTLE_1 Z:I") << to_client("TAKEN:foo Z:I")
    play >> client(q("execute foo")) << to_server(q('execute "PGSHUTTLE_1"'))


def test_a_prepare_that_fails_leaves_its_name_free():
    play = a_play() >> client(q("prepare foo as select wrong")) >> server("ERROR:wrong Z:I") << released
    play.hear("server")
    play >> client(q("prepare foo as select 1"))
    assert q('prepare "PGSHUTTLE_2" as select 1') in play.hear("server")


def test_what_was_prepared_before_an_error_in_the_same_text_stays():
    """Statements are not undone with their transaction."""
    play = a_play() >> client(q("prepare foo as select 1; select wrong; prepare bar as select 2"))
    play >> server("C:PREPARE ERROR:wrong Z:I") << to_client("C:PREPARE ERROR:wrong Z:I") << released
    play.hear("server")
    play >> client(q("execute foo")) << to_server(q('execute "PGSHUTTLE_1"')) >> server("C Z:I")
    play >> client(q("execute bar")) << to_server(q("execute bar"))


def test_what_a_text_prepares_it_may_execute():
    play = a_play() >> client(q("prepare foo as select 1; execute foo; deallocate foo"))
    play << to_server(q('prepare "PGSHUTTLE_1" as select 1; execute "PGSHUTTLE_1"; deallocate "PGSHUTTLE_1"'))
    play >> server("C:PREPARE T D C C:DEALLOCATE Z:I") << released
    assert not len(play.client.statements)
    assert not play.server.statements


def test_statements_that_one_text_needs_do_not_push_each_other_out():
    play = a_play(max_prepared_statements=1)
    for number in range(3):
        play >> client(q(f"prepare s{number} as select {number}")) >> server("3 " * bool(number) + "C:PREPARE Z:I")
    play.hear("server")
    play >> client(q("execute s0; execute s1; execute s2"))
    gives = [q(f'PREPARE "PGSHUTTLE_{number}"  as select {number - 1}') for number in (1, 2, 3)]
    play << to_server(
        asked("CLOSE:PGSHUTTLE_3")
        + gives[0]
        + gives[1]
        + asked("CLOSE:PGSHUTTLE_3")
        + gives[2]
        + q('execute "PGSHUTTLE_1"; execute "PGSHUTTLE_2"; execute "PGSHUTTLE_3"')
    )


# DEALLOCATE.


def test_what_is_deallocated_is_gone():
    play = prepared() >> client(q("deallocate foo")) << to_server(q('deallocate "PGSHUTTLE_1"'))
    play >> server(DROPPED) << to_client(DROPPED) << released
    assert not play.server.statements
    play >> client(q("execute foo")) << to_server(q("execute foo"))


def test_a_deallocate_that_fails_takes_nothing():
    play = prepared() >> client(q("begin; deallocate foo")) >> server("C ERROR:no Z:E") >> client("Q:rollback")
    play >> server("C Z:I") << released
    play.hear("server")
    play >> client(q("execute foo"))
    assert play.hear("server").endswith(q('execute "PGSHUTTLE_1"'))


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("deallocate all", "DEALLOCATE ALL"),
        ("discard all", "DISCARD ALL"),
        ("DEALLOCATE PREPARE ALL;", "DEALLOCATE ALL"),
    ],
)
def test_all_of_them_may_go_at_once(text, tag):
    play = prepared() >> client("PARSE:a=select_1 S") >> server("1 t T Z:I")
    play.hear("server"), play.hear("client")
    play >> client(q(text)) << to_server(q(text)) >> server(build_command_complete(tag) + said("Z:I"))
    assert not len(play.client.statements)
    assert not play.server.statements


def test_if_that_fails_all_stay():
    play = (
        prepared() >> client("Q:begin") >> server("C Z:T") >> client(q("discard all")) >> server("ERROR:in_block Z:E")
    )
    play >> client("Q:rollback") >> server("C Z:I") << released
    play.hear("server")
    play >> client(q("execute foo"))
    assert play.hear("server").endswith(q('execute "PGSHUTTLE_1"'))


def test_the_statements_of_others_go_from_that_server_only():
    play = a_play() >> client("PARSE:a=select_1 S") >> server("1 t T Z:I") >> another_client
    first = next(each for each in play.world.pool.clients if each is not play.client)
    play >> client(q("deallocate all")) >> server(ALL_GONE + said("Z:I")) << released
    play.client, play._heard["client"] = first, len(first.transport.arrived)
    play.hear("server")
    play >> client("B:a D E S") << to_server("OURS:1=select_1 H")


def test_what_is_named_behind_it_in_the_same_breath_stays():
    play = prepared() >> client(q("deallocate all") + asked("PARSE:foo=select_2 B:foo E S"))
    play << to_server(q("deallocate all") + asked("NEVER H")) >> server(ALL_GONE + said("Z:I 3"))
    play << to_server("OURS:2=select_2 B:PGSHUTTLE_2 E S") >> server("1 t T 2 C Z:I") << released
    play >> client("B:foo E S") << to_server("B:PGSHUTTLE_2 E S")


def test_what_is_named_behind_it_in_the_same_text_stays():
    play = prepared() >> client(q("deallocate all; prepare foo as select 2"))
    play << to_server(q('deallocate all; prepare "PGSHUTTLE_2" as select 2'))
    play >> server(ALL_GONE + said("C:PREPARE Z:I")) << released
    play >> client(q("execute foo")) << to_server(q('execute "PGSHUTTLE_2"'))


def test_where_it_is_missing_something_by_its_name_is_dropped_as_it_might_not_be_made_any_more():
    play = prepared() >> another_server >> client(q("deallocate foo"))
    play << to_server(asked("PARSE:PGSHUTTLE_1= S") + q('deallocate "PGSHUTTLE_1"'))
    play >> server(said("1 Z:I") + DROPPED) << to_client(DROPPED) << released
    assert not play.server.statements
    assert not len(play.client.statements)


def test_what_stands_in_for_it_is_never_run():
    play = prepared() >> another_server >> client(q("select 1/0; deallocate foo"))
    play >> server("1 Z:I ERROR:no Z:I") << released
    play.hear("server")
    play >> client(q("execute foo"))
    play << to_server(asked("CLOSE:PGSHUTTLE_1") + GIVEN_1 + q('execute "PGSHUTTLE_1"'))


def test_what_is_run_before_it_is_dropped_is_made():
    play = prepared() >> another_server >> client(q("execute foo; deallocate foo"))
    play << to_server(GIVEN_1 + q('execute "PGSHUTTLE_1"; deallocate "PGSHUTTLE_1"'))


# The same by the extended protocol.


def test_where_it_is_missing_something_by_its_name_is_dropped_there_too():
    play = prepared() >> client("PARSE:d=deallocate_foo S") >> server("1 t n Z:I") << released
    play.hear("server")
    play >> another_server >> client("B:d D E S")
    assert play.hear("server").startswith(asked("PARSE:PGSHUTTLE_1= S"))


def test_an_execute_in_a_parse_is_rewritten_too():
    play = prepared() >> client("PARSE:=execute_foo B E S") << to_server('PARSE:=execute_"PGSHUTTLE_1" B E S')
    play >> server("1 2 C Z:I") << to_client("1 2 C Z:I")


def test_what_it_runs_does_not_go_to_make_room_for_it():
    play = prepared(max_prepared_statements=1) >> client("PARSE:x=execute_foo S")
    play << to_server('OURS:2=execute_"PGSHUTTLE_1" S')


def executes(number):
    """A Parse of ours of what executes that statement, as the server hears it."""
    return build_string(f'execute "PGSHUTTLE_{number}"'.encode())


def test_the_same_text_with_a_name_runs_for_each_client_what_he_calls_so():
    play = prepared() >> client("PARSE:x=execute_foo S")
    assert executes(1) in play.hear("server")
    play >> server("1 t T:x Z:I") << released >> another_client
    play >> client(q("prepare foo as select 2")) << to_server(q('prepare "PGSHUTTLE_3" as select 2')) >> server(MADE)
    play >> client("PARSE:x=execute_foo S")
    heard = play.hear("server")
    assert executes(3) in heard
    assert executes(1) not in heard


def test_and_what_is_called_so_when_it_runs():
    play = prepared() >> client("PARSE:x=execute_foo S") >> server("1 t T:x Z:I") << released
    play >> client(q("deallocate foo")) >> server(DROPPED) >> client(q("prepare foo as select 2")) >> server(MADE)
    play.hear("server")
    play >> client("B:x E S")
    heard = play.hear("server")
    assert executes(3) in heard
    assert executes(1) not in heard


def test_portals_of_which_something_is_remembered_are_not_without_number():
    play = prepared() >> client("PARSE:d=deallocate_foo S") >> server("1 t n Z:I")
    for number in range(3 * MAX_TAGS):
        play >> client(build_bind(Bind(b"p%d" % number, b"d")))
    assert 0 < len(play.client.tags) <= MAX_TAGS


def test_a_server_that_lacks_both_is_given_what_is_executed_first():
    play = prepared() >> client("PARSE:x=execute_foo S") >> server("1 t T:x Z:I") << released >> another_server
    given = build_parse(b"PGSHUTTLE_2", b'execute "PGSHUTTLE_1"') + build_describe(STATEMENT, b"PGSHUTTLE_2")
    play >> client("B:x E S") << to_server(GIVEN_1 + given + FLUSH_MESSAGE)


def test_what_names_a_statement_in_doubt_waits_until_that_is_settled():
    play = prepared() >> client("CLOSE:foo PARSE:foo=select_wrong S PARSE:=execute_foo B E S")
    assert b"execute" not in play.hear("server")
    play >> server("3 1 t n Z:I")
    play.hear("server")
    play >> server("3") << to_server('PARSE:=execute_"PGSHUTTLE_2" B E S')
    play = (
        prepared() >> client("CLOSE:foo PARSE:foo=select_wrong S PARSE:=execute_foo B E S") >> server("3 ERROR:no Z:I")
    )
    play.hear("server")
    play >> server("3") << to_server("PARSE:=execute_foo B E S")


def test_it_waits_until_it_is_certain_what_the_names_in_it_stand_for():
    """A Parse that is skipped has named nothing, and PostgreSQL says so."""
    play = prepared() >> client("PARSE:d=deallocate_late S") >> server("1 t n Z:I") << released
    play.hear("server")
    play >> client("B:nobody PARSE:late=select_2 S B:d E S")
    play << to_server("B:nobody OURS:3=select_2 S NEVER H") >> server("MISSING:nobody Z:I 3")
    assert play.hear("server").endswith(asked("B:PGSHUTTLE_2 E S"))


def test_a_deallocate_in_a_parse_takes_the_name_when_it_runs():
    play = prepared() >> client("PARSE:=deallocate_foo B E S") << to_server('PARSE:=deallocate_"PGSHUTTLE_1" B E S')
    play >> server("1 2 C:DEALLOCATE Z:I")
    assert not len(play.client.statements)


@pytest.mark.parametrize("name", ["", "x"])
def test_all_may_go_by_the_extended_protocol_too_wherever_the_batch_is_cut(name):
    data = asked(f"PARSE:{name}=deallocate_all B:{name} E S")
    for cut in range(1, len(data)):
        play = prepared() >> client(data[:cut]) >> client(data[cut:])
        play >> server(said("1 2" if not name else "1 t n 2") + ALL_GONE + said("Z:I"))
        assert not len(play.client.statements), cut
        assert not any(play.server.statements.values()), cut


def test_all_may_go_in_a_later_unit_than_that_of_the_parse():
    play = prepared() >> client("PARSE:=deallocate_all D S") >> server("1 n Z:I") << released
    play.hear("server")
    play >> client("B E S") << to_server("PARSE:=deallocate_all B E S") >> server(said("1 2") + ALL_GONE + said("Z:I"))
    assert not len(play.client.statements)


def test_an_execute_that_never_came_to_run_takes_nothing():
    play = prepared() >> client("PARSE:=deallocate_all B B:nobody E S") >> server("1 2 MISSING:nobody Z:I")
    assert len(play.client.statements) == 1


def test_another_portal_may_be_bound_in_between():
    play = prepared() >> client("PARSE:=deallocate_all BIND:p= PARSE:=select_1 B E E:p S")
    play >> server(said("1 2 1 2 C") + ALL_GONE + said("Z:I"))
    assert not len(play.client.statements)


def test_a_portal_bound_anew_means_what_it_was_bound_to_last():
    play = prepared() >> client("PARSE:=deallocate_all B H") >> server("1 2") >> client("PARSE:=select_1 B E S")
    play >> server("1 2 C Z:I")
    assert len(play.client.statements) == 1


# What is in doubt.


def test_a_text_that_cannot_be_read_for_certain_is_not_changed():
    text = "do $$ begin execute 'deallocate foo'; end $$"
    prepared() >> client(q(text)) << to_server(q(text)) >> server("C Z:I") << stays_linked


def test_what_it_may_have_dropped_is_made_again_for_whoever_uses_it():
    play = prepared() >> client(q("do $$ begin execute 'deallocate all'; end $$")) >> server("C Z:I")
    play >> client(q("execute foo"))
    play.hear("server")
    play >> server("T C Z:I")
    assert play.hear("server").endswith(GIVEN_1 + q('execute "PGSHUTTLE_1"'))


def test_it_is_plain_which_texts_name_statements():
    read = Reader().read
    assert names_in_sql(read(b"execute foo"))
    assert not names_in_sql(read(b"deallocate all"))
    assert not names_in_sql(read(b"listen x"))


def test_listens_become_unlistens_and_are_remembered():
    reading = Reader().read(b"listen a; unlisten b; LISTEN c")
    assert rewrite_listen(b"listen a; unlisten b; LISTEN c", reading) == b"UNLISTEN a; unlisten b; UNLISTEN c"
    assert list_listens(reading) == [True, False, True]


def test_what_a_text_uses_are_the_statements_it_runs_or_drops():
    play = prepared()
    (statement,) = play.server.statements
    names = play.client.statements
    assert find_used(names, Reader().read(b"execute foo")) == (statement,)
    assert find_used(names, Reader().read(b"deallocate foo; execute bar")) == (statement,)
    assert find_used(names, Reader().read(b"prepare foo as select 1")) == ()
