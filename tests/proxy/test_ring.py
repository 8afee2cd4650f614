"""What a ring sends arrives, in order, at those it is for; what it does not send it says."""

import contextlib
import ctypes
import errno
import os
import signal
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import ring as module
from proxy.ring import LONGEST, MOST, Ring, open_ring

OPENED = open_ring()
ringed = pytest.mark.skipif(isinstance(OPENED, str), reason=f"this kernel lets us have no io_uring: {OPENED}")
pytestmark = ringed


@pytest.fixture(name="ring")
def _ring():
    ring = Ring()
    yield ring
    ring.close()


@contextlib.contextmanager
def pairs(count):
    """Connected sockets, of which ours do not wait."""
    with contextlib.ExitStack() as stack:
        made = [socket.socketpair() for _ in range(count)]
        for pair in made:
            for end in pair:
                end.setblocking(False)
                stack.enter_context(end)
        yield made


def tell(ring, batch):
    """`batch` in as many calls as it takes. What each has taken of his."""
    taken = []
    while batch:
        some, batch = batch[: ring.room], batch[ring.room :]
        letters = [data for _, data in some]
        numbers = [end if isinstance(end, int) else end.fileno() for end, _ in some]
        taken += ring.send(numbers, letters) or list(map(len, letters))
    return taken


def sizes(batch):
    return [len(data) for _, data in batch]


def read(end):
    with contextlib.suppress(BlockingIOError):
        return end.recv(1 << 20)
    return b""


def test_each_gets_his_own_with_one_call(ring, monkeypatch):
    calls = []
    enter = ring._enter
    monkeypatch.setattr(ring, "_enter", lambda *numbers: calls.append(numbers) or enter(*numbers))
    with pairs(MOST) as made:
        batch = [(ours, b"%d" % number * number) for number, (ours, _) in enumerate(made)]
        assert tell(ring, batch) == sizes(batch)
        assert [read(theirs) for _, theirs in made] == [data for _, data in batch]
    assert calls == [(MOST, MOST)]


def test_two_for_one_arrive_in_order_and_nothing_for_nobody_is_no_harm(ring):
    with pairs(1) as [(ours, theirs)]:
        assert tell(ring, [(ours, b"first"), (ours, b"second")]) == [5, 6]
        assert read(theirs) == b"firstsecond"
        assert tell(ring, []) == []
        assert read(theirs) == b""


@given(st.lists(st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=1, max_size=64)), max_size=9), max_size=99))
def test_whatever_is_sent_arrives_in_order_and_nowhere_else(batches):
    assert isinstance(OPENED, Ring)
    with pairs(4) as made:
        for batch in batches:
            assert tell(OPENED, [(made[number][0], data) for number, data in batch]) == sizes(batch)
        for number, (_, theirs) in enumerate(made):
            assert read(theirs) == b"".join(data for batch in batches for who, data in batch if who == number)


def test_who_does_not_read_has_taken_a_part_or_nothing_and_the_next_one_all(ring):
    with pairs(2) as [(full, slow), (ours, theirs)]:
        batch = [(full, b"x" * LONGEST)] * 99
        sent = 0
        while (taken := tell(ring, batch)) == sizes(batch):
            sent += 99 * LONGEST
        sent += sum(count for count in taken if count > 0)
        assert tell(ring, [*batch[:1], (ours, b"next")]) == [-errno.EAGAIN, 4]
        assert len(read(slow)) == sent
        assert read(theirs) == b"next"


