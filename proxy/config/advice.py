"""
What a DBA should know who brings a file from PgBouncer: what is done differently, what is better done another way.

Theory. A rule is a row: the key it is about, when it applies, and the sentence. A rule speaks only where the file
itself sets the key, so a file that says little hears little; three sentences about what should have been said are the
exception. A NOTE is a setting that is honoured with a difference, ADVICE is something better than what is written, a
WARNING is something that is hardly meant. What is not acted on at all has its reason in the table of settings, and is a
warning too.

Nothing here shows a value of an entry: it may be a password.
"""

import enum
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from protocol.sharing import can_vouch
from proxy.config.entries import Database, User
from proxy.config.ini import Config
from proxy.config.kinds import AuthType, PoolMode, SessionState, is_private
from proxy.config.lines import Line, Mistake
from proxy.config.settings import MAIN_SECTIONS, SETTINGS, Settings

LOOPBACK: Final = ("127.", "::1", "localhost")


class Level(enum.StrEnum):
    """How grave a remark is; the words stand behind file and line, as a compiler's do."""

    ERROR = "error"  # the file cannot be used
    WARNING = "warning"  # it can, but something in it has no effect or is hardly meant
    NOTE = "note"  # honoured, with a difference
    ADVICE = "advice"  # there is something better


@dataclass(frozen=True, slots=True)
class Secrets:
    """How many users of the auth_file have a secret of each sort."""

    plain: int = 0
    md5: int = 0
    scram: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """`applies` gets what the rule is about (settings, or an entry and the settings)."""

    key: str
    level: Level
    applies: Callable[..., object]
    sentence: str


@dataclass(frozen=True, slots=True)
class Remark:
    """A sentence, how grave it is and where it belongs."""

    level: Level
    place: Mistake

    def __str__(self) -> str:
        file, line, sentence = self.place.file, self.place.line, self.place.sentence
        return str(Mistake(file, line, f"{self.level}: {sentence}"))


WARNING, NOTE, ADVICE = Level.WARNING, Level.NOTE, Level.ADVICE


def _is_tracking(settings: Settings) -> bool:
    return settings.session_state is SessionState.TRACK


def _is_open(settings: Settings) -> bool:
    return any(not address.startswith(LOOPBACK) for address in settings.listen_addr)


def _lets_all_in(settings: Settings) -> bool:
    return settings.auth_type in (AuthType.TRUST, AuthType.ANY)


def _maps_tokens(settings: Settings) -> bool:
    return settings.auth_type is AuthType.OAUTH and bool(settings.oauth_map)


def _is_read_by_all(path: str) -> bool:
    try:
        return bool(path) and bool(os.stat(path).st_mode & stat.S_IROTH)
    except (OSError, ValueError):
        return False  # a mistake, which has a sentence of its own


TRY_TRANSACTION: Final = (
    "pool_mode = session keeps a server for each connected client; transaction needs far fewer, and what sessions set"
    " follows their clients: run with session_state = audit first, SHOW AUDIT tells what would keep a server"
)

