"""A stream that stops before a message until something is done: what comes behind it waits, whatever that is."""

import pytest

from protocol.backend import ErrorFields
from protocol.frontend import build_query
from proxy.hub import Hub
from proxy.stalls import PATIENCE
from proxy.states import CLEANING, CLOSED, CLOSING, GONE, IDLE, LINKED, OPENING, Closing, move
from tests.play import (
    Play,
    client,
    client_breaks,
    client_hangs_up,
    released,
    said,
    server,
    to_client,
    to_server,
)

LISTEN, UNLISTEN = build_query("listen news"), build_query("UNLISTEN news")
CREATE = build_query("create database shop template depot")


class FakeHub:
    """Hears a channel when told to."""

    def __init__(self):
        self.waiting = []
        self.known = set()  # the hub hears these
        self.heard = set()  # and the client as well
        self.left = []
        self.said = []

    def listen(self, client, name, done):
        self.said.append(("listen", name))
        if name in self.known:
            self.heard.add(name)
            done(None)
        else:
            self.waiting.append((name, done))

    def unlisten(self, client, name):
        self.said.append(("unlisten", name))
        self.heard = set() if name is None else self.heard - {name}

    def channels_of(self, client):
        return sorted(self.heard)

    def flush(self, client):
        pass

    def forget(self, client):
        self.left.append(client)

    def hears(self, error=None):
        waiting, self.waiting = self.waiting, []
        for name, done in waiting:
            if error is None:
                self.known.add(name)
                self.heard.add(name)
            done(error)


def a_play(**more):
    play = Play(session_state="track", **more)
    play.hub = FakeHub()
    play.world.find_hub = lambda pool: play.hub
    return play


def hears(play):
    play.hub.hears()


def cannot_hear(play):
    play.hub.hears(ErrorFields("ERROR", "53300", "too many"))


# LISTEN.


def test_a_listen_goes_on_when_the_hub_hears():
    play = a_play() >> client(LISTEN) << to_server("")
    assert play.client.is_stalled
    assert not play.client_socket.reads
    play >> hears << to_server(UNLISTEN)
    assert play.client_socket.reads
    play >> server("C:UNLISTEN Z:I") << to_client("C:LISTEN Z:I") << released


def test_one_that_is_heard_already_goes_on_at_once():
    play = a_play()
    play.hub.known.add(b"news")
    play >> client(LISTEN) << to_server(UNLISTEN)


def test_one_that_the_hub_cannot_hear_is_the_servers():
    a_play() >> client(LISTEN) >> cannot_hear << to_server(LISTEN)


def test_what_stands_before_it_is_sent_and_what_comes_behind_waits_in_order():
    play = a_play() >> client(build_query("select 1") + LISTEN + build_query("select 2")) << to_server("Q:select_1")
    play >> (lambda play: play.client.data_received(build_query("select 3"))) >> server("C Z:I") << to_server("")
    play >> hears << to_server(UNLISTEN + build_query("select 2") + build_query("select 3"))
    (
        play
        >> server("C:UNLISTEN Z:I")
        >> server("C Z:I")
        >> server("C Z:I")
        << to_client("C Z:I C:LISTEN Z:I C Z:I C Z:I")
    )


@pytest.mark.parametrize("words", ["PARSE:=listen_news B E S", "PARSE:a=listen_news B:a E S"])
def test_a_listen_in_a_parse_waits_too(words):
    play = a_play() >> client(words) << to_server("") >> hears
    name = "PGSHUTTLE_1" if ":a" in words else ""
    ought = f"OURS:1=UNLISTEN_news B:{name} E S" if name else "PARSE:=UNLISTEN_news B E S"
    play << to_server(ought) >> server(("1 t n" if name else "1") + " 2 C:UNLISTEN Z:I")
    play << to_client("1 2 C:LISTEN Z:I") << released


def test_a_named_listen_is_nobody_elses():
    """Whether it is rewritten depends on whether the hub hears for that client."""
    play = a_play() >> client("PARSE:a=listen_news S") >> hears >> server("1 t n Z:I") << released
    (one,) = play.server.statements
    assert one.text == b"UNLISTEN news"
    assert not len(play.world.pool.statements)


@pytest.mark.parametrize("leave", [client_hangs_up, client_breaks])
def test_a_client_may_leave_while_it_is_stalled(leave):
    play = a_play() >> client(LISTEN) >> leave
    assert play.client.state is GONE
    assert play.hub.left == [play.client]
    play >> hears << to_server("")


