"""What a crowd is told goes out at the end of the turn, in order; a few are told at once."""

import asyncio

from proxy.chorus import Chorus
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
