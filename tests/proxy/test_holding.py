"""What a client has said and no server has heard yet: in the queue, behind a BEGIN, behind something of ours."""

import pytest

from protocol import codes
from protocol.backend import build_command_complete, build_data_row
from protocol.body import build_message
from protocol.frontend import build_parse, build_query
from protocol.inspection import Question, build_inspection
from protocol.parameters import Change, build_change
from proxy.client import MAX_AT_ONCE
from proxy.holding import FAILED_BEGIN, MAX_HELD, READY_FAILED, READY_IN_TRANSACTION
from proxy.states import ACTIVE, BEGUN, GONE, RESTING, WAITING, Closing
from tests.fakes import make_limits
from tests.play import (
    Play,
    another_client,
    another_server,
    asked,
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

BEGIN_TOLD = build_command_complete("BEGIN") + READY_IN_TRANSACTION


def a_play(**more):
    return Play(session_state="track", deferred_begin=True, **more)


def begun(text="begin", **more):
    """A play whose client has begun a transaction that nobody knows."""
    play = a_play(**more) >> client(build_query(text)) << to_server("")
    assert play.client.state is BEGUN
    assert play.client.server is None
    return play


def busy(play):
    """The only server is somebody else's."""
    mine = play.client
    play >> another_client >> client("Q:select_busy") << to_server("Q:select_busy")
    play.client, play._heard["client"] = mine, len(mine.transport.arrived)
    return play


# A BEGIN that need not be sent.


def test_a_lone_begin_is_answered_and_holds_no_server():
    begun() << to_client(BEGIN_TOLD)
    begun("START TRANSACTION READ ONLY") << to_client(
        build_command_complete("START TRANSACTION") + READY_IN_TRANSACTION
    )


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("commit", "COMMIT"),
        ("END;", "COMMIT"),
        ("rollback", "ROLLBACK"),
        ("abort", "ROLLBACK"),
        ("/* b */ COMMIT", "COMMIT"),
    ],
)
def test_the_end_of_nothing_costs_nothing(text, tag):
    play = begun() << to_client(BEGIN_TOLD) >> client(build_query(text))
    play << to_client(build_command_complete(tag) + said("Z:I")) << to_server("")
    assert play.client.state is RESTING


@pytest.mark.parametrize(
    "words", ["Q:select_1", "PARSE:=select_1 B E S", "B:nobody E S", "Q:select_1; Q:commit", "F S"]
)
def test_it_goes_in_front_of_what_comes_next_with_one_write(words):
    play = begun() << to_client(BEGIN_TOLD) >> client(words)
    is_query = words.startswith(("B:", "F"))  # else nobody can come upon the portal and the statement of our BEGIN
    begin, answer = ("Q:begin", "C:BEGIN Z:T") if is_query else ("RUN:begin", "RAN:BEGIN")
    play << to_server(f"{begin} {words}")
    assert len(play.server_socket.written) == 1
    play >> server(answer) << to_client("") << stays_linked


def test_a_statement_by_its_name_behind_a_begin():
    play = a_play() >> client("PARSE:a=select_1 S") >> server("1 t T Z:I") >> client("Q:begin")
    play.hear("client"), play.hear("server")
    play >> client("B:a E S") << to_server("Q:begin B:PGSHUTTLE_1 E S")
    play >> server("C:BEGIN Z:T 2 C Z:T") << to_client("2 C Z:T") << stays_linked


def test_it_waits_in_line_with_what_comes_next():
    play = busy(begun()) >> client("Q:select_1") << to_server("")
    assert play.client.state is WAITING
    play >> server("C Z:I") << to_server("RUN:begin Q:select_1") >> server("RAN:BEGIN") >> server("T C Z:T")
    play << to_client("T C Z:T") << stays_linked


def test_a_second_begin_is_not_ours_to_answer():
    begun() >> client("Q:begin") << to_server("RUN:begin Q:begin")


def test_nor_is_a_begin_in_a_transaction_that_a_server_knows():
    play = begun() >> client("Q:select_1") >> server("RAN:BEGIN C Z:T") << to_server("RUN:begin Q:select_1")
    play >> client("Q:begin") << to_server("Q:begin")


def test_twenty_clients_may_begin_where_there_is_one_server():
    play = begun()
    for _ in range(20):
        play >> another_client >> client("Q:begin") << to_client(BEGIN_TOLD)
    play << to_server("")


def test_who_has_begun_may_leave():
    play = begun() >> client_hangs_up << to_server("")
    assert play.client.state is GONE


def test_who_has_begun_and_waits_may_cancel_and_has_a_transaction_that_failed():
    play = busy(begun()) >> client("Q:select_1") >> (lambda play: play.client.cancel_waiting())
    heard = play.hear("client")
    assert b"C57014" in heard
    assert heard.endswith(READY_FAILED)
    assert play.client.state is BEGUN
    play >> server("C Z:I") << to_server("")
    play >> client("Q:select_2") << to_server(FAILED_BEGIN + asked("Q:select_2"))
    play >> server("C:BEGIN Z:T ERROR:no_savepoint Z:E ERROR:aborted Z:E") << to_client("ERROR:aborted Z:E")
    play >> client("Q:rollback") >> server("C:ROLLBACK Z:I") << released


