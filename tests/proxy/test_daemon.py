"""Becoming a daemon, another user, the one process of a pid file. What cannot be undone is done in a child."""

import os
import resource
import select
import shutil
import subprocess
import sys

import pytest

from proxy import VERSION
from proxy.daemon import (
    PidFile,
    StartFailed,
    become_user,
    describe_build,
    describe_user,
    find_uid,
    raise_open_files,
    schedule_as_batch,
)

IS_ROOT = os.geteuid() == 0


def run_in_child(program, *arguments, check=True, **options):
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=20, check=check, **options
    )


def test_a_daemon_has_left_its_terminal_session_and_standard_files(tmp_path):
    told = tmp_path / "told"
    os.mkfifo(told)
    program = """
import os, sys
from proxy.daemon import become_daemon
first, group = os.getpid(), os.getsid(0)
detach = become_daemon()
print("on the terminal", flush=True)
detach()
print("into the void")
null = os.stat("/dev/null").st_rdev
with open(sys.argv[1], "w") as pipe:
    print(os.getpid() != first, os.getsid(0) != group, os.getsid(0) != os.getpid(),
          all(os.fstat(fd).st_rdev == null for fd in (0, 1, 2)), file=pipe)
"""
    fd = os.open(told, os.O_RDONLY | os.O_NONBLOCK)
    done = run_in_child(program, str(told))
    assert select.select([fd], [], [], 20)[0]  # who started it may end first, and a pipe nobody has opened yet is empty
    os.set_blocking(fd, True)
    with open(fd) as pipe:
        assert pipe.read().split() == ["True"] * 4
    assert done.stdout == "on the terminal\n"


def test_who_starts_a_daemon_hears_how_it_ends_before_it_is_one():
    program = """
import sys
from proxy.daemon import become_daemon
become_daemon()
sys.exit("the log cannot be written")
"""
    done = run_in_child(program, check=False)
    assert (done.returncode, done.stderr) == (1, "the log cannot be written\n")


def test_closed_standard_files_are_replaced_before_a_socket_gets_their_numbers():
    program = """
import os
os.close(0)
os.close(2)
from proxy.daemon import keep_standard_fds_open
keep_standard_fds_open()
null = os.stat("/dev/null").st_rdev
print(os.fstat(0).st_rdev == null, os.fstat(2).st_rdev == null, os.open("/dev/null", os.O_RDONLY) > 2)
"""
    assert run_in_child(program).stdout.split() == ["True"] * 3


def test_a_pid_file_names_us_and_goes_when_we_go(tmp_path):
    path = tmp_path / "proxy.pid"
    pid_file = PidFile(str(path))
    pid_file.write()
    assert path.read_text() == f"{os.getpid()}\n"
    pid_file.remove()
    assert not path.exists()
    pid_file.remove()


def test_a_stale_pid_file_is_taken_over_even_when_its_number_lives_again(tmp_path):
    path = tmp_path / "proxy.pid"
    path.write_text("1\nand something else that is longer than our own pid")
    pid_file = PidFile(str(path))
    pid_file.write()
    assert path.read_text() == f"{os.getpid()}\n"
    pid_file.remove()


def test_a_second_process_is_refused_and_told_who_is_first(tmp_path):
    path = tmp_path / "proxy.pid"
    first = PidFile(str(path))
    first.write()
    with pytest.raises(StartFailed, match=f"already running: .* held by process {os.getpid()}"):
        PidFile(str(path)).write()
    assert path.read_text() == f"{os.getpid()}\n", "the refused one must not touch it"
    first.remove()


def test_who_was_refused_does_not_remove_the_file_of_the_first(tmp_path):
    path = tmp_path / "proxy.pid"
    first, second = PidFile(str(path)), PidFile(str(path))
    first.write()
    with pytest.raises(StartFailed):
        second.write()
    second.remove()
    assert path.exists()
    first.remove()


def test_the_lock_of_a_killed_process_does_not_outlive_it(tmp_path):
    path = tmp_path / "proxy.pid"
    program = """
import os, signal, sys
from proxy.daemon import PidFile
PidFile(sys.argv[1]).write()
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=20)
    assert path.read_text().strip().isdigit()
    pid_file = PidFile(str(path))
    pid_file.write()
    pid_file.remove()


@pytest.mark.parametrize("where", ["missing/proxy.pid", "."])
def test_a_pid_file_that_cannot_be_written_says_why(tmp_path, where):
    with pytest.raises(StartFailed, match=r"cannot write pid file .*: (No such file|Is a directory)"):
        PidFile(str(tmp_path / where)).write()


def test_a_pid_file_that_is_a_link_to_something_precious_is_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("keep")
    (tmp_path / "proxy.pid").symlink_to(precious)
    with pytest.raises(StartFailed):
        PidFile(str(tmp_path / "proxy.pid")).write()
    assert precious.read_text() == "keep"


def test_an_unknown_user_is_a_clear_refusal():
    with pytest.raises(StartFailed, match="no such user on this machine: nobody-at-all"):
        become_user("nobody-at-all")


def test_becoming_whom_we_are_is_nothing_to_do():
    program = "import os, pwd; from proxy.daemon import become_user; become_user(pwd.getpwuid(os.geteuid()).pw_name)"
    run_in_child(program)


@pytest.mark.skipif(not IS_ROOT, reason="only root may become somebody else")
def test_root_becomes_nobody_and_cannot_come_back():
    program = """
