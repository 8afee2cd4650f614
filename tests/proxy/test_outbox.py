"""What a crowd is told goes out at the end of the turn, in order and to nobody else; a few are told at once."""

import asyncio
import contextlib
import socket

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.luggage import find_hindrance
from proxy.outbox import AT_WORK, FEWEST, Crowd, Outbox, Wire
from proxy.ring import LONGEST, MOST, open_ring
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
from tests.proxy.test_ring import OPENED, ringed

CROWD = 3


class Ear:
    """A transport that notes what is written, in one book for all."""

    def __init__(self, name, book, outbox, audience=range(CROWD)):
        self._name = name
        self._book = book
        self.is_gone = False
        self.wire = Wire(self, Crowd(audience, CROWD, outbox))
        self.say = self.wire.write

    def write(self, data):
        self._book.append((self._name, data))

    def is_closing(self):
        return self.is_gone


def two():
    """A book, an outbox, and anna and bert, who are told by it."""
    book, outbox = [], Outbox()
    return book, outbox, Ear("anna", book, outbox), Ear("bert", book, outbox)


def test_a_few_are_told_at_once():
    async def main():
        book = []
        Ear("anna", book, Outbox(), range(CROWD - 1)).say(b"welcome")
        assert book == [("anna", b"welcome")]

    play(main())


def test_a_crowd_is_told_together_and_each_in_order():
    async def main():
        book, audience, outbox = [], dict.fromkeys(range(CROWD)), Outbox()
        anna, bert = Ear("anna", book, outbox, audience), Ear("bert", book, outbox, audience)
        anna.say(b"1")
        bert.say(b"2")
        audience.clear()
        anna.say(b"3")
        assert book == []
        await asyncio.sleep(0)
        assert book == [("anna", b"13"), ("bert", b"2")], "what is said behind does not overtake"
        anna.say(b"4")
        assert book[2:] == [("anna", b"4")], "and all is as before"

    play(main())


def test_whoever_asks_for_what_depends_on_it_finds_his_own_written():
    async def main():
        book, _, anna, bert = two()
        anna.say(b"question")
        bert.say(b"answer")
        assert anna.wire.is_closing() is False
        assert book == [("anna", b"question")]
        await asyncio.sleep(0)
        assert book == [("anna", b"question"), ("bert", b"answer")]

    play(main())


def test_who_was_cut_off_meanwhile_hears_nothing_more():
    async def main():
        book, _, anna, bert = two()
        anna.say(b"1")
        bert.say(b"2")
        anna.is_gone = True
        await asyncio.sleep(0)
        assert book == [("bert", b"2")]

    play(main())


def test_who_speaks_because_of_what_goes_out_is_heard_behind_it():
    async def main():
        book, outbox, anna, bert = two()

        class Echo(Ear):
            def write(self, data):
                super().write(data)
                bert.say(b"so bert knows")

        Echo("echo", book, outbox).say(b"!")
        bert.say(b"first ")
        anna.say(b"?")
        await asyncio.sleep(0)
        assert book == [("echo", b"!"), ("bert", b"first so bert knows"), ("anna", b"?")]

    play(main())


def test_a_flood_for_one_does_not_gather_here():
    """Or each of its messages would be copied with all before it, and nobody would hear that it is not read."""

    async def main():
        book, outbox, anna, bert = two()
        bert.say(b"news")
        told = b""
        for number in range(2_000):
            told += b"%07d" % number
            anna.say(told[-7:])
            assert len(outbox.letters.get(anna.wire, b"")) <= LONGEST
        assert len(book) == len(told) // (LONGEST // 7 * 7 + 7)
        await asyncio.sleep(0)
        assert b"".join(data for who, data in book if who == "anna") == told
        assert ("bert", b"news") in book

    play(main())


@pytest.mark.parametrize("others", [False, True])
def test_what_is_long_goes_out_at_once_behind_what_waits(others):
    async def main():
        book, outbox = [], Outbox()
        if others:
            Ear("bert", book, outbox).say(b"news")
        anna = Ear("anna", book, outbox)
        anna.say(b"x" * (LONGEST + 1))
        assert book == [("anna", b"x" * (LONGEST + 1))]
        anna.say(b"1")
        anna.say(b"y" * LONGEST)
        assert book[1:] == [("anna", b"1" + b"y" * LONGEST)]

    play(main())


class Told:
    def __init__(self, name, book, outbox):
        self.transport = Ear(name, book, outbox).wire


