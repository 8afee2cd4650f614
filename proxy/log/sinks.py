"""
Where lines go: a file or stderr, and syslog.

Theory. Logging never fails the proxy. A full disk, a closed stderr or a syslog daemon that is away costs lines, which
are counted (`lost`, and `reason`); the first line that gets through again is preceded by one that says how many are
missing.

To a file or stderr a line is written with one `os.write` before the call returns: whoever reads the log after a client
saw an error finds the reason there. No buffer, no thread. The price is that a reader which stops reading our stderr
pipe stops us; a log file never does. Syslog is a datagram to /dev/log, never waited for: a daemon that is slow or
gone loses lines and does not stop us.

Where systemd has connected stderr with its journal, which knows the time and the process, a line has no head but its
severity (sd-daemon(3)), which the journal takes off and keeps: else `journalctl -p warning` would show none of ours.
PgBouncer's lines look the same there.
"""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

from proxy.log.lines import Level

DEV_LOG: Final = "/dev/log"
STDERR: Final = 2
FACILITIES: Final = {
    "kern": 0, "user": 1, "mail": 2, "daemon": 3, "auth": 4, "syslog": 5, "lpr": 6, "news": 7, "uucp": 8, "cron": 9,
    "authpriv": 10, "ftp": 11, "local0": 16, "local1": 17, "local2": 18, "local3": 19, "local4": 20, "local5": 21,
    "local6": 22, "local7": 23,
}  # fmt: skip
_SEVERITIES: Final = {
    Level.FATAL: 2, Level.ERROR: 3, Level.WARNING: 4, Level.LOG: 6, Level.DEBUG: 7, Level.NOISE: 7,
}  # fmt: skip
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Sink:
    """One place where lines go, and what could not be written there."""

    __slots__ = ("lost", "reason")

    def __init__(self) -> None:
        self.lost = 0
        self.reason = ""

    def write(self, line: bytes, *, notice: bool = False) -> None:
        """Write all of `line`, or count it as lost. A `notice` tells of the lost ones: then the count begins anew."""
        try:
            self._write(line)
        except OSError as error:
            self.lost += 0 if notice else 1
            self.reason = error.strerror or "unknown error"
        else:
            self.lost = 0 if notice else self.lost

    def _write(self, line: bytes) -> None:
        raise NotImplementedError

    def reopen(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class FileSink(Sink):
    """A file descriptor, and how to get a new one. OSError when there is none to begin with."""

    __slots__ = ("_fd", "_is_torn", "_open")

    def __init__(self, opener: Callable[[], int]) -> None:
        super().__init__()
        self._open = opener
        self._is_torn = False  # the last line stands there without its end
        self._fd = opener()

    def _write(self, line: bytes) -> None:
        rest = b"\n" + line if self._is_torn else line
        whole = len(rest)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            self._is_torn = self._is_torn or len(rest) < whole
            raise
        self._is_torn = False

    def reopen(self) -> None:
        fresh = self._open()
        self.close()
        self._fd = fresh

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class JournalSink(FileSink):
    """stderr, with the journal at its other end."""

    __slots__ = ()

    def build(self, level: Level, text: str) -> bytes:
        return f"<{_SEVERITIES[level]}>{text}\n".encode()


class SyslogSink(Sink):
    """The syslog daemon, by its socket. It may come and go; lines said while it is away are lost."""

    __slots__ = ("_facility", "_ident", "_path", "_socket")

    def __init__(self, facility: str, ident: str, path: str = DEV_LOG) -> None:
        super().__init__()
        self._facility = FACILITIES[facility] << 3
        self._ident = ident
        self._path = path
        self._socket: socket.socket | None = None

    def build(self, level: Level, text: str) -> bytes:
        """What libc's syslog(3) sends. The day is padded with a blank, the month is English in every locale."""
        now = time.localtime()
        stamp = f"{_MONTHS[now.tm_mon - 1]} {now.tm_mday:2d} {time.strftime('%H:%M:%S', now)}"
        return f"<{self._facility | _SEVERITIES[level]}>{stamp} {self._ident}[{os.getpid()}]: {text}".encode()

    def _write(self, line: bytes) -> None:
        try:
            self._connected().send(line)
        except OSError as error:
            if isinstance(error, BlockingIOError):
                raise  # it is there, and slow
            self.close()
            self._connected().send(line)  # a daemon that was restarted has a new socket

    def _connected(self) -> socket.socket:
        if self._socket is None:
            line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            line.setblocking(False)
            try:
                line.connect(self._path)
            except OSError:
                line.close()
                raise
            self._socket = line
        return self._socket

    def reopen(self) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None


def open_file(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def find_trouble(path: str) -> str:
    """Why no line can be written to a file there; "" when it can. Nothing is made."""
    folder = os.path.dirname(path) or "."
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK))
    except FileNotFoundError:
        if not os.path.isdir(folder):
            return f"there is no folder {folder}"
        return "" if os.access(folder, os.W_OK | os.X_OK) else f"no file can be made in {folder}"
    except OSError as error:
        return error.strerror or "unknown error"
    return ""


def is_journal(fd: int, environ: Mapping[str, str] = os.environ) -> bool:
    """Is that the journal, as the one who started us says (systemd.exec(5): $JOURNAL_STREAM)?"""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def mark(level: Level, fd: int = STDERR) -> str:
    """What stands in front of a line that is written there without a log: in the journal how much it matters."""
    return f"<{_SEVERITIES[level]}>" if is_journal(fd) else ""


def copy_of(fd: int) -> int:
    """
    Our own descriptor of an open file, or -1 when it is closed.

    A copy, because a descriptor that somebody closes is given to the next socket: then the log would go to a client.
    """
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError:
        return -1
