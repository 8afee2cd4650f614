"""Reading what an operator named, wherever the name leads."""

import os
import socket
from pathlib import Path

import pytest

from proxy.config.files import identify, read_bytes


def why_not(path: str, limit: int = 1 << 20) -> str:
    with pytest.raises(ValueError, match=r".") as refusal:
        read_bytes(path, limit)
    return str(refusal.value)


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "a").write_bytes(data)
    assert read_bytes(str(tmp_path / "a"), len(data)) == data
    assert read_bytes("/dev/null", 10) == b""


def test_what_is_no_file_is_named_and_nobody_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "door"))
        assert why_not(str(tmp_path)) == "is a folder, not a file"
        assert why_not(str(tmp_path / "fifo")) == "is a FIFO, not a file"
        assert why_not(str(tmp_path / "door")).startswith("cannot be read: ")
    assert why_not(str(tmp_path / "none")) == "cannot be read: No such file or directory"
    assert why_not("a\0b") == "embedded null byte"


def test_nothing_is_read_beyond_the_limit(tmp_path: Path) -> None:
    assert why_not("/dev/zero", 5 << 20) == "is larger than 5 MB"
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bytes(str(tmp_path / "a"), 5) == b"12345"
    assert why_not(str(tmp_path / "a"), 4) == "is larger than 4 bytes"


def test_a_file_that_was_written_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert identify(str(path)) == ()
    path.write_text("one")
    first = identify(str(path))
    assert identify(str(path)) == first
    path.write_text("two")
    os.utime(path, ns=(0, 1))
    second = identify(str(path))
    assert second != first
    (tmp_path / "b").write_text("two")
    os.utime(tmp_path / "b", ns=(0, 1))
    os.replace(tmp_path / "b", path)
    assert identify(str(path)) != second
