"""
What `pgshuttle --check FILE` says: every mistake, everything without effect, and whether the file can be used.

The file is read exactly as at start, and nothing is started. Reading an auth_file is the business of
`proxy.auth`, which this package may not know; whoever calls hands in how it is done.
"""

from collections.abc import Callable, Iterable

from proxy.config.ini import BadConfig, Config, read

MistakesOfUsers = Callable[[str], Iterable[str]]


def report(path: str, mistakes_of_users: MistakesOfUsers | None = None) -> tuple[list[str], bool]:
    """(lines to print, whether the file can be used). Each line but the last begins with file:line.

    `mistakes_of_users` gives the sentences about an auth_file, none when it is right; without it the
    auth_file is not looked at.
    """
    try:
        config = read(path)
    except BadConfig as bad:
        lines = [str(mistake) for mistake in (*bad.mistakes, *bad.warnings)]
        return [*lines, _verdict(path, len(bad.mistakes))], False
    lines = [str(warning) for warning in config.warnings]
    auth_file = config.settings.auth_file
    mistakes = list(mistakes_of_users(auth_file)) if mistakes_of_users and auth_file else []
    if mistakes:
        return [*lines, *mistakes, _verdict(path, len(mistakes))], False
    return [*lines, f"{path}: ok, {_contents(config)}"], True


def _verdict(path: str, count: int) -> str:
    return f"{path}: not usable, {_many(count, 'mistake')}"


def _contents(config: Config) -> str:
    databases, users = _many(len(config.databases), "database"), _many(len(config.users), "user")
    files, warnings = _many(len(config.files), "file"), _many(len(config.warnings), "warning")
    return f"{databases} and {users} with settings of their own, {files} read, {warnings}"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
