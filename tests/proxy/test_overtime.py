"""Which timeout has struck, and what the client hears: the limit, the time it took, and what it did last."""

import gc

import pytest

from protocol.frontend import FLUSH_MESSAGE, SYNC_MESSAGE, Bind, build_bind, build_execute, build_parse
from proxy.overtime import describe, find_rest_timeout, find_timeout, has_timeouts
from proxy.states import Closing
from tests.fakes import make_limits
from tests.play import Play, client, client_hangs_up, server


def pause(seconds):
    return lambda play: play.world.advance(seconds)


def struck(play):
    """(the reason, the detail)"""
    one, now = play.client, play.world.clock.now()
    why = find_timeout(one, one.server, now) if one.server is not None else find_rest_timeout(one, now)
    return (why, describe(one, why, now).detail) if why is not None else (None, "")


@pytest.mark.parametrize("name", ["query_timeout", "transaction_timeout", "idle_transaction_timeout"])
def test_whether_any_could_strike(name):
    assert has_timeouts(make_limits(**{name: 1.0}))
    assert not has_timeouts(make_limits())


def test_a_query():
    play = Play(query_timeout=2.0) >> client("Q:a") >> pause(2.0)
    assert struck(play) == (None, "")
    assert struck(play >> pause(0.3)) == (
        Closing.QUERY_TIMEOUT,
        "The statement has been running for 2.3 s; query_timeout is 2 s.",
    )


def test_a_query_in_a_transaction_tells_of_that_too():
    play = Play(query_timeout=2.0) >> client("Q:begin") >> server("C Z:T") >> pause(60.0) >> client("Q:a") >> pause(3.0)
    assert struck(play)[1] == (
        "The statement has been running for 3.0 s; query_timeout is 2 s. Its transaction has been open for 63 s."
    )


def test_a_transaction_at_work():
    play = Play(transaction_timeout=0.5) >> client("Q:begin") >> server("C Z:T") >> client("Q:a") >> pause(1.0)
    assert struck(play) == (
        Closing.TRANSACTION_TIMEOUT,
        "The transaction has been open for 1.0 s, and its last statement has been running for 1.0 s;"
        " transaction_timeout is 0.5 s.",
    )


def test_a_transaction_that_idles():
    play = Play(transaction_timeout=3.0) >> client("Q:begin") >> pause(1.0) >> server("C Z:T") >> pause(3.0)
    assert struck(play)[1] == (
        "The transaction has been open for 4.0 s, and it has done nothing for 3.0 s; transaction_timeout is 3 s."
    )


IDLED = "The client has done nothing for 3.0 s in a transaction that is open for {} s; idle_transaction_timeout is 2 s."


def test_an_idle_transaction():
    play = Play(idle_transaction_timeout=2.0) >> client("Q:begin") >> pause(1.0) >> server("C Z:T") >> pause(3.0)
    last = " Its last simple query, 4.0 s ago, was: BEGIN ..."
    assert struck(play) == (Closing.IDLE_TRANSACTION_TIMEOUT, IDLED.format("4.0") + last)


def test_an_idle_transaction_that_has_failed():
    play = Play(idle_transaction_timeout=2.0) >> client("Q:begin") >> server("ERROR:no Z:E") >> pause(3.0)
    assert struck(play)[1] == IDLED.format("3.0") + " The transaction has failed, and waits for a rollback."


def test_an_idle_batch():
    play = Play(idle_transaction_timeout=2.0) >> client("P H") >> server("1") >> pause(3.0)
    assert struck(play)[1] == IDLED.format("3.0") + " What it has sent waits for a Sync."


@pytest.mark.parametrize(
    ("text", "word"),
    [(b"  update t set a = 'secret'", "UPDATE"), (b"(select 1)", "SELECT"), (b"/* x */ select 1", ""), (b"", "")],
)
def test_an_idle_transaction_says_which_kind_of_statement_was_prepared_last_and_no_more(text, word):
    batch = build_parse(b"", text) + build_bind(Bind(b"", b"")) + build_execute(b"") + SYNC_MESSAGE
    play = Play(idle_transaction_timeout=2.0, session_state="track")
    play >> client("Q:begin") >> server("C Z:T") >> client(batch) >> server("1 2 C Z:T") >> pause(3.0)
    last = f" The last statement it prepared there without a name was: {word} ..." if word else ""
    begun = " Its last simple query, 3.0 s ago, was: BEGIN ..."
    assert struck(play)[1] == IDLED.format("3.0") + begun + last


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_an_idle_transaction_says_which_simple_query_was_its_last_and_when(mode):
    play = Play(idle_transaction_timeout=2.0, pool_mode=mode, session_state="track")
    play >> client("Q:begin") >> server("C Z:T") >> client("Q:update_t_set_a=7") >> server("C Z:T") >> pause(3.0)
    assert struck(play)[1] == IDLED.format("3.0") + " Its last simple query, 3.0 s ago, was: UPDATE ..."


def test_queries_are_noted_only_where_idle_transactions_are_ended():
    play = Play(session_state="track") >> client("Q:begin") >> server("C Z:T") >> client("Q:update_t_set_a=7")
    assert not play.world.pool.habits.notes


def test_a_client_that_is_gone_is_not_remembered():
    play = Play(idle_transaction_timeout=2.0) >> client("Q:begin") >> server("C Z:T") >> client("Q:a")
    assert len(play.world.pool.habits.notes) == 1
    play >> client_hangs_up
    play.world.left.clear()
    play.client = None
    gc.collect()
    assert len(play.world.pool.habits.notes) == 0


def test_a_begin_that_nothing_has_followed():
    play = Play(idle_transaction_timeout=2.0, deferred_begin=True) >> client("Q:begin") >> pause(3.0)
    assert struck(play) == (
        Closing.IDLE_TRANSACTION_TIMEOUT,
        IDLED.format("3.0") + " Nothing has followed its BEGIN.",
    )


def test_a_client_that_rests():
    play = Play(client_idle_timeout=600.0) >> pause(600.5)
    assert struck(play) == (
        Closing.CLIENT_IDLE_TIMEOUT,
        "The client has said nothing for 600 s; client_idle_timeout is 600 s.",
    )


def test_half_a_batch_is_not_rest():
    play = Play(client_idle_timeout=1.0, pool_mode="session") >> client(build_parse(b"", b"a") + FLUSH_MESSAGE)
    assert find_rest_timeout((play >> pause(5.0)).client, play.world.clock.now()) is None
