"""Cancelling: it reaches the query it means, or nothing."""

import pytest

from protocol.startup import CancelRequest, parse_startup
from proxy.cancel import FAILED, KEY_LENGTH, LONG_KEY_LENGTH, NOT_WAITING, WAS_WAITING, Cancels
from proxy.inbox import Inbox
from proxy.peers import SENT, TIMED_OUT, UNKNOWN, stamp
from proxy.server_tls import TlsFailed
from proxy.states import CLEANING, CLOSED, IDLE, RESTING, WAITING
from tests.fakes import FakeTransport
from tests.play import Play, asked, client, released, server, stays_linked, to_client, to_server


class Tasks:
    def __init__(self, loop):
        self.loop = loop

    def start(self, coroutine, *, name):
        return self.loop.create_task(coroutine)


class Endpoint:
    """Where PostgreSQL takes cancel requests."""

    def __init__(self, loop, refuses=False):
        self.loop, self.refuses, self.lines = loop, refuses, []

    async def connect(self, loop):
        if self.refuses:
            raise ConnectionRefusedError("connection refused")
        transport = FakeTransport(self.loop)
        self.lines.append(transport)
        return transport.start(Inbox())

    def keys(self):
        requests = [parse_startup(bytes(line.arrived[4:])) for line in self.lines]
        assert all(isinstance(request, CancelRequest) for request in requests)
        return [request.key for request in requests]


def play_with_cancels(refuses=False, **said):
    play = Play(**said)
    play.cancels = Cancels(Tasks(play.world.loop))
    play.cancels.register(play.client)
    play.world.issue_cancel = play.cancels.issue
    play.endpoint = play.server.endpoint = Endpoint(play.world.loop, refuses)
    return play


def asks_to_cancel(play):
    play.cancels.request(play.client.key)


def arrives(play):
    play.endpoint.lines[-1].peer_hangs_up()


def test_a_running_query_is_cancelled_with_the_servers_own_key():
    play = play_with_cancels() >> client("Q:long") >> asks_to_cancel
    assert play.endpoint.keys() == [play.server.key]
    play >> server("ERROR:canceled Z:I") << to_client("ERROR:canceled Z:I")
    assert play.server.state is CLEANING, "nobody gets it while the signal may still come"
    play >> arrives
    assert play.server.state is IDLE
    assert play.server.cancels == 0


def test_an_unknown_key_cancels_nothing():
    play = play_with_cancels() >> client("Q:long") >> (lambda play: play.cancels.request(b"x" * 8))
    assert not play.endpoint.lines


def test_a_client_at_rest_has_nothing_to_cancel():
    play = play_with_cancels() >> asks_to_cancel << to_client("")
    assert not play.endpoint.lines


def test_an_idle_transaction_has_nothing_to_cancel():
    play = play_with_cancels() >> client("Q:begin") >> server("C Z:T") >> asks_to_cancel << stays_linked
    assert not play.endpoint.lines


def test_who_waits_is_taken_out_of_the_queue_and_postgres_never_hears_of_it():
    play = play_with_cancels()
    with play.world.loop.running():
        other = play.world.new_client()
        other.transport.peer_sends(asked("Q:other"))
    play >> client("Q:mine")
    assert play.client.state is WAITING
    play >> asks_to_cancel << to_server("Q:other")
    assert play.client.state is RESTING
    assert b"57014" in play.hear("client")
    assert not play.endpoint.lines
    play >> server("C Z:I") << released


def test_a_cancel_waits_until_our_own_set_is_done():
    play = play_with_cancels(followed={"TimeZone": "CET"})
    play.world.pool.proven.add(("TimeZone", "CET"))
    play >> client("Q:long") >> asks_to_cancel
    assert not play.endpoint.lines
    play >> server("C S:TimeZone=CET Z:I") >> (lambda play: play.world.advance(0.01))
    assert play.endpoint.keys() == [play.server.key]


def test_a_cancel_that_comes_while_the_query_is_held_back_for_a_set_hits_that_query():
    play = play_with_cancels(followed={"TimeZone": "CET"}) >> client("Q:long") >> asks_to_cancel
    play >> server("C S:TimeZone=CET Z:I") >> (lambda play: play.world.advance(0.01))
    assert play.endpoint.keys() == [play.server.key]


