"""The command line, as far as it starts nothing."""

import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from proxy import VERSION
from proxy import __main__ as command
from proxy.auth.users import parse_users
from proxy.config.ini import read
from tests.fakes import FakeLog

ROOT = Path(__file__).parents[2]


def a_file(path, text):
    file = path / "proxy.ini"
    file.write_text(text)
    return str(file)


GOOD = "[proxy]\nauth_type = trust\nlisten_addr =\nunix_socket_dir =\n[databases]\nshop = host=127.0.0.1\n"


def test_all_options_are_taken():
    options = command.parse_arguments(["-d", "-R", "-q", "-v", "-v", "-u", "web", "proxy.ini"])
    assert (options.daemon, options.quiet, options.verbose, options.user) == (True, True, 2, "web")
    assert options.reboot
    assert command.parse_arguments(["--reboot", "proxy.ini"]).reboot
    assert not command.parse_arguments(["proxy.ini"]).reboot
    assert options.file == "proxy.ini"


@pytest.mark.parametrize("arguments", [[], ["--nonsense", "proxy.ini"], ["a.ini", "b.ini"]])
def test_a_command_line_that_makes_no_sense_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        command.parse_arguments(arguments)
    assert end.value.code == 2
    assert "usage: pgshuttle" in capsys.readouterr().err


def test_check_of_a_good_file_is_0(tmp_path, capsys):
    assert command.check(a_file(tmp_path, GOOD)) == 0
    assert "ok" in capsys.readouterr().out


def test_check_names_every_mistake_with_its_line_and_is_1(tmp_path, capsys):
    file = a_file(tmp_path, GOOD + "[proxy]\nlisten_port = many\nno_such_thing = 1\n")
    assert command.check(file) == 1
    heard = capsys.readouterr().out
    assert f"{file}:8" in heard
    assert f"{file}:9" in heard


def test_check_looks_at_the_users_too(tmp_path, capsys):
    (tmp_path / "users.txt").write_text('"anna"\n')
    file = a_file(tmp_path, GOOD.replace("trust\n", f"md5\nauth_file = {tmp_path}/users.txt\n"))
    assert command.check(file) == 1
    assert "users.txt:1" in capsys.readouterr().out


def test_a_file_with_mistakes_starts_nothing(tmp_path, capsys):
    file = a_file(tmp_path, "[proxy]\nlisten_port = many\n")
    assert command.start(command.parse_arguments([file])) == 1
    assert f"{file}:2" in capsys.readouterr().err