def test_what_is_told_to_several_is_all_said_and_in_order_whoever_it_is_and_however_long():
    async def main():
        long = b"x" * (LONGEST + 1)
        for told in ("abc", "abca", "aab", "aaa"):
            for lengthy in ("", "a", "b", "ab"):
                book, outbox = [], Outbox()
                peers = {name: Told(name, book, outbox) for name in "abc"}
                said = [(name, b"%d" % at + long * (name in lengthy)) for at, name in enumerate(told)]
                outbox.write_all([(peers[name], data) for name, data in said])
                for name in "abc":
                    heard = b"".join(data for who, data in book if who == name)
                    assert heard == b"".join(data for who, data in said if who == name)
                assert not outbox.letters

    play(main())


def test_what_is_told_to_several_goes_out_behind_what_waits():
    async def main():
        anna, bert, carl = (Told(name, book, outbox) for name in ("anna", "bert", "carl"))
        anna.transport.write(b"1")
        outbox.write_all([(anna, b"2"), (bert, b"3"), (carl, b"4")])
        assert book == [("anna", b"12"), ("bert", b"3"), ("carl", b"4")]
        outbox.write_all([(anna, b"5")])
        await asyncio.sleep(0)
        assert book[3:] == [("anna", b"5")]

    book, outbox = [], Outbox()
    play(main())


# With sockets and a ring.


class Peer(asyncio.Protocol):
    """One of many, on a real socket; what it is told is read at its other end."""

    def __init__(self, crowd):
        self.crowd = crowd
        self.is_choked = self.is_lost = False

    def connection_made(self, transport):
        self.plain = transport
        self.wire = Wire(transport, self.crowd)

    def pause_writing(self):
        self.is_choked = True

    def resume_writing(self):
        self.is_choked = False

    def connection_lost(self, error):
        self.is_lost = True


class Rings:
    """A ring that counts what goes through it."""

    def __init__(self):
        self.sent, self.is_broken, self.calls = 0, False, 0
        self._ring = open_ring()

    @property
    def room(self):
        return self._ring.room

    def send(self, sockets, letters):
        self.calls += 1
        self.sent += len(letters)
        return self._ring.send(sockets, letters)


warnings = []


def connect(kind):
    if kind is socket.AF_UNIX:
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]


@contextlib.asynccontextmanager
async def hall(count, *, kind=socket.AF_UNIX, ring=None):
    outbox, loop = Outbox(ring, warnings.append), asyncio.get_running_loop()
    peers, ends = [], []
    open_connection = loop.create_unix_connection if kind is socket.AF_UNIX else loop.create_connection
    for _ in range(count):
        ours, theirs = connect(kind)
        theirs.setblocking(False)
        _, peer = await open_connection(lambda: Peer(Crowd(range(CROWD), CROWD, outbox)), sock=ours)
        peers.append(peer)
        ends.append(theirs)
    try:
        yield outbox, peers, ends
    finally:
        for peer, end in zip(peers, ends, strict=True):
            peer.plain.abort()
            end.close()
        await asyncio.sleep(0)


def read(end):
    heard = b""
    with contextlib.suppress(OSError):
        while more := end.recv(1 << 20):
            heard += more
    return heard


def run(main):
    warnings.clear()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@ringed
