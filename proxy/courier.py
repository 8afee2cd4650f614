"""
Messages and open sockets between two processes of ours, over a Unix socket.

Theory. A message is a head (kind, length of the body, number of descriptors) and a body in JSON: no code travels, so
whoever is at the other end cannot do more than tell us something. The descriptors ride on the first byte of their
message (SCM_RIGHTS); the kernel gives them to the reader with or before that byte, so they are in order, and a message
is whole when its body and its descriptors are there. Everything is bounded before it is kept.

`send` tries at once, and keeps in order what the kernel does not take. `then` is called when the kernel has all of a
message: from there on the other side reads it, whatever becomes of us. That is what handing over is built on.

`cut` ends it in one moment: nothing that the other side sends after it arrives, and everything sent before does. It
hears that we have ended it and have not died, also if it has not read for long: the last word (`farewell`) waits for it
behind what it has half got.
"""

import array
import asyncio
import contextlib
import enum
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from typing import Any, NamedTuple

VERSION = 2  # of the conversation; both sides must have the same
MAX_BODY = 33_554_432  # bytes
MAX_ANSWER = 65_536  # the same, of what the new process says: never more than a name or two
MAX_DESCRIPTORS = 200  # in one message; the kernel takes 253
CHUNK = 65_536
CHUNKS_AT_ONCE = 16  # of one turn of the loop

_HEAD = Struct("!cIB")
_CREDENTIALS = Struct("3i")  # struct ucred: pid, uid, gid
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Kind(enum.Enum):
    """What a message says. The running process sends the upper ones, its heir the lower ones, both the last."""

    REFUSAL = b"n"  # no, and why
    TESTAMENT = b"w"  # what goes over at once: the listening sockets, the pid file, a proof
    POOL = b"p"  # what a pool knows
    SERVERS = b"s"  # how many servers and clients are left here
    STATEMENT = b"t"  # a text that clients have names for
    CLIENT = b"c"  # a client and its socket
    CHANNELS = b"h"  # what clients listen to that are to come
    LETTERS = b"l"  # notifications that a client has not heard yet
    SEVERED = b"x"  # it is all taken back
    DONE = b"d"  # nobody is left here

    READY = b"R"  # it accepts clients, and repeats the proof
    TAKEN = b"T"  # that client is its own
    DECLINED = b"N"  # that client stays where it is, and why
    HEARING = b"H"  # it listens to these channels
    LEAVING = b"L"  # should it vanish, nobody need take its place

    CANCEL = b"K"  # a cancel request, for whoever has that client
    CANCELED = b"k"  # whether anybody has served it
    SCHEMA = b"S"  # statements mean something else now
    PULSE = b"."  # still there


class Frame(NamedTuple):
    """One message. Whoever gets it owns its descriptors."""

    kind: Kind
    body: dict[str, Any]
    descriptors: list[int]


class Broken(Exception):
    """The other side does not speak as it should, or has left."""


def build_frame(kind: Kind, body: dict[str, Any], count: int = 0) -> bytes:
    """The bytes of a message with `count` descriptors. ValueError when it is too large."""
    text = json.dumps(body, separators=(",", ":")).encode()
    if len(text) > MAX_BODY or count > MAX_DESCRIPTORS:
        raise ValueError(f"a message of {len(text)} bytes and {count} descriptors")
    return _HEAD.pack(kind.value, len(text), count) + text