def test_a_goodbye_behind_it_is_heard_when_it_is_its_turn():
    play = a_play() >> client(LISTEN + b"X\0\0\0\4")
    assert play.client.state is not GONE
    play >> hears << to_server(UNLISTEN)
    assert play.client.state is GONE


def test_a_listen_that_is_rolled_back_is_undone_and_an_unlisten_is_done():
    play = a_play() >> client("Q:begin") >> server("C Z:T") >> client(LISTEN) >> hears >> server("C:UNLISTEN Z:T")
    play >> client("Q:rollback") >> server("C Z:I")
    assert play.hub.said[-1] == ("unlisten", b"news")
    play.hub.said.clear()
    play >> client("Q:unlisten_*") >> server("C:UNLISTEN Z:I")
    assert play.hub.said == [("unlisten", None)]


@pytest.mark.parametrize(
    ("begun", "ended"),
    [
        ("Q:begin-C Z:T Q:unlisten_news-C:UNLISTEN Z:T", "Q:rollback-C Z:I"),
        ("Q:begin-C Z:T Q:unlisten_news-C:UNLISTEN Z:T", "PARSE:=rollback B E S-1 2 C Z:I"),
        ("Q:begin-C Z:T Q:unlisten_news-C:UNLISTEN Z:T Q:select_oops-ERROR:no Z:E", "Q:commit-C:ROLLBACK Z:I"),
        ("Q:begin-C Z:T Q:discard_all-ERROR:no Z:E", "Q:commit-C:ROLLBACK Z:I"),
        ("Q:begin-C Z:T Q:listen_news-C:UNLISTEN Z:T", "Q:rollback-C Z:I"),
        ("", "Q:unlisten_news;_select_1/0-ERROR:no Z:I"),
        (
            "Q:begin-C Z:T Q:savepoint_s-C Z:T Q:unlisten_news-C:UNLISTEN Z:T Q:rollback_to_s-C Z:T",
            "Q:commit-C Z:I",
        ),
        ("", "Q:discard_plans-C Z:I"),
        ("", "Q:discard_temp;_listen_news-C C:UNLISTEN Z:I"),
    ],
)
def test_what_was_not_committed_takes_no_channel_away(begun, ended):
    play = a_play() >> client(LISTEN) >> hears >> server("C:UNLISTEN Z:I")
    words = f"{begun} {ended}".replace(" Q:", "|Q:").replace(" PARSE:", "|PARSE:").strip().split("|")
    for asks, _, says in (each.strip().partition("-") for each in words if each.strip()):
        play >> client(asks) >> server(says)
    assert play.client.server is None
    assert play.hub.heard == {b"news"}


def test_to_discard_all_takes_every_channel_away():
    play = a_play() >> client(LISTEN) >> hears >> server("C:UNLISTEN Z:I") >> client("Q:discard_all") >> server("C Z:I")
    assert play.hub.heard == set()


def test_a_listen_that_a_transaction_comes_right_behind_is_none_of_that():
    play = a_play() >> client(LISTEN + build_query("begin")) >> hears >> server("C:UNLISTEN Z:I C Z:T")
    play >> client("Q:rollback") >> server("C Z:I")
    assert play.hub.heard == {b"news"}


def test_a_listen_that_a_rollback_of_nothing_comes_right_behind_counts():
    play = a_play() >> client(LISTEN + build_query("abort")) >> hears >> server("C:UNLISTEN Z:I N:none C:ROLLBACK Z:I")
    assert play.client.server is None
    assert play.hub.heard == {b"news"}


def test_a_listen_behind_a_chained_rollback_is_undone_by_the_next():
    play = (
        a_play() >> client(LISTEN) >> hears >> server("C:UNLISTEN Z:I") >> client("Q:unlisten_news") >> server("C Z:I")
    )
    play >> client("Q:begin") >> server("C Z:T") >> client("Q:rollback_and_chain") >> server("C Z:T")
    play >> client(LISTEN) >> server("C:UNLISTEN Z:T") >> client("Q:rollback") >> server("C Z:I")
    assert play.hub.heard == set()


