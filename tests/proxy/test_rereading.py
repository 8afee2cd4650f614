"""Functions that are named by a reload are looked after from then on, also in what was prepared before."""

from dataclasses import replace

import pytest

from protocol.frontend import build_query
from proxy.pins import PinReason
from proxy.states import Closing
from tests.play import Play, client, released, server, stays_linked, to_client, to_server


def a_play():
    return Play(session_state="track", pool_size=3)


def named(*functions):
    return lambda play: play.world.pool.set_limits(replace(play.world.pool.limits, pin_functions=functions))


def with_new_server(play):
    """The one there was has been retired."""
    assert play.server.doomed is Closing.STALE
    play.server, play._heard["server"] = play.world.new_server(), 0


def pinned(play):
    assert list(play.client.session.pins) == [PinReason.FUNCTION]


def test_a_statement_that_was_prepared_before():
    play = a_play() >> client("PARSE:a=select_grab() S") >> server("1 t n Z:I") << released
    play >> named("grab") >> with_new_server >> client("B:a E S") >> server("1 t n") >> server("2 C Z:I")
    play << stays_linked << pinned


def test_one_made_in_sql_and_bound():
    play = a_play() >> client(build_query("prepare a as select grab()")) >> server("C:PREPARE Z:I") << released
    play >> named("grab") >> with_new_server >> client("B:a E S") >> server("C:PREPARE Z:I 2 C Z:I")
    play << stays_linked << pinned


def test_the_unnamed_one():
    play = a_play() >> client("PARSE:=select_grab() S") >> server("1 Z:I") << released
    play >> named("grab") >> with_new_server >> client("B E S") << to_server("PARSE:=select_grab() B E S")
    play >> server("1 2 C Z:I") << stays_linked << pinned


def test_what_waits():
    play = a_play() >> (lambda play: play.world.pool.pause()) >> client("Q:select_grab()") >> named("grab")
    play.world.pool.unpause()
    play.server, play._heard["server"] = play.world.finish_opening(), 0
    play << to_server("Q:select_grab()") >> server("C Z:I") << to_client("C Z:I") << stays_linked << pinned


def test_one_that_is_named_no_more():
    play = a_play() >> named("grab") >> with_new_server >> client("PARSE:a=select_grab() S") >> server("1 t n Z:I")
    play >> named() << released >> client("B:a E S") >> server("2 C Z:I") << released


@pytest.mark.parametrize("state", ["leak", "track"])
def test_servers_on_which_it_may_have_run_serve_nobody_else(state):
    play = Play(session_state=state, pool_size=3) >> client("Q:begin") >> server("C:BEGIN Z:T")
    idle = play.world.new_server()
    play >> named("grab")
    assert (play.server.doomed is idle.doomed is Closing.STALE) == (state == "track")
    play >> (lambda play: play.world.pool.set_limits(replace(play.world.pool.limits)))
