"""
Proof that a process itself is at the other end of our Unix socket, and nobody's bytes from elsewhere.

Theory. The kernel's word for the caller's user is a word for who holds the socket. That may be a forwarder (stunnel,
haproxy, socat) which runs as root or as our own user and carries the bytes of strangers. Bytes are all it carries: a
descriptor that rides on them is dropped. So we lend the end of a pipe that holds random bytes, and who can repeat them
has been given that end by the kernel. It is a pipe, which has no name: nobody else can open it.

The pipe is filled and its other end closed before it is lent. So who reads it never waits, finds all of it or is told
that it is none, and nothing is left open by whoever dies on the way.
"""

import os
import secrets
import stat
from collections.abc import Sequence

from proxy.courier import Broken, close_all, copy_all

SIZE = 32  # bytes


def lend_all(descriptors: Sequence[int]) -> tuple[str, list[int]]:
    """What is to be repeated, and for `send` copies of these and the end of a pipe that holds it. OSError: none."""
    copies = copy_all(descriptors)
    try:
        proof, pipe = _fill_pipe()
    except OSError:
        close_all(copies)
        raise
    return proof, [*copies, pipe]


def _fill_pipe() -> tuple[str, int]:
    proof = secrets.token_bytes(SIZE)
    reading, writing = os.pipe()
    try:
        os.write(writing, proof)
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return proof.hex(), reading


def borrow_proof(reading: int) -> str:
    """What that pipe holds; it is closed. Broken when it is no such pipe; OSError when it cannot be read at once."""
    try:
        if not stat.S_ISFIFO(os.fstat(reading).st_mode):
            raise Broken("the proof it lends is no pipe")
        os.set_blocking(reading, False)
        proof = os.read(reading, SIZE + 1)
    finally:
        os.close(reading)
    if len(proof) != SIZE:
        raise Broken(f"the proof it lends has {len(proof)} bytes")
    return proof.hex()


def is_proven(proof: str, answer: object) -> bool:
    """Is that what we lent? In a time that does not tell how much of it is."""
    return isinstance(answer, str) and secrets.compare_digest(proof.encode(), answer.encode(errors="replace"))
