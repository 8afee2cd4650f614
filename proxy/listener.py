"""
Listening sockets: where clients arrive, over TCP, a Unix socket, or sockets that systemd opened for us.

Theory. We accept ourselves, from a reader callback, and give the event loop sockets that are connected. So we decide
what happens when the process runs out of descriptors: accepting pauses for `PAUSE` seconds with one warning, while
the kernel keeps the callers waiting; a listening socket that stays readable would otherwise spin the loop at full
speed. `ACCEPT_AT_ONCE` bounds what one turn of the loop spends on newcomers.

Sockets of ours speak one of IPv4 and IPv6, those of systemd often both. An IPv4 caller there has the address that he
has everywhere, from the first moment on: else all of them would be neighbours (guesses.py), and no rule would fit.
"""

import _socket
import asyncio
import contextlib
import errno
import grp
import os
import pwd
import socket
import struct
from collections.abc import Callable

from proxy.config.settings import Settings
from proxy.log import UNIX, Address, Voice, unmapped
from proxy.notify import InheritedSocket

ACCEPT_AT_ONCE = 32
PAUSE = 0.5  # seconds
DEFER_SECONDS = 45  # as PgBouncer; then the kernel gives up on a silent caller

Arrival = Callable[[socket.socket, Address], object]

_CREDENTIALS = struct.Struct("3i")  # of SO_PEERCRED: pid, uid, gid
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_NO_SUCH_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})  # a machine without IPv6


class Listener:
    """
    One listening socket. `arrive` is called with each connected socket and where it comes from.

    `port` stands for that of clients on a Unix socket, who have none.
    """

    def __init__(self, listening: socket.socket, arrive: Arrival, log: Voice, port: int = 0) -> None:
        self.socket = listening
        self.socket.setblocking(False)
        self._arrive = arrive
        self._log = log
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._resume: asyncio.TimerHandle | None = None
        self._kind = (int(listening.family), int(listening.type), listening.proto)
        self._is_resting = False  # somebody else takes the callers
        self._loop.add_reader(self.socket.fileno(), self._accept)

    def __str__(self) -> str:
        name = self.socket.getsockname()
        return str(Address(*name[:2])) if isinstance(name, tuple) else f"{UNIX}:{_printable_path(name)}"

    def rest(self) -> None:
        """Another process accepts on this socket; it stays open here, in case that one dies."""
        self._stop()
        self._is_resting = True

    def go_on(self) -> None:
        """Nobody else does any more."""
        if self._is_resting:
            self._is_resting = False
            self._loop.add_reader(self.socket.fileno(), self._accept)

    def _accept(self) -> None:
        arrive, kind = self._arrive, self._kind
        for _ in range(ACCEPT_AT_ONCE):
            try:
                descriptor, address = self.socket._accept()  # type: ignore[attr-defined]
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    self._log.error(f"cannot accept on {self}: {error}")
                self._pause(error)
                return
            connected = Connected(*kind, descriptor)
            connected._io_refs, connected._closed = 0, False
            if isinstance(address, tuple):
                arrive(connected, tuple.__new__(Address, (unmapped(address[0]), address[1])))
            else:
                arrive(connected, Address.of_unix(self._port, *peer_of(connected)))

    def _pause(self, error: OSError) -> None:
        self._log.warning(f"accepting on {self} pauses for {PAUSE:g}s: {error.strerror}")
        self._loop.remove_reader(self.socket.fileno())
        self._resume = self._loop.call_later(PAUSE, self._accept_again)

    def _accept_again(self) -> None:
        self._resume = None
        self._loop.add_reader(self.socket.fileno(), self._accept)

    def close(self) -> None:
        """Take no more callers. A Unix socket's path goes too, unless somebody else made it or is reached by it."""
        self._stop()
        name = self.socket.getsockname() if self.socket.fileno() >= 0 else None
        self.socket.close()
        is_ours = not isinstance(self.socket, InheritedSocket) and not self._is_resting
        if is_ours and isinstance(name, str) and name.startswith("/"):
            with contextlib.suppress(OSError):
                os.unlink(name)

    def _stop(self) -> None:
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        elif self.socket.fileno() >= 0 and not self._is_resting:
            self._loop.remove_reader(self.socket.fileno())


