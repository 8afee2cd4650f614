"""Who repeats the proof was given a descriptor by the kernel; nobody is kept waiting by it, and nothing stays open."""

import errno
import os

import pytest

from proxy import proof
from proxy.courier import Broken
from proxy.proof import SIZE, borrow_proof, is_proven, lend_all
from tests.succession import open_descriptors


def a_pipe(said, *, is_closed=True):
    reading, writing = os.pipe()
    os.write(writing, said)
    if is_closed:
        os.close(writing)
    return reading, writing


def test_who_gets_the_descriptor_can_repeat_what_nobody_could_guess():
    before = open_descriptors()
    expected, (pipe,) = lend_all([])
    assert os.get_inheritable(pipe) is False
    assert len(bytes.fromhex(expected)) == SIZE
    assert is_proven(expected, borrow_proof(pipe))
    again, (other,) = lend_all([])
    assert again != expected
    assert not is_proven(expected, borrow_proof(other))
    assert open_descriptors() == before


@pytest.mark.parametrize("answer", [None, "", 7, True, [], "0" * 2 * SIZE, "ab" * (SIZE - 1), "\udcff" * 2 * SIZE, "é"])
def test_whatever_else_is_answered_proves_nothing(answer):
    assert not is_proven("ab" * SIZE, answer)


@pytest.mark.parametrize("said", [b"", b"x" * (SIZE - 1), b"x" * (SIZE + 1), b"x" * 5000])
def test_a_pipe_with_anything_else_in_it_is_no_proof_and_is_closed(said):
    before = open_descriptors()
    with pytest.raises(Broken, match="proof"):
        borrow_proof(a_pipe(said)[0])
    assert open_descriptors() == before


def test_a_pipe_that_somebody_may_still_fill_is_not_waited_for():
    reading, writing = a_pipe(b"", is_closed=False)
    with pytest.raises(BlockingIOError):
        borrow_proof(reading)
    with pytest.raises(BrokenPipeError):
        os.write(writing, b"too late")
    os.close(writing)


def test_what_is_no_pipe_is_not_read(tmp_path):
    before = open_descriptors()
    (tmp_path / "file").write_bytes(b"x" * SIZE)
    with pytest.raises(Broken, match="no pipe"):
        borrow_proof(os.open(tmp_path / "file", os.O_RDONLY))
    assert open_descriptors() == before


@pytest.mark.parametrize("name", ["dup", "pipe", "write"])
def test_without_a_descriptor_left_none_stays_open(monkeypatch, name):
    def fail(*_):
        raise OSError(errno.EMFILE, "too many open files")

    before = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(proof.os, name, fail)
        with pytest.raises(OSError, match="too many"):
            lend_all([0])
    assert open_descriptors() == before