class Reader:
    """Bytes and descriptors to messages, of `max_body` bytes each."""

    __slots__ = ("_descriptors", "_max_body", "_unread")

    def __init__(self, max_body: int = MAX_BODY) -> None:
        self._max_body = max_body
        self._unread = bytearray()
        self._descriptors: list[int] = []

    def feed(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        self._unread += data
        self._descriptors += descriptors

    def frames(self) -> Iterator[Frame]:
        """Those that are whole. Broken when something is none."""
        while len(self._unread) >= _HEAD.size:
            letter, length, count = _HEAD.unpack_from(self._unread)
            if length > self._max_body or count > MAX_DESCRIPTORS:
                raise Broken(f"a message of {length} bytes and {count} descriptors")
            end = _HEAD.size + length
            if len(self._unread) < end:
                return
            if len(self._descriptors) < count:
                raise Broken("descriptors are missing: too many files are open")
            text = bytes(self._unread[_HEAD.size : end])
            del self._unread[:end]
            taken, self._descriptors = self._descriptors[:count], self._descriptors[count:]
            yield _parse(letter, text, taken)

    def close(self) -> None:
        """Nobody wants what is left."""
        close_all(self._descriptors)
        self._descriptors = []


def _parse(letter: bytes, text: bytes, descriptors: list[int]) -> Frame:
    try:
        body = json.loads(text)
        kind = Kind(letter)
    except (ValueError, RecursionError) as error:
        close_all(descriptors)
        raise Broken(f"a message that is none: {error}") from error
    if not isinstance(body, dict):
        close_all(descriptors)
        raise Broken("a message without a body")
    return Frame(kind, body, descriptors)


def close_all(descriptors: Sequence[int]) -> None:
    for each in descriptors:
        with contextlib.suppress(OSError):
            os.close(each)


def copy_all(descriptors: Sequence[int]) -> list[int]:
    """Others of the same files, for `send`; OSError when there are not enough, then none are left."""
    copies: list[int] = []
    try:
        for each in descriptors:
            copies.append(os.dup(each))
    except OSError:
        close_all(copies)
        raise
    return copies


def receive(line: socket.socket, reader: Reader) -> bool:
    """Give `reader` what has come. False: the other side has hung up. OSError as of recvmsg; Broken: no more files."""
    space = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
    data, asides, flags, _ = line.recvmsg(CHUNK, space, _CLOSE_ON_EXEC)
    descriptors = array.array("i")
    for level, kind, aside in asides:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(aside[: len(aside) - len(aside) % descriptors.itemsize])
    for each in descriptors:
        os.set_inheritable(each, False)
    reader.feed(data, list(descriptors))
    if flags & socket.MSG_CTRUNC:
        raise Broken("descriptors were lost on the way: too many files are open")
    return bool(data)


def number_in(body: dict[str, Any], name: str) -> int:
    """The number of that name. Broken when there is none."""
    value = body.get(name)
    if not isinstance(value, int):
        raise Broken(f"a message without its {name}")
    return value


def peer_of(line: socket.socket) -> tuple[int, int]:
    """Process and user at the other end of a Unix socket, as the kernel knows them. OSError where it cannot say.

    Of who has called: who it was then. Of who was called: who began to listen.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        raise OSError("this system does not tell who is at the other end of a Unix socket")
    pid, uid, _ = _CREDENTIALS.unpack(line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, uid


def wait_frame(line: socket.socket, reader: Reader) -> Frame:
    """The next message, before there is an event loop. Broken; TimeoutError after the timeout of `line`."""
    while (frame := next(reader.frames(), None)) is None:
        if not receive(line, reader):
            raise Broken("it has hung up")
    return frame


class _Parcel:
    """What waits to be sent."""

    __slots__ = ("data", "descriptors", "is_begun", "then")

    def __init__(self, data: bytes, descriptors: Sequence[int], then: Callable[[], object] | None) -> None:
        self.data = memoryview(data)
        self.descriptors = descriptors
        self.is_begun = False  # the other side has a part of it
        self.then = then


class Courier:
    """
    One end of the line, in the event loop.

    `hear` gets each message; `lost` is called once, with the reason, when there is nothing more to hear: also by `cut`.
    """

    __slots__ = ("_farewell", "_hear", "_is_over", "_is_writing", "_line", "_loop", "_lost", "_outbox", "_reader")

    def __init__(
        self,
        line: socket.socket,
        reader: Reader,
        hear: Callable[[Frame], object],
        lost: Callable[[str], object],
        farewell: Kind | None = None,
    ) -> None:
        self._line = line
        self._line.setblocking(False)
        self._reader = reader
        self._hear = hear
        self._lost = lost
        self._outbox: deque[_Parcel] = deque()
        self._farewell = farewell
        self._is_over = False  # nothing is heard any more, and nothing said but the last word
        self._is_writing = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(line.fileno(), self._read)
        self._loop.call_soon(self._read_rest)  # what came while there was no loop

    @property
    def is_alive(self) -> bool:
        return not self._is_over and self._line.fileno() >= 0

    # Sending.

    def send(
        self,
        kind: Kind,
        body: dict[str, Any] | None = None,
        descriptors: Sequence[int] = (),
        then: Callable[[], object] | None = None,
    ) -> None:
        """The descriptors are ours from here on, and closed when they are sent. ValueError when it is too large."""
        if not self.is_alive:
            close_all(descriptors)
            return
        try:
            frame = build_frame(kind, body or {}, len(descriptors))
        except ValueError:
            close_all(descriptors)
            raise
        self._outbox.append(_Parcel(frame, descriptors, then))
        if not self._is_writing:
            self._write()

    def _write(self) -> None:
        while self._outbox:
            parcel = self._outbox[0]
            try:
                sent = self._send_some(parcel)
            except (BlockingIOError, InterruptedError):
                self._wait_writable()
                return
            except OSError:
                if self._is_over:
                    self._outbox.clear()
                break  # it has hung up; what it said before that is read first, and then its end
            close_all(parcel.descriptors)
            parcel.descriptors, parcel.is_begun = (), True
            parcel.data = parcel.data[sent:]
            if not parcel.data:
                self._outbox.popleft()
                if parcel.then is not None:
                    parcel.then()
        self._wait_writable(is_over=True)
        if self._is_over:
            self._line.close()

    def _send_some(self, parcel: _Parcel) -> int:
        if not parcel.descriptors:
            return self._line.send(parcel.data)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", parcel.descriptors))
        return self._line.sendmsg([parcel.data], [rights])

    def _wait_writable(self, *, is_over: bool = False) -> None:
        if is_over and self._is_writing:
            self._is_writing = False
            self._loop.remove_writer(self._line.fileno())
        elif not is_over and not self._is_writing:
            self._is_writing = True
            self._loop.add_writer(self._line.fileno(), self._write)

    # Hearing.

    def _read(self) -> None:
        for _ in range(CHUNKS_AT_ONCE):
            if not self._read_some():
                return

    def _read_some(self) -> bool:
        """False: nothing more for now, or for good."""
        if not self.is_alive:
            return False
        try:
            is_open = receive(self._line, self._reader)
            self._read_rest()
        except (BlockingIOError, InterruptedError):
            return False
        except (OSError, Broken) as error:
            self._end(str(error))
            return False
        if not is_open:
            self._end("it has hung up")
        return is_open

    def _read_rest(self) -> None:
        try:
            for frame in self._reader.frames():
                self._hear(frame)
        except Broken as error:
            self._end(str(error))

    # The end.

    def cut(self, why: str) -> None:
        """From this moment on nothing comes in; what was sent before is heard now."""
        if not self.is_alive:
            return
        with contextlib.suppress(OSError, Broken):
            self._line.shutdown(socket.SHUT_RD)
            while not self._is_over and receive(self._line, self._reader):
                self._read_rest()
        self._end(why)

    def _end(self, why: str) -> None:
        if not self.is_alive:
            return
        self._is_over = True
        self._loop.remove_reader(self._line.fileno())
        self._reader.close()
        unsaid, self._outbox = self._outbox, deque()
        for parcel in unsaid:
            parcel.then = None
            if parcel.is_begun and self._farewell is not None:
                self._outbox.append(parcel)
            close_all(parcel.descriptors)
        if self._farewell is not None:
            self._outbox.append(_Parcel(build_frame(self._farewell, {}), (), None))
        self._write()
        self._lost(why)