class Connected(socket.socket):
    """A socket that has been accepted. `socket.accept` makes enums of its family and type, which is an eighth of a
    login with trust; here they are plain numbers, and the two fields that `socket.socket` has beside its descriptor
    are set by whoever makes one. Whoever takes it over makes it non-blocking."""

    __slots__ = ()

    __init__ = _socket.socket.__init__
    family = _socket.socket.family  # type: ignore[assignment]
    type = _socket.socket.type  # type: ignore[assignment]


def peer_of(connected: socket.socket) -> tuple[int, int]:
    """The process at the other end of a Unix socket, and its account; 0 and -1 where the system does not tell."""
    try:
        credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except (OSError, AttributeError):  # macOS has another way
        return 0, -1
    pid, uid, _ = _CREDENTIALS.unpack(credentials)
    return pid, uid


def open_sockets(
    settings: Settings, owner: str = "", warn: Callable[[str], object] = lambda _: None
) -> list[socket.socket]:
    """
    All sockets the settings name, listening; `warn` hears of each that cannot be had. OSError: of the addresses none
    can, somebody else has our Unix socket, its rights cannot be set, or there is nothing to listen on at all.

    `owner` is whom root will become: the Unix socket is his, else unix_socket_mode = 0700 would shut out himself.
    """
    opened: list[socket.socket] = []
    try:
        opened += _open_tcp(settings, warn)
        if settings.unix_socket_dir:
            opened += _open_unix(settings, owner, warn)
        if not opened:
            raise OSError("nowhere to listen on: name a listen_addr or a unix_socket_dir")
    except OSError:
        for each in opened:
            each.close()
        raise
    return opened


def _open_tcp(settings: Settings, warn: Callable[[str], object]) -> list[socket.socket]:
    """
    One address fewer is no reason not to serve: `localhost` is ::1 too, which few containers have.

    A process that nobody reaches where he looks for it is of no use, though: without any of them it does not start.
    """
    found: list[socket.socket] = []
    failures: list[str] = []
    seen: set[object] = set()  # a name may stand for the same address twice
    for host in settings.listen_addr:
        for each in ["0.0.0.0", "::"] if host == "*" else [host]:  # noqa: S104 - what * asks for
            try:
                resolved = socket.getaddrinfo(
                    each, settings.listen_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
                )
            except (OSError, UnicodeError) as error:
                failures.append(f"cannot listen on {Address(each, settings.listen_port)}: {_words_of(error)}")
                continue
            for family, _, _, _, address in resolved:
                if (family, address) in seen:
                    continue
                seen.add((family, address))
                try:
                    found.append(_listen_tcp(family, address, settings))
                except OSError as error:
                    if each == "::" and host == "*" and error.errno in _NO_SUCH_FAMILY:
                        continue
                    hint = " (-R takes over from a pgshuttle)" if error.errno == errno.EADDRINUSE else ""
                    where = Address(str(address[0]), settings.listen_port)
                    failures.append(f"cannot listen on {where}: {_words_of(error)}{hint}")
    if failures and not found:
        raise OSError("; ".join(failures))
    for failure in failures:
        warn(failure)
    return found


def _listen_tcp(family: int, address: tuple[object, ...], settings: Settings) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        _bind_tcp(listening, address, settings)
    except OSError:
        listening.close()
        raise
    return listening


