"""A client's answers: what it hears of them, how they are counted, and when it is read on."""

from protocol.ledger import QUERY
from proxy.served import MAX_BACKLOG
from proxy.states import GONE, IDLE
from tests.play import Play, asked, client, released, said, server, to_client, to_server


def test_in_statement_mode_a_transaction_ends_the_client():
    play = Play(pool_mode="statement") >> client("Q:begin") >> server("C Z:T")
    assert b"transaction blocks not allowed in statement pooling mode" in play.hear("client")
    assert play.client.state is GONE
    play << to_server("Q:begin Q:ROLLBACK") >> server("C Z:I")
    assert play.server.state is IDLE


def test_the_error_of_statement_mode_does_not_fall_into_a_message_that_is_half_sent():
    tag = said("C:" + "x" * 50)
    play = Play(pool_mode="statement") >> client("Q:begin") >> server(tag[:20]) << to_client(tag[:20])
    play >> server(tag[20:] + said("Z:T"))
    heard = tag[:20] + play.hear("client")
    assert tag.startswith(heard) or heard.startswith(tag)


def test_in_statement_mode_even_an_answer_that_is_looked_at_as_a_whole_ends_the_client():
    play = Play(pool_mode="statement") >> client("Q:begin") >> server("C:BEGIN Z:T")
    assert b"transaction blocks not allowed" in play.hear("client")
    play << to_server("Q:begin Q:ROLLBACK") >> server("C:ROLLBACK Z:I") << released


def test_a_query_in_a_transaction_takes_the_time_since_it_was_asked():
    play = Play() >> client("Q:begin") >> server("C Z:T") >> (lambda play: play.world.advance(5.0))
    play >> client("Q:select_1") >> (lambda play: play.world.advance(2.0)) >> server("T D:1 C:SELECT_1 Z:T")
    stats = play.world.pool.stats.copy()
    assert (stats.query_count, stats.query_time, stats.xact_count) == (2, 2.0, 0)


def test_a_client_with_too_many_unanswered_requests_is_not_read_until_half_of_them_are_answered():
    share = MAX_BACKLOG * 3 // 10
    play = Play() >> client("Q:first")
    for _ in range(3):
        play >> client("S " * share)
        assert play.client_socket.reads
    play >> client("S " * share)
    assert not play.client_socket.reads
    for _ in range(3):
        play >> server("C Z:I" if play.server.ledger.head[0] is QUERY else "Z:I " * share)
        assert not play.client_socket.reads
    play >> server("Z:I " * share)
    assert play.client_socket.reads
    play >> server("Z:I " * share) << released << to_client("C Z:I" + " Z:I" * share * 4)


def test_a_client_that_is_not_read_before_its_sync_is_read_on_when_its_requests_are_answered():
    """Drivers send thousands of Bind and Execute and one Sync at the end."""
    rows = MAX_BACKLOG
    play = Play() >> client("P B") >> client("B E " * rows)
    assert not play.client_socket.reads
    play >> server("1 2 " + "2 C " * (rows - 1))
    assert play.client_socket.reads
    play >> client("S") >> server("2 C Z:I") << released


def test_statistics_count_queries_transactions_and_bytes():
    play = Play() >> client("Q:begin") >> (lambda play: play.world.advance(2.0)) >> server("C Z:T")
    play >> client("Q:commit") >> (lambda play: play.world.advance(1.0)) >> server("C Z:I")
    stats = play.world.pool.stats
    assert (stats.query_count, stats.xact_count, stats.server_assignment_count) == (2, 1, 1)
    assert (stats.query_time, stats.xact_time) == (3.0, 3.0)
    assert stats.received == len(asked("Q:begin Q:commit"))
    assert stats.sent == len(said("C Z:T C Z:I"))
