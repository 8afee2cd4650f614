"""What the log writes, what it refuses to write, and that it never fails."""

import json
import os
import re
import socket

import pytest

from proxy.log import DEBUG, ERROR, LOG, NOISE, Address, Destination, Format, Log, Tag, printable, sinks
from proxy.log import lines as looks
from proxy.log.sinks import SyslogSink

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \S+ \[\d+\] (FATAL|ERROR|WARNING|LOG|DEBUG|NOISE) .*")


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "proxy.log")


@pytest.fixture
def log(path):
    log = Log(path, quiet=True)
    yield log
    log.close()


def lines(path):
    with open(path, encoding="utf-8") as file:
        return file.read().splitlines()


def texts(path):
    return [line.split("] ", 1)[1] for line in lines(path)]


def test_a_line_has_the_format_that_pgbouncers_readers_expect(path):
    log = Log(path, quiet=True, wall=lambda: 1770000000.0625)
    log.log("process up")
    log.close()
    (line,) = lines(path)
    assert LINE.fullmatch(line)
    assert ".062 " in line
    assert line.endswith(f" [{os.getpid()}] LOG process up")


def test_a_line_is_in_the_file_before_the_call_returns(log, path):
    log.warning("now")
    assert texts(path) == ["WARNING now"]


def test_each_level_has_its_word(log, path):
    log.level = NOISE
    for say in (log.fatal, log.error, log.warning, log.log, log.debug, log.noise):
        say("x")
    assert texts(path) == ["FATAL x", "ERROR x", "WARNING x", "LOG x", "DEBUG x", "NOISE x"]


def test_what_matters_less_than_the_level_is_not_written(log, path):
    log.debug("unseen")
    log.level = ERROR
    log.log("unseen")
    log.error("seen")
    log.level = DEBUG
    log.debug("seen")
    log.noise("unseen")
    assert texts(path) == ["ERROR seen", "DEBUG seen"]


def test_the_stamp_follows_the_clock_from_second_to_second(path):
    moments = iter([1770000000.999, 1770000001.0])
    log = Log(path, LOG, quiet=True, wall=lambda: next(moments))
    log.log("a")
    log.log("b")
    log.close()
    first, second = lines(path)
    assert first[:19] < second[:19]


def test_a_socket_s_lines_begin_with_its_tag_asked_anew_each_time(log, path):
    state = {"user": "(nouser)"}
    voice = log.for_socket(lambda: f"C-0x55: shop/{state['user']}@10.0.0.7:5")
    voice.log("login attempt")
    state["user"] = "web"
    voice.error("closing")
    log.for_socket("S-0x66: fixed").log("hello")
    assert texts(path) == [
        "LOG C-0x55: shop/(nouser)@10.0.0.7:5 login attempt",
        "ERROR C-0x55: shop/web@10.0.0.7:5 closing",
        "LOG S-0x66: fixed hello",
    ]


def test_a_tag_is_not_even_made_for_a_line_that_is_not_written(log):
    def tag():
        raise AssertionError("nobody should ask")

    log.for_socket(tag).debug("unseen")


def test_a_long_name_in_a_tag_does_not_crowd_out_the_text(log, path):
    log.for_socket("u" * 10_000).log("what happened")
    assert texts(path)[0].endswith("uuu what happened")
    assert len(lines(path)[0]) < 400


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("user\n2026-01-01 00:00:00.000 UTC [1] LOG forged", "user\\n2026-01-01 00:00:00.000 UTC [1] LOG forged"),
        ("a\r\tb\0", "a\\r\\tb\\x00"),
        ("\x1b[2Jcleared", "\\x1b[2Jcleared"),
        ("\u2028new line", "\\u2028new line"),
        ("\u202eturned", "\\u202eturned"),
        ("\x85\x9b", "\\x85\\x9b"),
        ("\udcff", "\\udcff"),
        ("naïve 日本 stays", "naïve 日本 stays"),
    ],
)
def test_a_client_cannot_forge_a_line(log, path, hostile, shown):
    log.log(hostile)
    assert texts(path) == [f"LOG {shown}"]


def test_a_text_without_end_is_capped_and_its_size_told():
    shown = printable("\n" * 1_000_000)
    assert len(shown) < looks.TEXT_LIMIT + 50
    assert shown.endswith("... (1000000 characters)")
    assert printable("x" * looks.TEXT_LIMIT) == "x" * looks.TEXT_LIMIT


def test_after_a_rotation_lines_go_to_the_new_file(log, path):
    log.log("old")
    os.rename(path, path + ".1")
    log.log("still old")
    log.reopen()
    log.log("new")
    assert texts(path + ".1") == ["LOG old", "LOG still old"]
    assert texts(path) == ["LOG new"]


