"""
The rules in force: what auth_hba_file and auth_ident_file say, read as a whole or not at all.

Theory. PgBouncer leaves out a line it does not understand, with a warning, and goes on with the others. A line left out
may be the one that rejects, so here a file with a mistake is no file: all mistakes are told at once, each with file and
line, a start is refused, and a reload keeps the rules that were. What is read is bounded: lines, bytes and depth
(fields.py), and the steps that all regular expressions of the files may cost one login.

A rule that is about nobody (an earlier one is about all of his callers, there is no TLS, its map has no lines) lets
nobody in and is only a warning; so is the first `peer` where the kernel does not tell us all accounts. With another
auth_type than hba the files are not read, but for the map of oauth_map.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from proxy.auth.accounts import sees_all_accounts
from proxy.auth.fields import BadLine, Line, Reader
from proxy.auth.hba import parse_rule
from proxy.auth.ident import Maps, gather, parse_entry
from proxy.auth.pattern import Pattern
from proxy.auth.rules import HOSTSSL, ClientCert, Method, Rule, find_unreached
from proxy.config.ini import BadConfig
from proxy.config.kinds import AuthType, SslMode
from proxy.config.lines import Mistake
from proxy.config.outside import OAUTH_OPTIONS, check_options, why_not_served
from proxy.config.settings import Settings

MAX_STEPS: Final = 5_000  # instructions of all patterns of the rules; each may be taken once per character of a name

SEES_NOT_ALL: Final = (
    "peer: this process runs in a user namespace that leaves accounts out (PrivateUsers= of systemd, a rootless"
    " container): whoever comes from one of those is nobody here"
)

OF_RULES: Final = frozenset(
    {"auth_type", "auth_hba_file", "auth_ident_file", "client_tls_sslmode", "client_tls_ca_file"}
    | {"auth_ldap_options", "pam_service", *(f"oauth_{name}" for name in OAUTH_OPTIONS)}
)
"""The settings that say which rules there are, or whether they can be kept."""


@dataclass(frozen=True, slots=True)
class Rulebook:
    """Rules in order, the maps they name, the files all of it is from."""

    rules: tuple[Rule, ...] = ()
    maps: Maps = field(default_factory=dict)
    files: tuple[str, ...] = field(default=(), compare=False)
    warnings: tuple[Mistake, ...] = field(default=(), compare=False)

    def describe_change(self, new: "Rulebook") -> str:
        """What `new` in our place means, for the log; "" when it is the same."""
        if self == new:
            return ""
        before, after = Counter(map(_key, self.rules)), Counter(map(_key, new.rules))
        added, removed = (after - before).total(), (before - after).total()
        parts = [f"{added} added, {removed} removed"]
        if not added and not removed and self.rules != new.rules:
            parts = ["in another order"]
        if self.maps != new.maps:
            parts.append("the user name maps differ")
        return f"{len(new.rules)} rules, {', '.join(parts)}"


NO_RULES: Final = Rulebook()


def read_rulebook(settings: Settings) -> Rulebook:
    """What the settings name. BadConfig: a file cannot be read or is not right in every line."""
    if settings.auth_type is AuthType.OAUTH and settings.oauth_map:
        return _read_map_alone(settings)
    if settings.auth_type is not AuthType.HBA:
        return NO_RULES
    if not settings.auth_hba_file:
        sentence = "auth_type is hba and there is no auth_hba_file: nobody could log in"
        raise BadConfig((Mistake(settings.conffile, 0, sentence),))
    reader, ident_reader = Reader(), Reader()
    rules = tuple(_read_rules(settings, reader))
    maps = _read_maps(settings.auth_ident_file, ident_reader)
    if mistakes := (*reader.mistakes, *ident_reader.mistakes):
        raise BadConfig(mistakes)
    files = (*reader.files, *ident_reader.files)
    return Rulebook(rules, maps, files, tuple(_find_warnings(settings, rules, maps)))


def _read_map_alone(settings: Settings) -> Rulebook:
    """Without rules: oauth_map is a map too."""
    reader = Reader()
    maps = _read_maps(settings.auth_ident_file, reader)
    if reader.mistakes:
        raise BadConfig(tuple(reader.mistakes))
    if settings.oauth_map not in maps:
        sentence = f"oauth_map: no line of auth_ident_file is about the map {settings.oauth_map[:80]!r}"
        raise BadConfig((Mistake(settings.conffile, 0, sentence),))
    return Rulebook(maps=maps, files=tuple(reader.files))


def look_at_rules(settings: Settings) -> tuple[tuple[Mistake, ...], tuple[Mistake, ...]]:
    """For --check: what is wrong with the files the settings name, and what is hardly meant."""
    try:
        return (), read_rulebook(settings).warnings
    except BadConfig as bad:
        return bad.mistakes, ()


def _read_rules(settings: Settings, reader: Reader) -> Iterator[Rule]:
    steps = 0
    for line in reader.lines(settings.auth_hba_file):
        try:
            rule = parse_rule(line, why_not_served)
            _check_certificates(rule, settings)
            _check_options(rule, settings)
            steps += count_steps(rule)
            if steps > MAX_STEPS:
                raise BadLine(f"the regular expressions up to here are too large: more than {MAX_STEPS} steps")
        except BadLine as bad:
            reader.note(line.mistake(str(bad)))
        else:
            yield rule


def count_steps(rule: Rule) -> int:
    """What its patterns may cost for one character of a name."""
    patterns: Sequence[Pattern] = (*rule.databases.patterns, *rule.users.patterns)
    return sum(len(pattern.program) for pattern in patterns)


def _check_certificates(rule: Rule, settings: Settings) -> None:
    if rule.client_cert is not ClientCert.UNASKED and not settings.client_tls_ca_file:
        raise BadLine("certificates of clients are checked with client_tls_ca_file, and there is none")


def _check_options(rule: Rule, settings: Settings) -> None:
    try:
        check_options(settings, rule.method, rule.options)
    except ValueError as error:
        raise BadLine(str(error)) from None


def _read_maps(path: str, reader: Reader) -> Maps:
    entries = []
    lines: Iterator[Line] = reader.lines(path) if path else iter(())
    for line in lines:
        try:
            entries.append(parse_entry(line))
        except BadLine as bad:
            reader.note(line.mistake(str(bad)))
    return gather(entries)


def _find_warnings(settings: Settings, rules: Sequence[Rule], maps: Maps) -> Iterator[Mistake]:
    """Rules that let nobody in, or not those they are meant for."""
    unreached = {id(rule): earlier for rule, earlier in find_unreached(rules)}
    is_warned_of_peer = sees_all_accounts()
    for rule in rules:
        if sentence := _why_in_vain(settings, rule, unreached.get(id(rule)), maps):
            yield Mistake(rule.place.file, rule.place.line, sentence)
        elif rule.method is Method.PEER and not is_warned_of_peer:
            is_warned_of_peer = True
            yield Mistake(rule.place.file, rule.place.line, SEES_NOT_ALL)


def _why_in_vain(settings: Settings, rule: Rule, earlier: Rule | None, maps: Maps) -> str:
    if earlier is not None:
        return f"this rule is about nobody: the one at {earlier} is about all of its callers"
    if rule.record is HOSTSSL and settings.client_tls_sslmode is SslMode.DISABLE:
        return "this rule is about nobody: client_tls_sslmode is disable"
    name = rule.options.get("map", "")
    if name and name not in maps:
        return f"this rule lets nobody in: no line of auth_ident_file is about the map {name[:80]!r}"
    return ""


def _key(rule: Rule) -> tuple[object, ...]:
    options = tuple(sorted(rule.options.items()))
    return rule.record, rule.databases, rule.users, rule.address, rule.method, options
