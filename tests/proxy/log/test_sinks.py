"""Where lines go: syslog as libc sends it, and what happens when it is away or slow. (Files: test_voice.py.)"""

import os
import re
import socket

import pytest

from proxy.log.lines import Level
from proxy.log.sinks import FACILITIES, SyslogSink, find_trouble


def listen(path):
    daemon = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    daemon.bind(path)
    daemon.settimeout(5)
    return daemon


@pytest.fixture(name="path")
def _path(tmp_path):
    return str(tmp_path / "log")


def said(sink, text, level=Level.LOG):
    sink.write(sink.build(level, text))


def test_a_datagram_is_what_libc_would_send(path):
    with listen(path) as daemon:
        sink = SyslogSink("daemon", "pgbouncer", path)
        said(sink, "process up")
        line = daemon.recv(1000).decode()
        sink.close()
    assert re.fullmatch(rf"<30>[A-Z][a-z]{{2}} [ 1-3]\d \d\d:\d\d:\d\d pgbouncer\[{os.getpid()}\]: process up", line)


@pytest.mark.parametrize(
    ("facility", "level", "priority"),
    [
        ("daemon", Level.FATAL, 26), ("daemon", Level.ERROR, 27), ("daemon", Level.WARNING, 28),
        ("local0", Level.LOG, 134), ("local7", Level.DEBUG, 191), ("user", Level.NOISE, 15),
    ],
)  # fmt: skip
def test_the_priority_is_facility_and_severity(path, facility, level, priority):
    assert SyslogSink(facility, "x", path).build(level, "y").startswith(b"<%d>" % priority)


def test_there_are_the_facilities_of_syslog():
    assert {"daemon", "user", "auth", "authpriv", *(f"local{number}" for number in range(8))} <= set(FACILITIES)


def test_a_daemon_that_is_not_there_costs_lines_and_is_found_when_it_comes(path):
    sink = SyslogSink("daemon", "x", path)
    said(sink, "lost")
    said(sink, "lost")
    assert (sink.lost, sink.reason) == (2, "No such file or directory")
    with listen(path) as daemon:
        said(sink, "heard")
        assert daemon.recv(1000).endswith(b"heard")
    sink.close()


def test_a_daemon_that_was_restarted_loses_nothing(path):
    sink = SyslogSink("daemon", "x", path)
    with listen(path) as daemon:
        said(sink, "first")
        assert daemon.recv(1000).endswith(b"first")
    os.unlink(path)
    with listen(path) as daemon:
        said(sink, "second")
        assert daemon.recv(1000).endswith(b"second")
    assert sink.lost == 0
    sink.close()


def test_a_daemon_that_does_not_read_does_not_stop_us(path):
    with listen(path):
        sink = SyslogSink("daemon", "x", path)
        for _ in range(2000):  # far more than its queue holds
            said(sink, "x" * 100)
        assert 0 < sink.lost < 2000
        assert sink.reason == "Resource temporarily unavailable"
        sink.close()


def test_reopening_and_closing_are_safe_at_any_time(path):
    sink = SyslogSink("daemon", "x", path)
    sink.reopen()
    sink.close()
    sink.close()


def test_a_file_that_can_be_written_or_made_is_no_trouble(tmp_path):
    there = tmp_path / "log"
    assert find_trouble(str(there)) == ""
    assert not there.exists(), "nothing is made"
    there.write_text("a line\n")
    assert find_trouble(str(there)) == ""
    assert there.read_text() == "a line\n"


def test_what_stands_in_the_way_of_a_file_is_said(tmp_path, monkeypatch):
    assert find_trouble(str(tmp_path)) == "Is a directory"
    assert find_trouble(str(tmp_path / "no" / "log")) == f"there is no folder {tmp_path}/no"
    monkeypatch.setattr(os, "access", lambda folder, wanted: False)  # root may everything
    assert find_trouble(str(tmp_path / "log")) == f"no file can be made in {tmp_path}"
