"""
Being a process among others: daemon, pid file, user, open files.

Theory. These are the things to do once, in this order, before the event loop exists: `keep_standard_fds_open`,
`become_daemon` (the pid changes, so nothing that names it comes earlier), `PidFile.write`, listening sockets and the
log file (which may need root), `become_user`, and then the rest of our life with no more rights than we need.

A pid file counts only while somebody holds the lock on it. The kernel lets go of a lock when its holder dies, however
it died: a file left by a crash is simply taken over, and its number, which by now may be some other program's (in a
container it nearly always is), misleads nobody. Asking whether that pid lives would.
"""

import codecs
import contextlib
import fcntl
import grp
import os
import platform
import pwd
import resource
from collections.abc import Callable
from functools import partial
from importlib import metadata
from typing import NoReturn

from proxy import VERSION

_PID_DIGITS = 20
# Python loads these when they are first used (a host name, a log line with control characters), from files that the
# account we become may not be able to read: a Python under /root is not rare.
_CODECS_OF_LATER = ("idna", "unicode_escape")


class StartFailed(Exception):
    """The process cannot become what it was asked to be; the sentence says why."""


def keep_standard_fds_open() -> None:
    """Open /dev/null for whichever of 0, 1, 2 is closed: else the first socket gets the number and hears our prints."""
    fd = os.open(os.devnull, os.O_RDWR)
    while fd <= 2:
        os.set_inheritable(fd, True)
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)


def become_daemon() -> Callable[[], None]:
    """
    Go on as a child of init, in a session of our own.

    The calling process waits until what is returned is called, which takes the terminal away, and exits with 0. If we
    end before, it exits with 1: until then whoever started us sees what is wrong, as a pid file or a log that cannot
    be written.
    """
    hearing, saying = os.pipe()
    if os.fork():
        os.close(saying)
        _leave(0 if os.read(hearing, 1) else 1)
    os.close(hearing)
    os.setsid()
    if os.fork():  # the session's leader must go: only a leader can get a controlling terminal again
        _leave(0)
    return partial(_detach, saying)


def _detach(saying: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    with contextlib.suppress(BrokenPipeError):  # nobody waits any more
        os.write(saying, b"+")
    os.close(saying)


def _leave(code: int) -> NoReturn:
    os._exit(code)  # no atexit, no flushing: all that belongs to the child now


class PidFile:
    """
    The file that says which process we are, at `path`.

    Raises StartFailed when a living process holds it, or when it cannot be written.

    Whoever takes over from us gets the open file, and the lock with it (`lend`, `inherit`): so it is held at every
    moment, and by whom is what stands in it. We keep ours, to `write_again` should the other one die.
    """

    __slots__ = ("_fd", "_is_lent", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        self._is_lent = False

    def write(self) -> None:
        """Take the file over, or make it, and write our pid and a line end."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise StartFailed(f"cannot write pid file {self.path}: {error.strerror}") from None
        try:
            self._claim(fd)
            _write_pid(fd)
        except OSError as error:
            os.close(fd)
            raise StartFailed(f"cannot write pid file {self.path}: {error.strerror}") from None
        except StartFailed:
            os.close(fd)
            raise
        self._fd = fd

    def _claim(self, fd: int) -> None:
        # flock and not lockf: a lockf lock is lost when anybody in our process opens and closes the file.
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartFailed(f"already running: pid file {self.path} is held by process {_pid_in(fd)}") from None
        if is_pgbouncer(_pid_in(fd)):  # which takes no lock
            raise StartFailed(f"already running: pid file {self.path} is that of PgBouncer, process {_pid_in(fd)}")

    def remove(self) -> None:
        """At the end. The lock goes last, so nobody can find the file both free and there. Does nothing if not ours."""
        if self._fd >= 0:
            if not self._is_lent:
                with contextlib.suppress(OSError):  # without root's rights the directory may be closed to us
                    os.unlink(self.path)
            os.close(self._fd)
            self._fd = -1

    # From one process to the next.

    @property
    def descriptor(self) -> int:
        """Of the locked file; -1 when there is none."""
        return self._fd

    def inherit(self, fd: int) -> None:
        """`fd` is the locked file, of a process whose place we have taken."""
        self._fd = fd
        _write_pid(fd)

    def lend(self) -> None:
        """Another process has inherited it, and removes it."""
        self._is_lent = True

    def write_again(self) -> None:
        """That process is gone: the file is ours."""
        if self._is_lent:
            self._is_lent = False
            _write_pid(self._fd)


def _write_pid(fd: int) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)


def _pid_in(fd: int) -> str:
    text = os.pread(fd, _PID_DIGITS, 0).strip()
    return text.decode() if text.isdigit() else "(unknown)"


def is_pgbouncer(pid: str) -> bool:
    """Is that a living PgBouncer, whose place we would take?"""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "pgbouncer"
    except OSError:
        return False


def become_user(name: str) -> None:
    """Give up root for user `name`, his group and his other groups, for good. StartFailed when that cannot be."""
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise StartFailed(f"no such user on this machine: {name}") from None
    if os.geteuid() == user.pw_uid:
        return
    for codec in _CODECS_OF_LATER:
        codecs.lookup(codec)
    try:
        os.initgroups(name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)  # last: after it nothing of the above is allowed
    except OSError as error:
        raise StartFailed(f"cannot become user {name}: {error.strerror}") from None


def find_uid(name: str) -> list[int]:
    """The number of that user, if it is a name and somebody has it."""
    with contextlib.suppress(KeyError):
        return [pwd.getpwnam(name).pw_uid]
    return []


def describe_user() -> str:
    """Whom we run as, for the log: user and group by name where they have one."""
    uid, gid = os.geteuid(), os.getegid()
    user, group = str(uid), str(gid)
    with contextlib.suppress(KeyError):
        user = pwd.getpwuid(uid).pw_name
        group = grp.getgrgid(gid).gr_name
    return f"user {user}, group {group}"


def set_process_name(name: str) -> None:
    """What ps and top call us; the kernel keeps 15 bytes. Does nothing where there is no /proc."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "wb", buffering=0) as comm:
        comm.write(os.fsencode(name))


def schedule_as_batch() -> bool:
    """
    Whoever computes when something arrives for us keeps his core until he is done with it (sched(7): SCHED_BATCH).

    On a busy machine the one whose core we would take is often the PostgreSQL process that everybody waits for; and
    what comes in the meantime is done in one go. Where a core is free nothing changes. False: somebody has chosen
    another policy for us, or the system has none such or does not let us.
    """
    try:
        if os.sched_getscheduler(0) != os.SCHED_OTHER:
            return False
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except (AttributeError, OSError):
        return False
    return True


def describe_build() -> list[str]:
    """Who we are and what we run on, the first part as SHOW VERSION says it."""
    parts = [VERSION]
    with contextlib.suppress(metadata.PackageNotFoundError):
        parts.append(f"uvloop {metadata.version('uvloop')}")
    return [*parts, f"Python {platform.python_version()}"]


def find_hard_limit() -> int:
    """How many open files we could have at most; -1 is no limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def raise_open_files() -> tuple[int, int]:
    """
    Lift the soft limit of open files to the hard one. Returns (soft before, soft now).

    Every client and every server is an open file. select(2) is why the soft limit is still 1024 by default;
    we use epoll, which has no such bound.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft, soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # macOS says "infinity" and means OPEN_MAX
        return soft, soft
    return soft, hard