RULES: Final = (
    Rule("pool_mode", ADVICE, lambda s: s.pool_mode is PoolMode.SESSION and _is_tracking(s), TRY_TRANSACTION),
    Rule(
        "server_reset_query_always",
        ADVICE,
        lambda s: s.server_reset_query_always and _is_tracking(s),
        "server_reset_query_always is not needed with session_state = track: what a client sets is never met by others;"
        " without it each transaction saves a round trip",
    ),
    Rule(
        "ignore_startup_parameters",
        ADVICE,
        lambda s: s.ignore_startup_parameters and _is_tracking(s),
        "ignore_startup_parameters is not needed: all that PostgreSQL takes are taken, and replayed on each server;"
        " those named here are dropped and have no effect",
    ),
    Rule(
        "track_extra_parameters",
        ADVICE,
        _is_tracking,
        "track_extra_parameters is not needed with session_state = track: all parameters are followed",
    ),
    Rule(
        "max_prepared_statements",
        ADVICE,
        lambda s: not s.max_prepared_statements,
        "max_prepared_statements = 0 makes a client that names a statement keep its server; 200 is the default",
    ),
    Rule(
        "server_check_query",
        ADVICE,
        lambda s: (s.server_check_query or "").strip(" ;").lower() == "select 1",
        "server_check_query = <empty>, the default, costs the server less",
    ),
    Rule(
        "query_wait_timeout",
        ADVICE,
        lambda s: s.query_wait_timeout is None,
        "query_wait_timeout = 0 lets clients wait for ever when PostgreSQL is gone or too small",
    ),
    Rule(
        "auth_type",
        ADVICE,
        lambda s: s.auth_type is AuthType.PLAIN,
        "auth_type = plain has passwords travel as they are: scram-sha-256 serves the same users",
    ),
    Rule(
        "auth_type",
        ADVICE,
        lambda s: s.auth_type in (AuthType.LDAP, AuthType.PAM) and _is_open(s),
        "with this auth_type passwords travel from the client as they are: have it speak TLS",
    ),
    Rule(
        "auth_type",
        WARNING,
        lambda s: _lets_all_in(s) and _is_open(s),
        "this lets in everybody who can reach listen_addr, without a password",
    ),
    Rule(
        "auth_hba_file",
        WARNING,
        lambda s: s.auth_hba_file and s.auth_type is not AuthType.HBA,
        "auth_hba_file is not read: auth_type is another than hba, and the same for everybody",
    ),
    Rule(
        "auth_ident_file",
        WARNING,
        lambda s: s.auth_ident_file and s.auth_type is not AuthType.HBA and not _maps_tokens(s),
        "auth_ident_file is not read: its maps are named by the rules of auth_type = hba",
    ),
    *(
        Rule(
            name,
            WARNING,
            lambda s, name=name: _is_read_by_all(getattr(s, name)),
            f"every account of this machine may read what {name} names: chmod o-r",
        )
        for name in ("auth_file", "client_tls_key_file", "server_tls_key_file")
    ),
    Rule(
        "pipeline_depth",
        WARNING,
        lambda s: s.pipeline_depth > 1 and is_private(s.pool_mode, s.session_state),
        "pipeline_depth has no effect where pool_mode is session or session_state is audit: no server is shared there",
    ),
    Rule(
        "pipeline_functions",
        WARNING,
        lambda s: not all(map(can_vouch, s.pipeline_functions)),
        "a function with a digit in its name stays without a line: it cannot be told from others but for their digits",
    ),
    Rule(
        "reserve_pool_size",
        WARNING,
        lambda s: s.reserve_pool_size and s.reserve_pool_timeout is None,
        "reserve_pool_timeout = 0 means that the reserve is never used",
    ),
    Rule(
        "so_reuseport",
        NOTE,
        lambda s: s.so_reuseport,
        "each process has its own pools and limits: those of the file count for each of them",
    ),
    Rule(
        "min_pool_size",
        NOTE,
        lambda s: s.min_pool_size,
        "min_pool_size is held from the start on, also without clients, where the entry names its user",
    ),
    Rule(
        "server_login_retry",
        NOTE,
        lambda s: s.server_login_retry > 1,
        "server_login_retry is the longest pause after failed logins; the first are shorter",
    ),
    Rule(
        "server_lifetime",
        NOTE,
        lambda s: s.server_lifetime,
        "server_lifetime is cut by up to a tenth, by chance, so that servers do not all leave at once",
    ),
)

DATABASE_RULES: Final = (
    Rule("pool_mode", ADVICE, lambda d, s: d.pool_mode is PoolMode.SESSION and _is_tracking(s), TRY_TRANSACTION),
    Rule(
        "password",
        NOTE,
        lambda d, _: d.password is not None and d.user is None,
        "password without user is the password of all clients towards the server; PgBouncer ignores it",
    ),
    Rule(
        "min_pool_size",
        NOTE,
        lambda d, s: (d.min_pool_size or 0) > (_size(d, s) or d.min_pool_size or 0),
        "min_pool_size is more than pool_size: pool_size counts",
    ),
)

USER_RULES: Final = (
    Rule("pool_mode", ADVICE, lambda u, s: u.pool_mode is PoolMode.SESSION and _is_tracking(s), TRY_TRANSACTION),
    *(
        Rule(
            name,
            NOTE,
            lambda u, s, name=name: getattr(u, name) == 0 and getattr(s, name),
            f"{name} = 0 means no limit for this user; PgBouncer would take the common one",
        )
        for name in ("query_timeout", "transaction_timeout", "idle_transaction_timeout", "client_idle_timeout")
    ),
)