@pytest.mark.parametrize("count", [FEWEST, 50, 2 * MOST + 5])
def test_all_letters_of_a_turn_go_through_the_ring(count):
    async def main():
        ring = Rings()
        async with hall(count, ring=ring) as (outbox, peers, ends):
            for turn in range(3):
                for number, peer in enumerate(peers):
                    peer.wire.write(b"%d of " % turn)
                    peer.wire.write(b"%d" % number)
                assert not outbox.letters or len(outbox.letters) == count
                await asyncio.sleep(0)
                assert [read(end) for end in ends] == [b"%d of %d" % (turn, number) for number in range(count)]
            assert ring.sent == 3 * (count - count % MOST * (count % MOST < FEWEST))
            assert ring.calls == 3 * -(-count // MOST)

    run(main)


@ringed
def test_few_letters_do_without():
    async def main():
        ring = Rings()
        async with hall(FEWEST - 1, ring=ring) as (_, peers, ends):
            for peer in peers:
                peer.wire.write(b"x")
            await asyncio.sleep(0)
            assert [read(end) for end in ends] == [b"x"] * (FEWEST - 1)
            assert not ring.calls

    run(main)


@ringed
def test_long_ones_and_those_of_who_does_not_read_go_another_way_and_stay_in_order():
    async def main():
        ring = Rings()
        async with hall(5, ring=ring) as (_, peers, ends):
            told = [b""] * 5
            for turn in range(200):
                for number, peer in enumerate(peers):
                    data = bytes([65 + number]) * (LONGEST + 1 if number == turn % 5 else 2_000) + b"%d" % turn
                    told[number] += data
                    peer.wire.write(data)
                await asyncio.sleep(0)
                if turn > 150:
                    heard = [read(end) for end in ends]
                    assert all(ours.startswith(theirs) for ours, theirs in zip(told, heard, strict=True))
                    told = [ours[len(theirs) :] for ours, theirs in zip(told, heard, strict=True)]
            for _ in range(200):
                await asyncio.sleep(0.001)
                told = [ours.removeprefix(read(end)) for ours, end in zip(told, ends, strict=True)]
            assert told == [b""] * 5
            assert ring.sent > 100

    run(main)


@ringed
def test_who_takes_a_part_is_told_the_rest_later_and_hears_of_no_more():
    async def main():
        async with hall(4, ring=OPENED) as (_, peers, ends):
            slow = peers[0]
            count = 0
            while not slow.is_choked:
                for peer in peers:
                    peer.wire.write(b"%05d" % count * 800)
                count += 1
                await asyncio.sleep(0)
                for end in ends[1:]:
                    assert read(end) == b"%05d" % (count - 1) * 800
            heard = b""
            while slow.is_choked or len(heard) < count * 4_000:
                heard += read(ends[0])
                await asyncio.sleep(0)
            assert heard == b"".join(b"%05d" % number * 800 for number in range(count))

    run(main)


@ringed
def test_a_descriptor_of_who_has_gone_is_never_written_to():
    """It is somebody else's at once: the kernel gives out the lowest number that is free."""

    async def main():
        async with hall(4, ring=OPENED) as (_, peers, ends):
            gone = peers[1]
            for peer in peers:
                peer.wire.write(b"a ")
            await asyncio.sleep(0)
            for peer in peers:
                peer.wire.write(b"secret")
            gone.plain.abort()
            await asyncio.sleep(0)
            for peer in peers:
                peer.wire.write(b" more")
            while not gone.is_lost:
                await asyncio.sleep(0)
            with contextlib.ExitStack() as stack:
                strangers = [stack.enter_context(end) for _ in range(3) for end in socket.socketpair()]
                assert gone.wire.socket in [end.fileno() for end in strangers]
                for _ in range(3):
                    for peer in peers:
                        peer.wire.write(b"!")
                    await asyncio.sleep(0)
                for end in strangers:
                    end.setblocking(False)
                assert [read(end) for end in strangers] == [b""] * 6
            assert [read(end) for end in ends[:1] + ends[2:]] == [b"a secret more!!!"] * 3

    run(main)


@ringed
@pytest.mark.parametrize("kind", [socket.AF_UNIX, socket.AF_INET])
def test_who_hangs_up_is_lost_and_troubles_nobody(kind):
    async def main():
        async with hall(4, kind=kind, ring=OPENED) as (_, peers, ends):
            ends[2].close()
            for turn in range(3):
                for peer in peers:
                    peer.wire.write(b"%d" % turn)
                await asyncio.sleep(0)
            assert peers[2].is_lost
            assert [read(end) for end in (ends[0], ends[1], ends[3])] == [b"012"] * 3

    run(main)


@ringed
def test_a_ring_that_fails_is_done_without():
    class Broken(Rings):
        def send(self, sockets, letters):
            self._ring.send(sockets[:1], letters[:1])
            self.is_broken = True
            return [len(letters[0])] + [-11] * (len(letters) - 1)

    async def main():
        async with hall(5, ring=Broken()) as (outbox, peers, ends):
            for _ in range(2):
                for peer in peers:
                    peer.wire.write(b"told")
                await asyncio.sleep(0)
            assert [read(end) for end in ends] == [b"toldtold"] * 5
            assert outbox.ring is None
            assert warnings == ["io_uring: it failed; from here on each peer has a system call of his own"]

    run(main)


@ringed
def test_where_nobody_knows_what_has_been_sent_nothing_is_said_twice():
    class Silent(Rings):
        def send(self, sockets, letters):
            self._ring.send(sockets[:2], letters[:2])
            self.is_broken = True
            raise OSError(5, "io_uring does not answer")

    async def main():
        async with hall(5, ring=Silent()) as (outbox, peers, ends):
            for _ in range(2):
                for peer in peers[:4]:
                    peer.wire.write(b"once")
                await asyncio.sleep(0)
            peers[4].wire.write(b"alive")
            await asyncio.sleep(0.01)
            assert [read(end) for end in ends] == [b"once"] * 2 + [b""] * 2 + [b"alive"]
            assert [peer.is_lost for peer in peers] == [True] * 4 + [False]
            assert outbox.ring is None

    run(main)


def test_who_cannot_be_written_to_takes_nobody_elses_letter_along():
    class Closed(Ear):
        def write(self, data):
            raise RuntimeError("Cannot call write() after write_eof()")

    async def main():
        book, outbox, failures = [], Outbox(), []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))
        for name, kind in (("anna", Ear), ("closed", Closed), ("bert", Ear), ("again", Closed), ("carl", Ear)):
            kind(name, book, outbox).say(b"1")
        for _ in range(3):
            await asyncio.sleep(0)
        assert book == [("anna", b"1"), ("bert", b"1"), ("carl", b"1")]
        assert len(failures) == 2
        Ear("anna", book, outbox).say(b"2")
        await asyncio.sleep(0)
        assert book[3:] == [("anna", b"2")]

    play(main())