def test_and_its_end_is_a_rollback_whatever_it_says():
    play = busy(begun()) >> client("Q:select_1") >> (lambda play: play.client.cancel_waiting())
    play.hear("client")
    play >> client("Q:commit") << to_client(build_command_complete("ROLLBACK") + said("Z:I"))
    assert play.client.state is RESTING


def test_a_begin_is_not_lost_when_a_parameter_must_be_set_first():
    play = a_play(followed={"TimeZone": "CET"}) >> client("Q:begin") >> client("Q:select_1")
    heard = play.hear("server")
    assert b"CET" in heard
    assert not heard.endswith(asked("RUN:begin Q:select_1"))
    play >> server("C:SET S:TimeZone=CET Z:I") << to_server("RUN:begin Q:select_1")


def test_a_flood_that_ends_in_a_begin_is_read_on():
    play = a_play() >> client("c " * MAX_AT_ONCE + "Q:begin")
    assert play.client.state is BEGUN
    assert play.client_socket.reads


# Waiting.


def test_what_needs_translation_waits_and_is_translated_when_its_server_is_known():
    play = a_play() >> client("PARSE:a=select_1 S") >> server("1 t T Z:I")
    play.hear("server")
    busy(play)
    play >> client("B:a E S") >> client("Q:select_2") >> client("PARSE:=select_3 B E S") << to_server("")
    play >> server("C Z:I") << to_server("B:PGSHUTTLE_1 E S Q:select_2 PARSE:=select_3 B E S")
    play >> server("2 C Z:I C Z:I 1 2 C Z:I") << to_client("2 C Z:I C Z:I 1 2 C Z:I") << released


def test_the_name_means_what_it_meant_when_it_was_said():
    play = busy(a_play()) >> client("PARSE:a=select_1") >> client("B:a E CLOSE:a S") << to_server("")
    play >> server("C Z:I") << to_server("OURS:1=select_1 B:PGSHUTTLE_1 E NEVER S")


def test_who_waits_for_a_description_is_bounded_too():
    play = a_play(pool_size=9) >> client("PARSE:a=select_1 S") >> server("1 t T Z:I") >> another_server
    play >> client("B:a E S") >> client("Q:" + "x" * MAX_HELD)
    assert not play.client_socket.reads
    play >> server("1 t T")
    assert play.client_socket.reads
    assert play.client.state is ACTIVE


def test_a_long_message_that_begins_while_we_ask_something_goes_on_when_that_is_answered():
    """It is held, and no more of it is read; so what we ask must not wait for its end."""
    play = a_play() >> client("Q:set_work_mem_=_1") >> server("C:SET Z:I")
    play.hear("server"), play.hear("client")
    long = build_query("select '" + "x" * 300_000 + "'")
    play >> client(long[:200_000]) << to_server("")
    assert not play.client_socket.reads
    play >> server(said("T") + build_data_row(["64kB"]) + said("C Z:I"))
    assert play.client_socket.reads
    play >> client(long[200_000:]) << to_server(long) >> server("C Z:I") << to_client("C Z:I")


def test_a_cancelled_wait_names_nothing():
    play = busy(a_play()) >> client("PARSE:a=select_1 S") >> (lambda play: play.client.cancel_waiting())
    play >> server("C Z:I") << to_server("") >> client("B:a E S") << to_server("B:a E S")


def test_a_long_statement_that_comes_in_small_pieces_is_gathered_and_not_copied_for_each():
    play = Play(session_state="track")
    parse = build_parse(b"", b"select '" + b"x" * 200_000 + b"'")
    play >> client(parse[:100_000])
    play >> client(parse[100_000:100_001])
    heap = play.client.carry
    for at in range(100_001, len(parse) - 1, 1_000):
        play >> client(parse[at : min(at + 1_000, len(parse) - 1)])
        assert play.client.carry is heap
    play << to_server(b"") >> client(parse[-1:] + asked("B E S")) << to_server(parse + asked("B E S"))
    assert not play.client.carry


# A reload that changes what must be known of a request, while one waits.

SESSION, TRACKED, LEAKING = {"pool_mode": "session"}, {"session_state": "track"}, {"session_state": "leak"}
AUDITED, STATEMENT = {"session_state": "audit"}, {"session_state": "track", "pool_mode": "statement"}
SET = build_query("set work_mem = '7MB'")
ASKS = build_inspection(Question(("work_mem",)))
NAMED, NAMED_OURS = "PARSE:a=select_1 S", "OURS:1=select_1 S"


def waiting(words, **limits):
    """A play whose client has said this to a paused pool."""
    play = Play(**{"pool_size": 3, **limits}) >> (lambda play: play.world.pool.pause()) >> client(words)
    assert play.client.state is WAITING
    return play


def reloaded(**limits):
    return lambda play: play.world.pool.set_limits(make_limits(pool_size=3, **limits))


def served(play):
    """The pool is open again, and has a new server."""
    play.world.pool.unpause()
    play.server, play._heard["server"] = play.world.finish_opening(), 0


