"""Messages and descriptors from one process to the next: whole, in order, bounded; and what counts as told."""

import asyncio
import os
import socket

import pytest

from proxy.courier import (
    MAX_ANSWER,
    MAX_BODY,
    Broken,
    Courier,
    Frame,
    Kind,
    Reader,
    build_frame,
    close_all,
    copy_all,
    number_in,
    peer_of,
    wait_frame,
)


def a_pair():
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


class End:
    """One end of a line, and what was heard there."""

    def __init__(self, line):
        self.line = line
        self.heard = []
        self.lost = []
        self.courier = Courier(line, Reader(), self.heard.append, self.lost.append)

    @property
    def kinds(self):
        return [frame.kind for frame in self.heard]


def with_two_ends(test):
    async def main():
        one, two = a_pair()
        ends = End(one), End(two)
        try:
            await asyncio.wait_for(test(*ends), 10)
        finally:
            for end in ends:
                end.courier.cut("the test is over")

    asyncio.run(main())


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("step", [1, 3, 7, 1000])
def test_messages_are_whole_however_they_are_cut(step):
    frames = [(Kind.READY, {"pid": 7}), (Kind.PULSE, {}), (Kind.CANCEL, {"key": "00ff"})]
    data = b"".join(build_frame(kind, body) for kind, body in frames)
    reader, found = Reader(), []
    for start in range(0, len(data), step):
        reader.feed(data[start : start + step])
        found += reader.frames()
    assert found == [Frame(kind, body, []) for kind, body in frames]


@pytest.mark.parametrize(
    "data",
    [
        b"?" + bytes(4) + b"\0",
        b"R" + bytes(4) + b"\0",
        b"R" + (MAX_BODY + 1).to_bytes(4) + b"\0",
        b"R" + bytes(4) + b"\xff",
        b"R\0\0\0\x02\0[]",
        b"R\0\0\0\x02\0{\xff",
        b"R" + (200_000).to_bytes(4) + b"\0" + b"[" * 200_000,
        build_frame(Kind.CLIENT, {}, 1),  # without its descriptor
    ],
)
def test_what_is_no_message_breaks_the_line(data):
    reader = Reader()
    reader.feed(data)
    with pytest.raises(Broken):
        list(reader.frames())


def test_what_the_new_process_says_may_be_shorter_only():
    reader = Reader(MAX_ANSWER)
    reader.feed(b"." + (MAX_ANSWER + 1).to_bytes(4) + b"\0")
    with pytest.raises(Broken, match="65537 bytes"):
        list(reader.frames())


def test_a_message_that_is_too_large_is_not_built():
    with pytest.raises(ValueError, match="a message of"):
        build_frame(Kind.POOL, {"x": "y" * MAX_BODY})
    with pytest.raises(ValueError, match="descriptors"):
        build_frame(Kind.POOL, {}, 255)


def test_descriptors_come_with_their_message_and_in_order():
    async def test(one, two):
        for number in range(3):
            reading, writing = os.pipe()
            os.write(writing, b"%d" % number)
            os.close(writing)
            one.courier.send(Kind.STATEMENT, {"text": "x" * 300_000})  # so that they are cut in between
            one.courier.send(Kind.CLIENT, {"number": number}, [reading])
        assert one.courier._outbox, "more than the kernel takes at once"
        await until(lambda: len(two.heard) == 6)
        for number, frame in enumerate(two.heard[1::2]):
            assert frame.body == {"number": number}
            (descriptor,) = frame.descriptors
            assert not os.get_inheritable(descriptor)
            assert os.read(descriptor, 10) == b"%d" % number
            os.close(descriptor)

    with_two_ends(test)


def test_a_message_is_told_when_the_kernel_has_all_of_it():
    async def test(one, two):
        two.courier._loop.remove_reader(two.line.fileno())  # it is frozen
        told = []
        one.courier.send(Kind.PULSE, then=lambda: told.append("short"))
        assert told == ["short"], "at once"
        one.courier.send(Kind.POOL, {"x": "y" * 5_000_000}, then=lambda: told.append("long"))
        one.courier.send(Kind.PULSE, then=lambda: told.append("last"))
        await asyncio.sleep(0.01)
        assert told == ["short"]
        two.courier._loop.add_reader(two.line.fileno(), two.courier._read)
        await until(lambda: len(two.heard) == 3)
        assert told == ["short", "long", "last"]

    with_two_ends(test)