SAY, TURN, READ, HANG_UP, CLOSE, ABORT = range(6)
ACTS = st.tuples(
    st.sampled_from([SAY, SAY, SAY, TURN, READ, HANG_UP, CLOSE, ABORT]), st.integers(0, 5), st.integers(1, 9_000)
)


class Program:
    """Six peers, what each was told, and what he has heard of it."""

    def __init__(self, peers, ends):
        self.peers, self.ends = peers, ends
        self.told, self.heard = [b""] * 6, [b""] * 6
        self.gone, self.deaf = set(), set()

    async def do(self, act, number, size):
        peer, end = self.peers[number], self.ends[number]
        if act == TURN:
            await asyncio.sleep(0)
        elif act == READ:
            self.heard[number] += read(end)
        elif act == SAY and number not in self.gone:
            data = b"%d:%d " % (number, len(self.told[number])) * (1 + size // 8)
            self.told[number] += data
            peer.wire.write(data)
        elif act == HANG_UP and number not in self.gone:
            end.close()
            self.gone.add(number)
            self.deaf.add(number)
        elif act in (CLOSE, ABORT) and number not in self.gone:
            (peer.wire.close if act == CLOSE else peer.wire.abort)()
            self.gone.add(number)
            self.deaf |= {number} if act == ABORT else set()

    async def check(self):
        for _ in range(1_000):
            self.heard = [heard + read(end) for heard, end in zip(self.heard, self.ends, strict=True)]
            late = [
                number for number in range(6) if number not in self.deaf and self.heard[number] != self.told[number]
            ]
            if not late:
                break
            await asyncio.sleep(0)
        assert late == []
        assert all(told.startswith(heard) for told, heard in zip(self.told, self.heard, strict=True))


@ringed
@given(st.lists(ACTS, max_size=80))
@settings(deadline=None)
def test_whatever_is_told_is_heard_by_him_alone_and_in_order(acts):
    async def main():
        async with hall(6, ring=OPENED) as (_, peers, ends):
            program = Program(peers, ends)
            for act in acts:
                await program.do(*act)
            await program.check()

    run(main)


def test_what_is_encrypted_is_nothing_for_a_ring():
    book = []
    assert Ear("anna", book, Outbox()).wire.find_socket() < 0


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
    assert play.world.pool.crowd.least == AT_WORK


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


def test_who_does_not_read_holds_his_server_before_the_turn_is_over(monkeypatch):
    monkeypatch.setattr("proxy.pool.AT_WORK", 0)
    play = Play(is_slow=True) >> client("Q:rows") >> server("T " + ("D:" + "x" * 1000 + " ") * 20)

    def stream(play):
        for _ in range(200):
            if play.server_socket.reads:
                server(("D:" + "x" * 1000 + " ") * 20)(play)
        assert not play.server_socket.reads

    play >> stream
    assert len(play.client_socket.unsent) < 1_000_000


def test_who_does_not_read_holds_up_nobody_but_himself(monkeypatch):
    monkeypatch.setattr("proxy.pool.AT_WORK", 0)
    slow = Play(is_slow=True) >> client("Q:select_1") >> server(ANSWER) << released
    assert bytes(slow.client_socket.unsent) == said(ANSWER)
    slow >> another_client >> client("Q:select_2") >> server(ANSWER) << to_client(ANSWER)
