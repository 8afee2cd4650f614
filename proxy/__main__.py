"""
The command line: `pgshuttle [-d] [-R] [-q] [-v] [-u USER] [-V] [-h] [--check] proxy.ini`.

Theory. Everything that can be wrong is looked at before anything begins: the file with all its mistakes, the users,
the account we run as, the sockets. Only then the process detaches, so whoever starts it sees the mistakes on
the terminal and in the exit code (0 all well, 1 something is wrong, 2 the command line is). The log hears of them too
as soon as it is known where that is.
"""

import argparse
import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from protocol.passwords import Md5, Plain, ScramVerifier
from proxy.auth.extras import load
from proxy.auth.rulebook import Rulebook, look_at_rules, read_rulebook
from proxy.auth.users import BadUserFile, Users, read_users
from proxy.collector import settle_in
from proxy.config.advice import Secrets
from proxy.config.check import report
from proxy.config.ini import BadConfig, Config, read
from proxy.config.outside import MODULES
from proxy.config.settings import SETTINGS, Settings
from proxy.daemon import (
    PidFile,
    StartFailed,
    become_daemon,
    become_user,
    describe_build,
    describe_user,
    find_hard_limit,
    find_uid,
    keep_standard_fds_open,
    raise_open_files,
    schedule_as_batch,
    set_process_name,
)
from proxy.inherit import Inheritance, claim
from proxy.listener import open_sockets
from proxy.log import ERROR, FATAL, LOG, WARNING, Level, Log, mark
from proxy.main import Proxy
from proxy.notify import take_listening_sockets
from proxy.reloading import destination_of, read_users_of
from proxy.signals import install_signals
from proxy.tls import BadTls, Contexts, read_contexts

STDOUT = 1
DESCRIPTORS_OF_OUR_OWN = 64  # log, event loop, listening sockets, cancel requests under way


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="pgshuttle",
        description="A PostgreSQL connection pooler.",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # else the lines of --version would be joined
    )
    parser.add_argument("-d", "--daemon", action="store_true", help="run in the background (needs pidfile and a log)")
    parser.add_argument(
        "-R", "--reboot", action="store_true", help="take over from the running process, if there is one"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="with a logfile: nothing on stderr")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="log more; may be repeated")
    parser.add_argument("-u", "--user", default="", metavar="USER", help="run as this user")
    parser.add_argument("-V", "--version", action="version", version="\n".join(describe_build()))
    parser.add_argument("--check", action="store_true", help="read the file, say every mistake, start nothing")
    parser.add_argument("file", metavar="proxy.ini")
    return parser.parse_args(arguments)


def check(path: str) -> int:
    """What --check does: 0 when the file can be used, else 1."""
    lines, is_usable = report(path, _look_at_users, _look_at_tls, look_at_rules)
    levels = [_weigh(line) for line in lines]
    levels[-1] = LOG if is_usable else ERROR
    print("\n".join(f"{mark(level, STDOUT)}{line}" for level, line in zip(levels, lines, strict=True)))
    return 0 if is_usable else 1


def _weigh(line: str) -> Level:
    """What a remark's own word means to the journal, where a unit's --check is heard."""
    return ERROR if ": error: " in line else WARNING if ": warning: " in line else LOG


def _look_at_users(path: str) -> tuple[tuple[str, ...], Secrets]:
    """The mistakes in an auth_file, and how many secrets of each sort are in it: of each user the one that counts."""
    try:
        firsts = [type(stored[0]) for stored in read_users(path).secrets.values()]
    except BadUserFile as bad:
        return bad.mistakes, Secrets()
    return (), Secrets(firsts.count(Plain), firsts.count(Md5), firsts.count(ScramVerifier))


def _look_at_tls(config: Config) -> tuple[str, ...]:
    """The mistakes in what the settings of TLS name."""
    try:
        read_contexts(config)
    except BadTls as bad:
        return tuple(bad.mistakes)
    return ()


def start(options: argparse.Namespace) -> int:
    """Become what was asked for, and run until told to stop."""
    config: Config | None = None
    try:
        config = read(options.file)
        users, tls = read_users_of(config), read_contexts(config)
        user = options.user or config.settings.user
        if os.geteuid() == 0 and not user:
            raise StartFailed("running as root is refused: name another account with -u USER or user = in the file")
        has_log = config.settings.logfile or config.settings.syslog
        if options.daemon and not (has_log and config.settings.pidfile):
            raise StartFailed("-d needs pidfile =, and logfile = or syslog = 1, in the file")
        return _start(options, config, users, user, tls)
    except (BadConfig, BadUserFile, BadTls) as bad:
        reasons, prefix = [str(mistake) for mistake in bad.mistakes], ""
    except (StartFailed, OSError) as error:
        reasons, prefix = [_words_of(error)], "pgshuttle: "
    for reason in reasons:
        print(f"{mark(FATAL)}{prefix}{reason}", file=sys.stderr)
    if config is not None:
        _log_failure(config.settings, options.user, reasons)
    return 1


def _log_failure(settings: Settings, user: str, reasons: Sequence[str]) -> None:
    """
    Into the log, too: nobody sees the terminal of what a machine starts. By the account that would have run, as a file
    that root makes is one that this account cannot write to; where none is named the terminal must do.
    """
    user = user or settings.user
    if not (settings.logfile or settings.syslog) or (os.geteuid() == 0 and not user):
        return
    with contextlib.suppress(StartFailed, OSError):  # which may be the very reason
        if os.geteuid() == 0:
            become_user(user)
        log = Log(destination_of(settings, is_quiet=True))
        for reason in reasons:
            log.fatal(reason)
        log.close()