def advise(config: Config, lines: Iterable[Line], secrets: Secrets | None = None) -> list[Remark]:
    """All remarks about `config`, which `lines` are the text of."""
    last: dict[tuple[str, str], Line] = {}
    remarks = []
    for line in lines:
        name = (_section_of(line), line.key)
        if name in last:
            remarks.append(_remark(NOTE, last[name], f"{line.key[:80]} is said again in {_where(line)}: that counts"))
        last[name] = line
    for (section, key), line in last.items():
        remarks += _judge(config, section, key, line)
    remarks += _judge_secrets(config.settings, last.get(("main", "auth_type")), secrets)
    return [*remarks, *_judge_silence(config)]


def in_order(remarks: Iterable[Remark], files: tuple[str, ...]) -> list[Remark]:
    """By file as they were opened, then by line; what is about a file as a whole comes last."""
    order = {file: index for index, file in enumerate(files)}
    return sorted(
        remarks, key=lambda each: (not each.place.line, order.get(each.place.file, len(order)), each.place.line)
    )


def count_honoured(lines: Iterable[Line]) -> int:
    """How many different settings of the main section the file sets and we act on."""
    return sum(SETTINGS[key].acted for key in {line.key for line in lines if line.section in MAIN_SECTIONS})


def _section_of(line: Line) -> str:
    return "main" if line.section in MAIN_SECTIONS else line.section


def _where(line: Line) -> str:
    return f"{line.file}:{line.number}"


def _judge(config: Config, section: str, key: str, line: Line) -> Iterator[Remark]:
    """What the rules say about one setting or one entry."""
    if section == "main":
        rules = (rule for rule in RULES if rule.key == key and rule.applies(config.settings))
        yield from (_remark(rule.level, line, rule.sentence) for rule in rules)
    elif section in ("databases", "users"):
        entry, table = _entry_of(config, section, key)
        for rule in table:
            if rule.applies(entry, config.settings):
                yield _remark(rule.level, line, f"{key[:80]}: {rule.sentence}")


def _entry_of(config: Config, section: str, key: str) -> tuple[Database | User, tuple[Rule, ...]]:
    if section == "databases":
        return config.databases[key], DATABASE_RULES
    return config.users[key], USER_RULES


def _judge_secrets(settings: Settings, line: Line | None, secrets: Secrets | None) -> Iterator[Remark]:
    if line is None or secrets is None:
        return
    if settings.auth_type is AuthType.MD5 and secrets.scram and not secrets.plain + secrets.md5:
        yield _remark(ADVICE, line, "all secrets are SCRAM's: auth_type = scram-sha-256 says so, and refuses md5")
    if settings.auth_type is AuthType.SCRAM and secrets.md5:
        users = f"{secrets.md5} users have" if secrets.md5 > 1 else "1 user has"
        yield _remark(WARNING, line, f"{users} an md5 secret and cannot log in: auth_type = md5 serves both")


def _judge_silence(config: Config) -> Iterator[Remark]:
    """What should have been said."""
    settings = config.settings
    if not settings.admin_users:
        sentence = "admin_users is empty: nobody may RELOAD, PAUSE or KILL on the console"
        yield Remark(ADVICE, Mistake(config.path, 0, sentence))
    if not config.databases:
        yield Remark(WARNING, Mistake(config.path, 0, "there is no database: clients can reach the console only"))
    if not settings.listen_addr and not settings.unix_socket_dir:
        sentence = (
            "neither listen_addr nor unix_socket_dir is set: there is nowhere to listen on without sockets of systemd"
        )
        yield Remark(WARNING, Mistake(config.path, 0, sentence))


def _remark(level: Level, line: Line, sentence: str) -> Remark:
    return Remark(level, line.mistake(sentence))


def _size(database: Database, settings: Settings) -> int | None:
    """The size of its pools; None or 0 is no limit."""
    return settings.default_pool_size if database.pool_size is None else database.pool_size


def remarks_of(mistakes: Iterable[Mistake], level: Level) -> list[Remark]:
    return [Remark(level, mistake) for mistake in mistakes]