def _words_of(error: OSError | UnicodeError) -> str:
    """The system's words; its number says nothing to anybody."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _bind_tcp(listening: socket.socket, address: tuple[object, ...], settings: Settings) -> None:
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if listening.family == socket.AF_INET6:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if settings.so_reuseport:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listening.bind(address)
    listening.listen(settings.listen_backlog)


def _open_unix(settings: Settings, owner: str, warn: Callable[[str], object]) -> list[socket.socket]:
    """None where the folder cannot be used."""
    path = socket_path(settings)
    where = f"unix:{_printable_path(path)}"
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.startswith("/"):
            _remove_stale(path)
        listening.bind(path)
    except OSError as error:
        listening.close()
        failure = f"cannot listen on {where}: {_words_of(error)}"
        if error.errno == errno.EADDRINUSE:
            raise OSError(failure) from error
        warn(failure)
        return []
    try:
        if path.startswith("/"):
            _set_rights(path, settings, owner)
        listening.listen(settings.listen_backlog)
    except OSError as error:
        listening.close()
        raise OSError(f"cannot listen on {where}: {_words_of(error)}") from error
    return [listening]


def socket_path(settings: Settings) -> str:
    """Where the Unix socket is; an abstract one begins with a zero byte."""
    folder = settings.unix_socket_dir
    path = f"{folder}/.s.PGSQL.{settings.listen_port}"
    return "\0" + path[1:] if folder.startswith("@") else path


def _set_rights(path: str, settings: Settings, owner: str) -> None:
    os.chmod(path, settings.unix_socket_mode)
    if owner and os.geteuid() == 0:
        with contextlib.suppress(KeyError):  # nobody has that name: to become him will fail and say so
            user = pwd.getpwnam(owner)
            os.chown(path, user.pw_uid, user.pw_gid)
    if settings.unix_socket_group:
        try:
            group = grp.getgrnam(settings.unix_socket_group).gr_gid
        except KeyError:
            raise OSError(errno.EINVAL, f"no such group: {settings.unix_socket_group}") from None
        os.chown(path, -1, group)


def _remove_stale(path: str) -> None:
    """A socket file that nobody listens on is left over from a crash; one that answers belongs to somebody."""
    if not os.path.exists(path):
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    else:
        raise OSError(errno.EADDRINUSE, "somebody listens there already (-R takes over from a pgshuttle)")
    finally:
        probe.close()


def _printable_path(path: str | bytes) -> str:
    text = os.fsdecode(path)
    return "@" + text[1:] if text.startswith("\0") else text


def tune(connected: socket.socket, settings: Settings) -> None:
    """Keepalive and its kin on a connected TCP socket. Without tcp_keepalive its times mean nothing."""
    for level, name, value in _options(settings):
        if value:
            with contextlib.suppress(OSError, AttributeError):  # not every system has every option
                connected.setsockopt(level, getattr(socket, name), value)
    tune_buffers(connected, settings)


def tune_buffers(connected: socket.socket, settings: Settings) -> None:
    """Not inherited from the listening socket: once set there, the system's own way could not be had again."""
    if settings.tcp_socket_buffer:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            with contextlib.suppress(OSError):
                connected.setsockopt(socket.SOL_SOCKET, option, settings.tcp_socket_buffer)


def tune_all(listening: socket.socket, settings: Settings) -> None:
    """The same for everybody who will be accepted: a connection inherits these, which saves it a system call or more.

    What the settings no longer ask for goes back to the system's own value, which a fresh socket tells. With
    tcp_defer_accept the kernel keeps a caller until he has said something.
    """
    if listening.family == socket.AF_UNIX:
        return
    defer = (socket.IPPROTO_TCP, "TCP_DEFER_ACCEPT", DEFER_SECONDS if settings.tcp_defer_accept else None)
    with socket.socket(listening.family) as fresh:
        for level, name, value in (*_options(settings), defer):
            with contextlib.suppress(OSError, AttributeError):
                option = getattr(socket, name)
                listening.setsockopt(level, option, value or fresh.getsockopt(level, option))


def _options(settings: Settings) -> tuple[tuple[int, str, int | None], ...]:
    return (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", int(settings.tcp_keepalive)),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", settings.tcp_keepcnt),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", settings.tcp_keepidle),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", settings.tcp_keepintvl),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", settings.tcp_user_timeout),
    )
