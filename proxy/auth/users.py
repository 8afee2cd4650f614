"""
The auth_file: who may log in, and with which secrets.

Theory. The format is PgBouncer's, so that its file can be used as it is: one user a line,

    "name" "secret" whatever follows is ignored

where "" inside the quotes stands for one quote, and lines that are blank or begin with ; or # say nothing.
The secret is a password, an md5 or a SCRAM verifier (see protocol/passwords.py); an empty one is a user who
is known but cannot log in with a password.

A user may have several lines. PgBouncer lets the last one count; here all count, the last one first, so that
a password can be changed without a moment in which somebody is locked out.

A file with mistakes is no file: `read_users` raises BadUserFile with all of them, each with file and line,
and none with a secret in it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from protocol.codes import MAX_USER_LENGTH
from protocol.passwords import BadSecret, Md5, Plain, ScramVerifier, Secret, Stored, encode_text, parse_stored
from proxy.auth.turns import find_salts
from proxy.config.files import identify, read_bytes

MAX_FILE_SIZE: Final = 64 * 1024 * 1024  # some 500,000 users; more is a wrong path, as /dev/zero
MAX_USERS: Final = 500_000  # four seconds and 200 MB
MAX_SECRETS: Final = 8  # per user; each may cost a wrong password one PBKDF2
MAX_MISTAKES_SHOWN: Final = 20

_QUOTED = re.compile(r'\s*"((?:[^"]+|"")*+)"')  # possessive: half of a doubled quote never closes


class BadUserFile(Exception):
    """The auth_file cannot be used. `mistakes` are sentences beginning with file:line."""

    def __init__(self, mistakes: list[str]) -> None:
        more = len(mistakes) - MAX_MISTAKES_SHOWN
        self.mistakes = (*mistakes[:MAX_MISTAKES_SHOWN], *([f"and {more} more"] if more > 0 else []))
        super().__init__("\n".join(self.mistakes))


class _BadLine(Exception):
    pass


@dataclass(frozen=True, slots=True, repr=False)
class Users:
    """All users of an auth_file; their secrets, the one that counts first being first.

    `seen` says which state of which file they are from, as `files.identify` does.
    """

    secrets: Mapping[str, tuple[Stored, ...]]
    seen: tuple[int, ...] = field(default=(), compare=False)
    mostly_scram: bool = field(init=False)
    """Are most of the secrets SCRAM verifiers? Then an unknown user must meet SCRAM to look like the others."""
    several: tuple[int, ...] = field(init=False, repr=False)
    """How many salts those have who have more than one: so many of the unknown must have them too."""

    def __post_init__(self) -> None:
        counts = (len(find_salts(stored)) for stored in self.secrets.values() if len(stored) > 1)
        object.__setattr__(self, "several", tuple(count for count in counts if count > 1))
        firsts = [stored[0] for stored in self.secrets.values()]
        is_most = 2 * sum(isinstance(first, ScramVerifier) for first in firsts) > len(firsts)
        object.__setattr__(self, "mostly_scram", is_most)

    def secrets_of(self, user: str) -> tuple[Stored, ...]:
        """Empty for an unknown user, and only then."""
        return self.secrets.get(user, ())

    def password_of(self, user: str) -> Secret | Md5 | None:
        """What we can log in to PostgreSQL with as `user`: the password, else its md5, else nothing."""
        stored = self.secrets_of(user)
        plain = (each.secret for each in stored if isinstance(each, Plain) and each.secret)
        return next(plain, None) or next((each for each in stored if isinstance(each, Md5)), None)

    def count_salts(self, draw: float) -> int:
        """How many an unknown user has to whom chance has given `draw`, from 0 up to 1."""
        at = int(draw * len(self.secrets))
        return self.several[at] if at < len(self.several) else 1

    def __len__(self) -> int:
        return len(self.secrets)

    def __repr__(self) -> str:
        return f"Users({len(self)} users)"


NOBODY: Final = Users({})


def read_users(path: str) -> Users:
    """The users in the file at `path`. BadUserFile when it cannot be read or has mistakes. About 6 us a line."""
    seen = identify(path)  # before it is read: what is written meanwhile makes another file of it
    try:
        data = read_bytes(path, MAX_FILE_SIZE)
    except ValueError as error:
        raise BadUserFile([f"{path}: {error}"]) from error
    return replace(parse_users(data.decode("utf-8-sig", "surrogateescape"), path), seen=seen)


def parse_users(text: str, path: str) -> Users:
    """The users in `text`; `path` is for the mistakes."""
    secrets: dict[str, tuple[Stored, ...]] = {}
    mistakes = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            _add(secrets, line)
        except (_BadLine, BadSecret) as mistake:
            mistakes.append(f"{path}:{number}: {mistake}")
        if len(secrets) > MAX_USERS:
            mistakes.append(f"{path}:{number}: more than {MAX_USERS} users")
            break
    if mistakes:
        raise BadUserFile(mistakes)
    return Users(secrets)


def _add(secrets: dict[str, tuple[Stored, ...]], line: str) -> None:
    if not line.strip() or line.lstrip()[0] in ";#":
        return
    user, stored = _parse_line(line)
    known = secrets.get(user, ())
    if stored not in known and len(known) >= MAX_SECRETS:
        raise _BadLine(f'user "{user}" has more than {MAX_SECRETS} secrets')
    secrets[user] = (stored, *(each for each in known if each != stored))


def _parse_line(line: str) -> tuple[str, Stored]:
    name = _QUOTED.match(line)
    if name is None:
        begun = line.lstrip().startswith('"')
        raise _BadLine("the user name has no closing quote" if begun else "a user name in double quotes is missing")
    user = _unquote(name[1])
    _check_name(user)
    secret = _QUOTED.match(line, name.end())
    if secret is None:
        begun = line[name.end() :].lstrip().startswith('"')
        what = "the secret has no closing quote" if begun else "a secret in double quotes is missing"
        raise _BadLine(f'{what} (user "{user}")')
    if "\0" in secret[1]:
        raise _BadLine(f'a zero byte in the secret (user "{user}")')
    return user, parse_stored(_unquote(secret[1]))


def _check_name(user: str) -> None:
    if not user:
        raise _BadLine("the user name is empty")
    if len(encode_text(user)) > MAX_USER_LENGTH:
        raise _BadLine(f"the user name is longer than {MAX_USER_LENGTH} bytes")
    if any(char < " " for char in user):
        raise _BadLine("a control character in the user name")


def _unquote(text: str) -> str:
    return text.replace('""', '"')