def test_why_it_does_not_start_is_in_the_log_as_well(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    log = tmp_path / "log"
    (tmp_path / "users.txt").write_text('"anna"\n')
    logging = GOOD.replace("trust\n", f"trust\nlogfile = {log}\n")
    for text, reason in (
        (logging, "nowhere to listen on: name a listen_addr or a unix_socket_dir"),
        (logging.replace("trust\n", f"md5\nauth_file = {tmp_path}/users.txt\n"), f"{tmp_path}/users.txt:1: "),
    ):
        assert command.start(command.parse_arguments([a_file(tmp_path, text)])) == 1
        assert reason in capsys.readouterr().err
        assert f" FATAL {reason}" in log.read_text().splitlines()[-1]


def test_a_log_that_cannot_be_written_to_changes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    text = GOOD.replace("trust\n", f"trust\nlogfile = {tmp_path}/no/log\n")
    assert command.start(command.parse_arguments([a_file(tmp_path, text)])) == 1
    assert capsys.readouterr().err.startswith("pgshuttle: ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files that others cannot write to")
def test_root_makes_no_log_that_the_account_it_would_become_cannot_write_to(tmp_path, capsys):
    log = tmp_path / "log"
    text = GOOD.replace("trust\n", f"trust\nlogfile = {log}\n")
    assert command.start(command.parse_arguments([a_file(tmp_path, text)])) == 1
    assert "running as root is refused" in capsys.readouterr().err
    assert not log.exists()


def test_root_is_refused_unless_another_account_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert command.start(command.parse_arguments([a_file(tmp_path, GOOD)])) == 1
    assert "running as root is refused" in capsys.readouterr().err


def test_the_background_needs_a_log_and_a_pid_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert command.start(command.parse_arguments(["-d", a_file(tmp_path, GOOD)])) == 1
    assert "logfile" in capsys.readouterr().err


@pytest.mark.parametrize(("limit", "warns"), [(200, True), (100_000, False)])
def test_too_few_open_files_are_warned_of_with_the_numbers(tmp_path, limit, warns):
    log, config = FakeLog(), read(a_file(tmp_path, GOOD + "[proxy]\nmax_client_conn = 500\n"))
    command._warn_of_few_files(log, config, parse_users('"anna" "x"\n"bert" "y"\n', "users.txt"), (limit, limit))
    assert bool([line for line in log.lines if "max_client_conn 500 and up to 40 servers" in str(line)]) is warns


def test_the_first_line_of_version_is_what_show_version_says(capsys):
    for option in ("-V", "--version"):
        with pytest.raises(SystemExit) as end:
            command.parse_arguments([option])
        assert end.value.code == 0
        assert capsys.readouterr().out.splitlines()[0] == VERSION


def test_long_options_are_the_short_ones():
    long = ["--daemon", "--quiet", "--verbose", "--verbose", "--user", "web", "proxy.ini"]
    short = ["-d", "-q", "-vv", "-u", "web", "proxy.ini"]
    assert command.parse_arguments(long) == command.parse_arguments(short)


def test_the_background_may_log_to_syslog_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(command, "_start", lambda *_: 7)
    file = a_file(tmp_path, GOOD + f"[proxy]\npidfile = {tmp_path}/pid\nsyslog = 1\n")
    assert command.start(command.parse_arguments(["-d", file])) == 7


def test_the_limit_of_open_files_has_pgbouncers_line(tmp_path):
    log, config = FakeLog(), read(a_file(tmp_path, GOOD))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    command._warn_of_few_files(log, config, parse_users('"anna" "x"\n', "users.txt"), (1024, 20_000))
    assert log.lines == [
        f"LOG kernel file descriptor limit: 20000 (hard: {hard}); max_client_conn: 100, max expected fd use: 184"
    ]


def test_check_and_start_say_what_is_wrong_with_certificates_at_the_line_of_the_setting(tmp_path, capsys):
    file = a_file(tmp_path, GOOD.replace("trust\n", "trust\nserver_tls_ca_file = /nowhere/ca.crt\n"))
    sentence = "server_tls_ca_file: /nowhere/ca.crt: cannot be read: No such file or directory"
    assert command.check(file) == 1
    assert f"{file}:3: error: {sentence}" in capsys.readouterr().out
    assert command.start(command.parse_arguments([file])) == 1
    assert f"{file}:3: {sentence}" in capsys.readouterr().err


def test_what_the_account_may_not_read_again_is_warned_of(tmp_path, monkeypatch):
    secret = tmp_path / "users.txt"
    file = a_file(tmp_path, GOOD.replace("listen_addr =", f"listen_addr =\nauth_file = {secret}"))
    secret.write_text('"anna" "x"\n')
    config = read(file)
    assert command.find_closed(config) == []
    monkeypatch.setattr("os.access", lambda path, how: path != str(secret))
    (warning,) = command.find_closed(config)
    assert warning.startswith(f"{secret}: user ")
    assert warning.endswith(" may not read it: reloads will fail")


@pytest.mark.parametrize("text", ["[proxy]\nno_such_key = 1\n", GOOD.replace("trust", "trust\nreserve_pool_size = x")])
def test_the_journal_knows_that_a_mistake_is_one(tmp_path, text):
    file = a_file(tmp_path, text)
    heard = {}
    for option in ((), ("--check",)):
        ours, journal = socket.socketpair()
        with ours, journal:
            status = os.fstat(ours.fileno())
            environ = os.environ | {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
            program = [sys.executable, "-m", "proxy", *option, file]
            subprocess.run(program, cwd=ROOT, env=environ, stdout=ours, stderr=ours, check=False)
            heard[option] = journal.recv(10_000).decode().splitlines()
    assert {line[:3] for line in heard[()]} == {"<2>"}
    assert {line[:3] for line in heard[("--check",)]} == {"<3>"}
