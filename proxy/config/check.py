"""
What `pgshuttle --check FILE` says: mistakes, what has no effect or another one than PgBouncer's, advice, a summary.

Each line but the last is `file:line: level: sentence`, as compilers write them, so that editors find the place. The
file is read exactly as at start, and nothing is started. Reading an auth_file or rules is the business of `proxy.auth`,
and that of certificates of `proxy.tls`, which this package may not know; whoever calls hands in how it is done.
"""

from collections import Counter
from collections.abc import Callable

from proxy.config.advice import Level, Remark, Secrets, advise, count_honoured, in_order
from proxy.config.ini import BadConfig, Config, read
from proxy.config.lines import Mistake, Reader
from proxy.config.settings import Settings

LookAtUsers = Callable[[str], tuple[tuple[str, ...], Secrets]]
"""Gives the sentences about an auth_file, each with file and line, none when it is right; and which secrets it has."""

LookAtRules = Callable[[Settings], tuple[tuple[Mistake, ...], tuple[Mistake, ...]]]
"""Gives what is wrong with auth_hba_file and auth_ident_file, and the warnings about them."""

LookAtTls = Callable[[Config], tuple[str, ...]]
"""Gives the sentences about certificates and their kin, none when TLS can be spoken as the file wants it."""


def report(
    path: str,
    look_at_users: LookAtUsers | None = None,
    look_at_tls: LookAtTls | None = None,
    look_at_rules: LookAtRules | None = None,
) -> tuple[list[str], bool]:
    """(lines to print, whether the file can be used). What is not handed in is not looked at."""
    try:
        config = read(path)
    except BadConfig as bad:
        remarks = [*_all(bad.mistakes, Level.ERROR), *_all(bad.warnings, Level.WARNING)]
        return [*map(str, remarks), _verdict(path, len(bad.mistakes))], False
    auth_file = config.settings.auth_file
    mistakes, secrets = look_at_users(auth_file) if look_at_users and auth_file else ((), None)
    mistakes += look_at_tls(config) if look_at_tls else ()
    bad_rules, odd_rules = look_at_rules(config.settings) if look_at_rules else ((), ())
    lines = list(Reader().lines(path))
    remarks = in_order([*_all(config.warnings, Level.WARNING), *advise(config, lines, secrets)], config.files)
    remarks += [*_all(odd_rules, Level.WARNING), *_all(bad_rules, Level.ERROR)]
    said = [*map(str, remarks), *map(_as_error, mistakes)]
    if mistakes or bad_rules:
        return [*said, _verdict(path, len(mistakes) + len(bad_rules))], False
    counts = Counter(remark.level for remark in remarks)
    return [*said, f"{path}: ok, {_contents(config, count_honoured(lines), counts)}"], True


def _all(mistakes: tuple[Mistake, ...], level: Level) -> list[Remark]:
    return [Remark(level, mistake) for mistake in mistakes]


def _as_error(mistake: str) -> str:
    """The level in its place: behind file and line, which end with the first ": "."""
    place, _, sentence = mistake.partition(": ")
    return f"{place}: {Level.ERROR}: {sentence}"


def _verdict(path: str, count: int) -> str:
    return f"{path}: not usable, {_many(count, 'mistake')}"


def _contents(config: Config, honoured: int, counts: Counter[Level]) -> str:
    databases, users = _many(len(config.databases), "database"), _many(len(config.users), "user")
    files, settings = _many(len(config.files), "file"), _many(honoured, "setting")
    warnings, notes = _many(counts[Level.WARNING], "warning"), _many(counts[Level.NOTE], "note")
    advice = f"{counts[Level.ADVICE]} pieces of advice" if counts[Level.ADVICE] != 1 else "1 piece of advice"
    return (
        f"{databases} and {users} with settings of their own, {files} read;"
        f" {settings} honoured, {warnings}, {notes}, {advice}"
    )


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