def _words_of(error: StartFailed | OSError) -> str:
    """Of a file the system says its number first and its name last."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _start(options: argparse.Namespace, config: Config, users: Users, user: str, tls: Contexts) -> int:
    rulebook = read_rulebook(config.settings)
    files = raise_open_files()
    loop_factory = _loop_factory()  # before we give up rights that reading it may need
    for method in (config.settings.auth_type, *(rule.method for rule in rulebook.rules)):
        load(MODULES.get(method, ()))  # the same
    activated = take_listening_sockets()
    inheritance = _claim(config, user, is_activated=bool(activated)) if options.reboot else None
    silent: list[str] = []  # what cannot be listened on: there is no log yet
    ready = inheritance.listeners if inheritance else activated
    sockets = ready or open_sockets(config.settings, user, silent.append)
    pid_file = PidFile(config.settings.pidfile) if config.settings.pidfile else None
    detach = become_daemon() if options.daemon else None
    if pid_file is not None and not (inheritance and inheritance.has_pid_file(pid_file.path)):
        pid_file.write()
    try:
        _live(
            options,
            config,
            users,
            user,
            Taken(sockets, silent, files, loop_factory, detach, pid_file, inheritance, bool(activated), tls, rulebook),
        )
    finally:
        if pid_file is not None:
            pid_file.remove()
    return 0


@dataclass(frozen=True)
class Taken:
    """
    What was taken before rights were given up. `files`: how many may be open, before and now; `silent`: the addresses
    that could not be had, and why.
    """

    sockets: list[socket.socket]
    silent: list[str]
    files: tuple[int, int]
    loop_factory: Callable[[], asyncio.AbstractEventLoop]
    detach: Callable[[], None] | None
    pid_file: PidFile | None
    inheritance: Inheritance | None
    is_activated: bool
    tls: Contexts
    rulebook: Rulebook


def _live(options: argparse.Namespace, config: Config, users: Users, user: str, taken: Taken) -> None:
    """With the rights of `user` and a log, until the end."""
    set_process_name(config.settings.job_name)  # while /proc/self is ours
    if user and os.geteuid() == 0:
        become_user(user)
    log = Log(destination_of(config.settings, is_quiet=options.quiet or options.daemon))
    if taken.detach is not None:
        taken.detach()
    log.log(f"running as {describe_user()}")
    if config.settings.batch_scheduling and not schedule_as_batch():
        log.log("batch_scheduling: not here; the process is scheduled as it was started")
    if user and describe_user().split(",")[0] != f"user {user}":
        log.warning(f"user {user} is asked for, which only root could become")
    for warning in (*config.warnings, *taken.rulebook.warnings, *taken.silent, *find_closed(config)):
        log.warning(str(warning))
    _warn_of_few_files(log, config, users, taken.files)
    if options.reboot and taken.inheritance is None:
        log.log("nobody serves here yet: starting as if without -R")
    proxy = Proxy(config, users, log, verbosity=options.verbose, tls=taken.tls)
    if config.settings.io_uring:
        _open_ring(proxy)
    proxy.gate.rulebook = taken.rulebook
    proxy.pid_file, proxy.is_activated = taken.pid_file, taken.is_activated
    with asyncio.Runner(loop_factory=taken.loop_factory) as runner:
        runner.run(_run(proxy, taken.sockets, taken.inheritance))


def find_closed(config: Config) -> list[str]:
    """What the account we run as may not read: the start had the rights of root for it, and a reload has not."""
    named = [getattr(config.settings, name) for name in SETTINGS if name.endswith("_file")]
    return [
        f"{path}: {describe_user()} may not read it: reloads will fail"
        for path in dict.fromkeys((*config.files, *filter(None, named)))
        if not os.access(path, os.R_OK)
    ]


def _open_ring(proxy: Proxy) -> None:
    """What is told to many goes out with one system call, if this kernel lets us."""
    why = proxy.outbox.open()
    if why:
        proxy.log.log(f"io_uring: not here ({why}); each peer has a system call of his own")


def _claim(config: Config, user: str, *, is_activated: bool) -> Inheritance | None:
    """What the running process gives us; None when there is none. StartFailed."""
    if is_activated:
        raise StartFailed(
            "-R cannot be used with socket activation, where systemd keeps the sockets: restart the service"
        )
    return claim(config.settings, {0, os.geteuid(), *find_uid(user)})


async def _run(proxy: Proxy, sockets: list[socket.socket], inheritance: Inheritance | None) -> None:
    install_signals(proxy)
    await proxy.start(sockets, inheritance)
    settle_in()
    await proxy.wait_gone()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's, or asyncio's own where uvloop has no build."""
    try:
        import uvloop  # noqa: PLC0415 - may be missing
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _warn_of_few_files(log: Log, config: Config, users: Users, files: tuple[int, int]) -> None:
    """Say so when the limit of open files is too low for what the file promises."""
    servers = 0
    for database in config.databases.values():
        size = database.pool_size if database.pool_size is not None else config.settings.default_pool_size
        servers += (size or 0) * (1 if database.user else max(len(users), 1))
    wanted = config.settings.max_client_conn + servers + DESCRIPTORS_OF_OUR_OWN
    clients = config.settings.max_client_conn
    log.log(
        f"kernel file descriptor limit: {files[1]} (hard: {find_hard_limit()}); max_client_conn: {clients},"
        f" max expected fd use: {wanted}"
    )
    if files[1] < wanted:
        log.warning(
            f"open files are limited to {files[1]}, but max_client_conn {clients} and up to {servers} servers"
            f" may need {wanted}: raise the limit (ulimit -n, LimitNOFILE=)"
        )


def run() -> None:
    """The entry point."""
    keep_standard_fds_open()
    options = parse_arguments(sys.argv[1:])
    sys.exit(check(options.file) if options.check else start(options))


if __name__ == "__main__":
    run()
