"""What a crowd is told goes out at the end of the turn, in order; a few are told at once."""

import asyncio

import pytest

from proxy.chorus import AT_WORK, Chorus
from proxy.luggage import find_hindrance
from proxy.states import Closing
from tests.play import (
    Play,
    another_client,
    client,
    client_breaks,
    client_hangs_up,
    released,
    said,
    server,
    to_client,
    to_server,
)
from tests.proxy.auth.wire import play

CROWD = 3


class Ear:
    """A transport that notes what is written, in one book for all."""

    def __init__(self, name, book):
        self._name = name
        self._book = book
        self.is_gone = False

    def write(self, data):
        self._book.append((self._name, data))

    def is_closing(self):
        return self.is_gone


def test_a_few_are_told_at_once():
    async def main():
        book = []
        chorus = Chorus(range(CROWD - 1), CROWD)
        chorus.say(Ear("anna", book), b"welcome")
        assert book == [("anna", b"welcome")]

    play(main())


def test_a_crowd_is_told_together_and_in_order():
    async def main():
        book, audience = [], dict.fromkeys(range(CROWD))
        chorus = Chorus(audience, CROWD)
        anna, bert = Ear("anna", book), Ear("bert", book)
        chorus.say(anna, b"1")
        chorus.say(bert, b"2")
        audience.clear()
        chorus.say(anna, b"3")
        assert book == []
        await asyncio.sleep(0)
        assert book == [("anna", b"1"), ("bert", b"2"), ("anna", b"3")], "what is said behind does not overtake"
        chorus.say(anna, b"4")
        assert book[3:] == [("anna", b"4")], "and all is as before"

    play(main())


def test_whoever_speaks_later_is_heard_later():
    async def main():
        book = []
        chorus = Chorus(range(CROWD), CROWD)
        anna = Ear("anna", book)
        chorus.say(anna, b"question")
        asyncio.get_running_loop().call_soon(anna.write, b"refusal")
        await asyncio.sleep(0)
        assert book == [("anna", b"question"), ("anna", b"refusal")]

    play(main())


def test_who_was_cut_off_meanwhile_hears_nothing_more():
    async def main():
        book = []
        chorus = Chorus(range(CROWD), CROWD)
        anna, bert = Ear("anna", book), Ear("bert", book)
        chorus.say(anna, b"1")
        chorus.say(bert, b"2")
        anna.is_gone = True
        await asyncio.sleep(0)
        assert book == [("bert", b"2")]

    play(main())


# Clients of a pool that is a crowd. What happens in one step of these happens in one turn.

ANSWER = "T D C:SELECT_1 Z:I"
NO = said("FATAL:no")[:1]


@pytest.fixture(name="asked")
def _asked(monkeypatch):
    """One who has asked, and is not answered."""
    monkeypatch.setattr("proxy.pool.AT_WORK", 0)
    return Play() >> client("Q:select_1") << to_server("Q:select_1")


def in_one_turn(*acts):
    def act(play):
        for each in acts:
            each(play)

    return act


def heard(play):
    return bytes(play.client_socket.arrived)


def test_an_answer_goes_out_at_the_end_of_the_turn_and_by_then_the_server_is_free(asked):
    def look(play):
        assert (heard(play), play.server.client) == (b"", None)

    asked >> in_one_turn(server(ANSWER), look) << to_client(ANSWER) << released


def test_few_servers_are_no_crowd():
    play = Play() >> client("Q:select_1") >> in_one_turn(server(ANSWER), to_client(ANSWER))
    assert play.world.pool.chorus._crowd == AT_WORK


def test_the_part_of_a_transaction_waits_likewise(monkeypatch):
    monkeypatch.setattr("proxy.pool.AT_WORK", 0)
    play = Play() >> client("Q:begin") >> server("C:BEGIN Z:T") << to_client("C:BEGIN Z:T") >> client("Q:select_1")
    play >> in_one_turn(server("D C:SELECT_1 Z:T"), lambda play: play.hear("client") == b"" or pytest.fail("early"))
    play << to_client("D C:SELECT_1 Z:T")


@pytest.mark.parametrize("why", [Closing.ADMIN, Closing.SHUTDOWN])
def test_who_is_closed_in_that_turn_has_heard_his_answer_first(asked, why):
    asked >> in_one_turn(server(ANSWER), lambda play: play.client.close(why))
    assert heard(asked).startswith(said(ANSWER) + NO)


def test_who_says_goodbye_in_that_turn_is_answered_before(asked):
    asked >> in_one_turn(server(ANSWER), client("X")) << to_client(ANSWER)
    assert asked.client_socket.is_closing()


@pytest.mark.parametrize("leaves", [client_hangs_up, client_breaks])
def test_who_is_lost_in_that_turn_troubles_nobody(asked, leaves):
    first = asked.client
    asked >> another_client >> client("Q:select_2") >> (lambda play: first.transport.peer_hangs_up())
    asked >> in_one_turn(server(ANSWER), leaves)
    assert not asked.world.pool.clients


def test_our_own_words_come_behind_the_answer(asked):
    """BEGIN is answered here; it was on its way before the answer to the query in front of it."""
    play = Play(session_state="track", deferred_begin=True) >> client("Q:select_1")
    play >> in_one_turn(server(ANSWER), client("Q:begin")) << to_client(f"{ANSWER} C:BEGIN Z:T")


def test_what_comes_in_pieces_comes_behind_what_was_whole(asked):
    asked >> in_one_turn(server(ANSWER), client("Q:rows"), server("T D D")) << to_client(f"{ANSWER} T D D")


def test_who_is_looked_at_for_a_journey_is_owed_nothing(asked):
    def look(play):
        assert find_hindrance(play.client) == ""
        assert heard(play) == said(ANSWER)

    asked >> in_one_turn(server(ANSWER), look)


def test_who_does_not_read_holds_up_nobody_but_himself(monkeypatch):
    monkeypatch.setattr("proxy.pool.AT_WORK", 0)
    slow = Play(is_slow=True) >> client("Q:select_1") >> server(ANSWER) << released
    assert bytes(slow.client_socket.unsent) == said(ANSWER)
    slow >> another_client >> client("Q:select_2") >> server(ANSWER) << to_client(ANSWER)
