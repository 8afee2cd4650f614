"""Names that were ours go home where servers have ceased to be shared, and their clients never notice."""

from dataclasses import replace

import pytest

from protocol import codes
from protocol.backend import build_parameter_description
from protocol.frontend import build_parse, build_query
from proxy.config.kinds import PoolMode, SessionState
from tests.play import (
    Play,
    asked,
    client,
    released,
    said,
    server,
    stays_linked,
    to_client,
    to_server,
)

ONE, TWO = "PARSE:a=select_1 S", "PARSE:b=select_2 S"
BOTH = f"{ONE} {TWO}"


def a_play(**more):
    return Play(session_state="track", pool_size=3, **more)


def prepared(**more):
    """A play whose client has `a` and `b`."""
    play = a_play(**more) >> client(ONE) >> server("1 t n Z:I") >> client(TWO) >> server("1 t n Z:I") << released
    play.hear("server"), play.hear("client")
    return play


def private(play):
    play.world.pool.set_limits(replace(play.world.pool.limits, pool_mode=PoolMode.SESSION))


def audited(play):
    play.world.pool.set_limits(replace(play.world.pool.limits, session_state=SessionState.AUDIT))


@pytest.mark.parametrize("change", [private, audited])
def test_who_rests_finds_his_names_in_front_of_what_he_asks_next(change):
    play = prepared() >> change >> client("B:a E S") << to_server(f"{BOTH} B:a E S")
    play >> server("1 Z:I 1 Z:I 2 C Z:I") << to_client("2 C Z:I") << stays_linked
    play >> client("B:b E CLOSE:b S") << to_server("B:b E CLOSE:b S")


def test_they_are_brought_once():
    play = prepared() >> private >> client("Q:x") << to_server(f"{BOTH} Q:x") >> server("1 Z:I 1 Z:I C Z:I")
    play << to_client("C Z:I") >> client("Q:y") << to_server("Q:y")


def test_one_that_cannot_be_made_any_more_is_missed_when_it_is_used():
    play = prepared() >> private >> client("B:b E S") >> server("ERROR:no_such_table Z:I 1 Z:I 2 C Z:I")
    play << to_client("2 C Z:I") >> client("B:a E S") >> server("MISSING:a Z:I") << to_client("MISSING:a Z:I")


def test_one_made_in_sql_goes_home_in_sql():
    text = build_query('prepare "it""s" as select 1')
    play = a_play() >> client(text) >> server("C:PREPARE Z:I") << to_client("C:PREPARE Z:I")
    play.hear("server")
    play >> private >> client("Q:x") << to_server(build_query('PREPARE "it""s"  as select 1') + b"Q\0\0\0\6x\0")


def test_who_has_a_server_keeps_ours_until_his_transaction_is_over():
    play = prepared() >> client("Q:begin") >> server("C:BEGIN Z:T") >> private << to_client("C:BEGIN Z:T")
    play >> client("B:a E S") << to_server("Q:begin B:PGSHUTTLE_1 E S") >> server("2 C Z:T") << to_client("2 C Z:T")
    play >> client("PARSE:c=select_1 S") << to_server("KNOWN S") >> server("1 Z:T") << to_client("1 Z:T")
    play >> client("Q:commit") << to_server("Q:commit") >> server("C:COMMIT Z:I") << to_client("C:COMMIT Z:I")
    play << to_server(f"{BOTH} PARSE:c=select_1 S") >> client("B:c E S") << to_server("B:c E S")
    play >> server("1 Z:I 1 Z:I 1 Z:I 2 C Z:I") << to_client("2 C Z:I") << stays_linked


def test_what_waited_for_a_server_finds_them_too():
    play = prepared() >> (lambda play: play.world.pool.pause()) >> client("B:a E S") >> private
    play.world.pool.unpause()
    play.server, play._heard["server"] = play.world.finish_opening(), 0
    play << to_server(f"{BOTH} B:a E S")


def test_behind_a_begin_that_no_server_knew_they_are_there():
    play = prepared(deferred_begin=True) >> client("Q:begin") >> private >> client("B:a E S")
    play << to_server(f"{BOTH} Q:begin B:a E S")


def test_they_wait_for_no_change_of_parameters():
    play = prepared() >> private
    play.client.followed = play.world.pool.intern({**play.client.followed, "statement_timeout": "1s"})
    play >> client("B:a E S")
    assert play.hear("server").endswith(asked(BOTH))
    play >> server("T D:1s C Z:I 1 Z:I 1 Z:I") << to_server("B:a E S")


def test_where_servers_are_shared_again_before_anything_was_asked_they_are_ours_still():
    play = prepared() >> private
    play >> (lambda play: play.world.pool.set_limits(replace(play.world.pool.limits, pool_mode=PoolMode.TRANSACTION)))
    play >> client("B:a E S") << to_server("B:PGSHUTTLE_1 E S")
    assert play.server.status == codes.IDLE


def test_they_keep_the_types_that_their_parameters_had():
    play = a_play() >> client(build_parse(b"a", b"select $1") + asked("S"))
    play >> server(said("1") + build_parameter_description([23]) + said("n Z:I")) << released
    play.hear("server"), play.hear("client")
    private(play)
    play >> client("B:a E S")
    assert play.hear("server").startswith(build_parse(b"a", b"select $1", [23]))