def test_what_was_said_before_the_end_is_heard_before_it():
    async def test(one, two):
        one.courier.send(Kind.TAKEN, {"number": 1})
        one.courier.send(Kind.TAKEN, {"number": 2})
        one.line.close()
        await until(lambda: two.lost)
        assert two.kinds == [Kind.TAKEN, Kind.TAKEN]
        assert two.lost == ["it has hung up"]

    with_two_ends(test)


def test_after_a_cut_the_other_side_is_told_nothing_and_knows_it():
    async def test(one, two):
        one.courier.send(Kind.TAKEN, {"number": 1})
        two.courier.cut("it is silent")
        assert two.kinds == [Kind.TAKEN], "this one was said before"
        assert two.lost == ["it is silent"]
        told = []
        one.courier.send(Kind.TAKEN, {"number": 2}, then=lambda: told.append(2))
        await until(lambda: one.lost)
        assert not told
        assert two.kinds == [Kind.TAKEN]

    with_two_ends(test)


def test_who_has_not_read_for_long_hears_that_it_was_cut_off_behind_what_it_has_half_got():
    async def test(one, two):
        two.courier._loop.remove_reader(two.line.fileno())
        one.courier._farewell = Kind.SEVERED
        reading, writing = os.pipe()
        one.courier.send(Kind.STATEMENT, {"text": "x" * 3_000_000})
        one.courier.send(Kind.CLIENT, {"number": 1}, [reading])
        assert len(one.courier._outbox) == 2, "more than the kernel takes at once"
        one.courier.cut("it is silent")
        assert one.lost == ["it is silent"]
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(reading)
        one.courier.send(Kind.PULSE)
        two.courier._loop.add_reader(two.line.fileno(), two.courier._read)
        await until(lambda: two.lost)
        assert two.kinds == [Kind.STATEMENT, Kind.SEVERED]
        assert one.line.fileno() == two.line.fileno() == -1
        os.close(writing)

    with_two_ends(test)


def test_a_last_word_that_nobody_can_hear_is_not_waited_for():
    async def test(one, two):
        one.courier._farewell = Kind.SEVERED
        two.courier.cut("gone")
        await until(lambda: one.lost)
        assert one.line.fileno() == -1

    with_two_ends(test)


def test_descriptors_that_cannot_be_sent_any_more_are_closed():
    async def test(one, two):
        two.courier.cut("gone")
        await until(lambda: one.lost)
        reading, writing = os.pipe()
        one.courier.send(Kind.CLIENT, {}, [reading])
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(reading)
        os.close(writing)

    with_two_ends(test)


def test_nonsense_ends_the_line():
    async def test(one, two):
        one.line.send(b"GET / HTTP/1.1\r\n\r\n")
        await until(lambda: two.lost)
        assert not two.heard

    with_two_ends(test)


def test_before_there_is_a_loop_one_waits_for_a_message():
    one, two = a_pair()
    with one, two:
        one.sendall(build_frame(Kind.READY, {"pid": 1}) + build_frame(Kind.PULSE, {}))
        two.settimeout(5)
        reader = Reader()
        assert wait_frame(two, reader) == Frame(Kind.READY, {"pid": 1}, [])
        assert wait_frame(two, reader).kind is Kind.PULSE
        one.close()
        with pytest.raises(Broken, match="hung up"):
            wait_frame(two, reader)


def test_a_number_that_is_missing_breaks_the_line():
    assert number_in({"number": 5}, "number") == 5
    for body in ({}, {"number": "5"}, {"number": None}):
        with pytest.raises(Broken, match="without its number"):
            number_in(body, "number")


def test_the_kernel_says_who_is_at_the_other_end():
    one, two = a_pair()
    with one, two:
        assert peer_of(one) == (os.getpid(), os.geteuid())


def test_copies_are_all_made_or_none():
    reading, writing = os.pipe()
    copies = copy_all([reading, writing])
    assert len({reading, writing, *copies}) == 4
    close_all(copies)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Bad file"):
        copy_all([reading, 99_999])
    assert len(os.listdir("/proc/self/fd")) == before
    close_all([reading, writing])