@pytest.mark.parametrize("before", [SESSION, AUDITED, LEAKING, {"pool_mode": "session", "session_state": "track"}])
@pytest.mark.parametrize("after", [TRACKED, STATEMENT])
def test_what_waited_while_nobody_looked_is_looked_at_by_those_who_do(before, after):
    play = waiting(SET, **before) >> reloaded(**after) >> served << to_server(SET)
    play >> server("C Z:I") << to_client("C Z:I") << to_server(ASKS) >> server(said("T") + build_data_row(["7MB"]))
    play >> server("C Z:I") << released
    assert play.client.followed["work_mem"] == play.server.followed["work_mem"] == "7MB"


def test_in_the_state_of_reset_the_server_is_reset():
    play = waiting(SET, **SESSION) >> reloaded(session_state="reset") >> served << to_server(SET)
    play >> server("C Z:I") << to_client("C Z:I") << to_server("Q:DISCARD_ALL")


@pytest.mark.parametrize("before", [SESSION, AUDITED])
@pytest.mark.parametrize("after", [TRACKED, LEAKING])
def test_a_name_that_waited_is_ours_where_servers_have_come_to_be_shared(before, after):
    play = waiting(NAMED, **before) >> reloaded(**after) >> served << to_server(NAMED_OURS)
    play >> server("1 t n Z:I") << to_client("1 Z:I") << released >> client("B:a E S") << to_server("B:PGSHUTTLE_1 E S")


def test_a_name_that_waited_is_its_own_where_they_have_come_to_be_private():
    play = waiting(NAMED, **TRACKED) >> reloaded(**SESSION) >> served << to_server(NAMED)
    play >> server("1 Z:I") << to_client("1 Z:I") << stays_linked >> client("B:a E S") << to_server("B:a E S")


def test_what_is_said_behind_it_comes_behind_it():
    play = waiting(SET, **SESSION) >> reloaded(**TRACKED) >> client(NAMED) >> reloaded(**LEAKING) >> client("Q:a")
    play >> served << to_server(SET + asked(NAMED_OURS + " Q:a"))


def test_nobody_loses_his_place():
    play = waiting(SET, **SESSION)
    first = play.client
    play >> another_client >> client("Q:a") >> reloaded(**TRACKED)
    assert list(play.world.pool.waiting) == [first, play.client]


def test_a_message_that_has_not_come_to_its_end_waits_for_that_where_it_must_be_read():
    """A long one is passed on as it comes where nobody reads it."""
    parse = build_parse(b"", b"select '" + b"x" * 200_000 + b"'")
    play = waiting(asked("Q:select_2") + parse[:100_000], **SESSION)
    assert not play.client_socket.reads
    play >> reloaded(**TRACKED)
    assert play.client_socket.reads
    play >> served << to_server("Q:select_2") >> client(parse[100_000:] + asked("B E S"))
    play << to_server(parse + asked("B E S")) >> server("C Z:I 1 2 C Z:I") << to_client("C Z:I 1 2 C Z:I") << released


def test_if_nothing_else_has_been_said_its_client_waits_no_more_until_it_has():
    parse = build_parse(b"", b"select '" + b"x" * 200_000 + b"'")
    play = waiting(parse[:100_000], **SESSION) >> reloaded(**TRACKED)
    assert play.client.state is RESTING
    assert not play.world.pool.waiting
    play >> client(parse[100_000:] + asked("S"))
    assert play.client.state is WAITING
    play >> served << to_server(parse + asked("S")) >> server("1 Z:I") << to_client("1 Z:I") << released


def test_the_rest_of_a_long_query_that_waited_goes_behind_it():
    long = build_query("select '" + "x" * 200_000 + "'")
    play = waiting(long[:100_000], **SESSION) >> reloaded(**TRACKED) >> served << to_server(long[:100_000])
    play >> client(long[100_000:]) << to_server(long[100_000:]) >> server("C Z:I") << to_client("C Z:I")


def test_what_may_not_be_said_any_more_is_refused():
    play = waiting(SET, **SESSION) >> reloaded(disable_pqexec=True, **TRACKED) << error_to_client("PQexec disallowed")
    assert play.client.state is GONE
    assert not play.world.pool.waiting


def test_what_no_server_would_understand_is_refused_where_it_must_be_understood():
    """A Parse whose text has no end: PostgreSQL itself would have said so."""
    play = waiting(build_message(codes.PARSE, b"\0select"), **SESSION) >> reloaded(**TRACKED)
    play << error_to_client("whose text has no end")
    assert play.client.state is GONE


def test_what_waits_behind_a_change_of_ours_is_weighed_anew_too():
    """It may come to another server in the end."""
    play = Play(pool_size=3, followed={"statement_timeout": "1s"}, **SESSION) >> client(SET)
    play << to_server(build_query(build_change(Change({"statement_timeout": "1s"}, ())))) >> reloaded(**TRACKED)
    assert play.client.session is not None
    assert play.server.doomed is Closing.STALE
    play >> server("C Z:I") << to_server(SET) >> server("C Z:I") << to_client("C Z:I") << to_server(ASKS)