def test_the_first_query_behind_a_begin_can_be_cancelled_though_the_begin_is_answered_only_with_it():
    play = play_with_cancels(deferred_begin=True) >> client("Q:begin") >> client("Q:long") >> asks_to_cancel
    assert not play.endpoint.lines, "it may still be the BEGIN that runs"
    play >> (lambda play: play.world.advance(0.01))
    assert play.endpoint.keys() == [play.server.key]
    play >> server("RAN:BEGIN ERROR:canceled Z:E") << to_client("C:BEGIN Z:T ERROR:canceled Z:E") << stays_linked


@pytest.mark.parametrize("words", ["Q:long", "P B D E S", "Q:long Q:a"])
def test_what_is_tracked_for_show_statements_can_be_cancelled(words):
    play = play_with_cancels(track_statements=True) >> client(words) >> asks_to_cancel
    play >> (lambda play: play.world.advance(0.01))
    assert play.endpoint.keys() == [play.server.key]


def test_a_cancel_whose_query_is_answered_meanwhile_is_not_sent():
    play = play_with_cancels(followed={"TimeZone": "CET"})
    play.world.pool.proven.add(("TimeZone", "CET"))
    play >> client("Q:quick") >> asks_to_cancel >> server("C S:TimeZone=CET Z:I C Z:I")
    play >> (lambda play: play.world.advance(0.01))
    assert not play.endpoint.lines
    play << released


def test_a_cancel_that_cannot_be_delivered_gives_the_server_back():
    play = play_with_cancels(refuses=True) >> client("Q:long") >> asks_to_cancel >> server("C Z:I") << released
    assert "cancel request failed" in play.world.log.text


def test_a_cancel_that_hangs_gives_up_in_time_and_nobody_else_gets_the_server_it_may_still_hit():
    play = play_with_cancels()
    play.cancels.timeout = 10.0
    play >> client("Q:long") >> asks_to_cancel >> server("C Z:I")
    assert play.server.state is CLEANING
    play >> (lambda play: play.world.advance(10.1))
    assert play.server.state is CLOSED
    assert play.cancels.forwarding == 0
    assert "cancel request failed: timeout" in play.world.log.text


