"""
Talking with systemd: what we tell it, and the sockets it may hand us.

Theory. systemd listens on a Unix datagram socket named in NOTIFY_SOCKET for lines like READY=1 (sd_notify(3)). With
Type=notify-reload it wants RELOADING=1 with the monotonic time at which the reload began, then READY=1 again. There is
nothing to wait for and nobody to complain to: when it cannot be told, the proxy goes on.

MAINPID= of a process outside the service's control group is not believed (but from root): the service would count as
ended when we end, and whoever goes on would do so without its limits and restarts, in the way of the next start.

With socket activation systemd has opened the listening sockets itself and passes them as descriptors 3, 4, ...;
LISTEN_PID says for whom they are meant, LISTEN_FDS how many (sd_listen_fds(3)). All of these are taken out of the
environment once read, so that our children do not think the sockets are theirs.
"""

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

FIRST_FD = 3  # SD_LISTEN_FDS_START
CGROUPS = "/proc/{}/cgroup"


class InheritedSocket(socket.socket):
    """A socket that systemd made: its path is systemd's too, which goes on listening when we are gone."""


class Notifier:
    """The line to systemd, or to nobody when it did not start us."""

    __slots__ = ("_is_mute", "address")

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        self._is_mute = False
        self.address = environ.get("NOTIFY_SOCKET", "")

    def ready(self) -> None:
        """We serve: after the start, and again after each reload."""
        self._tell("READY=1", f"MAINPID={os.getpid()}")

    def reloading(self) -> None:
        """A reload begins; `ready` must follow."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def status(self, sentence: str) -> None:
        """What `systemctl status` shows about us; one line."""
        self._tell("STATUS=" + sentence.replace("\n", " "))

    def adopt(self, address: str) -> None:
        """Of the process before us, which systemd has started; somebody else may have started us."""
        self.address = self.address or address

    def hand_over(self, pid: int) -> None:
        """That process is the service now: systemd believes it only if we say so. We say nothing more."""
        self._tell(f"MAINPID={pid}")
        self._is_mute = True

    def believes_in(self, pid: int) -> bool:
        """Could systemd be told that this process is the service? True where there is no systemd to tell."""
        return not self.address or os.geteuid() == 0 or find_group(pid) == find_group(os.getpid())

    def take_back(self) -> None:
        """We are the service again."""
        self._is_mute = False
        self.ready()

    def _tell(self, *lines: str) -> None:
        if not self.address or self._is_mute:
            return
        # An abstract name is written with @ for its leading zero byte.
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.setblocking(False)
            line.sendto("\n".join(lines).encode("utf-8", "replace"), address)


def find_group(pid: int) -> tuple[str, ...]:
    """
    Of a process systemd's control group, () of one that we may not see: its path in the unified hierarchy, in the one
    that systemd has had before, or in both. See cgroups(7): number:name:path.
    """
    try:
        with open(CGROUPS.format(pid), encoding="utf-8", errors="replace") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return ()
    return tuple(path for _, name, path in lines if name in {"", "name=systemd"})


def take_listening_sockets(environ: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """The sockets systemd opened for this process, none when it opened none. To be called once."""
    pid = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isascii() or not count.isdigit():
        return []
    return [_adopt(fd) for fd in range(FIRST_FD, FIRST_FD + int(count))]


def _adopt(fd: int) -> socket.socket:
    os.set_inheritable(fd, False)
    listening = InheritedSocket(fileno=fd)
    listening.setblocking(False)
    return listening