def test_an_unlisten_behind_a_rollback_counts():
    play = a_play() >> client(LISTEN) >> hears >> server("C:UNLISTEN Z:I")
    play >> client("Q:begin") >> server("C Z:T") >> client("Q:rollback Q:unlisten_news")
    play >> server("C Z:I C:UNLISTEN Z:I")
    assert play.hub.heard == set()


# Databases.


def with_others(**more):
    """A play, and two idle servers of the database in question."""
    play = a_play(**more)
    play.asked = []
    others = [play.world.new_server() for _ in range(2)]

    def servers_in(names):
        play.asked.append(names)
        return others

    play.world.servers_in = servers_in
    return play, others


def test_our_idle_servers_leave_a_database_before_it_is_copied():
    play, others = with_others(pool_size=3)
    play >> client(CREATE) << to_server("")
    assert play.asked == [{"depot"}]
    assert {other.state for other in others} == {CLOSING}
    for other in others:
        play >> (lambda play, other=other: other.transport.peer_hangs_up())
        assert other.state is CLOSED
    play >> (lambda play: play.world.advance(0.02)) << to_server(CREATE)


def test_their_leaving_is_not_waited_for_for_ever():
    play, _ = with_others(pool_size=3)
    play >> client(CREATE)
    for _ in range(int(PATIENCE / 0.01) + 5):
        play >> (lambda play: play.world.advance(0.01))
    play << to_server(CREATE)


def test_those_that_work_are_left_alone():
    play, others = with_others(pool_size=3)
    for other in others:
        other.close(Closing.ADMIN)
    play >> client(CREATE) << to_server(CREATE)


def test_one_that_is_being_cleaned_leaves_as_soon_as_it_is_clean():
    play, others = with_others(pool_size=3)
    for other in others:
        move(other, LINKED)
        move(other, CLEANING)
    play >> client(CREATE) << to_server("")
    assert {other.state for other in others} == {CLEANING}
    for other in others:
        play >> (lambda play, other=other: other.rest())
        assert other.state is CLOSING
        play >> (lambda play, other=other: other.transport.peer_hangs_up())
    play >> (lambda play: play.world.advance(0.02)) << to_server(CREATE)


def test_one_that_is_at_work_is_not_waited_for_and_leaves_when_it_is_released():
    """PostgreSQL waits for it, and its client may have said goodbye already."""
    play = a_play(pool_size=3)
    other, neighbour = play.world.new_server(), play.world.new_client()
    play.world.servers_in = lambda names: [other]
    play >> (lambda play: neighbour.transport.peer_sends(build_query("select 1")))
    assert neighbour.server is other
    play >> client(CREATE) << to_server(CREATE)
    assert other.state is LINKED
    play >> (lambda play: other.transport.peer_sends(said("C Z:I")))
    assert other.state is CLOSING


def test_one_that_is_being_opened_for_nobody_leaves_as_soon_as_it_is_open():
    play = a_play(pool_size=3)
    play.world.pool.open_one()
    (opening,) = play.world.pool.places[OPENING]
    play.world.servers_in = lambda names: [opening]
    play >> client(CREATE) << to_server("")
    play >> (lambda play: play.world.finish_opening(opening))
    assert opening.state is CLOSING
    play >> (lambda play: opening.transport.peer_hangs_up())
    play >> (lambda play: play.world.advance(0.02)) << to_server(CREATE)


def test_a_connection_that_listens_for_nobody_any_more_leaves_too():
    play = a_play(pool_size=3)
    hub = Hub(play.world.pool)
    server = play.world.new_server(hub.ear.pool)
    play.world.servers_in = lambda names: [server]
    hub.ear.resume(server)
    play >> client(CREATE) << to_server("")
    assert server.state is CLOSED


def test_a_client_may_leave_while_others_do():
    play, _ = with_others(pool_size=3)
    play >> client(CREATE) >> client_hangs_up
    for _ in range(3):
        play >> (lambda play: play.world.advance(0.02))
    play << to_server("")
    assert play.server.state is IDLE


def test_notices_of_what_was_said_before_are_heard_meanwhile():
    play, _ = with_others(pool_size=3)
    play >> client(build_query("select 1") + CREATE) >> server("N:hello C Z:I") << to_client(said("N:hello C Z:I"))


def test_when_a_database_may_have_been_made_the_world_is_told():
    play = a_play() >> client(CREATE) >> server("C Z:I") << released
    assert play.world.databases_made == 1
    play >> client("Q:select_1") >> server("C Z:I") << released
    assert play.world.databases_made == 1