def test_keys_are_unique_and_forgotten():
    play = play_with_cancels()
    keys = {play.cancels.mint_key() for _ in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {KEY_LENGTH}
    assert all(1 << 30 <= int.from_bytes(key[:4], "big") < 1 << 31 for key in keys), "no process has such an id"
    assert len(play.cancels.mint_key(is_long=True)) == LONG_KEY_LENGTH
    assert len(play.cancels) == 1
    play.cancels.forget(play.client)
    play.cancels.forget(play.client)
    assert len(play.cancels) == 0


def test_one_that_waits_behind_another_is_not_sent_when_nothing_is_left_to_cancel():
    play = play_with_cancels() >> client("Q:long") >> asks_to_cancel >> asks_to_cancel >> server("ERROR:x Z:I")
    assert len(play.endpoint.lines) == play.server.cancels == 1
    assert play.server.state is CLEANING
    play >> arrives
    assert play.server.state is IDLE
    assert len(play.endpoint.lines) == 1


def test_who_asks_a_thousand_times_makes_one_connection_at_a_time():
    play = play_with_cancels() >> client("Q:long")
    for _ in range(1000):
        play >> asks_to_cancel
    for count in (1, 2):  # the query did not mind
        assert len(play.endpoint.lines) == count
        assert play.server.cancels == 1
        play >> arrives
    assert len(play.endpoint.lines) == 2, "all who came while the first was under way have had theirs"
    play >> asks_to_cancel
    assert len(play.endpoint.lines) == 3


# The asker waits.


class Peers:
    """Those that know no key, and what they were asked."""

    def __init__(self, own_number=None):
        self.own_number, self.asked = own_number, []

    async def forward(self, key):
        self.asked.append(key)
        return UNKNOWN


def asks(play, key=None):
    """A task: what the asker is told in the end."""
    tasks = []
    play >> (lambda play: tasks.append(play.world.loop.create_task(play.cancels.serve(key or play.client.key))))
    return tasks[0]


def test_the_asker_is_kept_until_the_signal_has_been_sent():
    play = play_with_cancels() >> client("Q:long")
    task = asks(play)
    assert not task.done()
    play >> server("ERROR:canceled Z:I") >> arrives
    assert task.result() == SENT


def test_the_asker_is_told_at_once_where_nothing_is_to_be_sent():
    play = play_with_cancels()
    assert asks(play).result() == NOT_WAITING
    assert asks(play, b"x" * 8).result() == UNKNOWN


def test_the_asker_for_one_who_waits_is_told_at_once():
    play = play_with_cancels()
    with play.world.loop.running():
        other = play.world.new_client()
        other.transport.peer_sends(asked("Q:other"))
    play >> client("Q:mine")
    assert asks(play).result() == WAS_WAITING


def test_the_asker_is_told_that_it_could_not_be_delivered_or_took_too_long():
    play = play_with_cancels(refuses=True) >> client("Q:long")
    assert asks(play).result() == FAILED
    play = play_with_cancels()
    play.cancels.timeout = 10.0
    play >> client("Q:long")
    task = asks(play)
    play >> (lambda play: play.world.advance(10.1))
    assert task.result() == TIMED_OUT


# Several processes.


def play_among_peers(own_number, **said):
    play = play_with_cancels(**said)
    play.cancels = Cancels(Tasks(play.world.loop), Peers(own_number))
    play.world.issue_cancel = play.cancels.issue
    return play


def test_a_key_of_ours_has_our_number_and_is_no_negative_process_id():
    play = play_among_peers(258)
    for is_long in (False, True):
        key = play.cancels.mint_key(is_long=is_long)
        assert (key[1], key[2], key[-1] & 3) == (2, 1, 3)
    for number in (None, 258):
        assert all(play_among_peers(number).cancels.mint_key()[0] < 128 for _ in range(50))


def test_a_key_that_came_by_way_of_others_is_known_again():
    play = play_among_peers(7) >> client("Q:long")
    play.client.key = stamp(b"12345678", 7)
    play.cancels.register(play.client)
    for hops in (3, 2, 1, 0):
        key = play.client.key[:-1] + bytes([play.client.key[-1] & ~3 | hops])
        play >> (lambda play, key=key: play.cancels.request(key)) >> arrives
    assert play.endpoint.keys() == [play.server.key] * 4


def test_without_a_number_a_key_must_be_right_to_the_last_bit():
    play = play_among_peers(None) >> client("Q:long")
    play.client.key = stamp(b"12345678", 7)
    play.cancels.register(play.client)
    play >> (lambda play: play.cancels.request(play.client.key[:-1] + bytes([play.client.key[-1] & ~3])))
    assert not play.endpoint.lines


def test_a_key_given_out_before_we_had_a_number_goes_on():
    play = play_among_peers(None) >> client("Q:long")
    play.client.key = play.cancels.mint_key()
    play.cancels.register(play.client)
    play.cancels._peers.own_number = 7
    play >> asks_to_cancel
    assert play.endpoint.keys() == [play.server.key]


def test_a_key_nobody_has_here_is_the_peers_business():
    play = play_among_peers(7)
    key = stamp(b"12345678", 8)
    assert asks(play, key).result() == UNKNOWN
    assert play.cancels._peers.asked == [key]


def test_a_key_that_is_not_here_is_asked_of_the_process_before_and_the_one_after():
    play, passed = play_with_cancels(), []

    async def relay(key):
        passed.append(key)
        return key == b"there"

    play.cancels.relay = relay
    assert asks(play, b"there").result() == SENT
    assert asks(play, b"nowhere").result() == UNKNOWN
    assert asks(play).result() == NOT_WAITING
    assert passed == [b"there", b"nowhere"]


class Tls:
    """What a cancel request must be sent by, where its server is reached by TLS."""

    def __init__(self, error=None):
        self.error, self.begun = error, []

    async def begin(self, inbox, host):
        self.begun.append((host, bytes(inbox.transport.arrived)))
        if self.error is not None:
            raise self.error
        return True


def test_where_the_server_is_reached_by_tls_its_key_travels_encrypted():
    play = play_with_cancels()
    play.endpoint.host = "db"
    play.server.tls = Tls()
    play >> client("Q:long") >> asks_to_cancel
    assert play.server.tls.begun == [("db", b"")], "before the key"
    assert play.endpoint.keys() == [play.server.key]


def test_where_that_fails_the_key_is_not_sent_at_all():
    play = play_with_cancels()
    play.endpoint.host = "db"
    play.server.tls = Tls(TlsFailed("server refused SSL"))
    play >> client("Q:long") >> asks_to_cancel
    assert [bytes(line.arrived) for line in play.endpoint.lines] == [b""]
    assert "cancel request failed: server refused SSL" in play.world.log.text
    play >> server("C Z:I")
    assert play.server.state is CLOSED, "as with any request that may be lost"
