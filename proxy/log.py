"""
The log: one line per event, in PgBouncer's format, because people's scripts parse it.

    2026-11-22 12:30:00.123 UTC [4711] LOG C-0x55d0c8: shop/web@10.0.0.7:51234 login attempt: ...

Theory. A line is written with one `os.write` before the call returns: whoever reads the log after a client saw
an error finds the reason there. No buffer, no thread, no `logging`. The price is that a reader which stops
reading our stderr pipe stops us; a log file never does.

A line never lies about where it ends. Text comes from clients (user names, errors of hostile servers), so what is
not printable is escaped (line ends, terminal codes, marks that turn writing around), and it is capped: nobody can
forge a line, or fill the disk with one.

Logging never fails the proxy. A full disk or a closed stderr costs lines, which are counted; the first line that
gets through again is preceded by one that says how many are missing.
"""

import enum
import fcntl
import os
import time
from collections.abc import Callable

TEXT_LIMIT = 8192  # characters of one line's text
TAG_LIMIT = 256  # characters of a tag: a long user name must not crowd out what happened to him
_STDERR = 2


class Level(enum.IntEnum):
    """How much a line matters. A log shows its own level and everything that matters more."""

    FATAL = 0
    ERROR = 1
    WARNING = 2
    LOG = 3
    DEBUG = 4
    NOISE = 5


FATAL, ERROR, WARNING, LOG, DEBUG, NOISE = Level
_NAMES = tuple(level.name for level in Level)


class Voice:
    """What can be said, one method per level; `say` decides where it goes."""

    __slots__ = ()

    def say(self, level: Level, text: str) -> None:
        raise NotImplementedError

    def fatal(self, text: str) -> None:
        """We cannot go on. (Ending the process is the caller's business.)"""
        self.say(FATAL, text)

    def error(self, text: str) -> None:
        self.say(ERROR, text)

    def warning(self, text: str) -> None:
        self.say(WARNING, text)

    def log(self, text: str) -> None:
        """What an operator wants to read on an ordinary day."""
        self.say(LOG, text)

    def debug(self, text: str) -> None:
        self.say(DEBUG, text)

    def noise(self, text: str) -> None:
        """What only somebody hunting a bug wants to read."""
        self.say(NOISE, text)


class Log(Voice):
    """
    The proxy's log. `path` None writes to stderr alone; with a path lines go to the file and, unless `quiet`,
    to stderr too. `level` may be changed at any time. OSError when the file cannot be opened.

    `wall` gives seconds since 1970, `stderr` is a file descriptor: tests give their own.
    """

    __slots__ = ("_second", "_sinks", "_stamp", "_wall", "_zone", "level")

    def __init__(
        self,
        path: str | None,
        level: Level = LOG,
        *,
        quiet: bool = False,
        wall: Callable[[], float] = time.time,
        stderr: int = _STDERR,
    ) -> None:
        self.level = level
        self._wall = wall
        self._second = -1
        self._stamp = self._zone = ""
        self._sinks: list[_Sink] = []
        if path is not None:
            self._sinks.append(_Sink(lambda: _open_file(path)))
        if path is None or not quiet:
            self._sinks.append(_Sink(lambda: _copy_of(stderr)))

    def say(self, level: Level, text: str) -> None:
        """Write one line, now. Does nothing when `level` matters less than the log's own."""
        if level <= self.level:
            line = self._line(level, text)
            for sink in self._sinks:
                if sink.lost:
                    sink.write(self._line(WARNING, f"{sink.lost} log lines were lost here: {sink.reason}"), notice=True)
                sink.write(line)

    def for_socket(self, tag: str | Callable[[], str]) -> "Tagged":
        """A voice whose lines begin with `tag` and a space; a callable is asked anew for each line."""
        return Tagged(self, tag)

    def reopen(self) -> None:
        """Let go of the file and open its path again (log rotation). The old one stays when that fails."""
        for sink in self._sinks:
            try:
                sink.reopen()
            except OSError as error:
                self.warning(f"cannot reopen the log, keeping the old one: {error}")

    def close(self) -> None:
        """After this nothing is written; saying something more is no error."""
        for sink in self._sinks:
            sink.close()
        self._sinks = []

    def _line(self, level: Level, text: str) -> bytes:
        now = self._wall()
        second = int(now)
        if second != self._second:  # strftime costs 3 us, ten times the rest of the line
            self._second = second
            moment = time.localtime(second)
            self._stamp = time.strftime("%Y-%m-%d %H:%M:%S", moment)
            self._zone = time.strftime("%Z", moment)
        millis = int((now - second) * 1000)
        # The pid is asked for each time: a daemon's is not that of the process that made the log.
        line = f"{self._stamp}.{millis:03d} {self._zone} [{os.getpid()}] {_NAMES[level]} {printable(text)}\n"
        return line.encode()


class Tagged(Voice):
    """One socket's voice: every line begins with who it is about."""

    __slots__ = ("_log", "_tag")

    def __init__(self, log: Log, tag: str | Callable[[], str]) -> None:
        self._log = log
        self._tag = tag

    def say(self, level: Level, text: str) -> None:
        if level <= self._log.level:
            tag = self._tag if isinstance(self._tag, str) else self._tag()
            self._log.say(level, f"{tag[:TAG_LIMIT]} {text}")


def printable(text: str, limit: int = TEXT_LIMIT) -> str:
    """`text` on one line of at most `limit` characters and a remark: `\\n`, `\\x1b`, `\\u202e` stand for themselves."""
    if len(text) <= limit and text.isprintable():
        return text
    shown = "".join(map(_printable_character, text[:limit]))
    left_out = len(text) - limit if len(text) > limit else 0
    if left_out or len(shown) > limit:
        shown = f"{shown[:limit]}... ({len(text)} characters)"
    return shown


def _printable_character(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


class _Sink:
    """One place where lines go, and what could not be written there."""

    __slots__ = ("_fd", "_is_torn", "_open", "lost", "reason")

    def __init__(self, opener: Callable[[], int]) -> None:
        self._open = opener
        self._is_torn = False  # the last line stands there without its end
        self.lost = 0
        self.reason = ""
        self._fd = opener()

    def write(self, line: bytes, *, notice: bool = False) -> None:
        """Write all of `line`, or count it as lost. A `notice` tells of the lost ones: then the count begins anew."""
        rest = b"\n" + line if self._is_torn else line
        whole = len(rest)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            self._is_torn = self._is_torn or len(rest) < whole
            self.lost += 0 if notice else 1
            self.reason = error.strerror or "unknown error"
            return
        self._is_torn = False
        if notice:
            self.lost = 0

    def reopen(self) -> None:
        fresh = self._open()
        self.close()
        self._fd = fresh

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open_file(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _copy_of(fd: int) -> int:
    """
    Our own descriptor of an open file, or -1 when it is closed.

    A copy, because a descriptor that somebody closes is given to the next socket: then the log would go to a client.
    """
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError:
        return -1