import os, pwd
from proxy.daemon import become_user, describe_user
user = pwd.getpwnam("nobody")
become_user("nobody")
try:
    os.setuid(0)
except PermissionError:
    print(os.getresuid() == (user.pw_uid,) * 3, os.getresgid() == (user.pw_gid,) * 3, 0 not in os.getgroups())
print(describe_user().startswith("user nobody, group "))
"""
    assert run_in_child(program).stdout.split() == ["True"] * 4


def test_an_ordinary_user_cannot_become_root():
    program = """
import os
from proxy.daemon import StartFailed, become_user
if os.geteuid() == 0:
    become_user("nobody")
try:
    become_user("root")
except StartFailed as failed:
    print(failed)
"""
    assert run_in_child(program).stdout == "cannot become user root: Operation not permitted\n"


def test_we_can_say_whom_we_run_as():
    assert describe_user().startswith("user ")


def test_the_limit_of_open_files_is_lifted_as_far_as_it_goes():
    program = """
import resource
from proxy.daemon import raise_open_files
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
print(raise_open_files() == (64, hard), resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard))
"""
    assert run_in_child(program).stdout.split() == ["True", "True"]


def test_a_limit_that_cannot_be_lifted_is_left_and_told(monkeypatch):
    def refuse(kind, limits):
        raise ValueError("not here")

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_open_files() == (256, 256)


def test_the_name_of_the_process_is_what_ps_shows():
    program = """
from proxy.daemon import set_process_name
set_process_name("pgbouncer")
print(open("/proc/self/comm").read().strip())
set_process_name("a name that is much too long")
print(open("/proc/self/comm").read().strip())
"""
    assert run_in_child(program).stdout.splitlines() == ["pgbouncer", "a name that is "[:15].strip()]


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="this system has no SCHED_BATCH")
@pytest.mark.parametrize(("before", "is_done", "after"), [("OTHER", True, "BATCH"), ("IDLE", False, "IDLE")])
def test_we_are_scheduled_in_batches_unless_somebody_has_chosen_otherwise(before, is_done, after):
    program = """
import os, sys
from proxy.daemon import schedule_as_batch
os.sched_setscheduler(0, getattr(os, "SCHED_" + sys.argv[1]), os.sched_param(0))
print(schedule_as_batch(), os.sched_getscheduler(0))
"""
    said = run_in_child(program, before).stdout.split()
    assert said == [str(is_done), str(getattr(os, f"SCHED_{after}"))]


@pytest.mark.parametrize("error", [AttributeError, PermissionError])
def test_where_a_policy_cannot_be_chosen_nothing_is(monkeypatch, error):
    def refuse(*_):
        raise error

    monkeypatch.setattr(os, "sched_setscheduler", refuse, raising=False)
    assert not schedule_as_batch()


def test_a_living_pgbouncer_whose_place_we_would_take_is_refused(tmp_path):
    path = tmp_path / "pid"
    program = tmp_path / "pgbouncer"
    shutil.copy("/bin/sleep", program)
    theirs = subprocess.Popen([program, "60"])
    path.write_text(f"{theirs.pid}\n")
    try:
        with pytest.raises(StartFailed, match=f"already running: .* is that of PgBouncer, process {theirs.pid}"):
            PidFile(str(path)).write()
        assert path.read_text() == f"{theirs.pid}\n"
    finally:
        theirs.kill()
        theirs.wait()
    PidFile(str(path)).write()


def test_what_we_are_begins_with_what_show_version_says():
    assert describe_build()[0] == VERSION
    assert any(part.startswith("Python 3") for part in describe_build())


def test_a_pid_file_goes_from_hand_to_hand_without_being_free_in_between(tmp_path):
    path = tmp_path / "proxy.pid"
    first, second = PidFile(str(path)), PidFile(str(path))
    first.write()
    path.write_text("12345\n")  # as if by another process
    second.inherit(os.dup(first.descriptor))
    first.lend()
    first.remove()
    assert path.read_text() == f"{os.getpid()}\n"
    with pytest.raises(StartFailed):
        PidFile(str(path)).write()
    second.remove()
    assert not path.exists()


def test_what_was_lent_is_written_again_when_the_other_one_is_gone(tmp_path):
    path = tmp_path / "proxy.pid"
    first = PidFile(str(path))
    first.write()
    first.lend()
    path.write_text("12345678901\n")  # the other one did
    first.write_again()
    assert path.read_text() == f"{os.getpid()}\n"
    first.remove()
    assert not path.exists()


def test_a_user_has_a_number_or_none():
    assert find_uid("root") == [0]
    assert find_uid("nobody-of-that-name") == find_uid("") == []
