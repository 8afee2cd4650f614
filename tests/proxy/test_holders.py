"""Who holds a server, what for and for how long, read off what the streams note."""

from proxy.holders import ABORTED, ACTIVE, IDLE, IDLE_IN_TRANSACTION, application_of, count_by_application, find_holders
from tests.play import Play, another_client, client, server


def pause(seconds):
    return lambda play: play.world.advance(seconds)


def holder(play):
    (found,) = find_holders(play.world.pool)
    return found


def test_a_query_outside_a_transaction():
    found = holder(Play() >> client("Q:a") >> pause(3.0))
    assert (found.doing, found.is_in_transaction) == (ACTIVE, False)
    assert (found.xact_age, found.query_age, found.idle_in_xact, found.age) == (3.0, 3.0, None, 3.0)


def test_a_query_inside_a_transaction_is_younger_than_that():
    play = Play() >> client("Q:begin") >> pause(1.0) >> server("C Z:T") >> pause(2.0) >> client("Q:a") >> pause(4.0)
    found = holder(play)
    assert (found.doing, found.is_in_transaction) == (ACTIVE, True)
    assert (found.xact_age, found.query_age, found.idle_in_xact) == (7.0, 4.0, None)


def test_an_idle_transaction():
    found = holder(Play() >> client("Q:begin") >> pause(1.0) >> server("C Z:T") >> pause(5.0))
    assert (found.doing, found.xact_age, found.query_age, found.idle_in_xact) == (IDLE_IN_TRANSACTION, 6.0, None, 5.0)


def test_a_failed_one():
    found = holder(Play() >> client("Q:begin") >> server("ERROR:no Z:E") >> pause(5.0))
    assert (found.doing, found.idle_in_xact) == (ABORTED, 5.0)


def test_a_batch_without_its_sync_is_a_transaction_too():
    found = holder(Play() >> client("P H") >> server("1") >> pause(2.0))
    assert (found.doing, found.is_in_transaction, found.idle_in_xact) == (IDLE_IN_TRANSACTION, True, 2.0)


def test_a_session_that_does_nothing_has_no_transaction_and_its_age_is_its_idleness():
    play = Play(pool_mode="session") >> client("Q:a") >> pause(1.0) >> server("C Z:I") >> pause(9.0)
    found = holder(play)
    assert (found.doing, found.is_in_transaction, found.xact_age, found.idle_in_xact) == (IDLE, False, None, None)
    assert (found.idle, found.age) == (9.0, 9.0)


def test_the_longest_comes_first():
    play = Play(pool_size=2) >> client("Q:first") >> pause(2.0)
    first = play.client
    with play.world.loop.running():
        play.world.new_server()
    play >> another_client >> client("Q:second") >> pause(1.0)
    assert [(found.client, found.age) for found in find_holders(play.world.pool)] == [(first, 3.0), (play.client, 1.0)]


def test_what_a_client_calls_itself_is_made_printable_and_short():
    play = Play(followed={"application_name": "naïve\n" + "x" * 100}) >> client("Q:a")
    assert application_of(play.client).isprintable()
    assert len(application_of(play.client)) == 63


def test_servers_are_counted_by_user_and_application():
    play = Play(followed={"application_name": "billing"}) >> client("Q:a")
    assert count_by_application(find_holders(play.world.pool)) == {("web", "billing"): 1}
