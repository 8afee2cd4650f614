"""
Many sends with one system call: as little of io_uring(7) as that takes.

Theory. A write that wakes somebody who sleeps has two prices: a system call, and often our processor, which the one who
wakes takes in the middle of our work, to sleep again a moment later until the next write. What is sent with one call
wakes everybody too, but the kernel looks for who is to run only when the call is over: by then all have got theirs, and
who reads several connections reads them in one go. With 64 clients that halves the time our sends take.

All is over when `send` returns. Each send is told not to wait (MSG_DONTWAIT), so the kernel answers it in the call that
brings it: it takes the bytes, or as many as there is room for, or says why not. Between two calls it has nothing of
ours, neither memory nor the number of a descriptor, which might be somebody else's by then. A ring that has not done
exactly what it was told is closed and never used again (`is_broken`): what it did not send the caller sends himself.

Opening one fails (OSError) where the kernel has none, or may not let us have it: before Linux 5.6, where
kernel.io_uring_disabled says so, and in most containers. Who has no ring writes one by one, and that is all.

docs: io_uring_setup(2), io_uring_enter(2); the layout is that of linux/io_uring.h.
"""

import ctypes
import errno
import mmap
import os
import socket
from collections.abc import Sequence
from struct import Struct
from typing import Any, Final, NamedTuple

MOST: Final = 256  # sends in one call; a power of two
LONGEST: Final = 4096  # bytes of one; the kernel would need more than one piece of memory for more

_SETUP: Final = 425  # system calls; their numbers are the same on all of today's processors
_ENTER: Final = 426
_SEND: Final = 26  # IORING_OP_SEND
_WAIT: Final = 1  # IORING_ENTER_GETEVENTS: come back with so many answers
_AT_SUBMISSIONS: Final = 0x10000000  # IORING_OFF_SQES
_IN_ONE_PIECE: Final = 1  # IORING_FEAT_SINGLE_MMAP
_FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_NOTHING: Final = -errno.EAGAIN  # nothing has been taken

_parameters = Struct("=7I12x7I12x6I16x")  # of io_uring_setup: three tables
_submission = Struct("=BBHiQQIIQ24x")  # what, flags, priority, descriptor, -, address, length, flags, number
_varying = Struct("=iQQI")  # of that: descriptor, -, address, length
_AT_VARYING: Final = 4
_SIZE: Final = 64


class _Trial(NamedTuple):
    socket: int


class Ring:
    """One ring, for the thread that opened it."""

    def __init__(self) -> None:
        call = ctypes.PyDLL(None, use_errno=True).syscall
        call.restype = ctypes.c_long
        said = bytearray(_parameters.size)
        self._call = call
        self._file = int(call(_SETUP, MOST, (ctypes.c_char * len(said)).from_buffer(said)))
        if self._file < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            self._map(_parameters.unpack(said))
            self._try_out()
        except BaseException:
            self.close()
            raise

    def _map(self, said: tuple[int, ...]) -> None:
        submissions, answers, _, _, _, features, _ = said[:7]
        _, tail, _, _, _, _, numbers, head, end, _, _, _, first = said[7:20]
        if not features & _IN_ONE_PIECE:
            raise OSError(errno.ENOSYS, "io_uring is too old here")
        size = max(numbers + submissions * 4, first + answers * 16)
        rings = mmap.mmap(self._file, size)
        self._entries = mmap.mmap(self._file, submissions * _SIZE, offset=_AT_SUBMISSIONS)
        self._words = memoryview(rings).cast("I")
        self._numbers = memoryview(rings).cast("Q")
        self._results = memoryview(rings).cast("i")
        for number in range(submissions):
            self._words[numbers // 4 + number] = number
            _submission.pack_into(self._entries, number * _SIZE, _SEND, 0, 0, -1, 0, 0, 0, _FLAGS, number)
        self._head, self._end, self._tail = head // 4, end // 4, tail // 4
        self._first = first // 16
        self._last_answer, self._last = answers - 1, submissions - 1
        self._stage = bytearray(MOST * LONGEST)  # the bytes of a call
        self._pin = ctypes.c_char.from_buffer(self._stage)  # as long as this lives, they stay where they are
        self._address = ctypes.addressof(self._pin)
        self._sent = 0  # ever, as the kernel counts

    def _try_out(self) -> None:
        """It may be there and not know how to send."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            taken = self.send([(_Trial(ours.fileno()), b"ab"), (_Trial(theirs.fileno()), b"c")])
            if taken or ours.recv(4, socket.MSG_DONTWAIT) + theirs.recv(4, socket.MSG_DONTWAIT) != b"cab":
                raise OSError(errno.EOPNOTSUPP, "io_uring does not send here")

    @property
    def is_broken(self) -> bool:
        return self._file < 0

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def send(self, batch: Sequence[tuple[Any, bytes]]) -> list[int]:
        """To the `socket` of each its bytes, in order; at most `MOST`, each of at most `LONGEST`. Empty: all have taken
        all. Else how many bytes each has taken; below 0: none, and -errno says why."""
        entries, stage, address, last, pack = self._entries, self._stage, self._address, self._last, _varying.pack_into
        number, pos = self._sent, 0
        for to, data in batch:
            end = pos + len(data)
            stage[pos:end] = data
            pack(entries, (number & last) * _SIZE + _AT_VARYING, to.socket, 0, address + pos, end - pos)
            number += 1
            pos = end
        return self._submit(len(batch), pos)

    def _submit(self, count: int, size: int) -> list[int]:
        """`count` sends, of `size` bytes together, are in their places."""
        first = self._sent
        self._sent = self._words[self._tail] = first + count & 0xFFFFFFFF
        done = self._enter(count, count)
        while self._answered() < done:  # a signal has come in between
            self._enter(0, done - self._answered())
        if done == count and self._have_taken(count, size):
            return []
        taken = [_NOTHING] * count
        self._collect(taken, first, max(done, 0))
        if done != count:
            self.close()
        return taken if sum(taken) != size else []

    def _have_taken(self, count: int, size: int) -> bool:
        """The usual case: `count` answers, all behind one another, which come to `size` bytes."""
        words = self._words
        head = words[self._head]
        at = 4 * (self._first + (head & self._last_answer)) + 2
        if at + 4 * count > len(self._results) or sum(self._results[at : at + 4 * count : 4]) != size:
            return False
        words[self._head] = head + count & 0xFFFFFFFF
        return True

    def _enter(self, count: int, answers: int) -> int:
        while True:
            done = int(self._call(_ENTER, self._file, count, answers, _WAIT, None, 0))
            if done >= 0 or ctypes.get_errno() != errno.EINTR:
                return done

    def _answered(self) -> int:
        return self._words[self._end] - self._words[self._head] & 0xFFFFFFFF

    def _collect(self, taken: list[int], first: int, count: int) -> None:
        words, numbers, results = self._words, self._numbers, self._results
        head, start, last, last_answer = words[self._head], self._first, self._last, self._last_answer
        for at in range(head, head + count):
            answer = start + (at & last_answer)
            taken[numbers[2 * answer] - first & last] = results[4 * answer + 2]
        words[self._head] = head + count & 0xFFFFFFFF


def open_ring() -> Ring | str:
    """One, or why there is none."""
    try:
        return Ring()
    except OSError as error:
        return error.strerror or str(error)
