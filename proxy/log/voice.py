"""
What can be said, and the log that carries it to every sink.

Theory. A line is made when it is said and is where it belongs before the call returns (see sinks.py); a line nobody
wants to read, by its level, is not even made. Where lines go is a `Destination`, a value: a reload compares it with the
one in force and opens what is new before it lets go of the old, so a path that cannot be opened costs a warning and
not the log.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxy.log.lines import NO_FACTS, Facts, Format, Level, Writer, join_tag
from proxy.log.sinks import STDERR, FileSink, JournalSink, Sink, SyslogSink, copy_of, is_journal, open_file
from proxy.log.tags import Tag

FATAL, ERROR, WARNING, LOG, DEBUG, NOISE = Level

About = str | Tag | Callable[[], str | Tag]


class Voice:
    """What can be said, one method per level; `say` decides where it goes. `facts` are fields of a JSON line."""

    __slots__ = ()

    def say(self, level: Level, text: str, facts: Facts = NO_FACTS) -> None:
        raise NotImplementedError

    def for_socket(self, tag: "About") -> "Voice":
        """A voice whose lines begin with `tag` and a space; a callable is asked anew for each line."""
        raise NotImplementedError

    def fatal(self, text: str) -> None:
        """We cannot go on. (Ending the process is the caller's business.)"""
        self.say(FATAL, text)

    def error(self, text: str) -> None:
        self.say(ERROR, text)

    def warning(self, text: str) -> None:
        self.say(WARNING, text)

    def log(self, text: str, facts: Facts = NO_FACTS) -> None:
        """What an operator wants to read on an ordinary day."""
        self.say(LOG, text, facts)

    def debug(self, text: str) -> None:
        self.say(DEBUG, text)

    def noise(self, text: str) -> None:
        """What only somebody hunting a bug wants to read."""
        self.say(NOISE, text)

    def closing(self, reason: str, age: float) -> None:
        """A connection ends, `age` seconds old."""
        seconds = max(int(age), 0)
        self.say(LOG, f"closing because: {reason} (age={seconds}s)", {"reason": reason, "age": seconds})


@dataclass(frozen=True, slots=True)
class Destination:
    """
    Where lines go. `path` None: to stderr alone; with a path, to that file and, unless `is_quiet`, to stderr too.

    `facility` None: not to syslog. With it a process that is quiet needs no file.
    """

    path: str | None = None
    is_quiet: bool = False
    format: Format = Format.TEXT
    facility: str | None = None
    ident: str = ""

    @property
    def has_stderr(self) -> bool:
        return not self.is_quiet or (self.path is None and self.facility is None)


class Log(Voice):
    """
    The proxy's log. `level` may be changed at any time. OSError when the file of `destination` cannot be opened.

    `wall` gives seconds since 1970, `stderr` is a file descriptor: tests give their own.
    """

    __slots__ = ("_destination", "_is_json", "_sinks", "_stderr", "_unopened", "_writer", "level")

    def __init__(
        self,
        destination: Destination | str | None,
        level: Level = LOG,
        *,
        quiet: bool = False,
        wall: Callable[[], float] = time.time,
        stderr: int = STDERR,
    ) -> None:
        self.level = level
        self._writer = Writer(wall)
        self._stderr = stderr
        if not isinstance(destination, Destination):
            destination = Destination(destination, is_quiet=quiet)
        self._destination = destination
        self._is_json = destination.format is Format.JSON
        self._unopened = ""  # why the last reopening failed
        self._sinks = self._open(destination, {})

    def say(self, level: Level, text: str, facts: Facts = NO_FACTS) -> None:
        """Write one line, now. Does nothing when `level` matters less than the log's own."""
        if level <= self.level:
            self.write(level, "", text, facts)

    def for_socket(self, tag: About) -> Voice:
        return Tagged(self, tag)

    def write(self, level: Level, tag: Tag | str, text: str, facts: Facts) -> None:
        """One line to each sink, whatever its level; where some were lost, first how many."""
        line = self._build(level, tag, text, facts)
        for sink in self._sinks.values():
            if sink.lost:
                notice = f"{sink.lost} log lines were lost here: {sink.reason}"
                self._send(sink, self._build(WARNING, "", notice, NO_FACTS), WARNING, "", notice, is_notice=True)
            self._send(sink, line, level, tag, text)

    def _send(
        self, sink: Sink, line: bytes, level: Level, tag: Tag | str, text: str, *, is_notice: bool = False
    ) -> None:
        if isinstance(sink, SyslogSink | JournalSink):
            words = line.decode().rstrip() if self._is_json else join_tag(str(tag), text)  # it has a head of its own
            line = sink.build(level, words)
        sink.write(line, notice=is_notice)

    def _build(self, level: Level, tag: Tag | str, text: str, facts: Facts) -> bytes:
        if self._is_json:
            return self._writer.build_json(level, tag, text, facts)
        return self._writer.build_text(level, str(tag), text)

    # Where it goes.

    @property
    def trouble(self) -> str:
        """What does not get where it should; "" when all does."""
        lost = [f"{sink.lost} lines are lost: {sink.reason}" for sink in self._sinks.values() if sink.lost]
        return "; ".join(filter(None, [self._unopened, *lost]))

    @property
    def is_quiet(self) -> bool:
        return self._destination.is_quiet

    def direct(self, destination: Destination) -> None:
        """From here on lines go there. What is new is opened first; when that fails all stays as it was."""
        if destination == self._destination:
            return
        try:
            fresh = self._open(destination, self._sinks)
        except OSError as error:
            self.warning(f"cannot open the log file {destination.path}, keeping the old one: {error.strerror}")
            return
        for key, sink in self._sinks.items():
            if key not in fresh:
                sink.close()
        self._destination, self._sinks = destination, fresh
        self._is_json = destination.format is Format.JSON

    def _open(self, destination: Destination, known: dict[tuple[str, ...], Sink]) -> dict[tuple[str, ...], Sink]:
        """The sinks of `destination`, by what they are; those that are open already are taken from `known`."""
        makers: dict[tuple[str, ...], Callable[[], Sink]] = {}
        path, facility = destination.path, destination.facility
        if path is not None:
            makers[_FILE, path] = lambda: FileSink(lambda: open_file(path))
        if destination.has_stderr:
            kind = JournalSink if is_journal(self._stderr) else FileSink
            makers[(_STDERR,)] = lambda: kind(lambda: copy_of(self._stderr))
        if facility is not None:
            makers[_SYSLOG, facility, destination.ident] = lambda: SyslogSink(facility, destination.ident)
        return {key: known.get(key) or make() for key, make in makers.items()}

    def reopen(self) -> None:
        """Let go of the file and open its path again (log rotation). The old one stays when that fails."""
        self._unopened = ""
        for sink in self._sinks.values():
            try:
                sink.reopen()
            except OSError as error:
                self._unopened = f"cannot reopen the log, keeping the old one: {error.filename}: {error.strerror}"
                self.warning(self._unopened)

    def close(self) -> None:
        """After this nothing is written; saying something more is no error."""
        for sink in self._sinks.values():
            sink.close()
        self._sinks = {}


_FILE: Final = "file"
_STDERR: Final = "stderr"
_SYSLOG: Final = "syslog"


class Tagged(Voice):
    """One socket's voice: every line begins with who it is about."""

    __slots__ = ("_log", "_tag")

    def __init__(self, log: Log, tag: About) -> None:
        self._log = log
        self._tag = tag

    def say(self, level: Level, text: str, facts: Facts = NO_FACTS) -> None:
        if level <= self._log.level:
            self._log.write(level, self._tag() if callable(self._tag) else self._tag, text, facts)