def test_part_of_what_is_sent_is_counted(ring):
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname()) as ours, listener.accept()[0] as theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        sent = 0
        while (taken := tell(ring, [(ours, bytes(range(256)) * 16)])) == [LONGEST]:
            sent += LONGEST
        sent += max(taken[0], 0)
        heard = b""
        while len(heard) < sent:
            heard += read(theirs)
        assert heard == (bytes(range(256)) * (sent // 256 + 1))[:sent]
        assert read(theirs) == b""


def test_who_is_gone_harms_nobody_else(ring):
    with pairs(3) as [(left, gone), (closed, _), (ours, theirs)]:
        gone.close()
        nobodys = closed.fileno()
        closed.close()
        batch = [(left, b"a"), (nobodys, b"b"), (-1, b"c"), (ours, b"d")]
        assert tell(ring, batch) == [-errno.EPIPE, -errno.EBADF, -errno.EBADF, 1]
        assert read(theirs) == b"d"


def test_a_socket_that_waits_is_not_waited_for(ring):
    with pairs(1) as [(ours, _)]:
        ours.setblocking(True)
        while tell(ring, [(ours, b"x" * LONGEST)] * 9)[-1] > 0:
            pass
        assert tell(ring, [(ours, b"x")] * 2) == [-errno.EAGAIN] * 2


def test_a_number_that_is_somebody_elses_now_belongs_to_him(ring):
    """Nothing is remembered of a descriptor between two calls."""
    with pairs(2) as [(first, _), (second, theirs)]:
        number = first.fileno()
        tell(ring, [(number, b"for the first")] * 3)
        os.dup2(second.fileno(), number)
        assert tell(ring, [(number, b"for the second")]) == [14]
        assert read(theirs) == b"for the second"


def test_a_signal_in_between_is_no_reason(ring):
    heard = []
    before = signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        with pairs(8) as made:
            for turn in range(2_000):
                assert tell(ring, [(ours, b"%d" % turn) for ours, _ in made]) == [len(str(turn))] * 8
                assert [read(theirs) for _, theirs in made] == [b"%d" % turn] * 8
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert heard


@pytest.mark.parametrize("done", [-1, 0, 1, 2])
def test_a_ring_that_does_less_than_it_was_told_is_not_used_again(ring, monkeypatch, done):
    """The kernel would send the rest with the next call: so there is none."""
    enter = ring._enter
    monkeypatch.setattr(ring, "_enter", lambda count, answers: enter(done, done) if done > 0 else done)
    with pairs(3) as made:
        taken = tell(ring, [(ours, b"once") for ours, _ in made])
        sent = max(done, 0)
        assert taken == [4] * sent + [-errno.EAGAIN] * (3 - sent)
        assert [read(theirs) for _, theirs in made] == [b"once"] * sent + [b""] * (3 - sent)
    assert ring.is_broken
    ring.close()


def test_more_than_there_is_room_for_is_refused_before_anything_is_sent(ring):
    with pairs(2) as [(ours, theirs), (last, _)]:
        with pytest.raises(BufferError):
            tell(ring, [(ours, b"x")] * 2 + [(last, b"x" * LONGEST * MOST)])
        assert read(theirs) == b""
        assert tell(ring, [(ours, b"y")]) == [1]
        assert read(theirs) == b"y"


def test_why_there_is_none(monkeypatch):
    monkeypatch.setattr(module, "_SETUP", 9_999)
    assert open_ring() == os.strerror(errno.ENOSYS)


def test_a_kernel_that_cannot_send_has_none(monkeypatch):
    monkeypatch.setattr(module, "_SEND", 255)
    before = len(os.listdir("/proc/self/fd"))
    assert open_ring() == "io_uring does not send here"
    assert len(os.listdir("/proc/self/fd")) <= before + 1, "it is closed (its memory goes with the object)"


def test_a_kernel_that_is_too_old_has_none(monkeypatch):
    monkeypatch.setattr(module, "_IN_ONE_PIECE", 1 << 31)
    assert open_ring() == "io_uring is too old here"


def test_no_other_thread_runs_while_it_sends(ring):
    """What is staged is ours until the call is over: the interpreter's lock is not given away."""
    assert ring._call._flags_ & ctypes._FUNCFLAG_PYTHONAPI


def test_a_kernel_that_does_not_answer_leaves_nobody_in_doubt_for_ever(ring, monkeypatch):
    said = [1]
    monkeypatch.setattr(ring, "_enter", lambda count, answers: said.pop() if said else -1)
    with pairs(1) as [(ours, _)], pytest.raises(OSError, match="does not answer"):
        tell(ring, [(ours, b"x")])
    assert ring.is_broken