def test_a_rotation_that_fails_keeps_the_old_file(log, path):
    os.rename(path, path + ".1")
    os.mkdir(path)
    log.reopen()
    log.log("still here")
    warning, line = texts(path + ".1")
    assert warning.startswith("WARNING cannot reopen the log, keeping the old one: ")
    assert line == "LOG still here"


def test_a_file_that_cannot_be_opened_is_an_error_at_once(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        Log(str(tmp_path / "missing" / "proxy.log"))


def test_a_log_file_is_not_for_everyone_to_read(log, path):
    log.log("x")
    assert os.stat(path).st_mode & 0o007 == 0


def test_stderr_gets_each_line_too_unless_told_to_be_quiet(path):
    reader, writer = os.pipe()
    log = Log(path, stderr=writer)
    log.log("both")
    log.close()
    os.close(writer)
    assert os.read(reader, 1000).endswith(b"LOG both\n")
    os.close(reader)
    assert texts(path) == ["LOG both"]


def test_a_closed_stderr_is_survived():
    reader, writer = os.pipe()
    os.close(reader)
    log = Log(None, stderr=writer)
    log.log("into the broken pipe")
    log.close()
    os.close(writer)
    log = Log(None, stderr=writer)
    log.log("nowhere")
    log.reopen()
    log.close()
    log.log("after the end")


def test_a_descriptor_closed_behind_our_back_and_given_to_another_gets_no_lines(tmp_path):
    reader, writer = os.pipe()
    log = Log(None, stderr=writer)
    os.close(writer)
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    assert other == writer, "the kernel gives the lowest free number"
    log.log("not for the other")
    log.close()
    assert os.read(reader, 1000).endswith(b"LOG not for the other\n")
    assert os.fstat(other).st_size == 0
    os.close(other)
    os.close(reader)


def test_lines_lost_on_a_full_disk_are_counted_and_told_when_there_is_room_again(log, path, monkeypatch):
    def full(fd, data):
        raise OSError(28, "No space left on device")

    log.log("before")
    with monkeypatch.context() as patch:
        patch.setattr(sinks.os, "write", full)
        log.log("lost")
        log.log("lost")
    log.log("after")
    log.log("later")
    assert texts(path) == [
        "LOG before",
        "WARNING 2 log lines were lost here: No space left on device",
        "LOG after",
        "LOG later",
    ]


def test_a_line_cut_short_by_a_full_disk_does_not_swallow_the_next_one(log, path, monkeypatch):
    write = os.write
    room = [20]

    def nearly_full(fd, data):
        if not room[0]:
            raise OSError(28, "No space left on device")
        room[0] -= (written := write(fd, data[: room[0]]))
        return written

    with monkeypatch.context() as patch:
        patch.setattr(sinks.os, "write", nearly_full)
        log.log("cut")
    log.log("whole")
    cut, *rest = lines(path)
    assert len(cut) == 20
    assert all(LINE.fullmatch(line) for line in rest)
    assert rest[0].endswith("WARNING 1 log lines were lost here: No space left on device")
    assert rest[1].endswith("LOG whole")


def test_a_write_in_pieces_still_gives_whole_lines(log, path, monkeypatch):
    write = os.write
    monkeypatch.setattr(sinks.os, "write", lambda fd, data: write(fd, data[:7]))
    log.log("in pieces")
    assert texts(path) == ["LOG in pieces"]


# Where it goes, and how.


class Daemon:
    """A syslog daemon where the sinks look for it."""

    def __init__(self, path, monkeypatch):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.settimeout(5)
        monkeypatch.setattr(SyslogSink.__init__, "__defaults__", (path,))

    def heard(self):
        return self.socket.recv(10_000).decode()


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    daemon = Daemon(str(tmp_path / "dev-log"), monkeypatch)
    yield daemon
    daemon.socket.close()


def test_the_end_of_a_connection_is_told_with_its_age_in_whole_seconds(log, path):
    log.for_socket("C-0x1: x").closing("client close request", 7.99)
    log.closing("it never was", -0.1)
    assert texts(path) == [
        "LOG C-0x1: x closing because: client close request (age=7s)",
        "LOG closing because: it never was (age=0s)",
    ]


def test_json_goes_to_the_file_with_the_facts_of_an_end(path):
    log = Log(Destination(path, is_quiet=True, format=Format.JSON))
    log.for_socket(Tag("C", 1, "shop", "web", Address("::1", 5))).closing("client close request", 7.2)
    log.close()
    line = json.loads(lines(path)[0])
    assert (line["kind"], line["host"], line["reason"], line["age"]) == ("client", "::1", "client close request", 7)
    assert line["text"] == "closing because: client close request (age=7s)"


def test_syslog_hears_what_the_file_hears_without_its_head(path, daemon):
    log = Log(Destination(path, is_quiet=True, facility="daemon", ident="shuttle"))
    log.for_socket("C-0x1: x").warning("careful\nnow")
    log.close()
    assert daemon.heard().endswith(f" shuttle[{os.getpid()}]: C-0x1: x careful\\nnow")
    assert texts(path) == ["WARNING C-0x1: x careful\\nnow"]


def test_syslog_hears_json_where_the_log_is_json(daemon):
    log = Log(Destination(is_quiet=True, format=Format.JSON, facility="daemon", ident="x"))
    log.log("hello")
    log.close()
    assert json.loads(daemon.heard().split(": ", 1)[1])["text"] == "hello"


def test_lines_lost_by_syslog_are_told_there_and_nowhere_else(path, daemon, tmp_path):
    log = Log(Destination(path, is_quiet=True, facility="daemon", ident="x"))
    os.rename(tmp_path / "dev-log", tmp_path / "away")
    log.log("lost")
    os.rename(tmp_path / "away", tmp_path / "dev-log")
    log.log("heard")
    log.close()
    assert daemon.heard().endswith(": 1 log lines were lost here: No such file or directory")
    assert daemon.heard().endswith(": heard")
    assert texts(path) == ["LOG lost", "LOG heard"]


def test_a_reload_takes_the_log_to_another_file(log, path, tmp_path):
    other = str(tmp_path / "other.log")
    log.log("here")
    log.direct(Destination(other, is_quiet=log.is_quiet))
    log.log("there")
    assert texts(path) == ["LOG here"]
    assert texts(other) == ["LOG there"]


def test_a_file_that_cannot_be_opened_at_a_reload_costs_a_warning_and_not_the_log(log, path, tmp_path):
    log.direct(Destination(str(tmp_path / "missing" / "x"), is_quiet=True))
    log.log("still here")
    warning, line = texts(path)
    assert warning.startswith(f"WARNING cannot open the log file {tmp_path}/missing/x, keeping the old one: No such")
    assert line == "LOG still here"


def test_a_reload_that_changes_nothing_opens_nothing(log, path):
    log.log("first")
    os.rename(path, path + ".1")
    log.direct(Destination(path, is_quiet=True))
    log.log("second")
    assert texts(path + ".1") == ["LOG first", "LOG second"]


def test_a_reload_may_change_the_format_and_keep_the_file(log, path):
    log.log("text")
    log.direct(Destination(path, is_quiet=True, format=Format.JSON))
    log.log("json")
    first, second = lines(path)
    assert LINE.fullmatch(first)
    assert json.loads(second)["text"] == "json"


def test_syslog_may_come_and_go_with_a_reload(log, path, daemon):
    log.direct(Destination(path, is_quiet=True, facility="local0", ident="x"))
    log.log("to both")
    assert daemon.heard().startswith("<134>")
    log.direct(Destination(path, is_quiet=True))
    log.log("to the file")
    assert texts(path) == ["LOG to both", "LOG to the file"]


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        (Destination(), True),
        (Destination("x"), True),
        (Destination("x", is_quiet=True), False),
        (Destination(is_quiet=True), True),  # else nobody would hear anything
        (Destination(is_quiet=True, facility="daemon"), False),
        (Destination(facility="daemon"), True),
    ],
)
def test_whoever_wants_quiet_gets_it_unless_all_would_be_silent(destination, expected):
    assert destination.has_stderr is expected


@pytest.mark.parametrize("look", list(Format))
def test_the_journal_keeps_how_much_a_line_matters_and_a_file_does_not(path, look, monkeypatch):
    ours, journal = socket.socketpair()
    with ours, journal:
        status = os.fstat(ours.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        log = Log(Destination(path, format=look), stderr=ours.fileno())
        log.log("as ever")
        log.for_socket("C-1:").warning("odd")
        log.error("bad")
        log.fatal("over")
        log.close()
        said = journal.recv(10_000).decode().splitlines()
    if look is Format.JSON:
        assert [line[3:] for line in said] == lines(path)
        said = [line[:3] + json.loads(line[3:])["text"] for line in said]
    assert said == ["<6>as ever", "<4>odd" if look is Format.JSON else "<4>C-1: odd", "<3>bad", "<2>over"]


def test_a_stderr_that_was_sent_elsewhere_is_not_the_journal(monkeypatch):
    reader, writer = os.pipe()
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    log = Log(None, stderr=writer)
    log.log("as ever")
    log.close()
    assert not os.read(reader, 1000).startswith(b"<")
    os.close(reader)
    os.close(writer)
    assert not sinks.is_journal(writer), "closed"
