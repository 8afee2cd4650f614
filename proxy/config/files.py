"""
Reading a file that an operator named: all of its bytes, or half a sentence why there are none.

Theory. A name in a configuration may lead anywhere: to a folder, to a FIFO that nobody writes into, to /dev/zero, to a
file of another kind that fills the memory. So a file is opened without waiting, looked at before it is read, and read
up to a limit. Other devices than files are taken too (/dev/null is an empty file), but within the same limit.
"""

import os
import stat

_KINDS = {
    stat.S_IFDIR: "is a folder, not a file",
    stat.S_IFIFO: "is a FIFO, not a file",
    stat.S_IFSOCK: "is a socket, not a file",
    stat.S_IFBLK: "is a disk, not a file",
}


def read_bytes(path: str, limit: int) -> bytes:
    """What is in the file at `path`, at most `limit` bytes. ValueError says in half a sentence why there is nothing."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            data = _read_up_to(number, limit + 1)
        finally:
            os.close(number)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None
    if len(data) > limit:
        raise ValueError(f"is larger than {limit >> 20} MB" if limit >> 20 else f"is larger than {limit} bytes")
    return data


def identify(path: str) -> tuple[int, ...]:
    """What tells one state of a file from another without reading it; () when there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns, found.st_size


def _read_up_to(number: int, count: int) -> bytes:
    sentence = _KINDS.get(stat.S_IFMT(os.fstat(number).st_mode))
    if sentence is not None:
        raise ValueError(sentence)
    parts: list[bytes] = []
    while count > 0 and (part := os.read(number, min(count, 1 << 20))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
