"""The command line: --check, mistakes before anything starts, root refused, pid file and daemon."""

import os
import pwd
import re
import subprocess
import sys
import time

import pytest

from tests.live.stand import ROOT, Stand, find_account, is_listening, wait_until
from tests.live.wire import rows

pytestmark = pytest.mark.live


def run(*arguments, seconds=20):
    return subprocess.run(
        [sys.executable, "-m", "proxy", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )


@pytest.fixture(name="stand")
def _stand(upstream):
    """Written, not started."""
    stand = Stand(upstream)
    stand.write()
    yield stand
    stand.finish()


def test_check_says_that_a_good_file_is_good(stand):
    done = run("--check", stand.file)
    assert done.returncode == 0, done.stdout
    assert not is_listening(stand.port)


def test_check_knows_the_secrets_and_gives_advice(stand):
    stand.settings |= {"auth_type": "scram-sha-256", "pool_mode": "session"}
    stand.secrets["old"] = "md5d577273ff885c3f84dadb8578bb41399"
    stand.write()
    done = run("--check", stand.file)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert any(re.match(rf"{stand.file}:\d+: warning: 1 user has an md5 secret", line) for line in lines)
    assert any(re.match(rf"{stand.file}:\d+: advice: pool_mode = session", line) for line in lines)
    assert re.fullmatch(rf"{stand.file}: ok, .* \d+ settings honoured, .* advice", lines[-1])


def test_check_says_every_mistake_with_file_and_line(stand):
    stand.settings |= {"pool_mode": "sometimes", "listen_port": "high"}
    stand.databases["broken"] = "port=99999999"
    stand.write()
    done = run("--check", stand.file)
    assert done.returncode == 1
    for text in ("pool_mode", "listen_port", "port"):
        assert any(line.startswith(f"{stand.file}:") and text in line for line in done.stdout.splitlines())
    assert "Traceback" not in done.stdout + done.stderr


def test_a_start_with_a_bad_file_ends_with_its_mistakes(stand):
    stand.settings["pool_mode"] = "sometimes"
    stand.write()
    done = run(stand.file)
    assert done.returncode == 1
    assert f"{stand.file}:" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to refuse it")
def test_root_is_refused(stand):
    done = run(stand.file)
    assert done.returncode == 1
    assert "root" in done.stderr


def test_a_port_that_is_taken_is_said_with_its_address(stand, upstream):
    stand.settings["listen_port"] = upstream.port
    stand.write()
    done = run("-u", find_account(), stand.file)
    assert done.returncode == 1
    assert f"127.0.0.1:{upstream.port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_file_and_a_wrong_option():
    assert run("/nowhere/proxy.ini").returncode == 1
    assert run("--colour", "red").returncode == 2
    assert "pgshuttle" in run("-V").stdout


def test_as_a_daemon_it_detaches_and_its_pid_file_goes_with_it(stand):
    stand.folder.chmod(0o777)
    pid_file, log = stand.folder / "pid", stand.folder / "daemon.log"
    stand.settings |= {"pidfile": pid_file, "logfile": log}
    stand.write()
    done = run("-d", "-u", find_account(), stand.file)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: is_listening(stand.port), "it listens")
    wait_until(lambda: pid_file.exists() and pid_file.read_text(), "its number is written")
    pid = int(pid_file.read_text())
    with stand.raw() as line:
        assert rows(line.ask("select 1")) == [("1",)]
    again = run("-u", find_account(), stand.file)
    assert again.returncode == 1
    os.kill(pid, 3)
    wait_until(lambda: not pid_file.exists(), "the pid file is gone")
    wait_until(lambda: not is_listening(stand.port), "it is gone")
    time.sleep(0.1)
    assert "process down" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_why_it_does_not_start_is_in_the_log_of_the_account_it_would_have_become(stand):
    stand.folder.chmod(0o777)
    log = stand.folder / "daemon.log"
    stand.settings |= {"listen_addr": "", "logfile": log}
    stand.write()
    assert run("-u", find_account(), stand.file).returncode == 1
    assert re.search(r" FATAL nowhere to listen on: .*\n$", log.read_text())
    assert log.stat().st_uid == pwd.getpwnam(find_account()).pw_uid


@pytest.mark.parametrize("name", ["pidfile", "logfile"])
def test_a_daemon_that_cannot_begin_says_so_on_the_terminal(stand, name):
    stand.folder.chmod(0o777)
    stand.settings |= {"pidfile": stand.folder / "pid", "logfile": stand.folder / "daemon.log"}
    stand.settings[name] = "/nowhere/at/all"
    stand.write()
    done = run("-d", "-u", find_account(), stand.file)
    assert done.returncode == 1
    assert re.search("pgshuttle: .*/nowhere/at/all: No such file or directory", done.stderr), done.stderr
    assert not (stand.folder / "pid").exists()
    assert not is_listening(stand.port)


ELSEWHERE = "203.0.113.7"  # kept for examples: no machine has it


def test_an_address_this_machine_does_not_have_is_warned_of_in_the_log(stand):
    stand.settings |= {"listen_addr": f"{ELSEWHERE}, 127.0.0.1", "unix_socket_dir": "/nowhere/at/all"}
    with stand, stand.raw() as line:
        assert rows(line.ask("select 1")) == [("1",)]
        stand.wait_log(rf"WARNING cannot listen on {ELSEWHERE}:{stand.port}: Cannot assign requested address\n")
        stand.wait_log(r"WARNING cannot listen on unix:/nowhere/at/all/\S+: No such file or directory\n")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (ELSEWHERE, f"cannot listen on {ELSEWHERE}:\\d+: Cannot assign requested address"),
        ("", "nowhere to listen on: .*"),
    ],
)
def test_with_nothing_to_listen_on_it_does_not_start(stand, address, words):
    stand.settings["listen_addr"] = address
    stand.write()
    done = run("-u", find_account(), stand.file)
    assert done.returncode == 1
    assert re.fullmatch(rf"pgshuttle: {words}\n", done.stderr), done.stderr
