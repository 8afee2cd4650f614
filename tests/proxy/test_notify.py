"""What systemd hears from us, and the sockets it hands us."""

import os
import socket
import subprocess
import sys
import time

import pytest

from proxy import notify
from proxy.notify import Notifier, find_group, take_listening_sockets


@pytest.fixture(params=["path", "abstract"])
def systemd(request, tmp_path):
    """systemd's ear and the name under which it is found."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@pgshuttle-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind("\0" + name[1:] if name.startswith("@") else name)
        ear.settimeout(5)
        yield ear, {"NOTIFY_SOCKET": name}


def test_systemd_hears_that_we_are_ready(systemd):
    ear, environ = systemd
    Notifier(environ).ready()
    assert ear.recv(1000).decode().split("\n") == ["READY=1", f"MAINPID={os.getpid()}"]


def test_a_reload_carries_the_moment_it_began(systemd):
    ear, environ = systemd
    Notifier(environ).reloading()
    first, second = ear.recv(1000).decode().split("\n")
    assert first == "RELOADING=1"
    name, _, micros = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert abs(int(micros) / 1e6 - time.monotonic()) < 60


def test_a_status_stays_on_one_line_and_the_end_is_told(systemd):
    ear, environ = systemd
    notifier = Notifier(environ)
    notifier.status("20 clients\nREADY=0")
    notifier.stopping()
    assert ear.recv(1000) == b"STATUS=20 clients READY=0"
    assert ear.recv(1000) == b"STOPPING=1"


UNIFIED = "0::/system.slice/{}\n"
MIXED = "1:name=systemd:/\n0::/system.slice/{}\n"
LEGACY = "9:name=systemd:/system.slice/{}\n8:pids:/\n1:cpu:/user:1\n0::/\n"


@pytest.fixture(name="groups", params=[UNIFIED, LEGACY, MIXED])
def _groups(request, tmp_path, monkeypatch):
    """`groups(pid, name)` puts a process into a control group."""
    monkeypatch.setattr(notify, "CGROUPS", str(tmp_path / "{}"))
    monkeypatch.setattr("os.geteuid", lambda: 999)
    return lambda pid, name: (tmp_path / str(pid)).write_text(request.param.format(name))


def test_only_a_process_of_the_service_can_become_the_service(groups):
    groups(os.getpid(), "pgshuttle.service")
    groups(7, "pgshuttle.service")
    groups(8, "session-1.scope")
    service = Notifier({"NOTIFY_SOCKET": "/run/systemd/notify"})
    assert [service.believes_in(pid) for pid in (7, 8, 9)] == [True, False, False]
    assert Notifier({}).believes_in(8), "no systemd, nobody to be told"


def test_from_root_systemd_believes_it_of_every_process(groups, monkeypatch):
    groups(os.getpid(), "pgshuttle.service")
    groups(8, "session-1.scope")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert Notifier({"NOTIFY_SOCKET": "/run/systemd/notify"}).believes_in(8)


def test_our_own_group_is_found():
    assert all(path.startswith("/") for path in find_group(os.getpid()))
    assert find_group(os.getpid())
    assert find_group(2**22 + 1) == ()


@pytest.mark.parametrize("name", ["", "/nowhere/at/all", "@nobody-listens", "/" + "x" * 500, "/nul\0byte"])
def test_nobody_listening_is_no_reason_to_fail(name):
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.ready()
    notifier.reloading()
    notifier.status("\udcff")
    notifier.stopping()


def test_a_deaf_systemd_does_not_block_us(tmp_path):
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(name)
        notifier = Notifier({"NOTIFY_SOCKET": name})
        for _ in range(2000):  # far more than its queue holds
            notifier.status("x" * 200)


def test_without_activation_there_are_no_sockets():
    assert take_listening_sockets({}) == []


@pytest.mark.parametrize(
    "environ",
    [
        {"LISTEN_PID": "1", "LISTEN_FDS": "2"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "-1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "two"},
        {"LISTEN_PID": str(os.getpid())},
        {"LISTEN_FDS": "2"},
    ],
)
def test_sockets_meant_for_another_process_are_not_ours_and_the_variables_go(environ):
    assert take_listening_sockets(environ) == []
    assert environ == {}


def test_sockets_that_systemd_opened_are_taken_over_and_not_inherited_further():
    program = """
import os
from proxy.notify import take_listening_sockets
os.environ["LISTEN_PID"] = str(os.getpid())
for listening in take_listening_sockets():
    print(listening.family.name, listening.fileno(), listening.getblocking(), os.get_inheritable(listening.fileno()))
print("LISTEN_FDS" in os.environ)
"""
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        # The child's descriptors 3 and 4 must be these two, as if systemd had started it.
        shell = f'exec {sys.executable} -c "$PROGRAM" 3<&{tcp.fileno()} 4<&{unix.fileno()}'
        done = subprocess.run(
            ["bash", "-c", shell],
            env={**os.environ, "PROGRAM": program, "LISTEN_FDS": "2"},
            pass_fds=(tcp.fileno(), unix.fileno()),
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.splitlines() == ["AF_INET 3 False False", "AF_UNIX 4 False False", "False"]


def test_systemd_hears_from_the_old_process_who_is_the_service_now_and_then_nothing(systemd):
    ear, environ = systemd
    notifier = Notifier(environ)
    notifier.hand_over(4711)
    notifier.status("still here")
    notifier.stopping()
    notifier.take_back()
    assert ear.recv(1000) == b"MAINPID=4711"
    assert ear.recv(1000).decode().split("\n") == ["READY=1", f"MAINPID={os.getpid()}"]


def test_who_was_started_by_somebody_else_speaks_on_the_line_of_the_process_before(systemd):
    ear, environ = systemd
    notifier = Notifier({})
    notifier.adopt(environ["NOTIFY_SOCKET"])
    notifier.adopt("/nowhere")
    notifier.status("here")
    assert ear.recv(1000) == b"STATUS=here"
